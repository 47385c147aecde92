"""What the runs of all sources share: figures, and a database that goes away in their midst. Not here: any source."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import ONE_DAY, midnight, now_utc
from event_archive.errors import ClocksError, EventArchiveError, UnreachableError
from event_archive.postgres.catalogue.server import clock
from event_archive.postgres.session import Connection, Postgres, Session
from event_archive.sources.former import Former
from event_archive.sources.landing import Counts

RECONNECT_SECONDS = (1, 2, 4, 8, 15, 30)
"""Between attempts to reach a database that went away; after that the run ends."""
AWAY_SECONDS = 60.0
"""After so long, too: of a server that is full or starting up each attempt takes a quarter of it."""
AGES_SECONDS = 60.0
"""How long it is taken for true which days are aged: a run may take longer than until midnight."""

_MOST_APART = timedelta(hours=1)
"""By how much the database's clock and this machine's may differ."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class RunTotals:
    """What a run did.

    Attributes:
        counts: what became of the records.
        seconds: how long it took.
        ended: ``complete``, or why not: ``interrupted``, ``budget``, ``failed``, and what a source adds.
        failures: why it, or a part of it, was not read to its end.
    """

    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    ended: str = "complete"
    failures: list[EventArchiveError] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.counts.taken / self.seconds if self.seconds else 0.0


def wait(seconds: float, told_to_stop: Callable[[], bool]) -> None:
    """Waits, until somebody stops it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not told_to_stop():
        time.sleep(0.1)


def work_connected(
    postgres: Postgres,
    work: Callable[[Session, Former], None],
    *,
    done: Callable[[], int],
    told_to_stop: Callable[[], bool],
    meanwhile: str = "",
    not_of_the_database: tuple[type[UnreachableError], ...] = (),
) -> None:
    """Does some work on a connection, and again on another one where the database went away.

    Args:
        postgres: the database.
        work: goes on from what was committed, each time; takes down what it is about to commit.
        done: how much has been committed; where that grew, the waits begin anew.
        told_to_stop: ends the waiting.
        meanwhile: what is said beside the reason.
        not_of_the_database: errors of something else that is out of reach, which are raised at once.

    Raises:
        UnreachableError: the database is away for longer than a run waits.
        EventArchiveError: as the work raises it.
    """
    attempt, former = 0, Former()
    since: float | None = None
    while True:
        before = done()
        try:
            with postgres.session() as session:
                former.succeeded_by(session, told_to_stop)
                since = None
                work(session, former)
            return
        except not_of_the_database:
            raise
        except UnreachableError as away:
            attempt = 0 if done() > before else attempt
            since = time.monotonic() if since is None else since
            if attempt == len(RECONNECT_SECONDS) or time.monotonic() - since > AWAY_SECONDS or told_to_stop():
                raise
            _log.warning("%s%s", away, meanwhile)
            wait(RECONNECT_SECONDS[attempt], told_to_stop)
            attempt += 1


@dataclass(frozen=True, slots=True)
class AgedTimes:
    """Which times are of days that are aged, and archived: those from ``since`` on, before ``until``.

    What is older than ``since`` is of no day that is archived: it is in no file, and never purged.
    """

    since: datetime
    until: datetime

    def __contains__(self, instant: datetime) -> bool:
        """Whether a time is of such a day."""
        return self.since <= instant < self.until


NONE_AGED = AgedTimes(*[datetime.max.replace(tzinfo=UTC)] * 2)
"""No time at all."""


class DayAgedError(Exception):
    """A day has come of age since a batch was read: what had arrived of it may be purged by now."""


def aged_times(
    session: Session, datasets: Iterable[Dataset], table: TableName, *, only_looks: bool = False
) -> AgedTimes:
    """Which rows of a table are aged, by the clock of the database, as the purge has it.

    None of them where no dataset archives it.

    Args:
        session: with the database.
        datasets: what is archived.
        table: where records land.
        only_looks: nothing is taken in by it: this machine's clock is not asked.

    Raises:
        ClocksError: that clock and this machine's are far apart.
        UnreachableError, BusyError, RefusedError: as ``Postgres.transaction``.
    """
    with session.transaction(str(table)) as connection:
        return aged_by_now(connection, datasets, table, only_looks=only_looks)


def aged_by_now(
    connection: Connection, datasets: Iterable[Dataset], table: TableName, *, only_looks: bool = False
) -> AgedTimes:
    """As ``aged_times``, at this moment of a transaction, which may have begun on the day before."""
    dataset = next((of for of in datasets if of.table == table), None)
    if dataset is None:
        return NONE_AGED
    now, ours = clock(connection), now_utc()
    if abs(now - ours) > _MOST_APART and not only_looks:
        # What is aged by one that is ahead is in no file, and would be lost; what is not by one that is behind may be.
        raise ClocksError(
            f"{table}: the database's clock says {now:%Y-%m-%d %H:%M} UTC, and this machine's {ours:%Y-%m-%d %H:%M}. "
            "Nothing more is taken in, since nobody can tell which days are archived. Set the one that is wrong; "
            "`event-archive doctor` looks at both."
        )
    return aged_at(now, [dataset], table)


def aged_at(now: datetime, datasets: Iterable[Dataset], table: TableName) -> AgedTimes:
    """As ``aged_times``, at another moment of the database's clock."""
    dataset = next((of for of in datasets if of.table == table), None)
    if dataset is None:
        return NONE_AGED
    return AgedTimes(midnight(dataset.start), midnight(dataset.retention.last_aged_day(now) + ONE_DAY))

"""What the runs of all sources share: figures, and a database that goes away in their midst. Not here: any source."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import ONE_DAY, midnight
from event_archive.errors import EventArchiveError, UnreachableError
from event_archive.postgres.session import Connection, Postgres, Session, one
from event_archive.sources.landing import Counts

RECONNECT_SECONDS = (1, 2, 4, 8, 15, 30)
"""Between attempts to reach a database that went away; after that the run ends."""

OUR_OWN_SECONDS = 30.0
"""How long a lock is waited for that the run itself had before its connection broke: the server may not know yet."""
_LOOK_SECONDS = 0.2
_NUMBER = "SELECT pg_catalog.txid_current()"
# A server that was restored, or was a replica, has never had a later one.
_STATUS = "SELECT CASE WHEN %s < pg_catalog.txid_current() THEN pg_catalog.txid_status(%s) END"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Doubt:
    """The latest transaction of a run, which may have committed though the connection broke before anybody heard of it.

    What it landed is counted once it is known to have committed: by its own end, or on the next connection.

    Attributes:
        held: names of what the run's session has locked; it may outlive its connection for a while.
    """

    held: set[str] = field(default_factory=set)
    _number: int = 0
    _count: Callable[[], None] | None = None
    _unlocks: str | None = None

    def note(self, connection: Connection, count: Callable[[], None], unlocks: str | None = None) -> None:
        """Takes down a transaction, just before its commit, and what counts what it landed.

        Args:
            connection: in the transaction.
            count: counts it.
            unlocks: which of ``held`` its commit lets go.
        """
        self._number, self._count, self._unlocks = one(connection, _NUMBER)[0], count, unlocks

    def committed(self) -> None:
        """It has committed: it is counted, once."""
        count, self._count = self._count, None
        self.held -= {self._unlocks}
        if count is not None:
            count()

    def look(self, session: Session, told_to_stop: Callable[[], bool] = lambda: False) -> None:
        """Counts a transaction whose connection broke, if it has committed; waits a while for one that goes on."""
        if self._count is None:
            return
        until = time.monotonic() + OUR_OWN_SECONDS
        while True:
            with session.transaction("what was landed last") as connection:
                (status,) = one(connection, _STATUS, self._number, self._number)
            if status != "in progress" or time.monotonic() > until or told_to_stop():
                break
            time.sleep(_LOOK_SECONDS)
        if status == "committed":
            self.committed()
        self._count = None


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
    work: Callable[[Session, Doubt], None],
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
    attempt, doubt = 0, Doubt()
    while True:
        before = done()
        try:
            with postgres.session() as session:
                doubt.look(session, told_to_stop)
                work(session, doubt)
            return
        except not_of_the_database:
            raise
        except UnreachableError as away:
            attempt = 0 if done() > before else attempt
            if attempt == len(RECONNECT_SECONDS) or told_to_stop():
                raise
            _log.warning("%s%s", away, meanwhile)
            wait(RECONNECT_SECONDS[attempt], told_to_stop)
            attempt += 1


def aged_before(session: Session, datasets: Iterable[Dataset], table: TableName) -> datetime | None:
    """The time before which a table's rows are aged, by the clock of the database, as the purge has it.

    None where no dataset archives it.

    Raises:
        UnreachableError, BusyError, RefusedError: as ``Postgres.transaction``.
    """
    retention = next((of.retention for of in datasets if of.table == table), None)
    if retention is None:
        return None
    with session.transaction(str(table)) as connection:
        (now,) = one(connection, "SELECT pg_catalog.now()")
    return midnight(retention.last_aged_day(now) + ONE_DAY)

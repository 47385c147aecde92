"""What the table still has: which aged days, how many rows. Only reads.

Here: the questions of the schedule, the command line and ``aged_events``. Not here: what is done about the answers;
rows of no day (``orphans``).
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from event_archive.domain.dataset import Dataset
from event_archive.domain.days import now_utc
from event_archive.domain.wording import counted
from event_archive.errors import BusyError
from event_archive.nightly.orphans import report_orphans
from event_archive.postgres.catalogue.relations import size_bytes
from event_archive.postgres.catalogue.server import clock, earlier_now
from event_archive.postgres.session import Connection, Postgres
from event_archive.table.advice import ARCHIVE_ADVICE, LOOK_ADVICE
from event_archive.table.holds import held_days
from event_archive.table.partitions import waiting_days
from event_archive.table.rows import (
    Orphans,
    RowsOfDay,
    count_day,
    count_orphans,
    days_with_rows,
    has_rows,
    rows_by_day,
)
from event_archive.table.shape import Table, reflect
from event_archive.table.windows import letting_go

logger = logging.getLogger(__name__)

# A sensor asks, which Dagster gives a minute: the last probe may begin when all have taken 20 s, and take 10 s more.
_ONE_PROBE_SECONDS = 10
_ALL_PROBES_SECONDS = 20
_NEARLY_THE_SAME = timedelta(seconds=1)
"""As far as two clocks that are right may differ, and a tick at midnight is on its day by both."""


def aged_at(dataset: Dataset, days: Sequence[date], postgres: Postgres) -> datetime:
    """The time at which days that somebody names are aged: the earlier of this machine's clock and the database's.

    Raises:
        NotAgedError: one is not, or lies before the first day that is archived.
        RefusedError, UnreachableError, BusyError: as PostgreSQL says; the table cannot be archived.
    """
    with postgres.transaction(str(dataset.table), advice=LOOK_ADVICE) as connection:
        reflect(connection, dataset)
        at = earlier_now(connection)
    for day in days:
        dataset.require_aged(day, at)
    return at


def aged_rows(dataset: Dataset, day: date, postgres: Postgres) -> RowsOfDay:
    """Counts the rows of one day.

    Raises:
        NotAgedError: the day is too young, or before the first that is archived.
        RefusedError, UnreachableError, BusyError: as PostgreSQL says.
    """
    dataset.require_aged(day, now_utc())
    with postgres.transaction(f"{dataset.table}, {day}", advice=ARCHIVE_ADVICE) as connection:
        table = reflect(connection, dataset)
        return count_day(connection, table, day)


@dataclass(frozen=True, slots=True)
class DaysToDo:
    """What is left to do.

    Attributes:
        days: aged days that have rows, oldest first.
        held: days that are held, whether they have rows or not.
        waiting: days whose rows stay until all of their partition is aged.
        at: the time at which they are aged, by this machine's clock and the database's.
    """

    days: list[date]
    held: set[date]
    waiting: set[date]
    at: datetime

    @property
    def staying(self) -> set[date]:
        """The days of which nothing can be purged at present."""
        return self.held | self.waiting


def days_to_do(dataset: Dataset, now: datetime, postgres: Postgres, *, timeout_seconds: float = 0) -> DaysToDo:
    """The aged days that still have rows, and the held ones. Rows of no day are reported.

    Args:
        dataset: whose table it is.
        now: decides which days are aged, less what this machine's clock is ahead of the database's; aware.
        postgres: the events.
        timeout_seconds: how long it may take in all; 0 for no limit.

    Raises:
        BusyError: it took longer; names the index that is missing, if one is.
        RefusedError, UnreachableError: as PostgreSQL says.
    """
    table: Table | None = None
    until = time.monotonic() + timeout_seconds if timeout_seconds else None
    try:
        with postgres.transaction(
            str(dataset.table), statement_timeout_seconds=timeout_seconds, advice=ARCHIVE_ADVICE
        ) as connection:
            table = reflect(connection, dataset)
            at = _by_both_clocks(connection, now)
            last_aged = dataset.retention.last_aged_day(at)
            days = days_with_rows(connection, table, dataset.start, last_aged, until=until)
            held = held_days(connection, dataset)
            waiting = waiting_days(connection, table, days, last_aged)
    except BusyError as error:
        if table is None or table.time_indexed:
            raise
        raise BusyError(
            f"{dataset.table}: finding the days that have rows took longer than {timeout_seconds:g} s, because no "
            f"index begins with the time column. What to do: {table.missing_index()}"
        ) from error
    left_seconds = max(1.0, until - time.monotonic()) if until else 0
    report_orphans(dataset, postgres, timeout_seconds=left_seconds)
    return DaysToDo(days, held, waiting, at)


def _by_both_clocks(connection: Connection, now: datetime) -> datetime:
    """A time, less what this machine's clock is ahead of the database's: what is aged by then is so by either."""
    ahead = now_utc() - clock(connection)
    return now - ahead if ahead > _NEARLY_THE_SAME else now


def days_without_rows(dataset: Dataset, days: Sequence[date], postgres: Postgres, *, among: int = 1) -> list[date]:
    """Those of some days that have no row, in their order; a probe of the index each, where there is one.

    What is not known after half a minute, which ``among`` datasets share, is left out, with a warning.

    Raises:
        RefusedError, UnreachableError: as PostgreSQL says.
    """
    until, empty = time.monotonic() + _ALL_PROBES_SECONDS / among, list[date]()
    try:
        with postgres.transaction(
            str(dataset.table), statement_timeout_seconds=_ONE_PROBE_SECONDS / among, advice=ARCHIVE_ADVICE
        ) as connection:
            table = reflect(connection, dataset)
            for place, day in enumerate(days):
                if time.monotonic() >= until:
                    unseen = f"{len(days) - place} of {len(days)}"
                    logger.warning("%s: whether %s days have rows could not be seen in time", dataset.label, unseen)
                    break
                with letting_go(connection):
                    if not has_rows(connection, table, day):
                        empty.append(day)
    except BusyError as error:
        logger.warning("whether days have rows could not be seen in time: %s", error)
    return empty


@dataclass(frozen=True, slots=True)
class AgedDays:
    """What a table has of aged days, held ones among them; not the backlog, which is what of it is late.

    Attributes:
        rows: of each day that has any.
        held: the days that are held.
        waiting: the days whose rows stay until all of their partition is aged.
        orphans: rows that no day will ever archive.
        at: when they were; aware.
    """

    rows: dict[date, int]
    held: set[date]
    waiting: set[date]
    orphans: Orphans
    at: datetime


def rows_of_aged_days(dataset: Dataset, now: datetime, postgres: Postgres, *, timeout_seconds: float = 0) -> AgedDays:
    """How many rows each aged day has.

    Args:
        dataset: whose table it is.
        now: decides which days are aged, less what this machine's clock is ahead of the database's; aware.
        postgres: the events.
        timeout_seconds: how long each of its few queries may take; 0 for no limit.

    Raises:
        RefusedError, UnreachableError, BusyError: as PostgreSQL says.
    """
    with postgres.transaction(
        str(dataset.table), statement_timeout_seconds=timeout_seconds, advice=LOOK_ADVICE
    ) as connection:
        table = reflect(connection, dataset)
        at = _by_both_clocks(connection, now)
        last_aged = dataset.retention.last_aged_day(at)
        rows = rows_by_day(connection, table, dataset.start, last_aged)
        waiting = waiting_days(connection, table, rows, last_aged)
        return AgedDays(rows, held_days(connection, dataset), waiting, count_orphans(connection, table), at)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Days that ought to be done: they came of age some time ago, have rows, and neither are held nor wait.

    Attributes:
        days: how many.
        rows: that they have.
        oldest: the first of them; None where there is none.
        held_days: days of that age that have rows because somebody holds them.
        table_bytes: what the table takes on disk.
    """

    days: int
    rows: int
    oldest: date | None
    held_days: int
    table_bytes: int = 0

    def message(self, dataset: Dataset) -> str:
        """A sentence for people; empty where there is no backlog."""
        if not self.days:
            return ""
        days = counted(
            self.days, f"aged day since {self.oldest} still has", f"aged days since {self.oldest} still have"
        )
        in_order = "on, that no run fails or is dry, and that no day waits for another dataset"
        return (
            f"{dataset.label}: {days} {counted(self.rows, 'row', 'rows')}. Check that the schedule is "
            f"{in_order if dataset.name else 'on and no run fails or is dry'}; if there are just too many days, raise "
            f"{dataset.setting('MAX_DAYS_PER_RUN')}."
        )


def backlog(dataset: Dataset, now: datetime, postgres: Postgres, *, grace_days: int) -> Backlog:
    """The days that came of age more than ``grace_days`` ago and still have rows.

    Raises:
        RefusedError, UnreachableError, BusyError: as PostgreSQL says.
    """
    with postgres.transaction(str(dataset.table), advice=ARCHIVE_ADVICE) as connection:
        table = reflect(connection, dataset)
        at = _by_both_clocks(connection, now)
        # After a shorter month several days come of age in one night.
        last_late = dataset.retention.last_aged_day(at - timedelta(days=grace_days))
        rows = rows_by_day(connection, table, dataset.start, last_late)
        held = held_days(connection, dataset)
        waiting = waiting_days(connection, table, rows, dataset.retention.last_aged_day(at))
        table_bytes = size_bytes(connection, table.oid)
    late = sorted(rows.keys() - held - waiting)
    return Backlog(
        days=len(late),
        rows=sum(rows[day] for day in late),
        oldest=late[0] if late else None,
        held_days=len(rows.keys() & held),
        table_bytes=table_bytes,
    )

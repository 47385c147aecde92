"""Which partitions may be dropped with an aged day in place of its rows: now, later, or not at all.

Here: what must hold of the partitions, and of every other day of which they hold rows, before a file is read back. Not
here: the proof and the DROP (``dropping``), why a partition is unfit (``table.partitions``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import psycopg

from event_archive.domain.manifest import stored_rows
from event_archive.domain.record import Record
from event_archive.domain.wording import counted
from event_archive.errors import FileChangedError, IntegrityError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.proof import require_recorded
from event_archive.operations.site import Site
from event_archive.postgres.catalogue.partitions import Partition
from event_archive.postgres.catalogue.server import earlier_now
from event_archive.postgres.errors import is_of_a_function, without_values
from event_archive.postgres.session import Connection
from event_archive.table.holds import hold_on
from event_archive.table.locks import lock_day
from event_archive.table.partitions import (
    ends_in_time,
    has_rows_of,
    partition_rows_by_day,
    partitions_of,
    passed_over,
    told,
    unfit,
)
from event_archive.table.rows import count_day, rows_by_day
from event_archive.table.shape import Table

Recorded = Callable[[date], Record | None]
"""What the latest archive of a day recorded of its file; None where nothing was recorded."""

MOST_WAITING = timedelta(days=7)
"""For how long an archived day waits for days of its partition that are not archived; then its rows are deleted."""
_REFUSALS = (
    psycopg.errors.DependentObjectsStillExist,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.ObjectInUse,
    psycopg.errors.RaiseException,
    psycopg.errors.UndefinedTable,
    psycopg.errors.WrongObjectType,
)
"""PostgreSQL's errors for which a partition stays; those of functions are others, as of event triggers."""


class PartitionStaysError(Exception):
    """The partition stays, and the reason why. The day's rows are to be deleted as ever."""


class PartitionWaitsError(Exception):
    """The partition is dropped later, and the reason why. No row is to be deleted until then."""


def stays(error: psycopg.Error) -> PartitionStaysError:
    """The reason why a partition stays, where PostgreSQL or a function refuses; any other error is raised again."""
    if isinstance(error, _REFUSALS) or is_of_a_function(error):
        return PartitionStaysError(without_values(error))
    raise error


def stays_for_another_day(error: IntegrityError | FileChangedError) -> PartitionStaysError:
    """The reason why a partition stays where another day's file is no proof. The rows of the day itself are deleted."""
    return PartitionStaysError(f"{error.problem} {error.advice}")


@dataclass(frozen=True, slots=True)
class OtherDay:
    """A day of which the partitions hold rows, too: its file, and what was recorded of that.

    Attributes:
        day: the day.
        file: its own.
        record: of that file.
        left: rows of the day that lie in other partitions, and so stay: a day of a time zone is none of UTC.
    """

    day: date
    file: StoredFile
    record: Record
    left: int = 0


@dataclass(frozen=True, slots=True)
class Drop:
    """What is to be dropped once it is proven.

    Attributes:
        day: that is purged.
        partitions: which hold all rows of the day.
        beside: partitions that are not aged yet: by another zone they begin on the day, but hold no row of it.
        others: the other days of which the partitions hold rows.
    """

    day: date
    partitions: list[Partition]
    beside: list[Partition]
    others: list[OtherDay]


def plan_drop(
    connection: Connection, site: Site, table: Table, day: date, file: StoredFile, recorded: Recorded | None
) -> Drop:
    """Sees which partitions may go with a day, and takes the locks of all other days of which they hold rows.

    Args:
        connection: in the transaction of the purge, which has the day's lock and has seen that the day is aged.
        site: the dataset, with its lake.
        table: its shape; not locked, nor is it afterwards.
        day: the day.
        file: the day's.
        recorded: what is recorded of other days; None where nothing is kept: their files' manifests count then.

    Raises:
        PartitionStaysError, PartitionWaitsError: not now.
        RefusedError, UnreachableError: as the lake says.
    """
    try:
        with connection.transaction():
            partitions, beside = _partitions(connection, table, day)
            rows = _rows(connection, table, partitions, day)
            patient = datetime.now(UTC) - file.modified < MOST_WAITING
            others = [
                _other_day(connection, site, other, rows[other], day, recorded, patient=patient)
                for other in rows
                if other != day
            ]
            return Drop(day, partitions, beside, _with_rows_left(connection, table, others, rows))
    except psycopg.Error as error:
        raise stays(error) from None


def _partitions(connection: Connection, table: Table, day: date) -> tuple[list[Partition], list[Partition]]:
    """The partitions that may be dropped, and those beside them that hold no row of the day."""
    found = partitions_of(connection, table, day)
    if not found:
        raise PartitionStaysError("it lies in no partition of a range of the time column that ends somewhere")
    retention = table.dataset.retention
    last_aged = retention.last_aged_day(earlier_now(connection))
    aged = [of for of in found if of.last <= last_aged]
    beside = [of for of in found if aged and of.last > last_aged and not has_rows_of(connection, table, of, day)]
    holding = [of for of in found if of not in beside]
    for partition in holding:
        if why_not := unfit(connection, table, partition) or passed_over(connection, table, partition):
            raise PartitionStaysError(why_not)
    if endless := next((of for of in holding if not ends_in_time(of, day)), None):
        raise PartitionStaysError(f"{told(endless)} goes on for more than a year after it")
    if waits := next((of for of in holding if of.last > last_aged), None):
        raise PartitionWaitsError(
            f"{told(waits)} is dropped when all of it is aged, on {retention.comes_of_age(waits.last)}"
        )
    return aged, beside


def _rows(connection: Connection, table: Table, partitions: Sequence[Partition], day: date) -> dict[date, int]:
    """How many rows of each day the partitions hold. Leaves no lock behind."""
    rows: dict[date, int] = {}
    with connection.transaction(force_rollback=True):
        for partition in partitions:
            for of, number in partition_rows_by_day(connection, table, partition).items():
                if of is None:
                    have = counted(number, "row that is", "rows that are")
                    raise PartitionStaysError(f"{told(partition)} holds {have} of no day that is archived")
                rows[of] = rows.get(of, 0) + number
        if count_day(connection, table, day).rows != rows.get(day, 0):
            raise PartitionStaysError("some of its rows lie in other partitions")
    return rows


def _with_rows_left(
    connection: Connection, table: Table, others: list[OtherDay], rows: dict[date, int]
) -> list[OtherDay]:
    """The other days, with what the table holds of them beside the partitions. Leaves no lock behind."""
    if not others:
        return []
    in_all = rows_by_day(connection, table, min(of.day for of in others), max(of.day for of in others))
    return [replace(of, left=max(0, in_all.get(of.day, 0) - rows[of.day])) for of in others]


def _other_day(
    connection: Connection,
    site: Site,
    day: date,
    rows: int,
    purged: date,
    recorded: Recorded | None,
    *,
    patient: bool,
) -> OtherDay:
    dataset = site.dataset
    # Only ever for an earlier day, so that two purges do not wait for one another.
    try:
        free = lock_day(connection, dataset, day, wait=day < purged)
    except psycopg.errors.LockNotAvailable:
        free = False
    if not free:
        raise PartitionWaitsError(f"another command is working on {day}, which lies in the same partition")
    if hold_on(connection, dataset, day) is not None:
        raise PartitionStaysError(f"{day}, which lies in the same partition, is held")
    file = site.lake.stat(dataset.path(day))
    try:
        record = _record(day, file, recorded)
        if file is None or record is None:
            words = f"{day}, which lies in the same partition, is not archived"
            raise (
                PartitionWaitsError(f"{words} yet")
                if patient
                else PartitionStaysError(f"{words}, though this day was, over a week ago")
            )
        require_recorded(site, day, file, record)
    except IntegrityError as error:
        raise stays_for_another_day(error) from None
    if rows > record.rows:
        raise PartitionStaysError(f"{day}, which lies in the same partition, has rows that are not archived")
    return OtherDay(day, file, record)


def _record(day: date, file: StoredFile | None, recorded: Recorded | None) -> Record | None:
    if recorded:
        return recorded(day)
    return Record(file.etag, stored_rows(file) or 0) if file else None

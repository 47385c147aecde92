"""Drops the partitions of an aged day in place of deleting their rows. The stakes: what this module drops is gone.

All in the transaction of the purge. First, without a lock on the table: every day of which the partitions hold rows is
aged, locked, not held, and its file read back. Then SHARE on the partitions, under which nobody writes to them and
everybody reads: every row in them is identical to the file of its own day. Last, ACCESS EXCLUSIVE on the table, for no
longer than the DROP and the commit take.

An application must never wait long, nor lose a deadlock to us. Nobody is waited for with a partition in hand; who waits
for the partitions makes us give up; and we wait for the table for half of ``deadlock_timeout`` at a time: whoever waits
for us in a circle that long is not yet looked at by PostgreSQL, which would end one of the two. DROP and not DETACH:
that locks the tables that the partition refers to.

Not here: the DELETE of rows (``purge``), which rows a file holds (``readback``), why a partition is unfit
(``table.partitions``).
"""

import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial

import psycopg
from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive.domain.progress import Progress
from event_archive.domain.record import Record
from event_archive.domain.source import Claim
from event_archive.domain.wording import counted
from event_archive.errors import BusyError, FileChangedError, IntegrityError
from event_archive.operations.drop_plan import Drop, OtherDay, PartitionStaysError, stays, stays_for_another_day
from event_archive.operations.proof import prove, require_recorded
from event_archive.operations.readback import ARCHIVED, Readback
from event_archive.operations.site import Site
from event_archive.postgres.catalogue import timescale
from event_archive.postgres.catalogue.columns import columns
from event_archive.postgres.catalogue.partitions import Partition, any_left, is_awaited
from event_archive.postgres.pins import own_search_path
from event_archive.postgres.session import Connection, one
from event_archive.table.partitions import count_rows, partitions_of, passed_over, rows_in, told, unfit
from event_archive.table.shape import TIME_TYPES, Table, require_unchanged

_FIRST_PAUSE_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_PATIENCE = 10
"""The table's lock is asked for again and again for so many times the lock timeout: nobody waits for us meanwhile."""
# A lock timeout of 1 ms at the least: 0 would be none.
_SET_LOCK_TIMEOUT = """
SELECT pg_catalog.set_config('lock_timeout', greatest(1, (setting::float8 * %s)::int8)::text || 'ms', true)
FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'
"""
_ALTERED = "its partitions were altered meanwhile"


def drop_proven(
    connection: Connection,
    site: Site,
    table: Table,
    drop: Drop,
    record: Record,
    readback: Readback,
    claimed: Claim,
    progress: Progress,
) -> int:
    """Drops partitions, every row of which is identical to the last of its key in the file of its day.

    Args:
        connection: in the transaction of the purge, which has the locks of all days.
        site: the dataset, with its database and its lake.
        table: its shape.
        drop: what is to be dropped.
        record: of the day that is purged.
        readback: of its file.
        claimed: whose the files are.
        progress: is told of every block that is read.

    Returns:
        How many rows were in them.

    Raises:
        PartitionStaysError: a row is not; or the partitions cannot be dropped. Nothing was.
        IntegrityError: the day's own file is not the one that was recorded any more.
        BusyError, RefusedError, UnreachableError: as PostgreSQL or the lake says.
    """
    try:
        with connection.transaction():
            readbacks = {drop.day: readback}
            for other in drop.others:
                readbacks[other.day] = _prove_other(connection, site, table, other, claimed, progress)
            progress.begin("comparing and deleting")
            keep_writers_out(connection, drop.partitions)
            # No lock on the table, for which whoever alters it may wait for us.
            altered = columns(connection, table.oid) != table.columns
            if altered or set(partitions_of(connection, table, drop.day)) != {*drop.partitions, *drop.beside}:
                raise PartitionStaysError(_ALTERED)
            rows = sum(_count_proven(connection, table, of, readbacks) for of in drop.partitions)
            files = partial(_require_files, site, drop, record)
            drop_locked(connection, site, table, drop.day, drop.partitions, files=files)
            return rows
    except psycopg.Error as error:
        raise stays(error) from None


def _prove_other(
    connection: Connection, site: Site, table: Table, other: OtherDay, claimed: Claim, progress: Progress
) -> Readback:
    into = sql.Identifier("pg_temp", f"event_archive_readback_{other.day:%Y_%m_%d}")
    try:
        return prove(connection, table, site.lake, other.day, other.file, other.record, claimed, progress, into=into)
    except (IntegrityError, FileChangedError) as error:
        raise stays_for_another_day(error) from None


def _require_files(site: Site, drop: Drop, record: Record) -> None:
    """Checks that the files that the rows were compared with are still there."""
    dataset, lake = site.dataset, site.lake
    require_recorded(site, drop.day, lake.stat(dataset.path(drop.day)), record)
    for other in drop.others:
        try:
            require_recorded(site, other.day, lake.stat(dataset.path(other.day)), other.record)
        except IntegrityError as error:
            raise stays_for_another_day(error) from None


def _count_proven(connection: Connection, table: Table, partition: Partition, readbacks: dict[date, Readback]) -> int:
    """The number of a partition's rows, each of which is identical to the file of its day.

    The file's rows are counted, each once: by a damaged index one row of the partition may be found twice.
    """
    rows, proven = count_rows(connection, partition), 0
    for day, readback in readbacks.items():
        query = sql.SQL("SELECT pg_catalog.count(DISTINCT {}.line) FROM {}, {} WHERE {} AND {}").format(
            ARCHIVED, rows_in(partition), readback.current, table.within(day, day), readback.identical
        )
        proven += one(connection, query)[0]
    if proven != rows:
        which = counted(rows - proven, f"of {rows} rows is", f"of {rows} rows are")
        raise PartitionStaysError(f"{which} in no file in their present form, in {told(partition)}")
    return rows


def keep_writers_out(connection: Connection, partitions: Sequence[Partition]) -> None:
    """Locks partitions, so that nobody writes to them until the transaction ends; everybody reads them.

    Raises:
        PartitionStaysError: somebody writes to one.
    """
    first, *others = [of.identifier for of in partitions]
    try:
        with connection.transaction():
            # Long enough for PostgreSQL to send an autovacuum away that works on one; and with none in hand, for which
            # whoever writes to several might wait.
            connection.execute(_SET_LOCK_TIMEOUT, (2,))
            for other in others:
                with connection.transaction(force_rollback=True):
                    _lock(connection, [other], "SHARE")
            _lock(connection, [first], "SHARE")
            _lock(connection, others, "SHARE", wait="NOWAIT")
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        raise PartitionStaysError(f"rows are being written to {', '.join(map(told, partitions))}") from None


def _lock(connection: Connection, names: Sequence[sql.Composable], mode: str, *, wait: str = "") -> None:
    if names:
        only = sql.SQL(", ").join(sql.SQL("ONLY {}").format(name) for name in names)
        connection.execute(sql.SQL("LOCK TABLE {} IN {} MODE {}").format(only, sql.SQL(mode), sql.SQL(wait)))


def drop_locked(
    connection: Connection,
    site: Site,
    table: Table,
    day: date,
    partitions: list[Partition],
    *,
    files: Callable[[], None] | None,
) -> None:
    """Drops partitions that nobody can write to (``keep_writers_out``), as soon as their table's lock is to be had.

    Args:
        connection: in the transaction that keeps writers out.
        site: the dataset.
        table: its shape.
        day: that is purged.
        partitions: what is to be dropped.
        files: sees that the files of their rows are still there, before each try: somebody may take one away while
            this waits. A look at the lake may take long, and must not while the table is locked. None where the
            partitions are empty.

    Raises:
        PartitionStaysError: they cannot be dropped, or another session waits for one, or is at work on the table.
    """
    until = time.monotonic() + _PATIENCE * site.postgres.lock_timeout_seconds
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        _require_not_awaited(connection, partitions)
        if files:
            files()
        try:
            with connection.transaction():
                _drop_at_once(connection, table, day, partitions, empty=files is None)
                return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if time.monotonic() + pause_seconds > until:
                raise PartitionStaysError(
                    "the table's lock was not to be had: others are at work on it all the time"
                ) from None
        _pause(connection, partitions, pause_seconds)
        pause_seconds *= 2


def _pause(connection: Connection, partitions: Sequence[Partition], seconds: float) -> None:
    """Waits, and gives up as soon as another session waits for us."""
    until = time.monotonic() + seconds
    while (left_seconds := until - time.monotonic()) > 0:
        time.sleep(min(left_seconds, _LOOK_SECONDS))
        _require_not_awaited(connection, partitions)


def _require_not_awaited(connection: Connection, partitions: Sequence[Partition]) -> None:
    if is_awaited(connection, [of.oid for of in partitions]):
        raise PartitionStaysError(f"another session waits for {', '.join(map(told, partitions))}")


def _drop_at_once(connection: Connection, table: Table, day: date, partitions: list[Partition], *, empty: bool) -> None:
    connection.execute(_SET_LOCK_TIMEOUT, (0.5,))
    # Parents first, as every statement by way of the table does. A hypertable may be read on.
    parents = {(of.parent_schema, of.parent_name): of.parent for of in partitions}
    _lock(connection, list(parents.values()), "SHARE ROW EXCLUSIVE" if table.is_hypertable else "ACCESS EXCLUSIVE")
    _lock(connection, [of.identifier for of in partitions], "ACCESS EXCLUSIVE")
    # What a DROP must fear may have come while the rows were compared.
    try:
        require_unchanged(connection, table, "delete")
    except BusyError:
        if empty:
            raise PartitionStaysError(_ALTERED) from None
        raise
    # They were locked and counted by name, and no lock keeps schemas from changing theirs, and back.
    if not set(partitions) <= set(partitions_of(connection, table, day)):
        raise PartitionStaysError(_ALTERED)
    for partition in partitions:
        why_not = unfit(connection, table, partition)
        if not empty:
            why_not = why_not or passed_over(connection, table, partition)
        if why_not:
            raise PartitionStaysError(why_not)
    # Event triggers find what they name. Never CASCADE: what depends on a partition stays, and so does that.
    with own_search_path(connection):
        if table.is_hypertable:
            _drop_chunks(connection, table, partitions)
        else:
            for partition in partitions:
                connection.execute(sql.SQL("DROP TABLE {} RESTRICT").format(partition.identifier))
    # By name, too: another table may have been dropped.
    if any_left(connection, [of.oid for of in partitions]):
        raise PartitionStaysError(_ALTERED)


def _drop_chunks(connection: Connection, table: Table, chunks: Sequence[Partition]) -> None:
    """Drops these chunks and no other, although ``drop_chunks`` drops all that lie within a range."""
    dropped: list[tuple[str, str]] = []
    for start, end in dict.fromkeys(of.chunk for of in chunks if of.chunk):
        dropped += timescale.drop_chunks(connection, table.oid, TIME_TYPES[table.time_type], start, end)
    if sorted(dropped) != sorted((of.schema, of.name) for of in chunks):
        names = ", ".join(str(TableName(*name)) for name in dropped) or "none"
        raise PartitionStaysError(f"TimescaleDB would have dropped {names} in place of {', '.join(map(told, chunks))}")

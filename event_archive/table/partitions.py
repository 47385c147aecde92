"""Which partitions of a table may be dropped in place of deleting their rows, and which days wait for that.

Not here: the proof that a partition's rows are archived, and the DROP itself (``operations.dropping``).
"""

from collections.abc import Collection
from datetime import date, timedelta

from psycopg import sql

from event_archive.domain.dataset import TableName, quoted
from event_archive.domain.days import ONE_DAY
from event_archive.postgres.catalogue import dependents, timescale
from event_archive.postgres.catalogue.partitions import Partition, bounded_partitions, owned_sequences
from event_archive.postgres.catalogue.server import role_of
from event_archive.postgres.session import Connection, one
from event_archive.table.shape import TABLE_ALIAS, Table

_LONGEST_WAIT = timedelta(days=366)


def partitions_of(connection: Connection, table: Table, day: date, *, since: date | None = None) -> list[Partition]:
    """The partitions that end somewhere in time and may hold rows of a day, or of one since another. Takes no lock."""
    return partitions_between(connection, table, since or day, day)


def partitions_between(connection: Connection, table: Table, first: date, last: date) -> list[Partition]:
    """As ``partitions_of``, for the days from ``first`` to ``last``; chunks are a hypertable's partitions."""
    name, column = table.dataset.table, table.dataset.time_column
    if table.is_hypertable:
        return timescale.chunks(connection, name.schema, name.name, column, first, last)
    return bounded_partitions(connection, table.oid, column, first, last) if table.is_partitioned else []


def rows_in(partition: Partition) -> sql.Composable:
    """A partition as ``TABLE_ALIAS``, for FROM: so the table itself is not locked."""
    # Without ONLY, by which a chunk is what of it is not compressed; from another partition no table inherits.
    return sql.SQL("{} AS {}").format(partition.identifier, TABLE_ALIAS)


def told(partition: Partition) -> str:
    """A partition's name, for messages."""
    return str(TableName(partition.schema, partition.name))


def unfit(connection: Connection, table: Table, partition: Partition) -> str:
    """Why a partition cannot be dropped even if it were empty; an empty string where it can."""
    if not partition.is_table:
        return f"{told(partition)} is a foreign table"
    if not partition.is_owned:
        return f"{quoted(role_of(connection))} does not own {told(partition)}"
    if found := dependents.references(connection, table.oid):
        names = ", ".join(quoted(reference.constraint) for reference in found)
        return f"the table, or a partition, is referenced by foreign key {names}, which a DELETE observes row by row"
    if sequences := owned_sequences(connection, partition.oid):
        return f"sequence {', '.join(sequences)} belongs to {told(partition)} and would be dropped with it"
    return ""


def passed_over(connection: Connection, table: Table, partition: Partition) -> str:
    """What a DELETE of a partition's rows would set off and a DROP would not; an empty string where nothing is."""
    if triggers := dependents.delete_triggers_of_partition(connection, partition.oid, table.oid):
        return f"a DROP would not fire its triggers on DELETE: {', '.join(map(quoted, triggers))}"
    if publications := dependents.publications_of_deletes(connection, table.oid):
        names = ", ".join(map(quoted, publications))
        carries = "which carries deletes of the table, or of a partition"
        return f"a DROP would not reach the subscribers of publication {names}, {carries}"
    return ""


def ends_in_time(partition: Partition, day: date) -> bool:
    """Whether a partition ends so soon after a day that the day's rows may wait for the rest of it: within a year."""
    return partition.last - day <= _LONGEST_WAIT


def is_compressed(connection: Connection, table: Table, day: date) -> bool:
    """Whether a chunk with rows of a day is compressed."""
    name, time_column = table.dataset.table, table.dataset.time_column
    return table.is_hypertable and timescale.has_compressed_chunk(connection, name.schema, name.name, time_column, day)


def partition_rows_by_day(connection: Connection, table: Table, partition: Partition) -> dict[date | None, int]:
    """How many rows of each day a partition holds; under None those that belong to no day that is archived."""
    query = sql.SQL(
        "SELECT CASE WHEN {time} OPERATOR(pg_catalog.>=) {start} THEN {time}::pg_catalog.date END, "
        "pg_catalog.count(*) FROM {rows} GROUP BY 1 ORDER BY 1"
    ).format(time=table.time, start=table.instant(table.dataset.start), rows=rows_in(partition))
    return dict(connection.execute(query).fetchall())


def count_rows(connection: Connection, partition: Partition) -> int:
    """How many rows a partition holds, those that a damaged index lacks among them."""
    count: int = one(connection, sql.SQL("SELECT pg_catalog.count(*) {}").format(_from(partition)))[0]
    return count


def has_any_row(connection: Connection, partition: Partition) -> bool:
    """Whether a partition holds a row, one that a damaged index lacks among them."""
    # Leaves no lock that anybody could wait for: reading past many deleted rows may take long.
    with connection.transaction(force_rollback=True):
        return bool(one(connection, sql.SQL("SELECT EXISTS (SELECT {})").format(_from(partition)))[0])


def has_rows_of(connection: Connection, table: Table, partition: Partition, day: date) -> bool:
    """Whether a partition holds a row of a day. Leaves no lock behind."""
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})").format(rows_in(partition), table.within(day, day))
    with connection.transaction(force_rollback=True):
        return bool(one(connection, query)[0])


def _from(partition: Partition) -> sql.Composable:
    # No index holds tableoid: so PostgreSQL reads the rows themselves, where an index would do to count them. What of a
    # chunk is compressed may have another one.
    return sql.SQL("FROM {} WHERE {}.tableoid OPERATOR(pg_catalog.<>) 0").format(rows_in(partition), TABLE_ALIAS)


def waiting_days(connection: Connection, table: Table, days: Collection[date], last_aged: date) -> set[date]:
    """Those of some aged days whose rows stay until all of their partition is aged, and it is dropped as a whole.

    Args:
        connection: in a transaction.
        table: whose days.
        days: aged ones.
        last_aged: the youngest aged day.
    """
    if table.dataset.purge != "drop" or not days:
        return set()
    waiting, deleted = set[date](), set[date]()
    # A partition that holds aged days and is not aged as a whole holds the first day that is not.
    for partition in partitions_of(connection, table, last_aged + ONE_DAY):
        why_not = unfit(connection, table, partition) or passed_over(connection, table, partition)
        within = {
            day for day in days if (partition.first is None or day >= partition.first) and ends_in_time(partition, day)
        }
        # On its first day it may begin late, by another zone: the day's rows lie before it then.
        if not why_not and partition.first in within and not has_rows_of(connection, table, partition, partition.first):
            within.remove(partition.first)
        (deleted if why_not else waiting).update(within)
    return waiting - deleted

"""Which rows of the table belong to which day, and which to none: counting and finding. Not here: the table's shape."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import LiteralString

from psycopg import sql

from event_archive.domain.dataset import Dataset
from event_archive.domain.days import ONE_DAY
from event_archive.postgres.session import Connection, one
from event_archive.table.shape import TIME_TYPES, Purpose, Table, reflect
from event_archive.table.windows import letting_go, windows


@dataclass(frozen=True, slots=True)
class RowsOfDay:
    """The rows of one day: how many, and the first and last time among them as PostgreSQL prints them in UTC."""

    rows: int
    first: str | None
    last: str | None


def count_day(connection: Connection, table: Table, day: date) -> RowsOfDay:
    """Counts the rows of one day."""
    query = sql.SQL("SELECT count(*), min({time})::text, max({time})::text FROM {rows} WHERE {window}")
    row = one(
        connection,
        query.format(time=table.time, rows=table.rows, window=table.within(day, day)),
    )
    return RowsOfDay(*row)


def has_rows(connection: Connection, table: Table, day: date) -> bool:
    """Whether the table has a row of the day: one probe of the index, where there is one."""
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})")
    return bool(one(connection, query.format(table.rows, table.within(day, day)))[0])


def lock_rows(connection: Connection, table: Table, day: date) -> None:
    """Locks the partitions in which the day's rows may lie, as a SELECT of them does, until the transaction ends.

    A COPY looks at the table as it was before it waited for a partition's lock, and of one that was written anew
    meanwhile it sees no row.
    """
    if table.is_partitioned:
        has_rows(connection, table, day)


def glance_at_day(
    connection: Connection, dataset: Dataset, day: date, purpose: Purpose = "archive"
) -> tuple[Table, bool]:
    """The table's shape, and whether it has rows of the day; without a lock afterwards, as ``glance``."""
    with letting_go(connection):
        table = reflect(connection, dataset, purpose)
        return table, has_rows(connection, table, day)


def days_with_rows(
    connection: Connection, table: Table, first: date, last: date, *, until: float | None = None
) -> list[date]:
    """The days from ``first`` to ``last`` of which the table has rows, oldest first.

    With an index on the time column this is a loose index scan, one probe a day that has rows; without one, a single
    pass over the table.

    Args:
        connection: in a transaction.
        table: whose rows.
        first: the first day.
        last: the last one.
        until: by ``time.monotonic``: when the search is given up, with an error of PostgreSQL's; None for never.
    """
    query = _LOOSE_SCAN if table.time_indexed else _FULL_SCAN
    return [day for of_window in _days(connection, table, query, first, last, until) for day in of_window]


def first_day_with_rows(
    connection: Connection, table: Table, first: date, last: date, *, until: float | None = None
) -> date | None:
    """The first of ``days_with_rows``, by one probe of the index, where there is one; None where no day has rows."""
    return next((day for days in _days(connection, table, _FIRST, first, last, until) for day in days), None)


def _days(
    connection: Connection, table: Table, query: LiteralString, first: date, last: date, until: float | None
) -> Iterator[list[date]]:
    """The days that a query finds, a stretch after another."""
    for start, end in windows(connection, table, first, last):
        with letting_go(connection, until):
            statement = sql.SQL(query).format(
                time=table.time,
                rows=table.rows,
                window=table.within(start, end),
                type=sql.SQL(TIME_TYPES[table.time_type]),
            )
            found = [day for (day,) in connection.execute(statement).fetchall()]
        yield found


# The window stands in both branches: what a day is compared with is not known before a partition is locked.
_LOOSE_SCAN = """
WITH RECURSIVE days_(day) AS (
  (SELECT {time}::date FROM {rows} WHERE {window} ORDER BY {time} LIMIT 1)
  UNION ALL
  SELECT (SELECT {time}::date FROM {rows} WHERE {window} AND {time} >= (days_.day + 1)::{type} ORDER BY {time} LIMIT 1)
  FROM days_ WHERE days_.day IS NOT NULL
)
SELECT days_.day FROM days_ WHERE days_.day IS NOT NULL
"""
_FIRST = "SELECT {time}::date FROM {rows} WHERE {window} ORDER BY {time} LIMIT 1"
_FULL_SCAN = "SELECT DISTINCT {time}::date FROM {rows} WHERE {window} ORDER BY 1"


def rows_by_day(connection: Connection, table: Table, first: date, last: date) -> dict[date, int]:
    """How many rows each day from ``first`` to ``last`` holds; days without any are left out."""
    query = sql.SQL("SELECT {time}::date, count(*) FROM {rows} WHERE {window} GROUP BY 1 ORDER BY 1")
    found: dict[date, int] = {}
    for start, end in windows(connection, table, first, last):
        with letting_go(connection):
            statement = query.format(time=table.time, rows=table.rows, window=table.within(start, end))
            found.update(connection.execute(statement).fetchall())
    return found


MOST_ORPHANS = 100_000


@dataclass(frozen=True, slots=True)
class Orphans:
    """Rows that are never archived: before the first day that is archived, or without a finite time.

    About ``MOST_ORPHANS`` are counted at most: by then it is clear that something is wrong, and a count may take long.
    """

    before_start: int
    not_finite: int

    def __bool__(self) -> bool:
        return bool(self.before_start or self.not_finite)


def count_orphans(connection: Connection, table: Table, *, until: float | None = None) -> Orphans:
    """Counts the rows that belong to no day; ``until`` as for ``days_with_rows``."""
    query = sql.SQL(
        "SELECT count(*) FILTER (WHERE finite_), count(*) FILTER (WHERE finite_ IS NOT TRUE) "
        "FROM (SELECT pg_catalog.isfinite({time}) AS finite_ FROM {rows} WHERE {condition} LIMIT {most}) AS orphans_"
    )
    before_start, not_finite = 0, 0
    for condition in _orphans(connection, table):
        with letting_go(connection, until):
            statement = query.format(
                time=table.time, rows=table.rows, condition=condition, most=sql.Literal(MOST_ORPHANS)
            )
            finite, other = one(connection, statement)
        before_start, not_finite = before_start + finite, not_finite + other
        if before_start + not_finite >= MOST_ORPHANS:
            break
    return Orphans(before_start, not_finite)


def _orphans(connection: Connection, table: Table) -> list[sql.Composable]:
    """The conditions of a row of no day, no row meeting two of them."""
    start = table.dataset.start
    later = windows(connection, table, date.min, start - ONE_DAY)[1:] if start > date.min else []
    infinite = sql.SQL("{} = 'infinity'").format(table.time)
    if not later and not table.is_hypertable:
        # At once, since without an index each condition is a pass over the table.
        at_once = sql.SQL("{infinite} OR {time} IS NULL OR {time} < {start}")
        return [at_once.format(infinite=infinite, time=table.time, start=table.instant(start))]
    # A column that divides a table belongs to its key, so it is never NULL. TimescaleDB leaves no chunk out by an OR.
    earliest = sql.SQL("{} < {}").format(table.time, table.instant(later[0][0] if later else start))
    return [infinite, earliest, *(table.within(*stretch) for stretch in later)]

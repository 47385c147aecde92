"""Which rows of the table belong to which day, and which to none: counting and finding. Not here: the table's shape."""

from dataclasses import dataclass
from datetime import date

from psycopg import sql

from event_archive.domain.dataset import Dataset
from event_archive.domain.days import ONE_DAY
from event_archive.postgres.session import Connection, one
from event_archive.table.shape import TIME_TYPES, Purpose, Table, reflect


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


def glance_at_day(
    connection: Connection, dataset: Dataset, day: date, purpose: Purpose = "archive"
) -> tuple[Table, bool]:
    """The table's shape, and whether it has rows of the day; without a lock afterwards, as ``glance``."""
    with connection.transaction(force_rollback=True):
        table = reflect(connection, dataset, purpose)
        return table, has_rows(connection, table, day)


def days_with_rows(connection: Connection, table: Table, first: date, last: date) -> list[date]:
    """The days from ``first`` to ``last`` of which the table has rows, oldest first.

    With an index on the time column this is a loose index scan, one probe a day that has rows; without one, a single
    pass over the table.
    """
    if first > last:
        return []
    query = _LOOSE_SCAN if table.time_indexed else _FULL_SCAN
    rows = connection.execute(
        sql.SQL(query).format(
            time=table.time,
            rows=table.rows,
            window=table.within(first, last),
            end=table.instant(last + ONE_DAY),
            type=sql.SQL(TIME_TYPES[table.time_type]),
        )
    ).fetchall()
    return [day for (day,) in rows]


_LOOSE_SCAN = """
WITH RECURSIVE days_(day) AS (
  (SELECT {time}::date FROM {rows} WHERE {window} ORDER BY {time} LIMIT 1)
  UNION ALL
  SELECT (SELECT {time}::date FROM {rows} WHERE {time} >= (days_.day + 1)::{type} AND {time} < {end}
          ORDER BY {time} LIMIT 1)
  FROM days_ WHERE days_.day IS NOT NULL
)
SELECT days_.day FROM days_ WHERE days_.day IS NOT NULL
"""
_FULL_SCAN = "SELECT DISTINCT {time}::date FROM {rows} WHERE {window} ORDER BY 1"


def rows_by_day(connection: Connection, table: Table, first: date, last: date) -> dict[date, int]:
    """How many rows each day from ``first`` to ``last`` holds; days without any are left out."""
    query = sql.SQL("SELECT {time}::date, count(*) FROM {rows} WHERE {window} GROUP BY 1 ORDER BY 1")
    rows = connection.execute(
        query.format(time=table.time, rows=table.rows, window=table.within(first, last))
    ).fetchall()
    return dict(rows)


MOST_ORPHANS = 100_000


@dataclass(frozen=True, slots=True)
class Orphans:
    """Rows that are never archived: before the first day that is archived, or without a finite time.

    At most ``MOST_ORPHANS`` are counted: by then it is clear that something is wrong, and a count may take long.
    """

    before_start: int
    not_finite: int

    def __bool__(self) -> bool:
        return bool(self.before_start or self.not_finite)


def count_orphans(connection: Connection, table: Table) -> Orphans:
    """Counts the rows that belong to no day."""
    query = sql.SQL(
        "SELECT count(*) FILTER (WHERE finite_), count(*) FILTER (WHERE finite_ IS NOT TRUE) "
        "FROM (SELECT pg_catalog.isfinite({time}) AS finite_ FROM {rows} "
        "WHERE {time} IS NULL OR {time} < {start} OR {time} = 'infinity' LIMIT {most}) AS orphans_"
    ).format(
        time=table.time,
        rows=table.rows,
        start=table.instant(table.dataset.start),
        most=sql.Literal(MOST_ORPHANS),
    )
    return Orphans(*one(connection, query))

"""What a run will take, before it begins: rows, bytes of the files, time. Not here: what it took."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from psycopg import sql

from event_archive.domain.dataset import Dataset
from event_archive.errors import EventArchiveError
from event_archive.postgres.session import Connection, Postgres, one
from event_archive.table.rows import rows_by_day
from event_archive.table.shape import TABLE_ALIAS, Table, reflect

logger = logging.getLogger(__name__)

BYTES_PER_SECOND = 15_000_000
"""Archived, read back, compared and deleted: what two cores do with a Blob service (docs/performance.md)."""
SECONDS_PER_DAY = 0.15
"""Whatever its size: what a day of few rows takes, with PostgreSQL and a folder on the same machine."""

_SAMPLE_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """What some days hold, and what they will take.

    Attributes:
        rows: of each of the days.
        bytes_per_row: of CSV, as in a sample of the last of these days.
        max_bytes_per_second: rows are read no faster than that, where a limit is set.
    """

    rows: dict[date, int]
    bytes_per_row: float
    max_bytes_per_second: int | None = None

    def bytes_of(self, rows: int) -> int:
        """About how many bytes of CSV so many rows are."""
        return round(rows * self.bytes_per_row)

    def seconds_of(self, rows: int, days: int = 1) -> float:
        """About how many seconds so many rows take, in so many days."""
        limit = self.max_bytes_per_second
        seconds_per_byte = 1 / BYTES_PER_SECOND + (1 / limit if limit else 0)
        return days * SECONDS_PER_DAY + self.bytes_of(rows) * seconds_per_byte


def rows_if_counted(dataset: Dataset, days: Collection[date], postgres: Postgres) -> dict[date, int]:
    """How many rows each of some days has, for a percentage; none, with a warning, where they cannot be counted."""
    try:
        return estimate(dataset, days, postgres).rows
    except EventArchiveError as error:
        logger.warning("rows cannot be counted beforehand, so there is no percentage: %s", error)
        return {}


def estimate(
    dataset: Dataset, days: Collection[date], postgres: Postgres, *, max_bytes_per_second: int | None = None
) -> Estimate:
    """Counts the rows of days, and looks at a thousand of them.

    Args:
        dataset: whose days.
        days: those that a run is to do.
        postgres: the primary.
        max_bytes_per_second: as for ``archive_day``.

    Raises:
        RefusedError, UnreachableError, BusyError: as PostgreSQL says.
    """
    if not days:
        return Estimate({}, 0.0)
    with postgres.transaction(str(dataset.table)) as connection:
        table = reflect(connection, dataset)
        found = rows_by_day(connection, table, min(days), max(days))
        rows = {day: found.get(day, 0) for day in days}
        filled = [day for day in days if rows[day]]
        bytes_per_row = _bytes_per_row(connection, table, max(filled)) if filled else 0.0
        return Estimate(rows, bytes_per_row, max_bytes_per_second)


def _bytes_per_row(connection: Connection, table: Table, day: date) -> float:
    # A row as text is its CSV record in parentheses, but for the quotes.
    query = sql.SQL(
        "SELECT avg(octet_length({src}::text) - 1) FROM (SELECT * FROM {rows} WHERE {window} LIMIT {most}) AS {src}"
    ).format(src=TABLE_ALIAS, rows=table.rows, window=table.within(day, day), most=sql.Literal(_SAMPLE_ROWS))
    return float(one(connection, query)[0] or 0)

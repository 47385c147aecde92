"""Stretches of days, for questions about all days of a table of many partitions.

A statement locks every partition that it may read, with all its indexes, and the server has room for a few thousand
locks. So a question about all days is asked for one stretch after another, with its first and last day as literals, by
which PostgreSQL leaves out all other partitions; and what was locked is let go in between. A table in one piece has one
stretch. Not here: the questions.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from psycopg import sql

from event_archive.domain.days import ONE_DAY
from event_archive.postgres.catalogue import ranges, timescale
from event_archive.postgres.session import Connection
from event_archive.table.shape import Table

MOST_PARTITIONS = 100
"""That one statement locks. What each has of indexes is locked with it: of 6,400 locks, 1,000 with nine indexes."""

Window = tuple[date, date]
"""The first and the last day of a stretch."""


def windows(connection: Connection, table: Table, first: date, last: date) -> list[Window]:
    """Divides the days from ``first`` to ``last`` into stretches of few partitions, in order.

    What the catalogue says of partitions decides only where a stretch ends: no day is left out by it.
    """
    if first > last:
        return []
    starts, partitions = [first], 0
    for day, count in _beginnings(connection, table):
        if day > last:
            break
        if day > starts[-1] and partitions + count > MOST_PARTITIONS:
            starts.append(day)
            partitions = 0
        partitions = partitions + count if day > first else count
    return list(zip(starts, [start - ONE_DAY for start in starts[1:]] + [last], strict=True))


def _beginnings(connection: Connection, table: Table) -> list[tuple[date, int]]:
    name, column = table.dataset.table, table.dataset.time_column
    if table.is_hypertable:
        return timescale.beginnings(connection, name.schema, name.name, column)
    return ranges.beginnings(connection, table.oid, column) if table.is_partitioned else []


@contextmanager
def letting_go(connection: Connection, until: float | None = None) -> Iterator[None]:
    """Lets go, when the block ends, of what its statements locked; they may change nothing.

    Args:
        connection: in a transaction.
        until: by ``time.monotonic``: statements that run then are cancelled; None for no limit of their own.
    """
    with connection.transaction(force_rollback=True):
        if until is not None:
            left_milliseconds = max(1, round((until - time.monotonic()) * 1000))
            timeout = sql.SQL("SET LOCAL statement_timeout TO {}")
            connection.execute(timeout.format(sql.Literal(left_milliseconds)))
        yield

"""``make bench-partitions``: a table of very many daily partitions, on a server with the defaults for locks.

Prints what each question and each step of a day takes, as a table for docs/performance.md.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

import psycopg
from psycopg import sql

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import ONE_DAY, Retention, midnight
from event_archive.lake.local.folder import LocalLake
from event_archive.nightly.backlog import backlog, days_to_do, rows_of_aged_days
from event_archive.nightly.orphans import orphans
from event_archive.operations.archive import archive_day
from event_archive.operations.purge import purge_day
from event_archive.operations.restore.day import restore_day
from event_archive.operations.site import Site
from event_archive.postgres.session import Postgres
from event_archive_tests.benchmarks.server import running

FIRST = date(1998, 1, 1)
ROWS_A_DAY = 3
MOST_SECONDS = 15
"""For the schedule's answer; Dagster gives it a minute."""

Result = TypeVar("Result")

_AT_ONCE = 50
_FILL = """
INSERT INTO reading SELECT n * {rows} + k, {first}::timestamp + n * interval '1 day' + k * interval '1 hour', 'x'
FROM generate_series({start}::int, {end}::int) AS n, generate_series(0, {rows} - 1) AS k
"""


def main() -> None:
    """Makes the table and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=10_000)
    partitions: int = parser.parse_args().partitions
    with running() as server, tempfile.TemporaryDirectory() as folder:
        dsn = server.dsn("postgres")
        _make(dsn, partitions)
        last = FIRST + partitions * ONE_DAY
        dataset = Dataset(TableName("public", "reading"), "at", "lake", "reading", Retention(months=12, days=0), FIRST)
        site = Site(dataset, Postgres(dsn), LocalLake(Path(folder)))
        _measure(site, last, partitions)


def _make(dsn: str, partitions: int) -> None:
    """A partition a day, with the indexes of key and time; a few in a transaction, since each takes locks."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE reading (id bigint, at timestamp, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)"
        )
        connection.execute("CREATE INDEX ON reading (at)")
        for start in range(0, partitions, _AT_ONCE):
            end = min(start + _AT_ONCE, partitions)
            with connection.transaction():
                for number in range(start, end):
                    day = FIRST + number * ONE_DAY
                    connection.execute(
                        sql.SQL("CREATE TABLE {} PARTITION OF reading FOR VALUES FROM ({}) TO ({})").format(
                            sql.Identifier(f"reading_{day}"), sql.Literal(str(day)), sql.Literal(str(day + ONE_DAY))
                        )
                    )
            values = {"rows": ROWS_A_DAY, "first": str(FIRST), "start": start, "end": end - 1}
            connection.execute(sql.SQL(_FILL).format(**{name: sql.Literal(value) for name, value in values.items()}))


def _measure(site: Site, last: date, partitions: int) -> None:
    dataset, postgres, now = site.dataset, site.postgres, midnight(last + timedelta(days=400))
    day = FIRST + (last - FIRST) // 2
    late = replace(dataset, start=last)
    print(f"{partitions:,} partitions of {ROWS_A_DAY} rows\n\n| what | wall s |\n| --- | --- |")
    seconds, found = _timed("the schedule's question", lambda: days_to_do(dataset, now, postgres, timeout_seconds=45))
    assert len(found.days) == partitions
    _timed("`event-archive days`: every row counted", lambda: rows_of_aged_days(dataset, now, postgres))
    _timed("the check `backlog_is_small`", lambda: backlog(dataset, now, postgres, grace_days=3))
    _timed("the check `no_orphans`", lambda: orphans(dataset, postgres))
    _timed("the same where all rows lie before the first day", lambda: orphans(late, postgres))
    _, archived = _timed("archive of a day", lambda: archive_day(site, day))
    _timed("purge of the day", lambda: purge_day(site, day, archived.record, dry_run=False))
    _, restored = _timed("restore of the day in place", lambda: restore_day(site, day, dataset.table))
    assert restored.restored == ROWS_A_DAY
    print(f"\nThe schedule's answer within {MOST_SECONDS} s: {'met' if seconds <= MOST_SECONDS else '**missed**'}.")


def _timed(what: str, do: Callable[[], Result]) -> tuple[float, Result]:
    started = time.perf_counter()
    result = do()
    seconds = time.perf_counter() - started
    print(f"| {what} | {seconds:.1f} |", flush=True)
    return seconds, result


if __name__ == "__main__":
    main()

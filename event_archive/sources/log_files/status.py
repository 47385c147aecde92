"""What people are told of files: how many wait, what failed and why, what was given up. Not here: their loading."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from event_archive.sources.log_files.ledger import Ledger

LONGEST_WAIT = timedelta(hours=1)
"""A file that waits for longer is overdue."""
_FAILED_SHOWN = 1000
_GIVEN_UP_SHOWN = 5

# Whoever loads a file has its row locked: what a process that died was loading waits again.
_COUNTS = """
WITH abandoned AS (
  SELECT key FROM {table} WHERE {ours} AND status = 'PROCESSING' AND {over} FOR UPDATE SKIP LOCKED
)
SELECT CASE WHEN key IN (SELECT key FROM abandoned) THEN 'PENDING' ELSE status END AS status_, pg_catalog.count(*),
  pg_catalog.min(modified), pg_catalog.sum(rows)::int8, pg_catalog.sum(rejected)::int8
FROM {table} WHERE {ours} GROUP BY status_ ORDER BY status_
"""
_FAILED = """
SELECT key, error, attempts, attempts >= %(most)s, lease FROM {table} WHERE {ours} AND status = 'FAILED'
ORDER BY updated_at DESC, key LIMIT %(limit)s
"""
# A file waits since it was first listed, or since a new version of it was written.
_LEFT = """
SELECT pg_catalog.count(*) FILTER (WHERE waits), pg_catalog.min(since) FILTER (WHERE waits),
  pg_catalog.count(*) FILTER (WHERE waits AND GREATEST(since, quiet) < pg_catalog.now() - %(longest)s),
  pg_catalog.count(*) FILTER (WHERE NOT waits), pg_catalog.count(*) FILTER (WHERE NOT waits AND attempts >= %(most)s),
  pg_catalog.count(*) FILTER (WHERE NOT waits AND attempts >= %(most)s AND announced_at IS NULL)
FROM (
  SELECT status <> 'FAILED' AS waits, GREATEST(created_at, modified) AS since, modified + %(min_age)s AS quiet,
    attempts, announced_at
  FROM {table} WHERE {ours} AND status <> 'COMPLETED'
) AS files
"""
_ANNOUNCE = """
WITH given_up AS (
  SELECT bucket, key FROM {table} WHERE {ours} AND status = 'FAILED' AND attempts >= %(most)s
  AND announced_at IS NULL ORDER BY key FOR UPDATE SKIP LOCKED
), announced AS (
  UPDATE {table} AS files SET announced_at = pg_catalog.now() FROM given_up
  WHERE files.bucket = given_up.bucket AND files.key = given_up.key RETURNING files.key, files.error
)
SELECT key, error, pg_catalog.count(*) OVER () FROM announced ORDER BY key LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class StatusCount:
    """The files of one status: how many, the oldest by the store's clock, their rows."""

    status: str
    files: int
    oldest: datetime
    rows: int
    rejected: int


@dataclass(frozen=True, slots=True)
class FailedFile:
    """A file that could not be loaded, why, and when it is tried again; ``given_up`` where it is not."""

    key: str
    error: str
    attempts: int
    given_up: bool
    again_at: datetime


@dataclass(frozen=True, slots=True)
class Status:
    """What waits, and what failed: by status, and the files that failed last."""

    counts: list[StatusCount]
    failed: list[FailedFile]


@dataclass(frozen=True, slots=True)
class Left:
    """The files that are not loaded.

    Attributes:
        waiting: pending, or being loaded.
        oldest: since when the first of them waits; None where none does.
        overdue: how many have been ready to load for longer than ``LONGEST_WAIT``.
        failed: could not be loaded; ``given_up`` of them are not tried again, and nobody was told of ``untold``.
    """

    waiting: int
    oldest: datetime | None
    overdue: int
    failed: int
    given_up: int
    untold: int


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Files that were given up: how many, and the keys of the first of them with the reasons."""

    files: int
    errors: dict[str, str]


def status(ledger: Ledger) -> Status:
    """How many files have which status, and which failed last."""
    with ledger.executed(_COUNTS) as counts:
        found = [StatusCount(*row) for row in counts]
    with ledger.executed(_FAILED, limit=_FAILED_SHOWN) as failed:
        return Status(found, [FailedFile(*row) for row in failed])


def left(ledger: Ledger) -> Left:
    """How many files are not loaded."""
    with ledger.executed(_LEFT, longest=LONGEST_WAIT) as rows:
        return Left(*rows[0]) if rows else Left(0, None, 0, 0, 0, 0)


def announce(ledger: Ledger, tell: Callable[[GivenUp], None]) -> None:
    """Tells of files that were given up since somebody was told of them last.

    Args:
        ledger: of the files.
        tell: called where there are any, while their rows are locked, so that nobody else tells of them. Where it
            raises, the next call tells of them.
    """
    with ledger.executed(_ANNOUNCE, limit=_GIVEN_UP_SHOWN) as rows:
        if rows:
            tell(GivenUp(rows[0][2], {key: error for key, error, _ in rows}))

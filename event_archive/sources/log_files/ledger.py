"""``processed_files``: which files there are, who loads which, and what became of each.

A file is claimed in a transaction of its own, and loaded in another that holds the lock of its row: the lock is the
heartbeat, since nobody waits for it and the end of a process frees it. ``lease`` covers what lies between the two, and
of a failed file says when it is tried again; ``version`` counts claims, so that a claim which has been passed on loads
nothing. Not here: listing, loading, what people are told of files (``status``).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, cast

from psycopg import sql

from event_archive.config.sources import LogsSettings
from event_archive.domain.dataset import TableName
from event_archive.postgres.catalogue.relations import relation
from event_archive.postgres.catalogue.server import server_now
from event_archive.postgres.session import Connection, Session
from event_archive.sources.log_files.key_times import log_time
from event_archive.sources.log_files.stores import Found, Store
from event_archive.sources.tables import require_schema

_LEASE = timedelta(seconds=5)
_FIRST_WAIT = timedelta(minutes=1)
_WAIT_FACTOR = 5
_MOST_FACTORS = 4
_MOST_REASON = 2000

_FOUND = sql.SQL(
    "unnest(%(keys)s::text[], %(etags)s::text[], %(sizes)s::int8[], %(times)s::timestamptz[], "
    "%(log_times)s::timestamptz[]) AS found(key, etag, size, modified, log_time)"
)
_NEW = """
INSERT INTO {table} (bucket, key, etag, size, modified, log_time)
SELECT %(bucket)s, key, etag, size, modified, log_time FROM {found}
WHERE NOT EXISTS (SELECT FROM {table} AS known WHERE known.bucket = %(bucket)s AND known.key = found.key)
ORDER BY key ON CONFLICT (bucket, key) DO NOTHING RETURNING key
"""
# A row that is locked is being loaded; whoever lists the files again finds that it has changed.
_CHANGED = """
WITH changed AS (
  SELECT found.* FROM {table} AS known JOIN {found} ON known.bucket = %(bucket)s AND known.key = found.key
  WHERE known.etag <> found.etag
), free AS (
  SELECT known.key FROM {table} AS known JOIN changed USING (key) WHERE known.bucket = %(bucket)s
  ORDER BY known.key FOR UPDATE OF known SKIP LOCKED
), updated AS (
  UPDATE {table} AS known
  SET etag = changed.etag, size = changed.size, modified = changed.modified, log_time = changed.log_time,
    status = 'PENDING', version = known.version + 1, attempts = 0, lease = NULL, error = NULL,
    updated_at = pg_catalog.now()
  FROM changed JOIN free USING (key) WHERE known.bucket = %(bucket)s AND known.key = changed.key RETURNING true
)
SELECT (SELECT pg_catalog.count(*) FROM changed), (SELECT pg_catalog.count(*) FROM updated)
"""
_OURS = sql.SQL("bucket = %(bucket)s AND pg_catalog.starts_with(key, %(prefix)s)")
# Leases end within seconds, waits within half a day: what lies further ahead was written by a clock that was wrong.
_OVER = sql.SQL(
    "(lease IS NULL OR lease < pg_catalog.now() OR lease > pg_catalog.now() + "
    "CASE status WHEN 'PROCESSING' THEN interval '1 minute' ELSE interval '1 day' END)"
)
_QUIET = sql.SQL("NOT (modified > pg_catalog.now() - %(min_age)s AND modified < pg_catalog.now() + %(min_age)s)")
_OUR_ONLY = sql.SQL("bucket = %(bucket)s AND key = %(prefix)s")
_ABANDONED = """
WITH abandoned AS (
  SELECT bucket, key FROM {table} WHERE {ours} AND status = 'PROCESSING' AND {over}
  AND attempts >= %(most)s ORDER BY key FOR UPDATE SKIP LOCKED
)
UPDATE {table} AS files SET status = 'FAILED', announced_at = NULL, updated_at = pg_catalog.now(),
  error = 'Each load of it broke off: the process ended, or it lost the database. Look at the memory and logs of both.'
FROM abandoned WHERE files.bucket = abandoned.bucket AND files.key = abandoned.key RETURNING files.key, files.error
"""
_CLAIM = """
WITH next AS (
  SELECT bucket, key FROM {table} WHERE {ours} AND status <> 'COMPLETED' AND (attempts < %(most)s OR status = 'PENDING')
  AND {over} AND {quiet} AND updated_at < %(before)s
  ORDER BY log_time, modified, key LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE {table} AS files SET status = 'PROCESSING', version = version + 1, attempts = attempts + 1,
  lease = pg_catalog.now() + %(lease)s, last_attempt = pg_catalog.now(), updated_at = pg_catalog.now()
FROM next WHERE files.bucket = next.bucket AND files.key = next.key
RETURNING files.key, etag, size, modified, version, attempts, loaded_etag, files.rejected, files.created_at
"""
# What the next claim takes, or gives up.
_WAITS = """
SELECT true FROM {table} WHERE {ours} AND status <> 'COMPLETED' AND (attempts < %(most)s OR status <> 'FAILED')
AND {over} AND {quiet} LIMIT 1
FOR UPDATE SKIP LOCKED
"""
# Whatever its lease, which may have run out since somebody looked for a file to claim.
_SOON = """
SELECT true FROM {table} WHERE {ours} AND status = 'PROCESSING' AND {quiet} LIMIT 1
FOR UPDATE SKIP LOCKED
"""
# It waits: who has a row of this version locked only looks at it, and would else cost an attempt.
_LOCK = """
SELECT true FROM {table} WHERE bucket = %(bucket)s AND key = %(key)s AND version = %(version)s
AND status = 'PROCESSING' FOR UPDATE
"""
_COMPLETE = """
UPDATE {table} SET status = 'COMPLETED', lease = NULL, error = NULL, loaded_etag = etag, rows = %(rows)s,
  rejected = %(rejected)s, updated_at = pg_catalog.now()
WHERE bucket = %(bucket)s AND key = %(key)s AND version = %(version)s
"""
_FAIL = """
UPDATE {table} SET status = 'FAILED', lease = pg_catalog.now() + %(wait)s, error = %(error)s, announced_at = NULL,
  updated_at = pg_catalog.now()
WHERE bucket = %(bucket)s AND key = %(key)s AND version = %(version)s AND status = 'PROCESSING'
"""
_RELEASE = """
UPDATE {table} SET status = 'PENDING', attempts = attempts - 1, lease = NULL, updated_at = pg_catalog.now()
WHERE bucket = %(bucket)s AND key = %(key)s AND version = %(version)s AND status = 'PROCESSING'
"""
_RETRY = """
UPDATE {table} SET status = 'PENDING', attempts = 0, lease = NULL, version = version + 1,
  updated_at = pg_catalog.now()
WHERE {ours} AND status = 'FAILED'
"""
_KEY_BEFORE = """
SELECT key FROM {table} WHERE {ours} AND key <= %(key)s COLLATE pg_catalog."C"
ORDER BY key COLLATE pg_catalog."C" DESC OFFSET %(distance)s LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A file that this process may load, as long as nobody has claimed it since.

    Attributes:
        file: the file's version.
        version: of its row.
        attempts: how often it was tried, this time included.
        loaded_etag: the version of the file whose rows are in the table; None where none are.
        loaded_rejected: entries of that version that could not be rows.
        known_since: when the file was first listed, by the database's clock.
    """

    file: Found
    version: int
    attempts: int
    loaded_etag: str | None
    loaded_rejected: int
    known_since: datetime


@dataclass(frozen=True, slots=True)
class Ledger:
    """The rows of a bucket's prefix.

    Attributes:
        session: with the database.
        table: ``processed_files``.
        bucket: as ``Store.bucket``.
        prefix: as ``Store.prefix``.
        most_attempts: how often a file is tried.
        alone: whether the prefix is the key of the only file.
        min_age: files that were written more recently wait. The store's clock may be a little ahead of the database's.
    """

    session: Session
    table: TableName
    bucket: str
    prefix: str
    most_attempts: int
    alone: bool = False
    min_age: timedelta = timedelta(0)

    @classmethod
    def of(cls, settings: LogsSettings, session: Session, store: Store) -> "Ledger":
        """That of a place. There may be no table yet: a run makes it."""
        return cls(
            session,
            TableName(settings.ingest_schema, "processed_files"),
            store.bucket,
            store.prefix,
            settings.logs_max_attempts,
            alone=store.is_file,
            min_age=settings.logs_min_age or timedelta(0),
        )

    def discover(self, files: Sequence[Found]) -> tuple[list[str], bool]:
        """Writes down files that were listed; returns the keys that are new, and whether some have to be listed again.

        Those have changed while they are being loaded.
        """
        now = datetime.now(UTC)
        values = {
            "bucket": self.bucket,
            "keys": [of.key for of in files],
            "etags": [of.etag for of in files],
            "sizes": [of.size for of in files],
            "times": [of.modified for of in files],
            "log_times": [log_time(of, now) for of in files],
        }
        with self.session.transaction(str(self.table)) as connection:
            new = [key for (key,) in connection.execute(self._sql(_NEW), values).fetchall()]
            changed, updated = connection.execute(self._sql(_CHANGED), values).fetchall()[0]
        return new, bool(changed > updated)

    def newest(self) -> datetime | None:
        """When the file was first listed that was so last, by the database's clock; None where none is known."""
        with self.executed("SELECT pg_catalog.max(created_at) FROM {table} WHERE {ours}") as rows:
            return cast(datetime | None, rows[0][0]) if rows else None

    def now(self) -> datetime:
        """The database's clock."""
        with self.session.transaction(str(self.table)) as connection:
            return server_now(connection)

    def claim(self, before: datetime | None = None) -> Claim | None:
        """The file that waits with the oldest log time; None where none does.

        Args:
            before: only files that have waited since before then.
        """
        values = self._values(most=self.most_attempts, lease=_LEASE, before=before or "infinity")
        with self.session.transaction(str(self.table)) as connection:
            row = connection.execute(self._sql(_CLAIM), values).fetchone()
        return Claim(Found(*row[:4]), *row[4:]) if row else None

    def give_up_abandoned(self) -> list[tuple[str, str]]:
        """Writes down as failed what ended each process that loaded it; returns keys and reasons."""
        with self.session.transaction(str(self.table)) as connection:
            return connection.execute(self._sql(_ABANDONED), self._values(most=self.most_attempts)).fetchall()

    def waits(self) -> bool:
        """Whether a file waits that nobody is loading."""
        with self.session.transaction(str(self.table)) as connection:
            values = self._values(most=self.most_attempts)
            return connection.execute(self._sql(_WAITS), values).fetchone() is not None

    def waits_for_a_lease(self) -> bool:
        """Whether a file is claimed by a process that has not begun to load it, or never will."""
        with self.session.transaction(str(self.table)) as connection:
            return connection.execute(self._sql(_SOON), self._values()).fetchone() is not None

    def lock(self, connection: Connection, claim: Claim) -> bool:
        """Locks a claimed file's row for the transaction that loads it; False where the claim was passed on."""
        return connection.execute(self._sql(_LOCK), self._of(claim)).fetchone() is not None

    def complete(self, connection: Connection, claim: Claim, *, rows: int, rejected: int) -> bool:
        """Writes down what became of a file, in the transaction that loaded it; False where it is not this claim's."""
        values = self._of(claim) | {"rows": rows, "rejected": rejected}
        return connection.execute(self._sql(_COMPLETE), values).rowcount == 1

    def fail(self, claim: Claim, reason: str) -> None:
        """Writes down why a file could not be loaded; it is tried again after 1, 5, 25, 125, then 625 minutes."""
        wait = _FIRST_WAIT * _WAIT_FACTOR ** min(claim.attempts - 1, _MOST_FACTORS)
        self._set(_FAIL, claim, wait=wait, error=reason[:_MOST_REASON])

    def release(self, claim: Claim) -> None:
        """Gives a file back as if it had not been claimed."""
        self._set(_RELEASE, claim)

    def retry_failed(self) -> int:
        """Lets all failed files be tried again at once, as often as new ones; how many there are."""
        with self.session.transaction(str(self.table)) as connection:
            return connection.execute(self._sql(_RETRY), self._values()).rowcount

    @contextmanager
    def executed(self, query: LiteralString, **values: object) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a statement about these files, in a transaction that the block is part of; none without a table.

        Args:
            query: with ``{table}`` for the table, ``{ours}`` for the condition that a file is one of these.
            values: of its parameters, beside ``most``, the number of attempts.
        """
        with self.session.transaction(str(self.table)) as connection:
            if relation(connection, self.table.schema, self.table.name) is None:
                require_schema(connection, self.table.schema)
                yield []
                return
            yield connection.execute(self._sql(query), self._values(most=self.most_attempts, **values)).fetchall()

    def key_before(self, key: str, distance: int) -> str | None:
        """The key that lies so many known files before one; None where there are fewer."""
        with self.session.transaction(str(self.table)) as connection:
            row = connection.execute(self._sql(_KEY_BEFORE), self._values(key=key, distance=distance)).fetchone()
        return str(row[0]) if row else None

    def _set(self, query: LiteralString, claim: Claim, **values: object) -> None:
        with self.session.transaction(str(self.table)) as connection:
            connection.execute(self._sql(query), self._of(claim) | values)

    def _of(self, claim: Claim) -> dict[str, object]:
        return {"bucket": self.bucket, "key": claim.file.key, "version": claim.version}

    def _values(self, **more: object) -> dict[str, object]:
        return {"bucket": self.bucket, "prefix": self.prefix, "min_age": self.min_age, **more}

    def _sql(self, query: LiteralString) -> sql.Composed:
        table, ours = sql.Identifier(self.table.schema, self.table.name), _OUR_ONLY if self.alone else _OURS
        return sql.SQL(query).format(table=table, ours=ours, over=_OVER, quiet=_QUIET, found=_FOUND)

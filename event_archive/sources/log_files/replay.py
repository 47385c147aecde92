"""Rejected entries, read again by today's mapping and time zone. Not here: how they are kept.

An entry's id is the one that its file's pass would have given it, and it lands only as long as the rows of that very
version of its file are in the table.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import LiteralString

from psycopg import sql

from event_archive.config.sources import LogsReading
from event_archive.domain.dataset import TableName
from event_archive.postgres.session import Connection
from event_archive.sources.landing import Batch
from event_archive.sources.log_files.mapping import load_mapping
from event_archive.sources.log_files.rows import SOURCE, Place, Reader, parse_locator, target
from event_archive.sources.rejected import Replay
from event_archive.sources.runs import NONE_AGED

# As whoever loads a file locks it: until the entries have landed, none of these versions is replaced.
_LOADED = """
SELECT bucket, key, loaded_etag FROM {table} AS files
WHERE (bucket, key) IN (SELECT * FROM unnest(%s::text[], %s::text[])) ORDER BY bucket, key FOR UPDATE
"""
_LANDED = """
UPDATE {table} AS files SET rows = rows + LEAST(rejected, number), rejected = rejected - LEAST(rejected, number),
  updated_at = pg_catalog.now()
FROM unnest(%s::text[], %s::text[], %s::int8[]) AS landed(bucket, key, number)
WHERE files.bucket = landed.bucket AND files.key = landed.key
"""


def replay(settings: LogsReading) -> Replay:
    """How rejected entries are read by these settings."""
    mapping, now = load_mapping(settings.logs_mapping), datetime.now(UTC)
    table = TableName(settings.ingest_schema, "processed_files")

    def read(connection: Connection, records: Sequence[tuple[str, bytes]]) -> tuple[Batch, list[int]]:
        places = [parse_locator(locator) for locator, _ in records]
        loaded = _loaded(connection, table, places)
        batch, landing = Batch(), []
        for index, (place, (_, raw)) in enumerate(zip(places, records, strict=True)):
            if loaded.get((place.bucket, place.key)) != place.etag:
                continue
            before = len(batch.lines)
            # None is too old: it is in no archive.
            reader = Reader(place.bucket, place.key, place.etag, mapping, settings.logs_timezone, now, NONE_AGED)
            reader.position = place.position - 1
            reader.read([raw], batch)
            if len(batch.lines) > before:
                landing.append(index)
        batch.rejected.clear()
        return batch, landing

    def landed(connection: Connection, locators: Sequence[str]) -> None:
        numbers = Counter((of.bucket, of.key) for of in map(parse_locator, locators))
        buckets, keys = [bucket for bucket, _ in numbers], [key for _, key in numbers]
        connection.execute(_sql(_LANDED, table), (buckets, keys, [*numbers.values()]))

    return Replay(SOURCE, target(settings.ingest_schema, mapping), read, landed)


def _loaded(connection: Connection, table: TableName, places: Sequence[Place]) -> dict[tuple[str, str], str]:
    """The versions of these files whose rows are in the table; they stay as long as the transaction lasts."""
    files = sorted({(of.bucket, of.key) for of in places})
    values = ([bucket for bucket, _ in files], [key for _, key in files])
    return {(bucket, key): etag for bucket, key, etag in connection.execute(_sql(_LOADED, table), values).fetchall()}


def _sql(query: LiteralString, table: TableName) -> sql.Composed:
    return sql.SQL(query).format(table=sql.Identifier(table.schema, table.name))

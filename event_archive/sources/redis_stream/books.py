"""The books of a stream, looked at from outside: whether what was acknowledged has become what it should.

A consumer's own books balance in each transaction (``landing``). These here tell of whatever else acknowledges entries,
moves the group, or takes rows away. Not here: what waits (``state``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from psycopg import sql
from redis import Redis

from event_archive.config.sources import StreamSettings
from event_archive.domain.dataset import TableName
from event_archive.domain.days import now_utc
from event_archive.postgres.session import Connection, Session, one
from event_archive.sources.landing import rejected_table
from event_archive.sources.redis_stream.loop import TRIMMED
from event_archive.sources.redis_stream.positions import target
from event_archive.sources.redis_stream.records import SOURCE, Decoded, Entry, decode, locator
from event_archive.sources.redis_stream.state import id_order
from event_archive.sources.runs import AgedTimes

_MOST = 1000
_MOST_BYTES = 8 * 1024 * 1024
_AT_ONCE = 50
"""Entries that Redis is asked for at once: each may be large."""
_STATEMENT_SECONDS = 10
# One probe of the key for each.
_ROWS = """
SELECT of_.place - 1, target.stream_id
FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::timestamptz[]))
  WITH ORDINALITY AS of_(device_id, ts, place)
JOIN {} AS target ON target.device_id = of_.device_id AND target.ts = of_.ts
"""
_REJECTED = "SELECT locator FROM {} WHERE source = %s AND locator = ANY (%s)"
_NUMBERS = """
SELECT pg_catalog.count(*) FILTER (WHERE reason <> %s), pg_catalog.count(*) FILTER (WHERE reason = %s)
FROM {} WHERE source = %s AND pg_catalog.starts_with(locator, %s)
"""


@dataclass(frozen=True, slots=True)
class Books:
    """What became of the newest entries that were acknowledged, and what cannot be a row.

    Attributes:
        looked_at: how many entries.
        missing: ids of those that are neither a row, nor superseded, rejected or too old.
        rejected: entries of the stream that lie in ``rejected_records``.
        lost: those of them that the stream no longer had when they were to be read again; not counted as rejected.
    """

    looked_at: int
    missing: Sequence[str]
    rejected: int
    lost: int


def look(client: Redis, session: Session, settings: StreamSettings, settled: bytes, aged: AgedTimes) -> Books:
    """Looks for what became of the newest entries that were acknowledged and are still in the stream.

    Of 1,000, or fewer where they are large.

    Args:
        client: connected, with answers as bytes.
        session: with the database.
        settings: of the stream.
        settled: as ``GroupState`` has it.
        aged: rows of these times may be archived and gone.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
        UnreachableError, BusyError, RefusedError: as ``Postgres.transaction``.
    """
    entries = _newest(client, settings.stream_key, settled)
    now, zone = now_utc(), settings.stream_timezone
    stream = settings.stream_key
    decoded = {of.id: decode([of], stream=stream, aged=aged, now=now, zone=zone) for of in entries}
    rows = target(settings.ingest_schema)
    with session.transaction(str(rows.table), statement_timeout_seconds=_STATEMENT_SECONDS) as connection:
        landed = _landed(connection, rows.table, decoded)
        left = [of for of, found in decoded.items() if of not in landed and not found.batch.too_old]
        locators = [locator(stream, of) for of in left]
        name = _name(rejected_table(rows))
        rejected = {of for (of,) in connection.execute(sql.SQL(_REJECTED).format(name), (SOURCE, locators)).fetchall()}
        numbers = one(connection, sql.SQL(_NUMBERS).format(name), TRIMMED, TRIMMED, SOURCE, locator(stream, b""))
    missing = [of.decode() for of in left if locator(stream, of) not in rejected]
    return Books(len(entries), missing, *numbers)


def _newest(client: Redis, stream: str, last: bytes) -> list[Entry]:
    """Some entries up to an id, the newest first."""
    found: list[Entry] = []
    size_bytes = 0
    while len(found) < _MOST and size_bytes < _MOST_BYTES:
        page = cast(list[tuple[bytes, dict[bytes, bytes]]], client.xrevrange(stream, max=last, count=_AT_ONCE))
        if not page:
            break
        found += [Entry(of, fields) for of, fields in page]
        size_bytes += sum(len(value) for _, fields in page for value in fields.values())
        last = b"(" + page[-1][0]
    return found


def _landed(connection: Connection, table: TableName, decoded: Mapping[bytes, Decoded]) -> set[bytes]:
    """The entries whose row, or one of a higher id in its place, is there."""
    positions = [(of, position) for of, found in decoded.items() for position in found.positions]
    keys = [of.device_id for _, of in positions], [of.ts for _, of in positions]
    rows = connection.execute(sql.SQL(_ROWS).format(_name(table)), keys).fetchall()
    return {
        positions[place][0]
        for place, stream_id in rows
        if id_order(stream_id) >= id_order(positions[place][0].decode())
    }


def _name(table: TableName) -> sql.Identifier:
    return sql.Identifier(table.schema, table.name)

"""Rejected entries, read again: a time that is plausible by now, say. Not here: how they are kept.

Where their bytes are not known, as of entries that were lost, they stay where they are.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from event_archive.config.sources import StreamReading
from event_archive.postgres.session import Connection
from event_archive.sources.landing import Batch
from event_archive.sources.redis_stream.partitions import Partitions
from event_archive.sources.redis_stream.positions import target
from event_archive.sources.redis_stream.records import SOURCE, Entry, decode, fields, parse_locator
from event_archive.sources.rejected import Replay
from event_archive.sources.runs import NONE_AGED


def replay(settings: StreamReading) -> Replay:
    """How rejected entries are read by these settings."""
    now, rows = datetime.now(UTC), target(settings.ingest_schema)
    partitions = Partitions(rows.table)

    def read(_connection: Connection, records: Sequence[tuple[str, bytes]]) -> tuple[Batch, list[int]]:
        batch, landing, days = Batch(), [], set()
        for index, (locator, raw) in enumerate(records):
            stream, of = parse_locator(locator)
            # None is too old: it is in no archive.
            entry = Entry(of, fields(raw))
            found = decode([entry], stream=stream, aged=NONE_AGED, now=now, zone=settings.stream_timezone)
            if found.batch.lines:
                batch.origins.append((len(batch.lines), partial(_origin, found.batch)))
                batch.lines += found.batch.lines
                landing.append(index)
                days |= found.days
        if days:
            # In transactions of their own, which are short: others wait for them.
            with settings.postgres.session() as session:
                partitions.make(session, days)
        return batch, landing

    return Replay(SOURCE, rows, read)


def _origin(alone: Batch, _index: int) -> tuple[str, bytes]:
    return alone.origin(0)

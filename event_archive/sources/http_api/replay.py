"""Rejected events, read again by today's settings: another field for the time, say. Not here: how they are kept."""

from collections.abc import Sequence
from datetime import UTC, datetime

from event_archive.config.sources import ApiSettings
from event_archive.postgres.session import Connection
from event_archive.sources.http_api.records import SOURCE, reader, target
from event_archive.sources.landing import Batch
from event_archive.sources.rejected import Replay


def replay(settings: ApiSettings) -> Replay:
    """How rejected events are read by these settings."""
    events, now = reader(settings), datetime.now(UTC)

    def read(_connection: Connection, records: Sequence[tuple[str, bytes]]) -> tuple[Batch, list[int]]:
        batch, landing = Batch(), []
        for index, (_, raw) in enumerate(records):
            before = len(batch.lines)
            events.read([raw], batch, now=now, too_old=lambda _instant: False)
            if len(batch.lines) > before:
                landing.append(index)
        batch.rejected.clear()
        return batch, landing

    return Replay(SOURCE, target(settings.ingest_schema, settings.api_conflict), read)

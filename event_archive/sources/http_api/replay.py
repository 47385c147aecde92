"""Rejected events, read again by today's settings: another field for the time, say. Not here: how they are kept."""

from collections.abc import Sequence
from datetime import UTC, datetime

from event_archive.config.sources import ApiSettings
from event_archive.sources.http_api.records import SOURCE, reader, target
from event_archive.sources.landing import Batch, Counts
from event_archive.sources.rejected import RejectedRecords


def replay(records: RejectedRecords, settings: ApiSettings) -> Counts:
    """Lands those rejected events that are rows by now.

    Args:
        records: of the database.
        settings: by which they are read.
    """
    events, now = reader(settings), datetime.now(UTC)

    def read(raws: Sequence[bytes]) -> tuple[Batch, list[int]]:
        batch, landing = Batch(), []
        for index, raw in enumerate(raws):
            before = len(batch.lines)
            events.read([raw], batch, now=now, too_old=lambda _instant: False)
            if len(batch.lines) > before:
                landing.append(index)
        # They stay where they are.
        batch.rejected.clear()
        return batch, landing

    return records.replay(SOURCE, target(settings.ingest_schema, settings.api_conflict), read)

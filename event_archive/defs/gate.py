"""What the gate of the purge goes by: the archive's record of a day, as Dagster keeps it.

Here, too: the keys of the assets, which all of ``defs`` takes from this module. Not here: the gate itself, which
compares the record with the file (``operations.purge``).
"""

from datetime import date

import dagster as dg

from event_archive.domain.record import Record
from event_archive.errors import IntegrityError

AGED_EVENTS = dg.AssetKey("aged_events")
ARCHIVE_CSV = dg.AssetKey("archive_csv")
PURGED_EVENTS = dg.AssetKey("purged_events")
ASSET_KEYS = (AGED_EVENTS, ARCHIVE_CSV, PURGED_EVENTS)


def latest_record(instance: dg.DagsterInstance, day: date) -> Record:
    """What the latest materialization of ``archive_csv`` of that very partition says of the day's file.

    Raises:
        IntegrityError: there is none, or one that was recorded by hand.
    """
    record = record_if_any(instance, day)
    if record is None:
        raise IntegrityError(
            f"archive_csv of {day} was never materialized, so nothing is known of its file. Nothing was deleted. "
            "Materialize archive_csv of this day first."
        )
    return record


def record_if_any(instance: dg.DagsterInstance, day: date) -> Record | None:
    """As ``latest_record``; None where the day's archive was never materialized."""
    latest = latest_materialization(instance, ARCHIVE_CSV, day.isoformat())
    materialization = latest.asset_materialization if latest else None
    if materialization is None:
        return None
    return Record.from_metadata({name: value.value for name, value in materialization.metadata.items()})


def latest_materialization(instance: dg.DagsterInstance, key: dg.AssetKey, day: str) -> dg.EventLogRecord | None:
    """The latest materialization of one partition; None where there is none."""
    # DagsterInstance.get_latest_materialization_event ignores the partition.
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day])
    return next(iter(instance.fetch_materializations(wanted, limit=1).records), None)

"""What the gate of the purge goes by: the archive's record of a day, as Dagster keeps it.

Here, too: the keys of the assets, which all of ``defs`` takes from this module. Not here: the gate itself, which
compares the record with the file (``operations.purge``).
"""

import logging
from contextlib import suppress
from datetime import date
from typing import NamedTuple

import dagster as dg

from event_archive.domain.dataset import Dataset
from event_archive.domain.record import Record
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError
from event_archive.operations.archive import ArchivedDay

logger = logging.getLogger(__name__)


class AssetKeys(NamedTuple):
    """The keys of one dataset's assets, upstream first."""

    aged_events: dg.AssetKey
    archive_csv: dg.AssetKey
    purged_events: dg.AssetKey


def asset_keys(dataset: Dataset) -> AssetKeys:
    """The keys of a dataset's assets."""
    prefix = [dataset.asset_prefix] if dataset.asset_prefix else []
    return AssetKeys(*(dg.AssetKey([*prefix, name]) for name in AssetKeys._fields))


def latest_record(instance: dg.DagsterInstance, dataset: Dataset, day: date) -> Record:
    """What the latest materialization of ``archive_csv`` of that very partition says of the day's file.

    Raises:
        IntegrityError: there is none, or one that was recorded by hand.
    """
    record = record_if_any(instance, dataset, day)
    if record is None:
        raise IntegrityError(
            f"{asset_keys(dataset).archive_csv.to_user_string()} of {day} was never materialized, or its record is "
            "gone, so nothing is known of its file.",
            outcome="Nothing was deleted.",
            advice="Materialize archive_csv of this day first.",
        )
    return record


def record_if_any(
    instance: dg.DagsterInstance, dataset: Dataset, day: date, *, before_run: str | None = None
) -> Record | None:
    """As ``latest_record``; None where no materialization of the day's archive is recorded.

    Args:
        instance: Dagster's records.
        dataset: whose day.
        day: the day.
        before_run: the id of a run; what that one recorded itself does not count.

    Raises:
        IntegrityError: it was recorded by hand.
    """
    latest = latest_materialization(instance, asset_keys(dataset).archive_csv, day.isoformat(), before_run=before_run)
    materialization = latest.asset_materialization if latest else None
    if materialization is None:
        return None
    return Record.from_metadata(
        {name: value.value for name, value in materialization.metadata.items()},
        subject=f"{dataset.label}, {day}",
        archive_again=dataset.command(f"run {day}"),
    )


def warn_of_lost_rows(instance: dg.DagsterInstance, dataset: Dataset, archived: ArchivedDay) -> str:
    """As ``lost_rows``, of a day that was archived and is not recorded yet; says it in the log as well.

    No reason for the day to fail: what the table holds is safe, and a lost file is written anew.
    """
    before = None
    with suppress(IntegrityError):  # recorded by hand
        before = record_if_any(instance, dataset, archived.day)
    has_file, now = archived.etag is not None, (archived.rows, archived.rows_appended)
    lost = lost_rows(before, dataset, archived.day, *now, archived.url, has_file=has_file)
    if lost:
        logger.warning("%s", lost)
    return lost


def lost_rows(
    before: Record | None, dataset: Dataset, day: date, rows: int, appended: int, url: str, *, has_file: bool = True
) -> str:
    """That a day's file had fewer rows than were recorded of it last, which no archive leads to; else empty.

    Args:
        before: what was recorded.
        dataset: whose day.
        day: the day.
        rows: in its file.
        appended: of them, those that this archive wrote; all of them, where it wrote the file anew.
        url: of its file.
        has_file: it has one.
    """
    appended = appended if appended < rows else 0
    if not before or rows - appended >= before.rows:
        return ""
    has = f"{dataset.table}, {day}: {dataset.path(day)} has {counted(rows, 'row', 'rows')}"
    has = f"{has}{f', {appended} of them appended just now' if appended else ''}; the archive recorded"
    if place := before.elsewhere(url):
        return (
            f"{has} {before.rows} before, in {place}. The folder, the file prefix or the lake has changed since: a "
            "restore brings back the rows of this file, those of the other one only with the former settings."
        )
    advice = "run the day again"
    if has_file:
        keep = dataset.command(f"restore {day} --table NAME")
        advice = (
            f"keep the rows of this one first, since those archived meanwhile are nowhere else: {keep}. "
            "docs/howto/failed-day.md says how to put both together"
        )
    return (
        f"{has} {before.rows} in it before. An older version was put back, or the file was cut or lost: a restore "
        f"brings back no more. Look for the later version (soft delete, versions, a backup), and {advice}."
    )


def latest_materialization(
    instance: dg.DagsterInstance, key: dg.AssetKey, day: str, *, before_run: str | None = None
) -> dg.EventLogRecord | None:
    """The latest materialization of one partition, but for those of a run; None where there is none."""
    # DagsterInstance.get_latest_materialization_event ignores the partition. A run records a day once.
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day])
    found = instance.fetch_materializations(wanted, limit=2 if before_run else 1).records
    return next((record for record in found if record.run_id != before_run), None)

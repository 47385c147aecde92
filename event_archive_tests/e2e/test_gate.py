"""The gate between archive and purge in runs of Dagster: what opens it, and what does not."""

from pathlib import Path

import dagster as dg

from event_archive.domain.days import ONE_DAY
from event_archive_tests.fixtures.archived import KEY
from event_archive_tests.fixtures.installation import Installation, failure, metadata
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.runs import retries

NEXT = DAY + ONE_DAY


def test_a_day_whose_record_was_wiped_is_not_told_as_never_archived(
    local_installation: Installation, instance: dg.DagsterInstance
):
    local_installation.add(3)
    assert local_installation.materialize(instance, KEY, only=["archive_csv"]).success
    instance.wipe_assets([dg.AssetKey("archive_csv")])
    result = local_installation.materialize(instance, KEY, only=["purged_events"])
    assert "archive_csv of 2024-03-01 was never materialized, or its record is gone" in failure(result)


def test_a_day_that_was_never_archived_is_not_purged(local_installation: Installation, instance: dg.DagsterInstance):
    local_installation.add(3)
    local_installation.add(3, day=NEXT)
    assert local_installation.materialize(instance, NEXT.isoformat(), only=["archive_csv"]).success
    result = local_installation.materialize(instance, KEY, only=["purged_events"])
    assert "archive_csv of 2024-03-01 was never materialized" in failure(result)
    assert "Nothing was deleted. Materialize archive_csv of this day first." in failure(result)
    assert retries(result) == 0
    assert local_installation.count() == 6


def test_a_file_without_a_materialization_is_not_purged_by(
    local_installation: Installation, instance: dg.DagsterInstance
):
    """As where Dagster's own database is lost: archiving again finds the rows in the file and records it."""
    local_installation.add(3)
    local_installation.archive()
    assert "never materialized" in failure(local_installation.materialize(instance, KEY, only=["purged_events"]))
    result = local_installation.materialize(instance, KEY)
    assert [metadata(result, "archive_csv")["rows_appended"], metadata(result, "purged_events")["deleted"]] == [0, 3]


def test_a_materialization_recorded_by_hand_does_not_open_the_gate(
    local_installation: Installation, instance: dg.DagsterInstance
):
    local_installation.add(3)
    local_installation.materialize(instance, KEY, only=["archive_csv"])
    instance.report_runless_asset_event(dg.AssetMaterialization("archive_csv", partition=KEY))
    said = failure(local_installation.materialize(instance, KEY, only=["purged_events"]))
    assert said.startswith(f'public."Event", {KEY}: the latest materialization of archive_csv lacks its metadata')
    assert f"recorded by hand. Nothing was deleted. Archive the day again: event-archive run {KEY}, or" in said
    assert local_installation.count() == 3


def test_a_file_that_changed_since_is_not_purged_by(installation: Installation, instance: dg.DagsterInstance):
    installation.add(3)
    installation.materialize(instance, KEY, only=["archive_csv"])
    file = installation.lake.stat(installation.dataset.path(DAY))
    assert file is not None
    # The same bytes and the same manifest, written by somebody else.
    installation.put(installation.content(), metadata=dict(file.metadata))
    result = installation.materialize(instance, KEY, only=["purged_events"])
    assert "has ETag" in failure(result)
    assert "or materialize archive_csv, then purged_events." in failure(result)
    assert retries(result) == 0
    assert installation.count() == 3
    assert metadata(installation.materialize(instance, KEY), "purged_events")["deleted"] == 3


def test_a_file_that_was_edited_is_neither_appended_to_nor_purged_by(
    installation: Installation, instance: dg.DagsterInstance
):
    installation.add(3)
    installation.materialize(instance, KEY, only=["archive_csv"])
    file = installation.lake.stat(installation.dataset.path(DAY))
    assert file is not None
    installation.put(installation.content().replace(b"order", b"odder"), metadata=dict(file.metadata))
    edited = installation.content()
    result = installation.materialize(instance, KEY)
    assert "its manifest says sha256" in failure(result)
    assert "event-archive adopt" in failure(result)
    assert retries(result) == 0
    assert (installation.content(), installation.count()) == (edited, 3)


def test_the_gate_is_of_the_very_partition(installation: Installation, instance: dg.DagsterInstance):
    installation.add(3)
    installation.add(4, day=NEXT)
    installation.materialize(instance, KEY, only=["archive_csv"])
    installation.materialize(instance, NEXT.isoformat(), only=["archive_csv"])
    result = installation.materialize(instance, KEY, only=["purged_events"])
    assert metadata(result, "purged_events")["deleted"] == 3
    assert installation.count() == 4


def test_what_one_process_recorded_opens_the_gate_in_another(
    local_installation: Installation, instance: dg.DagsterInstance, home: Path
):
    local_installation.add(3)
    local_installation.materialize(instance, KEY, only=["aged_events", "archive_csv"])
    with dg.DagsterInstance.from_config(str(home)) as later:
        assert (
            metadata(local_installation.materialize(later, KEY, only=["purged_events"]), "purged_events")["deleted"]
            == 3
        )
    partitions = instance.get_materialized_partitions(dg.AssetKey("purged_events"))
    assert partitions == {KEY}

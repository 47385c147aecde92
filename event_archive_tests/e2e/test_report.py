"""What a command reports to Dagster's records without a run: the UI, the gate and the assets see the days as run."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from event_archive.config.environment import PipelineSettings
from event_archive.defs.build import build_definitions
from event_archive.defs.checks import ARCHIVE_IS_WHOLE
from event_archive.defs.gate import asset_keys, latest_materialization, latest_record
from event_archive.defs.partitions import aged_days
from event_archive.defs.report import DayReports, reporting
from event_archive.operations.verify import verify_day
from event_archive_tests.fixtures.installation import Installation, metadata
from event_archive_tests.fixtures.pipeline import DAY, SPECIFICATION
from event_archive_tests.fixtures.reporting import KEY, NEXT, NEXT_KEY, archive

pytestmark = pytest.mark.slow


def of_day(instance: dg.DagsterInstance, key: dg.AssetKey, day: str) -> dict[str, dg.MetadataValue]:
    latest = latest_materialization(instance, key, day)
    assert latest is not None
    assert latest.asset_materialization is not None
    return dict(latest.asset_materialization.metadata)


def test_a_reported_day_counts_as_materialized(
    local_installation: Installation, instance: dg.DagsterInstance, reports: DayReports
):
    local_installation.add(3)
    archive(local_installation, reports)
    reports.purged(local_installation.purge())
    partitions = aged_days(local_installation.dataset)
    for key in asset_keys(SPECIFICATION):
        assert instance.get_materialized_partitions(key) == {KEY}
        statuses = instance.get_status_by_partition(key, [KEY, NEXT_KEY], partitions)
        assert statuses == {KEY: AssetPartitionStatus.MATERIALIZED, NEXT_KEY: None}


def test_a_reported_day_has_the_metadata_that_a_run_records(
    local_installation: Installation, instance: dg.DagsterInstance, reports: DayReports
):
    local_installation.add(3)
    local_installation.add(3, day=NEXT)
    archive(local_installation, reports)
    reports.purged(local_installation.purge())
    assert local_installation.materialize(instance, NEXT_KEY).success
    for key in asset_keys(SPECIFICATION):
        reported, recorded = of_day(instance, key, KEY), of_day(instance, key, NEXT_KEY)
        assert {name: type(value) for name, value in reported.items()} == {
            name: type(value) for name, value in recorded.items()
        }
        same = [name for name in recorded if name in ("dagster/row_count", "rows_appended", "deleted", "outcome")]
        assert [reported[name] for name in same] == [recorded[name] for name in same]
    preview = of_day(instance, asset_keys(SPECIFICATION).archive_csv, KEY)["preview"].value
    assert isinstance(preview, str)
    assert preview.startswith("| id | event_id |")


def test_the_gate_opens_for_a_reported_archive(
    local_installation: Installation, instance: dg.DagsterInstance, reports: DayReports
):
    local_installation.add(3)
    archive(local_installation, reports)
    file = local_installation.lake.stat(local_installation.dataset.path(DAY))
    record = latest_record(instance, SPECIFICATION, DAY)
    assert file is not None
    assert (record.etag, record.rows, record.bytes) == (file.etag, 3, file.size_bytes)
    result = local_installation.materialize(instance, KEY, only=["purged_events"])
    assert metadata(result, "purged_events")["deleted"] == 3
    assert local_installation.count() == 0


def test_the_gate_stays_closed_where_a_run_before_the_report_recorded_another_file(
    local_installation: Installation, instance: dg.DagsterInstance, reports: DayReports
):
    local_installation.add(3)
    assert local_installation.materialize(instance, KEY, only=["archive_csv"]).success
    local_installation.add(1, prefix="late")
    local_installation.archive()  # of which nobody was told
    assert not local_installation.materialize(instance, KEY, only=["purged_events"]).success
    archive(local_installation, reports)
    result = local_installation.materialize(instance, KEY, only=["purged_events"])
    assert metadata(result, "purged_events")["deleted"] == 4


def test_a_reported_day_is_not_out_of_date(
    local_installation: Installation, instance: dg.DagsterInstance, reports: DayReports
):
    local_installation.add(3)
    archive(local_installation, reports)
    reports.purged(local_installation.purge())
    definitions = build_definitions(PipelineSettings.load())
    resolver = CachingStaleStatusResolver(instance, definitions.resolve_asset_graph(), LoadingContextForTest(instance))
    for key in asset_keys(SPECIFICATION):
        assert resolver.get_status(key, KEY) == StaleStatus.FRESH, resolver.get_stale_causes(key, KEY)


def test_an_unchanged_day_keeps_its_preview_and_reads_nothing_for_it(
    local_installation: Installation, instance: dg.DagsterInstance, reports: DayReports, clean: pytest.MonkeyPatch
):
    local_installation.add(3)
    archive(local_installation, reports)
    before = of_day(instance, asset_keys(SPECIFICATION).archive_csv, KEY)["preview"]
    with clean.context() as patch:
        patch.setattr(type(local_installation.lake), "head", None)
        archive(local_installation, reports)
    assert of_day(instance, asset_keys(SPECIFICATION).archive_csv, KEY)["preview"] == before
    local_installation.add(1, prefix="late")
    archive(local_installation, reports)
    preview = of_day(instance, asset_keys(SPECIFICATION).archive_csv, KEY)["preview"].value
    assert "late-2024-03-01-0" in str(preview)


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_a_verified_day_is_an_evaluation_of_its_check(
    local_installation: Installation, instance: dg.DagsterInstance, reports: DayReports, damaged: bool
):
    local_installation.add(3)
    archive(local_installation, reports)
    if damaged:
        file = local_installation.lake.stat(local_installation.dataset.path(DAY))
        assert file is not None
        local_installation.put(local_installation.content()[:-4], metadata=dict(file.metadata))
    verified = verify_day(local_installation.dataset, DAY, table=None, lake=local_installation.lake)
    reports.verified(verified)
    key = dg.AssetCheckKey(asset_keys(SPECIFICATION).archive_csv, ARCHIVE_IS_WHOLE)
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
    assert record.event is not None
    evaluation = record.event.asset_check_evaluation
    assert evaluation is not None
    assert (evaluation.passed, evaluation.partition) == (not damaged, KEY)
    assert set(evaluation.metadata) == {"rows", "bytes", "seconds"}
    assert evaluation.description == ("; ".join(verified.problems) if damaged else "good")


def test_a_day_is_verified_again_by_one_night_after_the_other(
    local_installation: Installation, instance: dg.DagsterInstance, reports: DayReports
):
    local_installation.add(3)
    archive(local_installation, reports)
    verified = verify_day(local_installation.dataset, DAY, table=None, lake=local_installation.lake)
    reports.verified(verified)
    with reporting() as found:
        found(local_installation.dataset).verified(verified)
    key = dg.AssetCheckKey(asset_keys(SPECIFICATION).archive_csv, ARCHIVE_IS_WHOLE)
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
    assert [record.partition for record in records] == [KEY, KEY]

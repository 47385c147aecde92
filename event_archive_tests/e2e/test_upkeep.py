"""The table is checked every day, superseded records go, and both are on by default."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from event_archive.defs.jobs import TABLE_TAG
from event_archive.defs.upkeep import superseded_runs
from event_archive.domain.days import ONE_DAY
from event_archive.table import holds
from event_archive_tests.fixtures.installation import ASSETS, Installation
from event_archive_tests.fixtures.pipeline import DAY, NO_CSV
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

DAYS = [DAY, DAY + ONE_DAY, DAY + 2 * ONE_DAY]
KEYS = [day.isoformat() for day in DAYS]


def checked(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dict[str, dg.AssetCheckEvaluation]:
    result = definitions.resolve_job_def("check_job").execute_in_process(instance=instance)
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def test_a_backlog_and_rows_of_no_day_are_seen_by_the_daily_checks(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation, webhook: Webhook,
    clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    dataset = local_installation.dataset
    last_aged = dataset.retention.last_aged_day(datetime.now(UTC))
    local_installation.add(1, day=last_aged - 2 * ONE_DAY)
    found = checked(definitions, instance)
    assert {name: evaluation.passed for name, evaluation in found.items()} == {
        "backlog_is_small": True,
        "no_orphans": True,
    }
    assert webhook.texts == []
    for rows, day in enumerate(DAYS, start=2):
        local_installation.add(rows, day=day)
    holds.hold(dataset, DAYS[1], DAYS[1], "a lawsuit", local_installation.postgres)
    local_installation.database.execute("""INSERT INTO "Event" (event_id, event_type, payload, created_at)
                                           VALUES ('lost', 't', '{}', '1999-01-01')""")
    found = checked(definitions, instance)
    backlog, orphans = found["backlog_is_small"], found["no_orphans"]
    assert (backlog.passed, orphans.passed) == (False, False)
    assert {name: value.value for name, value in backlog.metadata.items()} == {"days": 2, "rows": 6, "held_days": 1}
    seen = [
        {name: value.value for name, value in record.event_log_entry.asset_observation.metadata.items()}
        for record in instance.fetch_observations(dg.AssetKey("aged_events"), limit=2).records
        if record.event_log_entry.asset_observation
    ]
    assert [(of["backlog_days"], of["backlog_rows"], of["held_days"]) for of in seen] == [(2, 6, 1), (0, 0, 0)]
    whole = local_installation.database.execute("""SELECT pg_total_relation_size('"Event"')""")[0][0]
    assert (seen[0]["table_bytes"], whole != 0) == (whole, True)
    assert f"2 aged days since {DAYS[0]} still have 6 rows" in (backlog.description or "")
    assert "1 row lies before the first day" in (orphans.description or "")
    (text,) = webhook.texts
    assert f"2 aged days since {DAYS[0]} still have 6 rows" in text


def test_a_backfill_that_works_a_backlog_off_does_not_announce_it_with_every_day(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation, webhook: Webhook,
    clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    for day in DAYS:
        local_installation.add(2, day=day)
    # As the asset pages launch it: with all checks of the assets.
    job = definitions.resolve_implicit_global_asset_job_def()
    for key in KEYS[:2]:
        done = job.execute_in_process(
            partition_key=key, instance=instance, asset_selection=[*map(dg.AssetKey, ASSETS)], raise_on_error=False
        )
        assert done.success
        found = {evaluation.check_name: evaluation.passed for evaluation in done.get_asset_check_evaluations()}
        assert found == {"archive_is_whole": True, "backlog_is_small": False, "no_orphans": True}
    assert webhook.texts == []
    assert not checked(definitions, instance)["backlog_is_small"].passed
    assert len(webhook.texts) == 1


def test_records_of_superseded_runs_go_and_the_gate_stays(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation
):
    local_installation.add(1)
    dataset = local_installation.dataset
    tags = {TABLE_TAG: str(dataset.table)}
    job = definitions.resolve_job_def("archive_job")

    def archive_run() -> str:
        done = job.execute_in_process(partition_key=KEYS[0], instance=instance, tags=tags, raise_on_error=False)
        return done.run_id

    first, second = archive_run(), archive_run()
    content = local_installation.content()
    local_installation.put(NO_CSV)
    failed = archive_run()
    local_installation.put(content)
    assert definitions.resolve_job_def("check_job").execute_in_process(instance=instance, tags=tags).success
    soon = datetime.now(UTC) + timedelta(seconds=5)
    pruned = set(superseded_runs(instance, dataset, soon))
    # Of the failed run aged_events is the latest.
    assert first in pruned
    assert not pruned & {second, failed}
    assert not set(superseded_runs(instance, dataset, datetime.now(UTC) - timedelta(days=1)))

    config = {"ops": {"prune_runs": {"config": {"older_than_days": -1}}}}
    prune = definitions.resolve_job_def("prune_job").execute_in_process(instance=instance, run_config=config)
    assert prune.success
    left = {run.run_id for run in instance.get_runs()}
    assert (first in left, second in left, failed in left) == (False, True, True)
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey("archive_csv"), asset_partitions=[KEYS[0]])
    assert instance.fetch_materializations(wanted, limit=1).records[0].run_id == second


def test_what_looks_after_the_installation_is_on_by_default(definitions: dg.Definitions):
    for name in ("check_daily", "prune_weekly"):
        schedule = definitions.resolve_schedule_def(name)
        assert isinstance(schedule, dg.ScheduleDefinition)
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    for name in ("failed_runs", "failed_days"):
        assert definitions.resolve_sensor_def(name).default_status == dg.DefaultSensorStatus.RUNNING
    (spec,) = [spec for spec in definitions.resolve_all_asset_specs() if spec.key == dg.AssetKey("archive_csv")]
    assert spec.freshness_policy is not None

"""Failed runs are announced, days that are left failed are looked after, the table is checked, old records go."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from event_archive.config.environment import PipelineSettings, Settings
from event_archive.defs.build import build_definitions
from event_archive.defs.jobs import TABLE_TAG
from event_archive.defs.resources import RESOURCES
from event_archive.defs.upkeep import superseded_runs
from event_archive.domain.days import ONE_DAY
from event_archive.errors import RefusedError
from event_archive.observability.announcement import announced
from event_archive.table import holds
from event_archive_tests.e2e.test_schedule import Scheduler
from event_archive_tests.fixtures.installation import ASSETS, Commands, Installation, metadata
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

DAYS = [DAY, DAY + ONE_DAY, DAY + 2 * ONE_DAY]
KEYS = [day.isoformat() for day in DAYS]
NO_CSV = b"not a CSV file of this table\n"


@pytest.fixture
def definitions(local_installation: Installation) -> dg.Definitions:
    return build_definitions(PipelineSettings.load())


def evaluate(definitions: dg.Definitions, instance: dg.DagsterInstance, name: str, cursor: str | None) -> object:
    """One tick of a sensor: what it asks for, with the cursor that it leaves."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions, resources=RESOURCES)
    with context:
        return definitions.resolve_sensor_def(name).evaluate_tick(context)


def cursor_after(definitions: dg.Definitions, instance: dg.DagsterInstance, name: str, cursor: str | None) -> str:
    found = evaluate(definitions, instance, name, cursor).cursor  # type: ignore[attr-defined]
    assert isinstance(found, str)
    return found


def run(definitions: dg.Definitions, instance: dg.DagsterInstance, day: str) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def("archive_job").execute_in_process(
        partition_key=day, instance=instance, raise_on_error=False
    )


def test_failed_runs_are_announced_once_in_one_message(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation, webhook: Webhook,
    clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    for day in DAYS:
        local_installation.add(1, day=day)
        local_installation.put(NO_CSV, day=day)
    assert not run(definitions, instance, KEYS[0]).success
    cursor = cursor_after(definitions, instance, "failed_runs", None)
    assert webhook.texts == []  # what failed before the sensor was on is no news
    for key in KEYS[1:]:
        assert not run(definitions, instance, key).success
    cursor = cursor_after(definitions, instance, "failed_runs", cursor)
    (text,) = webhook.texts
    assert '2 days of public."Event" failed' in text
    assert f"{KEYS[1]}, {KEYS[2]}: " in text
    assert "its first line names no column" in text
    cursor_after(definitions, instance, "failed_runs", cursor)
    assert len(webhook.texts) == 1


def test_failures_that_could_not_be_announced_are_announced_by_the_next_tick(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation, webhook: Webhook,
    clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    cursor = cursor_after(definitions, instance, "failed_runs", None)
    local_installation.add(1)
    local_installation.put(NO_CSV)
    run(definitions, instance, KEYS[0])
    webhook.statuses = [404]
    with pytest.raises(RefusedError, match="404"):
        evaluate(definitions, instance, "failed_runs", cursor)
    cursor_after(definitions, instance, "failed_runs", cursor)
    assert len(webhook.texts) == 1


def test_a_run_that_dagsters_daemon_gave_up_is_announced_and_so_is_what_fails_after_it(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation, webhook: Webhook,
    clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    cursor = cursor_after(definitions, instance, "failed_runs", None)
    # As the daemon fails a run whose worker is gone, or that lasts for too long: without a word of why in its data.
    job = definitions.resolve_job_def("archive_job")
    lost = instance.create_run_for_job(job, tags={**job.tags, "dagster/partition": KEYS[0]})
    instance.report_run_failed(lost, "Detected run worker status UNKNOWN")
    local_installation.add(1, day=DAYS[1])
    local_installation.put(NO_CSV, day=DAYS[1])
    assert not run(definitions, instance, KEYS[1]).success
    cursor_after(definitions, instance, "failed_runs", cursor)
    (text,) = webhook.texts
    assert f"{KEYS[0]}: a crash, or an error that event_archive does not know" in text
    assert f"{KEYS[1]}: " in text


def test_runs_that_dagster_tries_again_and_those_of_other_locations_are_not_announced(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation, webhook: Webhook,
    clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    cursor = cursor_after(definitions, instance, "failed_runs", None)
    local_installation.add(1)
    local_installation.put(NO_CSV)
    failed = run(definitions, instance, KEYS[0])
    instance.add_run_tags(failed.run_id, {"dagster/will_retry": "true"})
    # A run of the code location "event_archive", where this sensor is evaluated in none.
    Scheduler(instance, definitions).in_flight(dg.DagsterRunStatus.STARTED, partition=KEYS[1])
    elsewhere = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))[0]
    instance.report_run_failed(elsewhere)
    cursor_after(definitions, instance, "failed_runs", cursor)
    assert webhook.texts == []


def test_a_retry_that_dagster_promised_and_never_launched_is_announced(
    definitions: dg.Definitions, instance: dg.DagsterInstance, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    cursor = cursor_after(definitions, instance, "failed_runs", None)
    job = definitions.resolve_job_def("archive_job")
    retried, taken_back, forgotten = (
        instance.create_run_for_job(job, tags={**job.tags, "dagster/partition": key}) for key in KEYS
    )
    for lost in (retried, taken_back, forgotten):
        instance.report_run_failed(lost)
        instance.add_run_tags(lost.run_id, {"dagster/will_retry": "true"})
    cursor = cursor_after(definitions, instance, "failed_runs", cursor)
    instance.add_run_tags(retried.run_id, {"dagster/auto_retry_run_id": taken_back.run_id})
    # As the daemon does where launching the retry fails, because the code server is away or the job was renamed.
    instance.add_run_tags(taken_back.run_id, {"dagster/will_retry": "false"})
    cursor = cursor_after(definitions, instance, "failed_runs", cursor)
    assert [f"{KEYS[1]}: a crash" in text for text in webhook.texts] == [True]
    for _ in range(10):
        cursor = cursor_after(definitions, instance, "failed_runs", cursor)
    (_, text) = webhook.texts
    assert f"{KEYS[2]}: a crash" in text
    assert "Dagster meant to try the run again, and has not." in text
    assert KEYS[0] not in "".join(webhook.texts)


def test_a_day_left_failed_without_rows_is_run_again_and_one_with_rows_is_left_to_the_schedule(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation, webhook: Webhook,
    clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    for day in DAYS[:2]:
        local_installation.add(2, day=day)
    assert run(definitions, instance, KEYS[0]).success
    whole = local_installation.content()
    for day in DAYS[:2]:
        local_installation.put(NO_CSV, day=day)
        assert not run(definitions, instance, day.isoformat()).success
    local_installation.put(whole)

    found = evaluate(definitions, instance, "failed_days", None)
    assert [request.partition_key for request in found.run_requests] == KEYS[:1]  # type: ignore[attr-defined]
    (text,) = webhook.texts
    assert "2 days" in text
    assert f"{KEYS[0]}, {KEYS[1]}: left failed" in text
    # Once a day, and not at all where nothing is left failed.
    again = evaluate(definitions, instance, "failed_days", found.cursor)  # type: ignore[attr-defined]
    assert again.skip_message == "looked within a day"  # type: ignore[attr-defined]
    long_ago = (datetime.now(UTC) - timedelta(hours=25)).isoformat()
    local_installation.lake._root.joinpath(local_installation.dataset.path(DAYS[1])).unlink()  # type: ignore[attr-defined]
    for key in KEYS[:2]:
        result = run(definitions, instance, key)
        assert result.success
    assert metadata(result, "purged_events")["deleted"] == 2
    done = evaluate(definitions, instance, "failed_days", long_ago)
    assert done.skip_message == "no day is left failed"  # type: ignore[attr-defined]
    assert len(webhook.texts) == 1


def test_days_left_failed_are_announced_while_the_database_is_away(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation, webhook: Webhook,
    clean: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    local_installation.put(NO_CSV)
    assert not run(definitions, instance, KEYS[0]).success
    clean.setenv("PG_CONNECTION_STRING", "postgresql://localhost:1/nowhere")
    found = evaluate(definitions, instance, "failed_days", None)
    assert found.run_requests == []  # type: ignore[attr-defined]
    assert "whether days have rows could not be seen" in caplog.text
    (text,) = webhook.texts
    assert f"{KEYS[0]}: left failed" in text


def test_without_a_webhook_the_sensors_say_so(definitions: dg.Definitions, instance: dg.DagsterInstance):
    cursor = cursor_after(definitions, instance, "failed_runs", None)
    found = evaluate(definitions, instance, "failed_runs", cursor)
    assert found.skip_message == "0 failed runs. ALERT_WEBHOOK_URL is not set: nobody is alerted"  # type: ignore[attr-defined]


def test_the_command_line_announces_its_own_failures(command: Commands, local_installation: Installation,
                                                     webhook: Webhook):  # fmt: skip
    for day in DAYS[:2]:
        local_installation.add(1, day=day)
    local_installation.put(NO_CSV)
    variables = local_installation.variables | {"ALERT_WEBHOOK_URL": webhook.url}
    assert command("run", **variables).code == 1
    (text,) = webhook.texts
    assert '1 day of public."Event" failed' in text
    assert f"{KEYS[0]}: " in text
    assert text.endswith("may fail until somebody has done what the message says.")
    # A service out of reach is no day's failure, but one of the run.
    gone = variables | {"PG_CONNECTION_STRING": "postgresql://archiver:pa55w0rd@127.0.0.1:9/events"}
    assert command("run", **gone).code == 1
    assert "PostgreSQL cannot be reached" in webhook.texts[1]
    assert webhook.texts[1].endswith("It may pass: the next run tries again.")
    assert "pa55w0rd" not in webhook.texts[1]
    # Nobody is told of a run that went well, nor of a wrong argument.
    assert command("run", KEYS[1], **variables).code == 0
    assert command("run", datetime.now(UTC).date().isoformat(), **variables).code == 2
    assert len(webhook.texts) == 2


def test_a_webhook_that_takes_nothing_changes_nothing_but_a_warning(
    command: Commands, local_installation: Installation, webhook: Webhook
):
    local_installation.add(1)
    local_installation.put(NO_CSV)
    webhook.statuses = [404]
    done = command("run", **local_installation.variables, ALERT_WEBHOOK_URL=webhook.url)
    assert done.code == 1
    assert "the failure could not be announced: ALERT_WEBHOOK_URL answers 404" in done.said
    assert "s3cr3t" not in done.said


def test_a_run_that_dies_is_announced_and_no_success(
    command: Commands, local_installation: Installation, webhook: Webhook, tmp_path: Path
):
    local_installation.add(1)
    path = tmp_path / "event_archive.prom"
    variables = local_installation.variables | {"ALERT_WEBHOOK_URL": webhook.url, "METRICS_TEXTFILE": str(path)}
    assert command("run", **variables, DAGSTER_HOME="/nowhere/at/all").code == 2
    assert "DAGSTER_HOME holds '/nowhere/at/all'" in webhook.texts[0]
    assert figures(path)["last_success_timestamp_seconds"] == 0
    assert figures(path)["backlog_days"] == 1


@pytest.mark.parametrize(("error", "told"), [(LookupError("s3cr3t"), ["LookupError"]), (KeyboardInterrupt(), [])])
def test_what_ends_a_run_from_outside_is_no_success_either(
    local_installation: Installation, webhook: Webhook, tmp_path: Path, clean: pytest.MonkeyPatch,
    error: BaseException, told: list[str],
):  # fmt: skip
    path = tmp_path / "event_archive.prom"
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    clean.setenv("METRICS_TEXTFILE", str(path))
    with pytest.raises(type(error)), announced(Settings.load(), bool):
        raise error
    assert figures(path)["last_success_timestamp_seconds"] == 0
    assert ("backlog_days" in figures(path)) == bool(told)
    assert [words in text for words, text in zip(told, webhook.texts, strict=True)] == [True] * len(told)
    assert "s3cr3t" not in "".join(webhook.texts)


def figures(path: Path) -> dict[str, float]:
    return {
        sample.name.removeprefix("event_archive_"): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
        if sample.labels == {"table": 'public."Event"'}
    }


def test_a_run_leaves_its_figures_for_prometheus(command: Commands, local_installation: Installation, tmp_path: Path):
    path = tmp_path / "event_archive.prom"
    variables = local_installation.variables | {"METRICS_TEXTFILE": str(path)}
    for rows, day in enumerate(DAYS, start=2):
        local_installation.add(rows, day=day)
    local_installation.database.execute("""INSERT INTO "Event" (event_id, event_type, payload, created_at)
                                           VALUES ('lost', 't', '{}', '1999-01-01')""")
    assert command("run", KEYS[0], KEYS[1], **variables).code == 0
    found = figures(path)
    assert found.pop("run_seconds") > 0
    assert found.pop("last_run_timestamp_seconds") == found.pop("last_success_timestamp_seconds") > 1.7e9
    assert found.pop("drain_estimate_seconds") > 0
    assert found == {
        "run_days": 2,
        "run_failed_days": 0,
        "run_archived_rows": 5,
        "run_deleted_rows": 5,
        "backlog_days": 1,
        "backlog_rows": 4,
        "backlog_oldest_timestamp_seconds": datetime(DAYS[2].year, DAYS[2].month, DAYS[2].day, tzinfo=UTC).timestamp(),
        "orphan_rows": 1,
    }
    success = figures(path)["last_success_timestamp_seconds"]
    local_installation.put(NO_CSV, day=DAYS[2])
    assert command("run", **variables).code == 1
    found = figures(path)
    assert (found["run_failed_days"], found["backlog_rows"]) == (1, 4)
    assert found["last_success_timestamp_seconds"] == success < found["last_run_timestamp_seconds"]


def test_figures_that_cannot_be_written_are_a_warning(command: Commands, local_installation: Installation):
    local_installation.add(1)
    done = command("run", **local_installation.variables, METRICS_TEXTFILE="/nowhere/at/all.prom")
    assert done.code == 0
    assert "METRICS_TEXTFILE holds '/nowhere/at/all.prom', which cannot be written" in done.said


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

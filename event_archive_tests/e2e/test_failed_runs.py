"""Failed runs are announced once, and days that are left failed are looked after."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from event_archive.domain.days import ONE_DAY
from event_archive.errors import RefusedError
from event_archive_tests.fixtures.installation import Installation, metadata
from event_archive_tests.fixtures.pipeline import DAY, NO_CSV
from event_archive_tests.fixtures.scheduler import Scheduler, cursor_after, evaluate
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

DAYS = [DAY, DAY + ONE_DAY, DAY + 2 * ONE_DAY]
KEYS = [day.isoformat() for day in DAYS]


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


def test_a_failure_is_announced_where_somebody_has_deleted_the_last_one_that_was(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation, webhook: Webhook,
    clean: pytest.MonkeyPatch,
):  # fmt: skip
    """Dagster's SQLite gives the next failure the number of the record that is gone."""
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    cursor = cursor_after(definitions, instance, "failed_runs", None)
    local_installation.add(1)
    local_installation.put(NO_CSV)
    for number in (1, 2, 3):
        last = run(definitions, instance, KEYS[0])
        cursor = cursor_after(definitions, instance, "failed_runs", cursor)
        assert len(webhook.texts) == number
        instance.delete_run(last.run_id)
    cursor_after(definitions, instance, "failed_runs", cursor)
    assert len(webhook.texts) == 3


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

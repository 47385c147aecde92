"""Failed runs are announced once, and days that are left failed are looked after."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from event_archive.domain.days import ONE_DAY
from event_archive.errors import RefusedError
from event_archive_tests.fixtures.installation import Installation, metadata
from event_archive_tests.fixtures.pipeline import DAY, NO_CSV
from event_archive_tests.fixtures.scheduler import Scheduler, Sensor
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

DAYS = [DAY, DAY + ONE_DAY, DAY + 2 * ONE_DAY]
KEYS = [day.isoformat() for day in DAYS]


@pytest.fixture
def announced(webhook: Webhook, clean: pytest.MonkeyPatch) -> Webhook:
    """What is told to the webhook."""
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    return webhook


@pytest.fixture
def failed_runs(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Sensor:
    """The sensor after its first look: what failed before is no news."""
    sensor = Sensor(definitions, instance, "failed_runs")
    sensor.tick()
    return sensor


Run = Callable[[str], dg.ExecuteInProcessResult]


@pytest.fixture
def run(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Run:
    """A run of the archive job for a day."""
    job = definitions.resolve_job_def("archive_job")
    return lambda day: job.execute_in_process(partition_key=day, instance=instance, raise_on_error=False)


def test_failed_runs_are_announced_once_in_one_message(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    local_installation: Installation,
    announced: Webhook,
    run: Run,
):
    for day in DAYS:
        local_installation.add(1, day=day)
        local_installation.put(NO_CSV, day=day)
    assert not run(KEYS[0]).success
    sensor = Sensor(definitions, instance, "failed_runs")
    sensor.tick()
    assert announced.texts == []  # what failed before the sensor was on is no news
    for key in KEYS[1:]:
        assert not run(key).success
    assert sensor.tick(preview=True).skip_message == "2 failed runs"
    assert announced.texts == []
    sensor.tick()
    (text,) = announced.texts
    assert '2 days of public."Event" failed' in text
    assert f"{KEYS[1]}, {KEYS[2]}: " in text
    assert "its first line names no column" in text
    sensor.tick()
    assert len(announced.texts) == 1


def test_failures_that_could_not_be_announced_are_announced_by_the_next_tick(
    failed_runs: Sensor, local_installation: Installation, announced: Webhook, run: Run
):
    local_installation.add(1)
    local_installation.put(NO_CSV)
    run(KEYS[0])
    announced.statuses = [404]
    with pytest.raises(RefusedError, match="404"):
        failed_runs.tick()
    failed_runs.tick()
    assert len(announced.texts) == 1


def test_a_failure_is_announced_where_somebody_has_deleted_the_last_one_that_was(
    failed_runs: Sensor, instance: dg.DagsterInstance, local_installation: Installation, announced: Webhook, run: Run
):
    """Dagster's SQLite gives the next failure the number of the record that is gone."""
    local_installation.add(1)
    local_installation.put(NO_CSV)
    for number in (1, 2, 3):
        last = run(KEYS[0])
        failed_runs.tick()
        assert len(announced.texts) == number
        instance.delete_run(last.run_id)
    failed_runs.tick()
    assert len(announced.texts) == 3


def test_a_run_that_dagsters_daemon_gave_up_is_announced_and_so_is_what_fails_after_it(
    failed_runs: Sensor,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    local_installation: Installation,
    announced: Webhook,
    run: Run,
):
    # As the daemon fails a run whose worker is gone, or that lasts for too long: without a word of why in its data.
    lost = Scheduler(instance, definitions).create(dg.RunRequest(partition_key=KEYS[0]))
    instance.report_run_failed(lost, "Detected run worker status UNKNOWN")
    local_installation.add(1, day=DAYS[1])
    local_installation.put(NO_CSV, day=DAYS[1])
    assert not run(KEYS[1]).success
    failed_runs.tick()
    (text,) = announced.texts
    assert f"{KEYS[0]}: a crash, or an error that event_archive does not know" in text
    assert f"{KEYS[1]}: " in text


def test_runs_that_dagster_tries_again_and_those_of_other_locations_are_not_announced(
    failed_runs: Sensor,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    local_installation: Installation,
    announced: Webhook,
    run: Run,
):
    local_installation.add(1)
    local_installation.put(NO_CSV)
    failed = run(KEYS[0])
    instance.add_run_tags(failed.run_id, {"dagster/will_retry": "true"})
    # A run of the code location "event_archive", where this sensor is evaluated in none.
    Scheduler(instance, definitions).in_flight(dg.DagsterRunStatus.STARTED, partition=KEYS[1])
    elsewhere = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))[0]
    instance.report_run_failed(elsewhere)
    failed_runs.tick()
    assert announced.texts == []


def test_a_retry_that_dagster_promised_and_never_launched_is_announced(
    failed_runs: Sensor, definitions: dg.Definitions, instance: dg.DagsterInstance, announced: Webhook
):
    scheduler = Scheduler(instance, definitions)
    retried, taken_back, forgotten = (scheduler.create(dg.RunRequest(partition_key=key)) for key in KEYS)
    for lost in (retried, taken_back, forgotten):
        instance.report_run_failed(lost)
        instance.add_run_tags(lost.run_id, {"dagster/will_retry": "true"})
    failed_runs.tick()
    instance.add_run_tags(retried.run_id, {"dagster/auto_retry_run_id": taken_back.run_id})
    # As the daemon does where launching the retry fails, because the code server is away or the job was renamed.
    instance.add_run_tags(taken_back.run_id, {"dagster/will_retry": "false"})
    failed_runs.tick()
    assert [f"{KEYS[1]}: a crash" in text for text in announced.texts] == [True]
    for _ in range(10):
        failed_runs.tick()
    (_, text) = announced.texts
    assert f"{KEYS[2]}: a crash" in text
    assert "Dagster meant to try the run again, and has not." in text
    assert KEYS[0] not in "".join(announced.texts)


def test_a_day_left_failed_without_rows_is_run_again_and_one_with_rows_is_left_to_the_schedule(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    local_installation: Installation,
    announced: Webhook,
    run: Run,
):
    for day in DAYS[:2]:
        local_installation.add(2, day=day)
    assert run(KEYS[0]).success
    whole = local_installation.content()
    for day in DAYS[:2]:
        local_installation.put(NO_CSV, day=day)
        assert not run(day.isoformat()).success
    local_installation.put(whole)

    sensor = Sensor(definitions, instance, "failed_days")
    assert [request.partition_key for request in sensor.tick(preview=True).run_requests] == KEYS[:1]
    assert announced.texts == []
    found = sensor.tick()
    assert [request.partition_key for request in found.run_requests] == KEYS[:1]
    (text,) = announced.texts
    assert "2 days" in text
    assert f"{KEYS[0]}, {KEYS[1]}: left failed" in text
    # Once a day, and not at all where nothing is left failed.
    again = Sensor(definitions, instance, "failed_days", found.cursor).tick()
    assert again.skip_message == "looked within a day"
    long_ago = (datetime.now(UTC) - timedelta(hours=25)).isoformat()
    local_installation.lake._root.joinpath(local_installation.dataset.path(DAYS[1])).unlink()  # type: ignore[attr-defined]
    for key in KEYS[:2]:
        result = run(key)
        assert result.success
    assert metadata(result, "purged_events")["deleted"] == 2
    done = Sensor(definitions, instance, "failed_days", long_ago).tick()
    assert done.skip_message == "no day is left failed"
    assert len(announced.texts) == 1


def test_days_left_failed_are_announced_while_the_database_is_away(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    local_installation: Installation,
    announced: Webhook,
    run: Run,
    clean: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    local_installation.put(NO_CSV)
    assert not run(KEYS[0]).success
    clean.setenv("PG_CONNECTION_STRING", "postgresql://localhost:1/nowhere")
    found = Sensor(definitions, instance, "failed_days").tick()
    assert found.run_requests == []
    assert "whether days have rows could not be seen" in caplog.text
    (text,) = announced.texts
    assert f"{KEYS[0]}: left failed" in text


def test_without_a_webhook_the_sensors_say_so(failed_runs: Sensor):
    found = failed_runs.tick()
    assert found.skip_message == "0 failed runs. ALERT_WEBHOOK_URL is not set: nobody is alerted"

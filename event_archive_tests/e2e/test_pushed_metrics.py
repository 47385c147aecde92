"""The figures of nights are pushed to a Pushgateway: those of Dagster's schedule, and those of the command line."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from event_archive.defs import measuring
from event_archive.domain.days import ONE_DAY
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY, NO_CSV
from event_archive_tests.fixtures.pushgateway import Pushgateway
from event_archive_tests.fixtures.scheduler import Scheduler, Sensor

pytestmark = pytest.mark.slow

DAYS = [DAY + n * ONE_DAY for n in range(3)]
GROUP = ("job", "event_archive", "table", 'public."Event"')
TICK = datetime(2026, 1, 2, 2, 0, tzinfo=UTC)


def test_the_figures_of_a_night_are_pushed_once_its_runs_have_ended(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation,
    pushgateway: Pushgateway, clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("METRICS_PUSHGATEWAY", pushgateway.url)
    for rows, day in enumerate(DAYS, start=2):
        local_installation.add(rows, day=day)
    local_installation.put(NO_CSV, day=DAYS[2])
    scheduler = Scheduler(instance, definitions)
    requests = scheduler.requests(TICK)
    for request in requests[:2]:
        scheduler.launch(request)
    waiting = scheduler.create(requests[2])
    sensor = Sensor(definitions, instance, "nightly_metrics")
    sensor.tick()
    assert pushgateway.groups == {}  # one of its runs has not ended
    instance.report_run_failed(waiting)
    sensor.tick(preview=True)
    assert pushgateway.groups == {}
    sensor.tick()
    found = dict(pushgateway.of(*GROUP))
    assert found.pop("event_archive_last_run_timestamp_seconds") > 1.7e9
    assert found.pop("event_archive_run_seconds") > 0
    assert found.pop("event_archive_drain_estimate_seconds") > 0
    assert (
        found.pop("event_archive_backlog_oldest_timestamp_seconds")
        == datetime(DAYS[2].year, DAYS[2].month, DAYS[2].day, tzinfo=UTC).timestamp()
    )
    assert found == {
        "event_archive_run_days": 3,
        "event_archive_run_failed_days": 1,
        "event_archive_run_archived_rows": 5,
        "event_archive_run_deleted_rows": 5,
        "event_archive_backlog_days": 1,
        "event_archive_backlog_rows": 4,
        "event_archive_orphan_rows": 0,
    }
    assert pushgateway.authorizations == ["Basic dXNlcjpzM2NyM3Qh"]
    # Once a night.
    sensor.tick()
    assert len(pushgateway.authorizations) == 1


def test_runs_that_were_launched_out_of_a_preview_are_of_no_night(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation,
    pushgateway: Pushgateway, clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("METRICS_PUSHGATEWAY", pushgateway.url)
    scheduler, sensor = Scheduler(instance, definitions), Sensor(definitions, instance, "nightly_metrics")
    local_installation.add(2)
    (request,) = scheduler.requests(TICK)
    scheduler.launch(request)
    local_installation.add(3, day=DAYS[1])
    next_tick = TICK + timedelta(days=1)
    for previewed in scheduler.evaluate(next_tick, preview=True):
        assert isinstance(previewed, dg.RunRequest)
        scheduler.launch(previewed)
    assert local_installation.everything() == []
    sensor.tick()
    assert counts(pushgateway) == [1, 0, 2, 2]
    local_installation.add(4, day=DAYS[1])
    (request,) = scheduler.requests(next_tick)
    scheduler.launch(request)
    sensor.tick()
    assert counts(pushgateway) == [1, 0, 4, 4]


def test_a_night_that_ends_while_the_next_one_goes_on_is_pushed(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation,
    pushgateway: Pushgateway, clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("METRICS_PUSHGATEWAY", pushgateway.url)
    scheduler, sensor = Scheduler(instance, definitions), Sensor(definitions, instance, "nightly_metrics")
    local_installation.add(2)
    local_installation.add(3, day=DAYS[1])
    first, second = scheduler.requests(TICK)
    scheduler.launch(first)
    of_first = scheduler.create(second)
    local_installation.add(4, day=DAYS[2])
    (third,) = [of for of in scheduler.requests(TICK + timedelta(days=1)) if of.partition_key == DAYS[2].isoformat()]
    of_second = scheduler.create(third)
    sensor.tick()
    assert pushgateway.groups == {}
    instance.report_run_failed(of_first)
    sensor.tick()
    assert counts(pushgateway) == [2, 1, 2, 2]
    instance.report_run_failed(of_second)
    sensor.tick()
    assert counts(pushgateway) == [1, 1, 0, 0]


def counts(pushgateway: Pushgateway) -> list[float]:
    """Days, those of them that failed, rows archived and rows deleted, of the night that was pushed."""
    found = pushgateway.of(*GROUP)
    names = ("run_days", "run_failed_days", "run_archived_rows", "run_deleted_rows")
    return [found[f"event_archive_{name}"] for name in names]


def test_what_a_run_did_before_its_worker_crashed_is_counted(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation,
    pushgateway: Pushgateway, clean: pytest.MonkeyPatch,
):  # fmt: skip
    """Dagster tries such a run again from where it failed, with the same tags."""
    clean.setenv("METRICS_PUSHGATEWAY", pushgateway.url)
    local_installation.add(3)
    scheduler = Scheduler(instance, definitions)
    (request,) = scheduler.requests(TICK)
    scheduler.launch(request)
    again = scheduler.create(request)
    instance.handle_run_event(again.run_id, dg.DagsterEvent("PIPELINE_SUCCESS", job_name=again.job_name))
    Sensor(definitions, instance, "nightly_metrics").tick()
    assert counts(pushgateway) == [1, 0, 3, 3]


def test_a_night_does_not_wait_for_ever_for_a_retry_that_dagster_promised(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation,
    pushgateway: Pushgateway, clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("METRICS_PUSHGATEWAY", pushgateway.url)
    local_installation.add(1)
    scheduler = Scheduler(instance, definitions)
    (request,) = scheduler.requests(TICK)
    lost = scheduler.create(request)
    instance.report_run_failed(lost)
    instance.add_run_tags(lost.run_id, {"dagster/will_retry": "true"})
    sensor = Sensor(definitions, instance, "nightly_metrics")
    sensor.tick()
    assert pushgateway.groups == {}
    clean.setattr(measuring, "_PROMISED_SECONDS", 0)
    sensor.tick()
    assert counts(pushgateway) == [1, 1, 0, 0]


def test_figures_of_a_night_without_days_are_not_replaced_by_those_of_an_older_one(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation,
    pushgateway: Pushgateway, clean: pytest.MonkeyPatch,
):  # fmt: skip
    """The sensor was turned off before the older one ended, and is turned on again."""
    clean.setenv("METRICS_PUSHGATEWAY", pushgateway.url)
    scheduler = Scheduler(instance, definitions)
    local_installation.add(2)
    (request,) = scheduler.requests(TICK)
    scheduler.launch(request)
    scheduler.record_tick(TICK)
    Sensor(definitions, instance, "nightly_metrics").tick()
    assert counts(pushgateway) == [1, 0, 2, 2]
    skipped = scheduler.evaluate(TICK + ONE_DAY)
    assert isinstance(skipped, str)
    scheduler.record_tick(TICK + ONE_DAY, skipped)
    Sensor(definitions, instance, "nightly_metrics").tick()
    assert counts(pushgateway) == [0, 0, 0, 0]
    assert len(pushgateway.authorizations) == 2


def test_a_night_without_days_tells_no_success_while_the_one_before_goes_on(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation,
    pushgateway: Pushgateway, clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("METRICS_PUSHGATEWAY", pushgateway.url)
    scheduler = Scheduler(instance, definitions)
    local_installation.add(2)
    (request,) = scheduler.requests(TICK)
    waiting = scheduler.create(request)
    scheduler.record_tick(TICK)
    local_installation.database.execute('DELETE FROM "Event"')
    skipped = scheduler.evaluate(TICK + ONE_DAY)
    assert skipped == "no aged day has rows"
    scheduler.record_tick(TICK + ONE_DAY, skipped)
    assert pushgateway.groups == {}
    instance.report_run_failed(waiting)
    Sensor(definitions, instance, "nightly_metrics").tick()
    assert counts(pushgateway) == [1, 1, 0, 0]


def test_a_run_that_somebody_executes_again_is_of_no_night(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation,
    pushgateway: Pushgateway, clean: pytest.MonkeyPatch,
):  # fmt: skip
    """Dagster gives it the tags of the former run, the schedule's among them."""
    clean.setenv("METRICS_PUSHGATEWAY", pushgateway.url)
    scheduler = Scheduler(instance, definitions)
    for days, rows in enumerate((2, 5)):
        local_installation.add(rows, day=DAYS[days])
        (request,) = scheduler.requests(TICK + days * ONE_DAY)
        former = scheduler.launch(request)
        if not days:
            first = former
        sensor = Sensor(definitions, instance, "nightly_metrics")
        sensor.tick()
    local_installation.add(1, prefix="late")
    job = definitions.resolve_job_def("archive_job")
    again = instance.create_run_for_job(
        job, tags=first.dagster_run.tags, parent_run_id=first.run_id, root_run_id=first.run_id
    )
    instance.handle_run_event(again.run_id, dg.DagsterEvent("PIPELINE_FAILURE", job_name=job.name))
    before = dict(pushgateway.of(*GROUP))
    sensor.tick()
    assert pushgateway.of(*GROUP) == before
    assert len(pushgateway.authorizations) == 2
    # Nor is it of its own night, where that is the last one.
    instance.delete_run(former.run_id)
    sensor.tick()
    assert len(pushgateway.authorizations) == 2  # and an older night does not take the place of the deleted one
    Sensor(definitions, instance, "nightly_metrics").tick()
    assert counts(pushgateway) == [1, 0, 2, 2]


def test_a_night_without_anything_to_do_is_a_success_and_one_that_fails_keeps_the_last(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation,
    pushgateway: Pushgateway, clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("METRICS_PUSHGATEWAY", pushgateway.url)
    scheduler = Scheduler(instance, definitions)
    assert scheduler.evaluate(TICK, preview=True) == "no aged day has rows"
    assert pushgateway.authorizations == []
    assert scheduler.evaluate(TICK) == "no aged day has rows; the figures were pushed"
    success = pushgateway.of(*GROUP)["event_archive_last_success_timestamp_seconds"]
    assert success == pushgateway.of(*GROUP)["event_archive_last_run_timestamp_seconds"] > 1.7e9
    local_installation.add(1)
    local_installation.put(NO_CSV)
    (request,) = scheduler.requests(TICK + timedelta(days=1))
    scheduler.launch(request)
    Sensor(definitions, instance, "nightly_metrics").tick()
    found = pushgateway.of(*GROUP)
    assert found["event_archive_last_success_timestamp_seconds"] == success
    assert found["event_archive_last_run_timestamp_seconds"] > success
    assert found["event_archive_run_failed_days"] == 1


def test_a_night_that_the_gateway_does_not_take_is_not_told_as_pushed(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation,
    pushgateway: Pushgateway, clean: pytest.MonkeyPatch,
):  # fmt: skip
    clean.setenv("METRICS_PUSHGATEWAY", pushgateway.url)
    scheduler = Scheduler(instance, definitions)
    local_installation.add(1)
    (request,) = scheduler.requests(TICK)
    scheduler.launch(request)
    pushgateway.statuses = [503]
    found = Sensor(definitions, instance, "nightly_metrics").tick()
    assert found.skip_message.startswith("pushed: not ")
    assert found.skip_message.endswith(", see the log")


def test_without_a_gateway_the_sensor_says_so(definitions: dg.Definitions, instance: dg.DagsterInstance):
    found = Sensor(definitions, instance, "nightly_metrics").tick()
    assert found.skip_message == "METRICS_PUSHGATEWAY is not set: nobody is told figures"


def test_the_command_line_pushes_its_figures_too(
    command: Commands, local_installation: Installation, pushgateway: Pushgateway
):
    local_installation.add(3)
    variables = local_installation.variables | {"METRICS_PUSHGATEWAY": pushgateway.url}
    pushgateway.statuses = [503]
    refused = command("run", "--dry-run", **variables)
    assert refused.code == 0
    assert "the run could not be measured: METRICS_PUSHGATEWAY answers 503." in refused.said
    assert "s3cr3t" not in refused.said
    assert command("run", **variables).code == 0
    found = pushgateway.of(*GROUP)
    assert (found["event_archive_run_days"], found["event_archive_run_deleted_rows"]) == (1, 3)


def test_a_gateway_that_is_away_is_a_warning_without_its_secret(command: Commands, local_installation: Installation):
    local_installation.add(1)
    done = command("run", **local_installation.variables, METRICS_PUSHGATEWAY="http://user:s3cr3t@127.0.0.1:9")
    assert done.code == 0
    assert "METRICS_PUSHGATEWAY cannot be reached (ConnectionRefusedError). Check it" in done.said
    assert "s3cr3t" not in done.said

"""A run that is told to stop, by SIGTERM or SIGINT at any point, was stopped: it did not fail, and is not retried."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import dagster as dg
import pytest
from dagster._daemon.monitoring.run_monitoring import check_run_timeout

from event_archive.defs import assets
from event_archive.defs.failures import INTERRUPTED, STOPPED, failure_of_run
from event_archive.domain.days import ONE_DAY
from event_archive.errors import RefusedError
from event_archive_tests.fixtures.installation import Installation, clean_environment
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.scheduler import Sensor
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

KEY = DAY.isoformat()
INSTANTS = 6
RETRIES = "run_retries: {enabled: true, max_retries: 2, retry_on_asset_or_op_failure: false}\n"


@pytest.fixture
def retrying_home(home: Path) -> Path:
    """An instance that runs workers again which crashed, as dagster.yaml and the Helm values have it."""
    with (home / "dagster.yaml").open("a") as settings:
        settings.write(RETRIES)
    return home


def interrupting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, during which a signal comes."""

    def interrupted(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return function(*args)

    return interrupted


@pytest.mark.parametrize("place", ["aged_rows", "aged_metadata"], ids=["inside the operation", "after it"])
def test_a_step_that_is_interrupted_is_stopped_and_not_tried_again(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation,
    clean: pytest.MonkeyPatch, webhook: Webhook, place: str,
):  # fmt: skip
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    sensor = Sensor(definitions, instance, "failed_runs")
    sensor.tick()
    local_installation.add(1)
    clean.setattr(assets, place, interrupting(getattr(assets, place)))
    result = definitions.resolve_job_def("archive_job").execute_in_process(
        partition_key=KEY, instance=instance, raise_on_error=False
    )
    assert not result.success
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert failure_of_run(instance, result.run_id) == (STOPPED, INTERRUPTED)
    sensor.tick()
    Sensor(definitions, instance, "failed_days").tick()
    assert webhook.texts == []
    assert local_installation.count() == 1


def test_a_run_that_dagster_ends_because_it_lasts_for_too_long_is_announced(
    definitions: dg.Definitions, instance: dg.DagsterInstance, local_installation: Installation,
    clean: pytest.MonkeyPatch, webhook: Webhook,
):  # fmt: skip
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    sensor = Sensor(definitions, instance, "failed_runs")
    sensor.tick()
    local_installation.add(1)
    place = "aged_rows"
    clean.setattr(assets, place, interrupting(getattr(assets, place)))
    result = definitions.resolve_job_def("archive_job").execute_in_process(
        partition_key=KEY, instance=instance, raise_on_error=False
    )
    assert failure_of_run(instance, result.run_id) == (STOPPED, INTERRUPTED)
    record = instance.get_run_record_by_id(result.run_id)
    assert record is not None
    check_run_timeout(instance, record, logging.getLogger(__name__), 0.001)
    sensor.tick()
    assert all(f"{KEY}: The run lasted for longer than Dagster lets one last" in text for text in webhook.texts)
    assert len(webhook.texts) == 1
    Sensor(definitions, instance, "failed_days").tick()
    assert f"{KEY}: left failed" in webhook.texts[1]


def run_of(definitions: dg.Definitions, instance: dg.DagsterInstance, *, from_pages: bool) -> bool:
    """A run of the day, by the archive job or as the asset pages launch it; whether it succeeded."""
    job, selection = definitions.resolve_job_def("archive_job"), None
    if from_pages:
        job, selection = definitions.resolve_implicit_global_asset_job_def(), [dg.AssetKey("aged_events")]
    return job.execute_in_process(
        partition_key=KEY, instance=instance, asset_selection=selection, raise_on_error=False
    ).success


@pytest.mark.parametrize("from_pages", [False, True], ids=["archive job", "asset pages"])
def test_a_stopped_day_without_rows_is_run_again_but_nobody_is_alerted(
    definitions: dg.Definitions, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch, webhook: Webhook,
    from_pages: bool,
):  # fmt: skip
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    if from_pages:
        assert run_of(definitions, instance, from_pages=False)
    place = "aged_rows"
    clean.setattr(assets, place, interrupting(getattr(assets, place)))
    assert not run_of(definitions, instance, from_pages=from_pages)
    found = Sensor(definitions, instance, "failed_days").tick()
    assert [request.partition_key for request in found.run_requests] == [KEY]
    assert webhook.texts == []


def test_a_day_that_failed_from_the_asset_pages_after_it_was_stopped_is_announced(
    definitions: dg.Definitions, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch, webhook: Webhook
):
    def refused(*_arguments: Any) -> None:
        raise RefusedError("PostgreSQL refuses")

    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    place = "aged_rows"
    with clean.context() as patch:
        patch.setattr(assets, place, interrupting(getattr(assets, place)))
        assert not run_of(definitions, instance, from_pages=False)
    clean.setattr(assets, place, refused)
    assert not run_of(definitions, instance, from_pages=True)
    Sensor(definitions, instance, "failed_days").tick()
    (text,) = webhook.texts
    assert f"{KEY}: left failed" in text


@contextmanager
def run_workers(installation: Installation, home: Path) -> Iterator[Callable[..., str]]:
    """Run workers that get a signal after some seconds; each call returns the run's id."""
    with subprocess.Popen(
        [sys.executable, "-m", "event_archive_tests.fixtures.run_workers"],
        env=clean_environment(**installation.variables, DAGSTER_HOME=str(home)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin: IO[str] = process.stdin
        stdout: IO[str] = process.stdout

        def work(**order: Any) -> str:
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
            return stdout.readline().strip()

        yield work
        stdin.close()


def test_a_run_worker_that_gets_a_signal_at_any_instant_is_stopped_or_has_done_its_day(
    retrying_home: Path, definitions: dg.Definitions, local_installation: Installation,
    clean: pytest.MonkeyPatch, webhook: Webhook,
):  # fmt: skip
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    days = [DAY + n * ONE_DAY for n in range(INSTANTS + 1)]
    for day in days:
        local_installation.add(50, day=day)
    with (
        dg.DagsterInstance.from_config(str(retrying_home)) as instance,
        run_workers(local_installation, retrying_home) as work,
    ):
        sensor = Sensor(definitions, instance, "failed_runs")
        sensor.tick()
        undisturbed = work(day=days[0].isoformat(), seconds=60, signal="SIGKILL")
        stats = instance.get_run_stats(undisturbed)
        assert stats.start_time is not None
        assert stats.end_time is not None
        duration = stats.end_time - stats.start_time
        stopped = 0
        for n, day in enumerate(days[1:]):
            name = ("SIGTERM", "SIGINT")[n % 2]
            run_id = work(day=day.isoformat(), seconds=duration * (n + 0.5) / INSTANTS, signal=name)
            run = instance.get_run_by_id(run_id)
            assert run is not None
            if run.status == dg.DagsterRunStatus.SUCCESS:
                continue
            stopped += 1
            assert failure_of_run(instance, run_id) == (STOPPED, INTERRUPTED)
            assert run.tags["dagster/will_retry"] == "false"
        sensor.tick()
    assert stopped
    assert webhook.texts == []

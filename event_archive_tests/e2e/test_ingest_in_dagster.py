"""The HTTP API as an asset of Dagster: runs on a real PostgreSQL, an API that serves, and a persistent instance."""

import json
import os
import signal
from datetime import datetime
from threading import Thread
from typing import Any

import dagster as dg
import pytest
from dagster._utils.interrupts import raise_interrupts_as

from event_archive.config.sources import ApiShape
from event_archive.defs.failures import INTERRUPTED, STOPPED, failure_of_run
from event_archive.defs.sources.http_api import API, build_api
from event_archive.defs.sources.running import raise_failures, told_to_stop
from event_archive.errors import EventArchiveError, RefusedError, UnreachableError
from event_archive_tests.api_server.running import ApiServer
from event_archive_tests.api_server.switches import status
from event_archive_tests.fixtures.api import EVENTS, ServeApi
from event_archive_tests.fixtures.ingesting_runs import JOB, definitions, evaluations, ingest, set_up
from event_archive_tests.fixtures.installation import Installation, failure, metadata
from event_archive_tests.fixtures.scheduler import Sensor
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow


CHECKS = {"books_balance", "nothing_rejected"}


def rows(installation: Installation) -> dict[str, Any]:
    return {str(key): value for key, value in installation.database.execute("SELECT id, data FROM ingested_events")}


def test_a_run_takes_in_all_events_and_records_what_became_of_them(
    local_installation: Installation, instance: dg.DagsterInstance, named_api: ApiServer
):
    result = ingest(instance)
    assert result.success
    assert rows(local_installation) == {key: json.loads(text) for key, text in named_api.events.items()}
    recorded = metadata(result, "ingested_events")
    seconds, rate, watermark = (recorded.pop(name) for name in ("seconds", "events_per_second", "watermark"))
    assert recorded == {
        "dagster/row_count": EVENTS,
        "ended": "complete",
        "pages": 3,
        "restarts": 0,
        "taken": EVENTS,
        "new": EVENTS,
    } | dict.fromkeys(["known", "superseded", "rejected", "too_old", "lost"], 0)
    assert rate == pytest.approx(EVENTS / seconds)
    ((newest,),) = local_installation.database.execute('SELECT max("timestamp") FROM ingested_events')
    assert isinstance(newest, datetime)
    assert watermark == newest.timestamp()
    assert {name: found.passed for name, found in evaluations(result).items()} == dict.fromkeys(CHECKS, True)


def test_a_second_run_adds_what_came_since(
    local_installation: Installation, instance: dg.DagsterInstance, named_api: ApiServer
):
    assert ingest(instance).success
    named_api.add(['{"id":"late","type":"t","timestamp":"2024-03-02T00:00:00Z"}'])
    recorded = metadata(ingest(instance), "ingested_events")
    assert (recorded["dagster/row_count"], recorded["new"]) == (1, 1)
    assert len(rows(local_installation)) == EVENTS + 1


def test_the_page_of_the_asset_does_what_the_job_does(
    local_installation: Installation, instance: dg.DagsterInstance, named_api: ApiServer
):
    pages = definitions().resolve_implicit_global_asset_job_def()
    result = pages.execute_in_process(instance=instance, asset_selection=[API.key])
    assert metadata(result, "ingested_events")["new"] == len(rows(local_installation)) == EVENTS


def test_what_was_rejected_fails_the_check_and_is_alerted_of_once(
    local_installation: Installation,
    instance: dg.DagsterInstance,
    named_api: ApiServer,
    clean: pytest.MonkeyPatch,
    webhook: Webhook,
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    named_api.set(bad_events=(b'{"type":"no id","timestamp":"2024-03-01T00:00:00Z"}',), bad_after=1)
    result = ingest(instance)
    assert result.success
    assert metadata(result, "ingested_events")["rejected"] == 1
    found = evaluations(result)
    assert (found["books_balance"].passed, found["nothing_rejected"].passed) == (True, False)
    assert found["nothing_rejected"].severity == dg.AssetCheckSeverity.WARN
    (text,) = webhook.texts
    assert "the check nothing_rejected failed" in text
    assert "1 event lies in rejected_records: " in text
    assert "event-archive rejected --source api" in text
    # As long as it lies there the check fails; there is no news in it.
    assert not evaluations(ingest(instance))["nothing_rejected"].passed
    assert len(webhook.texts) == 1
    local_installation.database.execute("DELETE FROM rejected_records")
    told = evaluations(ingest(instance))["nothing_rejected"]
    assert (told.passed, told.description) == (True, "no event lies in rejected_records")


def test_what_a_run_that_failed_had_rejected_is_alerted_of_by_the_next(
    instance: dg.DagsterInstance, named_api: ApiServer, clean: pytest.MonkeyPatch, webhook: Webhook
):
    named_api.set(bad_events=(b'{"type":"no id","timestamp":"2024-03-01T00:00:00Z"}',), bad_after=1)
    named_api.set(faults=[status(404, first=2, count=None)])
    assert not ingest(instance).success
    named_api.set(faults=[])
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    for _ in range(2):
        told = evaluations(ingest(instance))["nothing_rejected"]
        assert (told.passed, told.metadata["rejected_by_latest_run"].value) == (False, 0)
        assert len(webhook.texts) == 1
    assert "1 event lies in rejected_records: " in webhook.texts[0]


def test_events_that_were_replayed_since_are_not_alerted_of(
    local_installation: Installation,
    instance: dg.DagsterInstance,
    named_api: ApiServer,
    clean: pytest.MonkeyPatch,
    webhook: Webhook,
):
    named_api.set(bad_events=(b'{"type":"no id","timestamp":"2024-03-01T00:00:00Z"}',), bad_after=1)
    assert ingest(instance).success
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    local_installation.database.execute("DELETE FROM rejected_records")
    pages = definitions().resolve_implicit_global_asset_job_def()
    check = pages.get_subset(
        asset_selection=set(), asset_check_selection={dg.AssetCheckKey(API.key, "nothing_rejected")}
    )
    assert evaluations(check.execute_in_process(instance=instance))["nothing_rejected"].passed
    assert webhook.texts == []


def test_books_that_do_not_balance_fail_the_check(instance: dg.DagsterInstance, named_api: ApiServer):
    instance.report_runless_asset_event(dg.AssetMaterialization(API.key, metadata={"taken": 3, "new": 1, "known": 1}))
    source = build_api(ApiShape.load(), [])
    (check,) = [of for of in source.checks if {key.name for key in of.check_keys} == {"books_balance"}]
    job = dg.define_asset_job("check", selection=dg.AssetSelection.checks(check))
    alone = dg.Definitions(asset_checks=[check], jobs=[job]).resolve_job_def("check")
    (found,) = evaluations(alone.execute_in_process(instance=instance)).values()
    assert not found.passed
    assert found.description == "3 taken, 1 new, 1 known, 0 superseded, 0 rejected, 0 too old, 0 lost"


def test_a_refusal_of_the_api_fails_the_run_in_its_own_words_and_is_alerted_of(
    instance: dg.DagsterInstance,
    named_api: ApiServer,
    clean: pytest.MonkeyPatch,
    webhook: Webhook,
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    found = definitions()
    sensor = Sensor(found, instance, "failed_runs")
    sensor.tick()
    named_api.set(unauthorized_from=1)
    result = found.resolve_job_def(JOB).execute_in_process(instance=instance, raise_on_error=False)
    assert "API_KEY" in failure(result)
    assert not result.asset_materializations_for_node("ingested_events")
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    sensor.tick()
    (text,) = webhook.texts
    assert text.startswith("event_archive: ingested_events: failed.")
    assert named_api.key not in text + failure(result)


def test_too_many_rejected_events_fail_the_run_and_what_arrived_is_kept(
    local_installation: Installation, instance: dg.DagsterInstance, named_api: ApiServer, clean: pytest.MonkeyPatch
):
    clean.setenv("MAX_REJECTED", "0")
    named_api.set(bad_events=(b"{}",), bad_after=1)
    assert "more than MAX_REJECTED=0" in failure(ingest(instance))
    assert rows(local_installation)
    clean.setenv("MAX_REJECTED", "1")
    assert ingest(instance).success
    assert rows(local_installation).keys() == named_api.events.keys()


def test_failures_of_several_windows_are_told_together_and_each_once():
    away = UnreachableError("The API is away.")
    with pytest.raises(UnreachableError, match="^The API is away.$"):
        raise_failures([away, UnreachableError("The API is away.")])
    with pytest.raises(EventArchiveError, match="^The API is away. The API goes in a circle.$"):
        raise_failures([away, RefusedError("The API goes in a circle.")])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_lands_what_arrived_and_the_next_goes_on(
    local_installation: Installation,
    instance: dg.DagsterInstance,
    clean: pytest.MonkeyPatch,
    serve_api: ServeApi,
    number: signal.Signals,
):
    server = serve_api(EVENTS, latency_ms=50, max_limit=100)
    set_up(local_installation, clean, server)

    def tell() -> None:
        server.wait_for_requests(4)
        os.kill(os.getpid(), number)

    teller = Thread(target=tell)
    teller.start()
    stopped = ingest(instance)
    teller.join()
    assert failure_of_run(instance, stopped.run_id) == (STOPPED, INTERRUPTED)
    assert not [event for event in stopped.all_events if event.is_step_up_for_retry]
    landed = len(rows(local_installation))
    assert 300 <= landed < EVENTS
    assert local_installation.database.execute("SELECT events_ingested FROM cursor_state") == [(landed,)]
    server.set(latency_ms=0)
    assert metadata(ingest(instance), "ingested_events")["taken"] == EVENTS - landed
    assert rows(local_installation).keys() == server.events.keys()


def test_the_first_signal_asks_and_the_second_is_dagsters_again(clean: pytest.MonkeyPatch):
    with raise_interrupts_as(KeyboardInterrupt), told_to_stop() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)

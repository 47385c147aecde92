"""Log files as an asset of Dagster: runs on a real PostgreSQL, a folder, and a persistent instance."""

import json
import os
import signal
import socket
import threading
from datetime import datetime

import dagster as dg
import psycopg
import pytest

from event_archive.defs.failures import INTERRUPTED, STOPPED, failure_of_run
from event_archive.defs.sources import log_files
from event_archive.defs.sources.log_files import LOGS, files_wait
from event_archive.errors import ConfigurationError
from event_archive_tests.fixtures.ingesting_runs import definitions, evaluations, ingest, tick
from event_archive_tests.fixtures.installation import Installation, failure, metadata
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson
from event_archive_tests.fixtures.s3_process import KEYS
from event_archive_tests.fixtures.scheduler import Sensor
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

JOB = "ingest_logs_job"
CHECKS = {"books_balance", "no_file_failed", "no_file_overdue"}


@pytest.fixture
def logs(logs: Logs, local_installation: Installation, clean: pytest.MonkeyPatch) -> Logs:
    """A folder, and the variable that names it, beside those of an installation."""
    clean.setenv("LOGS_URL", f"file://{logs.folder}")
    return logs


def passed(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {name: found.passed for name, found in evaluations(result).items()}


def test_a_run_loads_all_files_and_records_what_became_of_them(logs: Logs, instance: dg.DagsterInstance):
    plain = [entry(1), entry(2), {"no": "time"}]
    packed = entry(3, timestamp="2020-01-01T00:00:00Z")
    logs.write("a.log", ndjson(*plain))
    logs.write("b.gz", array(packed))
    result = ingest(instance, JOB)
    assert result.success
    assert logs.rows() == ["request 3", "request 1", "request 2"]
    recorded = metadata(result, "logs")
    seconds, rate, size = (recorded.pop(name) for name in ("seconds", "entries_per_second", "bytes"))
    assert recorded == {
        "dagster/row_count": 3,
        "ended": "complete",
        "taken": 4,
        "new": 3,
        "rejected": 1,
        "files": 2,
        "failed": 0,
        "contradictions": 1,
        "removed": 0,
        "files_waiting": 0,
        "oldest_waiting": None,
        "files_failed": 0,
        "files_given_up": 0,
    } | dict.fromkeys(["known", "superseded", "too_old", "lost"], 0)
    assert rate == pytest.approx(4 / seconds)
    assert size == sum(len(json.dumps(each)) for each in (*plain, packed))
    assert passed(result) == dict.fromkeys(CHECKS, True)


def test_files_that_others_load_are_left_and_counted(logs: Logs, instance: dg.DagsterInstance):
    logs.write("a.log", ndjson(entry(1)))
    assert files_wait()
    ((since,),) = logs.database.execute("SELECT created_at FROM processed_files")
    assert isinstance(since, datetime)
    with psycopg.connect(logs.database.dsn) as other:
        other.execute("SELECT FROM processed_files FOR UPDATE")
        recorded = metadata(ingest(instance, JOB), "logs")
    assert (recorded["files"], recorded["files_waiting"], recorded["oldest_waiting"]) == (0, 1, since.timestamp())


def test_where_nothing_waits_no_run_is_launched(logs: Logs, instance: dg.DagsterInstance):
    assert tick(instance, "ingest_logs") == "a run would find nothing to do"
    logs.write("a.log", ndjson(entry(1)))
    found = tick(instance, "ingest_logs")
    assert not isinstance(found, str)
    (request,) = found
    assert request.run_key == "2026-03-01T00:00:00+00:00"
    assert logs.rows() == [], "looking loads nothing"
    job = definitions().resolve_job_def(JOB)
    run = instance.create_run_for_job(job, tags=job.tags, status=dg.DagsterRunStatus.STARTED)
    assert tick(instance, "ingest_logs") == "a run is in flight"
    instance.report_run_canceled(run)
    assert ingest(instance, JOB).success
    assert tick(instance, "ingest_logs") == "a run would find nothing to do"
    logs.write("a.log", ndjson(entry(1), entry(2)))
    assert len(tick(instance, "ingest_logs")) == 1


def test_a_store_that_cannot_be_looked_at_is_left_to_a_run_which_fails_and_is_alerted_of(
    logs: Logs, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch, webhook: Webhook
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    clean.setenv("LOGS_URL", f"file://{logs.folder}/nowhere")
    found = definitions()
    sensor = Sensor(found, instance, "failed_runs")
    sensor.tick()
    assert len(tick(instance, "ingest_logs")) == 1
    result = found.resolve_job_def(JOB).execute_in_process(instance=instance, raise_on_error=False)
    assert "LOGS_URL must name a folder" in failure(result)
    assert not result.asset_materializations_for_node("logs")
    sensor.tick()
    (text,) = webhook.texts
    assert text.startswith("event_archive: logs: failed.")
    assert "LOGS_URL must name a folder" in text


def test_a_store_that_does_not_answer_is_not_waited_for(logs: Logs, clean: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        variables = {"LOGS_URL": "s3://bucket", "AWS_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        for name, value in (variables | KEYS).items():
            clean.setenv(name, value)
        clean.setattr(log_files, "_LOOK_SECONDS", 3.0)
        assert files_wait()
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(4) == b"GET ", "the store was asked"
            (looking,) = [of for of in threading.enumerate() if of.name == "log files"]
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            looking.join()


def test_a_file_that_failed_fails_a_check_and_is_alerted_of_once_it_is_given_up(
    logs: Logs,
    instance: dg.DagsterInstance,
    clean: pytest.MonkeyPatch,
    webhook: Webhook,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level("INFO", "event_archive")
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    clean.setenv("LOGS_MAX_ATTEMPTS", "2")
    logs.write("a.log", ndjson(entry(1)))
    damaged = logs.write("b.gz", array(entry(2, secret="hunter2"))[:-5])
    found = definitions()
    sensor = Sensor(found, instance, "failed_runs")
    sensor.tick()
    result = ingest(instance, JOB)
    assert result.success
    assert passed(result) == {name: name != "no_file_failed" for name in CHECKS}
    recorded = metadata(result, "logs")
    assert [recorded[name] for name in ("files", "failed", "files_failed", "files_given_up")] == [1, 1, 1, 0]
    assert "ingestion incomplete: 1 record\n" in caplog.text
    assert (webhook.texts, tick(instance, "ingest_logs")) == ([], "a run would find nothing to do")
    logs.wait_no_more()
    assert len(tick(instance, "ingest_logs")) == 1
    for _ in range(2):
        result = ingest(instance, JOB)
        told = evaluations(result)["no_file_failed"]
        assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert told.description == (
            "1 file could not be loaded, 1 of them given up: `event-archive ingest logs --status` says why"
        )
    (text,) = webhook.texts
    assert f"{damaged}: Its gzip is cut short" in text
    sensor.tick()
    assert len(webhook.texts) == 1, "no run failed"
    assert "hunter2" not in text
    # Mended by the command line, which launches no run.
    damaged.write_bytes(array(entry(2)))
    logs.run()
    assert passed(ingest(instance, "check_job"))["no_file_failed"]


def test_a_file_given_up_that_the_webhook_did_not_take_is_told_of_by_the_schedules_next_run(
    logs: Logs, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch, webhook: Webhook
):
    clean.setenv("LOGS_MAX_ATTEMPTS", "1")
    logs.write("b.gz", array(entry(2))[:-5])
    assert ingest(instance, JOB).success
    assert tick(instance, "ingest_logs") == "a run would find nothing to do", "nobody is to be told"
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    webhook.statuses = [400]
    for texts in (0, 1):
        assert len(tick(instance, "ingest_logs")) == 1
        assert ingest(instance, JOB).success
        assert len(webhook.texts) == texts
    assert tick(instance, "ingest_logs") == "a run would find nothing to do"


def test_a_file_that_waits_for_more_than_an_hour_fails_a_check(logs: Logs, instance: dg.DagsterInstance):
    logs.write("a.log", ndjson(entry(1)))
    logs.write("b.log", ndjson(entry(1)))
    assert files_wait()
    assert passed(ingest(instance, "check_job"))["no_file_overdue"]
    logs.database.execute(
        "UPDATE processed_files SET created_at = now() - interval '61 minutes', modified = '2024-01-01' "
        "WHERE key LIKE '%a.log'"
    )
    overdue = evaluations(ingest(instance, "check_job"))["no_file_overdue"]
    assert (overdue.passed, overdue.description) == (False, "1 file waits for more than an hour")
    assert overdue.metadata["waiting"].value == 2
    assert passed(ingest(instance, JOB)) == dict.fromkeys(CHECKS, True)


def test_a_run_that_is_told_to_stop_ends_after_the_file_in_hand_and_the_next_goes_on(
    logs: Logs, instance: dg.DagsterInstance
):
    logs.write("a.log", ndjson(entry(1)))
    logs.run()
    logs.write("b.log", ndjson(entry(2)))
    logs.write("c.log", ndjson(entry(3)))
    with psycopg.connect(logs.database.dsn) as other:
        other.execute("LOCK TABLE logs IN SHARE MODE")

        def tell() -> None:
            while logs.database.execute("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]:
                pass
            os.kill(os.getpid(), signal.SIGTERM)
            other.commit()

        teller = threading.Thread(target=tell)
        teller.start()
        stopped = ingest(instance, JOB)
        teller.join()
    assert failure_of_run(instance, stopped.run_id) == (STOPPED, INTERRUPTED)
    assert logs.files("status") == [("COMPLETED",), ("COMPLETED",), ("PENDING",)]
    assert metadata(ingest(instance, JOB), "logs")["files"] == 1
    assert logs.rows() == ["request 1", "request 2", "request 3"]


def test_the_asset_is_there_where_log_files_are_and_upstream_of_the_archive_of_its_table(
    local_installation: Installation, clean: pytest.MonkeyPatch
):
    def upstream() -> list[dg.AssetKey]:
        (spec,) = [of for of in definitions().resolve_all_asset_specs() if of.key == dg.AssetKey("aged_events")]
        return [dep.asset_key for dep in spec.deps]

    assert LOGS.key not in definitions().resolve_all_asset_keys()
    clean.setenv("LOGS_URL", "s3://bucket/logs")
    clean.setenv("API_BASE_URL", "https://api.example.com/v1")
    found = definitions()
    job = found.resolve_job_def(JOB)
    assert {key.name for key in job.asset_layer.asset_graph.asset_check_keys} == CHECKS
    assert {node.name: node.definition.pools for node in job.graph.nodes}["logs"] == {"logs"}
    schedule = found.resolve_schedule_def("ingest_logs")
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("*/5 * * * *", "UTC")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert upstream() == []
    clean.setenv("EVENT_TABLE", "public.logs")
    clean.setenv("EVENT_TIME_COLUMN", "timestamp")
    assert upstream() == [LOGS.key]
    clean.setenv("LOGS_CRON", "every day")
    with pytest.raises(ConfigurationError, match="LOGS_CRON"):
        definitions()

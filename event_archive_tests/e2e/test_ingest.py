"""``event-archive ingest api`` as a process: what it says, how it ends, and what a signal leaves behind."""

import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.postgres.session import Postgres
from event_archive.sources.tables import make_missing
from event_archive_tests.api_server.running import ApiServer
from event_archive_tests.api_server.switches import Fault
from event_archive_tests.fixtures.api import ServeApi
from event_archive_tests.fixtures.installation import Commands, Finished, finished, run_cli, started_cli
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.webhook import Webhook


def environment(database: Database, api: ApiServer, **variables: str) -> dict[str, str]:
    return {
        "API_BASE_URL": api.url,
        "API_KEY": api.key,
        "API_PAGE_LIMIT": "100",
        "PG_CONNECTION_STRING": database.dsn,
    } | variables


def landed(database: Database) -> tuple[int, int]:
    """Rows, and events behind the position."""
    ((rows, events),) = database.execute(
        "SELECT count(*), (SELECT coalesce(sum(events_ingested), 0) FROM cursor_state) FROM ingested_events"
    )
    return int(str(rows)), int(str(events))


def started(database: Database, api: ApiServer) -> AbstractContextManager[subprocess.Popen[str]]:
    return started_cli("ingest", "api", **environment(database, api))


def test_a_complete_ingestion_says_what_became_of_the_events(database: Database, serve_api: ServeApi):
    api = serve_api(250)
    done = run_cli("ingest", "api", **environment(database, api))
    assert done.code == 0
    end = done.end
    books = {"taken": 250, "new": 250, "known": 0, "superseded": 0, "rejected": 0, "too_old": 0, "lost": 0}
    assert books.items() <= end.items()
    assert (end["outcome"], end["message"], end["pages"]) == ("done", "ingestion complete", 3)
    assert end["watermark"] == "2024-03-01T00:04:09Z"
    assert end["events_per_second"] > 0
    assert api.key not in done.said


def test_a_key_that_is_refused_is_a_failure_with_what_to_do(database: Database, serve_api: ServeApi):
    api = serve_api(250)
    done = run_cli("ingest", "api", **environment(database, api, API_KEY="another-key"))
    assert done.code == 1
    assert "Check API_KEY and API_KEY_HEADER" in done.end["error"]
    assert "another-key" not in done.said


def test_a_schema_that_is_not_there_is_a_wrong_setting(database: Database, serve_api: ServeApi):
    done = run_cli("ingest", "api", **environment(database, serve_api(250), INGEST_SCHEMA="no where"))
    assert done.code == 2
    assert "INGEST_SCHEMA ('no where') names no schema of the database." in done.end["error"]
    assert 'CREATE SCHEMA "no where".' in done.end["error"]


def test_an_ingestion_that_failed_is_announced_and_its_figures_are_left_for_prometheus(
    database: Database, serve_api: ServeApi, command: Commands, webhook: Webhook, tmp_path: Path
):
    api = serve_api(250)
    told = {"ALERT_WEBHOOK_URL": webhook.url, "METRICS_TEXTFILE": str(tmp_path / "event_archive.prom")}
    variables = environment(database, api, **told)
    assert command("ingest", "api", **variables).code == 0
    assert webhook.texts == []
    taken = 'event_archive_ingest_run_records{outcome="taken",source="api"} 250.0'
    assert taken in (tmp_path / "event_archive_api.prom").read_text().splitlines()
    assert command("ingest", "api", **variables | {"API_KEY": "another-key"}).code == 1
    (text,) = webhook.texts
    assert text.startswith("event_archive: public.ingested_events: failed.\n")
    assert "Check API_KEY and API_KEY_HEADER" in text
    assert "another-key" not in text
    wrong = command("ingest", "api", **variables | {"ALERT_WEBHOOK_URL": "slack"})
    assert (wrong.code, len(webhook.texts)) == (2, 1)
    assert "ALERT_WEBHOOK_URL" in wrong.error


def test_an_alert_does_not_promise_a_failure_of_a_next_run_that_ends_well(
    database: Database, serve_api: ServeApi, command: Commands, webhook: Webhook
):
    api = serve_api(5, bad_events=(b'{"type":"no id"}', b'{"type":"nor here"}'), bad_after=1)
    variables = environment(database, api, ALERT_WEBHOOK_URL=webhook.url, MAX_REJECTED="1")
    assert command("ingest", "api", **variables).code == 1
    assert command("ingest", "api", **variables).code == 0
    (text,) = webhook.texts
    assert "2 events cannot be rows, more than MAX_REJECTED=1" in text
    assert text.endswith("The next run tries again, and may fail until somebody has done what the message says.")


def test_without_an_api_nothing_is_done(database: Database):
    done = run_cli("ingest", "api", PG_CONNECTION_STRING=database.dsn)
    assert done.code == 2
    assert "API_BASE_URL is not set" in done.said


def assert_stopped_between_pages(done: Finished, code: int, database: Database, api: ApiServer) -> dict[str, Any]:
    assert done.code == code
    end = done.end
    assert (end["outcome"], end["message"]) == ("stopped", "ingestion interrupted")
    assert api.key not in done.said
    rows, events = landed(database)
    assert rows == events == end["new"]
    return dict(end)


def test_a_signal_while_the_api_is_silent_keeps_what_arrived(database: Database, serve_api: ServeApi):
    api = serve_api(500, faults=[Fault(kind="silence", first=4)])
    with started(database, api) as process:
        api.wait_for_requests(4)
        process.send_signal(signal.SIGTERM)
        done = finished(process)
    assert assert_stopped_between_pages(done, 143, database, api)["new"] == 300
    api.set(faults=[])
    again = run_cli("ingest", "api", **environment(database, api)).end
    assert (again["new"], again["known"]) == (200, 0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_a_pause_ends_it(database: Database, serve_api: ServeApi, number: int, code: int):
    api = serve_api(500, limit_requests=3, limit_headers="none", retry_after="600")
    with started(database, api) as process:
        api.wait_for_requests(4)
        process.send_signal(number)
        done = finished(process)
    assert assert_stopped_between_pages(done, code, database, api)["new"] == 300


def test_a_signal_while_a_batch_is_landing_lands_it(database: Database, serve_api: ServeApi):
    api = serve_api(100)
    with Postgres(database.dsn).session() as session:
        make_missing(session, TableName("public", "ingested_events"))
    with psycopg.connect(database.dsn) as other:
        other.execute("LOCK TABLE ingested_events IN SHARE MODE")
        with started(database, api) as process:
            while database.execute("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]:
                pass
            process.send_signal(signal.SIGTERM)
            other.commit()
            done = finished(process)
    assert assert_stopped_between_pages(done, 143, database, api)["new"] == 100

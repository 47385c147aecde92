"""A Redis stream in Dagster: its table as an external asset, observed by a sensor, on real servers and records."""

import json
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from event_archive.config.datasets import load_datasets
from event_archive.config.sources import StreamShape
from event_archive.defs.build import build_definitions
from event_archive.defs.sources.redis_stream import POSITIONS
from event_archive_tests.fixtures.installation import Installation
from event_archive_tests.fixtures.scheduler import Sensor
from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, StreamServer, position
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

SENSOR, CHECKS = "observe_positions", ["keeps_up", "books_balance"]


def definitions() -> dg.Definitions:
    return build_definitions(*load_datasets(), stream=StreamShape.load())


@pytest.fixture
def positions(local_installation: Installation, clean: pytest.MonkeyPatch, valkey: StreamServer) -> Stream:
    """A stream, the database of an installation, and the variables that name both."""
    clean.setenv("REDIS_URL", valkey.url)
    return Stream(valkey, local_installation.database)


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    """The sensor's answer, whose events are recorded as the daemon does it."""
    result: Any = Sensor(definitions(), instance, SENSOR, cursor).tick()
    for event in result.asset_events:
        instance.report_runless_asset_event(event)
    return result


def figures(result: Any) -> dict[str, Any]:
    (observation,) = [of for of in result.asset_events if isinstance(of, dg.AssetObservation)]
    return {name: value.value for name, value in observation.metadata.items()}


def verdicts(result: Any) -> dict[str, bool]:
    return {of.check_name: of.passed for of in result.asset_events if isinstance(of, dg.AssetCheckEvaluation)}


def later(cursor: str | None, minutes: int) -> str:
    """The cursor, as if so much time had passed."""
    fields = json.loads(cursor or "")
    fields["at"] = (datetime.fromisoformat(fields["at"]) - timedelta(minutes=minutes)).isoformat()
    return json.dumps(fields)


def test_what_landed_and_what_waits_is_observed_without_a_run(positions: Stream, instance: dg.DagsterInstance):
    positions.add(position(1), position(2), b"no JSON")
    positions.run()
    positions.add(position(3))
    result = tick(instance)
    found = figures(result)
    assert found.pop("lag_seconds") > 0
    assert found == {
        "stream_length": 4,
        "lag_entries": 1,
        "pending": 0,
        "dagster/row_count": found["dagster/row_count"],
        "last": datetime.fromisoformat("2024-03-01T00:00:02+00:00").timestamp(),
        "rejected": 1,
        "lost": 0,
        "missing": 0,
        "oldest_pending_seconds": 0.0,
        "consumers": 0,
    }
    assert verdicts(result) == dict.fromkeys(CHECKS, True)
    told = [of.description for of in result.asset_events if isinstance(of, dg.AssetCheckEvaluation)]
    assert (told[0] or "").endswith(" s; 0 not acknowledged yet.")
    assert told[1] == "Of the 3 entries acknowledged last, 0 are missing."
    assert instance.get_runs() == []
    assert len(instance.fetch_observations(POSITIONS, limit=10).records) == 1
    keys = [dg.AssetCheckKey(POSITIONS, name) for name in CHECKS]
    recorded = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    assert [recorded[key].status.value for key in keys] == ["SUCCEEDED", "SUCCEEDED"]


def test_it_is_observed_every_five_minutes_while_it_changes(positions: Stream, instance: dg.DagsterInstance):
    positions.add(position(1))
    first = tick(instance)
    assert figures(first)["stream_length"] == 1
    positions.add(position(2))
    assert tick(instance, first.cursor).asset_events == []
    second = tick(instance, later(first.cursor, 6))
    assert figures(second)["stream_length"] == 2
    # Nothing has changed: an idle stream fills no records.
    assert tick(instance, later(second.cursor, 60)).asset_events == []


def test_a_check_that_begins_to_fail_is_told_and_alerted_of_at_once(
    positions: Stream, instance: dg.DagsterInstance, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    positions.add(position(1))
    first = tick(instance)
    assert (verdicts(first)["keeps_up"], webhook.texts) == (True, [])
    redis = positions.server.redis
    old = redis.time()[0] * 1000 - 600_000
    redis.delete(KEY)
    redis.xadd(KEY, {"payload": "{}"}, id=f"{old}-0")
    behind = tick(instance, first.cursor)
    assert verdicts(behind)["keeps_up"] is False
    (text,) = webhook.texts
    assert "the check keeps_up failed" in text
    assert f"{KEY}: 1 entry not read yet, the oldest for 60" in text
    assert tick(instance, behind.cursor).asset_events == []
    redis.delete(KEY)
    assert verdicts(tick(instance, behind.cursor))["keeps_up"] is True
    assert len(webhook.texts) == 1


def test_an_alert_that_the_webhook_did_not_take_is_posted_at_the_next_look(
    positions: Stream, instance: dg.DagsterInstance, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    clean.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    webhook.statuses.append(404)
    first = tick(instance)
    assert (verdicts(first), webhook.texts) == ({"keeps_up": False, "books_balance": False}, [])
    second = tick(instance, first.cursor)
    assert [text.splitlines()[0].split()[3] for text in webhook.texts] == ["keeps_up", "books_balance"]
    assert tick(instance, second.cursor).asset_events == []
    assert len(webhook.texts) == 2


def test_entries_that_nobody_landed_fail_the_books(positions: Stream, instance: dg.DagsterInstance):
    positions.add(position(1))
    positions.run()
    [taken] = positions.add(position(2))
    positions.read_as("another program", 1)
    positions.server.redis.xack(KEY, GROUP, taken)
    result = tick(instance)
    assert verdicts(result) == {"keeps_up": True, "books_balance": False}
    (found,) = [of for of in result.asset_events if isinstance(of, dg.AssetCheckEvaluation) and not of.passed]
    assert found.description == f"Of the 2 entries acknowledged last, 1 is missing: {taken.decode()}."
    positions.database.execute("DROP TABLE positions")
    result = tick(instance, later(result.cursor, 6))
    assert verdicts(result) == {"keeps_up": True, "books_balance": False}
    (found,) = [of for of in result.asset_events if isinstance(of, dg.AssetCheckEvaluation) and not of.passed]
    assert "There is no table, though the group is past entries" in str(found.description)


def test_lost_entries_are_alerted_of_whenever_there_are_more(
    positions: Stream, instance: dg.DagsterInstance, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    cursor = None
    for number in (1, 2):
        ids = positions.add(position(number))
        positions.read_as("tester", 1)
        positions.server.redis.xdel(KEY, *ids)
        positions.run()
        result = tick(instance, cursor and later(cursor, 6))
        cursor = result.cursor
        assert verdicts(result) == {"keeps_up": True, "books_balance": False}
        assert ("1 entry was lost:", "2 entries were lost:")[number - 1] in webhook.texts[-1]
    assert len(webhook.texts) == 2
    positions.database.execute("DELETE FROM rejected_records")
    assert verdicts(tick(instance, cursor))["books_balance"] is True


def test_what_else_goes_wrong_while_entries_are_lost_is_alerted_of(
    positions: Stream, instance: dg.DagsterInstance, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    ids = positions.add(position(1))
    positions.read_as("tester", 1)
    positions.server.redis.xdel(KEY, *ids)
    positions.run()
    cursor = tick(instance).cursor
    assert len(webhook.texts) == 1
    for outage in (1, 2):
        clean.setenv("PG_CONNECTION_STRING", "postgresql://nobody@127.0.0.1:1/none")
        cursor = tick(instance, cursor).cursor
        assert "PostgreSQL cannot be reached" in webhook.texts[outage]
        clean.setenv("PG_CONNECTION_STRING", positions.database.dsn)
        back = tick(instance, cursor)
        (told,) = [of for of in back.asset_events if isinstance(of, dg.AssetCheckEvaluation) and not of.passed]
        assert "1 entry was lost" in (told.description or "")
        assert len(webhook.texts) == 1 + outage
        cursor = back.cursor
    [taken] = positions.add(position(3))
    positions.read_as("another program", 1)
    positions.server.redis.xack(KEY, GROUP, taken)
    cursor = tick(instance, later(cursor, 1)).cursor
    assert f"1 is missing: {taken.decode()}" in webhook.texts[3]
    tick(instance, later(cursor, 6))
    assert len(webhook.texts) == 4


def test_a_service_that_is_away_fails_the_checks_that_need_it(
    positions: Stream, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch
):
    positions.add(position(1))
    positions.run()
    first = tick(instance)
    clean.setenv("PG_CONNECTION_STRING", "postgresql://nobody:s3cr3t@127.0.0.1:1/none")
    without_postgres = tick(instance, first.cursor)
    assert verdicts(without_postgres) == {"keeps_up": True, "books_balance": False}
    positions.server.kill()
    without_both = tick(instance, without_postgres.cursor)
    assert verdicts(without_both) == dict.fromkeys(CHECKS, False)
    assert not any("s3cr3t" in str(event) for event in [*without_postgres.asset_events, *without_both.asset_events])
    positions.server.start()
    clean.setenv("PG_CONNECTION_STRING", positions.database.dsn)
    assert verdicts(tick(instance, without_both.cursor)) == dict.fromkeys(CHECKS, True)


def test_the_asset_page_evaluates_the_checks(positions: Stream, instance: dg.DagsterInstance):
    positions.add(position(1))
    positions.run()
    pages = definitions().resolve_implicit_global_asset_job_def()
    keys = [dg.AssetCheckKey(POSITIONS, name) for name in CHECKS]
    selected = pages.get_subset(asset_selection=set(), asset_check_selection=set(keys))
    result = selected.execute_in_process(instance=instance)
    assert {of.check_name: of.passed for of in result.get_asset_check_evaluations()} == dict.fromkeys(CHECKS, True)


def test_the_asset_is_upstream_of_the_archive_of_its_table(positions: Stream, clean: pytest.MonkeyPatch):
    clean.setenv("EVENT_TABLE", "public.positions")
    clean.setenv("EVENT_TIME_COLUMN", "ts")
    graph = definitions().resolve_asset_graph()
    assert graph.get(POSITIONS).is_external
    assert graph.get(dg.AssetKey("aged_events")).parent_keys == {POSITIONS}


def test_without_a_stream_there_is_no_asset_of_it(local_installation: Installation):
    found = definitions()
    assert POSITIONS not in found.resolve_asset_graph().get_all_asset_keys()
    assert SENSOR not in {sensor.name for sensor in found.sensors or ()}

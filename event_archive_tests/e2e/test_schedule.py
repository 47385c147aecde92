"""Which days a night runs: the schedule evaluated on a real table and real runs."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import psycopg
import pytest
from dagster._core.errors import DagsterUserCodeExecutionError

from event_archive.config.environment import PipelineSettings
from event_archive.defs import schedules
from event_archive.defs.build import build_definitions
from event_archive.defs.last_runs import TICK_TAG
from event_archive.domain.days import ONE_DAY
from event_archive.errors import BusyError
from event_archive.nightly.backlog import days_to_do, rows_of_aged_days
from event_archive_tests.fixtures.installation import Installation, metadata
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.scheduler import DAYS, KEYS, Scheduler, night
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow


def test_a_tick_in_whose_midst_the_daemon_died_launches_what_it_had_chosen_and_no_more(
    scheduler: Scheduler, local_installation: Installation, clean: pytest.MonkeyPatch
):
    clean.setenv("MAX_DAYS_PER_RUN", "3")
    scheduler.definitions = build_definitions(PipelineSettings.load())
    for n in range(6):
        local_installation.add(1, day=DAY + n * ONE_DAY)
    first = scheduler.requests(night(0))
    assert len(first) == 3
    scheduler.launch(first[0])
    # Written down, and not submitted.
    scheduler.create(first[1])
    again = scheduler.requests(night(0))
    assert again[0].run_key == first[1].run_key
    assert len(again) == 2
    assert str(first[0].partition_key) not in {str(request.partition_key) for request in again}


def test_a_tick_that_has_launched_all_that_it_may_leaves_the_rest_to_a_later_one(
    scheduler: Scheduler, local_installation: Installation, clean: pytest.MonkeyPatch
):
    clean.setenv("MAX_DAYS_PER_RUN", "1")
    scheduler.definitions = build_definitions(PipelineSettings.load())
    for day in DAYS[:3]:
        local_installation.add(1, day=day)
    (request,) = scheduler.requests(night(0))
    scheduler.launch(request)
    assert scheduler.evaluate(night(0)) == "2 aged days have rows: 2 left to a later tick"


def test_every_aged_day_that_holds_rows_is_launched_oldest_first(
    scheduler: Scheduler, local_installation: Installation
):
    today = datetime.now(UTC).date()
    local_installation.add(2, day=DAYS[2])
    local_installation.add(1, day=DAYS[0])
    local_installation.add(1, day=today - 30 * ONE_DAY)
    at = night(0)
    requests = scheduler.requests(at)
    moment = at.isoformat(timespec="seconds")
    assert [(r.partition_key, r.run_key) for r in requests] == [(k, f"{k} {moment}") for k in (KEYS[0], KEYS[2])]
    assert requests[0].tags[TICK_TAG] == moment
    assert requests[0].tags["dagster/partition"] == KEYS[0]
    results = [scheduler.launch(request) for request in requests]
    assert [metadata(result, "purged_events")["deleted"] for result in results] == [1, 2]
    assert scheduler.evaluate(night(1)) == "no aged day has rows"


def test_a_day_comes_of_age_by_the_time_of_the_tick(scheduler: Scheduler, local_installation: Installation):
    retention = local_installation.dataset.retention
    young = retention.last_aged_day(night(0)) + ONE_DAY
    local_installation.add(1, day=young)
    assert scheduler.days(night(0)) == []
    assert scheduler.days(night(2)) == [young.isoformat()]


def test_late_rows_launch_their_day_again_under_another_key(scheduler: Scheduler, local_installation: Installation):
    local_installation.add(1)
    (first,) = scheduler.requests(night(0))
    scheduler.launch(first)
    local_installation.add(1, prefix="late")
    (second,) = scheduler.requests(night(1))
    assert first.partition_key == second.partition_key
    assert first.run_key != second.run_key
    assert metadata(scheduler.launch(second), "archive_csv")["rows_appended"] == 1


def test_at_most_so_many_days_are_launched(
    local_installation: Installation, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch
):
    for day in DAYS:
        local_installation.add(1, day=day)
    clean.setenv("MAX_DAYS_PER_RUN", "3")
    assert Scheduler(instance, build_definitions(PipelineSettings.load())).days() == KEYS[:3]


def test_a_table_without_aged_rows_is_skipped_with_the_reason(scheduler: Scheduler):
    assert scheduler.evaluate(night(0)) == "no aged day has rows"


@contextmanager
def index_being_rebuilt(database: Database) -> Iterator[None]:
    """Meanwhile the table's shape can be read, but every query of its rows waits."""
    with psycopg.connect(database.dsn) as other:
        other.execute('REINDEX INDEX "Event_pkey"')
        yield


def test_a_tick_that_takes_too_long_names_the_missing_index(
    scheduler: Scheduler, local_installation: Installation, clean: pytest.MonkeyPatch
):
    clean.setattr(schedules, "QUERY_TIMEOUT_SECONDS", 1)
    database = local_installation.database
    database.execute('DROP INDEX "Event_created_at_idx"')
    statement = 'CREATE INDEX CONCURRENTLY ON "public"."Event" ("created_at");'
    with index_being_rebuilt(database):
        assert refusal(scheduler) == (
            'public."Event": finding the days that have rows took longer than 1 s, because no index begins with the '
            f"time column. What to do: {statement}"
        )
    # That is the statement which makes the index that the days are found by.
    database.execute(statement.replace("CONCURRENTLY ", ""))
    with index_being_rebuilt(database):
        assert "The statement took longer than it may" in refusal(scheduler)


def refusal(scheduler: Scheduler) -> str:
    """What the tick's page shows as the cause."""
    with pytest.raises(DagsterUserCodeExecutionError) as failed:
        scheduler.evaluate(night(0))
    assert isinstance(failed.value.user_exception, BusyError)
    return str(failed.value.user_exception)


def test_a_tick_that_fails_is_announced_since_no_run_will_be(
    scheduler: Scheduler, clean: pytest.MonkeyPatch, webhook: Webhook
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    clean.setenv("PG_CONNECTION_STRING", "postgresql://archiver:pa55w0rd@127.0.0.1:9/events")
    for preview in (True, False):
        with pytest.raises(DagsterUserCodeExecutionError):
            scheduler.evaluate(night(0), preview=preview)
    (text,) = webhook.texts
    assert "PostgreSQL cannot be reached" in text
    assert text.endswith("The night launched no day.")
    assert "pa55w0rd" not in text


@pytest.mark.parametrize("kind", ["timestamp", "timestamptz", "date"])
def test_days_are_found_alike_with_an_index_and_without(local_installation: Installation, kind: str):
    dice = random.Random(kind)
    first, last = date(2015, 1, 1), datetime.now(UTC).date()
    edges = ["2024-02-29 00:00:00", "2024-02-29 23:59:59.999999", "2014-12-31 23:59:59.999999", "2015-01-01 00:00:00"]
    span = (last - first).days * 86400
    moments = edges + [
        (datetime(2015, 1, 1, tzinfo=UTC) + timedelta(seconds=dice.randrange(span))).strftime("%Y-%m-%d %H:%M:%S")
        for _ in range(300)
    ]
    database = local_installation.database
    database.execute(f'ALTER TABLE "Event" ALTER created_at DROP DEFAULT, ALTER created_at TYPE {kind}')
    database.execute('ALTER TABLE "Event" ALTER created_at DROP NOT NULL')
    database.execute(
        f"""SET TimeZone TO 'UTC'; INSERT INTO "Event" (event_id, event_type, payload, created_at)
        SELECT m, 't', '{{}}', m::timestamp::{kind}
        FROM unnest('{{{",".join([*dict.fromkeys(moments), "infinity", "-infinity"])}}}'::text[]) AS m"""
    )
    postgres, now = local_installation.postgres, datetime.now(UTC)
    dataset = local_installation.dataset
    indexed = days_to_do(dataset, now, postgres).days
    database.execute('DROP INDEX "Event_created_at_idx"')
    assert days_to_do(dataset, now, postgres).days == indexed
    found = rows_of_aged_days(dataset, now, postgres)
    assert list(found.rows) == indexed
    youngest = dataset.retention.last_aged_day(now)
    expected = {date.fromisoformat(moment[:10]) for moment in moments}
    assert indexed == sorted(day for day in expected if first <= day <= youngest)
    assert (found.orphans.before_start, found.orphans.not_finite) == (1, 2)

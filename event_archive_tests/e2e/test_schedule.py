"""Which days a night runs: the schedule evaluated on a real table and real runs."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import dagster as dg
import psycopg
import pytest
from dagster._core.errors import DagsterUserCodeExecutionError

from event_archive.config.environment import PipelineSettings
from event_archive.defs import schedules
from event_archive.defs.build import build_definitions
from event_archive.defs.last_runs import TICK_TAG, last_attempts
from event_archive.domain.days import ONE_DAY
from event_archive.errors import BusyError
from event_archive.nightly.backlog import days_to_do, rows_of_aged_days
from event_archive.nightly.plan import Attempt
from event_archive.table import holds
from event_archive_tests.fixtures.installation import Installation, metadata
from event_archive_tests.fixtures.pipeline import DAY, NO_CSV
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.scheduler import Scheduler, night
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

DAYS = [DAY + n * ONE_DAY for n in range(4)]
KEYS = [day.isoformat() for day in DAYS]


@pytest.fixture
def scheduler(local_installation: Installation, instance: dg.DagsterInstance) -> Scheduler:
    return Scheduler(instance, build_definitions(PipelineSettings.load()))


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


def test_a_day_with_a_run_in_flight_is_left_alone(scheduler: Scheduler, local_installation: Installation):
    for day in DAYS:
        local_installation.add(1, day=day)
    scheduler.in_flight(dg.DagsterRunStatus.STARTED, started_ago=timedelta(hours=5.9), partition=KEYS[0])
    scheduler.in_flight(dg.DagsterRunStatus.STARTED, started_ago=timedelta(hours=7), partition=KEYS[1])
    scheduler.in_flight(dg.DagsterRunStatus.QUEUED, partition=KEYS[2])
    assert sorted(scheduler.days()) == [KEYS[1], KEYS[3]]
    # A run that waits in the queue will come, however long it has waited; one that began a day ago will not end.
    later = scheduler.busy(datetime.now(UTC) + timedelta(days=3))
    assert [key for key in KEYS if key in later] == [KEYS[2]]


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING])
def test_a_run_that_never_began_counts_from_its_creation(
    scheduler: Scheduler, clean: pytest.MonkeyPatch, status: dg.DagsterRunStatus
):
    clean.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        scheduler.in_flight(status, partition=KEYS[0])
        now = datetime.now(UTC)
        assert KEYS[0] in scheduler.busy(now + timedelta(hours=5))
        assert KEYS[0] not in scheduler.busy(now + timedelta(hours=7))
    finally:
        clean.delenv("TZ")
        time.tzset()


def test_runs_of_backfills_and_of_the_asset_pages_count_too(scheduler: Scheduler, local_installation: Installation):
    for day in DAYS:
        local_installation.add(1, day=day)
    scheduler.in_flight(dg.DagsterRunStatus.QUEUED, job="__ASSET_JOB", assets=["archive_csv"], partition=KEYS[3])
    scheduler.in_flight(
        dg.DagsterRunStatus.QUEUED,
        job="__ASSET_JOB",
        assets=["purged_events"],
        asset_partition_range_start=KEYS[0],
        asset_partition_range_end=KEYS[1],
    )
    assert scheduler.days() == [KEYS[2]]
    scheduler.in_flight(dg.DagsterRunStatus.QUEUED, partition=KEYS[2])
    assert scheduler.evaluate(night(0)) == "4 aged days have rows: 4 with a run in flight"


def test_runs_of_other_pipelines_block_no_day(scheduler: Scheduler, local_installation: Installation):
    """Their partitions bear the same names: every daily pipeline has them."""
    for day in DAYS[:3]:
        local_installation.add(1, day=day)

    @dg.asset
    def others() -> None:
        """Of another pipeline."""

    elsewhere = dg.Definitions(assets=[others], jobs=[dg.define_asset_job("other_job", [others])])
    job, pages = elsewhere.resolve_job_def("other_job"), elsewhere.resolve_implicit_global_asset_job_def()
    scheduler.in_flight(dg.DagsterRunStatus.STARTED, started_ago=timedelta(hours=1), job=job, partition=KEYS[0])
    scheduler.in_flight(dg.DagsterRunStatus.QUEUED, job=pages, assets=["others"], partition=KEYS[1])
    scheduler.in_flight(dg.DagsterRunStatus.NOT_STARTED, job=job, partition=KEYS[2])
    assert scheduler.days() == KEYS[:3]


def test_a_run_that_was_never_started_blocks_its_day_for_six_hours(scheduler: Scheduler):
    scheduler.in_flight(dg.DagsterRunStatus.NOT_STARTED, partition=KEYS[0])
    scheduler.in_flight(dg.DagsterRunStatus.QUEUED, partition=KEYS[1])
    now = datetime.now(UTC)
    assert [key for key in KEYS if key in scheduler.busy(now + timedelta(hours=5))] == KEYS[:2]
    assert [key for key in KEYS if key in scheduler.busy(now + timedelta(days=365))] == KEYS[1:2]


def test_a_run_that_has_ended_is_not_in_flight(scheduler: Scheduler, local_installation: Installation):
    local_installation.add(1)
    scheduler.in_flight(dg.DagsterRunStatus.SUCCESS, partition=KEYS[0])
    scheduler.in_flight(dg.DagsterRunStatus.FAILURE, partition=KEYS[0])
    assert scheduler.days() == [KEYS[0]]


def test_with_as_many_new_days_as_slots_a_failed_day_is_tried_again(
    local_installation: Installation, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch
):
    days = [DAY + n * ONE_DAY for n in range(13)]
    for day in days:
        local_installation.add(1, day=day)
    local_installation.put(NO_CSV)
    clean.setenv("MAX_DAYS_PER_RUN", "1")
    scheduler = Scheduler(instance, build_definitions(PipelineSettings.load()))
    tried = []
    for n in range(12):
        (request,) = scheduler.requests(night(n))
        tried.append(request.partition_key)
        assert scheduler.launch(request).success == (request.partition_key != KEYS[0])
    # Once at first, then every fifth night, although a new day waits in each of them.
    again = [n for n, key in enumerate(tried) if key == KEYS[0]]
    assert again[0] == 0
    assert {later - earlier for earlier, later in pairwise(again[1:])} == {5}


def test_held_days_come_last_and_a_dry_run_is_no_failure(
    local_installation: Installation, instance: dg.DagsterInstance
):
    for day in DAYS:
        local_installation.add(1, day=day)
    dataset = local_installation.dataset
    holds.hold(dataset, DAYS[0], DAYS[0], "a lawsuit", local_installation.postgres)
    scheduler = Scheduler(instance, build_definitions(PipelineSettings.load()))
    assert scheduler.days() == [*KEYS[1:], KEYS[0]]
    requests = {request.partition_key: request for request in scheduler.requests(night(0))}
    assert scheduler.launch(requests[KEYS[1]], dry_run=True).success
    assert scheduler.launch(requests[KEYS[0]]).success
    tick = Attempt(night(0).isoformat(timespec="seconds"))
    assert last_attempts(instance, dataset, DAYS) == {DAYS[0]: tick, DAYS[1]: tick}
    # Released in the database, it is a day like any other at the next tick, whatever its last run said.
    holds.release(dataset, DAYS[0], DAYS[0], local_installation.postgres)
    order = scheduler.days(night(1))
    assert order.index(KEYS[0]) < order.index(KEYS[1])


def test_a_day_that_failed_by_a_persons_hand_counts_too(scheduler: Scheduler, local_installation: Installation):
    for day in DAYS[:2]:
        local_installation.add(1, day=day)
    local_installation.put(NO_CSV)
    job = scheduler.definitions.resolve_job_def("archive_job")
    job.execute_in_process(partition_key=KEYS[0], instance=scheduler.instance, raise_on_error=False)
    assert last_attempts(scheduler.instance, local_installation.dataset, DAYS)[DAYS[0]].failed
    # In four nights of five the day that never failed comes first.
    assert [scheduler.days(night(n))[0] for n in range(5)].count(KEYS[0]) == 1


def test_runs_of_another_table_say_nothing_of_this_one(
    scheduler: Scheduler, local_installation: Installation, clean: pytest.MonkeyPatch
):
    for day in DAYS[:2]:
        local_installation.add(1, day=day)
    clean.setenv("EVENT_TABLE", "public.other")
    other = Scheduler(scheduler.instance, build_definitions(PipelineSettings.load()))
    clean.delenv("EVENT_TABLE")
    request = dg.RunRequest(partition_key=KEYS[0])
    assert not other.launch(request).success
    assert scheduler.days() == KEYS[:2]


def test_runs_of_a_component_whose_table_has_the_same_name_say_nothing_of_this_one(
    scheduler: Scheduler, local_installation: Installation
):
    """Of a code location of somebody's own beside this one, and commonly of another database."""
    from event_archive import ArchivedTable

    theirs = ArchivedTable(name="theirs", table="public.Event")
    other = Scheduler(scheduler.instance, build_definitions(theirs.settings()), "_theirs")
    assert other.launch(dg.RunRequest(partition_key=KEYS[0])).success
    assert last_attempts(scheduler.instance, local_installation.dataset, DAYS) == {}


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
            f"time column. Create it: {statement}"
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
    with pytest.raises(DagsterUserCodeExecutionError):
        scheduler.evaluate(night(0))
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

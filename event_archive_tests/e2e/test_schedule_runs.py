"""Which runs keep a night from launching a day, and which days failed."""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import dagster as dg
import pytest

from event_archive.config.environment import PipelineSettings
from event_archive.defs.build import build_definitions
from event_archive.defs.last_runs import last_attempts
from event_archive.domain.days import ONE_DAY
from event_archive.nightly.plan import Attempt
from event_archive.table import holds
from event_archive_tests.fixtures.installation import Installation
from event_archive_tests.fixtures.pipeline import DAY, NO_CSV
from event_archive_tests.fixtures.scheduler import DAYS, KEYS, Scheduler, night

pytestmark = pytest.mark.slow


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

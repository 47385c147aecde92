"""The nightly tick: which days run. Missed nights and late rows need nobody: the table says what is left to do."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import TagBucket
from dagster._utils.schedules import is_valid_cron_schedule

from event_archive.config.environment import Settings
from event_archive.defs.assets import OUTCOME_TAG
from event_archive.defs.jobs import TABLE_TAG
from event_archive.defs.resources import PostgresResource
from event_archive.domain.dataset import Dataset
from event_archive.errors import ConfigurationError, EventArchiveError
from event_archive.nightly.backlog import days_to_do
from event_archive.observability.alerts import FailedDay, announce, failures_told

TICK_TAG = "event_archive/tick"
"""On every run that the schedule launched: when."""

PARTITION_TAG = "dagster/partition"
_RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
_IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_WAITING = {dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED}
_STALE = timedelta(hours=6)
QUERY_TIMEOUT_SECONDS = 45


@dataclass(frozen=True, slots=True)
class LastRun:
    """How a day's latest run of the job ended.

    Attributes:
        tick: the tick that launched it, ISO 8601; empty where a person did.
        stuck: it failed, was cancelled, was a dry run, or the day is held: another run will hardly do better.
    """

    tick: str = ""
    stuck: bool = False


def choose_days(days: Iterable[str], last_runs: Mapping[str, LastRun], *, most: int) -> list[str]:
    """Which days a tick launches, and in which order.

    Days not tried at the last tick come first, then the oldest. Where there are more days than slots, those tried least
    recently get them, so that days which fill up again every night starve nobody. Held, failed and dry-run days get the
    slots that are left.

    Args:
        days: that hold rows and have no run in flight, ``YYYY-MM-DD``.
        last_runs: of the days that ever ran.
        most: how many to choose at most.
    """
    last_tick = max((run.tick for run in last_runs.values()), default="")

    def run_of(day: str) -> LastRun:
        return last_runs.get(day, LastRun())

    def in_turn(day: str) -> tuple[bool, str, str]:
        return run_of(day).stuck, run_of(day).tick, day

    chosen = sorted(days, key=in_turn)[:most]
    healthy = [day for day in chosen if not run_of(day).stuck]
    healthy.sort(key=lambda day: (bool(last_tick) and run_of(day).tick == last_tick, day))
    return healthy + chosen[len(healthy) :]


def build_schedule(
    dataset: Dataset, job: UnresolvedAssetJobDefinition, *, max_days_per_run: int, cron: str
) -> dg.ScheduleDefinition:
    """``archive_daily``: a run for every aged day that still holds rows, at most ``max_days_per_run`` a tick.

    Raises:
        ConfigurationError: Dagster cannot read ``cron``.
    """
    if not is_valid_cron_schedule(cron):
        raise ConfigurationError(f"ARCHIVE_CRON holds {cron!r}, which is no cron expression like '0 2 * * *'.")

    @dg.schedule(
        name="archive_daily",
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Archives and purges every aged day that still holds rows.",
    )
    def archive_daily(
        context: dg.ScheduleEvaluationContext, postgres: PostgresResource
    ) -> Sequence[dg.RunRequest] | dg.SkipReason:
        now = context.scheduled_execution_time.astimezone(UTC)
        url = Settings.load().alert_webhook_url
        try:
            found = days_to_do(dataset, now, postgres.primary(), timeout_seconds=QUERY_TIMEOUT_SECONDS).days
        except EventArchiveError as error:
            # No run fails where none is launched, so nobody else would tell.
            if url:
                told = failures_told(str(dataset.table), [FailedDay("", str(error))], "The night launched no day.")
                announce(url.get_secret_value(), told)
            raise
        days = [day.isoformat() for day in found]
        busy = days_in_flight(context.instance, datetime.now(UTC))
        idle = [day for day in days if day not in busy]
        chosen = choose_days(idle, last_runs(context.instance, dataset, idle), most=max_days_per_run)
        context.log.info(
            "%d aged days hold rows; %d of them have a run in flight; launching %d",
            len(days),
            len(days) - len(idle),
            len(chosen),
        )
        if not chosen:
            return dg.SkipReason(
                f"{len(days)} aged days hold rows, all with a run in flight" if days else "no aged day holds rows"
            )
        tick = now.isoformat(timespec="seconds")
        # Of one tick, Dagster launches a key once, even where the daemon died in its midst; the next tick has its own.
        return [dg.RunRequest(run_key=f"{day} {tick}", partition_key=day, tags={TICK_TAG: tick}) for day in chosen]

    return archive_daily


def days_in_flight(instance: dg.DagsterInstance, now: datetime) -> "DaysInFlight":
    """The days that a run of any job, a backfill from the UI among them, waits for or started within six hours."""
    busy = DaysInFlight(set(), [])
    for record in instance.get_run_records(dg.RunsFilter(statuses=_IN_FLIGHT)):
        run = record.dagster_run
        since = record.start_time if record.start_time is not None else record.create_timestamp.timestamp()
        if run.status not in _WAITING and now.timestamp() - since > _STALE.total_seconds():
            continue
        if day := run.tags.get(PARTITION_TAG):
            busy.days.add(day)
        elif all(tag in run.tags for tag in _RANGE_TAGS):
            busy.ranges.append((run.tags[_RANGE_TAGS[0]], run.tags[_RANGE_TAGS[1]]))
    return busy


@dataclass(frozen=True, slots=True)
class DaysInFlight:
    """Days, and ranges of days both ends included, that some run is about."""

    days: set[str]
    ranges: list[tuple[str, str]]

    def __contains__(self, day: str) -> bool:
        return day in self.days or any(first <= day <= last for first, last in self.ranges)


def last_runs(instance: dg.DagsterInstance, dataset: Dataset, days: list[str]) -> dict[str, LastRun]:
    """How the latest run of each day ended, for the days that ever had a run of the job."""
    if not days:
        return {}
    records = instance.get_run_records(
        dg.RunsFilter(tags={TABLE_TAG: str(dataset.table)}),
        bucket_by=TagBucket(tag_key=PARTITION_TAG, tag_values=days, bucket_limit=1),
    )
    return {
        record.dagster_run.tags[PARTITION_TAG]: LastRun(
            tick=record.dagster_run.tags.get(TICK_TAG, ""),
            stuck=not record.dagster_run.is_success or OUTCOME_TAG in record.dagster_run.tags,
        )
        for record in records
    }

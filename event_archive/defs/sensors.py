"""What looks after failed runs: one sensor announces them, one looks for days that are left failed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from dagster._core.storage.tags import WILL_RETRY_TAG

from event_archive.config.environment import Settings
from event_archive.defs.failures import first_failure
from event_archive.defs.resources import PostgresResource
from event_archive.defs.schedules import PARTITION_TAG, days_in_flight
from event_archive.domain.dataset import Dataset
from event_archive.domain.days import parse_day
from event_archive.nightly.backlog import days_without_rows
from event_archive.observability.alerts import FailedDay, announce, failures_told, post

_NOWHERE = "ALERT_WEBHOOK_URL is not set: nobody is told"
_UNKNOWN = "a crash, or an error that event_archive does not know: see the run"
_MOST_RUNS = 50
_LEFT_FAILED_EVERY = timedelta(hours=24)


def build_sensors(
    dataset: Dataset, job: UnresolvedAssetJobDefinition, assets: list[dg.AssetsDefinition], *, max_days_per_run: int
) -> list[dg.SensorDefinition]:
    """The sensors of one dataset's runs; both are on by default."""

    @dg.sensor(
        name="failed_runs",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Announces failed runs where ALERT_WEBHOOK_URL says, one message for all since the last.",
    )
    def failed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        url = Settings.load().alert_webhook_url
        of_failure, instance = dg.DagsterEventType.RUN_FAILURE, context.instance
        if not context.cursor:
            # What failed before somebody looked is no news.
            context.update_cursor(instance.fetch_run_status_changes(of_failure, limit=1).cursor)
            return dg.SkipReason("looks for failed runs from here on")
        found = instance.fetch_run_status_changes(of_failure, limit=_MOST_RUNS, cursor=context.cursor, ascending=True)
        failures = list(_failures(context, [record.run_id for record in found.records]))
        if failures and url:
            # The cursor moves only where this succeeds: rather told twice than never.
            post(
                url.get_secret_value(),
                failures_told(str(dataset.table), failures, "Nothing is lost; see the runs in Dagster."),
            )
        context.update_cursor(found.cursor)
        return dg.SkipReason(f"{len(failures)} failed runs. {'' if url else _NOWHERE}".strip())

    @dg.sensor(
        name="failed_days",
        job=job,
        minimum_interval_seconds=3600,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Once a day: announces days that are left failed, and runs those again that hold no rows any more, which "
            "the schedule never would."
        ),
    )
    def failed_days(context: dg.SensorEvaluationContext, postgres: PostgresResource) -> dg.SensorResult | dg.SkipReason:
        now = datetime.now(UTC)
        if context.cursor and now - datetime.fromisoformat(context.cursor) < _LEFT_FAILED_EVERY:
            return dg.SkipReason("looked within a day")
        busy = days_in_flight(context.instance, now)
        failed = [day for day in days_left_failed(context.instance, assets) if day not in busy]
        if not failed:
            return dg.SkipReason("no day is left failed")
        settings = Settings.load()
        empty = days_without_rows(dataset, map(parse_day, failed), postgres.primary())
        if settings.alert_webhook_url:
            left = [FailedDay(day, "left failed") for day in failed]
            message = failures_told(str(dataset.table), left, "They are tried again every night while they hold rows.")
            # A webhook that takes nothing keeps no day from being run again.
            announce(settings.alert_webhook_url.get_secret_value(), message)
        stamp = now.isoformat(timespec="seconds")
        again = [day.isoformat() for day in empty][:max_days_per_run]
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=f"{day} {stamp}", partition_key=day) for day in again], cursor=stamp
        )

    return [failed_runs, failed_days]


def days_left_failed(instance: dg.DagsterInstance, assets: list[dg.AssetsDefinition]) -> list[str]:
    """The days of which the latest try of some asset failed, ``YYYY-MM-DD``, oldest first."""
    failed: set[str] = set()
    for asset in assets:
        partitions = asset.partitions_def
        if partitions is None:
            continue
        keys = partitions.get_partition_keys()
        status = instance.get_status_by_partition(asset.key, keys, partitions) or {}
        failed.update(day for day in keys if status.get(day) == AssetPartitionStatus.FAILED)
    return sorted(failed)


def _failures(context: dg.SensorEvaluationContext, run_ids: list[str]) -> Iterator[FailedDay]:
    """What failed in runs of this code location which nobody will try again by himself."""
    if not run_ids:
        return
    here = context.code_location_origin.location_name if context.code_location_origin else None
    for record in context.instance.get_run_records(dg.RunsFilter(run_ids=run_ids)):
        run = record.dagster_run
        origin = run.remote_job_origin
        there = origin.repository_origin.code_location_origin.location_name if origin else None
        if there != here or run.tags.get(WILL_RETRY_TAG) == "true":
            continue
        logs = context.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        words, kind = first_failure(entry.dagster_event for entry in logs if entry.dagster_event)
        # The words of errors that are not ours may hold anything.
        yield FailedDay(run.tags.get(PARTITION_TAG, ""), words if kind else _UNKNOWN)

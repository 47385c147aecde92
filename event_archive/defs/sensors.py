"""What looks after failed runs: one sensor alerts of them, one looks for days that are left failed.

Here: which failures are news, and to whom it is left to try them again. Not here: the words of a failure
(``failures``), the message and the webhook (``observability.alerts``).
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from event_archive.config.environment import ListenerSettings
from event_archive.defs.failures import INTERRUPTED, failure_of_run
from event_archive.defs.gate import asset_keys
from event_archive.defs.in_flight import days_in_flight
from event_archive.defs.internals import (
    AUTO_RETRY_RUN_ID_TAG,
    PARTITION_NAME_TAG,
    WILL_RETRY_TAG,
    AssetPartitionStatus,
    EventLogCursor,
)
from event_archive.defs.jobs import DATASET_TAG, TABLE_TAG, is_run_of
from event_archive.defs.last_runs import last_run
from event_archive.defs.pipeline import DatasetPipeline
from event_archive.defs.previews import is_preview
from event_archive.defs.resources import PostgresResource
from event_archive.defs.sources.http_api import API
from event_archive.defs.sources.log_files import LOGS
from event_archive.defs.upkeep import UPKEEP_TAG
from event_archive.domain.dataset import Dataset
from event_archive.domain.days import parse_day
from event_archive.domain.wording import counted
from event_archive.errors import EventArchiveError
from event_archive.nightly.backlog import days_without_rows
from event_archive.observability.alerts import FailedDay, alert_or_warn, failure_message, post

logger = logging.getLogger(__name__)

_NO_WEBHOOK = "ALERT_WEBHOOK_URL is not set: nobody is alerted"
_UNKNOWN = "a crash, or an error that event_archive does not know: see the run"
# A sensor has a minute, and each run's events are read; what is left comes a minute later.
_MOST_RUNS = 50
_MOST_LOOKS = 10
"""A minute each, at a run that Dagster means to try again. Where it cannot by then, it tells nobody."""
_NOT_TRIED_AGAIN = "Dagster meant to try the run again, and has not."
_LEFT_FAILED_EVERY = timedelta(hours=24)


def build_sensors(pipelines: Sequence[DatasetPipeline]) -> list[dg.SensorDefinition]:
    """The sensors of all datasets' runs; both are on by default."""
    return [_failed_runs([pipeline.dataset for pipeline in pipelines]), _failed_days(pipelines)]


def _failed_runs(datasets: Sequence[Dataset]) -> dg.SensorDefinition:
    @dg.sensor(
        name="failed_runs",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Alerts of failed runs where ALERT_WEBHOOK_URL says, a message a dataset for all since the last.",
    )
    def failed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        url = ListenerSettings.load().alert_webhook_url
        instance = context.instance
        if not context.cursor:
            # What failed before somebody looked is no news.
            context.update_cursor(_LastSeen.latest(instance).to_text())
            return dg.SkipReason("looks for failed runs from here on")
        seen, *promised = context.cursor.split("\n")
        last = _LastSeen.from_text(seen)
        looks = {run_id: int(number) for run_id, number in map(str.split, promised)}
        found = last.failures_since(instance)
        failures: dict[str, list[FailedDay]] = {}
        still: list[str] = []
        for run in _runs_of_here(context, {record.run_id for record in found} | looks.keys()):
            looked, is_promised = looks.get(run.run_id, 0) + 1, run.tags.get(WILL_RETRY_TAG) == "true"
            if is_promised and AUTO_RETRY_RUN_ID_TAG in run.tags:
                continue
            if is_promised and looked < _MOST_LOOKS:
                still.append(f"{run.run_id} {looked}")
            elif failed := _failure(instance, run, is_promised=is_promised):
                failures.setdefault(_whose(run, datasets), []).append(failed)
        if url and not is_preview(context):
            for whose, of_one in failures.items():
                # The cursor moves only where this succeeds: rather two messages than none.
                post(url.get_secret_value(), failure_message(whose, of_one, "See the runs in Dagster."))
        context.update_cursor("\n".join([last.then(found).to_text(), *still]))
        count = sum(map(len, failures.values()))
        words = counted(count, "failed run", "failed runs")
        return dg.SkipReason(words if url else f"{words}. {_NO_WEBHOOK}")

    return failed_runs


@dataclass(frozen=True, slots=True)
class _LastSeen:
    """The last failure that was looked at.

    Attributes:
        cursor: Dagster's, of that record.
        run_id: of its run; empty where there was none yet.
        at: when it failed, in seconds since the epoch.
    """

    cursor: str
    run_id: str = ""
    at: float = 0

    @classmethod
    def latest(cls, instance: dg.DagsterInstance) -> "_LastSeen":
        """The last failure there is."""
        found = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1)
        return cls(found.cursor).then(found.records)

    def failures_since(self, instance: dg.DagsterInstance) -> list[dg.EventLogRecord]:
        """The records of later failures, oldest first.

        SQLite gives the number of a deleted record to the next one: where this one is gone, those count as well that
        failed after it.
        """
        of_failure = dg.DagsterEventType.RUN_FAILURE
        found = instance.fetch_run_status_changes(of_failure, _MOST_RUNS, cursor=self.cursor, ascending=True).records
        if not self.run_id or instance.get_run_by_id(self.run_id):
            return list(found)
        later = dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_FAILURE, after_timestamp=self.at)
        found = [*found, *instance.fetch_run_status_changes(later, _MOST_RUNS, ascending=True).records]
        return [*{record.storage_id: record for record in found}.values()]

    def then(self, found: Sequence[dg.EventLogRecord]) -> "_LastSeen":
        """The last of some failures, or this one where there is none."""
        if not found:
            return self
        last = max(found, key=lambda record: record.storage_id)
        return _LastSeen(EventLogCursor.from_storage_id(last.storage_id).to_string(), last.run_id, last.timestamp)

    def to_text(self) -> str:
        """One line of a sensor's cursor."""
        return f"{self.cursor} {self.run_id} {self.at!r}"

    @classmethod
    def from_text(cls, line: str) -> "_LastSeen":
        """Reads such a line; an earlier version wrote Dagster's cursor alone."""
        cursor, _, rest = line.partition(" ")
        run_id, _, at = rest.partition(" ")
        return cls(cursor, run_id, float(at or 0))


def _whose(run: dg.DagsterRun, datasets: Sequence[Dataset]) -> str:
    """What a run is about, for people: a source, or a dataset by its tags or what it selects; all where none says.

    Upkeep of several datasets has its job's name: which of them failed, its words say.

    A run from before its dataset was renamed or removed is of none that is there.
    """
    # The asset pages launch checks alone, too.
    selected = (run.asset_selection or frozenset()) | {of.asset_key for of in run.asset_check_selection or ()}
    if source := next((of for of in (API, LOGS) if of.ran(run) or of.key in selected), None):
        return source.key.to_user_string()
    found = [of for of in datasets if is_run_of(run, of)]
    found = found or [of for of in datasets if selected & set(asset_keys(of))]
    if not found and (table := run.tags.get(TABLE_TAG)):
        name = run.tags.get(DATASET_TAG)
        return f"{name} ({table})" if name else table
    if not found and selected:
        return ", ".join(sorted(key.to_user_string() for key in selected))
    if not found and UPKEEP_TAG in run.tags:
        return run.job_name
    return ", ".join(of.label for of in found or datasets)


def _failed_days(pipelines: Sequence[DatasetPipeline]) -> dg.SensorDefinition:
    @dg.sensor(
        name="failed_days",
        jobs=[pipeline.job for pipeline in pipelines],
        minimum_interval_seconds=3600,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Once a day: alerts of days that are left failed, and runs those again that have no rows any more, which "
            "the schedule never would."
        ),
    )
    def failed_days(
        context: dg.SensorEvaluationContext, event_archive_postgres: PostgresResource
    ) -> dg.SensorResult | dg.SkipReason:
        now, instance = datetime.now(UTC), context.instance
        if context.cursor and now - datetime.fromisoformat(context.cursor) < _LEFT_FAILED_EVERY:
            return dg.SkipReason("looked within a day")
        stamp = now.isoformat(timespec="seconds")
        left: list[tuple[DatasetPipeline, list[date]]] = []
        for pipeline in pipelines:
            busy = days_in_flight(instance, pipeline.dataset, now)
            failed = days_left_failed(instance, pipeline.assets)
            # A day at the edge is a partition before it is aged, and refused until then.
            if due := [day for day in failed if day.isoformat() not in busy and pipeline.dataset.is_aged(day, now)]:
                left.append((pipeline, due))
        if not left:
            return dg.SkipReason("no day is left failed")
        again: list[dg.RunRequest] = []
        for pipeline, failed in left:
            empty = _empty_days(pipeline, failed, event_archive_postgres, len(left))
            stopped = _stopped_days(instance, pipeline.dataset, failed)
            if not is_preview(context):
                _alert(pipeline.dataset, [day for day in failed if day not in stopped])
            again += [
                dg.RunRequest(
                    run_key=f"{pipeline.job.name} {day} {stamp}",
                    partition_key=day.isoformat(),
                    job_name=pipeline.job.name,
                )
                for day in empty[: pipeline.settings.max_days_per_run]
            ]
        return dg.SensorResult(run_requests=again, cursor=stamp)

    return failed_days


def _empty_days(pipeline: DatasetPipeline, days: list[date], postgres: PostgresResource, among: int) -> list[date]:
    """Those of some days that have no row. A database that is away keeps no day from being announced."""
    try:
        return days_without_rows(pipeline.dataset, days, postgres.primary(pipeline.settings), among=among)
    except EventArchiveError as error:
        logger.warning("%s: whether days have rows could not be seen: %s", pipeline.dataset.label, error)
        return []


def _alert(dataset: Dataset, days: list[date]) -> None:
    """Alerts of days that are left failed. A webhook that takes nothing keeps no day from being run again."""
    if days:
        left = [FailedDay(day.isoformat(), "left failed") for day in days]
        again = "Those that have rows are tried again every night, others once a day, from now on."
        alert_or_warn(failure_message(dataset.label, left, again))


def _stopped_days(instance: dg.DagsterInstance, dataset: Dataset, days: list[date]) -> set[date]:
    """Those of some days whose latest run was stopped: whoever stopped it knows."""
    latest = {day: last_run(instance, dataset, day) for day in days}
    return {day for day, run in latest.items() if run and failure_of_run(instance, run.run_id)[1] == INTERRUPTED}


def days_left_failed(instance: dg.DagsterInstance, assets: list[dg.AssetsDefinition]) -> list[date]:
    """The days of which the latest try of some asset failed, oldest first."""
    failed: set[str] = set()
    for asset in assets:
        partitions = asset.partitions_def
        if partitions is None:
            continue
        keys = partitions.get_partition_keys()
        status = instance.get_status_by_partition(asset.key, keys, partitions) or {}
        failed.update(day for day in keys if status.get(day) == AssetPartitionStatus.FAILED)
    return sorted(map(parse_day, failed))


def _runs_of_here(context: dg.SensorEvaluationContext, run_ids: Collection[str]) -> Iterator[dg.DagsterRun]:
    """Those of some runs that are of this code location."""
    if not run_ids:
        return
    here = context.code_location_origin.location_name if context.code_location_origin else None
    for record in context.instance.get_run_records(dg.RunsFilter(run_ids=list(run_ids))):
        origin = record.dagster_run.remote_job_origin
        there = origin.repository_origin.code_location_origin.location_name if origin else None
        if there == here:
            yield record.dagster_run


def _failure(instance: dg.DagsterInstance, run: dg.DagsterRun, *, is_promised: bool) -> FailedDay | None:
    """What failed in a run; None where it was stopped.

    Args:
        instance: Dagster's records.
        run: that failed.
        is_promised: Dagster meant to try it again, and has not.
    """
    words, kind = failure_of_run(instance, run.run_id)
    if kind == INTERRUPTED:
        return None
    # The words of errors that are not ours may hold anything.
    told = words if kind else _UNKNOWN
    told = f"{told.rstrip('.')}. {_NOT_TRIED_AGAIN}" if is_promised else told
    return FailedDay(run.tags.get(PARTITION_NAME_TAG, ""), told)

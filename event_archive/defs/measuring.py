"""The figures of Dagster's nights for Prometheus, pushed to METRICS_PUSHGATEWAY: a night is the runs of one tick.

The same metrics as of ``event-archive run``. Not here: their names and meaning (``observability.metrics``), runs that
the schedule did not launch.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice, takewhile

import dagster as dg

from event_archive.config.environment import ListenerSettings, PipelineSettings
from event_archive.defs.gate import asset_keys
from event_archive.defs.internals import (
    PARTITION_NAME_TAG,
    SCHEDULE_NAME_TAG,
    WILL_RETRY_TAG,
    InstigatorType,
    TickStatus,
)
from event_archive.defs.jobs import named, tags_of
from event_archive.defs.last_runs import TICK_TAG, is_by_hand, runs_of
from event_archive.defs.previews import is_preview
from event_archive.defs.resources import PostgresResource
from event_archive.domain.dataset import Dataset
from event_archive.errors import EventArchiveError
from event_archive.nightly.backlog import rows_of_aged_days
from event_archive.observability.metrics import RunFigures, push
from event_archive.postgres.session import Postgres

logger = logging.getLogger(__name__)

_COUNT_SECONDS = 10.0
"""For each query that counts rows: a sensor and a tick have a minute."""
_PROMISED_SECONDS = 3600.0
"""How long a retry that Dagster means to launch is waited for; it tells nobody where it cannot."""
PUSHED = "; the figures were pushed"
"""What a tick that launches nothing says of its figures."""
_TICKS = 50
_NO_GATEWAY = "METRICS_PUSHGATEWAY is not set: nobody is told figures"


def build_measuring(datasets: Sequence[PipelineSettings]) -> dg.SensorDefinition:
    """The sensor ``nightly_metrics``: pushes the figures of each night once the last of its runs has ended."""

    @dg.sensor(
        name="nightly_metrics",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Pushes the figures of each night to METRICS_PUSHGATEWAY once its runs have ended.",
    )
    def nightly_metrics(context: dg.SensorEvaluationContext, event_archive_postgres: PostgresResource) -> dg.SkipReason:
        if ListenerSettings.load().metrics_pushgateway is None:
            return dg.SkipReason(_NO_GATEWAY)
        if is_preview(context):
            return dg.SkipReason("a preview pushes nothing")
        last, told = dict(line.rsplit(" ", 1) for line in (context.cursor or "").splitlines()), list[str]()
        for settings in datasets:
            dataset = settings.dataset
            tick, night = _last_that_ended(context.instance, dataset, last.get(dataset.label, ""))
            if not night:
                continue
            last[dataset.label] = tick
            if not _is_past(context.instance, dataset, tick):
                figures = _figures(context.instance, dataset, night)
                is_pushed = push_or_warn(dataset, event_archive_postgres.primary(settings), figures)
                stamp = f"{dataset.label} {tick}"
                told.append(stamp if is_pushed else f"not {stamp}, see the log")
        context.update_cursor("\n".join(f"{label} {tick}" for label, tick in last.items()))
        return dg.SkipReason(f"pushed: {', '.join(told)}" if told else "no night has ended since")

    return nightly_metrics


def night_has_ended(instance: dg.DagsterInstance, dataset: Dataset) -> bool:
    """Whether all runs of the last night that had any have ended, retries included."""
    return all(_have_ended(_night(instance, dataset, tick)) for tick in islice(_ticks(instance, dataset), 1))


def push_or_warn(dataset: Dataset, postgres: Postgres, figures: RunFigures) -> bool:
    """Pushes a night's figures where METRICS_PUSHGATEWAY says, and whether it did; what cannot be is a warning."""
    url = ListenerSettings.load().metrics_pushgateway
    if url is None:
        return False
    aged = None
    try:
        aged = rows_of_aged_days(dataset, figures.ended, postgres, timeout_seconds=_COUNT_SECONDS)
    except EventArchiveError as error:
        logger.warning("the rows of aged days could not be counted: %s", error)
    try:
        push(url.get_secret_value(), dataset, figures, aged)
    except EventArchiveError as error:
        logger.warning("the night could not be measured: %s", error)
        return False
    return True


def _last_that_ended(instance: dg.DagsterInstance, dataset: Dataset, told: str) -> tuple[str, list[dg.RunRecord]]:
    """The last night after a tick that was told of, of which all runs have ended; a later one may go on beside it."""
    # Somebody may have deleted the runs of later nights.
    for tick in takewhile(lambda tick: tick > told, _ticks(instance, dataset)):
        night = _night(instance, dataset, tick)
        if _have_ended(night):
            return tick, night
    return told, []


def _night(instance: dg.DagsterInstance, dataset: Dataset, tick: str) -> list[dg.RunRecord]:
    """The runs that a tick launched, those that Dagster tried again included; the newest first."""
    found = list(instance.get_run_records(dg.RunsFilter(tags=_tags(dataset) | {TICK_TAG: tick})))
    by_hand = set[str]()
    for run in (record.dagster_run for record in reversed(found)):
        # Dagster may have tried one again that somebody had launched.
        if is_by_hand(run) or run.parent_run_id in by_hand:
            by_hand.add(run.run_id)
    return [record for record in found if record.dagster_run.run_id not in by_hand]


def _is_past(instance: dg.DagsterInstance, dataset: Dataset, tick: str) -> bool:
    """Whether a later tick had no run and told its own figures: this sensor may have been off since."""
    name, after = named("archive_daily", dataset), datetime.fromisoformat(tick).timestamp() + 1
    return any(
        PUSHED in (of.skip_reason or "")
        for state in instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
        if state.name == name
        for of in instance.get_ticks(
            state.instigator_origin_id, state.selector_id, after=after, limit=_TICKS, statuses=[TickStatus.SKIPPED]
        )
    )


def _ticks(instance: dg.DagsterInstance, dataset: Dataset) -> Iterator[str]:
    """The ticks that launched runs, each once, the last first."""
    before = ""
    for run in runs_of(instance, dg.RunsFilter(tags=_tags(dataset))):
        # Somebody may have executed runs of older ones again since, or launched some out of a preview.
        tick = "" if run.parent_run_id else run.tags.get(TICK_TAG, "")
        if tick and (not before or tick < before):
            before = tick
            yield tick


def _tags(dataset: Dataset) -> dict[str, str]:
    return tags_of(dataset) | {SCHEDULE_NAME_TAG: named("archive_daily", dataset)}


def _last_of_each_day(night: Sequence[dg.RunRecord]) -> list[dg.RunRecord]:
    return list({record.dagster_run.tags[PARTITION_NAME_TAG]: record for record in reversed(night)}.values())


def _have_ended(night: Sequence[dg.RunRecord]) -> bool:
    return all(map(_has_ended, _last_of_each_day(night)))


def _has_ended(record: dg.RunRecord) -> bool:
    """Whether a run has ended, and Dagster will not try it again: nor where it meant to long ago, and has not."""
    run, ended = record.dagster_run, record.end_time or time.time()
    promised = run.tags.get(WILL_RETRY_TAG) == "true" and time.time() - ended < _PROMISED_SECONDS
    return run.is_finished and not promised


def _figures(instance: dg.DagsterInstance, dataset: Dataset, night: Sequence[dg.RunRecord]) -> RunFigures:
    _, archive, purge = asset_keys(dataset)
    written = deleted = 0
    for record in night:
        for log in instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
            event = log.asset_materialization
            if event is None:
                continue
            if event.asset_key == archive:
                written += _number(event, "rows_appended")
            elif event.asset_key == purge and not _number(event, "dry_run"):
                deleted += _number(event, "deleted")
    last = _last_of_each_day(night)
    failed = sum(not record.dagster_run.is_success for record in last)
    began = min(record.start_time or record.create_timestamp.timestamp() for record in night)
    ended = max(record.end_time or began for record in night)
    return RunFigures(
        ended=datetime.fromtimestamp(ended, UTC),
        seconds=ended - began,
        succeeded=not failed,
        days=len(last),
        failed_days=failed,
        archived_rows=written,
        deleted_rows=deleted,
    )


def _number(event: dg.AssetMaterialization, name: str) -> int:
    """A number or a truth value of the metadata; 0 where it holds none of that name."""
    value = event.metadata[name].value if name in event.metadata else 0
    return value if isinstance(value, int) else 0

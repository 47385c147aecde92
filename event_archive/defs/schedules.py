"""The nightly tick: which days run. Missed nights and late rows need nobody: the table says what is left to do.

Here: the schedule of the archive job. Not here: the order of days (``nightly.plan``), the schedules of upkeep.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import dagster as dg

from event_archive.config.environment import PipelineSettings
from event_archive.defs.in_flight import days_in_flight
from event_archive.defs.internals import UnresolvedAssetJobDefinition, is_valid_cron_schedule
from event_archive.defs.jobs import named
from event_archive.defs.last_runs import TICK_TAG, last_attempts, runs_of_tick
from event_archive.defs.measuring import PUSHED, night_has_ended, push_or_warn
from event_archive.defs.previews import is_preview
from event_archive.defs.resources import PostgresResource
from event_archive.domain.dataset import Dataset
from event_archive.domain.wording import counted
from event_archive.errors import ConfigurationError, EventArchiveError
from event_archive.nightly.backlog import days_to_do
from event_archive.nightly.plan import plan
from event_archive.nightly.purged_first import first_day_left
from event_archive.observability.alerts import FailedDay, alert_or_warn, failure_message
from event_archive.observability.metrics import RunFigures

QUERY_TIMEOUT_SECONDS = 45
"""Of the 60 that Dagster gives a tick."""
_LAST_SECONDS = 10
"""Of those 60, for looking at other datasets where the own table took its whole time."""


def build_schedule(
    settings: PipelineSettings,
    job: UnresolvedAssetJobDefinition,
    after: Sequence[PipelineSettings] = (),
    *,
    measured: bool = True,
) -> dg.ScheduleDefinition:
    """``archive_daily``, or ``archive_daily_NAME``: a run for every aged day that still has rows.

    Args:
        settings: of the dataset; they say when, and how many days a tick launches at most.
        job: what runs.
        after: the datasets whose days are purged first.
        measured: the sensor ``nightly_metrics`` pushes the figures of nights; of one without a run, the tick does.

    Raises:
        ConfigurationError: Dagster cannot read the cron expression.
    """
    dataset, cron = settings.dataset, settings.archive_cron
    check_cron(f"{dataset.name}.cron" if dataset.name else "ARCHIVE_CRON", cron)

    @dg.schedule(
        name=named("archive_daily", dataset),
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Archives and purges every aged day that still has rows.",
    )
    def archive_daily(
        context: dg.ScheduleEvaluationContext, event_archive_postgres: PostgresResource
    ) -> Sequence[dg.RunRequest] | dg.SkipReason:
        now = context.scheduled_execution_time.astimezone(UTC)
        until = time.monotonic() + QUERY_TIMEOUT_SECONDS
        previewed = is_preview(context)
        with _announced(dataset, previewed):
            found = days_to_do(
                dataset, now, event_archive_postgres.primary(settings), timeout_seconds=QUERY_TIMEOUT_SECONDS
            )
        tick = now.isoformat(timespec="seconds")
        # Where the daemon died in the midst of this tick: what it had launched, and what it had only written down.
        launched, begun = runs_of_tick(context.instance, dataset, tick)
        busy = days_in_flight(context.instance, dataset, datetime.now(UTC))
        idle = [day for day in found.days if day.isoformat() not in busy]
        in_flight, behind = len(found.days) - len(idle), len(idle)
        if idle and after:
            with _announced(dataset, previewed):
                earlier = [(of.dataset, event_archive_postgres.primary(of)) for of in after]
                seconds = max(_LAST_SECONDS, until - time.monotonic())
                first = first_day_left(earlier, idle[-1], timeout_seconds=seconds)
            idle = [day for day in idle if day < first]
        behind -= len(idle)
        attempts = last_attempts(context.instance, dataset, idle)
        most = max(0, settings.max_days_per_run - launched - len(begun))
        chosen = [*begun, *plan(idle, attempts, found.staying, now=now, most=most)]
        context.log.info(
            "%s rows; %d with a run in flight; launching %d",
            counted(len(found.days), "aged day has", "aged days have"),
            in_flight,
            len(chosen),
        )
        told = ""
        is_idle = not (chosen or launched or previewed)
        if measured and is_idle and night_has_ended(context.instance, dataset):
            figures = RunFigures(ended=datetime.now(UTC), seconds=0, succeeded=True)
            told = PUSHED if push_or_warn(dataset, event_archive_postgres.primary(settings), figures) else ""
        if not found.days:
            return dg.SkipReason(f"no aged day has rows{told}")
        if not chosen:
            reasons = {
                "with a run in flight": in_flight,
                "behind another dataset": behind,
                "left to a later tick": len(idle),
            }
            why = ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number)
            return dg.SkipReason(f"{counted(len(found.days), 'aged day has', 'aged days have')} rows: {why}{told}")
        # Runs that somebody launches out of a preview are none of the night that will have this time.
        tags = {} if previewed else {TICK_TAG: tick}
        # Of one tick, Dagster launches a key once, even where the daemon died in its midst; the next tick has its own.
        return [dg.RunRequest(run_key=f"{day} {tick}", partition_key=day.isoformat(), tags=tags) for day in chosen]

    return archive_daily


def check_cron(source: str, cron: str) -> None:
    """Checks that Dagster can read a cron expression.

    Raises:
        ConfigurationError: it cannot.
    """
    if not is_valid_cron_schedule(cron):
        raise ConfigurationError(f"{source} holds {cron!r}, which is no cron expression like '0 2 * * *'.")


@contextmanager
def _announced(dataset: Dataset, previewed: bool) -> Iterator[None]:
    """Alerts of an error, but in a preview. No run fails where none is launched, so no sensor would alert anybody."""
    try:
        yield
    except EventArchiveError as error:
        if not previewed:
            failed = [FailedDay("", str(error))]
            alert_or_warn(failure_message(dataset.label, failed, "The night launched no day."))
        raise

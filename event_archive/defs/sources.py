"""The sources in Dagster: the asset of the HTTP API with its checks, its job and its schedule.

Here: adapters. Not here: how events are fetched and landed (``event_archive.sources``), what is done with a table once
events are in it (``assets``).
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from psycopg import sql

from event_archive.config.environment import ListenerSettings, PipelineSettings
from event_archive.config.sources import ApiSettings, ApiShape
from event_archive.defs.executor import one_process
from event_archive.defs.failures import dagster_failures
from event_archive.defs.in_flight import runs_in_flight
from event_archive.defs.internals import UnresolvedAssetJobDefinition
from event_archive.defs.schedules import check_cron
from event_archive.errors import EventArchiveError
from event_archive.observability.alerts import check_message, post_or_warn
from event_archive.postgres.session import one
from event_archive.sources.http_api.ingest import Ingestion, Totals
from event_archive.sources.http_api.records import SOURCE, target
from event_archive.sources.landing import Counts, rejected_table

logger = logging.getLogger(__name__)

INGESTED_EVENTS = dg.AssetKey("ingested_events")
GROUP = "sources"
POOL = "api"
"""A pool of its own: an ingestion lasts longer than a day's archive, and takes none of that pool's slots."""
SOURCE_TAG = "event_archive/source"
"""On every run of a source's job: which source's."""

_COUNTS = [field.name for field in fields(Counts)]


@dataclass(frozen=True, slots=True)
class SourcePipeline:
    """What Dagster is to know of one source."""

    asset: dg.AssetsDefinition
    checks: list[dg.AssetChecksDefinition]
    job: UnresolvedAssetJobDefinition
    schedule: dg.ScheduleDefinition
    tags: dict[str, str]


def build_api(shape: ApiShape, datasets: Sequence[PipelineSettings]) -> SourcePipeline:
    """The HTTP API as a source.

    Args:
        shape: when it is asked, and where events land.
        datasets: those that archive the table that events land in.

    Raises:
        ConfigurationError: Dagster cannot read the cron expression.
    """
    check_cron("API_CRON", shape.api_cron)
    asset, tags = _ingested_events(shape, datasets), {SOURCE_TAG: SOURCE}
    checks = [_books_balance(), _nothing_rejected()]
    job = dg.define_asset_job(
        "ingest_api_job",
        selection=dg.AssetSelection.assets(asset).without_checks() | dg.AssetSelection.checks(*checks),
        executor_def=one_process,
        description="Takes in what the API has, from where the last run ended.",
        tags=tags,
    )
    return SourcePipeline(asset, checks, job, _ingest_api(shape, job), tags)


def is_ingestion(run: dg.DagsterRun) -> bool:
    """Whether a run is of the API's job, or of its asset from the asset pages."""
    return run.tags.get(SOURCE_TAG) == SOURCE or INGESTED_EVENTS in (run.asset_selection or ())


def _ingested_events(shape: ApiShape, datasets: Sequence[PipelineSettings]) -> dg.AssetsDefinition:
    @dg.asset(
        key=INGESTED_EVENTS,
        group_name=GROUP,
        kinds={"api", "postgres"},
        description=f"Events of the HTTP API, each one row of {shape.table}, from where the last run ended.",
        owners=["team:event-archive"],
        code_version="1",
        pool=POOL,
    )
    def ingested_events() -> dg.MaterializeResult[None]:
        # No retry of the step: the run waits for services by itself, and the schedule comes again.
        with dagster_failures():
            archived = [of.dataset for of in datasets]
            with _told_to_stop() as told_to_stop:
                run = Ingestion(ApiSettings.load(), archived, told_to_stop, progress=_log)
                try:
                    run.run()
                except EventArchiveError as error:
                    run.totals.failures.append(error)
            _log(run.totals, run.totals.ended)
            if told_to_stop() and run.totals.ended != "complete":
                raise KeyboardInterrupt
            _raise_failures(run.totals.failures)
        return dg.MaterializeResult(metadata=ingestion_metadata(run.totals))

    return ingested_events


def ingestion_metadata(totals: Totals) -> dict[str, Any]:
    """Of ``ingested_events``; counts are of the run, the row count too: of a table of any size, no run counts all."""
    watermark = totals.watermark
    return {
        "dagster/row_count": totals.counts.new,
        **totals.counts.as_dict(),
        "pages": totals.pages,
        "restarts": totals.restarts,
        "watermark": dg.MetadataValue.timestamp(watermark) if watermark else dg.MetadataValue.null(),
        "ended": totals.ended,
        "seconds": totals.seconds,
        "events_per_second": totals.rate,
    }


def _log(totals: Totals, outcome: str = "under way") -> None:
    """One log line with the figures so far."""
    figures = totals.counts.as_dict() | {"pages": totals.pages, "seconds": round(totals.seconds, 3)}
    logger.info("ingestion %s: %d events", outcome, totals.counts.taken, extra={"source": SOURCE, **figures})


def _raise_failures(failures: Sequence[EventArchiveError]) -> None:
    """Raises what went wrong, all of it in one error."""
    words = list(dict.fromkeys(map(str, failures)))
    if words:
        raise failures[0] if len(words) == 1 else EventArchiveError(" ".join(words))


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    """In this block a first SIGTERM or SIGINT only asks for an end, and what arrived is landed; a second interrupts.

    Dagster's own handlers, which raise at once, are put back at the first signal and at the end.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def ask(_number: int, _frame: object) -> None:
        asked.set()
        put_back()

    for number in former:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        put_back()


def _ingest_api(shape: ApiShape, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    @dg.schedule(
        name="ingest_api",
        job=job,
        cron_schedule=shape.api_cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Takes in what the API has, unless a run is at it.",
    )
    def ingest_api(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if any(map(is_ingestion, runs_in_flight(context.instance, datetime.now(UTC)))):
            return dg.SkipReason("a run is in flight, and takes in what there is")
        return dg.RunRequest(run_key=context.scheduled_execution_time.astimezone(UTC).isoformat(timespec="seconds"))

    return ingest_api


def _last_counts(instance: dg.DagsterInstance) -> Counts:
    """The counts of the latest materialization; zeros where there is none, or one that was recorded by hand."""
    event = instance.get_latest_materialization_event(INGESTED_EVENTS)
    metadata = event.asset_materialization.metadata if event and event.asset_materialization else {}
    found = {name: metadata[name].value for name in _COUNTS if name in metadata}
    return Counts(**{name: value for name, value in found.items() if isinstance(value, int)})


def _books_balance() -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=INGESTED_EVENTS,
        pool=POOL,
        description="Of the latest run: every event taken in is new, known, superseded, rejected, too old or lost.",
    )
    def books_balance(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        counts = _last_counts(context.instance)
        told = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.as_dict().items())
        return dg.AssetCheckResult(passed=counts.balance == 0, description=told, metadata=counts.as_dict())

    return books_balance


def _nothing_rejected() -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=INGESTED_EVENTS,
        pool=POOL,
        description="No event lies in rejected_records. The latest run's are alerted of where ALERT_WEBHOOK_URL says.",
    )
    def nothing_rejected(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        latest = _last_counts(context.instance).rejected
        with dagster_failures():
            number = _rejected(ApiSettings.load())
            words = f"{number} events cannot be rows: `event-archive rejected --source {SOURCE}` says why."
            if latest and (url := ListenerSettings.load().alert_webhook_url):
                post_or_warn(url.get_secret_value(), check_message("nothing_rejected", words))
        return dg.AssetCheckResult(
            passed=number == 0,
            severity=dg.AssetCheckSeverity.WARN,
            description=words if number else "every event is a row",
            metadata={"rejected": number, "rejected_by_latest_run": latest},
        )

    return nothing_rejected


def _rejected(settings: ApiSettings) -> int:
    """How many of the API's events lie in ``rejected_records``."""
    table = rejected_table(target(settings.ingest_schema, settings.api_conflict))
    query = sql.SQL("SELECT pg_catalog.count(*) FROM {} WHERE source = %s").format(
        sql.Identifier(table.schema, table.name)
    )
    with settings.postgres.transaction(str(table)) as connection:
        return int(one(connection, query, SOURCE)[0])

"""The HTTP API in Dagster: its asset ``ingested_events``, and the check that nothing of it was rejected.

Not here: how events are fetched and landed, what it shares with other sources.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from psycopg import sql

from event_archive.config.datasets import archiving
from event_archive.config.environment import PipelineSettings
from event_archive.config.sources import ApiSettings, ApiShape
from event_archive.defs.failures import dagster_failures
from event_archive.defs.internals import AssetCheckExecutionRecordStatus
from event_archive.defs.sources.books import books_balance, last_counts
from event_archive.defs.sources.running import ingest, instant_metadata, raise_failures, run_metadata
from event_archive.defs.sources.source import GROUP, SourceNames, SourcePipeline, build_source
from event_archive.domain.wording import counted
from event_archive.observability.alerts import alert_or_warn, check_message
from event_archive.postgres.session import one
from event_archive.sources.archived import ArchivedHere
from event_archive.sources.http_api.ingest import Ingestion
from event_archive.sources.http_api.records import SOURCE, target
from event_archive.sources.http_api.task import Totals
from event_archive.sources.landing import rejected_table

_NEWEST = "newest_rejected"
API = SourceNames(SOURCE, dg.AssetKey("ingested_events"), unit="pages")


def build_api(shape: ApiShape, datasets: Sequence[PipelineSettings]) -> SourcePipeline:
    """The HTTP API as a source.

    Args:
        shape: when it is asked, and where events land.
        datasets: all; those that archive the table that events land in say which of them are too old.

    Raises:
        ConfigurationError: Dagster cannot read the cron expression.
    """
    asset, checks = _ingested_events(shape, datasets), [books_balance(API), _nothing_rejected()]
    return build_source(API, archiving(shape.table, datasets), asset, checks, cron=shape.api_cron)


def _ingested_events(shape: ApiShape, datasets: Sequence[PipelineSettings]) -> dg.AssetsDefinition:
    @dg.asset(
        key=API.key,
        group_name=GROUP,
        kinds={"api", "postgres"},
        description=f"Events of the HTTP API, each one row of {shape.table}, from where the last run ended.",
        owners=["team:event-archive"],
        code_version="1",
        pool=API.name,
    )
    def ingested_events(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        # No retry of the step: the run waits for services by itself, and the schedule comes again.
        with dagster_failures(context.log):
            settings = ApiSettings.load()
            archived = ArchivedHere(settings.postgres, settings.table, datasets)
            run = ingest(API, lambda stopped, tell: Ingestion(settings, archived, stopped, progress=tell))
            raise_failures(run.totals.failures)
        return dg.MaterializeResult(metadata=api_metadata(run.totals))

    return ingested_events


def api_metadata(totals: Totals) -> dict[str, Any]:
    """Of ``ingested_events``."""
    return run_metadata(totals) | {
        "pages": totals.pages,
        "restarts": totals.restarts,
        "watermark": instant_metadata(totals.watermark),
        "events_per_second": totals.rate,
    }


def _nothing_rejected() -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=API.key,
        pool=API.name,
        description="No event lies in rejected_records. Each is alerted of where ALERT_WEBHOOK_URL says: once, and "
        "again where a replay was in vain.",
    )
    def nothing_rejected(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        latest = last_counts(context.instance, API).rejected
        with dagster_failures(context.log):
            number, newest = _rejected(ApiSettings.load())
            cannot = counted(number, "event lies", "events lie")
            words = f"{cannot} in rejected_records: `event-archive rejected --source {SOURCE}` says why."
            # Also those of a run that failed, whose checks were not made.
            if number and newest > _alerted_of(context):
                alert_or_warn(check_message("nothing_rejected", words))
        return dg.AssetCheckResult(
            passed=number == 0,
            severity=dg.AssetCheckSeverity.WARN,
            description=words if number else "no event lies in rejected_records",
            metadata={"rejected": number, "rejected_by_latest_run": latest, _NEWEST: newest},
        )

    return nothing_rejected


def _alerted_of(context: dg.AssetCheckExecutionContext) -> int:
    """The newest rejected event that the last evaluation knew; 0 where there was none."""
    key = next(iter(context.selected_asset_check_keys))
    made = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
    found = context.instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=made)
    evaluation = found[0].evaluation if found else None
    value = evaluation.metadata[_NEWEST].value if evaluation and _NEWEST in evaluation.metadata else 0
    return value if isinstance(value, int) else 0


def _rejected(settings: ApiSettings) -> tuple[int, int]:
    """How many of the API's events lie in ``rejected_records``, and the highest of their numbers there."""
    table = rejected_table(target(settings.ingest_schema, settings.api_conflict))
    query = sql.SQL("SELECT pg_catalog.count(*), coalesce(pg_catalog.max(id), 0) FROM {} WHERE source = %s").format(
        sql.Identifier(table.schema, table.name)
    )
    with settings.postgres.transaction(str(table)) as connection:
        number, newest = one(connection, query, SOURCE)
        return number, newest

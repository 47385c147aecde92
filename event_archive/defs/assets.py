"""The three assets. Each reads its context, calls one operation and returns what it found.

Here: adapters, and what the three have in common for Dagster. Not here: what is done to a day (``operations``), what is
recorded of it (``metadata``).
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from event_archive.config.environment import PipelineSettings
from event_archive.defs.columns import columns_of_file
from event_archive.defs.failures import dagster_failures
from event_archive.defs.gate import asset_keys, latest_record, record_if_any, warn_of_lost_rows
from event_archive.defs.metadata import aged_metadata, archive_metadata, purge_metadata, purges_of_others
from event_archive.defs.preview import preview_of_day
from event_archive.defs.resources import LakeResource, PostgresResource
from event_archive.domain.dataset import Dataset
from event_archive.domain.days import parse_day
from event_archive.domain.record import Record
from event_archive.nightly.backlog import aged_rows
from event_archive.nightly.outcome import purge_details
from event_archive.nightly.purged_first import require_purged
from event_archive.nightly.replicas import await_replicas
from event_archive.operations.archive import archive_day
from event_archive.operations.purge import PurgedDay, purge_day
from event_archive.operations.site import Site

logger = logging.getLogger(__name__)

GROUP = "event_archive"
POOL = "postgres"
OUTCOME_TAG = "event_archive/outcome"
"""On runs that left rows on purpose, for people: ``dry run``, ``held``, ``kept`` or ``waiting``. A run that is executed
again passes its tags on: then it is on the later run whatever became of that one."""

# A day comes of age every night. A warning after one that was missed, a failure after two.
_EVERY_NIGHT = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=50))

Result = dg.MaterializeResult[None]


class PurgeConfig(dg.Config):
    """Run configuration of ``purged_events``."""

    dry_run: bool = False
    """Do everything, then roll back. Turns a dry run on for this run; DRY_RUN turns it on for all."""


def build_assets(
    settings: PipelineSettings,
    partitions: dg.PartitionsDefinition[str],
    after: Sequence[PipelineSettings] = (),
    sources: Sequence[dg.AssetKey] = (),
) -> list[dg.AssetsDefinition]:
    """The assets of one dataset, one partition a day.

    Args:
        settings: of the dataset.
        partitions: its days.
        after: the datasets whose days are purged first.
        sources: the assets that fill its table.
    """
    aged = _aged_events(settings, partitions, sources)
    archived = _archive_csv(settings, partitions)
    return [aged, archived, _purged_events(settings, partitions, after)]


def _daily(
    dataset: Dataset,
    partitions: dg.PartitionsDefinition[str],
    kinds: set[str],
    description: str,
    deps: Sequence[dg.AssetKey | dg.AssetDep] = (),
    freshness_policy: dg.FreshnessPolicy | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """An asset with what the three have in common. Retries are asked for by ``dagster_failures``."""
    return dg.asset(
        kinds=kinds,
        description=description,
        deps=deps,
        freshness_policy=freshness_policy,
        partitions_def=partitions,
        key_prefix=[dataset.asset_prefix] if dataset.asset_prefix else None,
        group_name=dataset.name or GROUP,
        owners=["team:event-archive"],
        code_version="1",
        pool=POOL,
    )


def _aged_events(
    settings: PipelineSettings, partitions: dg.PartitionsDefinition[str], sources: Sequence[dg.AssetKey]
) -> dg.AssetsDefinition:
    dataset = settings.dataset

    @_daily(dataset, partitions, {"postgres"}, f"Rows of {dataset.table} that are of this day, which is aged.", sources)
    def aged_events(context: dg.AssetExecutionContext, event_archive_postgres: PostgresResource) -> Result:
        with dagster_failures(context.log, context.retry_number):
            rows = aged_rows(dataset, parse_day(context.partition_key), event_archive_postgres.primary(settings))
        return dg.MaterializeResult(metadata=aged_metadata(rows))

    return aged_events


def _archive_csv(settings: PipelineSettings, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    dataset = settings.dataset

    @_daily(
        dataset,
        partitions,
        {"csv", "azure"},
        "The day's CSV in the lake: written, appended to, or left as it is.",
        [asset_keys(dataset).aged_events],
        _EVERY_NIGHT,
    )
    def archive_csv(
        context: dg.AssetExecutionContext, event_archive_postgres: PostgresResource, event_archive_lake: LakeResource
    ) -> Result:
        with dagster_failures(context.log, context.retry_number), event_archive_lake.open(settings) as opened:
            archived = archive_day(
                Site(
                    dataset, event_archive_postgres.primary(settings), opened, event_archive_postgres.replica(settings)
                ),
                parse_day(context.partition_key),
                max_bytes_per_second=settings.with_secrets().export_rate_limit,
            )
            warn_of_lost_rows(context.instance, dataset, archived)
            preview = preview_of_day(context.instance, dataset, archived, opened)
            columns = columns_of_file(archived, opened)
        return dg.MaterializeResult(metadata=archive_metadata(archived, preview, columns))

    return archive_csv


def _purged_events(
    settings: PipelineSettings, partitions: dg.PartitionsDefinition[str], after: Sequence[PipelineSettings]
) -> dg.AssetsDefinition:
    dataset = settings.dataset
    earlier = [_earlier(other.dataset) for other in after]

    @_daily(
        dataset,
        partitions,
        {"postgres"},
        "Rows deleted because they were read back from the day's CSV, identical in every column.",
        [asset_keys(dataset).archive_csv, *earlier],
    )
    def purged_events(
        context: dg.AssetExecutionContext,
        config: PurgeConfig,
        event_archive_postgres: PostgresResource,
        event_archive_lake: LakeResource,
    ) -> Result:
        if OUTCOME_TAG in context.run.tags:
            _tag(context, "failed")
        with dagster_failures(context.log, context.retry_number), event_archive_lake.open(settings) as opened:
            day, current = parse_day(context.partition_key), settings.with_secrets()
            record = latest_record(context.instance, dataset, day)
            for other in after:
                require_purged(other.dataset, day, event_archive_postgres.primary(other), before=dataset)
            if current.max_replica_lag:
                setting = dataset.setting("MAX_REPLICA_LAG")
                await_replicas(event_archive_postgres.primary(settings), current.max_replica_lag, setting=setting)
            purged = purge_day(
                Site(dataset, event_archive_postgres.primary(settings), opened),
                day,
                record,
                dry_run=config.dry_run or current.dry_run,
                recorded=lambda other: record_if_any(context.instance, dataset, other),
                message_prefix=current.logical_message_prefix,
            )
        if purged.outcome in ("dry run", "held", "kept", "waiting") or OUTCOME_TAG in context.run.tags:
            _tag(context, purged.outcome)
        _report_others(context, purged)
        _log_day(dataset, record, purged)
        return dg.MaterializeResult(metadata=purge_metadata(purged))

    return purged_events


def _tag(context: dg.AssetExecutionContext, outcome: str) -> None:
    context.instance.add_run_tags(context.run.run_id, {OUTCOME_TAG: outcome})


def _report_others(context: dg.AssetExecutionContext, purged: PurgedDay) -> None:
    """Records the days whose rows went with this one: without a run, since that of another day may be pruned."""
    for other in purges_of_others(purged):
        context.instance.report_runless_asset_event(
            dg.AssetMaterialization(context.asset_key, partition=other.day.isoformat(), metadata=purge_metadata(other))
        )


def _earlier(dataset: Dataset) -> dg.AssetDep:
    """The same day of another dataset, whose first and last days may be others."""
    # In beta in Dagster 1.13.
    with warnings.catch_warnings(action="ignore", category=dg.BetaWarning):
        same_day = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
    return dg.AssetDep(asset_keys(dataset).purged_events, partition_mapping=same_day)


def _log_day(dataset: Dataset, record: Record, purged: PurgedDay) -> None:
    """One log line with the figures of a day."""
    logger.info(
        "day %s: %s",
        purged.day,
        purged.outcome,
        extra={
            **({"dataset": dataset.name} if dataset.name else {}),
            "day": purged.day.isoformat(),
            "outcome": purged.outcome,
            **({"reason": purged.reason} if purged.reason else {}),
            "rows": record.rows,
            "deleted": purged.deleted,
            "left": purged.left,
            **purge_details(purged.how, purged.partitions, purged.vacuum_seconds),
            "bytes": record.bytes,
            "seconds": round(record.seconds + purged.seconds, 3),
        },
    )

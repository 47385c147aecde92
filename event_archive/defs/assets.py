"""The three assets. Each reads its context, calls one verb and returns what it found; the verbs do the work."""

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from event_archive.config.environment import PipelineSettings
from event_archive.defs.failures import failures_told
from event_archive.defs.gate import latest_record
from event_archive.defs.preview import preview
from event_archive.defs.resources import LakeResource, PostgresResource
from event_archive.domain.dataset import Dataset
from event_archive.domain.days import parse_day
from event_archive.domain.progress import Progress
from event_archive.domain.record import Record
from event_archive.nightly.backlog import aged_rows
from event_archive.operations.archive import ArchivedDay, archive_day
from event_archive.operations.purge import PurgedDay, purge_day
from event_archive.operations.site import Site
from event_archive.postgres.replicas import await_replicas

logger = logging.getLogger(__name__)

GROUP = "event_archive"
POOL = "postgres"
OUTCOME_TAG = "event_archive/outcome"
"""On runs whose purge deleted nothing on purpose: ``dry run`` or ``held``. The schedule reads it."""

# A day comes of age every night. A warning after one that was missed, a failure after two.
_EVERY_NIGHT = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=50))


class PurgeConfig(dg.Config):
    """Run configuration of ``purged_events``."""

    dry_run: bool = False
    """Do everything, then roll back. Turns a dry run on for this run; DRY_RUN turns it on for all."""


def build_assets(dataset: Dataset, partitions: dg.PartitionsDefinition[str]) -> list[dg.AssetsDefinition]:
    """The assets of one dataset, one partition a day."""

    def daily(
        kinds: set[str],
        description: str,
        deps: Sequence[dg.AssetsDefinition] = (),
        freshness_policy: dg.FreshnessPolicy | None = None,
    ) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
        """An asset with what the three have in common."""
        return dg.asset(
            kinds=kinds,
            description=description,
            deps=deps,
            freshness_policy=freshness_policy,
            partitions_def=partitions,
            group_name=GROUP,
            owners=["team:event-archive"],
            code_version="1",
            pool=POOL,
            retry_policy=dg.RetryPolicy(max_retries=2, delay=15, backoff=dg.Backoff.EXPONENTIAL),
        )

    @daily(kinds={"postgres"}, description=f"Rows of {dataset.table} that are of this day, which is aged.")
    def aged_events(context: dg.AssetExecutionContext, postgres: PostgresResource) -> dg.MaterializeResult[None]:
        with failures_told():
            found = aged_rows(dataset, parse_day(context.partition_key), postgres.primary())
        return dg.MaterializeResult(
            metadata={"dagster/row_count": found.rows, "first": found.first or "", "last": found.last or ""}
        )

    @daily(
        deps=[aged_events],
        kinds={"csv", "azure"},
        description="The day's CSV in the lake: written, appended to, or left as it is.",
        freshness_policy=_EVERY_NIGHT,
    )
    def archive_csv(
        context: dg.AssetExecutionContext,
        postgres: PostgresResource,
        lake: LakeResource,
        progress: dg.ResourceParam[Progress],
    ) -> dg.MaterializeResult[None]:
        with failures_told(), lake.open() as opened:
            archived = archive_day(
                Site(dataset, postgres.primary(), opened, postgres.replica()),
                parse_day(context.partition_key),
                max_bytes_per_second=PipelineSettings.load().export_rate_limit,
                progress=progress,
            )
        return dg.MaterializeResult(metadata=_archive_metadata(archived))

    @daily(
        deps=[archive_csv],
        kinds={"postgres"},
        description="Rows deleted because they were read back from the day's CSV, identical in every column.",
    )
    def purged_events(
        context: dg.AssetExecutionContext,
        config: PurgeConfig,
        postgres: PostgresResource,
        lake: LakeResource,
        progress: dg.ResourceParam[Progress],
    ) -> dg.MaterializeResult[None]:
        with failures_told(), lake.open() as opened:
            day = parse_day(context.partition_key)
            settings = PipelineSettings.load()
            record = latest_record(context.instance, day)
            if settings.max_replica_lag:
                await_replicas(postgres.primary(), settings.max_replica_lag)
            purged = purge_day(
                Site(dataset, postgres.primary(), opened),
                day,
                record,
                dry_run=config.dry_run or settings.dry_run,
                message_prefix=settings.logical_message_prefix,
                progress=progress,
            )
        if purged.outcome in ("dry run", "held"):
            context.instance.add_run_tags(context.run.run_id, {OUTCOME_TAG: purged.outcome})
        _log_day(record, purged)
        return dg.MaterializeResult(
            metadata={
                "deleted": purged.deleted,
                "proven": purged.proven,
                "left": purged.left,
                "dry_run": purged.outcome == "dry run",
                "outcome": purged.outcome,
                "reason": purged.reason or "",
                "seconds": purged.seconds,
            }
        )

    return [aged_events, archive_csv, purged_events]


def _archive_metadata(archived: ArchivedDay) -> dict[str, Any]:
    """The metadata of the contract (DESIGN, section 5)."""
    manifest = archived.manifest
    columns = [
        dg.TableColumn(column.name, column.type, constraints=dg.TableColumnConstraints(nullable=column.nullable))
        for column in archived.columns
    ]
    return {
        "path": archived.path,
        "url": dg.MetadataValue.url(archived.url),
        "dagster/row_count": archived.rows,
        "rows_appended": archived.rows_appended,
        "bytes": manifest.bytes if manifest else 0,
        "sha256": manifest.sha256 if manifest else dg.MetadataValue.null(),
        "etag": archived.etag or dg.MetadataValue.null(),
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "preview": dg.MetadataValue.md(preview(b"")),
        "seconds": archived.seconds,
        "rows_per_second": archived.rows_appended / archived.seconds,
        "manifest": dg.MetadataValue.json(manifest.to_json()) if manifest else dg.MetadataValue.null(),
    }


def _log_day(record: Record, purged: PurgedDay) -> None:
    """The specification's metrics of a day, one line."""
    logger.info(
        "day %s: %s",
        purged.day,
        purged.outcome,
        extra={
            "day": purged.day.isoformat(),
            "outcome": purged.outcome,
            **({"reason": purged.reason} if purged.reason else {}),
            "rows": record.rows,
            "deleted": purged.deleted,
            "left": purged.left,
            "bytes": record.bytes,
            "seconds": round(record.seconds + purged.seconds, 3),
        },
    )

"""What Dagster is to know of any source: its name, its runs, its job, its schedule. Not here: any source's asset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from event_archive.config.environment import PipelineSettings
from event_archive.defs.executor import one_process
from event_archive.defs.in_flight import runs_in_flight
from event_archive.defs.internals import RUN_KEY_TAG, UnresolvedAssetJobDefinition
from event_archive.defs.schedules import check_cron

GROUP = "sources"
_TAG = "event_archive/source"
"""On every run of a source's job: which source's."""


@dataclass(frozen=True, slots=True)
class SourceNames:
    """A source by its names.

    Attributes:
        name: as in ``rejected_records``, and of its pool: an ingestion lasts longer than a day's archive, and takes
            none of that pool's slots.
        key: of its asset.
        unit: what its runs count besides records, by the name in their totals.
    """

    name: str
    key: dg.AssetKey
    unit: str

    @property
    def schedule_name(self) -> str:
        """Of its schedule."""
        return f"ingest_{self.name}"

    @property
    def tags(self) -> dict[str, str]:
        """On the runs of its job."""
        return {_TAG: self.name}

    def ran(self, run: dg.DagsterRun) -> bool:
        """Whether a run is of its job, or of its asset from the asset pages."""
        return run.tags.get(_TAG) == self.name or self.key in (run.asset_selection or ())


@dataclass(frozen=True, slots=True)
class SourcePipeline:
    """The definitions of one source.

    Attributes:
        source: its names.
        datasets: those that archive the table that it fills.
        asset: the table.
        checks: of the asset; ``daily`` are those that may fail without a run, and are made once a day, too.
        job: the asset and its checks.
        schedule: of the job.
    """

    source: SourceNames
    datasets: Sequence[PipelineSettings]
    asset: dg.AssetsDefinition
    checks: Sequence[dg.AssetChecksDefinition]
    daily: Sequence[dg.AssetChecksDefinition]
    job: UnresolvedAssetJobDefinition
    schedule: dg.ScheduleDefinition


def build_source(
    source: SourceNames,
    datasets: Sequence[PipelineSettings],
    asset: dg.AssetsDefinition,
    checks: Sequence[dg.AssetChecksDefinition],
    *,
    cron: str,
    daily: Sequence[dg.AssetChecksDefinition] = (),
    waits: Callable[[], bool] | None = None,
) -> SourcePipeline:
    """A source's job ``ingest_NAME_job`` and schedule ``ingest_NAME`` around its asset.

    Args:
        source: its names.
        datasets: as in ``SourcePipeline``.
        asset: likewise.
        checks: likewise, without those of ``daily``.
        cron: as the variable ``NAME_CRON`` has it.
        daily: likewise.
        waits: whether a run would find anything; asked by the schedule, which has a minute. None where only a run can
            tell.

    Raises:
        ConfigurationError: Dagster cannot read the cron expression.
    """
    check_cron(f"{source.name.upper()}_CRON", cron)
    checks = [*checks, *daily]
    job = dg.define_asset_job(
        f"ingest_{source.name}_job",
        selection=dg.AssetSelection.assets(asset).without_checks() | dg.AssetSelection.checks(*checks),
        executor_def=one_process,
        description="Takes in what there is, from where the last run ended.",
        tags=source.tags,
    )
    return SourcePipeline(source, datasets, asset, checks, daily, job, _schedule(source, job, cron, waits))


def _schedule(
    source: SourceNames, job: UnresolvedAssetJobDefinition, cron: str, waits: Callable[[], bool] | None
) -> dg.ScheduleDefinition:
    or_nothing_waits = " or would find nothing to do" if waits else ""

    @dg.schedule(
        name=source.schedule_name,
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Takes in what there is, unless a run is at it{or_nothing_waits}.",
    )
    def ingest(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        _limit_pool(context.instance, source.name)
        key = context.scheduled_execution_time.astimezone(UTC).isoformat(timespec="seconds")
        # Where the daemon died in the midst of this tick, it has its run already: asked for again, it is launched.
        others = (
            run for run in runs_in_flight(context.instance, datetime.now(UTC)) if run.tags.get(RUN_KEY_TAG) != key
        )
        if any(map(source.ran, others)):
            return dg.SkipReason("a run is in flight")
        if waits and not waits():
            return dg.SkipReason("a run would find nothing to do")
        return dg.RunRequest(run_key=key)

    return ingest


def _limit_pool(instance: dg.DagsterInstance, pool: str) -> None:
    """Lets one run at a time into a pool, unless somebody has set its limit: dagster.yaml has one for all pools."""
    storage = instance.event_log_storage
    if pool not in {of.name for of in storage.get_pool_limits() if not of.from_default}:
        storage.set_concurrency_slots(pool, 1)

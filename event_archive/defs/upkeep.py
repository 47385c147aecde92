"""What keeps the installation itself in order: the checks of the whole table, and Dagster's own records, pruned.

Not here: the checks (``checks``), the schedule of the archive job.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from event_archive.defs.executor import one_process
from event_archive.defs.gate import latest_materialization
from event_archive.defs.internals import PARTITION_NAME_TAG, UnresolvedAssetJobDefinition
from event_archive.defs.jobs import TABLE_TAG, is_run_of, tags_of
from event_archive.defs.last_runs import runs_of
from event_archive.defs.pipeline import DatasetPipeline
from event_archive.defs.sources.source import SourceNames, SourcePipeline
from event_archive.domain.dataset import Dataset

UPKEEP_TAG = "event_archive/upkeep"
"""On runs of upkeep that serve several datasets."""
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


class PruneConfig(dg.Config):
    """Run configuration of ``prune_job``."""

    older_than_days: int = 90
    """Runs that ended more than so many days ago are pruned."""


def build_upkeep(
    pipelines: Sequence[DatasetPipeline], sources: Sequence[SourcePipeline] = ()
) -> list[dg.ScheduleDefinition]:
    """The schedules, with their jobs: ``check_daily`` in the morning, ``prune_weekly`` on Sundays; on by default."""
    datasets = [pipeline.dataset for pipeline in pipelines]
    checks = [check for pipeline in pipelines for check in pipeline.of_checks.of_table]
    checks += [check for pipeline in sources for check in pipeline.daily]
    # Runs of several datasets are none's.
    tags = tags_of(datasets[0]) if len(datasets) == 1 else {UPKEEP_TAG: "all"}
    check_job = dg.define_asset_job(
        "check_job",
        selection=dg.AssetSelection.checks(*checks),
        executor_def=one_process,
        description="Looks for a backlog, rows that no day will archive, and log files that failed or are overdue.",
        tags=tags,
    )

    @dg.op(description="Deletes Dagster's records of old runs that say nothing about any day that is not said later.")
    def prune_runs(context: dg.OpExecutionContext, config: PruneConfig) -> None:
        before = datetime.now(UTC) - timedelta(days=config.older_than_days)
        run_ids = [run_id for dataset in datasets for run_id in superseded_runs(context.instance, dataset, before)]
        if len(datasets) > 1:
            run_ids += finished_runs(context.instance, tags, before)
        for source in sources:
            run_ids += superseded_ingestions(context.instance, source.source, before)
        for run_id in run_ids:
            context.instance.delete_run(run_id)
        context.log.info("%d runs pruned that ended before %s", len(run_ids), f"{before:%Y-%m-%d %H:%M} UTC")

    @dg.job(
        executor_def=one_process,
        description="Prunes Dagster's own records; a run that holds a day's latest materialization stays.",
        tags=tags,
    )
    def prune_job() -> None:
        prune_runs()

    def schedule(name: str, cron: str, job: dg.JobDefinition | UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
        return dg.ScheduleDefinition(
            name=name,
            cron_schedule=cron,
            job=job,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )

    return [schedule("check_daily", "0 8 * * *", check_job), schedule("prune_weekly", "0 12 * * 0", prune_job)]


def superseded_runs(instance: dg.DagsterInstance, dataset: Dataset, before: datetime) -> Iterator[str]:
    """The ids of this table's runs that ended before an instant and hold no day's latest materialization.

    Deleting a run deletes its events, and the latest materialization of a day is what its purge is gated on and what
    the UI shows of it. Another code location's dataset of this name and table has runs with these tags, too, of assets
    that have other keys: a run is asked what it materialized.
    """
    for run in _finished(instance, {TABLE_TAG: str(dataset.table)}, before):
        day = run.tags.get(PARTITION_NAME_TAG)
        if is_run_of(run, dataset) and (day is None or not _holds_latest(instance, run.run_id, day)):
            yield run.run_id


def superseded_ingestions(instance: dg.DagsterInstance, source: SourceNames, before: datetime) -> list[str]:
    """The ids of a source's runs that ended before an instant and do not hold the latest materialization."""
    latest = instance.get_latest_materialization_event(source.key)
    return [run_id for run_id in finished_runs(instance, source.tags, before) if not latest or run_id != latest.run_id]


def finished_runs(instance: dg.DagsterInstance, tags: dict[str, str], before: datetime) -> Iterator[str]:
    """The ids of runs with some tags that ended before an instant."""
    return (run.run_id for run in _finished(instance, tags, before))


def _finished(instance: dg.DagsterInstance, tags: dict[str, str], before: datetime) -> Iterator[dg.DagsterRun]:
    return runs_of(instance, dg.RunsFilter(tags=tags, statuses=_FINISHED, updated_before=before))


def _holds_latest(instance: dg.DagsterInstance, run_id: str, day: str) -> bool:
    """Whether a run holds the latest materialization of some asset of a day."""
    for log in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = log.asset_materialization
        latest = latest_materialization(instance, event.asset_key, day) if event else None
        if latest and latest.run_id == run_id:
            return True
    return False

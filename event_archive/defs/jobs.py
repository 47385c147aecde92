"""The jobs: the nightly one of the three assets of one day, and the restore.

Not here: when they run (``schedules``, ``sensors``), the jobs of upkeep.
"""

from collections.abc import Sequence

import dagster as dg

from event_archive.config.environment import PipelineSettings
from event_archive.defs.assets import POOL
from event_archive.defs.executor import one_process
from event_archive.defs.failures import dagster_failures
from event_archive.defs.internals import UnresolvedAssetJobDefinition
from event_archive.defs.resources import LakeResource, PostgresResource
from event_archive.domain.dataset import Dataset
from event_archive.domain.days import parse_day
from event_archive.domain.wording import counted
from event_archive.errors import ConfigurationError, EventArchiveError, RefusedError, UnreachableError
from event_archive.operations.restore.day import days_with_file, restore_day
from event_archive.operations.restore.target import target_named
from event_archive.operations.site import Site

TABLE_TAG = "event_archive/table"
"""On every run of these jobs: which table's. Other pipelines of the same Dagster have partitions of the same names."""
DATASET_TAG = "event_archive/dataset"
"""On every run of the jobs of one of several datasets: which. Tables of two databases may have one name."""

_MOST_TOLD = 5
"""Failures that the error of a restore repeats: of a year, each day may fail."""


def tags_of(dataset: Dataset) -> dict[str, str]:
    """What tells a dataset's runs from others."""
    return {TABLE_TAG: str(dataset.table)} | ({DATASET_TAG: dataset.name} if dataset.name else {})


def is_run_of(run: dg.DagsterRun, dataset: Dataset) -> bool:
    """Whether a run is one of a dataset's jobs; also from before it had a name, where its assets keep their keys."""
    names = {dataset.name} | (set() if dataset.asset_prefix else {""})
    return run.tags.get(TABLE_TAG) == str(dataset.table) and run.tags.get(DATASET_TAG, "") in names


def named(what: str, dataset: Dataset) -> str:
    """The name of a dataset's job or schedule: the dataset's own name at its end, where it has one."""
    return f"{what}_{dataset.name}" if dataset.name else what


def build_archive_job(
    dataset: Dataset, assets: list[dg.AssetsDefinition], checks: Sequence[dg.AssetChecksDefinition]
) -> UnresolvedAssetJobDefinition:
    """``archive_job``, or ``archive_job_NAME``: one run a day, with the checks given."""
    return dg.define_asset_job(
        named("archive_job", dataset),
        selection=dg.AssetSelection.assets(*assets).without_checks() | dg.AssetSelection.checks(*checks),
        executor_def=one_process,
        description="Archives one aged day, reads it back and purges it.",
        tags=tags_of(dataset),
    )


class RestoreConfig(dg.Config):
    """Run configuration of ``restore_job``."""

    first_day: str = ""
    """YYYY-MM-DD."""
    last_day: str = ""
    """YYYY-MM-DD; the first day alone where it is empty."""
    table: str = ""
    """The table to fill; the source's name with ``_restored`` where it is empty."""
    in_place: bool = False
    """Fill the source itself; the night purges the rows again unless the days are held."""


def build_restore_job(settings: PipelineSettings) -> dg.JobDefinition:
    """``restore_job``, or ``restore_job_NAME``: puts rows of days back into a table, configured in the launchpad."""
    dataset = settings.dataset

    @dg.op(
        name=named("restore_days", dataset),
        pool=POOL,
        description="Restores each day of a range that has a file, one transaction a day.",
    )
    def restore_days(
        context: dg.OpExecutionContext,
        config: RestoreConfig,
        event_archive_postgres: PostgresResource,
        event_archive_lake: LakeResource,
    ) -> None:
        with dagster_failures(context.log), event_archive_lake.open(settings) as opened:
            if not config.first_day:
                raise ConfigurationError(f"{dataset.label}: restore_days needs first_day, like 2024-03-01.")
            first = parse_day(config.first_day)
            last = parse_day(config.last_day) if config.last_day else first
            target = target_named(dataset, config.table or None, in_place=config.in_place)
            days = days_with_file(dataset, opened, first, last)
            site = Site(dataset, event_archive_postgres.primary(settings), opened)
            if without := (last - first).days + 1 - len(days):
                have = "has" if without == 1 else "have"
                context.log.info("%s between %s and %s %s no file", counted(without, "day", "days"), first, last, have)
            failures, left = list[EventArchiveError](), len(days)
            for day in days:
                left -= 1
                try:
                    done = restore_day(site, day, target)
                except EventArchiveError as error:
                    # As on the command line, the other days have their turn, where services answer.
                    context.log.warning("%s: not restored: %s", day, error)
                    failures.append(error)
                    if isinstance(error, UnreachableError):
                        break
                    continue
                context.log.info(
                    "%s: %s restored into %s, %d stood there already, %d superseded",
                    day,
                    counted(done.restored, "row", "rows"),
                    done.target,
                    done.skipped,
                    done.superseded,
                )
                for statement in done.setval:
                    context.log.warning("%s: let the owner of the sequence run: %s", day, statement)
            if failures:
                raise _of_days(failures, len(days), left)

    @dg.job(
        name=named("restore_job", dataset),
        executor_def=one_process,
        description="Puts rows back from the files of days.",
        tags=tags_of(dataset),
    )
    def restore_job() -> None:
        restore_days()

    return restore_job


def _of_days(failures: Sequence[EventArchiveError], days: int, left: int) -> EventArchiveError:
    """The error of a restore of so many days, of which so many were not tried."""
    if days == 1:
        return failures[0]
    failed = f"{len(failures)} of {days} days failed"
    if left:
        failed += f"; a service is out of reach, {counted(left, 'day was', 'days were')} not tried"
    told = " ".join(map(str, failures[:_MOST_TOLD]))
    more = f" And {len(failures) - _MOST_TOLD} more: see the log." if len(failures) > _MOST_TOLD else ""
    return RefusedError(f"{failed}: {told}{more}")

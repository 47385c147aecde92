"""The pipeline of one dataset: its assets, checks, jobs and schedule. Not here: what serves all datasets."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from event_archive.config.environment import PipelineSettings
from event_archive.defs.assets import build_assets
from event_archive.defs.checks import Checks, build_checks
from event_archive.defs.internals import UnresolvedAssetJobDefinition
from event_archive.defs.jobs import build_archive_job, build_restore_job
from event_archive.defs.partitions import aged_days
from event_archive.defs.schedules import build_schedule
from event_archive.domain.dataset import Dataset


@dataclass(frozen=True, slots=True)
class DatasetPipeline:
    """What Dagster is to know of one dataset."""

    settings: PipelineSettings
    assets: list[dg.AssetsDefinition]
    of_checks: Checks
    job: UnresolvedAssetJobDefinition
    restore_job: dg.JobDefinition
    schedule: dg.ScheduleDefinition

    @property
    def dataset(self) -> Dataset:
        """What is archived."""
        return self.settings.dataset

    @property
    def checks(self) -> list[dg.AssetChecksDefinition]:
        """All checks of its assets."""
        return [self.of_checks.archive_is_whole, *self.of_checks.of_table]


def build_pipeline(
    settings: PipelineSettings,
    after: Sequence[PipelineSettings] = (),
    sources: Sequence[dg.AssetKey] = (),
    *,
    measured: bool = True,
) -> DatasetPipeline:
    """The pipeline of one dataset.

    Args:
        settings: of the dataset.
        after: the datasets whose days are purged first.
        sources: the assets that fill its table.
        measured: as for ``build_schedule``.

    Raises:
        ConfigurationError: Dagster cannot read the cron expression.
    """
    partitions = aged_days(settings.dataset)
    assets = build_assets(settings, partitions, after, sources)
    checks = build_checks(settings, partitions)
    nightly = [checks.archive_is_whole] if settings.verify_nightly else []
    job = build_archive_job(settings.dataset, assets, nightly)
    schedule = build_schedule(settings, job, after, measured=measured)
    return DatasetPipeline(settings, assets, checks, job, build_restore_job(settings), schedule)

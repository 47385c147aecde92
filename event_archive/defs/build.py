"""The seam: all of Dagster's definitions made of settings. Opens no connection, reads no secret, configures nothing.

Here: what belongs together. Not here: what any of it does.
"""

import dagster as dg

from event_archive.config.environment import PipelineSettings
from event_archive.defs.assets import build_assets
from event_archive.defs.checks import build_checks
from event_archive.defs.executor import one_process
from event_archive.defs.jobs import build_archive_job, build_restore_job
from event_archive.defs.partitions import aged_days
from event_archive.defs.resources import LakeResource, PostgresResource
from event_archive.defs.schedules import build_schedule
from event_archive.defs.sensors import build_sensors
from event_archive.defs.upkeep import build_upkeep


def build_definitions(settings: PipelineSettings) -> dg.Definitions:
    """All that Dagster is to know.

    Args:
        settings: what shapes the pipeline; what it connects to is read from the environment when a run needs it.

    Raises:
        ConfigurationError: Dagster cannot read ARCHIVE_CRON.
    """
    dataset = settings.dataset
    partitions = aged_days(dataset)
    assets = build_assets(dataset, partitions)
    checks = build_checks(dataset, partitions, alert_days=settings.backlog_alert_days)
    job = build_archive_job(dataset, assets, [checks.archive_is_whole] if settings.verify_nightly else [])
    most = settings.max_days_per_run
    return dg.Definitions(
        assets=assets,
        asset_checks=[checks.archive_is_whole, *checks.of_table],
        jobs=[job, build_restore_job(dataset)],
        schedules=[
            build_schedule(
                dataset, job, [asset.key for asset in assets], max_days_per_run=most, cron=settings.archive_cron
            ),
            *build_upkeep(dataset, checks.of_table),
        ],
        sensors=build_sensors(dataset, job, assets, max_days_per_run=most),
        resources={"postgres": PostgresResource(), "lake": LakeResource()},
        # For runs launched from the asset pages, too: a process per step costs more than the container has.
        executor=one_process,
    )

"""The seam: all of Dagster's definitions made of settings. Opens no connection, reads no secret, configures nothing.

Here: what belongs together. Not here: what any of it does.
"""

import dagster as dg

from event_archive.config.datasets import earlier
from event_archive.config.environment import PipelineSettings
from event_archive.defs.executor import one_process
from event_archive.defs.pipeline import build_pipeline
from event_archive.defs.resources import RESOURCES
from event_archive.defs.sensors import build_sensors
from event_archive.defs.upkeep import build_upkeep


def build_definitions(*datasets: PipelineSettings) -> dg.Definitions:
    """All that Dagster is to know.

    Args:
        datasets: what shapes the pipeline of each; what it connects to is read from the environment when a run needs
            it.

    Raises:
        ConfigurationError: Dagster cannot read a cron expression.
    """
    pipelines = [build_pipeline(settings, earlier(datasets, settings)) for settings in datasets]
    return dg.Definitions(
        assets=[asset for pipeline in pipelines for asset in pipeline.assets],
        asset_checks=[check for pipeline in pipelines for check in pipeline.checks],
        jobs=[job for pipeline in pipelines for job in (pipeline.job, pipeline.restore_job)],
        schedules=[*(pipeline.schedule for pipeline in pipelines), *build_upkeep(pipelines)],
        sensors=build_sensors(pipelines),
        resources=RESOURCES,
        # For runs launched from the asset pages, too: a process per step costs more than the container has.
        executor=one_process,
    )

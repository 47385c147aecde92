"""The seam: all of Dagster's definitions made of settings. Opens no connection, reads no secret, configures nothing.

Here: what belongs together. Not here: what any of it does.
"""

import dagster as dg

from event_archive.config.datasets import earlier
from event_archive.config.environment import PipelineSettings
from event_archive.config.sources import ApiShape, LogsShape, StreamShape
from event_archive.defs.executor import one_process
from event_archive.defs.measuring import build_measuring
from event_archive.defs.pipeline import build_pipeline
from event_archive.defs.resources import RESOURCES
from event_archive.defs.sensors import build_sensors
from event_archive.defs.sources.http_api import build_api
from event_archive.defs.sources.log_files import build_logs
from event_archive.defs.sources.redis_stream import build_stream
from event_archive.defs.upkeep import build_upkeep


def build_definitions(
    *datasets: PipelineSettings,
    api: ApiShape | None = None,
    logs: LogsShape | None = None,
    stream: StreamShape | None = None,
) -> dg.Definitions:
    """All that Dagster is to know.

    Args:
        datasets: what shapes the pipeline of each; what it connects to is read from the environment when a run needs
            it.
        api: what shapes the ingestion of an HTTP API, where API_BASE_URL names one.
        logs: what shapes the ingestion of log files, where LOGS_URL says where they are.
        stream: which Redis stream fills a table, where REDIS_URL says where it is.

    Raises:
        ConfigurationError: Dagster cannot read a cron expression.
    """
    sources = []
    if api and api.api_base_url:
        sources.append(build_api(api, datasets))
    if logs and logs.logs_url:
        sources.append(build_logs(logs, datasets))
    streams = [build_stream(stream, datasets)] if stream and stream.redis_url else []
    filling = [*((of.source.key, of.datasets) for of in sources), *((of.asset.key, of.datasets) for of in streams)]
    pipelines = [
        build_pipeline(settings, earlier(datasets, settings), [key for key, filled in filling if settings in filled])
        for settings in datasets
    ]
    return dg.Definitions(
        assets=[
            *(of.asset for of in sources),
            *(of.asset for of in streams),
            *(asset for pipeline in pipelines for asset in pipeline.assets),
        ],
        asset_checks=[
            *(check for of in sources for check in of.checks),
            *(check for of in streams for check in of.checks),
            *(check for of in pipelines for check in of.checks),
        ],
        jobs=[*(of.job for of in sources), *(job for of in pipelines for job in (of.job, of.restore_job))],
        schedules=[
            *(of.schedule for of in sources),
            *(pipeline.schedule for pipeline in pipelines),
            *build_upkeep(pipelines, sources),
        ],
        sensors=[*build_sensors(pipelines), build_measuring(datasets), *(of.sensor for of in streams)],
        resources=RESOURCES,
        # For runs launched from the asset pages, too: a process per step costs more than the container has.
        executor=one_process,
    )

"""What Dagster itself takes: three empty partitioned assets, run day by day as ``event-archive run`` runs its own.

``python -m … FIRST DAYS``.
"""

import sys
from datetime import date, timedelta

import dagster as dg

from event_archive.defs.records import instance_of_environment

_POOL = "postgres"
_RETRY = dg.RetryPolicy(max_retries=2, delay=15, backoff=dg.Backoff.EXPONENTIAL)
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def main(first: str, days: str) -> None:
    """Materializes them for each day."""
    partitions = dg.DailyPartitionsDefinition("2015-01-01", timezone="UTC", end_offset=-365)

    @dg.asset(partitions_def=partitions, pool=_POOL, retry_policy=_RETRY)
    def one(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"day": context.partition_key})

    @dg.asset(partitions_def=partitions, pool=_POOL, retry_policy=_RETRY, deps=[one])
    def two(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"day": context.partition_key})

    @dg.asset(partitions_def=partitions, pool=_POOL, retry_policy=_RETRY, deps=[two])
    def three(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"day": context.partition_key})

    assets = [one, two, three]
    unresolved = dg.define_asset_job("empty", selection=assets, executor_def=dg.in_process_executor)
    job = dg.Definitions(assets=assets, jobs=[unresolved]).resolve_job_def("empty")
    with instance_of_environment() as instance:
        for number in range(int(days)):
            day = date.fromisoformat(first) + timedelta(days=number)
            result = job.execute_in_process(run_config=_QUIET, instance=instance, partition_key=day.isoformat())
            assert len(result.get_asset_materialization_events()) == 3


if __name__ == "__main__":
    main(*sys.argv[1:])

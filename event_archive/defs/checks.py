"""Asset checks: for people to see. Not here: the gate of the purge, which is no check (see docs/decisions/)."""

import warnings

import dagster as dg
from dagster_shared.utils.warnings import PreviewWarning

from event_archive.dataset import Dataset
from event_archive.days import parse_day
from event_archive.defs.assets import POOL, failures_told
from event_archive.defs.gate import ARCHIVE_CSV
from event_archive.defs.resources import LakeResource, PostgresResource
from event_archive.table import reflect
from event_archive.verify import verify_day


def build_checks(dataset: Dataset, partitions: dg.PartitionsDefinition[str]) -> list[dg.AssetChecksDefinition]:
    """The checks of one dataset's assets."""
    # Partitions of checks are a preview in Dagster 1.13; without them a check would not know its day.
    with warnings.catch_warnings(action="ignore", category=PreviewWarning):

        @dg.asset_check(
            asset=ARCHIVE_CSV,
            partitions_def=partitions,
            pool=POOL,
            description="The day's file reads back as its manifest says: bytes, SHA-256, rows, header, days, JSON.",
        )
        def archive_is_whole(
            context: dg.AssetCheckExecutionContext, postgres: PostgresResource, lake: LakeResource
        ) -> dg.AssetCheckResult:
            day = parse_day(context.partition_key)
            with failures_told(), lake.open() as opened:
                if opened.stat(dataset.path(day)) is None:
                    return dg.AssetCheckResult(passed=True, description="The day has no file.")
                with postgres.primary().transaction(str(dataset.table)) as connection:
                    table = reflect(connection, dataset)
                found = verify_day(dataset, day, table=table, lake=opened)
            return dg.AssetCheckResult(
                passed=not found.problems,
                description="; ".join(found.problems) or "good",
                metadata={"rows": found.rows, "bytes": found.bytes, "seconds": found.seconds},
            )

    return [archive_is_whole]

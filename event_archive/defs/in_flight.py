"""What Dagster has in hand at this moment, days above all, so that schedules launch none of it twice.

Here: runs that wait, or began a short time ago. Not here: how runs ended (``last_runs``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from event_archive.defs.gate import asset_keys
from event_archive.defs.internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from event_archive.defs.jobs import is_run_of
from event_archive.domain.dataset import Dataset

_IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_STALE = timedelta(hours=6)
"""As ``max_runtime_seconds`` in dagster.yaml. A run that waits in the queue will come, however long it has waited."""


@dataclass(frozen=True, slots=True)
class DaysInFlight:
    """Days, and ranges of days both ends included, that some run is about; ``YYYY-MM-DD``."""

    days: set[str]
    ranges: list[tuple[str, str]]

    def __contains__(self, day: str) -> bool:
        return day in self.days or any(first <= day <= last for first, last in self.ranges)


def days_in_flight(instance: dg.DagsterInstance, dataset: Dataset, now: datetime) -> DaysInFlight:
    """Days of runs that are queued, or began in the last six hours.

    Args:
        instance: Dagster's records.
        dataset: whose job's runs count, and those that select one of its assets, as backfills from the UI do.
        now: decides what is stale; aware.
    """
    days, ranges = set[str](), list[tuple[str, str]]()
    for run in runs_in_flight(instance, now):
        if not is_about(run, dataset):
            continue
        if day := run.tags.get(PARTITION_NAME_TAG):
            days.add(day)
        elif ASSET_PARTITION_RANGE_START_TAG in run.tags and ASSET_PARTITION_RANGE_END_TAG in run.tags:
            ranges.append((run.tags[ASSET_PARTITION_RANGE_START_TAG], run.tags[ASSET_PARTITION_RANGE_END_TAG]))
    return DaysInFlight(days, ranges)


def is_about(run: dg.DagsterRun, dataset: Dataset) -> bool:
    """Whether a run is one of a dataset's jobs, or selects one of its assets, as those of the asset pages do."""
    return is_run_of(run, dataset) or bool((run.asset_selection or frozenset()) & set(asset_keys(dataset)))


def is_of_days(run: dg.DagsterRun) -> bool:
    """Whether a run is of a day, or of a range of days, and not of a table as a whole."""
    return PARTITION_NAME_TAG in run.tags or ASSET_PARTITION_RANGE_START_TAG in run.tags


def runs_in_flight(instance: dg.DagsterInstance, now: datetime) -> Iterator[dg.DagsterRun]:
    """All runs that are queued, or began in the last six hours.

    Args:
        instance: Dagster's records.
        now: decides what is stale; aware.
    """
    for record in instance.get_run_records(dg.RunsFilter(statuses=_IN_FLIGHT)):
        run = record.dagster_run
        since = record.start_time if record.start_time is not None else record.create_timestamp.timestamp()
        if run.status == dg.DagsterRunStatus.QUEUED or now.timestamp() - since <= _STALE.total_seconds():
            yield run

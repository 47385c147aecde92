"""How each day was last tried: by the archive job, and by whatever there is. Not here: what follows from it."""

from collections.abc import Collection, Iterator
from datetime import UTC, date

import dagster as dg

from event_archive.defs.in_flight import is_about
from event_archive.defs.internals import PARTITION_NAME_TAG, RETRY_NUMBER_TAG, TagBucket
from event_archive.defs.jobs import named, tags_of
from event_archive.domain.dataset import Dataset
from event_archive.domain.days import parse_day
from event_archive.nightly.plan import Attempt

TICK_TAG = "event_archive/tick"
"""On every run that the schedule launched: the tick's time. Also on those that execute such a run again."""
_OF_ONE_DAY = 200
"""Runs that are looked through: other pipelines of the same Dagster have days of the same names."""
_PAGE = 50


def last_runs(instance: dg.DagsterInstance, dataset: Dataset, days: Collection[date]) -> list[dg.RunRecord]:
    """The latest run of the archive job for each of some days that ever had one."""
    if not days:
        return []
    return list(
        instance.get_run_records(
            # By the job, too: one with a name, whose table is called as that of one without, has these tags as well.
            dg.RunsFilter(job_name=named("archive_job", dataset), tags=tags_of(dataset)),
            bucket_by=TagBucket(PARTITION_NAME_TAG, [day.isoformat() for day in days], bucket_limit=1),
        )
    )


def last_run(instance: dg.DagsterInstance, dataset: Dataset, day: date) -> dg.DagsterRun | None:
    """The latest run of a day, whether of the archive job or from the asset pages; None where there is none."""
    records = instance.get_run_records(dg.RunsFilter(tags={PARTITION_NAME_TAG: day.isoformat()}), limit=_OF_ONE_DAY)
    return next((of.dagster_run for of in records if is_about(of.dagster_run, dataset)), None)


def runs_of(instance: dg.DagsterInstance, wanted: dg.RunsFilter) -> Iterator[dg.DagsterRun]:
    """All runs of a kind, the newest first, read as they are asked for."""
    cursor = None
    while records := instance.get_run_records(wanted, limit=_PAGE, cursor=cursor):
        cursor = records[-1].dagster_run.run_id
        yield from (record.dagster_run for record in records)


def runs_of_tick(instance: dg.DagsterInstance, dataset: Dataset, tick: str) -> tuple[int, list[date]]:
    """What a tick of the schedule has done already: how many runs it launched, and the days of those it only created.

    Asked for again, such a run is launched: Dagster finds it by its key.
    """
    wanted = dg.RunsFilter(job_name=named("archive_job", dataset), tags=tags_of(dataset) | {TICK_TAG: tick})
    runs = [run for run in runs_of(instance, wanted) if run.parent_run_id is None]
    begun = [run for run in runs if run.status == dg.DagsterRunStatus.NOT_STARTED]
    return len(runs) - len(begun), sorted(parse_day(run.tags[PARTITION_NAME_TAG]) for run in begun)


def last_attempts(instance: dg.DagsterInstance, dataset: Dataset, days: Collection[date]) -> dict[date, Attempt]:
    """How each of some days was last tried; days that never were are left out.

    Every run is a try, and failed unless it succeeded: one that was stopped or cancelled failed; one that did nothing
    because the day is held, or that was dry, did not. The command line counts otherwise (``nightly.attempts``).
    """
    return {
        parse_day(record.dagster_run.tags[PARTITION_NAME_TAG]): Attempt(
            at=(None if is_by_hand(record.dagster_run) else record.dagster_run.tags.get(TICK_TAG))
            or record.create_timestamp.astimezone(UTC).isoformat(timespec="seconds"),
            failed=not record.dagster_run.is_success,
        )
        for record in last_runs(instance, dataset, days)
    }


def is_by_hand(run: dg.DagsterRun) -> bool:
    """Whether somebody executes a run again: it has that one's tags, and is none of that one's tick."""
    return run.parent_run_id is not None and RETRY_NUMBER_TAG not in run.tags

"""Runs of the job in this process, for the command line: the same assets, and the same records with DAGSTER_HOME."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import dagster as dg

from event_archive.defs.failures import INTERRUPTED, first_failure
from event_archive.display import DayRun
from event_archive.errors import UnreachableError

# Dagster's own log goes to its event log; the console is ours.
_QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}


@contextmanager
def instance_of_environment() -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of DAGSTER_HOME, or one that is forgotten afterwards."""
    make = dg.DagsterInstance.get if os.environ.get("DAGSTER_HOME") else dg.DagsterInstance.ephemeral
    with make() as instance:
        yield instance


def run_day(job: dg.JobDefinition, day: date, instance: dg.DagsterInstance, *, dry_run: bool) -> DayRun:
    """Runs the job for one day and says how it went. Raises nothing of what the assets raise.

    Raises:
        KeyboardInterrupt: the process was told to stop.
    """
    started = time.monotonic()
    config: dict[str, Any] = {"loggers": _QUIET}
    if dry_run:
        config["ops"] = {"purged_events": {"config": {"dry_run": True}}}
    result = job.execute_in_process(
        run_config=config, instance=instance, partition_key=day.isoformat(), raise_on_error=False
    )
    seconds = time.monotonic() - started
    if not result.success:
        error, kind = first_failure(result.all_events)
        if kind == INTERRUPTED:
            raise KeyboardInterrupt
        return DayRun(day, seconds, error=error, unreachable=kind == UnreachableError.__name__)
    found: dict[str, Any] = {}
    for event in result.get_asset_materialization_events():
        found |= {name: value.value for name, value in event.materialization.metadata.items() if name != "seconds"}
    return DayRun(
        day,
        seconds,
        rows=found["dagster/row_count"],
        rows_appended=found["rows_appended"],
        bytes=found["bytes"],
        deleted=found["deleted"],
        proven=found["proven"],
        left=found["left"],
        outcome=found["outcome"],
        reason=found["reason"],
    )

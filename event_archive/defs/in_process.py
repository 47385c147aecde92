"""Runs of the job in this process, for the command line: the same assets, and the same records with DAGSTER_HOME."""

import logging
import time
from datetime import date
from typing import Any

import dagster as dg

from event_archive.defs.failures import INTERRUPTED, first_failure
from event_archive.defs.records import instance_of_environment as instance_of_environment
from event_archive.errors import LockedError, UnreachableError
from event_archive.nightly.outcome import DayOutcome

logger = logging.getLogger(__name__)

# Dagster's own log goes to its event log; the console is ours.
_QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}


def run_day(job: dg.JobDefinition, day: date, instance: dg.DagsterInstance, *, dry_run: bool) -> DayOutcome:
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
    found: dict[str, Any] = {}
    for event in result.get_asset_materialization_events():
        found |= {name: value.value for name, value in event.materialization.metadata.items() if name != "seconds"}
    # Of a day that failed: what was done before that.
    done = {name: found.get(name, 0) for name in ("rows_appended", "bytes", "deleted", "proven", "left")}
    if not result.success:
        error, kind = first_failure(result.all_events)
        if kind == INTERRUPTED:
            raise KeyboardInterrupt
        if kind == LockedError.__name__:
            locked = DayOutcome(day, seconds, outcome="locked")
            logger.info("day %s: locked", day, extra=locked.line)
            return locked
        rows = found.get("dagster/row_count", 0) if "rows_appended" in found else 0
        unreachable = kind == UnreachableError.__name__
        return DayOutcome(day, seconds, rows=rows, **done, error=error, unreachable=unreachable)
    return DayOutcome(
        day,
        seconds,
        rows=found["dagster/row_count"],
        **done,
        outcome=found["outcome"],
        reason=found["reason"],
    )

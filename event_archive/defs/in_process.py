"""Runs of the job in this process, for the command line: the same assets, and the same records with DAGSTER_HOME."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from yaml import YAMLError

from event_archive.defs.failures import INTERRUPTED, first_failure
from event_archive.errors import ConfigurationError, LockedError, RefusedError, UnreachableError
from event_archive.nightly.outcome import DayOutcome

logger = logging.getLogger(__name__)

# Dagster's own log goes to its event log; the console is ours.
_QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}


@contextmanager
def instance_of_environment() -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of DAGSTER_HOME, or one that is forgotten afterwards.

    Raises:
        ConfigurationError: DAGSTER_HOME is no folder.
        RefusedError: the records cannot be opened.
    """
    home = os.environ.get("DAGSTER_HOME")
    if home and not (Path(home).is_absolute() and Path(home).is_dir()):
        raise ConfigurationError(
            f"DAGSTER_HOME holds {home!r}, which is not the absolute path of a folder. Create it, with a dagster.yaml "
            "in it, or unset the variable: then runs of the command line leave no records in Dagster."
        )
    try:
        instance = dg.DagsterInstance.get() if home else dg.DagsterInstance.ephemeral()
    except records_errors() as error:
        raise out_of_reach(error) from None
    with instance:
        yield instance


def records_errors() -> tuple[type[Exception], ...]:
    """What opening Dagster's records, or reading them, may raise."""
    # Late: half a second, which nobody needs whose records lie elsewhere, or are in order.
    from dagster_postgres.utils import DagsterPostgresException

    return (dg.DagsterError, DagsterPostgresException, SQLAlchemyError, YAMLError, ImportError, OSError)


def out_of_reach(error: BaseException) -> RefusedError:
    """What to tell of one of ``records_errors()``."""
    return RefusedError(
        f"Dagster's own records are out of reach: {words(error)}. See to DAGSTER_HOME, the dagster.yaml in it, and "
        "the DAGSTER_PG_ variables."
    )


def words(error: BaseException) -> str:
    """What a failure says, where it cannot hold a secret: of a database's only libpq's own words."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError):
            return " ".join(str(cause.orig).split())
        cause = cause.__cause__ or cause.__context__
    # The first would repeat what stands in dagster.yaml, a password perhaps.
    if isinstance(error, dg.DagsterInvalidConfigError | YAMLError | SQLAlchemyError):
        return type(error).__name__
    return " ".join(str(error).split()).rstrip(".")


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

"""What the doctor looks at in Dagster: definitions, instance, schedule, daemon. Changes nothing there."""

import os
import time
from collections.abc import Callable, Iterator

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorStatus, InstigatorType
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from yaml import YAMLError

from event_archive.defs.in_process import instance_of_environment
from event_archive.doctor.findings import Finding, Patient, Topic
from event_archive.errors import RefusedError

DEFINITIONS = ("dagster_definitions",)
INSTANCE = ("dagster_instance", "dagster_schedule", "dagster_daemon")

SCHEDULE = "archive_daily"
LONGEST_SILENCE_SECONDS = 5 * 60
"""Of the daemon, which says every 30 seconds that it lives."""

_CONNECT_TIMEOUT_SECONDS = 5


def topics(load: Callable[[], dg.Definitions]) -> tuple[Topic, ...]:
    """The checks of Dagster.

    Args:
        load: the definitions, as Dagster loads them.
    """

    def definitions(_: Patient) -> Iterator[Finding]:
        try:
            dg.Definitions.validate_loadable(load())
        except dg.DagsterError as error:
            raise RefusedError(f"Dagster cannot load the definitions: {_words(error)}.") from None
        yield Finding("dagster_definitions", "good", "they load")

    return Topic(DEFINITIONS, "settings", definitions), Topic(INSTANCE, None, instance)


def instance(_: Patient) -> Iterator[Finding]:
    """The instance of DAGSTER_HOME, if there is one."""
    # libpq's own variable: nothing else bounds how long Dagster's storage waits for a dead host.
    os.environ.setdefault("PGCONNECT_TIMEOUT", str(_CONNECT_TIMEOUT_SECONDS))
    try:
        with instance_of_environment() as found:
            if found.is_ephemeral:
                yield Finding(
                    "dagster_instance", "good", "no DAGSTER_HOME: runs of the command line leave no records in Dagster"
                )
                for name in INSTANCE[1:]:
                    yield Finding(name, "skipped", "there is no DAGSTER_HOME")
                return
            storage = type(found.run_storage).__name__
            runs = found.get_runs_count()
            yield Finding("dagster_instance", "good", f"{runs:,} runs in {storage}")
            yield _schedule(found)
            yield _daemon(found)
    except (dg.DagsterError, DagsterPostgresException, SQLAlchemyError, YAMLError, ImportError, OSError) as error:
        raise RefusedError(
            f"Dagster's own records are out of reach: {_words(error)}. See to DAGSTER_HOME, the dagster.yaml in "
            "it, and the DAGSTER_PG_ variables."
        ) from None


def _words(error: BaseException) -> str:
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


def _schedule(found: dg.DagsterInstance) -> Finding:
    states = found.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
    statuses = {state.status for state in states if state.name == SCHEDULE}
    if statuses == {InstigatorStatus.STOPPED}:
        return Finding(
            "dagster_schedule",
            "warning",
            f"{SCHEDULE} was turned off: no night archives anything",
            f"Turn it on in the UI, or: dagster schedule start {SCHEDULE}",
        )
    return Finding("dagster_schedule", "good", f"{SCHEDULE} is on")


def _daemon(found: dg.DagsterInstance) -> Finding:
    wanted = found.get_required_daemon_types()
    heartbeats = found.get_daemon_heartbeats()
    ages = {kind: time.time() - heartbeats[kind].timestamp for kind in wanted if kind in heartbeats}
    silent = sorted(kind for kind in wanted if ages.get(kind, float("inf")) > LONGEST_SILENCE_SECONDS)
    if silent:
        return Finding(
            "dagster_daemon",
            "warning",
            f"not heard of in the last {LONGEST_SILENCE_SECONDS // 60} minutes: {', '.join(silent)}",
            "Start dagster-daemon run (dagster dev has it), unless event-archive run does the nights.",
        )
    return Finding("dagster_daemon", "good", f"heard of {max(ages.values(), default=0):.0f} s ago")

"""What the doctor looks at in Dagster: definitions, instance, schedule, daemon. Changes nothing there.

Not here: what the doctor looks at without Dagster (``doctor``).
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence

import dagster as dg

from event_archive.config.datasets import load_datasets
from event_archive.config.sources import ApiShape, LogsShape
from event_archive.defs.bounded import in_time
from event_archive.defs.internals import InstigatorState, InstigatorStatus, InstigatorType
from event_archive.defs.jobs import named
from event_archive.defs.records import instance_of_environment, out_of_reach, records_errors, words
from event_archive.defs.sources.http_api import API
from event_archive.defs.sources.log_files import LOGS
from event_archive.defs.sources.source import SourceNames
from event_archive.doctor.findings import Finding, Patient, Topic
from event_archive.domain.wording import counted
from event_archive.errors import ConfigurationError, RefusedError

DEFINITIONS = ("dagster_definitions",)
INSTANCE = ("dagster_instance", "dagster_schedule", "dagster_daemon")

SCHEDULE = "archive_daily"
"""The schedule's name, or how the names of several datasets' schedules begin."""
LONGEST_SILENCE_SECONDS = 5 * 60
"""Of the daemon, which says every 30 seconds that it lives."""

_ALERTING = ("failed_runs", "failed_days")
"""The sensors that tell of failures."""
_SCHEDULER = "SCHEDULER"
"""The part of the daemon that looks at schedules, as its heartbeats name it."""
_CONNECT_TIMEOUT_SECONDS, _ANSWER_SECONDS = 5, 60

Definitions = dg.Definitions
"""For the caller, which does not import Dagster."""


def topics(load: Callable[[], Definitions]) -> tuple[Topic, ...]:
    """The checks of Dagster.

    Args:
        load: the definitions, as Dagster loads them.
    """

    def definitions(_: Patient) -> Iterator[Finding]:
        try:
            dg.Definitions.validate_loadable(load())
        except dg.DagsterError as error:
            raise RefusedError(f"Dagster cannot load the definitions: {words(error)}.") from None
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
            yield from in_time(lambda: _look(found), _ANSWER_SECONDS, "doctor")
    except records_errors() as error:
        raise out_of_reach(error) from None


def _look(found: dg.DagsterInstance) -> list[Finding]:
    storage = type(found.run_storage).__name__
    # The log of events, in which a night looks, is read, too.
    found.get_latest_materialization_event(API.key)
    runs = Finding("dagster_instance", "good", f"{counted(found.get_runs_count(), 'run', 'runs')} in {storage}")
    return [runs, _schedule(found), _daemon(found)]


def _schedule(found: dg.DagsterInstance) -> Finding:
    states = found.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
    stopped = _stopped(states)
    ours = {state.name for state in states if state.name == SCHEDULE or state.name.startswith(f"{SCHEDULE}_")}
    # One that was never turned on or off has no state, and is on; a former one may have one still.
    nights, sources = _names() or sorted(ours) or [SCHEDULE], _sources()
    words, remedies = [], []
    if off := [name for name in nights if name in stopped]:
        what = "anything" if len(off) == len(nights) else "its days" if len(off) == 1 else "their days"
        words.append(f"{_are(off, 'turned off', 'was', 'were')}: no night archives {what}")
        remedies.append(f"Turn on in the UI, or, with the daemon's workspace: {_start('schedule', off)}")
    if idle := [source for source in sources if source.schedule_name in stopped]:
        names = [source.schedule_name for source in idle]
        words.append(f"{_are(names, 'turned off', 'was', 'were')}: no tick takes anything in")
        commands = " and ".join(f"event-archive ingest {source.name}" for source in idle)
        remedies.append(f"Unless {commands} runs elsewhere, turn on: {_start('schedule', names)}")
    # The daemon keeps the sensors of a location that is gone, not its schedules.
    locations = {_location(state) for state in states}
    sensors = found.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    quiet = _stopped([state for state in sensors if not locations or _location(state) in locations])
    if silent := [name for name in _ALERTING if name in quiet]:
        words.append(f"{_are(silent, 'turned off', 'was', 'were')}: nobody is told of what they look for")
        remedies.append(f"Turn on in the UI, or, with the daemon's workspace: {_start('sensor', silent)}")
    # The daemon writes one down of each schedule that it finds, and forgets those that are gone.
    on, there = [*nights, *(source.schedule_name for source in sources)], {state.name for state in states}
    absent = [name for name in on if name not in there]
    if absent and _SCHEDULER in found.get_daemon_heartbeats():
        words.append(f"{_are(absent, 'not in the workspace of the daemon', 'is', 'are')}: no tick comes")
        remedies.append("Under Deployment the UI says whether the code location loads, and why it does not.")
    if words:
        return Finding("dagster_schedule", "warning", "; ".join(words), "\n".join(remedies))
    return Finding("dagster_schedule", "good", _are(on, "on", "is", "are"))


def _start(kind: str, names: Sequence[str]) -> str:
    """The commands that turn schedules or sensors on, those of the workspace: another location may have the same."""
    return "; ".join(f"dagster {kind} start {name} -w workspace.yaml" for name in names)


def _location(state: InstigatorState) -> str:
    return state.origin.repository_origin.code_location_origin.location_name


def _stopped(states: Sequence[InstigatorState]) -> set[str]:
    """The names of those that are turned off, and nowhere on.

    Dagster keeps the states of a code location that is gone, or has another name now; and there may be several.
    """
    off = {state.name for state in states if state.status == InstigatorStatus.STOPPED}
    return off - {state.name for state in states if state.status != InstigatorStatus.STOPPED}


def _are(names: Sequence[str], what: str, one: str, many: str) -> str:
    return f"{', '.join(names)} {one if len(names) == 1 else many} {what}"


def _names() -> list[str]:
    """The names of the datasets' schedules; none where the settings do not tell."""
    try:
        return [named(SCHEDULE, of.dataset) for of in load_datasets()]
    except ConfigurationError:
        return []


def _sources() -> list[SourceNames]:
    """The sources that have a schedule; not one whose settings do not tell."""
    api, logs = ApiShape.attempt()[0], LogsShape.attempt()[0]
    addresses = ((API, api and api.api_base_url), (LOGS, logs and logs.logs_url))
    return [source for source, address in addresses if address]


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
            "Start dagster-daemon run -w workspace.yaml (dagster dev has it), unless event-archive run does the "
            "nights.",
        )
    return Finding("dagster_daemon", "good", f"heard of {max(ages.values(), default=0):.0f} s ago")

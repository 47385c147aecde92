"""Whether the environment variables are right and complete. Not here: whether what they name answers."""

from collections.abc import Callable, Iterator
from typing import Any

from event_archive.certificates import require_bundle
from event_archive.config import services
from event_archive.config.environment import InstanceSettings, misspelt
from event_archive.config.sources import SETTINGS_BY_SOURCE, SHAPES, ApiSettings, LogsSettings, StreamSettings
from event_archive.config.variables import value_of
from event_archive.doctor.findings import Finding, Patient
from event_archive.errors import ConfigurationError, printable

SETTINGS = ("settings",)
ALERTS = ("alerts",)
SOURCES = ("sources",)


def _begin_api(settings: ApiSettings) -> None:
    from event_archive.sources.http_api.connections import connections

    connections(settings.url, 1, settings.proxy.get_secret_value() if settings.proxy else None)


def _begin_logs(settings: LogsSettings) -> None:
    from event_archive.sources.log_files.mapping import load_mapping
    from event_archive.sources.log_files.places import open_store

    load_mapping(settings.logs_mapping)
    open_store(settings)


def _begin_stream(settings: StreamSettings) -> None:
    from event_archive.sources.redis_stream.address import pool

    pool(settings.redis_url.get_secret_value())


_BEGIN: dict[str, Callable[[Any], None]] = {"api": _begin_api, "logs": _begin_logs, "stream": _begin_stream}
"""Makes what each source needs before it asks anybody."""
_REMEDY = "docs/configuration.md has every variable."


def settings(patient: Patient) -> Iterator[Finding]:
    """A dataset's variables are read, those of Dagster's storage too; a client of the lake can be made."""
    problems = []
    try:
        patient.settings = patient.load()
        with services.lake(patient.settings):
            pass
    except ConfigurationError as error:
        problems.append(str(error))
    try:
        InstanceSettings.load()
    except ConfigurationError as error:
        problems.append(str(error))
    if problems:
        patient.problems = "\n".join(problems)
        yield Finding("settings", "bad", patient.problems, _REMEDY)
        return
    dataset = patient.settings.dataset
    remarks, remedies = [], []
    if patient.settings.dry_run:
        asked_by = f"DRY_RUN or {dataset.name}.dry_run" if dataset.name else "DRY_RUN"
        remarks.append(f"{asked_by} is set, so nothing is ever deleted")
        remedies.append(f"Unset {asked_by} when the trial is over.")
    for name, meant in misspelt():
        remarks.append(f"{name} is no variable of event_archive")
        remedies.append(f"Did you mean {meant}?")
    of = printable(f"{dataset.table} by {dataset.time_column}")
    found = f"{of}, older than {dataset.retention}, from {dataset.start} on"
    yield Finding("settings", "warning" if remarks else "good", "; ".join([found, *remarks]), " ".join(remedies))


def sources(patient: Patient) -> Iterator[Finding]:
    """The variables of the sources that there are; all datasets have these in common."""
    there = [name for name, kind in SETTINGS_BY_SOURCE.items() if value_of(kind.variable)]
    variables = ", ".join(SETTINGS_BY_SOURCE[name].variable for name in there or SETTINGS_BY_SOURCE)
    # What several of them read is told once.
    problems = dict.fromkeys(line for name in there for line in _problems(name))
    # Dagster reads the shapes of all.
    problems |= dict.fromkeys(line for shape in SHAPES for line in shape.attempt()[1])
    if own := [line for line in problems if line not in patient.problems]:
        yield Finding("sources", "bad", "\n".join(own), _REMEDY)
    elif problems:
        yield Finding("sources", "skipped", "not looked at, because of settings")
    elif there:
        yield Finding(
            "sources", "good", f"{variables}: the settings are well-formed; an ingestion shows whether they work"
        )
    else:
        yield Finding("sources", "good", f"none: {variables} are not set")


def _problems(source: str) -> tuple[str, ...]:
    """What a source has to complain of, before it has asked anybody."""
    found, problems = SETTINGS_BY_SOURCE[source].attempt()
    if found is None:
        return problems
    try:
        _BEGIN[source](found)
    except ConfigurationError as error:
        return (str(error),)
    return ()


def alerts(patient: Patient) -> Iterator[Finding]:
    """Whether anybody hears of failed runs."""
    if (url := patient.settings.alert_webhook_url) is not None:
        try:
            require_bundle(url.get_secret_value())
        except ConfigurationError as error:
            yield Finding("alerts", "warning", f"nobody is told of failed runs: {error}")
        else:
            yield Finding("alerts", "good", "ALERT_WEBHOOK_URL is set")
    else:
        yield Finding(
            "alerts", "warning", "nobody is told of failed runs", "Set ALERT_WEBHOOK_URL to announce them in a channel."
        )

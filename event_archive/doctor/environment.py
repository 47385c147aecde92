"""Whether the environment variables are right and complete. Not here: whether what they name answers."""

from collections.abc import Iterator

from event_archive.config import services
from event_archive.config.environment import InstanceSettings, misspelt
from event_archive.config.reading import EnvironmentSettings
from event_archive.config.sources import ApiSettings, LogsSettings, StreamSettings
from event_archive.config.variables import value_of
from event_archive.doctor.findings import Finding, Patient
from event_archive.errors import ConfigurationError

SETTINGS = ("settings",)
ALERTS = ("alerts",)
_SOURCES: dict[str, type[EnvironmentSettings]] = {
    "API_BASE_URL": ApiSettings,
    "LOGS_URL": LogsSettings,
    "REDIS_URL": StreamSettings,
}
"""What a source reads, and the variable that says that there is one."""


def settings(patient: Patient) -> Iterator[Finding]:
    """All variables are read, those of Dagster's storage and of the sources too; a client of the lake can be made."""
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
    for variable, kind in _SOURCES.items():
        lines = kind.attempt()[1] if value_of(variable) else ()
        # What several of them read is told once.
        problems += [line for line in lines if line not in "\n".join(problems)]
    if problems:
        yield Finding("settings", "bad", "\n".join(problems), "docs/configuration.md has every variable.")
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
    found = f"{dataset.table} by {dataset.time_column}, older than {dataset.retention}, from {dataset.start} on"
    yield Finding("settings", "warning" if remarks else "good", "; ".join([found, *remarks]), " ".join(remedies))


def alerts(patient: Patient) -> Iterator[Finding]:
    """Whether anybody hears of failed runs."""
    if patient.settings.alert_webhook_url is not None:
        yield Finding("alerts", "good", "ALERT_WEBHOOK_URL is set")
    else:
        yield Finding(
            "alerts", "warning", "nobody is told of failed runs", "Set ALERT_WEBHOOK_URL to announce them in a channel."
        )

"""Whether the environment variables are right and complete. Not here: whether what they name answers."""

from collections.abc import Iterator

from event_archive.config import services
from event_archive.config.environment import InstanceSettings, misspelt
from event_archive.doctor.findings import Finding, Patient
from event_archive.errors import ConfigurationError

SETTINGS = ("settings",)
ALERTS = ("alerts",)


def settings(patient: Patient) -> Iterator[Finding]:
    """All variables are read, those of Dagster's own storage too, and a client of the lake can be made of them."""
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

"""Every variable of the contract can be set where the pipeline is deployed: Helm values and CronJob alike."""

import re
from collections.abc import Callable

import pytest

from event_archive.config.environment import InstanceSettings, PipelineSettings, Settings
from event_archive_tests.deploy import chart
from event_archive_tests.deploy.manifests import MANIFESTS, documents, manifest, pod_of, with_optional_variables

FIELDS = {**Settings.model_fields, **InstanceSettings.model_fields}
SECRETS = {name.upper() for name, field in FIELDS.items() if "Secret" in repr(field.annotation)}
OF_THE_PIPELINE = {name.upper() for name in Settings.model_fields}
OF_THE_INSTANCE = {name.upper() for name in InstanceSettings.model_fields}
IN_THE_CHART = {
    "DAGSTER_PG_HOST": "postgresqlHost",
    "DAGSTER_PG_PORT": "service",
    "DAGSTER_PG_DB": "postgresqlDatabase",
    "DAGSTER_PG_USERNAME": "postgresqlUsername",
    "DAGSTER_LOGS_ACCOUNT": "storageAccount",
    "DAGSTER_LOGS_CONTAINER": "container",
}
LAKES = ("AZURE_STORAGE_ACCOUNT_URL", "ARCHIVE_LOCAL_PATH")


def of_the_values() -> dict[str, str]:
    (deployment,) = chart.values_of()["dagster-user-deployments"]["deployments"]
    return named(deployment["env"])


def of_the_cronjob() -> dict[str, str]:
    (container,) = pod_of(manifest("cronjob.yaml", "CronJob"))["containers"]
    return named(container["env"])


def named(env: list[dict[str, str]]) -> dict[str, str]:
    assert len({variable["name"] for variable in env}) == len(env)
    return {variable["name"]: variable["value"] for variable in env}


def told_above(key: str, text: str) -> set[str]:
    """The variables that the comment above the one line with this key names."""
    text = with_optional_variables(text)
    (comment,) = re.findall(rf"((?:^ *#.*\n)+) *{key}:", text, re.MULTILINE)
    return set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", comment))


def test_the_helm_values_know_every_variable():
    assert of_the_values().keys() == OF_THE_PIPELINE - SECRETS
    text = chart.VALUES.read_text()
    assert told_above("envSecrets", text.split("\nrunLauncher:")[0]) == OF_THE_PIPELINE & SECRETS
    assert told_above("postgresql", text) | told_above("computeLogManager", text) == OF_THE_INSTANCE
    assert IN_THE_CHART.keys() == OF_THE_INSTANCE - SECRETS
    (logs,) = chart.values_of()["computeLogManager"]["config"].values()
    assert set(IN_THE_CHART.values()) <= chart.values_of()["postgresql"].keys() | logs.keys()


def test_the_cronjob_knows_every_variable():
    assert of_the_cronjob().keys() == (OF_THE_PIPELINE | OF_THE_INSTANCE) - SECRETS | {"DAGSTER_HOME"}
    assert told_above("envFrom", (MANIFESTS / "cronjob.yaml").read_text()) == SECRETS


def test_the_secret_knows_every_secret():
    (secret,) = [
        document
        for document in documents((MANIFESTS / "secrets.yaml.example").read_text())
        if document["metadata"]["name"] == "event-archive"
    ]
    assert secret["stringData"].keys() == SECRETS


@pytest.mark.parametrize("read", [of_the_values, of_the_cronjob])
@pytest.mark.parametrize("lake", LAKES)
def test_what_is_set_and_what_may_be_is_accepted(
    read: Callable[[], dict[str, str]], lake: str, monkeypatch: pytest.MonkeyPatch
):
    given = read()
    for name in OF_THE_PIPELINE | OF_THE_INSTANCE:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        if name == lake or name not in LAKES:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("PG_CONNECTION_STRING", "postgresql://archiver@127.0.0.1/events")
    settings = Settings.load()
    InstanceSettings.load()
    defaults = PipelineSettings()
    assert settings.dataset == defaults.dataset
    assert settings.max_days_per_run == defaults.max_days_per_run
    assert settings.dry_run == defaults.dry_run

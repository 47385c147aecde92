"""Every variable of the contract can be set where the pipeline is deployed: Helm values and CronJob alike."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from event_archive.config.datasets import archiving, load_datasets
from event_archive.config.environment import InstanceSettings, PipelineSettings, Settings, misspelt
from event_archive.config.sources import ApiSettings, LandingSettings, LogsSettings, StreamSettings
from event_archive_tests.deploy import chart
from event_archive_tests.deploy.manifests import (
    MANIFESTS,
    Document,
    documents,
    manifest,
    pod_of,
    with_optional_variables,
)

KINDS = (Settings, InstanceSettings, ApiSettings, LogsSettings, StreamSettings)
FIELDS = {name: field for kind in KINDS for name, field in kind.model_fields.items()}
SECRETS = {name.upper() for name, field in FIELDS.items() if "Secret" in repr(field.annotation)}
OF_THE_PIPELINE = {name.upper() for name in Settings.model_fields}
OF_THE_API = {name.upper() for name in ApiSettings.model_fields}
OF_THE_LOGS = {name.upper() for name in LogsSettings.model_fields}
OF_THE_STREAM = {name.upper() for name in StreamSettings.model_fields}
# Consumers are no pods of the chart: those read what the sensor needs that observes the table.
OF_THE_STREAM_IN_DAGSTER = {"REDIS_URL", "STREAM_KEY", "STREAM_GROUP", "STREAM_CLAIM_IDLE", "STREAM_TIMEZONE"}
OF_ANY_POD = OF_THE_PIPELINE | OF_THE_API | OF_THE_LOGS | OF_THE_STREAM_IN_DAGSTER
OF_THE_INSTANCE = {name.upper() for name in InstanceSettings.model_fields}
IN_THE_CHART = {
    "DAGSTER_PG_HOST": "postgresqlHost",
    "DAGSTER_PG_PORT": "service",
    "DAGSTER_PG_DB": "postgresqlDatabase",
    "DAGSTER_PG_USERNAME": "postgresqlUsername",
    "DAGSTER_LOGS_ACCOUNT": "storageAccount",
    "DAGSTER_LOGS_CONTAINER": "container",
}
BY_A_SECRET = {"PG_CONNECTION_STRING", "AZURE_STORAGE_CONNECTION_STRING"}
"""What cronjob.yaml has from the specification's two Secrets."""
LAKES = ("AZURE_STORAGE_ACCOUNT_URL", "ARCHIVE_LOCAL_PATH")
OF_DAGSTER = {"ARCHIVE_CRON", "MAX_DAYS_PER_RUN", "BACKLOG_ALERT_DAYS"}
"""What its schedule and its checks read, and the command line does not."""
OF_ONE_TABLE = {name for name in OF_THE_PIPELINE if name.startswith("EVENT_")}


def of_the_values() -> dict[str, str]:
    (deployment,) = chart.values_of()["dagster-user-deployments"]["deployments"]
    return named(deployment["env"])


def of_the_cronjob(name: str = "cronjob.yaml") -> dict[str, str]:
    (container,) = pod_of(manifest(name, "CronJob"))["containers"]
    return named(container["env"])


def of_the_api() -> dict[str, str]:
    return of_the_cronjob("cronjob-ingest-api.yaml")


def of_the_logs() -> dict[str, str]:
    return of_the_cronjob("cronjob-ingest-logs.yaml")


def named(env: list[dict[str, str]]) -> dict[str, str]:
    assert len({variable["name"] for variable in env}) == len(env)
    return {variable["name"]: variable["value"] for variable in env if "value" in variable}


def by_a_secret(name: str) -> set[str]:
    (container,) = pod_of(manifest(name, "CronJob"))["containers"]
    return {variable["name"] for variable in container["env"] if "valueFrom" in variable}


def told_above(key: str, text: str) -> set[str]:
    """The variables that the comment above the one line with this key names."""
    text = with_optional_variables(text)
    (comment,) = re.findall(rf"((?:^ *#.*\n)+) *{key}:", text, re.MULTILINE)
    return set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", comment))


def test_the_helm_values_know_every_variable():
    assert of_the_values().keys() == OF_ANY_POD - SECRETS
    text = chart.VALUES.read_text()
    assert told_above("envSecrets", text.split("\nrunLauncher:")[0]) == OF_ANY_POD & SECRETS
    assert told_above("postgresql", text) | told_above("computeLogManager", text) == OF_THE_INSTANCE
    assert IN_THE_CHART.keys() == OF_THE_INSTANCE - SECRETS
    (logs,) = chart.values_of()["computeLogManager"]["config"].values()
    assert set(IN_THE_CHART.values()) <= chart.values_of()["postgresql"].keys() | logs.keys()


def test_the_cronjob_knows_every_variable():
    assert of_the_cronjob().keys() == (OF_THE_PIPELINE - OF_DAGSTER | OF_THE_INSTANCE) - SECRETS | {"DAGSTER_HOME"}
    assert by_a_secret("cronjob.yaml") == BY_A_SECRET
    told = told_above("envFrom", (MANIFESTS / "cronjob.yaml").read_text())
    assert told == (OF_THE_PIPELINE | OF_THE_INSTANCE) & SECRETS - BY_A_SECRET


@pytest.mark.parametrize(("name", "of_the_source"), [("api", OF_THE_API), ("logs", OF_THE_LOGS)])
def test_an_ingestions_cronjob_knows_every_variable_of_its_source_and_of_the_retention(
    name: str, of_the_source: set[str]
):
    file = f"cronjob-ingest-{name}.yaml"
    retention = {"EVENT_TABLE", "EVENT_RETENTION_PERIOD", "ARCHIVE_START_DATE", "DATASETS_FILE"}
    assert of_the_cronjob(file).keys() == of_the_source - SECRETS - {f"{name.upper()}_CRON"} | retention
    secrets = of_the_source & SECRETS | {"ALERT_WEBHOOK_URL", "METRICS_PUSHGATEWAY"}
    assert told_above("envFrom", (MANIFESTS / file).read_text()) | by_a_secret(file) == secrets


def test_the_secret_knows_every_secret():
    (secret,) = [
        document
        for document in documents((MANIFESTS / "secrets.yaml.example").read_text())
        if document["metadata"]["name"] == "event-archive"
    ]
    assert secret["stringData"].keys() == SECRETS


def set_alone(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets variables, and a connection string, with no other variable of ours beside them."""
    for name in OF_ANY_POD | OF_THE_STREAM | OF_THE_INSTANCE:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PG_CONNECTION_STRING", "postgresql://archiver@127.0.0.1/events")


@pytest.mark.parametrize("read", [of_the_values, of_the_cronjob])
@pytest.mark.parametrize("lake", LAKES)
def test_what_is_set_and_what_may_be_is_accepted(
    read: Callable[[], dict[str, str]], lake: str, monkeypatch: pytest.MonkeyPatch
):
    left_out = {"DATASETS_FILE", *LAKES} - {lake}
    set_alone({name: value for name, value in read().items() if name not in left_out}, monkeypatch)
    settings = Settings.load()
    InstanceSettings.load()
    assert settings.dataset == PipelineSettings().dataset
    others = {
        name
        for name, field in Settings.model_fields.items()
        if name not in EXAMPLES and field.default is not None and getattr(settings, name) != field.default
    }
    assert others == set()


EXAMPLES = {
    *("pg_connection_string", "log_format", "run_budget", "api_base_url", "api_shard", "api_start", "api_time_filter"),
    "api_read_all_every",
    *("logs_url", "logs_mapping", "logs_min_age", "aws_region", "aws_endpoint", "azure_storage_account_url"),
    *(name for name in ApiSettings.model_fields if name.endswith(("_field", "_parameter"))),
}
"""Whose values in the files are none of the code's defaults."""


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        (ApiSettings, of_the_values),
        (ApiSettings, of_the_api),
        (LogsSettings, of_the_values),
        (LogsSettings, of_the_logs),
    ],
)
def test_what_may_be_set_of_a_source_is_accepted(
    kind: type[LandingSettings], read: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
):
    set_alone({name: value for name, value in read().items() if name != "DATASETS_FILE"}, monkeypatch)
    settings = kind.load()
    for name, field in kind.model_fields.items():
        if name not in EXAMPLES:
            assert getattr(settings, name) == field.default
    assert bool(archiving(settings.table, load_datasets())) == (read is not of_the_values)


def mounted(pod: Document, folder: Path) -> None:
    """Writes the files of the pod's ConfigMaps below a folder, where the container would have them."""
    (container,) = pod["containers"]
    paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    for volume in pod["volumes"]:
        if "configMap" in volume:
            config = manifest("datasets.yaml", "ConfigMap")
            assert config["metadata"]["name"] == volume["configMap"]["name"]
            place = folder / paths[volume["name"]].lstrip("/")
            place.mkdir(parents=True)
            for name, text in config["data"].items():
                (place / name).write_text(text)


@pytest.mark.parametrize("where", ["chart", "cronjob.yaml", "cronjob-ingest-api.yaml", "cronjob-ingest-logs.yaml"])
def test_the_pods_find_the_datasets_where_the_variable_says(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    deployed = chart.code_server(chart.values_of()) if where == "chart" else manifest(where, "CronJob")
    given = of_the_values() if where == "chart" else of_the_cronjob(where)
    mounted(pod_of(deployed), tmp_path)
    file = tmp_path / given["DATASETS_FILE"].lstrip("/")
    left_out = {*OF_ONE_TABLE, "ARCHIVE_LOCAL_PATH"}
    variables = {name: value for name, value in given.items() if name not in left_out}
    set_alone(variables | {"DATASETS_FILE": str(file)}, monkeypatch)
    monkeypatch.setenv("PAYMENTS_DATABASE_URL", "postgresql://archiver@127.0.0.1/ledger")
    # The ingestion needs no lake, but this test does.
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_URL", of_the_values()["AZURE_STORAGE_ACCOUNT_URL"])
    events, logs, payments = [settings.with_secrets() for settings in load_datasets()]
    alone = PipelineSettings().dataset
    assert (str(events.dataset.table), events.dataset.asset_prefix) == (str(alone.table), "")
    assert events.dataset.file_prefix == alone.file_prefix
    assert (logs.dataset.time_column, str(logs.dataset.retention)) == ("timestamp", "90 days")
    assert logs.pg_connection_string == events.pg_connection_string
    assert payments.pg_connection_string.get_secret_value().endswith("/ledger")


def test_the_variable_of_a_second_database_may_be_there_before_the_file(monkeypatch: pytest.MonkeyPatch):
    set_alone({"AZURE_STORAGE_ACCOUNT_URL": of_the_values()["AZURE_STORAGE_ACCOUNT_URL"]}, monkeypatch)
    named = re.findall(r"pg_connection_string_env: (\w+)", (MANIFESTS / "datasets.yaml").read_text())
    assert named == ["PAYMENTS_DATABASE_URL"]
    monkeypatch.setenv(named[0], "postgresql://archiver@127.0.0.1/ledger")
    assert Settings.load().dataset == PipelineSettings().dataset
    assert misspelt() == []

"""What settings are, by default and where they are set; what is wrong with one, and what is said of it."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from event_archive.config.environment import InstanceSettings, PipelineSettings, Settings, dagster_home, misspelt
from event_archive.config.sources import SETTINGS_BY_SOURCE
from event_archive.config.variables import output_is_json
from event_archive.domain.dataset import TableName
from event_archive.domain.days import Retention
from event_archive.errors import ConfigurationError
from event_archive_tests.fixtures.settings import SECRET, load

pytestmark = pytest.mark.usefixtures("no_settings")


def test_the_defaults_are_those_of_the_contract(monkeypatch: pytest.MonkeyPatch):
    settings = load(monkeypatch)
    assert settings.dataset.table == TableName("public", "Event")
    assert settings.dataset.time_column == "created_at"
    assert settings.dataset.path(date(2024, 3, 1)) == "titan-pulse-event-archive/events_2024-03-01.csv"
    assert settings.dataset.retention == Retention(12, 0)
    assert settings.dataset.start == date(2015, 1, 1)
    assert settings.azure_storage_container == "archive"
    assert settings.max_days_per_run == 31
    assert settings.pg_auth == "password"
    assert settings.run_budget is None
    assert not settings.dry_run


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch):
    settings = load(
        monkeypatch, EXPORT_PG_CONNECTION_STRING="host=replica", PG_AUTH="Azure", AZURE_STORAGE_CONNECTION_STRING="",
        ARCHIVE_LOCAL_PATH="/lake", AZURE_STORAGE_CONTAINER="other", ARCHIVE_FOLDER="/x/y/", EVENT_TABLE='s."E.v"',
        EVENT_TIME_COLUMN="At", EVENT_FILE_PREFIX="e", EVENT_RETENTION_PERIOD="P6M", ARCHIVE_START_DATE="2020-02-29",
        MAX_DAYS_PER_RUN="5", RUN_BUDGET="90 minutes", ALERT_WEBHOOK_URL="https://h/x", LOG_FORMAT="JSON", DRY_RUN="1",
    )  # fmt: skip
    assert settings.dataset.path(date(2024, 3, 1)) == "x/y/e_2024-03-01.csv"
    assert settings.dataset.table == TableName("s", "E.v")
    assert settings.archive_local_path == Path("/lake")
    assert settings.run_budget == timedelta(minutes=90)
    assert (settings.pg_auth, settings.log_format, settings.dry_run) == ("azure", "json", True)


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("PG_CONNECTION_STRING", f"password={SECRET} host", "libpq URL"),
        ("EXPORT_PG_CONNECTION_STRING", f"{SECRET}", "libpq URL"),
        ("PG_AUTH", "kerberos", "'password' or 'azure'"),
        ("AZURE_STORAGE_CONNECTION_STRING", f"AccountKey={SECRET}", "AccountName"),
        ("AZURE_STORAGE_CONNECTION_STRING", f"AccountKey={SECRET};BlobEndpoint=https://a.b/c", "AccountName and Acc"),
        ("AZURE_STORAGE_CONTAINER", "Upper", "lower-case"),
        ("AZURE_STORAGE_CONTAINER", "a--b", "single hyphens"),
        ("ARCHIVE_FOLDER", "a/../b", "joined by '/'"),
        ("ARCHIVE_FOLDER", "a/" + "ä" * 128, "255 between two slashes"),
        ("ARCHIVE_FOLDER", "/".join(["ab"] * 300), "at most 700 bytes"),
        ("EVENT_FILE_PREFIX", "ä" * 101, "at most 200 bytes"),
        ("EVENT_TABLE", "a.b.c", r"schema\.table"),
        ("EVENT_TIME_COLUMN", "x" * 64, "63 bytes"),
        ("EVENT_TIME_COLUMN", f"postgresql://{SECRET}@h/d", "a name, not an address"),
        ("EVENT_TIME_COLUMN", f"'\"postgresql://u:{SECRET}@h/d", "a name, not an address"),
        ("EVENT_TABLE", f"host=h password={SECRET} dbname=d", "schema.table, not an address"),
        ("EVENT_FILE_PREFIX", f"host=h password={SECRET} dbname=d", "begin with, not an address"),
        ("ARCHIVE_FOLDER", f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}", "a folder in the lake"),
        ("ARCHIVE_FOLDER", "abfss://archive@account.dfs.core.windows.net/events", "a folder in the lake"),
        ("EVENT_FILE_PREFIX", "a/b", "without a slash"),
        ("EVENT_FILE_PREFIX", ".hidden", "beginning with a dot"),
        ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=…;AccountKey=…", "like the … of an example"),
        ("EVENT_RETENTION_PERIOD", "0 days", "like '1 year'"),
        ("EVENT_RETENTION_PERIOD", "-1 year", "like '1 year'"),
        ("ARCHIVE_START_DATE", "01.01.2015", "like 2015-01-01"),
        ("ARCHIVE_CRON", "nightly", "five fields"),
        ("ARCHIVE_CRON", "0 0 2 * * *", "five fields"),
        ("MAX_DAYS_PER_RUN", "0", "greater than or equal to 1"),
        ("MAX_DAYS_PER_RUN", "many", r": must be a valid integer\."),
        ("RUN_BUDGET", "2 fortnights", "'2 hours'"),
        ("RUN_BUDGET", "36601 days", "is longer than 100 years"),
        ("RUN_BUDGET", f"{10**20} hours", "is longer than 100 years"),
        ("ALERT_WEBHOOK_URL", f"ftp://{SECRET}", "http or https"),
        ("ALERT_WEBHOOK_URL", f"https://host:port/{SECRET}", "http or https"),
        ("METRICS_PUSHGATEWAY", f"http://host:99999/{SECRET}", "http or https"),
        ("METRICS_PUSHGATEWAY", f"http://{'x' * 64}/{SECRET}", "http or https"),
        ("METRICS_PUSHGATEWAY", f"http://[x/{SECRET}", "http or https"),
        ("METRICS_TEXTFILE", f"https://user:{SECRET}@host/metrics", "a path on this machine"),
        ("ARCHIVE_LOCAL_PATH", "https://account.blob.core.windows.net/archive", "a path on this machine"),
        ("ARCHIVE_LOCAL_PATH", "file:/lake", "a path on this machine"),
        ("ARCHIVE_LOCAL_PATH", '"/lake"', "without the quotes around it"),
        ("ARCHIVE_LOCAL_PATH", "~/lake", "~ and [$] are not expanded"),
        ("ARCHIVE_LOCAL_PATH", "$HOME/lake", "~ and [$] are not expanded"),
        ("ARCHIVE_LOCAL_PATH", "C:/lake", "a drive's letter is none"),
        ("ARCHIVE_FOLDER", "'archive'", "without the quotes around it"),
        ("EVENT_FILE_PREFIX", '"ev"', "without the quotes around it"),
        ("LOGICAL_MESSAGE_PREFIX", '"ev"', "without the quotes around it"),
        ("EVENT_TIME_COLUMN", "'created_at'", "without the quotes around it"),
        ("ARCHIVE_LOCAL_PATH", f"AccountName=a;AccountKey={SECRET}", "a path on this machine"),
        ("LOG_FORMAT", "xml", "'json' or 'console'"),
        ("DRY_RUN", "perhaps", r"'perhaps': must be true or false\."),
        ("EVENT_PURGE", "truncate", "'delete' or 'drop'"),
        ("EVENT_DROP_EMPTY_PARTITIONS", "perhaps", r": must be true or false\."),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
):
    with pytest.raises(ConfigurationError, match=f"(?s){variable} holds .*{allowed}") as caught:
        load(monkeypatch, **{variable: value})
    assert SECRET not in str(caught.value)
    assert value in str(caught.value) or "(a secret, not shown)" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("EVENT_RETENTION_PEROID", "EVENT_RETENTION_PERIOD"),
        ("RETENTION_PERIOD", "EVENT_RETENTION_PERIOD"),
        ("EVENT_RETENTION", "EVENT_RETENTION_PERIOD"),
        ("event_retention_period", "EVENT_RETENTION_PERIOD"),
        ("LOG_RETENTION", "EVENT_RETENTION_PERIOD"),
        ("DRYRUN", "DRY_RUN"),
        ("dry_run", "DRY_RUN"),
        ("EVENT_ARCHIVE_DRY_RUN", "DRY_RUN"),
        ("EVENT_TABEL", "EVENT_TABLE"),
        ("EVENT_TIME_COLUM", "EVENT_TIME_COLUMN"),
        ("EVENT_FILEPREFIX", "EVENT_FILE_PREFIX"),
        ("ARCHIVE_STARTDATE", "ARCHIVE_START_DATE"),
        ("ARCHIVE_FOLDERS", "ARCHIVE_FOLDER"),
        ("ARCHIVE_LOCALPATH", "ARCHIVE_LOCAL_PATH"),
        ("AZURE_STORAGE_CONTAINERS", "AZURE_STORAGE_CONTAINER"),
        ("AZURE_STORAGE_ACOUNT_URL", "AZURE_STORAGE_ACCOUNT_URL"),
        ("PG_CONECTION_STRING", "PG_CONNECTION_STRING"),
        ("MAX_DAY_PER_RUN", "MAX_DAYS_PER_RUN"),
        ("RUN_BUGDET", "RUN_BUDGET"),
        ("EVENT_PURGES", "EVENT_PURGE"),
        ("EVENT_DROP_EMPTY_PARTITION", "EVENT_DROP_EMPTY_PARTITIONS"),
    ],
)
def test_a_misspelling_of_what_decides_what_is_deleted_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
):
    load(monkeypatch)  # Settings that are right stay in memory.
    with pytest.raises(ConfigurationError, match=f"{name} is no variable of event_archive, and {meant} decides"):
        load(monkeypatch, **{name: "3 years"})
    monkeypatch.delenv(meant, raising=False)
    with pytest.raises(ConfigurationError, match=f"Rename it to {meant}, in capitals, or unset it."):
        PipelineSettings.load()
    with pytest.raises(ConfigurationError, match=f"Unset it: {meant} is set, too."):
        load(monkeypatch, **{name: "3 years", meant: "4 years"})


@pytest.mark.parametrize(
    "name",
    [
        "DRY_RUN_SERVICE_HOST",
        "EVENT_TABLES_SERVICE_PORT",
        "EVENT_RETENTION_SERVICE_PORT_HTTP",
        "RETENTION_PORT",
        "RETENTION_PORT_4000_TCP",
        "RETENTION_PORT_4000_UDP_PROTO",
        "RETENTION_PORT_4000_SCTP_PORT",
        "RETENTION_PORT_4000_TCP_ADDR",
        "EVENT_ARCHIVE_PORT_4000_TCP",
    ],
)
def test_what_kubernetes_makes_of_a_service_is_no_misspelling(monkeypatch: pytest.MonkeyPatch, name: str):
    load(monkeypatch, **{name: "tcp://10.0.0.1:4000"})
    assert misspelt() == []


def test_quotes_around_a_value_of_a_source_are_refused(monkeypatch: pytest.MonkeyPatch):
    """They would become part of a stream's name, of a group's, of a parameter's …"""
    given = {"REDIS_URL": "redis://h", "STREAM_KEY": '"telemetry:t"', "STREAM_GROUP": "'processor'"}
    load(monkeypatch, **given, API_BASE_URL="https://h", API_CURSOR_PARAMETER='"after"')
    problems = [problem for source in ("api", "stream") for problem in SETTINGS_BY_SOURCE[source].attempt()[1]]
    assert [problem.split(" holds ")[0] for problem in problems] == [
        "API_CURSOR_PARAMETER",
        "STREAM_KEY",
        "STREAM_GROUP",
    ]
    assert all("must be without the quotes around it" in problem for problem in problems)


def test_a_misspelling_of_another_variable_is_known(monkeypatch: pytest.MonkeyPatch):
    load(monkeypatch, ALERT_WEBHOOK_ULR="https://h/x", EXPORT_PG_CONECTION_STRING="host=h", DRYRUN=" ", TABLE="x")
    assert misspelt() == [
        ("ALERT_WEBHOOK_ULR", "ALERT_WEBHOOK_URL"),
        ("EXPORT_PG_CONECTION_STRING", "EXPORT_PG_CONNECTION_STRING"),
    ]


def test_a_misspelling_of_a_sources_variable_is_known(monkeypatch: pytest.MonkeyPatch):
    load(monkeypatch, API_BASEURL="https://h", API_PAGE_LIMITS="5", MAX_REJECT="3", API_KEY="k", API_TOKEN="t")
    assert misspelt() == [
        ("API_BASEURL", "API_BASE_URL"),
        ("API_PAGE_LIMITS", "API_PAGE_LIMIT"),
        ("MAX_REJECT", "MAX_REJECTED"),
    ]


RIGHT = {
    "PG_CONNECTION_STRING": f"postgresql://user:{SECRET}@host:5432/events",
    "EXPORT_PG_CONNECTION_STRING": "host=replica",
    "PG_AUTH": "azure",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=k",
    "AZURE_STORAGE_CONTAINER": "other",
    "ARCHIVE_FOLDER": "x/y",
    "EVENT_TABLE": "s.e",
    "EVENT_TIME_COLUMN": "at",
    "EVENT_FILE_PREFIX": "e",
    "EVENT_RETENTION_PERIOD": "6 months",
    "ARCHIVE_START_DATE": "2020-02-29",
    "EVENT_PURGE": "drop",
    "EVENT_DROP_EMPTY_PARTITIONS": "true",
    "EVENT_VACUUM": "true",
    "ARCHIVE_CRON": "0 3 * * *",
    "MAX_DAYS_PER_RUN": "5",
    "RUN_BUDGET": "90 minutes",
    "EXPORT_RATE_LIMIT": "20 MB",
    "MAX_REPLICA_LAG": "64 MB",
    "ALERT_WEBHOOK_URL": "https://h/x",
    "METRICS_TEXTFILE": "/metrics",
    "METRICS_PUSHGATEWAY": "http://h:9091",
    "BACKLOG_ALERT_DAYS": "4",
    "LOG_FORMAT": "json",
    "VERIFY_NIGHTLY": "true",
    "LOGICAL_MESSAGE_PREFIX": "p",
    "DRY_RUN": "true",
}
OTHER_LAKES = {"AZURE_STORAGE_ACCOUNT_URL": "https://a.blob.core.windows.net", "ARCHIVE_LOCAL_PATH": "/lake"}
INSTANCE = {
    "DAGSTER_PG_HOST": "h",
    "DAGSTER_PG_PORT": "5433",
    "DAGSTER_PG_DB": "d",
    "DAGSTER_PG_USERNAME": "u",
    "DAGSTER_PG_PASSWORD": SECRET,
    "DAGSTER_LOGS_ACCOUNT": "account",
    "DAGSTER_LOGS_CONTAINER": "logs",
}


@pytest.mark.parametrize("space", [" {}", "{}\n", "\t{} \r\n", "\u00a0{}"])
def test_white_space_around_any_value_is_stripped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, space: str):
    assert {name.lower() for name in RIGHT | OTHER_LAKES} == Settings.model_fields.keys() - {"datasets_file"}
    assert {name.lower() for name in INSTANCE} == InstanceSettings.model_fields.keys()
    for of, absent in (
        (RIGHT, ""),
        (RIGHT | {"AZURE_STORAGE_ACCOUNT_URL": OTHER_LAKES["AZURE_STORAGE_ACCOUNT_URL"]}, _LAKE),
        (RIGHT | {"ARCHIVE_LOCAL_PATH": OTHER_LAKES["ARCHIVE_LOCAL_PATH"]}, _LAKE),
    ):
        plain = {name: value for name, value in (of | INSTANCE).items() if name != absent}
        with monkeypatch.context() as patch:
            patch.delenv(_LAKE, raising=False)
            for name, value in plain.items():
                patch.setenv(name, value)
            expected = Settings.load(), InstanceSettings.load()
            for name, value in plain.items():
                patch.setenv(name, space.format(value))
            assert (Settings.load(), InstanceSettings.load()) == expected
    monkeypatch.setenv("DAGSTER_HOME", space.format(tmp_path))
    assert dagster_home() == str(tmp_path)
    monkeypatch.setenv("LOG_FORMAT", space.format("Console"))
    assert not output_is_json()


_LAKE = "AZURE_STORAGE_CONNECTION_STRING"

import re
from datetime import date, timedelta
from pathlib import Path

import pytest

from event_archive.config.environment import PipelineSettings, Settings
from event_archive.domain.dataset import TableName
from event_archive.domain.days import Retention
from event_archive.errors import ConfigurationError

SECRET = "hunter2"
GOOD = {
    "PG_CONNECTION_STRING": f"postgresql://user:{SECRET}@host:5432/events",
    "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=a;AccountKey={SECRET};EndpointSuffix=core.windows.net",
}


@pytest.fixture(autouse=True)
def _only_what_a_test_sets(monkeypatch: pytest.MonkeyPatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in (GOOD | variables).items():
        monkeypatch.setenv(name, value)
    return Settings.load()


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
        ("AZURE_STORAGE_CONTAINER", "Upper", "lower-case"),
        ("AZURE_STORAGE_CONTAINER", "a--b", "single hyphens"),
        ("ARCHIVE_FOLDER", "a/../b", "joined by '/'"),
        ("EVENT_TABLE", "a.b.c", r"schema\.table"),
        ("EVENT_TIME_COLUMN", "x" * 64, "63 bytes"),
        ("EVENT_FILE_PREFIX", "a/b", "without a slash"),
        ("EVENT_FILE_PREFIX", ".hidden", "beginning with a dot"),
        ("EVENT_RETENTION_PERIOD", "0 days", "like '1 year'"),
        ("EVENT_RETENTION_PERIOD", "-1 year", "like '1 year'"),
        ("ARCHIVE_START_DATE", "01.01.2015", "like 2015-01-01"),
        ("ARCHIVE_CRON", "nightly", "five fields"),
        ("ARCHIVE_CRON", "0 0 2 * * *", "five fields"),
        ("MAX_DAYS_PER_RUN", "0", "greater than or equal to 1"),
        ("MAX_DAYS_PER_RUN", "many", "integer"),
        ("RUN_BUDGET", "2 fortnights", "'2 hours'"),
        ("ALERT_WEBHOOK_URL", f"ftp://{SECRET}", "http or https"),
        ("LOG_FORMAT", "xml", "'json' or 'console'"),
        ("DRY_RUN", "perhaps", "boolean"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
):
    with pytest.raises(ConfigurationError, match=f"(?s){variable} holds .*{allowed}") as caught:
        load(monkeypatch, **{variable: value})
    assert SECRET not in str(caught.value)
    assert value in str(caught.value) or "(a secret, not shown)" in str(caught.value)


def test_a_url_with_a_signature_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError, match="must not carry a query") as caught:
        load(monkeypatch, AZURE_STORAGE_ACCOUNT_URL=f"https://a.blob.core.windows.net?sig={SECRET}")
    assert SECRET not in str(caught.value)


def test_all_that_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError) as caught:
        load(monkeypatch, PG_CONNECTION_STRING="", AZURE_STORAGE_CONNECTION_STRING="", DRY_RUN="x")
    assert re.findall(r"(PG_CONNECTION_STRING is not set|Exactly one of|DRY_RUN)", str(caught.value)) == [
        "Exactly one of", "DRY_RUN", "PG_CONNECTION_STRING is not set",
    ]  # fmt: skip


def test_two_lakes_are_one_too_many(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError, match="AZURE_STORAGE_CONNECTION_STRING and ARCHIVE_LOCAL_PATH are set"):
        load(monkeypatch, ARCHIVE_LOCAL_PATH="/lake")


def test_what_shapes_the_pipeline_needs_no_secret():
    assert PipelineSettings.load().dataset.table == TableName("public", "Event")


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch):
    settings = load(monkeypatch, ALERT_WEBHOOK_URL=f"https://h/{SECRET}")
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()

"""What a datasets file says, and every mistake in one."""

from datetime import date
from pathlib import Path

import pytest

from event_archive.config.datasets import KEYS, chosen, load_datasets
from event_archive.config.environment import PipelineSettings, Settings, misspelt
from event_archive.domain.days import Retention
from event_archive.errors import ConfigurationError
from event_archive_tests.fixtures.datasets_file import DSN, SECRET, WriteDatasets, refused

TWO = """
defaults: {retention: 1 year, folder: lake, start: 2020-01-01}
datasets:
  events: {table: public.Event, asset_keys: bare}
  logs:
    table: public.logs
    time_column: timestamp
    retention: 90 days
    after: [events]
"""


def test_a_dataset_has_its_own_keys_then_the_defaults_then_the_environments(
    write_datasets: WriteDatasets, monkeypatch: pytest.MonkeyPatch
):
    write_datasets(TWO)
    monkeypatch.setenv("ARCHIVE_CRON", "0 3 * * *")
    monkeypatch.setenv("ARCHIVE_FOLDER", "overruled")
    events, logs = load_datasets()
    assert (events.dataset.name, str(events.dataset.table)) == ("events", 'public."Event"')
    assert events.dataset.path(date(2024, 3, 1)) == "lake/events_2024-03-01.csv"
    assert (events.dataset.retention, events.dataset.start) == (Retention(12, 0), date(2020, 1, 1))
    assert (events.dataset.asset_prefix, logs.dataset.asset_prefix) == ("", "logs")
    assert (logs.dataset.retention, logs.dataset.time_column) == (Retention(0, 90), "timestamp")
    assert logs.dataset.path(date(2024, 3, 1)) == "lake/logs_2024-03-01.csv"
    assert {of.archive_cron for of in (events, logs)} == {"0 3 * * *"}
    assert logs.entry.after == ("events",)


def test_without_a_file_the_environment_describes_one_dataset_without_a_name(
    write_datasets: WriteDatasets, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EVENT_TABLE", "app.readings")
    (only,) = load_datasets()
    assert only == PipelineSettings.load()
    assert (only.dataset.name, only.dataset.asset_prefix, only.dataset.label) == ("", "", "app.readings")


def test_every_value_is_text_for_the_variables_parsers(write_datasets: WriteDatasets):
    """YAML itself would read 22:30 as 1350, and no as false."""
    write_datasets(
        "datasets: {a: {table: no, time_column: 2024-01-01, file_prefix: 22:30, dry_run: 'yes', max_days_per_run: 7}}"
    )
    (only,) = load_datasets()
    assert (only.dataset.table.name, only.dataset.time_column, only.dataset.file_prefix) == (
        "no",
        "2024-01-01",
        "22:30",
    )
    assert only.dry_run
    assert only.max_days_per_run == 7


@pytest.mark.parametrize(
    ("environment", "file", "dry"),
    [("true", "false", True), ("false", "true", True), ("", "true", True), ("false", "false", False), ("", "", False)],
)
def test_a_dry_run_that_either_asks_for_is_dry(
    write_datasets: WriteDatasets, monkeypatch: pytest.MonkeyPatch, environment: str, file: str, *, dry: bool
):
    write_datasets(f"datasets: {{a: {{table: t{f', dry_run: {file}' if file else ''}}}}}")
    monkeypatch.setenv("DRY_RUN", environment)
    assert load_datasets()[0].dry_run is dry


def test_every_mistake_is_named_at_once_with_dataset_and_key(
    write_datasets: WriteDatasets, monkeypatch: pytest.MonkeyPatch
):
    path = write_datasets(f"""
    defaults: {{retention: soon, table: t}}
    dataset: {{}}
    datasets:
      events: {{table: public.Event, retension: 1 year, cron: '* *', dry_run: perhaps}}
      Logs: {{table: ''}}
      jobs: {{table: jobs, pg_connection_string_env: '{DSN}', max_days_per_run: '0', after: [evens]}}
      none: {{time_column: at, asset_keys: yes}}
      text: nothing
    """)
    monkeypatch.setenv("EVENT_TABLE", "public.Event")
    monkeypatch.setenv("EVENT_RETENTION_PERIOD", "1 year")
    first, *lines = refused()
    assert first == f"The datasets file {path}, or the environment beside it, is not right:"
    for beginning in (
        "EVENT_TABLE is set beside DATASETS_FILE",
        "EVENT_RETENTION_PERIOD is set beside DATASETS_FILE",
        "dataset is no key of the file; did you mean datasets?",
        "defaults.table: each dataset has its own",
        "defaults.retention holds 'soon'",
        "events.retension is no key of a dataset; did you mean retention?",
        "events.cron holds '* *'",
        "events.dry_run holds 'perhaps'",
        "'Logs' is no name of a dataset",
        "Logs.table must hold one value",
        "jobs.pg_connection_string_env looks like a connection string",
        "jobs.max_days_per_run holds '0'",
        "jobs.after names evens, which is no dataset; did you mean events?",
        "none.table is missing",
        "none.asset_keys holds 'yes'",
        "text must be keys and values",
    ):
        assert [line for line in lines if line.strip().startswith(beginning)], (beginning, lines)
    assert SECRET not in "\n".join(lines)
    assert len(set(lines)) == len(lines)


def test_a_misspelling_of_what_the_file_says_is_to_be_unset(
    write_datasets: WriteDatasets, monkeypatch: pytest.MonkeyPatch
):
    """Renamed, it would be refused as well."""
    write_datasets("datasets: {events: {table: public.Event}}")
    monkeypatch.setenv("EVENT_RETENTION", "7 days")
    (line,) = refused()[1:]
    assert line.endswith("decides what is deleted. Unset it: DATASETS_FILE says that of every table.")
    monkeypatch.delenv("EVENT_RETENTION")
    monkeypatch.setenv("EVENT_VACUM", "true")
    assert misspelt() == [("EVENT_VACUM", "vacuum of a dataset in DATASETS_FILE")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("datasets: {a: {table: t}, a: {table: u}}", "a stands there twice"),
        ("datasets:\n  a:\n    table: t\n    table: u", "table stands there twice"),
        ("datasets: {}", "describes no dataset"),
        ("- a", "describes no dataset"),
        ("", "describes no dataset"),
        ("datasets: {a: {table: t}", "is not YAML"),
        ("datasets: !!python/object:os.system {a: 1}", "describes no dataset|is not"),
        ("datasets: {a: {table: t, file_prefix: x}, b: {table: u, file_prefix: x}}", "a and b have one folder"),
        ("datasets: {a: {table: t}, b: {table: public.t}}", "a and b are one table, public.t"),
        ("datasets: {a: {table: t, asset_keys: bare}, b: {table: u, asset_keys: bare}}", "a and b have asset_keys"),
        ("datasets: {a: {table: t, after: [b]}, b: {table: u, after: [a]}}", "circle: a after b after a"),
        ("datasets: {a: {table: t, purge: drop, after: [b]}, b: {table: u}}", "a has purge: drop and after"),
        ("datasets: {a: {table: t, after: b}}", "a.after must be a list"),
        ("datasets: {a: {table: t, cron: [0]}}", "a.cron must hold one value"),
        ("datasets: {a: {table: t, <<: {cron: x}}}", "a.<< is no key"),
        (f"datasets: {{a: {{table: t, folder: 'password={SECRET}'}}}}", "a.folder looks like a connection string"),
        (f"datasets: {{a: {{table: t, pg_connection_string: '{DSN}'}}}}", "did you mean pg_connection_string_env"),
        ("datasets: {'': {table: t}}", r"'\(nothing\)' is no name of a dataset"),
        (f"datasets: {{a: {{table: t, {DSN}}}}}", r"a.\(a secret, not shown\) is no key"),
        (f"datasets: {{a: {{table: t, {DSN}: 1, {DSN}: 2}}}}", r"\(a secret, not shown\) stands there twice"),
        (f"datasets: {{'{DSN}': {{table: t}}}}", r"'\(a secret, not shown\)' is no name"),
        (f"datasets: {{a: {{table: t, after: ['{DSN}']}}}}", r"a.after names \(a secret, not shown\), which"),
        (f"{{'{DSN}': x, datasets: {{a: {{table: t}}}}}}", r"\(a secret, not shown\) is no key of the file"),
        (f"datasets: {{a: {{table: t, folder: *{SECRET}}}}}", "line 1: found undefined alias."),
        (f"datasets: {{a: {{table: t, folder: !{SECRET}!x y}}}}", "line 1: found undefined tag handle."),
    ],
)
def test_a_file_that_is_not_right_is_refused(write_datasets: WriteDatasets, text: str, words: str):
    write_datasets(text)
    with pytest.raises(ConfigurationError, match=words) as error:
        load_datasets()
    assert SECRET not in str(error.value)


def test_a_file_that_cannot_be_read_is_refused(
    write_datasets: WriteDatasets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("DATASETS_FILE", str(tmp_path))
    assert refused() == [f"DATASETS_FILE holds {str(tmp_path)!r}, which cannot be read: Is a directory."]


def test_datasets_are_chosen_by_name_in_the_files_order(write_datasets: WriteDatasets):
    write_datasets(TWO)
    assert [of.dataset.name for of in chosen(load_datasets(), ())] == ["events", "logs"]
    assert [of.dataset.name for of in chosen(load_datasets(), ("logs", "events"))] == ["events", "logs"]
    assert refused(("log",)) == ["There is no dataset log; did you mean logs? There are events, logs."]


def test_a_name_is_no_dataset_where_there_is_no_file(write_datasets: WriteDatasets, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PG_CONNECTION_STRING", DSN)
    monkeypatch.setenv("ARCHIVE_LOCAL_PATH", "/lake")
    assert refused(("events",)) == [
        "There is no dataset events. There is one dataset, without a name: no DATASETS_FILE."
    ]


def test_settings_of_the_environment_are_not_read_beside_a_file(write_datasets: WriteDatasets):
    """They would be those of the default table."""
    write_datasets(TWO)
    with pytest.raises(AssertionError):
        PipelineSettings.load()
    with pytest.raises(AssertionError):
        Settings.load()


def test_every_setting_of_a_dataset_has_a_key():
    others = {
        *(
            "log_format",
            "datasets_file",
            "pg_auth",
            "run_budget",
            "metrics_textfile",
            "metrics_pushgateway",
            "alert_webhook_url",
        ),
        *("azure_storage_connection_string", "azure_storage_account_url", "azure_storage_container"),
        "archive_local_path",
    }
    assert len(KEYS) - len(("asset_keys", "after")) == len(Settings.model_fields.keys() - others)

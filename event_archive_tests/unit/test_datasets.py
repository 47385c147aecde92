from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from event_archive.config.datasets import KEYS, chosen, load_datasets, load_for_command
from event_archive.config.environment import PipelineSettings, Settings, misspelt
from event_archive.domain.days import Retention
from event_archive.errors import ConfigurationError

SECRET = "hunter2"
DSN = f"postgresql://user:{SECRET}@host:5432/events"

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

Write = Callable[[str], Path]


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Write:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)

    def written(text: str) -> Path:
        path = tmp_path / "datasets.yaml"
        path.write_text(text)
        monkeypatch.setenv("DATASETS_FILE", str(path))
        return path

    return written


def refused(names: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ConfigurationError) as error:
        chosen(load_for_command(), names)
    return str(error.value).splitlines()


def test_a_dataset_has_its_own_keys_then_the_defaults_then_the_environments(
    write: Write, monkeypatch: pytest.MonkeyPatch
):
    write(TWO)
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
    write: Write, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EVENT_TABLE", "app.readings")
    (only,) = load_datasets()
    assert only == PipelineSettings.load()
    assert (only.dataset.name, only.dataset.asset_prefix, only.dataset.label) == ("", "", "app.readings")


def test_every_value_is_text_for_the_variables_parsers(write: Write):
    """YAML itself would read 22:30 as 1350, and no as false."""
    write(
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
    write: Write, monkeypatch: pytest.MonkeyPatch, environment: str, file: str, *, dry: bool
):
    write(f"datasets: {{a: {{table: t{f', dry_run: {file}' if file else ''}}}}}")
    monkeypatch.setenv("DRY_RUN", environment)
    assert load_datasets()[0].dry_run is dry


def test_every_mistake_is_named_at_once_with_dataset_and_key(write: Write, monkeypatch: pytest.MonkeyPatch):
    path = write(f"""
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
def test_a_file_that_is_not_right_is_refused(write: Write, text: str, words: str):
    write(text)
    with pytest.raises(ConfigurationError, match=words) as error:
        load_datasets()
    assert SECRET not in str(error.value)


def test_a_file_that_cannot_be_read_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DATASETS_FILE", str(tmp_path))
    assert refused() == [f"DATASETS_FILE holds {str(tmp_path)!r}, which cannot be read: Is a directory."]


def test_one_table_of_two_databases_is_two_tables(write: Write, monkeypatch: pytest.MonkeyPatch):
    text = "datasets: {a: {table: t}, b: {table: t, pg_connection_string_env: PG_CONNECTION_STRING_OF_B}}"
    write(text)
    assert len(load_datasets()) == 2
    for name in ("PG_CONNECTION_STRING", "PG_CONNECTION_STRING_OF_B"):
        monkeypatch.setenv(name, DSN)
    assert "a and b are one table, public.t." in refused()[1]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("host=host dbname=events user=reporter password=x", True),
        ("postgres://host/events?sslmode=require", True),
        ("host=host dbname=events port=5433", False),
        ("host=host dbname=other", False),
        ("host=elsewhere dbname=events", False),
    ],
)
def test_a_database_is_known_by_any_role_and_in_any_form(
    write: Write, monkeypatch: pytest.MonkeyPatch, other: str, *, same: bool
):
    write("datasets: {a: {table: t}, b: {table: t, pg_connection_string_env: PG_CONNECTION_STRING_OF_B}}")
    monkeypatch.setenv("PG_CONNECTION_STRING", DSN)
    monkeypatch.setenv("PG_CONNECTION_STRING_OF_B", other)
    if same:
        assert "a and b are one table, public.t." in refused()[1]
    else:
        assert len(load_datasets()) == 2


def test_many_datasets_that_all_come_after_one_another_load_at_once(write: Write):
    names = [f"d{number}" for number in range(60)]
    lines = [f"  {name}: {{table: {name}, after: [{', '.join(names[:number])}]}}" for number, name in enumerate(names)]
    write("\n".join(["datasets:", *lines]))
    assert len(load_datasets()) == len(names)


def test_a_dataset_reads_the_variables_that_it_names(write: Write, monkeypatch: pytest.MonkeyPatch):
    write("datasets: {a: {table: t}, b: {table: u, pg_connection_string_env: PG_CONNECTION_STRING_OF_B}}")
    monkeypatch.setenv("ARCHIVE_LOCAL_PATH", "/lake")
    monkeypatch.setenv("PG_CONNECTION_STRING", "host=one")
    monkeypatch.setenv("EXPORT_PG_CONNECTION_STRING", "host=replica-of-one")
    a, b = load_datasets()
    with pytest.raises(ConfigurationError, match="PG_CONNECTION_STRING_OF_B is not set, which the dataset b needs"):
        b.with_secrets()
    monkeypatch.setenv("PG_CONNECTION_STRING_OF_B", "host=two")
    assert misspelt() == []
    assert a.with_secrets().pg_connection_string.get_secret_value() == "host=one"
    assert a.with_secrets().export_pg_connection_string is not None
    assert b.with_secrets().pg_connection_string.get_secret_value() == "host=two"
    assert b.with_secrets().export_pg_connection_string is None, "the replica of another database"


@pytest.mark.parametrize(
    ("b", "replica"),
    [
        ("pg_connection_string_env: OF_B", None),
        ("pg_connection_string_env: OF_B, export_pg_connection_string_env: REPLICA_OF_B", "host=replica-of-two"),
        ("pg_connection_string_env: PG_CONNECTION_STRING", "host=replica-of-one"),
        ("folder: x", "host=replica-of-one"),
    ],
)
def test_a_dataset_with_a_database_of_its_own_has_no_replica_of_another(
    write: Write, monkeypatch: pytest.MonkeyPatch, b: str, replica: str | None
):
    variables = {"OF_B": "host=two", "REPLICA_OF_B": "host=replica-of-two", "REPLICA": "host=replica-of-one"}
    for name, value in {"ARCHIVE_LOCAL_PATH": "/lake", "PG_CONNECTION_STRING": "host=one", **variables}.items():
        monkeypatch.setenv(name, value)
    for defaults in ("export_pg_connection_string_env: REPLICA", ""):
        monkeypatch.setenv("EXPORT_PG_CONNECTION_STRING", "" if defaults else "host=replica-of-one")
        write(f"defaults: {{{defaults}}}\ndatasets: {{b: {{table: t, {b}}}}}")
        secret = load_datasets()[0].with_secrets().export_pg_connection_string
        assert (secret and secret.get_secret_value()) == replica


def test_a_wrong_value_of_a_named_variable_is_told_by_its_name(write: Write, monkeypatch: pytest.MonkeyPatch):
    write("datasets: {b: {table: u, pg_connection_string_env: EVENTS_DATABASE}}")
    monkeypatch.setenv("ARCHIVE_LOCAL_PATH", "/lake")
    monkeypatch.setenv("EVENTS_DATABASE", f"mysql://user:{SECRET}@host/x")
    with pytest.raises(ConfigurationError, match=r"EVENTS_DATABASE holds \(a secret, not shown\)") as error:
        load_datasets()[0].with_secrets()
    assert SECRET not in str(error.value)


def test_datasets_are_chosen_by_name_in_the_files_order(write: Write):
    write(TWO)
    assert [of.dataset.name for of in chosen(load_datasets(), ())] == ["events", "logs"]
    assert [of.dataset.name for of in chosen(load_datasets(), ("logs", "events"))] == ["events", "logs"]
    assert refused(("log",)) == ["There is no dataset log; did you mean logs? There are events, logs."]


def test_a_name_is_no_dataset_where_there_is_no_file(write: Write, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PG_CONNECTION_STRING", DSN)
    monkeypatch.setenv("ARCHIVE_LOCAL_PATH", "/lake")
    assert refused(("events",)) == [
        "There is no dataset events. There is one dataset, without a name: no DATASETS_FILE."
    ]


def test_settings_of_the_environment_are_not_read_beside_a_file(write: Write):
    """They would be those of the default table."""
    write(TWO)
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

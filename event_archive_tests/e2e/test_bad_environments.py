"""What people see where a setting or the machine is wrong: one message that says what to do, a code, no secret."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from event_archive.nightly import day as nightly_day
from event_archive.operations.archive import ArchivedDay, archive_day
from event_archive_tests.fixtures.archived import KEY
from event_archive_tests.fixtures.installation import Commands, Installation, clean_environment
from event_archive_tests.fixtures.telling import ACCOUNT_KEY, PASSWORD, told

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PG_CONNECTION_STRING": ""}, "PG_CONNECTION_STRING is not set; it says how to reach the events database"),
        (
            {"PG_CONNECTION_STRING": f"postgres//u:{PASSWORD}@h/d"},
            "PG_CONNECTION_STRING holds (a secret, not shown): must be a libpq URL",
        ),
        ({"EXPORT_PG_CONNECTION_STRING": PASSWORD}, "EXPORT_PG_CONNECTION_STRING holds (a secret, not shown)"),
        ({"ARCHIVE_LOCAL_PATH": ""}, "says where the files go; none is set"),
        (
            {"AZURE_STORAGE_ACCOUNT_URL": "https://a.blob.core.windows.net"},
            "AZURE_STORAGE_ACCOUNT_URL and ARCHIVE_LOCAL_PATH are set",
        ),
        (
            {"ARCHIVE_LOCAL_PATH": "", "AZURE_STORAGE_CONNECTION_STRING": f"AccountKey={ACCOUNT_KEY}"},
            "AZURE_STORAGE_CONNECTION_STRING holds (a secret, not shown): must hold AccountName",
        ),
        (
            {"ARCHIVE_LOCAL_PATH": "", "AZURE_STORAGE_ACCOUNT_URL": "https://a.blob.core.windows.net/?sig=x"},
            "AZURE_STORAGE_ACCOUNT_URL holds (a secret, not shown): must not carry a query",
        ),
        ({"EVENT_RETENTION_PERIOD": "0 days"}, "EVENT_RETENTION_PERIOD holds '0 days': is not a calendar duration"),
        ({"EVENT_RETENTION_PERIOD": "-1 year"}, "EVENT_RETENTION_PERIOD holds '-1 year'"),
        ({"ARCHIVE_START_DATE": "2015"}, "ARCHIVE_START_DATE holds '2015': is not a day like 2015-01-01"),
        ({"ARCHIVE_START_DATE": "0001-01-01"}, "'0001-01-01': must be a day from 1000-01-01 to 9998-12-31"),
        ({"EVENT_TABLE": "a.b.c"}, "EVENT_TABLE holds 'a.b.c': is not schema.table"),
        ({"ARCHIVE_FOLDER": "../up"}, "ARCHIVE_FOLDER holds '../up'"),
        ({"AZURE_STORAGE_CONTAINER": "No"}, "AZURE_STORAGE_CONTAINER holds 'No': must be 3 to 63"),
        ({"MAX_DAYS_PER_RUN": "0"}, "MAX_DAYS_PER_RUN holds '0'"),
        ({"RUN_BUDGET": "soon"}, "RUN_BUDGET holds 'soon': is not a duration like '2 hours'"),
        ({"DRY_RUN": "perhaps"}, "DRY_RUN holds 'perhaps'"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT holds 'xml'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_variable_that_is_missing_or_wrong_is_named(
    local_installation: Installation, command: Commands, variables: dict[str, str], words: str
):
    local_installation.add(1)
    message = told(command("run", **variables), 2)
    assert message.startswith("Error: The environment is not right:\n")
    assert words in message
    assert len(message.splitlines()) == 2
    assert local_installation.count() == 1


def test_all_that_is_wrong_is_said_at_once(local_installation: Installation, command: Commands):
    message = told(command("days", PG_CONNECTION_STRING="", DRY_RUN="perhaps", ARCHIVE_LOCAL_PATH=""), 2)
    assert len(message.splitlines()) == 4


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://archiver:p@ss-nobody-may-see@127.0.0.1/events",
        "postgresql://archiver:p@ss/nobody-may-see@127.0.0.1/events",
        "postgresql://archiver:123/nobody-may-see@127.0.0.1/events",
        "postgres://nobody-may-see:nobody-may-see@x@127.0.0.1:5432/events?sslmode=require",
    ],
)
def test_a_password_that_tears_the_url_apart_is_refused_unseen(
    local_installation: Installation, command: Commands, conninfo: str
):
    message = told(command("run", PG_CONNECTION_STRING=conninfo), 2)
    assert "the password's special characters are percent-encoded" in message
    assert "nobody-may-see" not in message


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://archiver:p%40ss%2Fword@127.0.0.1:9/events?application_name=a@b",
        "host=127.0.0.1 port=9 user=archiver password='a@b://c/d@e'",
        "postgresql://archiver:p#word@127.0.0.1:9/events",
    ],
)
def test_a_url_that_is_whole_is_taken(local_installation: Installation, command: Commands, conninfo: str):
    assert "PostgreSQL cannot be reached" in told(command("run", PG_CONNECTION_STRING=conninfo), 1)


def test_a_misspelt_variable_is_said(local_installation: Installation, command: Commands):
    done = command("days", ALERT_WEBHOOK_ULR="https://h/x")
    assert done.code == 0
    assert "ALERT_WEBHOOK_ULR is no variable of event_archive. Did you mean ALERT_WEBHOOK_URL?" in done.stderr
    assert done.end["days"] == 0


def test_a_misspelt_variable_of_a_source_is_said_before_the_one_that_is_missing(
    local_installation: Installation, command: Commands
):
    done = command("ingest", "api", API_BASEURL="https://api.example.com/v1")
    assert done.code == 2
    warning, error = done.lines
    assert "API_BASEURL is no variable of event_archive. Did you mean API_BASE_URL?" in warning["message"]
    assert "API_BASE_URL is not set; it is the address of the API" in error["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        *(["run"], ["run", KEY], ["run", "--plan"], ["run", "--dry-run"], ["days"], ["verify"], ["adopt", KEY]),
        *(["restore", KEY], ["hold", KEY, "--reason", "why"], ["release", KEY], ["holds"], ["doctor"]),
    ],
    ids=" ".join,
)
def test_a_misspelt_switch_is_refused_by_every_command(
    local_installation: Installation, command: Commands, arguments: list[str]
):
    local_installation.add(1)
    done = command(*arguments, DRYRUN="true")
    assert done.code == 2
    assert "DRYRUN is no variable of event_archive, and DRY_RUN decides what is deleted" in done.said
    assert local_installation.count() == 1
    assert list(local_installation.lake.list(local_installation.dataset.folder)) == []


def test_a_misspelt_switch_keeps_the_schedule_from_loading(local_installation: Installation):
    load = [sys.executable, "-c", "import event_archive.definitions"]
    variables = local_installation.variables | {"EVENT_RETENTION": "3 years"}
    done = subprocess.run(load, env=clean_environment(**variables), capture_output=True, text=True, check=False)
    assert done.returncode
    assert "EVENT_RETENTION is no variable of event_archive, and EVENT_RETENTION_PERIOD decides" in done.stderr


def test_case_counts_in_a_variables_name(local_installation: Installation, command: Commands):
    local_installation.add(1)
    assert "dry_run is no variable of event_archive" in told(command("run", DRY_RUN="true", dry_run="false"), 2)
    assert local_installation.count() == 1


def test_a_variable_in_lower_case_never_moves_the_lake(
    azure_installation: Installation, command: Commands, tmp_path: Path
):
    azure_installation.add(1)
    assert "archive_local_path is no variable" in told(command("run", archive_local_path=str(tmp_path)), 2)
    assert list(tmp_path.iterdir()) == []
    assert azure_installation.count() == 1


def test_a_blank_variable_is_none(local_installation: Installation, command: Commands):
    assert "PG_CONNECTION_STRING is not set" in told(command("days", PG_CONNECTION_STRING=" "), 2)


@pytest.mark.parametrize("home", ["relative", "/nowhere/at/all"])
def test_a_dagster_home_that_is_no_folder(local_installation: Installation, command: Commands, home: str):
    local_installation.add(1)
    message = told(command("run", DAGSTER_HOME=home), 2)
    assert f"DAGSTER_HOME holds '{home}', which is not the absolute path of a folder" in message


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("storage: {nonsense: hunter2}\n", "Dagster does not take what stands at storage. Correct"),
        ("hunter2: 1\n", "Dagster does not take what stands at its top. Correct"),
        ("python_logs: {python_log_level: 5}\n", "Dagster does not take what stands at python_logs.python_log_level"),
        (
            "storage: {postgres: {postgres_db: {password: {env: NOT_THERE}, username: u, hostname: h, db_name: d}}}",
            "a variable that it names under postgres_db.password is not set. Correct",
        ),
        (
            "concurrency: {runs: {max_concurrent_runs: 2}}\nrun_queue: {max_concurrent_runs: 3}\n",
            "not take some of its keys",
        ),
        ("instance_class: {module: nowhere.hunter2, class: Nobody}\n", "or names a class that cannot be imported"),
        ("\udcff\udcfe\n", "it is no YAML in UTF-8"),
        ("# hunter2\nstorage: [\n\n", "its line 4 is no YAML"),
        ("hunter2\n", "it holds something else than keys and values"),
    ],
)
@pytest.mark.parametrize(("of", "code"), [("run", 2), ("doctor", 1)])
def test_a_dagster_yaml_that_is_wrong(
    local_installation: Installation, command: Commands, tmp_path: Path, text: str, mistake: str, of: str, code: int
):
    local_installation.add(1)
    (tmp_path / "dagster.yaml").write_bytes(text.encode(errors="surrogateescape"))
    done = command(of, DAGSTER_HOME=str(tmp_path))
    assert done.code == code
    assert f"{tmp_path}/dagster.yaml is not right: " in done.said
    assert mistake in done.said
    assert "hunter2" not in done.said
    assert local_installation.count() == 1


@pytest.mark.parametrize("rest", [b"torn" * 2000, b"", None], ids=["torn", "emptied", "removed"])
def test_records_of_dagster_that_are_lost_after_they_were_opened(
    local_installation: Installation, command: Commands, clean: pytest.MonkeyPatch, home: Path, rest: bytes | None
):
    local_installation.add(1)

    def archive_and_lose(*arguments: Any, **options: Any) -> ArchivedDay:
        for path in home.rglob("*.db"):
            path.unlink()
            if rest is not None:
                path.write_bytes(rest)
        return archive_day(*arguments, **options)

    clean.setattr(nightly_day, "archive_day", archive_and_lose)
    done = command("run", DAGSTER_HOME=str(home))
    assert "what was done to this day could not be written to Dagster's records: " in told(done, 1)
    assert local_installation.count() == 1


@pytest.mark.parametrize("arguments", [["run"], ["doctor"]], ids=" ".join)
def test_without_a_writable_temporary_folder_everything_works(
    local_installation: Installation, home: Path, tmp_path: Path, arguments: list[str]
):
    local_installation.add(1)
    (tmp_path / "sitecustomize.py").write_text(
        "import tempfile\n"
        "def none(): raise FileNotFoundError(2, 'No usable temporary directory found')\n"
        "tempfile._get_default_tempdir = none\n"
    )
    path = f"{tmp_path}:{clean_environment()['PYTHONPATH']}"
    for variables in ({"PYTHONPATH": path}, {"PYTHONPATH": path, "DAGSTER_HOME": str(home)}):
        done = local_installation.cli(*arguments, **variables)
        assert (done.code, done.end["outcome"], done.stderr) == (0, "done", "")

"""What people see where something is wrong: one message that says what to do, an exit code, no secret, nothing lost."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient, generate_container_sas

from event_archive.errors import UnreachableError
from event_archive.lake.azure import client
from event_archive.lake.azure.retry import BoundedRetry
from event_archive.nightly import day as nightly_day
from event_archive.operations.archive import ArchivedDay, archive_day
from event_archive.postgres.session import Postgres
from event_archive.table.advice import ARCHIVE_ADVICE
from event_archive_tests.azurite import Azurite
from event_archive_tests.fixtures.installation import Commands, Finished, Installation, clean_environment
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.postgres import password_role

pytestmark = pytest.mark.slow

KEY = DAY.isoformat()
PASSWORD = "pa55w0rd-nobody-may-see"
ACCOUNT_KEY = "c2VjcmV0LWtleS1ub2JvZHktbWF5LXNlZQ=="


def errors(done: Finished) -> list[str]:
    """What was said: the error on standard error, and those of single days among the log lines."""
    lines = [line["message"] for line in done.lines if line.get("level") == "error"]
    return lines + ([done.stderr.strip()] if done.stderr else [])


def told(done: Finished, code: int) -> str:
    """The one message."""
    for forbidden in ("Traceback", PASSWORD, ACCOUNT_KEY, "sig="):
        assert forbidden not in done.said
    assert done.code == code, done.said
    (message,) = errors(done)
    return message


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


def test_a_database_that_is_out_of_reach(local_installation: Installation, command: Commands, closed_port: int):
    conninfo = f"postgresql://someone:{PASSWORD}@127.0.0.1:{closed_port}/events"
    message = told(command("run", PG_CONNECTION_STRING=conninfo), 1)
    assert message.startswith("Error: PostgreSQL cannot be reached: ")
    assert "Connection refused. Check host and port" in message, "libpq's own question in between would be read with it"
    assert "connection failed" not in message
    assert "Check host and port in PG_CONNECTION_STRING" in message


@pytest.fixture
def locked_role(local_installation: Installation) -> Iterator[str]:
    with password_role(local_installation.database, "another") as role:
        yield role


def test_a_wrong_password_is_not_repeated(local_installation: Installation, command: Commands, locked_role: str):
    database = local_installation.database
    conninfo = f"{database.server.dsn(database.name, locked_role)} password={PASSWORD}"
    message = told(command("run", PG_CONNECTION_STRING=conninfo), 1)
    assert f'password authentication failed for user "{locked_role}"' in message
    assert "Check user, password and database in PG_CONNECTION_STRING" in message


def test_a_password_that_is_missing_is_asked_for(local_installation: Installation, command: Commands, locked_role: str):
    database = local_installation.database
    message = told(command("run", PG_CONNECTION_STRING=database.server.dsn(database.name, locked_role)), 1)
    assert message.startswith("Error: PostgreSQL refuses the connection: ")
    assert "no password supplied. Check user, password and database in PG_CONNECTION_STRING" in message


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


def test_a_database_that_does_not_exist(local_installation: Installation, command: Commands):
    conninfo = local_installation.database.server.dsn("nowhere")
    assert 'database "nowhere" does not exist' in told(command("run", PG_CONNECTION_STRING=conninfo), 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('ALTER TABLE "Event" RENAME TO event', 'public."Event" does not exist in database'),
        ('ALTER TABLE "Event" RENAME TO event', "Did you mean public.event?"),
        ('ALTER TABLE "Event" RENAME created_at TO at', 'public."Event" has no column created_at'),
        ('ALTER TABLE "Event" ALTER created_at TYPE text', "is of type text; EVENT_TIME_COLUMN must name a timestamp"),
        ('ALTER TABLE "Event" DROP COLUMN id, DROP COLUMN event_id', "has no key"),
        (
            """ALTER TABLE "Event" DROP COLUMN id, DROP COLUMN event_id;
            CREATE UNIQUE INDEX ON "Event" (event_type) WHERE event_type <> ''""",
            "has no key",
        ),
        (
            """ALTER TABLE "Event" DROP COLUMN id, DROP COLUMN event_id, ADD UNIQUE (event_type) DEFERRABLE""",
            "has no key",
        ),
        ('CREATE TABLE child () INHERITS ("Event")', "has inheritance children"),
        ('CREATE TABLE note (event bigint REFERENCES "Event" ON DELETE CASCADE)', "ON DELETE CASCADE"),
        ('CREATE TABLE note (event bigint REFERENCES "Event" ON DELETE SET NULL)', "ON DELETE SET NULL"),
    ],
)
def test_a_table_that_may_not_be_archived(local_installation: Installation, command: Commands, change: str, words: str):
    local_installation.add(1)
    local_installation.database.execute(change)
    # What a setting names in vain is a wrong setting.
    code = (
        2
        if any(
            named in words for named in ("does not exist", "has no column", "Did you mean", "is not a table", "of type")
        )
        else 1
    )
    for arguments in (["run"], ["run", KEY]):
        assert words in told(command(*arguments), code)
    table = "event" if "RENAME TO" in change else '"Event"'
    assert local_installation.database.execute(f"SELECT count(*) FROM {table}") == [(1,)]
    assert list(local_installation.lake.list(local_installation.dataset.folder)) == []


@pytest.mark.parametrize("arguments", [["run"], ["run", KEY], ["days"], ["adopt", KEY]], ids=" ".join)
@pytest.mark.parametrize("wrong", ["EVENT_TABLE", "EVENT_TIME_COLUMN"])
def test_a_setting_that_names_nothing_is_a_wrong_setting_in_every_command(
    local_installation: Installation, command: Commands, arguments: list[str], wrong: str
):
    local_installation.put(b"id\n1\n")
    done = command(*arguments, EVENT_FILE_PREFIX="events", **{wrong: "public.nowhere"})
    assert done.code == 2
    assert "public.nowhere" in done.said


def test_a_day_that_is_not_aged_is_wrong_usage(local_installation: Installation, command: Commands):
    today = datetime.now(UTC).date().isoformat()
    for arguments in (
        ["run", today],
        ["run", KEY, today],
        ["run", "--from", KEY, "--to", today],
        ["run", "2014-12-31"],
    ):
        assert told(command(*arguments), 2)


def test_a_role_that_may_not_delete_is_told_what_it_needs(local_installation: Installation, command: Commands):
    database = local_installation.database
    role = f"reader_{database.name}"
    local_installation.add(2)
    database.execute(f'CREATE ROLE {role} LOGIN; GRANT SELECT ON "Event" TO {role}')
    try:
        done = command("run", PG_CONNECTION_STRING=database.server.dsn(database.name, role))
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    message = told(done, 1)
    assert "permission denied for table Event" in message
    assert "SELECT and DELETE on the table" in message
    assert (done.end["failed"], local_installation.count()) == (1, 2)


def test_a_file_that_could_not_be_looked_at_was_not_adopted(local_installation: Installation, command: Commands):
    database = local_installation.database
    role = f"nobody_{database.name}"
    local_installation.put(b"id\n1\n")
    database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        done = command("adopt", KEY, PG_CONNECTION_STRING=database.server.dsn(database.name, role))
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    [line] = [line for line in done.lines if line.get("day") == KEY]
    assert (done.code, line["outcome"]) == (1, "failed")
    assert "Nothing was adopted. The role needs USAGE on the schema" in line["error"]


def test_a_role_that_rows_are_hidden_from_is_refused(local_installation: Installation, command: Commands):
    database = local_installation.database
    role = f"blinkered_{database.name}"
    local_installation.add(2)
    database.execute(
        f"""CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON "Event" TO {role};
        CREATE POLICY half ON "Event" TO {role} USING (id = 1); ALTER TABLE "Event" ENABLE ROW LEVEL SECURITY"""
    )
    try:
        done = command("run", PG_CONNECTION_STRING=database.server.dsn(database.name, role))
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert "Row security may hide rows of that table from the role in PG_CONNECTION_STRING: connect as" in told(done, 1)
    assert local_installation.count() == 2


@pytest.mark.parametrize("lacking", ["USAGE ON SCHEMA app", "SELECT ON app.child", "UPDATE ON app.child"])
@pytest.mark.parametrize("kind", ["", "PARTITION BY RANGE (id)"])
def test_a_foreign_keys_check_that_lacks_a_privilege_is_no_functions_fault(
    local_installation: Installation, command: Commands, lacking: str, kind: str
):
    """PostgreSQL makes it as the owner of the table that refers to the archived one."""
    database = local_installation.database
    role = f"referring_{database.name}"
    local_installation.add(2)
    database.execute(
        f"""CREATE SCHEMA app; CREATE TABLE app.child (id int PRIMARY KEY, event bigint REFERENCES "Event") {kind};
        CREATE ROLE {role}; GRANT USAGE ON SCHEMA app TO {role}; ALTER TABLE app.child OWNER TO {role};
        REVOKE {lacking} FROM {role}"""
    )
    try:
        done = command("run")
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert "PostgreSQL checks a foreign key as the owner of the table that it looks into" in told(done, 1)
    assert "permission denied for" in told(done, 1)
    assert local_installation.count() == 2


@pytest.mark.parametrize("action", ["NO ACTION", "RESTRICT"])
def test_a_foreign_key_that_forbids_the_delete_rolls_the_day_back(
    local_installation: Installation, command: Commands, action: str
):
    local_installation.add(3)
    local_installation.database.execute(
        f'CREATE TABLE note (event bigint CONSTRAINT told REFERENCES "Event" ON DELETE {action}); '
        "INSERT INTO note VALUES (2)"
    )
    done = command("run")
    message = told(done, 1)
    assert re.search(r'violates (RESTRICT setting of )?foreign key constraint "told"', message)
    assert (
        "Nothing was deleted. Rows of another table, or younger ones of this, still refer to rows of this day"
        in message
    )
    assert (done.end["deleted"], local_installation.count()) == (0, 3)


def test_a_session_that_the_server_ends_is_out_of_reach_and_not_a_bug(local_installation: Installation):
    database = local_installation.database

    def purge() -> None:
        with Postgres(database.dsn).transaction("day", advice=ARCHIVE_ADVICE) as connection:
            database.execute("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
            connection.execute("SELECT 1")

    with pytest.raises(UnreachableError, match="the next run goes on"):
        purge()


class Stop(BaseException):
    """What Dagster makes of a signal, which psycopg does not know as it knows KeyboardInterrupt."""


def test_a_statement_that_is_interrupted_ends_on_the_server_too(local_installation: Installation):
    database = local_installation.database
    asleep = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND query LIKE 'SELECT pg_sleep%%'"

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stop

    def stop_once_asleep() -> None:
        while not database.execute(asleep, database.name):
            pass
        os.kill(os.getpid(), signal.SIGUSR1)

    def sleep() -> None:
        with Postgres(database.dsn).transaction("day") as connection:
            waker.start()
            connection.execute("SELECT pg_sleep(60)")

    before = signal.signal(signal.SIGUSR1, stop)
    waker = threading.Thread(target=stop_once_asleep)
    try:
        with pytest.raises(Stop):
            sleep()
    finally:
        waker.join()
        signal.signal(signal.SIGUSR1, before)
    assert not database.execute(asleep + " AND state = 'active'", database.name)


def test_rows_of_no_day_are_reported_with_their_numbers(local_installation: Installation, command: Commands):
    database = local_installation.database
    local_installation.add(1)
    database.execute('ALTER TABLE "Event" ALTER created_at DROP NOT NULL, ALTER created_at DROP DEFAULT')
    for moment in (None, "infinity", "-infinity", "2014-12-31 23:59:59.999", "1999-01-01"):
        database.execute(
            "INSERT INTO \"Event\" (event_id, event_type, created_at, payload) VALUES (%s, 't', %s, '{}')",
            str(moment),
            moment,
        )
    words = (
        "2 rows lie before the first day that is archived, 2015-01-01: set ARCHIVE_START_DATE earlier to archive them; "
        "3 rows have NULL or infinity as created_at: give them a time. They stay in the table."
    )
    done = command("run")
    assert done.code == 0
    assert f'public."Event": {words}' in [line["message"] for line in done.lines if line["level"] == "warning"]
    assert local_installation.count() == 5
    assert words in command("days").stderr
    again = command("run")
    assert (again.code, again.end["message"]) == (0, "Nothing to do: no aged day has rows.")
    assert words in again.stdout


def test_a_lake_that_is_out_of_reach(
    azure_installation: Installation, azurite: Azurite, command: Commands, closed_port: int, clean: pytest.MonkeyPatch
):
    azure_installation.add(1)
    clean.setattr(client, "BoundedRetry", lambda _seconds: BoundedRetry(0.5))
    there = azurite.account_url.split("/")[2]
    connection_string = azurite.connection_string.replace(there, f"127.0.0.1:{closed_port}")
    done = command("run", AZURE_STORAGE_CONNECTION_STRING=connection_string)
    message = told(done, 1)
    assert "/archive: the Blob service did not answer, or broke off (Connection refused)" in message
    assert "events" not in message
    assert azurite.account_key not in done.said
    assert azure_installation.count() == 1


def test_a_wrong_account_key_is_not_repeated(azure_installation: Installation, azurite: Azurite, command: Commands):
    azure_installation.add(1)
    connection_string = azurite.connection_string.replace(azurite.account_key, ACCOUNT_KEY)
    message = told(command("run", AZURE_STORAGE_CONNECTION_STRING=connection_string), 1)
    assert "the Blob service refuses with 403 AuthenticationFailed" in message or "403 AuthorizationFailure" in message
    assert azure_installation.count() == 1


def signed(azurite: Azurite, permission: str) -> str:
    """A connection string that permits so much in the container, and nothing outside of it."""
    until = datetime.now(UTC) + timedelta(hours=1)
    signature = generate_container_sas(
        azurite.account_name, "archive", azurite.account_key, permission=permission, expiry=until
    )
    return f"BlobEndpoint={azurite.account_url};SharedAccessSignature={signature}"


def test_a_container_that_is_missing_and_may_not_be_created(
    azure_installation: Installation, azurite: Azurite, command: Commands
):
    azure_installation.add(1)
    message = told(command("run", AZURE_STORAGE_CONNECTION_STRING=signed(azurite, "rcwl")), 1)
    assert "404 ContainerNotFound. Create the container, or permit its creation." in message
    assert azure_installation.count() == 1


def test_a_signature_that_may_only_read(azure_installation: Installation, azurite: Azurite, command: Commands):
    azure_installation.add(1)
    with ContainerClient.from_connection_string(azurite.connection_string, "archive") as container:
        container.create_container()
    message = told(command("run", AZURE_STORAGE_CONNECTION_STRING=signed(azurite, "rl")), 1)
    assert "the Blob service refuses with 403" in message
    assert "the shared access signature the permissions read, create, write and list (rcwl)" in message
    assert azure_installation.count() == 1
    # And those four are enough.
    done = command("run", AZURE_STORAGE_CONNECTION_STRING=signed(azurite, "rcwl"))
    assert (done.code, done.end["deleted"]) == (0, 1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-20], "bytes, its manifest says"),
        (lambda content: content.replace(b"evt-2024-03-01-1,", b"evt-2024-03-01-9,"), "its manifest says sha256"),
    ],
    ids=["cut short", "edited"],
)
def test_a_file_that_somebody_changed_is_refused(
    installation: Installation, command: Commands, damage: Callable[[bytes], bytes], words: str
):
    installation.add(3)
    command("run")
    file = installation.lake.stat(installation.dataset.path(DAY))
    assert file is not None
    installation.put(damage(installation.content()), metadata=dict(file.metadata))
    changed = installation.content()
    installation.add(1, prefix="late")
    message = told(command("run"), 1)
    assert f"events_{KEY}.csv" in message
    assert words in message
    assert f"accept it as it stands with 'event-archive adopt {KEY}'" in message
    assert (installation.content(), installation.count()) == (changed, 1)


def test_a_file_of_another_tool_is_taken_over_with_every_row(installation: Installation, command: Commands):
    installation.add(1)
    installation.put(b'id,event_type,event_id,payload,created_at\r\n77,"t, u",x,{},2024-03-01T10:00:00\r\n')
    done = command("run")
    assert (done.code, done.end["rows"], done.end["deleted"]) == (0, 2, 1)
    assert installation.values("event_id") == ["x", f"evt-{KEY}-0"]


def test_something_that_is_no_archive_at_the_days_path_is_left_alone(installation: Installation, command: Commands):
    installation.add(1)
    installation.put(b"\x89PNG\r\n\x1a\n")
    message = told(command("run"), 1)
    assert "its first line is not the header of a CSV file" in message
    assert (installation.content(), installation.count()) == (b"\x89PNG\r\n\x1a\n", 1)


def test_a_file_in_the_archive_tier_is_refused_with_what_to_do(
    azure_installation: Installation, azurite: Azurite, command: Commands
):
    azure_installation.add(1)
    command("run")
    azure_installation.add(1, prefix="late")
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        blob = service.get_blob_client("archive", azure_installation.dataset.path(DAY))
        blob.set_standard_blob_tier("Archive")
    message = told(command("run"), 1)
    assert "409 BlobArchived. It is in the archive tier. Rehydrate it" in message
    assert azure_installation.count() == 1


def test_a_folder_that_may_not_be_written(local_installation: Installation, command: Commands):
    local_installation.add(1)
    path = local_installation.variables["ARCHIVE_LOCAL_PATH"]
    with open(path, "w"):  # noqa: PTH123 (a file where the folder should be)
        pass
    message = told(command("run"), 1)
    assert "Not a directory" in message or "File exists" in message
    assert local_installation.count() == 1

"""What people see where PostgreSQL, the role or the table is wrong: one message, an exit code, nothing lost."""

import os
import re
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from types import FrameType

import pytest

from event_archive.errors import UnreachableError
from event_archive.postgres.session import Postgres
from event_archive.table.advice import ARCHIVE_ADVICE
from event_archive_tests.fixtures.archived import KEY
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.postgres import password_role
from event_archive_tests.fixtures.telling import PASSWORD, told

pytestmark = pytest.mark.slow


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
        "2 rows lie before the first day that is archived, 2015-01-01: set ARCHIVE_START_DATE earlier to archive them "
        "(1000-01-01 at the earliest); "
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

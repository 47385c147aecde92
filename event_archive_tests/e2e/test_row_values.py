"""Whatever fails, no value of a row is in any message, log, alert or record: only the file and preview hold them."""

from pathlib import Path

import dagster as dg
import psycopg
import pytest

from event_archive.config.environment import PipelineSettings
from event_archive.defs import failures
from event_archive.defs.build import build_definitions
from event_archive.nightly import day as nightly
from event_archive.postgres.errors import without_values
from event_archive_tests.fixtures.installation import Commands, Finished, Installation
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

KEY = DAY.isoformat()
MARKER = "marker-nobody-may-see"
# The preview holds the first rows of a file.
ROWS_BEFORE = 8


def trigger(body: str, *, when: str = "BEFORE") -> str:
    """A trigger on every row that is deleted."""
    timing = "CONSTRAINT TRIGGER t AFTER" if when == "deferred" else f"TRIGGER t {when}"
    deferred = "DEFERRABLE INITIALLY DEFERRED" if when == "deferred" else ""
    return f"""
    CREATE TABLE audit (told text, kind text CHECK (kind <> 't'), number int);
    CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE found record;
    BEGIN
      IF OLD.event_id = '{MARKER}' THEN
        {body}
      END IF;
      RETURN OLD;
    END $$;
    CREATE {timing} DELETE ON "Event" {deferred} FOR EACH ROW EXECUTE FUNCTION keep()"""


RAISE = f"RAISE EXCEPTION 'row {MARKER} %', OLD USING DETAIL = OLD::text, HINT = OLD::text"
RAISED = "a function raised an exception: keep(), line 5 [SQLSTATE {}]"
FAILING_DELETES = {
    "a trigger that raises the row": (trigger(f"{RAISE};"), RAISED.format("P0001")),
    "a trigger that raises it under another code": (
        trigger(f"{RAISE}, ERRCODE = '23514';"), RAISED.format("23514")
    ),
    "a trigger that raises it as if it were a lock": (
        trigger(f"{RAISE}, ERRCODE = '55P03';"), f"{RAISED.format('55P03')}. Nothing was deleted. Look at that function"
    ),
    "a trigger that raises it as if the connection had broken": (
        trigger(f"{RAISE}, ERRCODE = '08006';"), f"{RAISED.format('08006')}. Nothing was deleted. Look at that function"
    ),
    "a trigger that raises it at the commit": (trigger(f"{RAISE};", when="deferred"), RAISED.format("P0001")),
    "a value that is no number": (
        trigger("PERFORM OLD.event_id::int;"), "invalid text representation in a function: keep(), line 5"
    ),
    "a row that is none": (
        trigger(f"SELECT 1 INTO STRICT found FROM \"Event\" WHERE event_id = OLD.event_id || '{MARKER}';"),
        RAISED.format("P0002"),
    ),
    "a check that fails": (
        trigger("INSERT INTO audit VALUES (OLD.event_id, 't', 1);"),
        "check violation in a function: keep(), line 5 [SQLSTATE 23514]. Nothing was deleted. Look at that function",
    ),
    "a statement that a function composed": (
        trigger("EXECUTE 'SELECT \"' || OLD.event_id || '\"';"), "undefined column in a function"
    ),
    "a sequence of that name": (trigger("PERFORM nextval(OLD.event_id);"), "in a function: keep(), line 5"),
    "a setting of that name": (
        trigger("PERFORM set_config(OLD.event_id, 'x', true);"), "in a function: keep(), line 5"
    ),
    "a table of that name": (trigger("PERFORM OLD.event_id::regclass;"), "in a function: keep(), line 5"),
    "a file of that name": (trigger("PERFORM pg_read_file(OLD.event_id);"), "in a function: keep(), line 5"),
    "a statement composed to drop it": (
        trigger("EXECUTE format('DROP TABLE %I', OLD.event_id);"), "in a function: keep()"
    ),
    "a key that is referenced": (
        f"""CREATE TABLE note (event text CONSTRAINT told REFERENCES "Event" (event_id));
        INSERT INTO note VALUES ('{MARKER}')""",
        'violates foreign key constraint "told"',
    ),
    "a statement that is cancelled": (
        trigger("PERFORM pg_cancel_backend(pg_backend_pid()), pg_sleep(5), OLD.event_id;"), "[SQLSTATE 57014]"
    ),
    "a connection that is cut": (
        trigger("PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(5), OLD.event_id;"), "[SQLSTATE 57P01]"
    ),
    "a resource that is short": (
        trigger("RAISE EXCEPTION '%', OLD USING ERRCODE = '53200';"), "Nothing was deleted. Look at that function"
    ),
}  # fmt: skip


@pytest.fixture
def impatient(clean: pytest.MonkeyPatch) -> None:
    """Nothing waits before it tries again."""
    clean.setattr(failures, "RETRY_SECONDS", 0)
    clean.setattr(nightly, "_RETRY_AFTER_SECONDS", ())


@pytest.fixture
def planted(local_installation: Installation, impatient: None) -> Installation:
    """A day whose last row, beyond the preview, holds the marker as a key, in its type and in its payload."""
    local_installation.add(ROWS_BEFORE)
    local_installation.database.execute(
        """INSERT INTO "Event" (event_id, event_type, created_at, payload)
        VALUES (%s, %s, '2024-03-01 23:00', jsonb_build_object('text', %s::text))""",
        *[MARKER] * 3,
    )
    return local_installation


def traces(home: Path, *texts: str) -> list[str]:
    """Where the marker is found."""
    files = [path for path in home.rglob("*") if path.is_file()]
    found = [str(path) for path in files if MARKER.encode() in path.read_bytes()]
    return found + [text for text in texts if MARKER in text]


@pytest.mark.parametrize("kind", FAILING_DELETES)
def test_no_value_is_told_by_a_command_whose_delete_fails(
    planted: Installation, command: Commands, home: Path, webhook: Webhook, caplog: pytest.LogCaptureFixture, kind: str
):
    statements, words = FAILING_DELETES[kind]
    planted.database.execute(statements)
    done = command("run", DAGSTER_HOME=str(home), ALERT_WEBHOOK_URL=webhook.url)
    assert done.code == 1
    assert words in done.days[KEY]["error"]
    assert words in webhook.texts[0]
    assert traces(home, done.said, caplog.text, *webhook.texts) == []


@pytest.mark.parametrize("kind", FAILING_DELETES)
def test_no_value_is_in_dagsters_records_where_a_delete_fails(
    planted: Installation,
    home: Path,
    instance: dg.DagsterInstance,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    kind: str,
):
    statements, words = FAILING_DELETES[kind]
    planted.database.execute(statements)
    job = build_definitions(PipelineSettings.load()).resolve_job_def("archive_job")
    result = job.execute_in_process(partition_key=KEY, instance=instance, raise_on_error=False)
    assert not result.success
    events = [str(entry) for entry in instance.all_logs(result.run_id)]
    assert any(words in event for event in events)
    said = capfd.readouterr()
    assert traces(home, *events, caplog.text, said.out, said.err) == []


HEADER = "id,event_id,event_type,created_at,processed_at,payload\n"
GOOD = "".join(f"{n},e{n},t,2024-03-01 00:00:0{n},,{{}}\n" for n in range(ROWS_BEFORE))
LINE = f"line {ROWS_BEFORE + 2}"
DAMAGED = {
    "a key that is no number": (
        f"{MARKER},{MARKER},t,2024-03-01 01:00:00,,{{}}\n",
        f"invalid text representation ({LINE}, column id)",
    ),
    "a value that is no JSON": (
        f"9,{MARKER},t,2024-03-01 01:00:00,,{{{MARKER}\n",
        f"invalid text representation ({LINE}, column payload)",
    ),
    "a field too many": (
        f"9,{MARKER},t,2024-03-01 01:00:00,,{{}},{MARKER}\n",
        f"extra data after last expected column ({LINE})",
    ),
    "a field too few": (f"9,{MARKER}\n", f'missing data for column "event_type" ({LINE})'),
    "a quote that does not end": (
        f'9,"{MARKER},t,2024-03-01 01:00:00,,{{}}\n',
        f"unterminated CSV quoted field (line {ROWS_BEFORE + 4})",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("arguments", [["run"], ["adopt", KEY], ["verify"], ["restore", KEY]], ids=" ".join)
def test_no_value_of_a_damaged_file_is_told_but_where_it_stands(
    local_installation: Installation,
    command: Commands,
    home: Path,
    webhook: Webhook,
    arguments: list[str],
    kind: str,
):
    line, words = DAMAGED[kind]
    local_installation.add(1)
    # A second bad line, which no reading passes.
    local_installation.put(f"{HEADER}{GOOD}{line}x,{MARKER},,,,,,{MARKER}\n".encode())
    done = command(*arguments, DAGSTER_HOME=str(home), ALERT_WEBHOOK_URL=webhook.url)
    assert done.code == 1
    if arguments != ["verify"]:
        assert f'": {words}. ' in done.days[KEY]["error"]
    assert traces(home, done.said, *webhook.texts) == []
    assert local_installation.count() == 1


def test_no_value_is_told_where_a_restore_meets_a_unique_value(planted: Installation, command: Commands, home: Path):
    def restore() -> Finished:
        return command("restore", KEY, "--in-place", DAGSTER_HOME=str(home))

    assert command("run").code == 0
    planted.database.execute(
        """INSERT INTO "Event" (id, event_id, event_type, created_at, payload)
        VALUES (99, %s, 't', '2024-03-01', '{}')""",
        MARKER,
    )
    done = restore()
    assert done.code == 1
    assert 'duplicate key value violates unique constraint "Event_event_id_key"' in done.days[KEY]["error"]
    assert traces(home, done.said) == []
    planted.database.execute(
        f"""TRUNCATE "Event"; ALTER TABLE "Event" ADD CHECK (event_id <> '{MARKER[:6]}' || '{MARKER[6:]}')"""
    )
    done = restore()
    assert 'violates check constraint "Event_event_id_check"' in done.days[KEY]["error"]
    assert traces(home, done.said) == []


def failed(database: Database, statement: str) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as raised:
        database.execute(statement)
    return raised.value


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("SELECT 1/0", "division by zero"),
        ("SELECT '2024-13-01'::date", "datetime field overflow"),
        ("SELECT '\\xff'::bytea::text::json", "invalid text representation"),
        ('SELECT 123456789012::int', "numeric value out of range"),
        ("CREATE TABLE v (v varchar(2)); INSERT INTO v VALUES ('abc')", "string data right truncation"),
        (
            "CREATE DOMAIN d AS int CHECK (VALUE > 0); SELECT (-5)::d",
            'value for domain d violates check constraint "d_check"',
        ),
        (
            "CREATE TABLE n (n int NOT NULL); INSERT INTO n VALUES (NULL)",
            'null value in column "n" of relation "n" violates not-null constraint',
        ),
        ("SELECT nowhere(1)", "function nowhere(integer) does not exist. "),
        ('SELECT 1 FROM "Evant"', 'relation "Evant" does not exist'),
        ("DO $$ BEGIN RAISE 'x'; END $$", "a function raised an exception: inline_code_block, line 1"),
        ("DO $$ BEGIN ASSERT false, 'x'; END $$", "a function raised an exception: inline_code_block, line 1"),
        ("SELECT lo_get(7)", "large object 7 does not exist"),
    ],
)  # fmt: skip
def test_what_postgresql_says_is_told_without_values(database: Database, statement: str, words: str):
    told = without_values(failed(database, statement))
    assert told == words or (words.endswith(". ") and told.startswith(words) and len(told) > len(words))

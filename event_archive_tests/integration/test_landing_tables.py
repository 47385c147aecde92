"""The tables of a landing: made once, by whoever may; names, schemas and triggers of others."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import RefusedError
from event_archive.postgres.session import Postgres
from event_archive.sources.copy_format import line
from event_archive.sources.landing import Batch, Counts, Rejected, rejected_table
from event_archive.sources.merge import Target
from event_archive.sources.tables import make_missing
from event_archive_tests.fixtures.landing import IGNORE, UPDATE, batch, land, landed, nothing, rows
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.statements import LOGS_COMMANDS


def test_a_trigger_of_the_users_finds_what_it_names_without_a_schema(measurements: Database):
    landed(measurements, UPDATE, Batch())
    measurements.execute(
        """
        CREATE TABLE audit (id text, what text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN INSERT INTO audit VALUES (new.id, tg_op); RETURN NULL; END $$;
        CREATE TRIGGER note AFTER INSERT OR UPDATE ON measurements FOR EACH ROW EXECUTE FUNCTION note();
        CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN INSERT INTO audit VALUES (new.locator, 'REJECTED'); RETURN NULL; END $$;
        CREATE TRIGGER tell AFTER INSERT ON rejected_records FOR EACH ROW EXECUTE FUNCTION tell()
        """
    )
    landed(
        measurements, UPDATE, batch(("a", "01", "1")), batch(("a", "02", "2")), batch(("a", "02", "2"), rejected=("x",))
    )
    assert measurements.execute("SELECT what FROM audit") == [("INSERT",), ("UPDATE",), ("REJECTED",)]


def test_names_that_need_quotes_are_quoted(each_database: Database):
    each_database.execute('CREATE SCHEMA "My ""schema"; CREATE TABLE "My ""schema"."T%x" ("The id" text PRIMARY KEY)')
    target = Target(TableName('My "schema', "T%x"), [("The id", "text")], ("The id",))
    with Postgres(each_database.dsn).session() as session:
        make_missing(session, rejected_table(target))
        land(session, target, "test", Batch([line((b"a",))], rejected=[Rejected("x", "y", b"z")]), nothing)
    assert each_database.execute('SELECT "The id" FROM "My ""schema"."T%x"') == [("a",)]
    assert each_database.execute('SELECT locator FROM "My ""schema".rejected_records') == [("x",)]


SOURCES = [TableName("public", name) for name in ("ingested_events", "cursor_state", "rejected_records")]


def test_processes_that_start_at_once_make_the_missing_tables_once(each_database: Database):
    barrier = threading.Barrier(4)

    def make(_number: int) -> int:
        with Postgres(each_database.dsn).session() as session:
            barrier.wait()
            return len(make_missing(session, *SOURCES))

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(make, range(4))) == 3
    with Postgres(each_database.dsn).session() as session:
        assert make_missing(session, *SOURCES) == []


@pytest.fixture
def poor_role(each_database: Database) -> Iterator[str]:
    """A role that may connect, and nothing else."""
    role = f"poor_{each_database.name}"
    each_database.execute(f"CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM public")
    yield role
    each_database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_role_that_may_not_make_a_table_is_told_the_statement_which_works(each_database: Database, poor_role: str):
    poor = Postgres(each_database.server.dsn(each_database.name, poor_role))
    for measurements in SOURCES:
        with poor.session() as session, pytest.raises(RefusedError, match="may not make it") as refused:
            make_missing(session, measurements)
        each_database.execute(str(refused.value).partition("on it:\n")[2].partition(" [SQLSTATE")[0])
    with poor.session() as session:
        assert make_missing(session, *SOURCES) == []


def test_a_role_that_may_make_no_table_is_told_all_the_statements_at_once(each_database: Database, poor_role: str):
    poor = Postgres(each_database.server.dsn(each_database.name, poor_role))
    with poor.session() as session, pytest.raises(RefusedError, match="may not make them") as refused:
        make_missing(session, *SOURCES)
    each_database.execute(str(refused.value).partition("on them:\n")[2].partition(" [SQLSTATE")[0])
    with poor.session() as session:
        assert make_missing(session, *SOURCES) == []


def test_a_role_that_may_not_insert_is_told_what_to_grant(measurements: Database, poor_role: str):
    landed(measurements, IGNORE, Batch())
    poor = Postgres(measurements.server.dsn(measurements.name, poor_role))
    with poor.session() as session, pytest.raises(RefusedError, match="needs SELECT, INSERT and UPDATE on public.mea"):
        land(session, IGNORE, "test", batch(("a", "01", "1")), nothing)
    measurements.execute(f"GRANT SELECT, INSERT ON measurements, rejected_records TO {poor_role}")
    with poor.session() as session:
        land(session, IGNORE, "test", batch(("a", "01", "1"), rejected=("x",)), nothing)
    assert len(rows(measurements)) == 1


def test_a_schema_of_its_own_takes_the_tables(each_database: Database):
    each_database.execute('CREATE SCHEMA "Ingest"')
    with Postgres(each_database.dsn).session() as session:
        make_missing(session, *(TableName("Ingest", measurements.name) for measurements in SOURCES))
    query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'Ingest'"
    assert each_database.execute(query) == [(3,)]


def test_an_event_trigger_of_the_users_finds_what_it_names_without_a_schema(measurements: Database):
    measurements.execute(LOGS_COMMANDS)
    assert landed(measurements, UPDATE, batch(("a", "01", "1"), rejected=("x",))) == [
        Counts(taken=2, new=1, rejected=1)
    ]
    with Postgres(measurements.dsn).session() as session:
        assert make_missing(session, *SOURCES) == SOURCES[:2]
    (made,) = measurements.execute("SELECT count(*) FROM commands WHERE tag = 'CREATE TABLE'")
    assert made == (5,)


GIVES_TRIGGERS = """
CREATE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.at := now(); RETURN new; END $$;
CREATE FUNCTION gives() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE made record; BEGIN
  FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_identity LIKE '%measurements' LOOP
    EXECUTE format('CREATE TRIGGER moves BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION moves()',
                   made.object_identity);
  END LOOP; END $$;
CREATE EVENT TRIGGER gives ON ddl_command_end WHEN tag IN ('CREATE TABLE') EXECUTE FUNCTION gives()
"""


def test_triggers_that_an_event_trigger_gives_new_tables_do_not_touch_what_lands(measurements: Database):
    measurements.execute(GIVES_TRIGGERS)
    landed(measurements, UPDATE, batch(("a", "02", "1")), batch(("b", "03", "1")))
    assert rows(measurements) == [("a", 2, 1), ("b", 3, 1)]

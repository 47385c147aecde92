"""The system catalogue is asked by names that nobody can put something else behind."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import event_archive
from event_archive.domain.dataset import TableName
from event_archive.errors import RefusedError
from event_archive.postgres.catalogue.columns import default_of
from event_archive.postgres.catalogue.dependents import delete_triggers, references, shares_rows
from event_archive.postgres.catalogue.relations import Relation, comment_on, relation
from event_archive.postgres.catalogue.sequences import Position, position_of, sequences_behind, set_next
from event_archive.postgres.session import Postgres
from event_archive.table.rows import days_with_rows
from event_archive.table.shape import reflect
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database

HOUSE = Path(event_archive.__file__).parent
CATALOGUE_NAMES = r"(?:pg_|to_reg)\w+|reg(?:class|type|role|namespace|proc\w*|oper\w*)\b"
NO_CATALOGUE_NAMES = {"pg_catalog", "pg_temp", "pg_read_all_stats"}
# What only looks like a function.
SYNTAX = {"coalesce", "extract"}
CASCADING = """
CREATE TABLE t (a int PRIMARY KEY, at date);
CREATE TABLE c (a int REFERENCES t ON DELETE CASCADE);
"""
_KEYWORD = re.compile(r"\b(SELECT|FROM|JOIN|UPDATE|DELETE|INSERT|LOCK|CREATE|ALTER)\b.*\S")


def sql_of(path: Path) -> Iterator[str]:
    """The SQL among a module's constants."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _KEYWORD.search(node.value):
            yield node.value


def unqualified(statement: str, names: str) -> set[str]:
    """The names in a statement before which no ``pg_catalog.`` stands."""
    return set(re.findall(rf"(?<![\w.])({names})", statement))


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda path: str(path.relative_to(HOUSE)))
def test_no_sql_names_a_part_of_the_catalogue_without_its_schema(path: Path):
    found = {name for statement in sql_of(path) for name in unqualified(statement, CATALOGUE_NAMES)}
    assert found - NO_CATALOGUE_NAMES == set()


@pytest.mark.parametrize("path", sorted(HOUSE.glob("postgres/catalogue/*.py")), ids=lambda path: path.name)
def test_no_question_to_the_catalogue_calls_a_function_without_its_schema(path: Path, database: Database):
    functions = {name for (name,) in database.execute("SELECT proname FROM pg_proc WHERE pronamespace = 11")}
    called = {name for statement in sql_of(path) for name in unqualified(statement, r"\w+(?=\()")}
    assert called & functions - SYNTAX == set()


@pytest.mark.parametrize("hidden", ["pg_constraint", "pg_class", "pg_namespace", "pg_index", "pg_inherits"])
def test_a_temporary_table_of_the_catalogues_name_hides_no_cascade(pipeline: Pipeline, hidden: str):
    pipeline.database.execute(CASCADING)
    dataset = pipeline.of(table=TableName("public", "t"), time_column="at").dataset
    with pipeline.postgres.transaction("test") as connection:
        connection.execute(f"CREATE TEMPORARY TABLE {hidden} (LIKE pg_catalog.{hidden})".encode())
        with pytest.raises(RefusedError, match="CASCADE"):
            reflect(connection, dataset)


def test_a_temporary_table_of_a_types_name_hides_no_type(pipeline: Pipeline):
    pipeline.add(2)
    with pipeline.postgres.transaction("test") as connection:
        for name in ("text", "date", "float8"):
            connection.execute(f'CREATE TEMPORARY TABLE "{name}" (x int)'.encode())
        table = reflect(connection, pipeline.dataset)
        assert days_with_rows(connection, table, DAY, DAY) == [DAY]


def test_a_search_path_hides_no_cascade(pipeline: Pipeline):
    pipeline.database.execute(
        f"""{CASCADING} CREATE SCHEMA app; CREATE TABLE app.pg_constraint (LIKE pg_catalog.pg_constraint);
        CREATE FUNCTION app.pg_partition_tree(regclass) RETURNS TABLE (relid regclass) LANGUAGE sql AS 'SELECT NULL';
        ALTER DATABASE {pipeline.database.name} SET search_path = app, public, pg_catalog"""
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    with pytest.raises(RefusedError, match="CASCADE"):
        of.archive()


def found(database: Database, name: str) -> Relation:
    with Postgres(database.dsn).transaction("test") as connection:
        present = relation(connection, "public", name)
    assert present is not None, f"there is no {name}"
    return present


PARTITIONED = """
CREATE TABLE whole (a int PRIMARY KEY) PARTITION BY RANGE (a);
CREATE TABLE part PARTITION OF whole FOR VALUES FROM (0) TO (9);
CREATE TABLE c (a int REFERENCES whole ON DELETE CASCADE);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
CREATE TRIGGER fires AFTER DELETE ON whole FOR EACH ROW EXECUTE FUNCTION f();
"""


@pytest.mark.parametrize("name", ["whole", "part"])
def test_what_hangs_on_a_partitioned_table_is_found_once_by_it_and_by_its_partition(each_database: Database, name: str):
    each_database.execute(PARTITIONED)
    oid = found(each_database, name).oid
    with Postgres(each_database.dsn).transaction("test") as connection:
        assert [(reference.table, reference.on_delete) for reference in references(connection, oid)] == [("c", "c")]
        assert delete_triggers(connection, oid) == [("fires", "public.f")]


def test_a_trigger_that_no_delete_fires_is_not_found(database: Database):
    database.execute(
        f"""{PARTITIONED}
        CREATE TRIGGER on_update AFTER UPDATE ON whole FOR EACH ROW EXECUTE FUNCTION f();
        CREATE TRIGGER off BEFORE DELETE ON whole EXECUTE FUNCTION f(); ALTER TABLE whole DISABLE TRIGGER off;
        CREATE TRIGGER of_a_replica BEFORE DELETE ON whole EXECUTE FUNCTION f();
        ALTER TABLE whole ENABLE REPLICA TRIGGER of_a_replica"""
    )
    oid = found(database, "whole").oid
    with Postgres(database.dsn).transaction("test") as connection:
        assert delete_triggers(connection, oid) == [("fires", "public.f")]


def test_tables_that_share_rows_are_told_from_others(database: Database):
    database.execute(f"{PARTITIONED} CREATE TABLE other (); CREATE TABLE child () INHERITS (other)")
    whole, part, other, child = (found(database, name).oid for name in ("whole", "part", "other", "child"))
    with Postgres(database.dsn).transaction("test") as connection:
        for one, two in [(whole, part), (part, whole), (other, child), (child, other), (part, part)]:
            assert shares_rows(connection, one, two)
        assert not shares_rows(connection, whole, other)
        assert not shares_rows(connection, part, child)


def test_what_is_not_there_is_none(database: Database):
    database.execute('ALTER TABLE "Event" ADD at timestamp GENERATED ALWAYS AS (created_at) STORED')
    oid = found(database, "Event").oid
    with Postgres(database.dsn).transaction("test") as connection:
        assert relation(connection, "public", "nothing") is None
        assert comment_on(connection, oid) is None
        assert default_of(connection, oid, "event_id") is None
        assert default_of(connection, oid, "at") is None, "nobody may set it"
        assert default_of(connection, oid, "created_at") == "CURRENT_TIMESTAMP"


def test_a_sequence_that_begins_again_at_its_end_is_none_to_move(database: Database):
    database.execute('ALTER SEQUENCE "Event_id_seq" CYCLE')
    oid = found(database, "Event").oid
    with Postgres(database.dsn).transaction("test") as connection:
        assert sequences_behind(connection, oid) == []


def test_a_sequence_that_moved_meanwhile_is_left_alone(database: Database):
    with Postgres(database.dsn).transaction("test") as connection:
        found = relation(connection, "public", "Event")
        assert found is not None
        (behind,) = sequences_behind(connection, found.oid)
        stands = position_of(connection, behind)
        assert stands == Position(next=1, last=1, called=False)
        database.execute("SELECT nextval('\"Event_id_seq\"')")
        assert not set_next(connection, behind, 5, unless_moved_from=stands)
        stands = position_of(connection, behind)
        assert stands == Position(next=2, last=1, called=True)
        database.execute("SELECT nextval('\"Event_id_seq\"')")
        assert not set_next(connection, behind, 5, unless_moved_from=stands)
        assert set_next(connection, behind, 5, unless_moved_from=position_of(connection, behind))
    assert database.execute("SELECT nextval('\"Event_id_seq\"')") == [(5,)]

"""Two rows are one only where the key's own index says so, wherever its type and its operators lie."""

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import RefusedError
from event_archive.operations.restore.day import restore_day
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, T, of_table, rows_of
from event_archive_tests.fixtures.statements import CI


@pytest.mark.parametrize(
    ("columns", "index"),
    [
        ("k text COLLATE \"C\" NOT NULL", '(k COLLATE "POSIX")'),
        ("k text NOT NULL", "(k text_pattern_ops)"),
        ("k text NOT NULL", "(k bpchar_ops)"),
        ("k varchar(9) NOT NULL", "(k bpchar_ops)"),
        ("k pair NOT NULL", "(k record_image_ops)"),
    ],
)  # fmt: skip
def test_an_index_of_another_equality_is_no_key(pipeline: Pipeline, columns: str, index: str):
    of = of_table(
        pipeline,
        f"""CREATE TYPE pair AS (a numeric, b int);
        CREATE TABLE t ({columns}, at timestamp); CREATE UNIQUE INDEX odd ON t {index}""",
    )
    with pytest.raises(RefusedError, match=r"no key: .* \(odd compares with another operator class or collation"):
        of.archive()


def test_two_rows_that_only_another_operator_class_tells_apart_are_not_merged(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TYPE pair AS (a numeric, b int); CREATE TABLE t (k pair NOT NULL, at timestamp, note text);
        CREATE UNIQUE INDEX odd ON t (k record_image_ops);
        INSERT INTO t VALUES ((1.0, 1), '2024-03-01 08:00', 'first'), ((1.00, 1), '2024-03-01 08:00', 'second')""",
    )
    with pytest.raises(RefusedError, match="no key"):
        of.archive()
    assert of.count() == 2


@pytest.mark.parametrize(
    "column",
    ["varchar(9)", "bpchar", 'text COLLATE "POSIX"', "dom", "int[]", "mood", "int4range", "cidr", "pair", "ext.ci"],
)
def test_an_ordinary_key_of_any_type_is_one(pipeline: Pipeline, column: str):
    values = {"int[]": "{1,2}", "mood": "sad", "int4range": "[1,3)", "cidr": "10.0.0.0/8", "pair": "(1.50,2)"}
    of = of_table(
        pipeline,
        f"""{CI} CREATE TYPE pair AS (a numeric, b int); CREATE TYPE mood AS ENUM ('sad', 'glad');
        CREATE DOMAIN dom AS varchar(9); CREATE TABLE t (k {column} PRIMARY KEY, at timestamp, note text);
        INSERT INTO t VALUES ('{values.get(column, "x")}', '2024-03-01 08:00', 'a')""",
    )
    of.archive()
    of.database.execute("UPDATE t SET note = 'b'")
    assert of.archive().rows == 2
    assert of.purge().deleted == 1


def test_a_key_of_a_real_extensions_type_is_one(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext;
        CREATE TABLE t (k ext.vector(2) PRIMARY KEY, at timestamp, note text);
        INSERT INTO t VALUES ('[1,2]', '2024-03-01 08:00', 'a'), ('[1,3]', '2024-03-01 08:00', 'a')""",
    )
    of.archive()
    of.database.execute("UPDATE t SET note = 'b' WHERE note = 'a' AND k::text = '[1,2]'")
    assert of.archive().rows == 3
    assert of.purge().deleted == 2


def test_a_key_of_an_extensions_type_is_compared_as_that_is_where_it_lies_on_no_path(pipeline: Pipeline):
    of = of_table(
        pipeline,
        f"""{CI} CREATE TABLE t (k ext.ci PRIMARY KEY, at timestamp, note text);
        INSERT INTO t VALUES ('Key', '2024-03-01 08:00', 'a')""",
    )
    of.archive()
    of.database.execute("UPDATE t SET k = 'KEY', note = 'b'")
    assert of.archive().rows == 2
    assert of.purge().deleted == 1
    assert of.count() == 0
    restored = restore_day(of.site, DAY, T)
    assert (restored.restored, restored.superseded) == (1, 1)


def test_a_trigger_finds_what_it_names_without_a_schema(pipeline: Pipeline):
    pipeline.database.execute(
        f"""CREATE SCHEMA app; CREATE TABLE app.audit (id bigint);
        CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS
          'BEGIN INSERT INTO audit VALUES (OLD.id); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER noted AFTER DELETE ON "Event" DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION app.note();
        ALTER DATABASE {pipeline.database.name} SET search_path = app, public"""
    )
    pipeline.add(3)
    assert pipeline.run().deleted == 3
    assert rows_of(pipeline, "app.audit") == 3


@pytest.mark.parametrize("trigger", [False, True], ids=["without a trigger", "with a trigger"])
def test_a_name_of_a_table_reads_as_it_does_in_the_file(pipeline: Pipeline, trigger: bool):
    pipeline.database.execute(
        """CREATE TABLE here (); CREATE TABLE gone (); CREATE TABLE t (id int PRIMARY KEY, at date, named regclass);
        INSERT INTO t VALUES (1, '2024-03-01', 'here'), (2, '2024-03-01', 'gone')"""
    )
    if trigger:
        pipeline.database.execute(
            """CREATE FUNCTION lets_go() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
            CREATE TRIGGER lets_go BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION lets_go()"""
        )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    of.archive()
    # The file's name of it no longer parses, so that the column is compared as text.
    pipeline.database.execute("DROP TABLE gone")
    assert of.purge().deleted == 1


def test_operators_of_another_schema_are_not_taken_for_postgresqls(pipeline: Pipeline):
    """A comparison that always holds stands first in the path: without names with schemas, all rows would go.

    The trigger has the DELETE run with the database's own path, where the pin protects nothing.
    """
    pipeline.database.execute(
        f"""CREATE SCHEMA evil;
        CREATE FUNCTION evil.yes(bigint, bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
        CREATE FUNCTION evil.yes(timestamp, timestamp) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
        CREATE FUNCTION evil.yes(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
        CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.yes);
        CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.yes);
        CREATE OPERATOR evil.< (LEFTARG = timestamp, RIGHTARG = timestamp, FUNCTION = evil.yes);
        CREATE OPERATOR evil.>= (LEFTARG = timestamp, RIGHTARG = timestamp, FUNCTION = evil.yes);
        CREATE FUNCTION let_go() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
        CREATE TRIGGER let_go BEFORE DELETE ON "Event" FOR EACH ROW EXECUTE FUNCTION let_go();
        ALTER DATABASE {pipeline.database.name} SET search_path = evil, pg_catalog, public"""
    )
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute("""UPDATE "Event" SET payload = '{"new": 1}' WHERE id OPERATOR(pg_catalog.=) 2""")
    purged = pipeline.purge()
    assert (purged.deleted, purged.left) == (2, 1)

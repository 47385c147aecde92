"""Which tables may be archived, and what is found in them."""

from datetime import date

import pytest

from event_archive.domain.dataset import TableName, quoted
from event_archive.domain.days import ONE_DAY
from event_archive.errors import NoSuchTableError, RefusedError
from event_archive.table.key import key_of
from event_archive.table.rows import Orphans, count_orphans, days_with_rows, first_day_with_rows, rows_by_day
from event_archive.table.shape import Table, reflect
from event_archive_tests.fixtures.pipeline import Pipeline


def shape(pipeline: Pipeline) -> Table:
    with pipeline.postgres.transaction("test") as connection:
        return reflect(connection, pipeline.dataset)


def table(pipeline: Pipeline, definition: str) -> Pipeline:
    pipeline.database.execute(definition)
    return pipeline.of(table=TableName("public", "t"), time_column="at")


def test_the_specifications_table(pipeline: Pipeline):
    found = shape(pipeline)
    assert found.names == ("id", "event_id", "event_type", "created_at", "processed_at", "payload")
    assert [column.nullable for column in found.columns] == [False, False, False, False, True, False]
    assert found.columns[3].type == "timestamp(3) without time zone"
    assert (found.key, found.time_indexed) == (("id",), True)


@pytest.mark.parametrize(
    ("definition", "key"),
    [
        ("CREATE TABLE t (a int, b int, at date, PRIMARY KEY (b, a))", ("b", "a")),
        ("CREATE TABLE t (a int NOT NULL UNIQUE, at date)", ("a",)),
        ("CREATE TABLE t (a int, b text, at date, UNIQUE (a)); ALTER TABLE t ALTER a SET NOT NULL", ("a",)),
        ("CREATE TABLE t (a int NOT NULL, b int, at date); CREATE UNIQUE INDEX ON t (a) INCLUDE (b)", ("a",)),
        ("CREATE TABLE t (a int NOT NULL, b int PRIMARY KEY DEFERRABLE, at date, UNIQUE (a))", ("a",)),
        ("CREATE TABLE t (a int, at date, PRIMARY KEY (a, at)) PARTITION BY RANGE (at)", ("a", "at")),
    ],
)
def test_a_key_is_found(pipeline: Pipeline, definition: str, key: tuple[str, ...]):
    assert shape(table(pipeline, definition)).key == key


def test_an_index_of_another_equality_is_no_key_of_a_file_either(pipeline: Pipeline):
    pipeline.database.execute("CREATE TABLE t (a text NOT NULL); CREATE UNIQUE INDEX ON t (a text_pattern_ops)")
    with pipeline.postgres.transaction("test") as connection:
        assert key_of(connection, TableName("public", "t")) == ()


def test_a_rule_on_updates_harms_nobody(pipeline: Pipeline):
    definition = "CREATE TABLE t (a int PRIMARY KEY, at date); CREATE RULE r AS ON UPDATE TO t DO INSTEAD NOTHING"
    assert shape(table(pipeline, definition)).key == ("a",)


def test_a_column_is_read_back_under_its_own_collation(pipeline: Pipeline):
    """Which values of a key are equal may depend on it."""
    found = shape(table(pipeline, 'CREATE TABLE t (a text COLLATE "POSIX" PRIMARY KEY, at date)'))
    assert found.columns[0].definition.as_string(None) == 'pg_catalog.text COLLATE pg_catalog."POSIX"'


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("CREATE TABLE t (a int, at date)", "has no key"),
        ("CREATE TABLE t (a int UNIQUE, at date)", "has no key"),
        ("CREATE TABLE t (a int NOT NULL, at date); CREATE INDEX ON t (a)", "has no key"),
        (
            """CREATE TABLE t (a int PRIMARY KEY, at date);
            UPDATE pg_index SET indisvalid = false WHERE indrelid = 't'::regclass""",
            "has no key",
        ),
        ("CREATE TABLE t (a int NOT NULL, at date); CREATE UNIQUE INDEX ON t (a) WHERE a > 0", "has no key"),
        ("CREATE TABLE t (a int NOT NULL, at date); CREATE UNIQUE INDEX ON t (abs(a))", "has no key"),
        ("CREATE TABLE t (a int NOT NULL, b int, at date); CREATE UNIQUE INDEX ON t (a, abs(b))", "has no key"),
        ("CREATE TABLE t (a int NOT NULL, at date, UNIQUE (a) DEFERRABLE)", "has no key"),
        ("CREATE TABLE t (a int PRIMARY KEY, at date); CREATE TABLE child () INHERITS (t)", "inheritance children"),
        (
            "CREATE TABLE t (a int PRIMARY KEY, at date); CREATE TABLE c (a int REFERENCES t ON DELETE CASCADE)",
            "CASCADE",
        ),
        (
            "CREATE TABLE t (a int PRIMARY KEY, at date); CREATE TABLE c (a int REFERENCES t ON DELETE SET NULL)",
            "SET NULL",
        ),
        (
            "CREATE TABLE t (a int PRIMARY KEY, at date); CREATE TABLE c (a int REFERENCES t ON DELETE SET DEFAULT)",
            "SET DEFAULT",
        ),
        ("CREATE VIEW t AS SELECT now() AS at", "not a table"),
        ("CREATE SEQUENCE t", "not a table"),
        ('CREATE TABLE t (a int PRIMARY KEY, "At" date)', 'no column at.*the table has a, "At"'),
        ("CREATE TABLE t (a int PRIMARY KEY, at text)", "is of type text"),
        ("CREATE TABLE t (a int PRIMARY KEY, at time)", "is of type time"),
        ("CREATE SCHEMA s", "does not exist in database.*EVENT_TABLE"),
    ],
)
def test_what_may_not_be_archived_is_refused(pipeline: Pipeline, definition: str, words: str):
    with pytest.raises(RefusedError, match=words):
        shape(table(pipeline, definition))


@pytest.mark.parametrize(
    ("named", "definition", "meant"),
    [
        (
            TableName("Telemetry", "Readings"),
            "CREATE SCHEMA telemetry; CREATE TABLE telemetry.readings ()",
            "telemetry.readings",
        ),
        (TableName("public", "readings"), 'CREATE TABLE "Readings" ()', 'public."Readings"'),
        (
            TableName("public", "Readings"),
            "CREATE SCHEMA app; CREATE TABLE app.readings (); CREATE TABLE readings ()",
            "public.readings or app.readings",
        ),
    ],
)
def test_a_table_that_is_nearly_named_so_is_offered(pipeline: Pipeline, named: TableName, definition: str, meant: str):
    pipeline.database.execute(definition)
    with pytest.raises(NoSuchTableError) as raised:
        shape(pipeline.of(table=named))
    assert f"Did you mean {meant}? EVENT_TABLE" in str(raised.value)


def test_a_column_that_is_nearly_named_so_is_offered(pipeline: Pipeline):
    of = table(pipeline, 'CREATE TABLE t (a int PRIMARY KEY, "At" date)')
    with pytest.raises(NoSuchTableError, match='has no column at. Did you mean "At"?'):
        shape(of)


def test_a_missing_schema_is_said(pipeline: Pipeline):
    with pytest.raises(RefusedError, match='"No".t does not exist in database [a-z_0-9]+. EVENT_TABLE'):
        shape(pipeline.of(table=TableName("No", "t")))


@pytest.mark.parametrize("kind", ["timestamp(3)", "timestamptz", "date"])
@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "not indexed"])
def test_days_that_hold_rows_are_found(pipeline: Pipeline, kind: str, indexed: bool):
    # Columns named like what the queries use inside must not disturb them.
    of = table(pipeline, f"CREATE TABLE t (day int PRIMARY KEY, at {kind}, days_ int, src_ int)")
    if indexed:
        pipeline.database.execute("CREATE INDEX ON t (at)")
    pipeline.database.execute(
        """SET TimeZone TO 'UTC';
        INSERT INTO t SELECT n, ('2024-02-28'::date + n / 3 * 2)::timestamp + n * interval '1 minute'
        FROM generate_series(0, 11) AS n"""
    )
    days = [date(2024, 2, 28), date(2024, 3, 1), date(2024, 3, 3), date(2024, 3, 5)]
    with of.postgres.transaction("test") as connection:
        found = reflect(connection, of.dataset)
        assert found.time_indexed == indexed
        assert days_with_rows(connection, found, date(2015, 1, 1), date(2025, 1, 1)) == days
        assert days_with_rows(connection, found, days[1], days[2]) == days[1:3]
        assert days_with_rows(connection, found, days[2], days[1]) == []
        assert first_day_with_rows(connection, found, date(2015, 1, 1), date(2025, 1, 1)) == days[0]
        assert first_day_with_rows(connection, found, days[1], days[2]) == days[1]
        assert first_day_with_rows(connection, found, days[0] + ONE_DAY, days[1] - ONE_DAY) is None
        assert rows_by_day(connection, found, days[1], days[3]) == dict.fromkeys(days[1:], 3)


def test_an_index_on_a_part_of_the_rows_finds_no_days(pipeline: Pipeline):
    of = table(pipeline, "CREATE TABLE t (a int PRIMARY KEY, at date); CREATE INDEX ON t (at) WHERE a > 0")
    assert not shape(of).time_indexed


def test_rows_of_no_day_are_counted(pipeline: Pipeline):
    of = table(pipeline, "CREATE TABLE t (a int PRIMARY KEY, at timestamp)")
    pipeline.database.execute(
        """INSERT INTO t VALUES (1, NULL), (2, 'infinity'), (3, '-infinity'), (4, '2014-12-31 23:59:59'),
        (5, '0044-03-15 BC'), (6, '2015-01-01'), (7, '294276-01-01')"""
    )
    with of.postgres.transaction("test") as connection:
        assert count_orphans(connection, reflect(connection, of.dataset)) == Orphans(before_start=2, not_finite=3)


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ("public", "Upper"), ("we ird", 'quo"te'), ("public", "select"), ("público", "événements ☃"), ("a.b", "c.d"),
        ("public", '"; DROP TABLE "Event"; --'), ("public", "%s{}{0}:x"),
    ],
)  # fmt: skip
def test_names_of_any_spelling_work(pipeline: Pipeline, schema: str, name: str):
    table = TableName(schema, name)
    odd = pipeline.of(table=table, time_column='when "%s" {}')
    pipeline.database.execute(
        f"""CREATE SCHEMA IF NOT EXISTS {quoted(schema)};
        CREATE TABLE {table} ("Key %s {{}}" int PRIMARY KEY, "when ""%s"" {{}}" timestamp, line_ text, src_ text)"""
    )
    insert = f"INSERT INTO {table} VALUES (1, '2024-03-01', 'x', 'y'), (2, '2024-03-01', 'x', NULL)"
    pipeline.database.execute(insert)
    assert odd.run().deleted == 2
    pipeline.database.execute(insert.replace("(2,", "(3,"))
    assert odd.run().deleted == 2
    assert odd.count() == 0
    assert odd.values("Key %s {}") == ["1", "2", "3"]

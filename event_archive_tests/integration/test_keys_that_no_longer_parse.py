"""Keys in a file of a former version that do not parse by the table's types any more, or were named otherwise."""

import math

import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.manifest import Manifest
from event_archive.domain.progress import NO_PROGRESS
from event_archive.errors import RefusedError
from event_archive.lake.protocol import Lake
from event_archive.operations import archive as archiving
from event_archive.operations import loading
from event_archive.operations.restore.day import restore_day
from event_archive.operations.restore.target import target_named
from event_archive.table.shape import reflect
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_table
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.statements import CI

pytestmark = pytest.mark.usefixtures("files_without_key_types")


def test_a_superseded_key_is_told_by_its_type_also_where_values_are_text(pipeline: Pipeline):
    pipeline.database.execute(
        "CREATE TABLE t (k numeric PRIMARY KEY, at date, kind text);"
        "INSERT INTO t VALUES (1.0, '2024-03-01', '5'), (2, '2024-03-01', 'no number')"
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    of.archive()
    pipeline.database.execute("UPDATE t SET k = 1.00 WHERE k = 1")
    of.archive()
    pipeline.database.execute(
        "DELETE FROM t WHERE k = 2; UPDATE t SET k = 1.0; ALTER TABLE t ALTER kind TYPE int USING kind::int"
    )
    assert of.purge().deleted == 0
    assert of.run().deleted == 1
    assert of.values("k") == ["1.0", "2", "1.00", "1.0"]


def test_a_key_that_no_longer_parses_is_compared_as_text_whatever_its_collation(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
):
    pipeline.database.execute(
        """CREATE TABLE t (a text, b text COLLATE "POSIX", at date, PRIMARY KEY (a, b));
        INSERT INTO t VALUES ('x', 'b', '2024-03-01')"""
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    of.archive()
    pipeline.database.execute("ALTER TABLE t ALTER a TYPE int USING 1")
    assert of.purge().deleted == 0
    assert of.run().deleted == 1
    assert of.values("a") == ["x", "1"]
    assert "events_2024-03-01.csv: the key of 1 row in it does not parse as public.t has it: where" in caplog.text


def test_what_no_longer_parses_is_compared_as_text_where_a_table_is_nothing_but_key(pipeline: Pipeline):
    pipeline.database.execute(
        f"""{CI} CREATE TABLE t (a text, b ext.ci, at date, PRIMARY KEY (a, b, at));
        INSERT INTO t VALUES ('x', 'b', '2024-03-01'), ('2', 'b', '2024-03-01')"""
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    of.archive()
    pipeline.database.execute("ALTER TABLE t ALTER a TYPE int USING CASE a WHEN 'x' THEN 1 ELSE 2 END")
    assert of.purge().deleted == 1
    assert of.run().deleted == 1
    assert sorted(of.values("a")) == ["1", "2", "x"]


@pytest.fixture(params=["told", "tried", "tried by an older server"])
def parsing(
    request: pytest.FixtureRequest, database: Database, local_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> Pipeline:
    """What parses as a type's value is told by PostgreSQL from 16 on, before that only found out."""
    if request.param == "tried by an older server":
        database = request.getfixturevalue("packaged_database")
    elif request.param == "tried":
        monkeypatch.setattr("event_archive.operations.parsing._INPUT_IS_VALID_SINCE", math.inf)
    return Pipeline(database, local_lake)


def test_a_former_form_does_not_count_where_another_key_does_not_parse(parsing: Pipeline):
    database = parsing.database
    database.execute(
        """CREATE TABLE t (a numeric, b text, at date, v text, PRIMARY KEY (a, b));
        INSERT INTO t VALUES (1.0, '7', '2024-03-01', 'A'), (5, 'no number', '2024-03-01', 'n')"""
    )
    of = parsing.of(table=TableName("public", "t"), time_column="at")
    of.archive()
    database.execute("UPDATE t SET a = 1.00, v = 'B' WHERE a = 1")
    of.archive()
    database.execute(
        "DELETE FROM t WHERE a = 5; UPDATE t SET a = 1.0, v = 'A'; ALTER TABLE t ALTER b TYPE int USING b::int"
    )
    assert of.purge().deleted == 0
    assert of.run().deleted == 1
    assert of.values("a") == ["1.0", "5", "1.00", "1.0"]


def test_a_key_that_a_narrower_type_would_cut_short_is_no_other_rows(parsing: Pipeline):
    database = parsing.database
    database.execute(
        """CREATE TABLE t (a varchar(10), b varbit, c text, at date, v text, PRIMARY KEY (a, b, c));
        INSERT INTO t VALUES ('short', '10', 'four', '2024-03-01', 'A'), ('shorter', '10', 'four', '2024-03-01', 'B'),
          ('short', '101', 'four', '2024-03-01', 'B'), ('short', '10', 'fourth', '2024-03-01', 'B')"""
    )
    of = parsing.of(table=TableName("public", "t"), time_column="at")
    of.archive()
    database.execute(
        """DELETE FROM t WHERE v = 'B'; UPDATE t SET v = 'B'; CREATE DOMAIN four AS varchar(4) NOT NULL;
        ALTER TABLE t ALTER a TYPE varchar(5), ALTER b TYPE bit(2) USING b::bit(2), ALTER c TYPE four"""
    )
    assert of.purge().deleted == 0
    assert of.run().deleted == 1
    assert of.values("v") == ["A", "B", "B", "B", "B"]


def test_a_key_of_a_composite_type_parses_where_another_column_of_the_key_does_not(parsing: Pipeline):
    of = of_table(
        parsing,
        "CREATE TYPE pair AS (n int, v text); CREATE TYPE kind AS ENUM ('open', 'done'); "
        f"CREATE TABLE t (k pair, kind kind, at date, PRIMARY KEY (k, kind)); "
        f"INSERT INTO t VALUES ('(1,x)', 'open', '{DAY}'), ('(1,x)', 'done', '{DAY}')",
    )
    of.archive()
    of.database.execute("ALTER TYPE kind RENAME VALUE 'open' TO 'new'")
    assert (of.archive().rows_appended, of.purge().deleted) == (1, 2)


def test_to_a_type_of_which_a_text_is_a_syntax_error_it_does_not_parse(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """Of an older server, as for ltree."""
    monkeypatch.setattr("event_archive.operations.parsing._INPUT_IS_VALID_SINCE", math.inf)
    of = of_table(pipeline, f"CREATE TABLE t (k text PRIMARY KEY, at date); INSERT INTO t VALUES ('a b', '{DAY}')")
    assert of.run().deleted == 1
    of.database.execute(f"ALTER TABLE t ALTER k TYPE regtype USING k::regtype; INSERT INTO t VALUES ('int4', '{DAY}')")
    assert of.run().deleted == 1
    assert of.values("k") == ["a b", "integer"]


def test_rows_archived_before_the_key_was_renamed_are_not_versions_of_one_row(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """Of a file that a former version appended to."""
    monkeypatch.setattr(archiving, "require_known_key", lambda *_: None)
    monkeypatch.setattr(Manifest, "takes_key", lambda *_: True)
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" RENAME COLUMN id TO pk')
    pipeline.add(1, prefix="late")
    pipeline.archive()
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B'")
    assert pipeline.run().deleted == 1
    assert pipeline.values("id") == ["1", "2", "", ""]
    file = pipeline.lake.stat(pipeline.dataset.path(DAY))
    assert file is not None
    with pipeline.postgres.transaction("test") as connection:
        table = reflect(connection, pipeline.dataset)
        loaded = loading.load(connection, table, pipeline.lake, file, NO_PROGRESS)
    assert (loaded.rows, loaded.superseded) == (4, 1)
    target = target_named(pipeline.dataset)
    with pytest.raises(RefusedError, match=r"2 rows of it lack a value of the key of .*, \(pk\)"):
        restore_day(pipeline.site, DAY, target)
    pipeline.database.execute(
        "CREATE TABLE mine (event_id text PRIMARY KEY, created_at timestamp, id text, event_type text, "
        "processed_at text, payload text, pk text)"
    )
    target = target_named(pipeline.dataset, "mine")
    restored = restore_day(pipeline.site, DAY, target)
    assert (restored.restored, restored.superseded) == (3, 1)

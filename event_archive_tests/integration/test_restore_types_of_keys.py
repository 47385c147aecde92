"""Which rows of a file are one where the types of the key, its collation or the locale have changed."""

import re
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive.errors import IntegrityError, RefusedError
from event_archive.lake.protocol import Lake
from event_archive.operations import writing
from event_archive.operations.readback import types_hashes
from event_archive_tests.fixtures.pipeline import Pipeline, T
from event_archive_tests.fixtures.postgres import Database, Server
from event_archive_tests.fixtures.restoring import manifest_of, restoring
from event_archive_tests.fixtures.statements import CI


@pytest.mark.parametrize(
    ("was", "keys", "now"),
    [
        ("text", ("01", "1"), "int"),
        ("text", ("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), "uuid"),
        ("text", ("A", "a"), "ext.ci"),
        ("timestamp", ("2024-03-01 10:00:00.6", "2024-03-01 10:00:01"), "timestamp(0)"),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_rows_that_todays_types_of_the_key_do_not_tell_apart_are_not_merged(
    pipeline: Pipeline, was: str, keys: tuple[str, str], now: str, in_place: bool
):
    database = pipeline.database
    database.execute(f"{CI} CREATE TABLE n (k {was}, id int, at timestamp, v text, PRIMARY KEY (k, id))")
    for key in keys:
        database.execute("INSERT INTO n VALUES (%s, 1, '2024-03-01', 'first')", key)
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.archive()
    database.execute("UPDATE n SET v = 'last'")
    assert of.run().deleted == 2
    database.execute(f"ALTER TABLE n ALTER k TYPE {now} USING k::{now}")
    # Of the four rows two are former forms, and one is another's.
    with pytest.raises(
        IntegrityError, match=r"1 row of it may be lost in public.n\w*: by the types of its key \(k, id"
    ):
        restoring(of)(in_place=in_place)
    assert of.count() == 0
    database.execute("CREATE TABLE mine (k text, id int, at timestamp, v text, PRIMARY KEY (k, id))")
    assert restoring(of)("mine").restored == 2


def test_a_key_that_another_tool_spelled_otherwise_is_one(pipeline: Pipeline):
    pipeline.database.execute("CREATE TABLE n (id int, at timestamptz, v text, PRIMARY KEY (id, at))")
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.put(b"id,at,v\n1,2024-03-01T01:02:03Z,first\n")
    of.database.execute("INSERT INTO n VALUES (1, '2024-03-01T01:02:03Z', 'last')")
    assert of.run().deleted == 1
    done = restoring(of)()
    assert (done.restored, done.superseded) == (1, 1)


def test_types_that_tell_forms_of_one_row_apart_bring_none_back(pipeline: Pipeline):
    of, database = _of_a_key_spelled_anew(pipeline, "v text")
    database.execute("CREATE TABLE mine (k text PRIMARY KEY, at timestamp, v text)")
    with pytest.raises(IntegrityError, match=r"replaces 1 row of it by the types it was archived under \(k numeric\)"):
        restoring(of)("mine")
    assert restoring(of)().restored == 1
    assert database.execute("SELECT k::text, v FROM t_restored") == [("1.00", "b")]


def test_the_types_that_a_file_notes_tell_which_rows_are_one_whatever_the_source_has_by_now(pipeline: Pipeline):
    of, database = _of_a_key_spelled_anew(pipeline, "v kind")
    assert restoring(of)().restored == 1
    database.execute("ALTER TABLE t ALTER k TYPE text; CREATE TABLE mine (k text PRIMARY KEY, at timestamp, v text)")
    with pytest.raises(IntegrityError, match=r"replaces 1 row of it by the types it was archived under \(k numeric\)"):
        restoring(of)("mine")
    database.execute("DROP TABLE t, mine; CREATE TABLE mine (k numeric(9, 2) PRIMARY KEY, at timestamp, v text)")
    assert restoring(of)("mine").restored == 1


@pytest.mark.usefixtures("files_without_key_types")
def test_types_of_the_source_that_tell_forms_of_one_row_apart_bring_none_back(pipeline: Pipeline):
    """Of a file of an earlier version."""
    of, database = _of_a_key_spelled_anew(pipeline, "v text")
    database.execute("CREATE TABLE mine (k text PRIMARY KEY, at timestamp, v text)")
    with pytest.raises(IntegrityError, match="replaces 1 row of it by the types of the key in public.t"):
        restoring(of)("mine")
    assert restoring(of)().restored == 1


@pytest.mark.usefixtures("files_without_key_types")
def test_both_forms_come_back_with_a_warning_where_nobody_knows_the_types(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
):
    of, database = _of_a_key_spelled_anew(pipeline, "v kind")
    with pytest.raises(IntegrityError, match="Nobody can tell whether they were one row"):
        restoring(of)()
    database.execute("CREATE TABLE mine (k text PRIMARY KEY, at timestamp, v text)")
    assert restoring(of)("mine").restored == 2
    assert "replaces 1 row of it by the types of the key in public.t" in caplog.text
    database.execute("ALTER TABLE t ALTER k TYPE uuid USING gen_random_uuid(); DELETE FROM mine")
    assert restoring(of)("mine").restored == 2


def _of_a_key_spelled_anew(pipeline: Pipeline, column: str) -> tuple[Pipeline, Database]:
    pipeline.database.execute(
        "CREATE TYPE kind AS ENUM ('a', 'b'); "
        f"CREATE TABLE t (k numeric PRIMARY KEY, at timestamp, {column}); INSERT INTO t VALUES (1.0, '2024-03-01', 'a')"
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at", file_prefix="t")
    of.archive()
    pipeline.database.execute("UPDATE t SET k = 1.00, v = 'b'")
    assert of.run().deleted == 1
    return of, pipeline.database


def test_a_collation_that_takes_texts_for_equal_is_no_obstacle(packaged_database: Database, local_lake: Lake):
    database = packaged_database
    database.execute(
        "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false); "
        "CREATE TYPE kind AS ENUM ('a'); "
        "CREATE TABLE t (id int PRIMARY KEY, at timestamp, name text COLLATE any_case, kind kind); "
        "INSERT INTO t VALUES (1, '2024-03-01', 'Abc', 'a'), (2, '2024-03-01', 'ABC', 'a')"
    )
    of = Pipeline(database, local_lake).of(table=TableName("public", "t"), time_column="at", file_prefix="t")
    of.archive()
    database.execute("UPDATE t SET name = 'aBC' WHERE id = 2")
    assert (of.purge().deleted, of.run().deleted) == (1, 1)
    assert restoring(of)().restored == 2
    assert database.execute("SELECT id, name::bytea FROM t_restored ORDER BY id") == [(1, b"Abc"), (2, b"aBC")]


def test_a_domain_that_was_made_anew_does_not_pass_for_what_it_was(pipeline: Pipeline):
    database = pipeline.database
    database.execute('CREATE DOMAIN amount AS numeric(12, 4); ALTER TABLE "Event" ADD due amount')
    pipeline.add(1)
    database.execute('UPDATE "Event" SET due = 1.2345')
    assert pipeline.run().deleted == 1
    database.execute(
        'ALTER TABLE "Event" DROP due; DROP DOMAIN amount; CREATE DOMAIN amount AS numeric(10, 2); '
        'ALTER TABLE "Event" ADD due amount'
    )
    with pytest.raises(RefusedError, match=r'would lose something as the types of .*: "?due"? \(1 row\)'):
        restoring(pipeline)()


# Keys that ignore case, by the locale of the database

CITEXT = re.sub(r"\bext\.ci\b", "ext.citext", CI)


@pytest.fixture
def in_locale(server_18: Server, local_lake: Lake) -> Iterator[Callable[[str], Pipeline]]:
    """A table whose key ignores case, in a database of a locale; of each database, the lake is the same."""
    made: list[str] = []

    def make(locale: str, encoding: str = "UTF8") -> Pipeline:
        made.append(f"locale_{len(made)}")
        with psycopg.connect(server_18.dsn("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL(
                    "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE_PROVIDER builtin BUILTIN_LOCALE {} "
                    "LC_COLLATE 'C' LC_CTYPE 'C'"
                ).format(sql.Identifier(made[-1]), sql.Literal(encoding), sql.Literal(locale))
            )
        database = Database(server_18, made[-1])
        database.execute(f"{CITEXT} CREATE TABLE t (k ext.citext PRIMARY KEY, at timestamp, note text)")
        return Pipeline(database, local_lake).of(table=T, time_column="at", file_prefix="t")

    yield make
    with psycopg.connect(server_18.dsn("postgres"), autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_locale_that_tells_fewer_keys_apart_loses_no_row(
    in_locale: Callable[..., Pipeline], in_place: bool, encoding: str
):
    of, there = in_locale("C", encoding), in_locale("C.UTF-8")
    # É and é, in either encoding.
    of.database.execute(
        "INSERT INTO t SELECT ('Jos' || chr(201 + n))::ext.citext, '2024-03-01', n FROM unnest('{0,32}'::int[]) AS n"
    )
    assert of.run().deleted == 2
    with pytest.raises(IntegrityError, match=r"1 row of it may be lost in .* the file spells their keys otherwise"):
        restoring(there)(in_place=in_place)
    assert restoring(of)(in_place=in_place).restored == 2


@pytest.mark.parametrize("of_one_kind", [True, False])
def test_a_locale_that_tells_more_keys_apart_may_bring_former_forms_back_and_says_so(
    in_locale: Callable[[str], Pipeline], caplog: pytest.LogCaptureFixture, of_one_kind: bool
):
    of, there = in_locale("C.UTF-8"), in_locale("C")
    of.database.execute("INSERT INTO t VALUES ('JOSÉ', '2024-03-01', 'one'), ('jo', '2024-03-01', 'other')")
    of.archive()
    of.database.execute("UPDATE t SET k = 'José' WHERE note = 'one'")
    if not of_one_kind:
        of.database.execute("ALTER TABLE t ADD COLUMN more text")
        there.database.execute("ALTER TABLE t ADD COLUMN more text")
    of.run()
    assert (manifest_of(of).types != "") == of_one_kind
    if of_one_kind:
        assert restoring(of)().restored == 2
    assert "ignores case" not in caplog.text
    assert restoring(there)().restored == 3
    assert "2 rows of it have characters in k, which ignores case, that another locale may" in caplog.text


@pytest.mark.parametrize("kind", ["ext.folded", "ext.citext[]"])
def test_what_is_made_of_a_type_that_ignores_case_is_warned_of_too(
    in_locale: Callable[[str], Pipeline], caplog: pytest.LogCaptureFixture, kind: str
):
    of, there = in_locale("C.UTF-8"), in_locale("C")
    for each in (of, there):
        each.database.execute(
            "CREATE DOMAIN ext.folded AS ext.citext; "
            f"ALTER TABLE t ALTER k TYPE {kind} USING format('{{%s}}', k)::{kind}"
        )
    of.database.execute("INSERT INTO t VALUES ('{JOSÉ}', '2024-03-01', 'one')")
    of.archive()
    of.database.execute("UPDATE t SET k = '{José}'")
    of.run()
    assert restoring(there)().restored == 2
    assert "2 rows of it have characters in k, which ignores case, that another locale may" in caplog.text


def test_a_database_made_anew_under_its_name_with_another_locale_is_not_the_same(
    in_locale: Callable[..., Pipeline], caplog: pytest.LogCaptureFixture
):
    of, there = in_locale("C.UTF-8"), in_locale("C")
    of.database.execute("INSERT INTO t VALUES ('JOSÉ', '2024-03-01', 'one')")
    of.archive()
    of.database.execute("UPDATE t SET k = 'José'")
    of.run()
    with psycopg.connect(of.database.server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {of.database.name} WITH (FORCE)".encode())
        connection.execute(f"ALTER DATABASE {there.database.name} RENAME TO {of.database.name}".encode())
    assert restoring(of)().restored == 2
    assert "2 rows of it have characters in k, which ignores case" in caplog.text


def test_where_the_types_of_both_are_unknown_letters_are_warned_of(
    in_locale: Callable[..., Pipeline], caplog: pytest.LogCaptureFixture
):
    of, there = in_locale("C.UTF-8"), in_locale("C")
    for pipeline in (of, there):
        pipeline.database.execute("CREATE TYPE mood AS ENUM ('sad'); ALTER TABLE t ADD mood mood")
    of.database.execute("INSERT INTO t VALUES ('JOSÉ', '2024-03-01', 'one', 'sad')")
    of.archive()
    of.database.execute("UPDATE t SET k = 'José'")
    of.run()
    assert manifest_of(of).types == ""
    assert restoring(there)().restored == 2
    assert "2 rows of it have characters in k, which ignores case" in caplog.text


@pytest.mark.parametrize("locale", ["C", "PG_UNICODE_FAST"])
def test_keys_of_ascii_are_told_apart_in_any_locale(
    in_locale: Callable[[str], Pipeline], locale: str, caplog: pytest.LogCaptureFixture
):
    of, there = in_locale("C.UTF-8"), in_locale(locale)
    of.database.execute(
        "INSERT INTO t VALUES ('A', '2024-03-01', 'one'), ('b', '2024-03-01', 'two'), (E'c\t', '2024-03-01', 'three')"
    )
    assert of.run().deleted == 3
    assert restoring(there)().restored == 3
    assert "ignores case" not in caplog.text


def test_a_file_of_a_former_version_says_nothing_of_letters(
    in_locale: Callable[[str], Pipeline], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    of, there = in_locale("C.UTF-8"), in_locale("C")
    of.database.execute("INSERT INTO t VALUES ('JOSÉ', '2024-03-01', 'one')")
    with monkeypatch.context() as former:
        former.setattr(writing, "types_hash", lambda table, columns: types_hashes(table, columns)[1])
        of.archive()
    of.database.execute("UPDATE t SET k = 'José'; INSERT INTO t VALUES ('x', '2024-03-01', 'late')")
    before = manifest_of(of).types
    of.run()
    assert manifest_of(of).types == before != ""
    assert (restoring(of)().restored, restoring(of)(in_place=True).superseded) == (2, 1)
    assert "ignores case" not in caplog.text
    assert restoring(there)().restored == 3
    assert "2 rows of it have characters in k, which ignores case" in caplog.text

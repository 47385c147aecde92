"""The types of a key's columns were changed while the files hold rows: none is taken for another, or for a new one."""

import pytest

from event_archive.errors import IntegrityError, RefusedError
from event_archive.operations.adopt import adopt_day
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_table, rows_of
from event_archive_tests.fixtures.restoring import manifest_of, restoring
from event_archive_tests.fixtures.statements import CI

TYPES = f"""{CI} CREATE TYPE kind AS ENUM ('open', 'done'); CREATE DOMAIN two AS numeric(8, 2);
CREATE DOMAIN code AS varchar(4); CREATE TYPE pair AS (n numeric(8, 2), kind kind)"""
HELSINKI = "timestamptz USING k AT TIME ZONE 'Europe/Helsinki'"

OTHERS = [
    ("char(3)", ["A"], "ALTER TABLE t ALTER k TYPE text", r"character\(3\)", "text"),
    ("inet", ["10.0.0.1"], "ALTER TABLE t ALTER k TYPE text", "inet", "text"),
    ("real", ["0.1"], "ALTER TABLE t ALTER k TYPE float8", "real", "double precision"),
    ("text", ["01", "1"], "ALTER TABLE t ALTER k TYPE int USING k::int", "text", "integer"),
    ("text", ["A", "a"], "ALTER TABLE t ALTER k TYPE ext.ci", "text", "ext.ci"),
    ("two", ["1.10", "1.20"], "ALTER TABLE t ALTER k TYPE numeric(8, 0)", r"numeric\(8,2\)", r"numeric\(8,0\)"),
    ("timestamptz(3)", ["2024-03-01 10:00:00.1+00", "2024-03-01 10:00:00.3+00"],
     "ALTER TABLE t ALTER k TYPE timestamptz(0)", r"timestamp\(3\) with time zone", r"timestamp\(0\) with time zone"),
    ("timestamp", ["2024-03-01 09:00:00", "2024-03-01 11:00:00"], f"ALTER TABLE t ALTER k TYPE {HELSINKI}",
     "timestamp without time zone", "timestamp with time zone"),
    ("int", ["7"], "ALTER TABLE t ALTER k TYPE uuid USING gen_random_uuid()", "integer", "uuid"),
]  # fmt: skip
DEFINITIONS = [
    ("kind", ["open"], ["ALTER TYPE kind RENAME VALUE 'open' TO 'new'"]),
    ("kind", ["open"], ["ALTER TYPE kind RENAME VALUE 'open' TO 'new'", "ALTER TYPE kind ADD VALUE 'open'"]),
    ("kind", ["open", "done"], [f"ALTER TYPE kind RENAME VALUE '{was}' TO '{now}'"
                                for was, now in (("open", "x"), ("done", "open"), ("x", "done"))]),
    ("kind[]", ["{open}"], ["ALTER TYPE kind RENAME VALUE 'open' TO 'new'"]),
    ("pair", ["(1.20,open)", "(1.10,open)"], ["ALTER TABLE t ALTER k TYPE text USING k::text; DROP TYPE pair",
        "CREATE TYPE pair AS (n numeric(8, 0), kind kind)", "ALTER TABLE t ALTER k TYPE pair USING k::pair"]),
    ("pair", ["(1.20,open)"], ["ALTER TYPE kind RENAME VALUE 'open' TO 'new'"]),
]  # fmt: skip


def of_key(pipeline: Pipeline, kind: str, archived: list[str]) -> Pipeline:
    """The first row is archived and purged, the others stand, as does the last if it is the first."""
    of = of_table(pipeline, f"{TYPES}; CREATE TABLE t (k {kind}, id int, at date, kind kind, PRIMARY KEY (k, id))")
    of.database.execute(f"INSERT INTO t VALUES (%s::text::{kind}, 1, '{DAY}', 'open')", archived[0])
    of.archive()
    if archived[1:]:
        of.purge()
        of.database.execute(f"INSERT INTO t VALUES (%s::text::{kind}, 1, '{DAY}', 'open')", archived[1])
    return of


def nothing_is_done(of: Pipeline, words: str) -> None:
    """Neither by a run, nor by a purge alone, nor by a restore in place."""
    before, stand = of.content(), of.database.execute("SELECT t::text FROM t")
    with pytest.raises(IntegrityError, match=rf"of the key of public\.t, {words}.*If the key's values in the file"):
        of.archive()
    with pytest.raises(IntegrityError, match=rf"{words}.*Archive the day again"):
        of.purge()
    # By the present types, values of the file may not even parse, or be cut short.
    with pytest.raises((IntegrityError, RefusedError), match="Its rows may stand there|would lose|do not all parse"):
        restoring(of)(in_place=True)
    assert (of.content(), of.database.execute("SELECT t::text FROM t")) == (before, stand)


@pytest.mark.parametrize(("kind", "keys", "migration", "was", "now"), OTHERS)
def test_where_another_type_may_read_other_values_nothing_is_done(
    pipeline: Pipeline, kind: str, keys: list[str], migration: str, was: str, now: str
):
    of = of_key(pipeline, kind, keys)
    of.database.execute(migration)
    nothing_is_done(of, f"k was {was} when its rows were archived, and is {now}")


@pytest.mark.parametrize(("kind", "keys", "migration"), DEFINITIONS)
def test_where_a_types_definition_reads_other_values_nothing_is_done(
    pipeline: Pipeline, kind: str, keys: list[str], migration: list[str]
):
    of = of_key(pipeline, kind, keys)
    for statement in migration:
        of.database.execute(statement)
    nothing_is_done(of, rf"the definition of public\.{kind.replace('[]', '..')}, the type of k, has changed since")


@pytest.mark.parametrize(
    ("kind", "key", "migration"),
    [
        ("int", "7", "ALTER TABLE t ALTER k TYPE bigint"),
        ("int", "7", "ALTER TABLE t ALTER k TYPE numeric(10, 2)"),
        ("two", "1.20", "ALTER TABLE t ALTER k TYPE numeric"),
        ("code", "abc", "ALTER TABLE t ALTER k TYPE text"),
        ("varchar(9)", "abc", "CREATE DOMAIN longer AS varchar(10); ALTER TABLE t ALTER k TYPE longer"),
        ("text", "abc", 'ALTER TABLE t ALTER k TYPE text COLLATE "C"'),
        ("timestamp(0)", "2024-03-01 09:00:00", "ALTER TABLE t ALTER k TYPE timestamp"),
        ("kind", "done", "ALTER TYPE kind ADD VALUE 'late' BEFORE 'open'"),
        ("pair", "(1.20,open)", "ALTER TYPE kind ADD VALUE 'late' BEFORE 'open'"),
        ("kind", "done", "ALTER TYPE pair RENAME ATTRIBUTE n TO m"),
    ],
)
def test_where_values_read_the_same_as_before_a_day_goes_on(pipeline: Pipeline, kind: str, key: str, migration: str):
    of = of_key(pipeline, kind, [key])
    of.database.execute(migration)
    assert (of.archive().rows_appended, of.purge().deleted) == (0, 1)
    assert restoring(of)(in_place=True).restored == 1


def test_a_person_says_that_the_files_values_are_those_of_the_present_type(pipeline: Pipeline):
    of = of_key(pipeline, "timestamp", ["2024-03-01 09:00:00"])
    of.database.execute("ALTER TABLE t ALTER k TYPE timestamptz USING k AT TIME ZONE 'UTC'")
    with pytest.raises(IntegrityError, match=r"adopt 2024-03-01 --present-key"):
        of.archive()
    adopt_day(of.site, DAY)
    with pytest.raises(IntegrityError, match="k was timestamp without time zone when its rows were archived, and"):
        of.archive()
    assert adopt_day(of.site, DAY, present_key=True).key_types[0] == ("timestamp with time zone", "")
    assert (of.archive().rows_appended, of.purge().deleted) == (0, 1)


def test_values_that_the_present_type_cuts_short_are_accepted_only_once_they_are_written_as_that(pipeline: Pipeline):
    """Else a later type with more room would read them as rows of their own."""
    of = of_key(pipeline, "text", ["3.01"])
    of.database.execute("UPDATE t SET k = '3.010'")
    of.archive()
    before = of.content()
    of.database.execute("ALTER TABLE t ALTER k TYPE numeric(9, 1) USING k::numeric")
    with pytest.raises(
        IntegrityError, match=r"would lose something: k \(2 rows\)\. It cannot be adopted by the present"
    ):
        adopt_day(of.site, DAY, present_key=True)
    assert of.content() == before
    of.put(before.replace(b"3.010,", b"3.0,").replace(b"3.01,", b"3.0,"), metadata=manifest_of(of).to_metadata())
    adopt_day(of.site, DAY, present_key=True)
    assert (of.archive().rows_appended, of.purge().deleted) == (0, 1)
    of.database.execute("ALTER TABLE t ALTER k TYPE numeric")
    assert restoring(of)(in_place=True).restored == 1


def test_what_a_migration_lengthened_may_not_be_cut_short_again(pipeline: Pipeline):
    of = of_key(pipeline, "numeric(8, 2)", ["1.20"])
    of.database.execute(f"ALTER TABLE t ALTER k TYPE numeric; INSERT INTO t VALUES (1.234, 2, '{DAY}', 'open')")
    assert of.archive().rows_appended == 1
    assert manifest_of(of).key_types == (("numeric", ""), ("integer", ""))
    of.database.execute("ALTER TABLE t ALTER k TYPE numeric(8, 2)")
    with pytest.raises(IntegrityError, match=r"k was numeric when its rows were archived, and is numeric\(8,2\)"):
        of.archive()
    assert rows_of(of, "t") == 2


@pytest.mark.usefixtures("files_without_key_types")
def test_a_file_of_an_earlier_version_is_read_by_the_present_types(pipeline: Pipeline):
    of = of_key(pipeline, "text", ["7"])
    of.database.execute("ALTER TABLE t ALTER k TYPE int USING k::int")
    assert (of.archive().rows_appended, of.purge().deleted) == (0, 1)

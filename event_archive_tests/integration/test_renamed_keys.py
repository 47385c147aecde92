"""Keys whose columns were renamed, and whose names other columns may have: no row becomes a second one, nor another."""

import pytest

from event_archive.errors import IntegrityError
from event_archive.operations.adopt import adopt_day
from event_archive.operations.claim import adopt_source
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_table, rows_of
from event_archive_tests.fixtures.restoring import manifest_of, restoring

KEYED = "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id)"
SWAPPED = f"""RENAME id TO old; UPDATE t SET extra = old + 10; ALTER TABLE t RENAME extra TO id;
ALTER TABLE t RENAME old TO extra; {KEYED}"""
RENAMED_TOGETHER = f"""RENAME id TO old; ALTER TABLE t RENAME value TO worth; ALTER TABLE t ADD id text, ADD value text;
UPDATE t SET id = 'x' || old, value = 'x' || worth; {KEYED[:-1]}, value)"""
DOUBT = r"Nobody can tell which of its rows stand in the table|, which is now called \(.*\)\. "


@pytest.mark.parametrize(
    ("key", "migration", "time"),
    [
        ("id", "RENAME id TO old; ALTER TABLE t ADD id uuid NOT NULL DEFAULT gen_random_uuid()", "at"),
        ("id", "RENAME id TO old; ALTER TABLE t ADD id bigint GENERATED ALWAYS AS IDENTITY (START 1000)", "at"),
        ("id", "RENAME id TO old; ALTER TABLE t ADD id char(26)", "at"),
        ("id", f"RENAME id TO old; ALTER TABLE t ADD id uuid DEFAULT gen_random_uuid(); {KEYED}", "at"),
        ("id", f"RENAME id TO old; ALTER TABLE t ADD id numeric(9,2); UPDATE t SET id = old + 9; {KEYED}", "at"),
        ("id", "RENAME id TO old; ALTER TABLE t ADD id uuid DEFAULT gen_random_uuid(); UPDATE t SET value = 7", "at"),
        (
            "id",
            f"RENAME id TO old; ALTER TABLE t ADD id text; UPDATE t SET id = 9 + old; {KEYED[:-1]}, at)",
            "at",
        ),
        ("id", "RENAME id TO old; UPDATE t SET uid = 'x' || old; " + KEYED.replace("(id)", "(uid)"), "at"),
        ("id", "RENAME id TO old; ALTER TABLE t RENAME extra TO id", "at"),
        ("id", f"RENAME id TO old; ALTER TABLE t ADD id text; UPDATE t SET id = 'x' || old; {KEYED}", "at"),
        ("id", "RENAME id TO old; ALTER TABLE t RENAME at TO since; ALTER TABLE t ADD id int, ADD at date", "since"),
        ("id, at", "RENAME at TO since; ALTER TABLE t ADD at timestamptz NOT NULL DEFAULT now()", "since"),
        (
            "id, value",
            "RENAME id TO old; ALTER TABLE t ADD id text, DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (value, old)",
            "at",
        ),
        (
            "id",
            "RENAME id TO old; ALTER TABLE t RENAME extra TO id; UPDATE t SET id = 4 - old; ALTER TABLE t DROP ok",
            "at",
        ),
        ("id", f"RENAME id TO old; ALTER TABLE t RENAME uid TO id; {KEYED}", "at"),
        ("id", SWAPPED, "at"),
        ("id, value", RENAMED_TOGETHER, "at"),
        ("id", "DROP uid; ALTER TABLE t RENAME id TO uid", "at"),
        ("id", f"RENAME id TO old; {KEYED.replace('(id)', '(old, at)')}", "at"),
        ("value", f"RENAME id TO old; ALTER TABLE t RENAME value TO id; {KEYED[:-1]}, at)", "at"),
        ("value, ok", f"RENAME id TO old; ALTER TABLE t RENAME value TO id; {KEYED}", "at"),
        ("id", "DROP id; UPDATE t SET extra = value; ALTER TABLE t ADD PRIMARY KEY (extra)", "at"),
        (
            "id",
            "RENAME at TO since; UPDATE t SET extra = value; ALTER TABLE t DROP id, ADD PRIMARY KEY (extra)",
            "since",
        ),
    ],
)
def test_where_another_column_has_the_name_of_the_former_key_rows_of_a_days_file_are_not_appended_once_more(
    pipeline: Pipeline, key: str, migration: str, time: str
):
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (uid text, id bigint, at timestamptz, value int, extra int8, ok bool DEFAULT true,
        PRIMARY KEY ({key}))""",
    )
    of.database.execute(f"INSERT INTO t SELECT 'u' || n, n, '{DAY} 12:00', n FROM generate_series(1, 3) AS n")
    of.archive()
    of.database.execute(f"ALTER TABLE t {migration}")
    of = of.of(time_column=time)
    adopt_source(of.site)
    before = of.content()
    with pytest.raises(IntegrityError, match=DOUBT):
        of.archive()
    assert (of.content(), rows_of(of, "t")) == (before, 3)


def test_where_the_keys_name_is_another_columns_no_row_takes_an_archived_ones_place(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id bigint PRIMARY KEY, at date)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}'), (2, '{DAY}')")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t RENAME id TO old; ALTER TABLE t DROP CONSTRAINT t_pkey;
        ALTER TABLE t ADD id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; INSERT INTO t VALUES (3, '{DAY}')"""
    )
    before = of.content()
    with pytest.raises(
        IntegrityError,
        match=r"under \(id\), and the key of .* is now \(id\), but what it calls id is now called old\. Nobody can",
    ):
        of.archive()
    assert (of.content(), rows_of(of, "t")) == (before, 1)


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_column_with_the_keys_values_takes_its_name_where_a_person_says_so(pipeline: Pipeline, is_kept: bool):
    """As where a column got too small for its numbers."""
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, v text)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}', 'a'), (2, '{DAY}', 'b')")
    of.archive()
    of.database.execute(f"ALTER TABLE t RENAME id TO old; ALTER TABLE t ADD id bigint; UPDATE t SET id = old; {KEYED}")
    of.database.execute("ALTER TABLE t ALTER old DROP NOT NULL" if is_kept else "ALTER TABLE t DROP old")
    of.database.execute(f"INSERT INTO t (id, at, v) VALUES (3, '{DAY}', 'c')")
    for _ in range(2):
        with pytest.raises(IntegrityError, match="what it calls id is (now called old|gone)"):
            of.archive()
        adopt_day(of.site, DAY)
    adopt_day(of.site, DAY, present_key=True)
    assert of.run().deleted == 3
    of.database.execute(f"INSERT INTO t (id, at, v) VALUES (2, '{DAY}', 'd')")
    assert of.run().deleted == 1
    done = restoring(of)()
    assert (done.restored, done.superseded) == (3, 3 if is_kept else 1)


@pytest.mark.parametrize("key", ["id", "id, at"])
def test_a_name_that_the_file_has_for_another_column_is_given_in_it_to_the_key(pipeline: Pipeline, key: str):
    of = of_table(pipeline, f"CREATE TABLE t (old text, id int, at timestamptz, PRIMARY KEY ({key}))")
    of.database.execute(f"INSERT INTO t VALUES ('x', 1, '{DAY}'), ('y', 2, '{DAY}')")
    of.archive()
    of.database.execute("ALTER TABLE t DROP old; ALTER TABLE t RENAME id TO old")
    with pytest.raises(
        IntegrityError, match="Write that name into the file's first line .if another column there has it already"
    ):
        of.archive()
    of.put(of.content().replace(b"old,id", b"older,old"), metadata=manifest_of(of).to_metadata())
    assert adopt_day(of.site, DAY).keys == (tuple(key.replace("id", "old").split(", ")),)
    assert of.run().deleted == 2
    assert restoring(of)().restored == 2


def test_a_header_with_the_new_names_of_all_columns_is_adopted_under_them(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, extra text)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}', 'a'), (2, '{DAY}', 'b')")
    of.archive()
    of.database.execute("ALTER TABLE t RENAME id TO old; ALTER TABLE t RENAME extra TO id")
    with pytest.raises(IntegrityError, match=r"\(id\), which is now called \(old\)\. .*Write that name"):
        of.archive()
    of.put(of.content().replace(b"id,at,extra", b"old,at,id"), metadata=manifest_of(of).to_metadata())
    with pytest.raises(IntegrityError, match=r"under \(id\), and nobody can tell which .* 2024-03-01 --present-key"):
        adopt_day(of.site, DAY)
    assert adopt_day(of.site, DAY, present_key=True).keys == (("old",),)
    assert of.run().deleted == 2
    assert of.archive().rows == 2


@pytest.mark.parametrize("former", ["text", "int"])
def test_a_column_that_always_had_the_name_is_not_taken_for_the_key(pipeline: Pipeline, former: str):
    """Whoever changes something else in a file, and adopts it, has not said what the key is."""
    of = of_table(pipeline, f"CREATE TABLE t (old {former}, id int, at timestamptz, PRIMARY KEY (id))")
    of.database.execute(f"INSERT INTO t VALUES (2, 1, '{DAY}'), (3, 2, '{DAY}')")
    of.archive()
    of.database.execute("ALTER TABLE t DROP old; ALTER TABLE t RENAME id TO old")
    before, metadata = of.content(), manifest_of(of).to_metadata()
    of.put(before.replace(b"at\n", b"at,note\n").replace(b"+00\n", b"+00,x\n"), metadata=metadata)
    with pytest.raises(IntegrityError, match="give no other column in it a name that those have or had"):
        adopt_day(of.site, DAY)
    of.put(before, metadata=metadata)
    assert adopt_day(of.site, DAY).keys == (("id",),)
    with pytest.raises(IntegrityError, match=r"\(id\), which is now called \(old\)"):
        of.archive()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_purge_by_itself_takes_no_row_for_an_archived_one_by_a_name_that_is_another_columns(
    pipeline: Pipeline, swapped: bool
):
    of = of_table(pipeline, "CREATE TABLE t (id bigint PRIMARY KEY, at date, parent bigint)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}', 2)")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t RENAME id TO x; ALTER TABLE t RENAME parent TO id;
        ALTER TABLE t RENAME x TO parent; {KEYED}; INSERT INTO t (id, at, parent) VALUES (1, '{DAY}', 2)"""
        if swapped
        else f"""ALTER TABLE t DROP id, ADD id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;
        INSERT INTO t (at, parent) VALUES ('{DAY}', 2)"""
    )
    with pytest.raises(IntegrityError, match="what it calls id is (now called parent|gone). Nothing was deleted"):
        of.purge()
    assert rows_of(of, "t") == 1


def test_a_header_whose_names_moved_on_is_adopted_under_those_that_it_has(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (tenant int, id int, at timestamptz, PRIMARY KEY (tenant, id))")
    of.database.execute(f"INSERT INTO t VALUES (1, 1, '{DAY}'), (1, 2, '{DAY}')")
    of.archive()
    of.database.execute("ALTER TABLE t RENAME tenant TO org; ALTER TABLE t RENAME id TO tenant")
    of.put(of.content().replace(b"tenant,id", b"org,tenant"), metadata=manifest_of(of).to_metadata())
    assert adopt_day(of.site, DAY).keys == (("org", "tenant"),)
    assert of.run().deleted == 2
    assert restoring(of)().restored == 2


def test_where_the_former_key_was_renamed_beside_a_new_one_its_name_is_not_all(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}'), (2, '{DAY}')")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t DROP CONSTRAINT t_pkey, ADD uid int PRIMARY KEY; ALTER TABLE t RENAME id TO event_id;
        INSERT INTO t VALUES (3, '{DAY}', 7)"""
    )
    with pytest.raises(IntegrityError, match=r"under \(id\), and the key of public\.t is now \(uid\)"):
        of.archive()
    header, *rows = of.content().splitlines()
    written = b"\n".join(
        [header.replace(b"id,", b"event_id,") + b",uid", *(row + b",9" + row[:1] for row in rows), b""]
    )
    of.put(written, metadata=manifest_of(of).to_metadata())
    assert adopt_day(of.site, DAY).keys == (("event_id",),)
    with pytest.raises(IntegrityError, match=r"under \(event_id\), and the key of public\.t is now \(uid\)"):
        of.archive()
    adopt_day(of.site, DAY, present_key=True)
    assert of.run().deleted == 1
    assert restoring(of)().restored == 3


def test_a_key_that_is_gone_is_not_another_column_of_its_name(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, uid text)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}'), (2, '{DAY}')")
    of.archive()
    of.database.execute(
        "ALTER TABLE t DROP id; UPDATE t SET uid = random(); ALTER TABLE t ADD PRIMARY KEY (uid), ADD id int DEFAULT 7"
    )
    with pytest.raises(
        IntegrityError, match=r"under \(id\), and the key of public\.t is now \(uid\)\. Nobody can tell"
    ):
        of.archive()


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_day_is_restored_in_place_once_a_person_has_said_what_the_key_is(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, is_kept: bool
):
    """Else rows that stand there under another key would be doubled."""
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, v text)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}', 'a'), (2, '{DAY}', 'b')")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t RENAME id TO old; ALTER TABLE t ADD id bigint; {KEYED};
        ALTER TABLE t {"ALTER old DROP NOT NULL" if is_kept else "DROP old"}"""
    )
    moved = f"what it calls id is {'now called old' if is_kept else 'gone'}"
    with pytest.raises(
        IntegrityError, match=rf"now \(id\), but {moved}\. Its rows may .* adopt 2024-03-01 --present-key"
    ):
        restoring(of)(in_place=True)
    assert rows_of(of, "t") == 0
    assert restoring(of)("t_else").restored == 2
    assert f"{moved}, and public.t has another column of that name" in caplog.text
    adopt_day(of.site, DAY, present_key=True)
    assert restoring(of)(in_place=True).restored == 2
    assert of.run().deleted == 2


def test_what_a_person_says_of_the_key_ends_the_doubt(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id bigint PRIMARY KEY, at timestamptz)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}'), (2, '{DAY}')")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t RENAME id TO old; ALTER TABLE t DROP CONSTRAINT t_pkey;
        ALTER TABLE t ADD id bigint PRIMARY KEY; INSERT INTO t VALUES (1, '{DAY}', 11)"""
    )
    with pytest.raises(IntegrityError, match=r"what it calls id is now called old\. .* adopt 2024-03-01 --present-key"):
        of.archive()
    adopt_day(of.site, DAY)
    with pytest.raises(IntegrityError, match="Nobody can tell"):
        of.archive()
    adopt_day(of.site, DAY, present_key=True)
    assert of.run().deleted == 1

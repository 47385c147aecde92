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
DOUBT = r"(are like them|what rows of it have in .*|have their .*)\. Nobody can tell|is called .* by now"


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


def test_where_the_keys_name_is_another_columns_rows_that_no_file_holds_are_archived(pipeline: Pipeline):
    """From then on the name is that column's: whatever stands in the other one counts no more."""
    of = of_table(pipeline, "CREATE TABLE t (id bigint PRIMARY KEY, at timestamptz)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}'), (2, '{DAY}')")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t RENAME id TO old; ALTER TABLE t DROP CONSTRAINT t_pkey, ALTER old DROP NOT NULL;
        ALTER TABLE t ADD id bigint PRIMARY KEY; INSERT INTO t VALUES (NULL, '{DAY}', 11), (3, '{DAY}', 12)"""
    )
    assert of.run().deleted == 2
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}', 13)")
    assert of.run().deleted == 1
    of.database.execute(
        f"""ALTER TABLE t RENAME id TO older; ALTER TABLE t DROP CONSTRAINT t_pkey, ALTER older DROP NOT NULL;
        ALTER TABLE t ADD id bigint PRIMARY KEY; INSERT INTO t VALUES (NULL, '{DAY}', NULL, 14)"""
    )
    assert of.run().deleted == 1
    assert of.values("id") == ["1", "2", "11", "12", "13", "14"]


def test_where_the_keys_name_is_another_columns_no_row_takes_an_archived_ones_place(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id bigint PRIMARY KEY, at date)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}'), (2, '{DAY}')")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t RENAME id TO old; ALTER TABLE t DROP CONSTRAINT t_pkey;
        ALTER TABLE t ADD id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; INSERT INTO t VALUES (3, '{DAY}')"""
    )
    before = of.content()
    with pytest.raises(IntegrityError, match=r"have in \(id\) what rows of it have in \(id\)\. Nobody can tell"):
        of.archive()
    assert (of.content(), rows_of(of, "t")) == (before, 1)


def test_where_the_keys_name_is_another_columns_with_its_values_rows_are_known_by_that(pipeline: Pipeline):
    """As where a column got too small for its numbers, and the former one is kept for a while."""
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}'), (2, '{DAY}')")
    of.archive()
    of.database.execute(
        f"""ALTER TABLE t RENAME id TO old; ALTER TABLE t ADD id bigint; UPDATE t SET id = old; {KEYED};
        ALTER TABLE t ALTER old DROP NOT NULL; INSERT INTO t VALUES (NULL, '{DAY}', 3)"""
    )
    assert of.run().deleted == 3
    done = restoring(of)()
    assert (done.restored, done.superseded) == (3, 2)


def test_a_row_without_the_former_key_may_come_again_under_its_name(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, v text)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}', 'a'), (2, '{DAY}', 'b')")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t RENAME id TO old; ALTER TABLE t ADD id bigint; {KEYED};
        ALTER TABLE t ALTER old DROP NOT NULL; INSERT INTO t (id, at, v) VALUES (2, '{DAY}', 'c'), (3, '{DAY}', 'd')"""
    )
    assert of.run().deleted == 2
    done = restoring(of)()
    assert (done.restored, done.superseded) == (3, 1)


def test_where_a_column_with_the_keys_values_took_its_place_and_its_name_rows_are_known(pipeline: Pipeline):
    """As where a column got too small for its numbers, and the file has both."""
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, v text, new_id bigint)")
    of.database.execute(f"INSERT INTO t SELECT n, '{DAY}', 'a', n FROM generate_series(1, 2) AS n")
    of.archive()
    of.database.execute("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (new_id)")
    of.archive()
    of.database.execute("ALTER TABLE t DROP id; ALTER TABLE t RENAME new_id TO id; UPDATE t SET v = 'c' WHERE id = 2")
    assert of.run().deleted == 2


def test_a_row_that_was_appended_under_a_keys_new_name_may_change(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (old text, id int PRIMARY KEY, at timestamptz, v text)")
    of.database.execute(f"INSERT INTO t VALUES ('x', 1, '{DAY}', 'a')")
    of.run()
    of.database.execute(
        f"ALTER TABLE t DROP old; ALTER TABLE t RENAME id TO old; INSERT INTO t VALUES (7, '{DAY}', 'b')"
    )
    of.archive()
    of.database.execute("UPDATE t SET v = 'c'")
    assert of.run().deleted == 1


def test_a_header_with_the_new_names_of_all_columns_is_adopted_under_them(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, extra text)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}', 'a'), (2, '{DAY}', 'b')")
    of.archive()
    of.database.execute("ALTER TABLE t RENAME id TO old; ALTER TABLE t RENAME extra TO id")
    with pytest.raises(IntegrityError, match=r"\(id\), which is called \(old\) by now\. .*Name it so"):
        of.archive()
    of.put(of.content().replace(b"id,at,extra", b"old,at,id"), metadata=manifest_of(of).to_metadata())
    assert adopt_day(of.site, DAY).keys == (("old",),)
    assert of.run().deleted == 2
    assert of.archive().rows == 2


def test_a_header_whose_names_moved_on_is_adopted_under_those_that_it_has(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (tenant int, id int, at timestamptz, PRIMARY KEY (tenant, id))")
    of.database.execute(f"INSERT INTO t VALUES (1, 1, '{DAY}'), (1, 2, '{DAY}')")
    of.archive()
    of.database.execute("ALTER TABLE t RENAME tenant TO org; ALTER TABLE t RENAME id TO tenant")
    of.put(of.content().replace(b"tenant,id", b"org,tenant"), metadata=manifest_of(of).to_metadata())
    assert adopt_day(of.site, DAY).keys == (("org", "tenant"),)
    assert of.run().deleted == 2
    assert restoring(of)().restored == 2


def test_where_the_former_key_was_renamed_beside_a_new_one_the_day_waits_for_both(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}'), (2, '{DAY}')")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t DROP CONSTRAINT t_pkey, ADD uid int PRIMARY KEY; ALTER TABLE t RENAME id TO event_id;
        INSERT INTO t VALUES (3, '{DAY}', 7)"""
    )
    with pytest.raises(IntegrityError, match=r"lacks uid, .* \(id\), which is called \(event_id\) by now"):
        of.archive()
    content = of.content().replace(b"id,at", b"event_id,at,uid").replace(b"+00", b"+00,")
    of.put(content, metadata=manifest_of(of).to_metadata())
    assert adopt_day(of.site, DAY).keys == (("event_id",), ("uid",))
    assert of.run().deleted == 1
    of.database.execute("CREATE TABLE own (event_id int PRIMARY KEY, at timestamptz, uid int)")
    assert restoring(of)("own").restored == 3


def test_a_key_that_is_gone_is_not_another_column_of_its_name(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, uid text)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}'), (2, '{DAY}')")
    of.archive()
    of.database.execute(
        "ALTER TABLE t DROP id; UPDATE t SET uid = random(); ALTER TABLE t ADD PRIMARY KEY (uid), ADD id int DEFAULT 7"
    )
    with pytest.raises(IntegrityError, match=r"are like them\. Nobody can tell"):
        of.archive()


def test_rows_that_were_restored_since_the_keys_name_is_another_columns_are_those_of_the_file(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
):
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, v text)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}', 'a'), (2, '{DAY}', 'b')")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t RENAME id TO old; ALTER TABLE t ADD id bigint; {KEYED};
        ALTER TABLE t ALTER old DROP NOT NULL"""
    )
    assert restoring(of)(in_place=True).restored == 2
    assert "what it calls id is called old in public.t by now" in caplog.text
    assert of.run().deleted == 2


def test_what_a_person_says_of_the_key_ends_the_doubt(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id bigint PRIMARY KEY, at timestamptz)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}'), (2, '{DAY}')")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t RENAME id TO old; ALTER TABLE t DROP CONSTRAINT t_pkey;
        ALTER TABLE t ADD id bigint PRIMARY KEY; INSERT INTO t VALUES (1, '{DAY}', 11)"""
    )
    with pytest.raises(
        IntegrityError, match=r"have in \(old\) what rows of it have in \(id\)\. .* adopt 2024-03-01 --present-key"
    ):
        of.archive()
    adopt_day(of.site, DAY)
    with pytest.raises(IntegrityError, match="Nobody can tell"):
        of.archive()
    adopt_day(of.site, DAY, present_key=True)
    assert of.run().deleted == 1

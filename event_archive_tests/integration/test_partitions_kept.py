"""What keeps a partition from being dropped, so that its rows are deleted or stay."""

import re

import pytest

from event_archive.errors import BusyError
from event_archive.operations import dropping_empty
from event_archive_tests.fixtures.meanwhile import while_reading
from event_archive_tests.fixtures.partitions import (
    DAILY,
    DAYS_OF_WEEK,
    NEXT,
    TABLE,
    TRIGGER,
    WEEKLY,
    of_table,
    partitions,
)
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, rows_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("INSERT INTO t VALUES (99, '2024-03-02 09:00+00', 'late')", "2024-03-02.* has rows that are not archived"),
        ("UPDATE t SET note = 'changed' WHERE id = 7", "1 of 10 rows is in no file in their present form"),
    ],
)
def test_a_row_that_is_not_proven_keeps_the_partition(pipeline: Pipeline, change: str, words: str):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    of.database.execute(change)
    purged = of.purge()
    assert (purged.how, purged.deleted) == ("deleted", 5)
    assert purged.reason is not None
    assert re.search(words, purged.reason)
    # The next run appends it, and the partition goes.
    of.archive(NEXT)
    of.archive(DAYS_OF_WEEK[2])
    assert of.purge(NEXT).partitions == ("public.w",)


def test_a_row_that_stands_in_the_file_of_another_day_alone_is_not_proven(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    of.database.execute("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (50, '2024-03-01 10:00+00', 'new')")
    of.put(of.content(NEXT) + b"50,2024-03-01 10:00:00+00,new\n", day=NEXT)
    assert of.archive(NEXT).rows == 4
    purged = of.purge(NEXT)
    assert (purged.how, purged.deleted) == ("deleted", 3)
    assert purged.reason == "1 of 10 rows is in no file in their present form, in public.w"
    assert of.count("id = 50") == 1


def test_a_row_of_no_day_keeps_the_partition(pipeline: Pipeline):
    of = of_table(
        pipeline,
        f"""{TABLE} CREATE TABLE old PARTITION OF t FOR VALUES FROM (MINVALUE) TO ('2024-03-02 00:00+00');
        INSERT INTO t VALUES (1, '2024-03-01 08:00+00', 'n'), (2, '-infinity', 'n'), (3, '1999-01-01', 'n')""",
    )
    purged = of.run()
    assert (purged.how, purged.deleted) == ("deleted", 1)
    assert purged.reason == "public.old holds 2 rows that are of no day that is archived"
    assert of.count() == 2


ROOT = """
CREATE TABLE root (id int, at timestamptz NOT NULL, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
ALTER TABLE root ATTACH PARTITION t FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2025-01-01 00:00+00');
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (f"{TRIGGER} CREATE TRIGGER each AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION f()", "triggers .*: each"),
        (f"{TRIGGER} CREATE TRIGGER stm AFTER DELETE ON t FOR EACH STATEMENT EXECUTE FUNCTION f()", "triggers .*: stm"),
        (f"{TRIGGER} CREATE TRIGGER own AFTER DELETE ON d1 FOR EACH ROW EXECUTE FUNCTION f()", "triggers .*: own"),
        ("CREATE PUBLICATION pub FOR TABLE t", "subscribers of publication pub"),
        (f"{ROOT} CREATE PUBLICATION pub FOR TABLE root WITH (publish_via_partition_root)", "publication pub"),
        ("CREATE SEQUENCE ids OWNED BY d1.id", r"sequence public\.ids belongs to public\.d1"),
        ("CREATE TABLE child (id int, at timestamptz, FOREIGN KEY (id, at) REFERENCES t)", "foreign key child_id_at"),
        ("CREATE VIEW v AS SELECT * FROM d1", "other objects depend on it: view v depends on table d1$"),
        (
            "CREATE VIEW v AS SELECT * FROM d1; CREATE VIEW w AS SELECT * FROM d1",
            "other objects depend on it: view v depends on table d1 …$",
        ),
        ("INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'late')", "1 of 6 rows is in no file"),
    ],
)
def test_what_a_drop_would_pass_over_is_deleted_row_by_row(pipeline: Pipeline, change: str, words: str):
    of = of_table(pipeline, DAILY)
    of.archive()
    of.database.execute(change)
    purged = of.purge()
    assert (purged.outcome, purged.deleted, purged.how) == ("purged", 5, "deleted")
    assert purged.reason is not None
    assert re.search(words, purged.reason), purged.reason
    assert partitions(of) == {"d1", "d2"}
    if "FUNCTION" in change:
        assert rows_of(of, "audit") == (1 if "STATEMENT" in change else 5)


@pytest.mark.parametrize("fires", ["d2 FOR EACH ROW", "d1 FOR EACH STATEMENT"])
def test_a_trigger_that_no_delete_from_the_table_would_fire_keeps_none(pipeline: Pipeline, fires: str):
    of = of_table(pipeline, f"{DAILY} {TRIGGER} CREATE TRIGGER own AFTER DELETE ON {fires} EXECUTE FUNCTION f()")
    assert of.run().how == "dropped"


def test_a_publication_without_deletes_keeps_none(pipeline: Pipeline):
    of = of_table(pipeline, f"{DAILY} CREATE PUBLICATION pub FOR TABLE t WITH (publish = 'insert, update')")
    assert of.run().how == "dropped"


def test_a_role_that_does_not_own_the_partition_deletes(pipeline: Pipeline):
    of = of_table(pipeline, DAILY)
    role = f"guest_{of.database.name}"
    of.database.execute(
        f"CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON t TO {role}; GRANT TEMPORARY ON DATABASE "
        f"{of.database.name} TO {role}"
    )
    guest = Pipeline(of.database, of.lake, of.dataset, role=role)
    try:
        purged = guest.run()
        assert (purged.how, purged.deleted) == ("deleted", 5)
        assert purged.reason == f"{role} does not own public.d1"
        of.database.execute(f"ALTER TABLE d2 OWNER TO {role}")
        assert guest.run(NEXT).how == "dropped"
    finally:
        of.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_forced_row_security_keeps_the_partition(pipeline: Pipeline):
    of = of_table(pipeline, DAILY)
    role = f"owner_{of.database.name}"
    of.database.execute(
        f"""CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON t TO {role}; ALTER TABLE d1 OWNER TO {role};
        ALTER TABLE d1 ENABLE ROW LEVEL SECURITY; ALTER TABLE d1 FORCE ROW LEVEL SECURITY;
        CREATE POLICY few ON d1 USING (id < 3)"""
    )
    owner = Pipeline(of.database, of.lake, of.dataset, role=role)
    try:
        purged = owner.run()
        assert (purged.how, purged.deleted) == ("deleted", 5)
        assert "row-level security" in str(purged.reason)
    finally:
        of.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("migration", ["ALTER TABLE t ALTER note TYPE jsonb USING '1'", "ALTER TABLE t DROP note"])
def test_a_table_that_is_altered_while_files_are_read_for_a_drop_is_told_as_that(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, migration: str
):
    of = of_table(pipeline, DAILY)
    of.archive()
    with (
        while_reading(monkeypatch, of.lake, lambda: of.database.execute(migration)),
        pytest.raises(BusyError, match="the table was altered while"),
    ):
        of.purge()
    assert (of.count(), partitions(of)) == (8, {"d1", "d2"})


FORBIDDEN = """
CREATE FUNCTION forbids() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN RAISE 'no table is dropped here' USING ERRCODE = '{code}'; END $$;
CREATE EVENT TRIGGER forbids ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION forbids()
"""


@pytest.mark.parametrize("code", ["P0001", "55000", "A0001", "22012"])
def test_an_event_trigger_that_forbids_to_drop_keeps_the_partition_under_whatever_code(
    pipeline: Pipeline, code: str, caplog: pytest.LogCaptureFixture
):
    of = of_table(pipeline, DAILY + FORBIDDEN.format(code=code))
    purged = of.run()
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 5, {"d1", "d2"})
    assert purged.reason == "a function raised an exception: forbids(), line 2"
    assert dropping_empty.drop_empty(of.site, DAY) == []
    assert "empty partition public.d1 is not dropped: a function raised an exception" in caplog.text


def test_an_ordinary_table_has_no_partition_to_drop(pipeline: Pipeline):
    of = pipeline.of(purge="drop")
    of.add(3)
    purged = of.run()
    assert (purged.how, purged.deleted) == ("deleted", 3)
    assert "in no partition" in str(purged.reason)

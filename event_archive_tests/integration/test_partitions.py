"""Partitions that are dropped in place of their rows, or because a purge emptied them; and what keeps one."""

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import Retention, now_utc
from event_archive.errors import BusyError, IntegrityError, RefusedError
from event_archive.lake.local.folder import LocalLake
from event_archive.lake.protocol import Lake
from event_archive.nightly.backlog import days_to_do, rows_of_aged_days
from event_archive.operations import drop_plan, dropping
from event_archive.operations.restore.day import restore_day
from event_archive.postgres.catalogue.partitions import bounded_partitions
from event_archive.table.holds import hold
from event_archive.table.locks import lock_day
from event_archive.table.partitions import unfit
from event_archive.table.shape import current_shape
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database, Server, new_database
from event_archive_tests.fixtures.waiting import until
from event_archive_tests.integration.test_what_a_delete_reaches import rows_of, while_reading

pytestmark = pytest.mark.slow

T = TableName("public", "t")
NEXT = DAY + timedelta(days=1)

TABLE = """
CREATE TABLE t (id int, at timestamptz NOT NULL, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE INDEX ON t (at);
"""
DAILY = f"""{TABLE}
CREATE TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00');
CREATE TABLE d2 PARTITION OF t FOR VALUES FROM ('2024-03-02 00:00+00') TO ('2024-03-03 00:00+00');
INSERT INTO t SELECT n, '2024-03-01 08:00+00', 'n' FROM generate_series(1, 5) AS n;
INSERT INTO t SELECT n, '2024-03-02 08:00+00', 'n' FROM generate_series(6, 8) AS n;
"""
WEEKLY = f"""{TABLE}
CREATE TABLE w PARTITION OF t FOR VALUES FROM ('2024-02-26 00:00+00') TO ('2024-03-04 00:00+00');
INSERT INTO t SELECT n, '2024-03-01 08:00+00', 'n' FROM generate_series(1, 5) AS n;
INSERT INTO t SELECT n, '2024-03-02 08:00+00', 'n' FROM generate_series(6, 8) AS n;
INSERT INTO t SELECT n, '2024-03-03 08:00+00', 'n' FROM generate_series(9, 10) AS n;
"""
DAYS_OF_WEEK = [DAY, NEXT, NEXT + timedelta(days=1)]


def of_table(pipeline: Pipeline, definition: str, **changes: object) -> Pipeline:
    pipeline.database.execute(definition)
    return pipeline.of(**{"table": T, "time_column": "at", "file_prefix": "t", "purge": "drop"} | changes)


def partitions(of: Pipeline) -> set[object]:
    return {
        name
        for (name,) in of.database.execute(
            "SELECT relid::regclass::text FROM pg_partition_tree('t') WHERE isleaf AND level > 0"
        )
    }


def test_the_partition_of_a_day_is_dropped_in_place_of_its_rows(each_database: Database, lake: Lake):
    of = of_table(Pipeline(each_database, lake), DAILY)
    purged = of.run()
    assert (purged.outcome, purged.deleted, purged.left) == ("purged", 5, 0)
    assert (purged.how, purged.partitions, purged.reason) == ("dropped", ("public.d1",), None)
    assert partitions(of) == {"d2"}
    assert of.count() == 3
    assert len(of.records_of_file()) == 5


def test_a_dry_run_says_what_would_be_dropped(pipeline: Pipeline):
    of = of_table(pipeline, DAILY)
    of.archive()
    purged = of.purge(dry_run=True)
    assert (purged.outcome, purged.deleted, purged.proven, purged.how) == ("dry run", 0, 5, "dropped")
    assert partitions(of) == {"d1", "d2"}
    assert of.count() == 8


def test_a_partition_of_many_days_is_dropped_once_all_of_them_are_archived(each_database: Database, local_lake: Lake):
    of = of_table(Pipeline(each_database, local_lake), WEEKLY)
    first, second, third = (of.run(day) for day in DAYS_OF_WEEK)
    for waiting in (first, second):
        assert (waiting.outcome, waiting.deleted) == ("waiting", 0)
        assert "which lies in the same partition, is not archived yet" in str(waiting.reason)
    assert (third.outcome, third.deleted, third.how, third.partitions) == ("purged", 10, "dropped", ("public.w",))
    assert of.count() == 0
    assert [len(of.records_of_file(day)) for day in DAYS_OF_WEEK] == [5, 3, 2]
    assert of.run(DAY).deleted == 0


def aged_up_to(last: date) -> Retention:
    """A retention with which ``last`` is the youngest aged day."""
    return Retention(months=0, days=(now_utc().date() - last).days - 1)


def test_rows_wait_for_the_rest_of_their_partition_to_come_of_age(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY, retention=aged_up_to(NEXT))
    purged = of.run()
    assert (purged.outcome, purged.deleted, purged.left) == ("waiting", 0, 5)
    comes_of_age = of.dataset.retention.comes_of_age(date(2024, 3, 3))
    assert purged.reason == f"public.w is dropped when all of it is aged, on {comes_of_age}"
    assert len(of.records_of_file()) == 5


def waiting_days(of: Pipeline) -> set[date]:
    return days_to_do(of.dataset, now_utc(), of.postgres).waiting


def test_no_day_waits_for_a_partition_that_begins_after_it(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY, retention=aged_up_to(NEXT))
    of.database.execute(
        """CREATE TABLE before PARTITION OF t FOR VALUES FROM ('2024-02-25 00:00+00') TO ('2024-02-26 00:00+00');
        INSERT INTO t VALUES (0, '2024-02-25 08:00+00', 'n')"""
    )
    assert waiting_days(of) == {DAY, NEXT}


def test_no_day_waits_where_a_part_of_its_partition_is_deleted_from(pipeline: Pipeline):
    of = of_table(
        pipeline,
        f"""{TABLE} {TRIGGER} CREATE TABLE w PARTITION OF t FOR VALUES FROM ('2024-02-26') TO ('2024-03-04')
            PARTITION BY HASH (id);
        CREATE TABLE w1 PARTITION OF w FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE w2 PARTITION OF w FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO t SELECT n, '2024-03-01 08:00+00', 'n' FROM generate_series(1, 5) AS n""",
        retention=aged_up_to(NEXT),
    )
    assert waiting_days(of) == {DAY}
    of.database.execute("CREATE TRIGGER own AFTER DELETE ON w1 FOR EACH ROW EXECUTE FUNCTION f()")
    assert waiting_days(of) == set()
    assert (of.run().how, of.count()) == ("deleted", 0)


def test_no_day_waits_for_a_partition_that_ends_in_years(pipeline: Pipeline):
    of = of_table(
        pipeline,
        f"""{TABLE} CREATE TABLE ever PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('9998-01-01');
        INSERT INTO t VALUES (1, '2024-03-01 08:00+00', 'n')""",
    )
    purged = of.run()
    assert (purged.how, purged.deleted) == ("deleted", 1)
    assert purged.reason == "public.ever goes on for more than a year after it"


def test_a_day_waits_for_a_week_at_the_most(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(pipeline, WEEKLY)
    assert of.run().outcome == "waiting"
    monkeypatch.setattr(drop_plan, "MOST_WAITING", timedelta(0))
    purged = of.run()
    assert (purged.outcome, purged.deleted, purged.how) == ("purged", 5, "deleted")
    assert "2024-03-02, which lies in the same partition, is not archived, and was not for a week" in str(purged.reason)


def run_week(of: Pipeline) -> list[Any]:
    for day in DAYS_OF_WEEK:
        of.archive(day)
    return [of.purge(day) for day in DAYS_OF_WEEK]


def test_a_held_day_lets_the_others_be_deleted(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY)
    hold(of.dataset, NEXT, NEXT, "a court", of.postgres)
    first, second, third = run_week(of)
    assert (first.how, first.deleted, third.how, third.deleted) == ("deleted", 5, "deleted", 2)
    assert "2024-03-02, which lies in the same partition, is held" in first.reason
    assert (second.outcome, second.deleted) == ("held", 0)
    assert of.count() == 3


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


TRIGGER = """
CREATE TABLE audit (id int);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO audit VALUES (1); RETURN NULL; END $$;
"""


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


def test_a_trigger_of_another_partition_keeps_none(pipeline: Pipeline):
    of = of_table(
        pipeline, f"{DAILY} {TRIGGER} CREATE TRIGGER own AFTER DELETE ON d2 FOR EACH ROW EXECUTE FUNCTION f()"
    )
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


def damage(of: Pipeline) -> None:
    """Puts many rows into the first day's partition, and one that none of its indexes knows behind them."""
    of.database.execute(
        """INSERT INTO t SELECT 1000 + n, '2024-03-01 09:00+00', repeat(md5(n::text), 55)
        FROM generate_series(1, 2000) AS n;
        UPDATE pg_index SET indisready = false WHERE indrelid = 'd1'::regclass"""
    )
    of.database.execute("INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'lost')")
    of.database.execute("UPDATE pg_index SET indisready = true WHERE indrelid = 'd1'::regclass")
    make_all_visible(of)


def make_all_visible(of: Pipeline) -> None:
    """PostgreSQL then rather asks an index alone whether there are rows."""
    with psycopg.connect(of.database.dsn, autocommit=True) as connection:
        # What was committed without waiting for the disk is not visible to all before it is written.
        connection.execute("CHECKPOINT")
        connection.execute("VACUUM ANALYZE d1")


def test_a_row_that_a_damaged_index_lacks_keeps_the_partition(pipeline: Pipeline):
    of = of_table(pipeline, DAILY)
    damage(of)
    purged = of.run()
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 2005, {"d1", "d2"})
    assert of.count("note = 'lost'") == 1


def test_a_partition_that_is_empty_by_a_damaged_index_alone_stays(pipeline: Pipeline):
    of = of_table(pipeline, DAILY, purge="delete")
    damage(of)
    assert of.run().deleted == 2005
    make_all_visible(of)
    assert dropping.drop_empty(of.site, DAY) == []
    assert of.count("note = 'lost'") == 1


def test_a_row_that_a_damaged_index_finds_twice_does_not_stand_for_another(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY)
    # An index keeps the entry of a row that is gone, and another row takes its place.
    of.database.execute("INSERT INTO t VALUES (50, '2024-03-02 07:00+00', 'n')")
    of.database.execute("UPDATE pg_index SET indisready = false WHERE indrelid = 'w'::regclass")
    of.database.execute("DELETE FROM t WHERE id = 50")
    with psycopg.connect(of.database.dsn, autocommit=True) as connection:
        connection.execute("VACUUM w")
    of.database.execute(
        """UPDATE pg_index SET indisready = true WHERE indrelid = 'w'::regclass;
        UPDATE pg_class SET relhasindex = true WHERE oid = 'w'::regclass"""
    )
    of.database.execute("INSERT INTO t VALUES (51, '2024-03-02 09:00+00', 'n')")
    of.database.execute("INSERT INTO t SELECT n, '2024-03-01 09:00+00', 'n' FROM generate_series(1001, 21000) AS n")
    of.database.execute(
        f"""ANALYZE t; ALTER DATABASE {of.database.name} SET enable_bitmapscan = off;
        ALTER DATABASE {of.database.name} SET enable_mergejoin = off"""
    )
    for day in DAYS_OF_WEEK:
        of.archive(day)
    assert len(of.records_of_file(NEXT)) == 5, "no index finds a row twice"
    of.database.execute("UPDATE t SET note = 'changed' WHERE id = 7")
    purged = of.purge()
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 20005, {"w"})
    assert purged.reason == "1 of 20011 rows is in no file in their present form, in public.w"
    assert of.count("note = 'changed'") == 1


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
    assert dropping.drop_empty(of.site, DAY) == []
    assert "empty partition public.d1 is not dropped: a function raised an exception" in caplog.text


SWAPPED = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.t (id int, at timestamptz NOT NULL, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE {schema}.d1 PARTITION OF {schema}.t FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00');
INSERT INTO {schema}.t VALUES (1, '2024-03-01 08:00+00', '{schema}');
"""


@pytest.mark.parametrize("changes", [{"purge": "drop"}, {"drop_empty_partitions": True}])
def test_a_schema_that_takes_anothers_name_at_the_last_moment_loses_no_table(
    pipeline: Pipeline, changes: dict[str, object]
):
    """The event trigger stands for another session: before PostgreSQL looks up the name of what is dropped."""
    pipeline.database.execute(SWAPPED.format(schema="app") + SWAPPED.format(schema="next"))
    pipeline.database.execute(
        """CREATE FUNCTION swaps() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          ALTER SCHEMA app RENAME TO former; ALTER SCHEMA next RENAME TO app; END $$;
        CREATE EVENT TRIGGER swaps ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION swaps()"""
    )
    of = pipeline.of(**{"table": TableName("app", "t"), "time_column": "at", "file_prefix": "t"} | changes)
    purged = of.run()
    assert (purged.how, purged.deleted, purged.partitions) == ("deleted", 1, ())
    assert of.database.execute("SELECT note FROM next.t") == [("next",)]


def test_an_ordinary_table_has_no_partition_to_drop(pipeline: Pipeline):
    of = pipeline.of(purge="drop")
    of.add(3)
    purged = of.run()
    assert (purged.how, purged.deleted) == ("deleted", 3)
    assert "in no partition" in str(purged.reason)


LIST_THEN_RANGE = """
CREATE TABLE t (id int, tenant text, at timestamptz NOT NULL, note text, PRIMARY KEY (id, tenant, at))
  PARTITION BY LIST (tenant);
CREATE TABLE a PARTITION OF t FOR VALUES IN ('a') PARTITION BY RANGE (at);
CREATE TABLE b PARTITION OF t FOR VALUES IN ('b') PARTITION BY RANGE (at);
CREATE TABLE rest PARTITION OF t DEFAULT;
CREATE TABLE a1 PARTITION OF a FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00');
CREATE TABLE b1 PARTITION OF b FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00');
INSERT INTO t VALUES (1, 'a', '2024-03-01 08:00+00', 'n'), (2, 'b', '2024-03-01 09:00+00', 'n');
"""
RANGE_THEN_HASH = """
CREATE TABLE t (id int, at timestamptz NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE m PARTITION OF t FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00') PARTITION BY HASH (id);
CREATE TABLE m0 PARTITION OF m FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE m1 PARTITION OF m FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO t SELECT n, '2024-03-01 08:00+00' FROM generate_series(1, 20) AS n;
"""


@pytest.mark.parametrize(("definition", "rows"), [(LIST_THEN_RANGE, 2), (RANGE_THEN_HASH, 20)])
def test_all_leaves_of_a_day_are_dropped_at_once(pipeline: Pipeline, definition: str, rows: int):
    of = of_table(pipeline, definition)
    purged = of.run()
    assert (purged.deleted, len(purged.partitions), of.count()) == (rows, 2, 0)


def test_a_dry_run_says_of_no_row_that_it_is_deleted(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    of = of_table(pipeline, DAILY)
    of.database.execute("ALTER TABLE t DETACH PARTITION d1; ALTER TABLE t ATTACH PARTITION d1 DEFAULT")
    of.archive()
    assert of.purge(dry_run=True).how == "deleted"
    assert "rows would be deleted, no partition dropped: it lies in no partition of a range" in caplog.text
    assert "rows are deleted" not in caplog.text
    of.purge()
    assert "rows are deleted, no partition is dropped: it lies in no partition of a range" in caplog.text


def test_rows_of_the_day_in_a_default_partition_keep_the_others(pipeline: Pipeline):
    of = of_table(pipeline, f"{LIST_THEN_RANGE} INSERT INTO t VALUES (3, 'c', '2024-03-01 10:00+00', 'n')")
    purged = of.run()
    assert (purged.how, purged.deleted) == ("deleted", 3)
    assert purged.reason == "some of its rows lie in other partitions"


def test_a_default_partition_stays_and_takes_later_rows(pipeline: Pipeline):
    of = of_table(pipeline, f"{DAILY} CREATE TABLE rest PARTITION OF t DEFAULT")
    assert of.run().partitions == ("public.d1",)
    of.database.execute("INSERT INTO t VALUES (99, '2024-03-01 10:00+00', 'late')")
    late = of.run()
    assert (late.how, late.deleted, len(of.records_of_file())) == ("deleted", 1, 6)
    assert partitions(of) == {"d2", "rest"}


@pytest.mark.parametrize("kind", ["timestamp", "date"])
def test_bounds_of_every_type_are_understood(pipeline: Pipeline, kind: str):
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (id int, at {kind} NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE open PARTITION OF t FOR VALUES FROM (MINVALUE) TO ('2024-03-01');
        CREATE TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');
        CREATE TABLE ever PARTITION OF t FOR VALUES FROM ('2024-03-02') TO (MAXVALUE);
        INSERT INTO t VALUES (1, '2024-03-01')""",
    )
    with of.postgres.transaction("test") as connection:
        (row,) = connection.execute("SELECT 'public.t'::regclass::oid::int8").fetchall()
        found = bounded_partitions(connection, row[0], "at", date(2024, 2, 1), date(2024, 4, 1))
    assert [(of_.name, of_.first, of_.last) for of_ in found] == [
        ("open", None, date(2024, 2, 29)),
        ("d1", DAY, DAY),
    ]
    assert of.run().partitions == ("public.d1",)


def test_a_partition_up_to_the_last_date_there_is_keeps_no_other(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int, at date NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');
        CREATE TABLE ever PARTITION OF t FOR VALUES FROM ('2024-03-02') TO ('5874897-12-31');
        INSERT INTO t VALUES (1, '2024-03-01'), (2, '5874897-12-30')""",
    )
    assert of.run().partitions == ("public.d1",)


@pytest.mark.parametrize(
    ("by", "bound"),
    [
        ("RANGE (at, id)", "FROM ('2024-03-01', '2024-03-01') TO ('2024-03-02', '2024-03-01')"),
        ("RANGE (at, id)", "FROM (MINVALUE, MINVALUE) TO ('2024-03-02', MINVALUE)"),
        ("RANGE (id)", "FROM ('2024-03-01') TO ('2024-03-02')"),
        ("LIST (at)", "IN ('2024-03-01')"),
        ("HASH (at)", "WITH (MODULUS 1, REMAINDER 0)"),
    ],
)
def test_what_is_no_range_of_times_alone_has_no_bounds(pipeline: Pipeline, by: str, bound: str):
    pipeline.database.execute(
        f"CREATE TABLE t (id date, at date) PARTITION BY {by}; CREATE TABLE p PARTITION OF t FOR VALUES {bound}"
    )
    with pipeline.postgres.transaction("test") as connection:
        (row,) = connection.execute("SELECT 'public.t'::regclass::oid::int8").fetchall()
        assert bounded_partitions(connection, row[0], "at", date.min, date.max - timedelta(days=1)) == []


def test_a_partition_that_is_a_foreign_table_is_not_dropped(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int, at timestamptz NOT NULL) PARTITION BY RANGE (at);
        CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing;
        CREATE FOREIGN TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02') SERVER elsewhere;
        CREATE TABLE keyed (id int PRIMARY KEY, at timestamptz)""",
    )
    keyed = current_shape(replace(of.dataset, table=TableName("public", "keyed")), of.postgres)
    with of.postgres.transaction("test") as connection:
        (row,) = connection.execute("SELECT 'public.t'::regclass::oid::int8").fetchall()
        (found,) = bounded_partitions(connection, row[0], "at", DAY, DAY)
        assert unfit(connection, keyed, found) == "public.d1 is a foreign table"


def test_a_partition_that_is_being_detached_is_none_any_more(pipeline: Pipeline):
    of = of_table(pipeline, f"{DAILY} DELETE FROM d1", purge="delete", drop_empty_partitions=True)
    with psycopg.connect(of.database.dsn) as reader, psycopg.connect(of.database.dsn, autocommit=True) as other:
        reader.execute("SELECT FROM t")
        other.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("ALTER TABLE t DETACH PARTITION d1 CONCURRENTLY")
    assert of.run(NEXT).partitions == ("public.d2",)
    assert rows_of(of, "d1") == 0


@pytest.fixture
def database_16(server_16: Server) -> Iterator[Database]:
    yield from new_database(server_16)


def test_an_identity_of_a_partition_alone_keeps_it_from_nothing(database_16: Database, local_lake: Lake):
    """From PostgreSQL 17 on, a partition has none that is not the table's."""
    numbered = f"{DAILY} ALTER TABLE d1 ALTER id ADD GENERATED ALWAYS AS IDENTITY"
    assert of_table(Pipeline(database_16, local_lake), numbered).run().partitions == ("public.d1",)


# Beside others


def test_nobody_waits_for_the_table_while_files_are_read_for_a_drop(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)

    def migrate() -> None:
        of.database.execute("SET lock_timeout = '1s'; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")

    with while_reading(monkeypatch, of.lake, migrate, nth=2):
        assert of.purge(DAYS_OF_WEEK[-1]).how == "dropped"


def at_once(monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[], object]) -> None:
    """Does something once, when a function of the module is called."""
    original, done = getattr(dropping, name), threading.Event()

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not done.is_set():
            done.set()
            action()
        return original(*args, **kwargs)

    monkeypatch.setattr(dropping, name, wrapper)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ("INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'late')", "late"),
        ("UPDATE t SET note = 'changed' WHERE id = 2", "changed"),
    ],
)
def test_a_row_that_comes_or_changes_right_before_the_comparison_stays(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, change: str, kept: str
):
    of = of_table(pipeline, DAILY)
    of.archive()
    at_once(monkeypatch, "_keep_writers_out", lambda: of.database.execute(change))
    purged = of.purge()
    assert (purged.how, purged.left) == ("deleted", 1)
    assert of.database.execute("SELECT note FROM d1") == [(kept,)]


def test_nobody_writes_to_the_partition_from_the_comparison_on_and_everybody_reads(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of = of_table(pipeline, DAILY)
    of.archive()
    seen = []

    def write() -> None:
        seen.append(of.count())
        with pytest.raises(psycopg.errors.LockNotAvailable):
            of.database.execute("SET lock_timeout = '50ms'; INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'late')")

    at_once(monkeypatch, "_drop", write)
    assert of.purge().how == "dropped"
    assert seen == [8]


def test_a_table_that_is_never_free_is_deleted_from(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dropping, "_PATIENCE", 0)
    of = of_table(pipeline, DAILY)
    of.archive()
    with psycopg.connect(of.database.dsn) as reader:
        reader.execute("SELECT count(*) FROM t")
        purged = of.purge()
    assert (purged.how, purged.deleted) == ("deleted", 5)
    assert "the table's lock was not to be had" in str(purged.reason)


def test_the_drop_is_tried_again_until_the_table_is_free(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(pipeline, DAILY)
    of.archive()
    with psycopg.connect(of.database.dsn) as reader:
        reader.execute("SELECT count(*) FROM t")
        at_once(monkeypatch, "_pause", reader.commit)
        assert of.purge().how == "dropped"


@pytest.mark.parametrize("gone", [DAY, NEXT], ids=["its own", "that of another day"])
def test_a_file_that_vanishes_while_the_drop_waits_for_the_table_keeps_the_partition(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, gone: date
):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    assert isinstance(of.lake, LocalLake)
    file = of.lake._target(of.dataset.path(gone))
    with psycopg.connect(of.database.dsn) as reader:
        reader.execute("SELECT count(*) FROM t")

        def vanish() -> None:
            file.unlink()
            reader.commit()

        at_once(monkeypatch, "_pause", vanish)
        if gone == DAY:
            with pytest.raises(IntegrityError, match="is gone from the lake"):
                of.purge()
        else:
            purged = of.purge()
            assert (purged.how, purged.deleted) == ("deleted", 5)
            assert "is gone from the lake" in str(purged.reason)
    assert of.count(f"at::date = '{gone}'") == {DAY: 5, NEXT: 3}[gone]


def waiting_writer(of: Pipeline, table: str) -> threading.Thread:
    """A session that waits to write to the first day's partition."""
    insert = f"INSERT INTO {table} VALUES (99, '2024-03-01 09:00+00', 'late')"
    writer = threading.Thread(target=of.database.execute, args=(insert,))
    writer.start()
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'd1'::regclass"
    until(lambda: of.database.execute(waits) == [(1,)])
    return writer


@pytest.mark.parametrize("table", ["t", "d1"])
def test_a_writer_that_waits_makes_the_drop_give_up(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, table: str):
    """One that writes to the partition by its own name keeps us from nothing, but would find it gone."""
    of = of_table(pipeline, DAILY)
    of.archive()
    writers: list[threading.Thread] = []
    at_once(monkeypatch, "_drop", lambda: writers.append(waiting_writer(of, table)))
    purged = of.purge()
    writers[0].join()
    assert (purged.how, purged.deleted) == ("deleted", 5)
    assert purged.reason == "another session waits for public.d1"
    assert of.database.execute("SELECT note FROM d1") == [("late",)]


@pytest.mark.parametrize(("purged", "other"), [(DAY, NEXT), (NEXT, DAY)])
def test_a_day_waits_while_another_command_works_on_one_of_its_partition(pipeline: Pipeline, purged: date, other: date):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    with of.postgres.transaction("test") as connection:
        assert lock_day(connection, of.dataset, other)
        done = of.purge(purged)
    assert (done.outcome, done.deleted) == ("waiting", 0)
    assert done.reason == f"another command is working on {other}, which lies in the same partition"
    assert of.purge(purged).how == "dropped"


@pytest.mark.parametrize("moment", ["_keep_writers_out", "_count_proven"])
def test_the_file_of_another_day_that_is_taken_away_keeps_the_partition(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, moment: str
):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    lake = of.lake
    assert isinstance(lake, LocalLake)
    at_once(monkeypatch, moment, (lake._root / of.dataset.path(NEXT)).unlink)
    purged = of.purge()
    assert (purged.how, purged.deleted) == ("deleted", 5)
    assert f"{of.dataset.path(NEXT)} is gone from the lake" in str(purged.reason)
    assert of.count() == 5


# Restoring


def test_a_restore_into_a_dropped_partition_says_to_create_it(pipeline: Pipeline):
    of = of_table(pipeline, DAILY)
    of.run()
    with pytest.raises(Exception, match=r"no partition takes it: create that partition, or use --table"):
        restore_day(of.site, DAY, T)
    of.database.execute(
        "CREATE TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00')"
    )
    assert restore_day(of.site, DAY, T).restored == 5


# Empty partitions


def test_a_partition_that_a_purge_has_emptied_is_dropped(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY, purge="delete", drop_empty_partitions=True)
    first, second, third = run_week(of)
    assert [day.deleted for day in (first, second, third)] == [5, 3, 2]
    assert [day.partitions for day in (first, second, third)] == [(), (), ("public.w",)]
    assert third.how == "deleted"
    assert partitions(of) == set()


def test_a_dry_run_drops_no_empty_partition(pipeline: Pipeline):
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    of.archive()
    of.database.execute("DELETE FROM t WHERE id <= 5")
    assert of.purge(dry_run=True).partitions == ()
    assert partitions(of) == {"d1", "d2"}
    purged = of.purge()
    assert (purged.outcome, purged.partitions) == ("purged", ("public.d1",))


def test_an_empty_partition_that_is_not_aged_as_a_whole_stays(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY, purge="delete", drop_empty_partitions=True, retention=aged_up_to(date(2024, 3, 2)))
    of.database.execute("DELETE FROM t WHERE id > 5")
    assert (of.run().deleted, partitions(of)) == (5, {"w"})


def test_what_cannot_be_dropped_empty_stays_and_the_day_is_purged(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    of = of_table(pipeline, f"{DAILY} CREATE VIEW v AS SELECT * FROM d1", purge="delete", drop_empty_partitions=True)
    assert (of.run().deleted, partitions(of)) == (5, {"d1", "d2"})
    assert "empty partition public.d1 is not dropped: cannot drop table d1" in caplog.text


def test_an_empty_partition_takes_no_sequence_along(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    owned = f"{DAILY} CREATE SEQUENCE ids OWNED BY d1.id"
    of = of_table(pipeline, owned, purge="delete", drop_empty_partitions=True)
    assert (of.run().deleted, partitions(of)) == (5, {"d1", "d2"})
    assert "sequence public.ids belongs to public.d1" in caplog.text
    of.database.execute("ALTER SEQUENCE ids OWNED BY NONE; INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'late')")
    assert (of.run().deleted, partitions(of)) == (1, {"d2"})
    assert of.database.execute("SELECT nextval('ids')") == [(1,)]


def test_a_partition_that_is_filled_before_it_is_dropped_stays(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    insert = "INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'late')"
    at_once(monkeypatch, "_keep_writers_out", lambda: of.database.execute(insert))
    assert (of.run().deleted, partitions(of), rows_of(of, "d1")) == (5, {"d1", "d2"}, 1)


def test_an_empty_partition_that_could_not_be_dropped_goes_with_a_later_day(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(dropping, "_PATIENCE", 0)
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    with psycopg.connect(of.database.dsn) as reader:
        reader.execute("SELECT count(*) FROM t")
        assert (of.run().deleted, partitions(of)) == (5, {"d1", "d2"})
    assert "empty partition public.d1 is not dropped: the table's lock was not to be had" in caplog.text
    assert of.run(NEXT).partitions == ("public.d1", "public.d2")
    assert partitions(of) == set()


def test_an_empty_partition_of_a_held_day_stays_for_its_restore(pipeline: Pipeline):
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    of.run()
    of.database.execute(
        "CREATE TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00')"
    )
    hold(of.dataset, DAY, DAY, "audit", of.postgres)
    assert of.run(NEXT).partitions == ("public.d2",)
    assert restore_day(of.site, DAY, T).restored == 5


# VACUUM


def test_an_ordinary_table_is_vacuumed_after_a_delete(pipeline: Pipeline):
    of = pipeline.of(vacuum=True)
    of.add(3)
    purged = of.run()
    assert purged.vacuum_seconds is not None
    ((vacuums, analyzes),) = of.database.execute(
        "SELECT vacuum_count, analyze_count FROM pg_stat_user_tables WHERE relname = 'Event'"
    )
    assert (vacuums, analyzes) == (1, 1)
    assert of.run().vacuum_seconds is None


def test_a_table_that_somebody_else_vacuums_is_left_to_them(pipeline: Pipeline):
    of = pipeline.of(vacuum=True)
    of.add(3)
    with psycopg.connect(of.database.dsn) as vacuuming:
        vacuuming.execute('LOCK TABLE "Event" IN SHARE UPDATE EXCLUSIVE MODE')
        assert of.run().deleted == 3


def test_a_partitioned_table_is_left_to_autovacuum(pipeline: Pipeline):
    of = of_table(pipeline, DAILY, purge="delete", vacuum=True)
    purged = of.run()
    assert (purged.deleted, purged.vacuum_seconds) == (5, None)


def test_a_role_that_may_not_vacuum_says_so(
    each_database: Database, local_lake: Lake, caplog: pytest.LogCaptureFixture
):
    of = Pipeline(each_database, local_lake).of(vacuum=True)
    of.add(3)
    role = f"guest_{of.database.name}"
    of.database.execute(
        f'CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON "Event" TO {role}; '
        f"GRANT TEMPORARY ON DATABASE {of.database.name} TO {role}"
    )
    try:
        purged = Pipeline(of.database, of.lake, of.dataset, role=role).run()
        assert (purged.deleted, purged.vacuum_seconds) == (3, None)
        needs = "MAINTAIN on it, or the owner's role" if of.database.server.version >= 17 else "the owner's role"
        assert f"not vacuumed: {role} may not, and needs {needs}\n" in caplog.text
    finally:
        of.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_vacuum_that_fails_does_not_say_that_nothing_was_deleted(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
):
    of = pipeline.of(vacuum=True)
    of.database.execute("""
        CREATE TABLE broken ();
        CREATE FUNCTION measured(text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
        BEGIN IF EXISTS (SELECT FROM public.broken) THEN RAISE 'no'; END IF; RETURN length($1); END $$;
        CREATE INDEX ON "Event" (measured(event_id))""")
    of.add(3)
    # A young row, so that ANALYZE has one to look at.
    of.add(1, day=now_utc().date(), prefix="young")
    of.database.execute("INSERT INTO broken DEFAULT VALUES")
    purged = of.run()
    assert (purged.deleted, purged.vacuum_seconds) == (3, None)
    assert "purged, but not cleared away behind it" in caplog.text
    assert "The day is purged all the same." in caplog.text
    assert "Nothing was deleted" not in caplog.text


def test_a_look_that_fails_after_a_purge_does_not_say_that_nothing_was_deleted(pipeline: Pipeline):
    """The figures for Prometheus and a nightly verification look at the table when rows are gone."""
    role = f"guest_{pipeline.database.name}"
    pipeline.database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        guest = Pipeline(pipeline.database, pipeline.lake, role=role)
        for look in (
            lambda: rows_of_aged_days(guest.dataset, now_utc(), guest.postgres),
            lambda: current_shape(guest.dataset, guest.postgres, "look"),
        ):
            with pytest.raises(RefusedError, match="permission denied") as refused:
                look()
            assert "Nothing was changed by this." in str(refused.value)
            assert "Nothing was deleted" not in str(refused.value)
    finally:
        pipeline.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

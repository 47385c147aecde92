"""Tables and files that change under the archive, in every way that might cost a value."""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.progress import NO_PROGRESS
from event_archive.errors import BusyError, IntegrityError, RefusedError, UnreachableError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations import deleting, loading, purge
from event_archive.operations.adopt import adopt_day
from event_archive.operations.purge import purge_day
from event_archive.operations.restore.day import restore_day
from event_archive.operations.restore.target import target_named
from event_archive.postgres.pins import commit_durably, own_search_path
from event_archive.postgres.session import Postgres
from event_archive.table import rows
from event_archive.table.shape import reflect
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.statements import CI
from event_archive_tests.fixtures.waiting import until


def test_the_default_of_a_domain_does_not_stand_in_for_what_the_file_lacks(each_pipeline: Pipeline):
    each_pipeline.add(3)
    each_pipeline.archive()
    each_pipeline.database.execute(
        "CREATE DOMAIN status AS text DEFAULT 'paid'; ALTER TABLE \"Event\" ADD COLUMN status status"
    )
    assert each_pipeline.purge().deleted == 0
    assert each_pipeline.run().deleted == 3
    assert each_pipeline.values("status") == ["", "", "", "paid", "paid", "paid"]


def test_a_rewrite_keeps_every_value_as_it_was(each_pipeline: Pipeline):
    """Types that have become narrower must not touch what is archived and exists nowhere else."""
    database = each_pipeline.database
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, at date, amount numeric, raw json, moment timestamptz, f float8);"
        'INSERT INTO t VALUES (1, \'2024-03-01\', 1.23456, \'{"b":1, "b":2,  "a":"kept"}\', '
        "'2024-03-01 12:34:56.123456+00', 0.1234567890123)"
    )
    of = each_pipeline.of(table=TableName("public", "t"), time_column="at")
    of.run()
    before = of.records_of_file()[0]
    database.execute(
        "ALTER TABLE t ALTER amount TYPE numeric(10,2), ALTER raw TYPE jsonb, ALTER moment TYPE date, "
        "ALTER f TYPE real, ADD COLUMN extra text;"
        "INSERT INTO t VALUES (2, '2024-03-01', 1, '{}', '2024-03-01', 1, 'x')"
    )
    assert of.run().deleted == 1
    assert of.records_of_file()[0] == before | {"extra": ""}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("timestamp", "infinity"),
        ("timestamptz", "0044-03-15 12:00:00+00 BC"),
        ("date", "20000-01-01"),
        ("jsonb", "[" * 5000 + "]" * 5000),
    ],
)
def test_a_rewrite_takes_values_that_python_has_none_of(pipeline: Pipeline, kind: str, value: str):
    pipeline.add(1)
    pipeline.run()
    pipeline.database.execute(f'ALTER TABLE "Event" ADD COLUMN extra {kind}')
    pipeline.add(1, prefix="late")
    pipeline.database.execute(f'UPDATE "Event" SET extra = %s::text::{kind}', value)
    assert pipeline.run().deleted == 1
    assert pipeline.values("extra") == ["", value]


def test_a_rewrite_keeps_the_order_of_superseded_rows(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 2")
    pipeline.archive()
    pipeline.database.execute("ALTER TABLE \"Event\" ADD COLUMN extra text DEFAULT 'x'")
    pipeline.add(1, prefix="late")
    assert pipeline.run().deleted == 4
    assert pipeline.values("id") == ["1", "2", "3", "2", "1", "4", "2", "3"]


def test_a_rewrite_of_what_changed_since_it_was_compared_is_refused(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """The second reading is what is written; a lake that serves other bytes under one ETag must not get it in."""
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute("ALTER TABLE \"Event\" ADD COLUMN extra text DEFAULT 'x'")
    pipeline.add(1, prefix="late")
    content, original = pipeline.content(), type(pipeline.lake).read
    readings: list[str] = []

    @contextmanager
    def read(lake: Lake, file: StoredFile) -> Iterator[Iterator[bytes]]:
        readings.append(file.path)
        other = readings.count(pipeline.dataset.path(DAY)) == 2
        with original(lake, file) as blocks:
            yield (block.replace(b"order", b"bored") if other else block for block in blocks)

    monkeypatch.setattr(type(pipeline.lake), "read", read)
    with pytest.raises(IntegrityError, match="it changed between two readings"):
        pipeline.archive()
    monkeypatch.undo()
    assert (pipeline.content(), pipeline.count()) == (content, 1)


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: c.replace(b"\n", b"\r\n"), lambda c: b"\xef\xbb\xbf" + c]
)
def test_an_adopted_file_whose_lines_end_otherwise_is_not_torn(
    each_pipeline: Pipeline, damage: Callable[[bytes], bytes]
):
    each_pipeline.database.execute(
        "INSERT INTO \"Event\" (event_id, event_type, created_at, payload) VALUES ('first', 't', '2024-03-01', '{}')"
    )
    each_pipeline.run()
    each_pipeline.put(damage(each_pipeline.content()))
    adopt_day(each_pipeline.site, DAY)
    each_pipeline.add(2, prefix="late")
    assert each_pipeline.run().deleted == 2
    assert each_pipeline.values("event_id") == ["first", "late-2024-03-01-0", "late-2024-03-01-1"]
    each_pipeline.add(1, prefix="later")
    assert each_pipeline.run().deleted == 1


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_an_end_marker_in_a_file_of_another_tool_hides_no_row(each_pipeline: Pipeline, line_end: bytes):
    each_pipeline.add(1)
    each_pipeline.put(line_end.join([b"id,event_id", b"77,a", b"\\.", b"78,b", b""]))
    with pytest.raises(IntegrityError):
        each_pipeline.archive()
    assert each_pipeline.count() == 1


def test_a_row_of_another_day_that_stands_in_the_file_stays(each_pipeline: Pipeline):
    """A file of another tool may hold anything; only rows of its day are deleted by it."""
    each_pipeline.add(2)
    each_pipeline.add(1, day=date(2026, 11, 1), prefix="young")
    each_pipeline.archive()
    with psycopg.connect(each_pipeline.database.dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SET datestyle = ISO; SET timezone = UTC")
        with cursor.copy('COPY "Event" TO STDOUT (FORMAT csv, HEADER)') as copy:
            everything = b"".join(copy)
    each_pipeline.put(everything)
    each_pipeline.archive()
    assert each_pipeline.purge().deleted == 2
    assert each_pipeline.count() == 1


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("CREATE TABLE c (a int, at date, FOREIGN KEY (a, at) REFERENCES p ON DELETE CASCADE)", "CASCADE"),
        (
            "CREATE TABLE other (a int); CREATE RULE r AS ON DELETE TO t DO ALSO DELETE FROM other",
            "a rule on DELETE, r",
        ),
        ("CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING", "a rule on DELETE, r"),
    ],
)
def test_what_would_delete_more_or_less_is_refused(pipeline: Pipeline, definition: str, words: str):
    pipeline.database.execute(
        "CREATE TABLE t (a int, at date, PRIMARY KEY (a, at)) PARTITION BY RANGE (at);"
        "CREATE TABLE p PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');" + definition
    )
    with pytest.raises(RefusedError, match=words):
        pipeline.of(table=TableName("public", "t"), time_column="at").archive()


def test_a_partitioned_table_is_archived_and_purged(each_pipeline: Pipeline):
    each_pipeline.database.execute(
        "CREATE TABLE t (a int, at date, PRIMARY KEY (a, at)) PARTITION BY RANGE (at);"
        "CREATE TABLE p1 PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('2024-03-01');"
        "CREATE TABLE p2 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');"
        "INSERT INTO t SELECT n, '2024-02-28'::date + n FROM generate_series(0, 4) AS n"
    )
    of = each_pipeline.of(table=TableName("public", "t"), time_column="at")
    assert [of.run(day).deleted for day in (date(2024, 2, 29), DAY)] == [1, 1]
    assert of.count() == 3


def test_a_key_that_is_not_yet_validated_is_none(pipeline: Pipeline):
    pipeline.database.execute(
        "CREATE TABLE t (a int UNIQUE, at date); INSERT INTO t VALUES (NULL, '2024-03-01');"
        "ALTER TABLE t ADD CONSTRAINT later NOT NULL a NOT VALID"
    )
    with pytest.raises(RefusedError, match="has no key"):
        pipeline.of(table=TableName("public", "t"), time_column="at").archive()


def test_rows_that_a_policy_hides_make_the_day_fail_instead_of_look_done(pipeline: Pipeline):
    pipeline.add(4)
    pipeline.database.execute(
        'ALTER TABLE "Event" ENABLE ROW LEVEL SECURITY; CREATE POLICY half ON "Event" USING (id %% 2 = 0);'
        'CREATE ROLE half LOGIN; GRANT SELECT, DELETE ON "Event" TO half'.replace("%%", "%")
    )
    limited = Pipeline(pipeline.database, pipeline.lake, role="half")
    try:
        with pytest.raises(RefusedError, match="row-level security"):
            limited.archive()
    finally:
        pipeline.database.execute("DROP OWNED BY half; DROP ROLE half")


def test_a_search_path_cannot_change_what_equal_means(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute('UPDATE "Event" SET event_type = upper(event_type)')
    pipeline.database.execute(
        f"""CREATE SCHEMA app; CREATE FUNCTION app.same(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true';
        CREATE OPERATOR app.= (LEFTARG = text, RIGHTARG = text, FUNCTION = app.same);
        ALTER DATABASE {pipeline.database.name} SET search_path = app, public, pg_catalog"""
    )
    assert pipeline.purge().deleted == 0


def test_a_search_path_cannot_change_what_a_name_in_the_file_means(pipeline: Pipeline):
    """A value of PostgreSQL's own stands in the file without its schema, where another schema has one of that name."""
    pipeline.database.execute(
        f"""CREATE TEXT SEARCH CONFIGURATION public.english (COPY = pg_catalog.simple);
        CREATE TABLE public.pg_class ();
        ALTER DATABASE {pipeline.database.name} SET search_path = public, pg_catalog;
        CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL, words regconfig, relation regclass);
        INSERT INTO t SELECT n, '2024-03-01 10:00+00', 'pg_catalog.english', 'pg_catalog.pg_class'
        FROM generate_series(1, 4) AS n"""
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    of.archive()
    before = of.database.execute("SELECT id, words::oid, relation::oid FROM t WHERE id > 2 ORDER BY id")
    of.database.execute("UPDATE t SET words = 'public.english' WHERE id = 1")
    of.database.execute("UPDATE t SET relation = 'public.pg_class' WHERE id = 2")
    assert of.purge().deleted == 2
    assert of.database.execute("SELECT id FROM t ORDER BY id") == [(1,), (2,)]
    of.database.execute("DELETE FROM t")
    restore_day(of.site, DAY, of.dataset.table)
    assert of.database.execute("SELECT id, words::oid, relation::oid FROM t WHERE id > 2 ORDER BY id") == before


def test_a_search_path_may_be_white_space(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.database.execute(
        f"""SELECT set_config('search_path', ' ', true);
        ALTER DATABASE {pipeline.database.name} SET search_path FROM CURRENT"""
    )
    assert pipeline.run().deleted == 2


def test_no_setting_of_the_server_changes_the_text_of_a_value(each_pipeline: Pipeline):
    """The test servers have other settings for all of these."""
    each_pipeline.database.execute(
        "CREATE TABLE t (a int PRIMARY KEY, at timestamptz, span interval, f float8, r real, raw bytea, day date);"
        "INSERT INTO t VALUES (1, '2024-03-01 12:00+00', '1 year 2 days -03:00', 0.1::float8 + 0.2, 0.1, '\\x00ff', "
        "'2024-12-31')"
    )
    of = each_pipeline.of(table=TableName("public", "t"), time_column="at")
    of.run()
    assert of.content().splitlines()[1] == (
        b"1,2024-03-01 12:00:00+00,1 year 2 days -03:00:00,0.30000000000000004,0.1,\\x00ff,2024-12-31"
    )


ADVERSE = {
    "TimeZone": "Asia/Tokyo", "DateStyle": "SQL, DMY", "IntervalStyle": "sql_standard", "extra_float_digits": "-3",
    "bytea_output": "escape", "lc_monetary": "POSIX", "xmlbinary": "hex", "quote_all_identifiers": "on",
    "xmloption": "document", "array_nulls": "off", "default_table_access_method": "other", "jit": "on",
    "row_security": "on", "idle_in_transaction_session_timeout": "1h", "transaction_timeout": "1h",
    "timezone_abbreviations": "India", "gin_fuzzy_search_limit": "1",
    "lock_timeout": "1h", "statement_timeout": "1h", "search_path": "public",
    "default_transaction_isolation": "serializable",
}  # fmt: skip


def test_a_transaction_takes_no_setting_from_its_database(pipeline: Pipeline):
    pipeline.database.execute("CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler")
    for name, value in ADVERSE.items():
        pipeline.database.execute(f"ALTER DATABASE {pipeline.database.name} SET {name} = '{value}'")
    inherited = "default_transaction_isolation"
    with pipeline.postgres.transaction("test") as connection:
        for name, value in ADVERSE.items():
            asked = "transaction_isolation" if name == inherited else name
            row = connection.execute("SELECT pg_catalog.current_setting(%s)", (asked,)).fetchone()
            assert row != (value,), name
        assert connection.execute("SHOW search_path").fetchone() == ("pg_catalog, pg_temp",)


@pytest.mark.parametrize(
    ("chosen", "taken"), [("off", "on"), ("local", "local"), ("remote_write", "remote_write"), ("remote_apply",) * 2]
)
def test_a_durable_commit_is_on_disk_and_waits_for_standbys_as_was_chosen(pipeline: Pipeline, chosen: str, taken: str):
    pipeline.database.execute(f"ALTER DATABASE {pipeline.database.name} SET synchronous_commit = {chosen}")
    with pipeline.postgres.transaction("test") as connection:
        commit_durably(connection)
        assert connection.execute("SHOW synchronous_commit").fetchone() == (taken,)


def test_a_session_speaks_utf_8_whatever_the_environment_says(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    pipeline.database.execute('CREATE TABLE "☃" (a int PRIMARY KEY, at date)')
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with pipeline.postgres.transaction("test") as connection:
        assert reflect(connection, pipeline.of(table=TableName("public", "☃"), time_column="at").dataset)


def test_what_a_signal_interrupts_ends_at_once_on_the_server_too(pipeline: Pipeline):
    class Interrupted(BaseException):
        """As Dagster's, of which psycopg knows nothing."""

    def stop(*_: object) -> None:
        raise Interrupted

    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(30)'"
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(Interrupted), pipeline.postgres.transaction("test") as connection:
            connection.execute("SELECT pg_catalog.pg_sleep(30)")
        # By itself it would see after five seconds that its client is gone.
        until(lambda: pipeline.database.execute(sleeping) == [(0,)], seconds=3)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_session_prepares_no_statement(pipeline: Pipeline):
    """A pooler may have given the session to another client by the time that it is executed."""
    with pipeline.postgres.transaction("test") as connection:
        for _ in range(10):
            connection.execute("SELECT %s", (1,))
        assert connection.execute("SELECT count(*) FROM pg_catalog.pg_prepared_statements").fetchone() == (0,)


def test_a_session_that_a_pooler_gives_to_run_after_run_is_as_new_to_each(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.database.execute(
        """CREATE TABLE t (id int PRIMARY KEY, at timestamp, v numeric);
        CREATE FUNCTION silent() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
        CREATE TRIGGER silent BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION silent();
        INSERT INTO t VALUES (1, '2024-03-01', 1.5), (2, '2024-03-02', 1.5), (3, '2024-03-02', 1.5)"""
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    days = [DAY, DAY + timedelta(days=1)]
    with pipeline.postgres.session() as session:
        monkeypatch.setattr(Postgres, "transaction", lambda _, subject, **how: session.transaction(subject, **how))
        for day in days:
            of.archive(day)
        assert [of.purge(day).deleted for day in days] == [1, 2]
        # A file of other types is read twice.
        of.database.execute("ALTER TABLE t ALTER v TYPE numeric(10, 1)")
        assert [restore_day(of.site, day, of.dataset.table).restored for day in days] == [1, 2]
        locked = of.database.execute("SELECT objid FROM pg_locks WHERE locktype = 'advisory'")
    assert locked == []


def test_a_search_path_that_a_trigger_is_given_ends_with_the_transaction(pipeline: Pipeline):
    """A pooler gives the session to others, too."""
    with pipeline.postgres.session() as session:
        with session.transaction("theirs") as connection:
            connection.execute("SET search_path TO theirs")
        with session.transaction("ours") as connection, own_search_path(connection):
            pass
        assert connection.execute("SHOW search_path").fetchone() == ("theirs",)


def test_a_trigger_that_keeps_rows_is_named(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    pipeline.add(3)
    pipeline.database.execute(
        """CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER keep BEFORE DELETE ON "Event" FOR EACH ROW WHEN (OLD.id = 2) EXECUTE FUNCTION keep()"""
    )
    purged = pipeline.run()
    assert (purged.outcome, purged.deleted, purged.left) == ("kept", 2, 1)
    assert purged.reason
    assert purged.reason.startswith("1 row stays although the file holds them: a trigger")
    assert "(keep)" in purged.reason
    assert purged.reason in caplog.text
    assert "The next run appends them" not in caplog.text


def test_a_file_that_vanishes_while_its_rows_are_deleted_rolls_back(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(3)
    pipeline.archive()
    original = type(pipeline.lake).stat
    asked: list[str] = []

    def vanishing(lake: object, path: str):
        asked.append(path)
        return original(lake, path) if asked.count(pipeline.dataset.path(DAY)) < 2 else None  # type: ignore[arg-type]

    monkeypatch.setattr(type(pipeline.lake), "stat", vanishing)
    with pytest.raises(IntegrityError, match="is gone from the lake"):
        pipeline.purge()
    assert pipeline.count() == 3


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE \"Event\" ADD COLUMN extra text DEFAULT 'x'",
        'ALTER TABLE "Event" DISABLE TRIGGER ALL',
        'CREATE TABLE child (event bigint REFERENCES "Event" ON DELETE CASCADE)',
    ],
)
def test_nothing_of_the_table_can_change_between_the_comparison_and_the_delete(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, change: str
):
    """A column added there could not be compared, and its values would be lost."""
    pipeline.add(3)
    pipeline.archive()
    original = deleting.delete_identical
    blocked: list[bool] = []

    def delete_while_somebody_alters(*arguments: Any) -> int:
        with psycopg.connect(pipeline.database.dsn) as other, pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute(f"SET lock_timeout = '50ms'; {change}".encode())
        blocked.append(True)
        return original(*arguments)

    monkeypatch.setattr(purge, "delete_identical", delete_while_somebody_alters)
    assert pipeline.purge().deleted == 3
    assert blocked == [True]


def test_a_deferred_foreign_key_that_fails_at_the_commit_is_said(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.database.execute(
        'CREATE TABLE note (event bigint REFERENCES "Event" DEFERRABLE INITIALLY DEFERRED); INSERT INTO note VALUES (2)'
    )
    pipeline.archive()
    with pytest.raises(RefusedError, match="still refer"):
        pipeline.purge()
    assert pipeline.count() == 3


def test_a_connection_lost_before_the_commit_is_an_unreachable_service(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(3)
    pipeline.archive()
    original = rows.count_day

    def count_then_end(connection: psycopg.Connection, *arguments: object):
        found = original(connection, *arguments)  # type: ignore[arg-type]
        pipeline.database.execute("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        return found

    monkeypatch.setattr("event_archive.operations.deleting.count_day", count_then_end)
    with pytest.raises(UnreachableError):
        pipeline.purge()
    assert pipeline.count() == 3


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


def test_a_key_that_no_longer_parses_is_compared_as_text_whatever_its_collation(pipeline: Pipeline):
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


def test_consumers_of_a_replication_slot_can_tell_a_purge(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute('CREATE PUBLICATION events FOR TABLE "Event"')
    pipeline.database.execute("SELECT pg_create_logical_replication_slot('consumer', 'pgoutput')")
    try:
        # The first one is rolled back, and says nothing.
        for dry_run in (True, False):
            purged = purge_day(
                pipeline.site,
                DAY,
                pipeline.records[DAY],
                dry_run=dry_run,
                message_prefix="event_archive",
            )
        # The test servers do not wait for the disk; a slot shows only what has reached it.
        pipeline.database.execute("SET LOCAL synchronous_commit TO on; CREATE TABLE flushed ()")
        changes = pipeline.database.execute(
            "SELECT data FROM pg_logical_slot_get_binary_changes('consumer', NULL, NULL, 'proto_version', '1', "
            "'publication_names', 'events', 'messages', 'true')"
        )
    finally:
        pipeline.database.execute("SELECT pg_drop_replication_slot('consumer')")
    assert purged.deleted == 2
    kinds = [bytes(data) for (data,) in changes]  # type: ignore[call-overload]
    messages = [kind for kind in kinds if kind.startswith(b"M")]
    assert len(messages) == 1
    assert b"event_archive" in messages[0]
    assert b'{"table": "public.\\"Event\\"", "day": "2024-03-01"}' in messages[0]
    assert [kind[:1] for kind in kinds if kind[:1] in (b"M", b"D")] == [b"M", b"D", b"D"]


def test_a_purge_waits_for_a_table_lock_no_longer_than_it_may(pipeline: Pipeline):
    pipeline.add(1)
    pipeline.archive()
    with psycopg.connect(pipeline.database.dsn) as other:
        other.execute('LOCK TABLE "Event" IN ACCESS EXCLUSIVE MODE')
        with pytest.raises(BusyError, match="holds a lock"):
            pipeline.purge()
    assert pipeline.purge().deleted == 1


def test_rows_archived_before_the_key_was_renamed_are_not_versions_of_one_row(pipeline: Pipeline):
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
    with pytest.raises(RefusedError, match="2 rows of it have no pk"):
        restore_day(pipeline.site, DAY, target)
    pipeline.database.execute(
        "CREATE TABLE mine (event_id text PRIMARY KEY, created_at timestamp, id text, event_type text, "
        "processed_at text, payload text, pk text)"
    )
    target = target_named(pipeline.dataset, "mine")
    restored = restore_day(pipeline.site, DAY, target)
    assert (restored.restored, restored.superseded) == (3, 1)


@pytest.mark.parametrize("trigger", [False, True], ids=["no trigger", "trigger"])
def test_rows_that_move_to_another_partition_while_the_purge_waits_for_them_stay(pipeline: Pipeline, trigger: bool):
    pipeline.database.execute(
        "CREATE TABLE t (a int, at timestamp, PRIMARY KEY (a, at)) PARTITION BY RANGE (at);"
        "CREATE TABLE p1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-01 12:00');"
        "CREATE TABLE p2 PARTITION OF t FOR VALUES FROM ('2024-03-01 12:00') TO ('2024-03-02');"
        "CREATE TABLE p3 PARTITION OF t FOR VALUES FROM ('2024-03-02') TO ('2024-03-03');"
        "INSERT INTO t SELECT n, '2024-03-01 01:00' FROM generate_series(1, 5) AS n"
    )
    if trigger:
        pipeline.database.execute(
            "CREATE FUNCTION let_go() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';"
            "CREATE TRIGGER let_go BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION let_go()"
        )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    of.archive()
    with psycopg.connect(pipeline.database.dsn) as mover, ThreadPoolExecutor(1) as thread:
        mover.execute("UPDATE t SET at = '2024-03-02 05:00' WHERE a = 3")
        mover.execute("UPDATE t SET at = '2024-03-01 15:00' WHERE a = 4")
        purged = thread.submit(of.purge)
        with psycopg.connect(pipeline.database.dsn, autocommit=True) as watch:
            while not watch.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
                pass
        mover.commit()
        with pytest.raises(BusyError, match="moved to another partition"):
            purged.result()
    assert of.count() == 5
    assert of.run().deleted == 4
    assert of.run(date(2024, 3, 2)).deleted == 1

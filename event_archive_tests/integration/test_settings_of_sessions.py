"""What a server, a role, a pooler or a search path sets changes neither a text, nor what is equal, nor a commit."""

import os
import signal
import threading
from datetime import timedelta

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import SeveralServersError
from event_archive.operations.restore.day import restore_day
from event_archive.postgres import session
from event_archive.postgres.pins import commit_durably, own_search_path
from event_archive.postgres.session import Postgres, one
from event_archive.table.shape import reflect, shape_if_any
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database, Server
from event_archive_tests.fixtures.waiting import until


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


def test_a_proxy_that_sends_queries_of_a_transaction_to_a_standby_is_refused(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(3)
    pipeline.archive()
    # As pgpool-II answers, which balances the load of what changes nothing.
    monkeypatch.setattr(session, "_IS_STANDBY", "SELECT true")
    for step in (pipeline.archive, pipeline.purge):
        with pytest.raises(SeveralServersError, match="a proxy that sends queries of one transaction to the primary"):
            step()
    # Who needs PostgreSQL for a part alone does the rest.
    assert shape_if_any(pipeline.dataset, pipeline.postgres) is None
    monkeypatch.undo()
    assert pipeline.count() == 3


def test_a_standby_itself_is_no_proxy(database: Database, standby: Server):
    with Postgres(standby.dsn(database.name)).transaction("it") as connection:
        assert one(connection, "SELECT pg_catalog.pg_is_in_recovery()") == (True,)

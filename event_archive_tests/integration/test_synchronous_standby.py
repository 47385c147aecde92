"""A commit that waits for a synchronous standby, and whose wait somebody ends: PostgreSQL calls that committed."""

from collections.abc import Iterator
from threading import Thread

import psycopg
import pytest

from event_archive.errors import UnreachableError
from event_archive.postgres.pins import commit_durably
from event_archive.postgres.session import Postgres
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.valkey import Stream, position
from event_archive_tests.fixtures.waiting import until

pytestmark = pytest.mark.slow

WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = current_database()"


def waits_for(database: Database, name: str) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        connection.execute("SELECT pg_reload_conf()")
    until(lambda: database.execute("SHOW synchronous_standby_names") == [(name,)])


@pytest.fixture
def away(pipeline: Pipeline) -> Iterator[Database]:
    """A database whose synchronous standby is away."""
    waits_for(pipeline.database, "away")
    try:
        yield pipeline.database
    finally:
        waits_for(pipeline.database, "")


def end_the_wait(database: Database) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        until(lambda: connection.execute(WAITING).fetchall() != [])
        connection.execute(f"SELECT pg_cancel_backend(pid) FROM ({WAITING}) AS waiting")


def hold(postgres: Postgres) -> None:
    with postgres.transaction("the hold") as connection:
        commit_durably(connection)
        connection.execute("CREATE TABLE public.kept ()")


@pytest.mark.parametrize("told", ["notice", "error"])
def test_what_no_standby_has_is_not_told_as_committed(pipeline: Pipeline, away: Database, told: str):
    away.execute(f"SET LOCAL synchronous_commit TO local; ALTER DATABASE {away.name} SET client_min_messages TO {told}")
    ending = Thread(target=end_the_wait, args=(away,), daemon=True)
    ending.start()
    with pytest.raises(UnreachableError, match="the hold: somebody ended the wait for a synchronous standby"):
        hold(pipeline.postgres)
    ending.join()
    assert away.execute("SELECT to_regclass('public.kept') IS NOT NULL") == [(True,)]


def test_an_entry_that_no_standby_has_is_not_acknowledged(stream: Stream):
    """It comes again, is known then, and waits like the first time."""
    database = stream.database
    stream.run_once_for_the_tables()
    waits_for(database, "away")
    consuming = Thread(target=stream.run, daemon=True)
    try:
        stream.add(position(1))
        consuming.start()
        end_the_wait(database)
        until(lambda: database.execute("SELECT count(*) FROM positions") == [(1,)])
        until(lambda: database.execute(WAITING) != [])
        assert not stream.is_drained()
    finally:
        waits_for(database, "")
    consuming.join()
    assert stream.is_drained()
    assert database.execute("SELECT count(*) FROM positions") == [(1,)]

"""A commit whose answer is lost, since the connection breaks in it: what landed is counted, once."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from threading import Event, Thread
from typing import Any

import psycopg
import pytest

from event_archive.postgres.lost import has_committed, mark
from event_archive.sources import former, landing, runs
from event_archive_tests.api_server.events import Events
from event_archive_tests.api_server.switches import status
from event_archive_tests.fixtures.ingestion import Ingest
from event_archive_tests.fixtures.log_files import Logs, entry, ndjson
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.standby import standby_of
from event_archive_tests.fixtures.waiting import until

pytestmark = pytest.mark.slow

Break = Callable[[str], None]


@pytest.fixture
def break_at(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Breaks the connection before or after the commit of the third batch that lands."""
    monkeypatch.setattr(runs, "RECONNECT_SECONDS", (0,) * 6)
    merge, commit = landing._merge, psycopg.Connection.commit
    merged = list[int]()

    def arm(when: str) -> None:
        def seen(*args: Any) -> None:
            merge(*args)
            merged.append(len(merged))

        def broken(connection: psycopg.Connection[Any]) -> None:
            if len(merged) != 3:
                commit(connection)
                return
            merged.append(3)
            if when == "after":
                commit(connection)
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(landing, "_merge", seen)
        monkeypatch.setattr(psycopg.Connection, "commit", broken)

    return arm


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_batch_of_an_api_whose_commit_nobody_heard_of_is_counted_once(ingest: Ingest, break_at: Break, when: str):
    ingesting = ingest(1500)
    break_at(when)
    totals = ingesting.run(pages=100)
    assert len(ingesting.ids) == totals.counts.taken == totals.counts.new == 1500
    assert totals.pages == 15


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_log_file_whose_commit_nobody_heard_of_is_counted_once(logs: Logs, break_at: Break, when: str):
    for number in range(5):
        logs.write(f"{number}.log", ndjson(entry(number)))
    break_at(when)
    totals = logs.run()
    assert (totals.files, totals.counts.taken, totals.counts.new, totals.failed) == (5, 5, 5, 0)
    assert totals.seconds < 15, "nothing is waited for that is done"
    assert len(logs.rows()) == 5


def test_a_window_that_failed_before_the_connection_broke_and_was_read_after_it_is_no_failure(
    ingest: Ingest, break_at: Break
):
    ingesting = ingest(Events(480, step_ms=180_000), faults=[status(404)])
    break_at("before")
    totals = ingesting.run(pages=100, api_concurrency=1, api_shard="12 hours", api_start="2024-03-01")
    assert (totals.counts.new, totals.ended, totals.failures) == (480, "complete", [])


@pytest.fixture
def outliving(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third batch loses its connection in the midst of a statement; the server looks for its client only then."""
    monkeypatch.setattr(runs, "RECONNECT_SECONDS", (0,) * 6)
    merge, merged = landing._merge, list[int]()

    def broken(connection: psycopg.Connection[Any], *args: Any) -> None:
        merged.append(1)
        if len(merged) != 3:
            merge(connection, *args)
            return
        connection.pgconn.send_query(b"SELECT pg_sleep(2)")
        connection.pgconn.finish()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(landing, "_merge", broken)


@pytest.mark.usefixtures("outliving")
def test_a_session_that_outlives_its_connection_is_not_taken_for_another_run(ingest: Ingest):
    ingesting = ingest(1500)
    totals = ingesting.run(pages=100)
    assert (totals.ended, totals.counts.new, len(ingesting.ids)) == ("complete", 1500, 1500)


@pytest.mark.usefixtures("outliving")
def test_a_file_that_is_locked_by_a_session_that_outlives_its_connection_is_loaded(logs: Logs):
    for number in range(5):
        logs.write(f"{number}.log", ndjson(entry(number)))
    totals = logs.run()
    assert (totals.ended, totals.files, len(logs.rows())) == ("complete", 5, 5)


def never() -> bool:
    return False


def test_a_transaction_that_the_server_never_had_has_not_committed(ingest: Ingest):
    """As after a failover to a replica that lags."""
    ingesting, counted = ingest(100), list[int]()
    last = former.Former()
    with ingesting.settings().postgres.session() as session:
        with session.transaction("the last one") as connection:
            last.note(connection, lambda: counted.append(1))
            assert last._mark
        last._mark = replace(last._mark, number=last._mark.number + 1_000_000)
        last.succeeded_by(session, never)
    assert counted == []


@pytest.mark.parametrize("came_there", [True, False])
def test_after_a_failover_a_commit_counts_where_the_new_primary_has_it(pipeline: Pipeline, came_there: bool):
    """Another transaction gets its number there, where it never came."""
    pipeline.add(1)
    with standby_of(pipeline.database.server) as standby:
        follower = Pipeline(Database(standby, pipeline.database.name), pipeline.lake)
        until(lambda: follower.count() == 1)
        if not came_there:
            with psycopg.connect(follower.database.dsn, autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
                connection.execute("SELECT pg_reload_conf()")
            until(lambda: not follower.database.execute("SELECT FROM pg_stat_wal_receiver"))
        with pipeline.postgres.transaction("the last one") as session:
            session.execute(
                """INSERT INTO public."Event" (event_id, event_type, created_at, payload)
                VALUES ('x', 't', now(), '{}')"""
            )
            assert (marked := mark(session))
        if came_there:
            until(lambda: follower.count() == 2)
        assert follower.database.execute("SELECT pg_promote(true, 60)") == [(True,)]
        for _ in range(20):
            follower.database.execute("SELECT txid_current()")
        with follower.postgres.transaction("the next one") as session:
            assert has_committed(session, marked) == came_there == (follower.count() == 2)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_transaction_that_is_still_at_its_commit_is_waited_for(ingest: Ingest, end: str):
    """As one that waits for a replica."""
    ingesting, counted = ingest(100), list[int]()
    last, postgres, noted = former.Former(), ingesting.settings().postgres, Event()

    def land() -> None:
        with suppress(ZeroDivisionError), postgres.session() as session:
            last.succeeded_by(session, never)
            with session.transaction("the last one") as connection:
                last.note(connection, lambda: counted.append(1))
                noted.set()
                connection.execute("SELECT pg_sleep(1)")
                if end == "ROLLBACK":
                    raise ZeroDivisionError

    landing_it = Thread(target=land)
    landing_it.start()
    assert noted.wait(10)
    with postgres.session() as session:
        last.succeeded_by(session, never)
    landing_it.join()
    assert counted == [1] * (end == "COMMIT")


def test_a_session_that_does_not_end_is_waited_for_only_until_somebody_stops(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
):
    """Nor longer than half a minute."""
    last, postgres = former.Former(), ingest(100).settings().postgres
    with postgres.session() as before, postgres.session() as session:
        last.succeeded_by(before, never)
        last.succeeded_by(session, lambda: True)
        monkeypatch.setattr(former, "_MOST_SECONDS", 0.0)
        last.succeeded_by(before, never)

"""Windows of an API that several processes read: each is read by one of them, and none twice."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from psycopg import ConnectionInfo

from event_archive.config.sources import ApiSettings
from event_archive.domain.dataset import TableName
from event_archive.errors import ConfigurationError
from event_archive.postgres.session import Postgres
from event_archive.sources.http_api import crew, workers
from event_archive.sources.http_api.ingest import Ingestion
from event_archive.sources.http_api.positions import Position, Positions
from event_archive.sources.http_api.task import Totals
from event_archive.sources.tables import make_missing
from event_archive_tests.api_server.events import START, Events
from event_archive_tests.fixtures.ingestion import Ingest, WaitingClock
from event_archive_tests.fixtures.passes import HOURS
from event_archive_tests.fixtures.postgres import Database

pytestmark = pytest.mark.slow


TABLE = TableName("public", "cursor_state")


def test_processes_that_start_at_once_share_the_windows(ingest: Ingest):
    ingesting = ingest(Events(480, step_ms=180_000), latency_ms=5)
    barrier = Barrier(3)

    def read(_number: int) -> int:
        run = Ingestion(ingesting.settings(**HOURS), clock=WaitingClock(ingesting.clock))
        barrier.wait()
        totals = run.run()
        assert totals.failures == []
        return totals.counts.taken

    with ThreadPoolExecutor(3) as pool:
        taken = list(pool.map(read, range(3)))
    # But for the last windows, which are not over yet and may be read by who comes later.
    windows = [since for since in ingesting.asked("since") if since < "2024-03-02T11:00:00Z"]
    assert len(windows) == len(set(windows)) == 35
    assert sum(taken) == 480
    assert ingesting.has_all()


def test_a_window_is_one_processs_until_it_is_released(database: Database):
    of_api = Positions(TABLE, "https://api.example.com")
    window = Position.window(START, START + timedelta(hours=1))
    with Postgres(database.dsn).session() as one, Postgres(database.dsn).session() as other:
        make_missing(one, TABLE)
        with one.transaction("positions") as connection:
            of_api.save(connection, window)
        assert of_api.claim(one, window) == window
        assert of_api.claim(other, window) is None
        of_api.release(one, window)
        assert of_api.claim(other, window) == window
    with Postgres(database.dsn).session() as third:
        # The session that had it has ended, or is about to.
        while of_api.claim(third, window) is None:
            pass


def test_a_window_that_another_process_split_or_read_to_its_end_is_not_read_again(database: Database):
    of_api = Positions(TABLE, "https://api.example.com")
    gone = Position.window(START, START + timedelta(hours=1))
    done = replace(gone, shard="done", passes=1)
    with Postgres(database.dsn).session() as session:
        make_missing(session, TABLE)
        with session.transaction("positions") as connection:
            of_api.save(connection, done)
        assert of_api.claim(session, gone) is None
        assert of_api.claim(session, done) is None
        held = database.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert held == [(0,)]


@pytest.mark.parametrize("windows", [{}, HOURS], ids=["whole", "windows"])
def test_of_two_processes_that_a_pooler_lets_have_one_shard_the_one_that_is_behind_leaves_it(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch, windows: dict[str, Any]
):
    """What it had in hand may have been archived and purged since the other one brought it."""
    # A pooler's number of the session. In transaction mode its locks are those of whoever uses the server's
    # connection next.
    monkeypatch.setattr(ConnectionInfo, "backend_pid", 0)
    monkeypatch.setattr(crew, "_BATCH_BYTES", 1)
    monkeypatch.setattr(workers, "_BUFFER_BYTES", 1)
    ingesting = ingest(Events(60, step_ms=180_000))
    one_by_one = windows | {"api_concurrency": 1, "api_page_limit": 5}
    totals, after = Totals(), list[tuple[object, ...]]()
    state = "SELECT shard, cursor_value, passes, events_ingested FROM cursor_state ORDER BY 1"

    def other_first() -> bool:
        if totals.pages == 2 and not after:
            assert ingesting.database.execute("SELECT FROM pg_locks WHERE locktype = 'advisory'") == []
            assert ingesting.run(**one_by_one).ended == "complete"
            ingesting.database.execute("DELETE FROM ingested_events")
            after.extend(ingesting.database.execute(state))
        return False

    run = Ingestion(
        ingesting.settings(**one_by_one), (), other_first, clock=WaitingClock(ingesting.clock), totals=totals
    )
    run.run()
    assert (totals.ended, totals.pages, totals.failures) == ("shared", 2, [])
    assert ingesting.ids == []
    assert ingesting.database.execute(state) == after


def test_a_window_that_is_split_is_read_whole_where_a_later_page_holds_what_is_of_the_first(ingest: Ingest):
    ingesting = ingest(Events(2600, step_ms=10_000), with_total=True)
    # It came to the API after all others, whose times are in their order.
    ingesting.api.add([json.dumps({"id": "late", "timestamp": (START + timedelta(seconds=5)).isoformat()})])
    totals = ingesting.run(api_shard="1 day", api_start="2024-03-01", api_page_limit=50)
    assert (totals.failures, totals.counts.new) == ([], 2601)
    assert len(ingesting.database.execute("SELECT shard FROM cursor_state")) > 5
    assert ingesting.has_all()


def test_a_position_is_stored_to_the_microsecond(database: Database):
    of_api = Positions(TABLE, "https://api.example.com")
    names = ("expires", "lower", "upper", "watermark", "ceiling", "began")
    moments: dict[str, Any] = {
        name: datetime(2024, 3, 1, 0, 0, second, 123456, tzinfo=UTC) for second, name in enumerate(names)
    }
    position = Position("a", "the cursor", passes=3, events=2**40, **moments)
    with Postgres(database.dsn).session() as session:
        make_missing(session, TABLE)
        for of in (Position("a"), position):
            with session.transaction("positions") as connection:
                of_api.save(connection, of)
        with session.transaction("positions") as connection:
            assert of_api.read(connection) == [position]
            assert Positions(TABLE, "https://other.example.com").read(connection) == []


HASH = "0123456789abcdef" * 2
DAY = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("cursor", [None, "c", "c\n", f"c\n{HASH}", "c\n@123", "c\n/", f"c\n{HASH} /@1?2", "\n\n"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"place": HASH[:16]},
        {"known": (HASH,)},
        {"place": HASH, "known": (HASH, HASH), "top": (HASH,), "last_read_all": DAY, "doubted": DAY},
        {"top": (HASH,), "doubted": DAY},
        {"known": (HASH,), "doubted": None},
        {"place": HASH, "doubted": None},
        {"place": HASH[:16], "doubted": DAY},
    ],
    ids=lambda more: " ".join(more) or "nothing",
)
def test_whatever_a_cursor_holds_a_position_is_read_as_it_was_written(cursor: str | None, more: dict[str, Any]):
    position = Position("", cursor, **more)
    if cursor is None:
        position = replace(position, place=None)
    assert Position.of_row(("", position.stored_cursor)) == position


def test_windows_that_would_be_too_many_are_refused_before_anything_is_written(ingest: Ingest):
    ingesting = ingest(Events(1))
    with pytest.raises(ConfigurationError, match="API_SHARD makes more than 20000 windows of 0:01:00 since 2024"):
        ingesting.run(api_shard="1 minute", api_start="2024-01-01")
    assert ingesting.database.execute("SELECT count(*) FROM cursor_state") == [(0,)]


def test_windows_need_a_beginning(monkeypatch: pytest.MonkeyPatch):
    variables = {"API_BASE_URL": "http://api", "PG_CONNECTION_STRING": "postgresql://h/d", "API_SHARD": "1 day"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="API_SHARD is set, and API_START is not"):
        ApiSettings.load()
    monkeypatch.setenv("API_START", "2024-01-01")
    assert ApiSettings.load().time_filter == ("since", "until")

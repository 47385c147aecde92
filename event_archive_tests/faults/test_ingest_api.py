"""The ingestion of an API, killed at every step and at any instant, by one process and by several: each event once."""

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from event_archive.domain.days import midnight
from event_archive_tests.api_server.events import Events
from event_archive_tests.api_server.odd import NO_RECORDS
from event_archive_tests.api_server.running import ApiServer
from event_archive_tests.faults.forking import Forking, forking
from event_archive_tests.faults.ingest_victim import POINTS
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.api import ServeApi
from event_archive_tests.fixtures.postgres import Database

EVENTS = 600
PAGE = 50
RANDOM_KILLS = share_of(200)
MOST_RANDOM_SECONDS = 0.6
START = midnight(datetime.now(UTC).date()) - timedelta(days=8)
BAD = [NO_RECORDS["no id"], NO_RECORDS["no time"]]


@dataclass
class Victims(Forking):
    """The process that forks them, against one API and one database."""

    api: ApiServer
    database: Database

    def rows(self) -> list[str]:
        return [str(key) for (key,) in self.database.execute("SELECT id FROM ingested_events ORDER BY id")]

    def check_books(self) -> None:
        """Whatever was committed was committed with the position behind it."""
        [(exists,)] = self.database.execute("SELECT to_regclass('cursor_state') IS NOT NULL")
        if not exists:
            return
        # Each pass after the first one begins at the last page, whose events are known.
        [(told,)] = self.database.execute(
            f"SELECT coalesce(sum(events_ingested - {PAGE} * greatest(passes - 1, 0)), 0)::int FROM cursor_state"
        )
        [(kept,)] = self.database.execute(
            "SELECT (SELECT count(*) FROM ingested_events) + (SELECT count(*) FROM rejected_records)"
        )
        assert told == kept

    def check_all(self) -> None:
        """Every event of the API is one row, to the letter; what cannot be one is rejected once."""
        kept = self.database.execute("SELECT id, data FROM ingested_events ORDER BY id")
        assert kept == [(key, json.loads(text)) for key, text in sorted(self.api.events.items())]
        rejected = self.database.execute("SELECT raw FROM rejected_records ORDER BY raw")
        assert rejected == [(raw,) for raw in sorted(BAD)]

    def forget(self) -> None:
        """As if nothing had been taken in."""
        self.database.execute("TRUNCATE ingested_events, rejected_records, cursor_state")


@pytest.fixture
def victims(serve_api: ServeApi, database: Database) -> Iterator[Victims]:
    # A hundred events a day, so that each of several processes finds windows to read.
    api = serve_api(Events(EVENTS, START, step_ms=864_000))
    api.set(bad_events=BAD, bad_after=EVENTS // 2, time_filter=True)
    variables = {
        "PG_CONNECTION_STRING": database.dsn,
        "API_BASE_URL": api.url.removesuffix("/events"),
        "API_KEY": api.key,
        "API_PAGE_LIMIT": str(PAGE),
    }
    with forking("ingest_victim") as process:
        yield Victims(process, variables, api, database)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_step_loses_no_event_and_takes_none_in_twice(victims: Victims, point: str):
    for nth in (1, 2, 4, 7):
        [status] = victims.run(point=point, nth=nth)
        if status == signal.SIGKILL:
            survived(f"kills of an ingestion: {point}")
        else:
            assert (status, nth > 1) == (0, True)
        victims.check_books()
        assert victims.run() == [0]
        victims.check_all()
        victims.forget()


def test_kills_at_any_instant_lose_no_event_and_take_none_in_twice(victims: Victims):
    for _ in range(2):
        # The first one waits for the imports.
        started = time.monotonic()
        assert victims.run() == [0]
        whole_run_seconds = time.monotonic() - started
        victims.forget()
    killed = number = 0
    while killed < RANDOM_KILLS:
        number += 1
        assert number < 4 * RANDOM_KILLS
        [status] = victims.run(most_seconds=whole_run_seconds)
        if status == signal.SIGKILL:
            killed += 1
            survived("kills of an ingestion: any instant")
        victims.check_books()
        if status == 0 or number % 10 == 0:
            assert victims.run() == [0]
            victims.check_all()
            victims.forget()


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_on_one_api_take_in_each_event_once(victims: Victims, processes: int):
    victims.variables |= {"API_SHARD": "1 day", "API_START": str(START.date()), "API_PAGE_LIMIT": "20"}
    for _ in range(4):
        statuses = victims.run(processes=processes, most_seconds=MOST_RANDOM_SECONDS)
        for status in statuses:
            if status == signal.SIGKILL:
                survived(f"kills of {processes} ingestions at once")
    assert victims.run(processes=processes) == [0] * processes
    assert victims.run() == [0]
    victims.check_all()

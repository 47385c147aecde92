"""A stream's consumers, killed at every step and at any instant, while both servers come and go: each entry once."""

import base64
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from event_archive.sources.redis_stream import consume, loop
from event_archive_tests.faults.forking import Forking, forking
from event_archive_tests.faults.redis_wire import redis_wire
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.stream_victim import FATAL, POINTS
from event_archive_tests.faults.tally import survived
from event_archive_tests.faults.wire import Trouble, any_message, wire
from event_archive_tests.fixtures.postgres import Database, Server
from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, StreamServer, position

RANDOM_KILLS = 200
MOST_RANDOM_SECONDS = 0.4
BAD = [b"no JSON", b'{"deviceId":"a"}', b"\xff\xfe"]


@dataclass
class Books:
    """What was added to a stream, and what has to become of it."""

    stream: Stream
    added: int = 0
    superseded: int = 0
    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    rejected: list[bytes] = field(default_factory=list)
    lost: list[bytes] = field(default_factory=list)

    def add(self, new: int = 30) -> None:
        """New positions, some of which come again with other contents, and what is no position."""
        numbers = [*range(self.added, self.added + new)]
        numbers += random.sample(numbers, new // 5)
        records = [self._record(number, comes=n) for n, number in enumerate(numbers)]
        self.stream.add(*records, *BAD)
        self.rejected += BAD
        for record in records:
            self.rows[record["deviceId"], record["timestamp"]] = record
        self.superseded += len(records) - new
        self.added += len(records) + len(BAD)

    def lose(self, number: int = 3) -> None:
        """Entries that a consumer which never returns was given, and that are trimmed then."""
        self.stream.add(*(position(self.added + n) for n in range(number)))
        # It may be given others, and they are trimmed as well where nobody else was given them.
        before = self.stream.server.redis.xinfo_stream(KEY)["last-generated-id"]
        given = self.stream.read_as(f"gone-{self.added}", 1_000_000)
        assert before == given[-1]
        trimmed = given[-number:]
        self.stream.server.redis.xdel(KEY, *trimmed)
        self.lost += trimmed
        self.added += number

    def check(self) -> None:
        """Entries added = rows + superseded + rejected + lost, byte for byte; and nothing is pending."""
        assert self.stream.pending() == {}
        found = self.stream.rows(
            """device_id, to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), attributes::text"""
        )
        assert {(device, ts): json.loads(text) for device, ts, text in found} == {
            key: _revived(record["attributes"]) for key, record in self.rows.items()
        }
        lost = [(f"{KEY} {of.decode()}", b"") for of in self.lost]
        rejected = self.stream.rejected("locator, raw")
        assert [of for of in rejected if not of[1]] == sorted(lost)
        assert sorted(raw for _, raw in rejected if raw) == sorted(self.rejected)
        assert self.added == len(found) + self.superseded + len(rejected)

    def forget(self) -> None:
        """As if nothing had been added, but that the tables are there."""
        self.stream.database.execute("TRUNCATE positions, rejected_records")
        self.stream.server.redis.flushall()
        self.__init__(self.stream)  # type: ignore[misc]

    @staticmethod
    def _record(number: int, comes: int) -> dict[str, Any]:
        raw = f"{number} {comes}".encode() * 5
        attributes = {
            "number": number,
            "comes": comes,
            "big": {"__bigint": f"1{number}{comes}" + "9" * 30},
            "buffer": {"__buffer_b64": base64.b64encode(raw).decode()},
        }
        return position(number, timestamp=_time(number), attributes=attributes)


def _time(number: int) -> str:
    """Half of them on days that have no partition yet."""
    day = 1 + number % 2 * (number // 2 % 28)
    return f"2024-03-{day:02}T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}.{number // 86400:03}Z"


def _revived(attributes: dict[str, Any]) -> dict[str, Any]:
    raw = base64.b64decode(attributes["buffer"]["__buffer_b64"])
    return attributes | {"big": int(attributes["big"]["__bigint"]), "buffer": f"\\x{raw.hex()}"}


@dataclass
class Victims(Forking):
    """The process that forks them, against one stream and one database."""

    stream: Stream


@pytest.fixture
def books(stream: Stream) -> Books:
    return Books(stream)


@pytest.fixture
def victims(stream: Stream) -> Iterator[Victims]:
    variables = {
        "PG_CONNECTION_STRING": stream.database.dsn,
        "REDIS_URL": stream.server.url,
        "STREAM_CONSUMER": "worker",
        "STREAM_BATCH": "15",
    }
    with forking("stream_victim") as process:
        yield Victims(process, variables, stream)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_step_loses_no_entry_and_lands_none_twice(victims: Victims, books: Books, point: str):
    for nth in (1, 2, 4):
        books.add()
        books.lose()
        books.add()
        [status] = victims.run(point=point, nth=nth)
        if status == signal.SIGKILL:
            survived(f"kills of a stream's consumer: {point}")
        else:
            assert (status, nth > 1) == (0, True)
        assert victims.run() == [0]
        books.check()


@pytest.mark.parametrize("processes", [1, 3])
def test_kills_at_any_instant_lose_no_entry_and_land_none_twice(victims: Victims, books: Books, processes: int):
    killed = 0
    rounds = 0
    while killed < share_of(RANDOM_KILLS // 2):
        rounds += 1
        assert rounds < 4 * RANDOM_KILLS
        books.add(60)
        if rounds % 3 == 0:
            books.lose()
        statuses = victims.run(processes=processes, most_seconds=MOST_RANDOM_SECONDS)
        killed += statuses.count(signal.SIGKILL)
        if rounds % 10 == 0:
            assert victims.run(processes=processes) == [0] * processes
            books.check()
        if rounds % 50 == 0:
            books.forget()
    assert victims.run() == [0]
    books.check()
    for _ in range(killed):
        survived(f"kills of {processes} consumers of a stream at any instant")


# 6
def test_an_entry_that_ends_the_process_is_found_and_rejected(victims: Victims, books: Books):
    books.add()
    books.stream.add(b'{"fatal":"' + FATAL + b'"}')
    books.add()
    deaths = 0
    while (status := victims.run(fatal=True)) != [0]:
        assert status == [signal.SIGKILL]
        deaths += 1
    assert deaths == loop._SUSPICIOUS_DELIVERIES + loop._MOST_ALONE
    reason = "it ended the process each time that it was taken in alone"
    assert [raw for _, why, raw in books.stream.rejected() if why == reason] == [b'{"fatal":"' + FATAL + b'"}']
    books.rejected.append(b'{"fatal":"' + FATAL + b'"}')
    books.added += 1
    books.check()
    for _ in range(deaths):
        survived("deaths of an entry that ends the process")


# 22
def test_servers_that_come_and_go_and_lines_that_break_lose_nothing(
    valkey: StreamServer, server_that_crashes: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(consume, "RECONNECT_SECONDS", (0.05,) * 600)
    stream = Stream(valkey, Database(server_that_crashes, "specification"))
    books, stop = Books(stream), threading.Event()
    with (
        redis_wire(valkey) as redis_line,
        wire(server_that_crashes) as postgres_line,
        ThreadPoolExecutor(2) as threads,
    ):
        lines = {"redis_url": redis_line.url, "pg_connection_string": postgres_line.dsn(stream.database.name)}
        stream.variables |= lines | {"stream_batch": 15, "stream_claim_idle": "1 second"}
        consumers = [stream.consumer(told_to_stop=stop.is_set, stream_consumer=name) for name in "ab"]
        runs = [threads.submit(of.run) for of in consumers]
        try:
            for number in range(share_of(40)):
                books.add()
                if number % 8 == 0:
                    stream.server.restart()
                    survived("restarts of Redis below a consumer")
                if number % 8 == 4:
                    _crash(stream)
                    survived("crashes of PostgreSQL below a consumer")
                if number % 8 == 6:
                    stream.server.redis.xgroup_destroy(KEY, GROUP)
                    survived("groups destroyed below a consumer")
                command = random.choice([b"XREADGROUP", b"XACK", b"XPENDING"])
                redis_line.cut(command, random.randint(1, 4), random.choice([None, 0, 1, 100, 1000]))
                postgres_line.expect(Trouble(random.choice(["client", "server"]), any_message, random.randint(1, 60)))
                survived("broken lines of a consumer")
                while not stream.is_drained() and not any(of.done() for of in runs):
                    time.sleep(0.01)
        finally:
            stop.set()
        for of in runs:
            of.result()
    books.check()
    assert [consumer.totals.counts.balance for consumer in consumers] == [0, 0]


def test_what_was_acknowledged_outlives_a_crash_of_postgresql(
    valkey: StreamServer, server_that_crashes: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(consume, "RECONNECT_SECONDS", (0.05,) * 600)
    stream = Stream(valkey, Database(server_that_crashes, "specification"))
    books, stop = Books(stream), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(stream.consumer(told_to_stop=stop.is_set).run)
        try:
            for _ in range(share_of(20)):
                books.add()
                while not stream.is_drained() and not run.done():
                    time.sleep(0.001)
                _crash(stream)
                survived("crashes of PostgreSQL after an acknowledgement")
        finally:
            stop.set()
        run.result()
    books.check()


def _crash(stream: Stream) -> None:
    """Kills one backend, at which the server ends all of them and recovers."""
    found = stream.database.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for (pid,) in found[:1]:
        os.kill(int(str(pid)), signal.SIGKILL)

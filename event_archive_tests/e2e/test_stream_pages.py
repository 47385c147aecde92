"""A consumer as its process, asked by Prometheus and Kubernetes while services go away and it is told to stop."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import psycopg
import pytest

from event_archive.sources.redis_stream.metrics import Metrics
from event_archive.sources.redis_stream.server import answering
from event_archive_tests.faults.wire import Trouble, Wire, any_message
from event_archive_tests.fixtures.installation import clean_environment
from event_archive_tests.fixtures.ports import free_port
from event_archive_tests.fixtures.refusing import refusing
from event_archive_tests.fixtures.valkey import Stream, position
from event_archive_tests.fixtures.waiting import until
from event_archive_tests.unit.test_stream_server import ask, samples

pytestmark = pytest.mark.slow


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def process(stream: Stream, database_line: Wire, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    variables = {
        "REDIS_URL": stream.server.url,
        "PG_CONNECTION_STRING": stream.variables["pg_connection_string"],
        "HTTP_PORT": str(port),
    }
    started = subprocess.Popen(
        [sys.executable, "-m", "event_archive.cli", "ingest", "stream"],
        env=clean_environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    yield started
    started.kill()
    started.wait()


def page(port: int, path: str) -> tuple[int, str]:
    try:
        return ask(port, path)
    except (urllib.error.URLError, ConnectionError):
        return 0, ""


def test_a_consumer_is_asked_while_postgresql_goes_away_and_comes_back(
    stream: Stream, database_line: Wire, process: "subprocess.Popen[bytes]", port: int
):
    stream.add(*map(position, range(10)), b"no JSON")
    until(lambda: page(port, "/readyz") == (200, "ok\n"))
    until(lambda: stream.is_drained())
    found = samples(page(port, "/metrics")[1])
    assert found["event_archive_stream_entries_consumed_total", ""] == 11
    assert found["event_archive_stream_entries_total", "new"] == 10
    assert found["event_archive_stream_entries_total", "rejected"] == 1
    assert found["event_archive_stream_batch_seconds_sum", ""] > found["event_archive_stream_write_seconds_sum", ""] > 0
    assert found["event_archive_stream_devices", ""] == 10
    assert found["event_archive_stream_lag_entries", ""] == 0

    database_line.shut()
    cut = database_line.expect(Trouble("client", any_message))
    stream.add(position(10))
    until(cut.met.is_set)
    code, words = page(port, "/readyz")
    assert code == 503
    assert words.startswith("postgres: ")
    assert page(port, "/healthz") == (200, "ok\n")
    assert samples(page(port, "/metrics")[1])["event_archive_stream_pending_entries", ""] == 1

    database_line.open()
    until(lambda: stream.is_drained())
    assert page(port, "/readyz")[0] == 200
    found = samples(page(port, "/metrics")[1])
    assert found["event_archive_stream_reconnects_total", "postgres"] == 1
    assert found["event_archive_stream_entries_total", "new"] == 11

    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    assert page(port, "/healthz")[0] == 0
    assert stream.consumers() == []


def test_that_postgresql_is_full_is_said_by_the_first_attempt(
    stream: Stream, port: int, monkeypatch: pytest.MonkeyPatch
):
    """Kubernetes does not wait for more."""
    waits: list[float] = []
    monkeypatch.setattr("event_archive.postgres.connecting.time.sleep", waits.append)
    with refusing("53300", "zu viele") as server:
        settings = stream.settings(pg_connection_string=server.dsn, http_port=port)
        with answering(settings, Metrics("s", "g")):
            code, words = page(port, "/readyz")
    assert code == 503
    assert re.search("postgres: .*53300", words)
    assert waits == []


def test_a_consumer_is_not_ready_while_postgresql_takes_no_writes(stream: Stream, port: int):
    name = stream.database.name
    with answering(stream.settings(http_port=port), Metrics("s", "g")):
        assert page(port, "/readyz") == (200, "ok\n")
        stream.database.execute(f"ALTER DATABASE {name} SET default_transaction_read_only TO on")
        code, words = page(port, "/readyz")
    with psycopg.connect(stream.database.dsn, options="-c default_transaction_read_only=off") as connection:
        connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
    assert code == 503
    assert words.startswith("postgres: the database takes no writes")


@pytest.mark.usefixtures("process")
def test_a_consumer_is_not_ready_while_redis_takes_no_writes(stream: Stream, port: int):
    """It answers every look meanwhile."""
    until(lambda: page(port, "/readyz")[0] == 200)
    stream.server.redis.config_set("min-replicas-to-write", 1)
    until(lambda: page(port, "/readyz")[0] == 503)
    assert re.match("redis: .*NOREPLICAS", page(port, "/readyz")[1])
    stream.server.redis.config_set("min-replicas-to-write", 0)
    until(lambda: page(port, "/readyz")[0] == 200)


def test_a_consumer_that_begins_while_redis_takes_no_writes_is_not_ready_before_it_does(
    stream: Stream, port: int, request: pytest.FixtureRequest
):
    stream.server.redis.config_set("min-replicas-to-write", 1)
    request.getfixturevalue("process")
    until(lambda: page(port, "/healthz")[0] == 200)
    seen = {page(port, "/readyz")[0] for _ in range(20)}
    stream.server.redis.config_set("min-replicas-to-write", 0)
    until(lambda: page(port, "/readyz")[0] == 200)
    assert seen == {503}


def test_without_redis_a_consumer_is_not_ready(stream: Stream, process: "subprocess.Popen[bytes]", port: int):
    until(lambda: page(port, "/readyz")[0] == 200)
    stream.server.kill()
    code, words = page(port, "/readyz")
    assert (code, words.partition(":")[0]) == (503, "redis")
    assert page(port, "/metrics")[0] == page(port, "/healthz")[0] == 200
    stream.server.start()
    until(lambda: page(port, "/readyz")[0] == 200)

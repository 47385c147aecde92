"""``event-archive ingest stream`` as a process: what it says, how it ends, and what a signal leaves behind."""

import json
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest

from event_archive_tests.fixtures.installation import Commands, clean_environment, finished, started_cli
from event_archive_tests.fixtures.valkey import KEY, Stream, position

LIMIT_MIB = 150
APART_MIB = 8

# The process itself says at its end what it needed.
_RUN = """
import atexit, sys
from pathlib import Path
peak = Path(sys.argv.pop(1))
atexit.register(lambda: peak.write_text(Path("/proc/self/status").read_text()))
from event_archive.cli import main
main()
"""


def variables(stream: Stream) -> dict[str, str]:
    return {
        "PG_CONNECTION_STRING": stream.database.dsn,
        "REDIS_URL": stream.server.url,
        "STREAM_CONSUMER": "tester",
        "HTTP_PORT": "0",
    }


def consuming(stream: Stream) -> AbstractContextManager[subprocess.Popen[str]]:
    return started_cli("ingest", "stream", **variables(stream))


def test_a_drained_stream_says_what_became_of_its_entries(stream: Stream, command: Commands):
    stream.add(position(1), position(2), position(2, speed=7), b'{"secret":"hunter2"}')
    done = command("ingest", "stream", "--drain", "--debug", **variables(stream))
    assert done.code == 0
    books = {"taken": 4, "new": 2, "known": 0, "superseded": 1, "rejected": 1, "too_old": 0, "lost": 0}
    assert books.items() <= done.end.items()
    assert (done.end["outcome"], done.end["message"], done.end["source"]) == ("done", "ingestion complete", "stream")
    assert any(line["outcome"] == "debug" for line in done.lines)
    assert "hunter2" not in done.said
    assert "device-1" not in done.said
    assert (stream.pending(), stream.consumers()) == ({}, [])


def test_a_drained_stream_says_what_others_have_in_hand(stream: Stream, command: Commands):
    stream.add(position(1), position(2), position(3))
    stream.read_as("another", 2)
    done = command("ingest", "stream", "--drain", **variables(stream))
    assert (done.code, done.end["outcome"], done.end["new"], done.end["pending"]) == (0, "done", 1, 2)
    told = command("ingest", "stream", "--drain", **variables(stream), LOG_FORMAT="console")
    assert told.stdout.endswith(": 0 new; 2 entries of the group still pending\n")


def test_a_consumer_that_failed_says_nothing_of_what_is_pending(stream: Stream, command: Commands):
    stream.add(position(1))
    stream.run()
    stream.database.execute("ALTER TABLE positions RENAME COLUMN altitude TO height")
    stream.add(position(2))
    failed = command("ingest", "stream", "--drain", **variables(stream))
    assert (failed.code, failed.end["outcome"], failed.end["pending"]) == (1, "failed", None)
    assert len(stream.pending()) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"REDIS_URL": ""}, "REDIS_URL is not set"),
        ({"REDIS_URL": "http://user:hunter2@somewhere"}, "must be like redis://"),
        ({"REDIS_URL": "redis://user:hunter2@here:port"}, "its port must be a number"),
        ({"REDIS_URL": "redis://user:hunter2/x@here"}, "percent-encoded"),
        ({"REDIS_URL": "unix:///socket?password=hunter2&nonsense=1"}, "has a parameter"),
        ({"STREAM_BATCH": "0"}, "STREAM_BATCH"),
        ({"STREAM_CLAIM_IDLE": "soon"}, "is not a duration"),
        ({"STREAM_KEY": "text"}, "text is no stream"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said_with_exit_code_2(
    stream: Stream, command: Commands, changes: dict[str, str], words: str
):
    stream.server.redis.set("text", "a text")
    told = command("ingest", "stream", **(variables(stream) | changes))
    assert told.code == 2
    assert words in told.said
    assert "hunter2" not in told.said


def test_a_wrong_password_is_said_at_once_with_exit_code_2(stream: Stream, command: Commands):
    stream.set_user("default", "resetpass", ">right")
    url = f"unix://default:hunter2@{stream.server.socket}"
    began = time.monotonic()
    told = command("ingest", "stream", **(variables(stream) | {"REDIS_URL": url}))
    assert told.code == 2
    assert "Check user and password in REDIS_URL" in told.end["error"]
    assert "hunter2" not in told.said
    assert time.monotonic() - began < 20


# 18
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_consumer_that_is_told_to_stop_leaves_the_group(stream: Stream, number: int, code: int):
    stream.add(*map(position, range(10)))
    with consuming(stream) as process:
        while not stream.is_drained():
            assert process.poll() is None
        assert stream.consumers() == ["tester"]
        told = time.monotonic()
        process.send_signal(number)
        done = finished(process)
    assert time.monotonic() - told < 10
    assert done.code == code, done.said
    assert (done.end["outcome"], done.end["message"], done.end["new"]) == ("stopped", "ingestion interrupted", 10)
    assert stream.consumers() == []


# 18
def test_a_signal_in_a_batch_lets_it_be_committed_and_acknowledged(stream: Stream):
    stream.run_once_for_the_tables()
    with psycopg.connect(stream.database.dsn) as other:
        other.execute("LOCK TABLE positions IN SHARE MODE")
        with consuming(stream) as process:
            stream.add(*map(position, range(10)))
            _wait_for_a_lock(stream)
            process.send_signal(signal.SIGTERM)
            other.commit()
            done = finished(process)
    assert done.code == 143
    assert len(stream.rows()) == done.end["new"] > 0
    # What was added meanwhile may not have been read.
    assert stream.pending() == {}
    assert stream.consumers() == []


# 18
@pytest.mark.slow
def test_a_batch_that_takes_longer_than_the_deadline_stays_pending(stream: Stream):
    stream.run_once_for_the_tables()
    with psycopg.connect(stream.database.dsn) as other:
        other.execute("LOCK TABLE positions IN SHARE MODE")
        with consuming(stream) as process:
            stream.add(*map(position, range(10)))
            _wait_for_a_lock(stream)
            told = time.monotonic()
            process.send_signal(signal.SIGTERM)
            done = finished(process)
    assert time.monotonic() - told < 10
    assert done.code == 143
    assert stream.pending()["tester"] > 0
    assert stream.run().counts.new == 10
    assert stream.server.redis.xlen(KEY) == 11


def _wait_for_a_lock(stream: Stream) -> None:
    while stream.database.execute("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]:
        pass


@pytest.mark.slow
def test_memory_does_not_grow_with_the_entries(stream: Stream, tmp_path: Path):
    peaks = [_peak_mib(stream, tmp_path / "status", thousands) for thousands in (20, 200)]
    print(f"20,000 and 200,000 entries: {peaks} MiB")
    assert max(peaks) <= LIMIT_MIB
    assert peaks[1] - peaks[0] <= APART_MIB


def _peak_mib(stream: Stream, told: Path, thousands: int) -> float:
    """The most memory that a worker had at once, VmHWM."""
    redis = stream.server.redis
    for thousand in range(thousands):
        pipeline = redis.pipeline(transaction=False)
        for number in range(thousand * 1000, thousand * 1000 + 1000):
            pipeline.xadd(KEY, {"payload": json.dumps(position(number, deviceId=f"{thousands} {number % 5000}"))})
        pipeline.execute()
    command = [sys.executable, "-c", _RUN, str(told), "ingest", "stream", "--drain"]
    subprocess.run(command, env=clean_environment(**variables(stream)), check=True, capture_output=True, timeout=240)
    (line,) = [line for line in told.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024

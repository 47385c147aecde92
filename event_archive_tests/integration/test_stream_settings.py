"""A stream's consumer by its settings and its database: what is a wrong setting, what ends it, what it keeps."""

import json
import logging
import re
import time
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from event_archive.config.sources import StreamSettings
from event_archive.errors import ConfigurationError, RefusedError, UnreachableError
from event_archive.sources import landing
from event_archive.sources.redis_stream import books, records
from event_archive.sources.redis_stream.consume import Consumer
from event_archive.sources.redis_stream.group import open_group
from event_archive.sources.redis_stream.state import look_at_group
from event_archive.sources.runs import NONE_AGED
from event_archive_tests.faults.wire import Trouble, Wire, any_message
from event_archive_tests.fixtures.streaming import Background
from event_archive_tests.fixtures.valkey import KEY, Stream, position
from event_archive_tests.fixtures.waiting import until
from event_archive_tests.integration.test_stream_replay import replayed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hurried")]


@pytest.mark.parametrize("parameters", ["protocol=2", "protocol=3", "decode_responses=true", "retry_on_timeout=yes"])
def test_parameters_of_the_url_change_nothing_that_is_read(each_stream: Stream, parameters: str):
    ids = each_stream.add(*map(position, range(10)), b"no JSON")
    each_stream.read_as("gone", 5)
    each_stream.server.redis.xdel(KEY, ids[0])
    totals = each_stream.run(redis_url=f"{each_stream.server.url}?{parameters}", stream_claim_idle="1 second")
    assert (totals.counts.new, totals.counts.lost, totals.counts.rejected, totals.claimed) == (9, 1, 1, 4)
    assert each_stream.pending() == {}


def test_a_host_that_cannot_be_one_is_a_wrong_setting(stream: Stream):
    with pytest.raises(ConfigurationError, match="REDIS_URL names a host that cannot be one") as refused:
        stream.run(redis_url="redis://user:secret@not..one:6379")
    assert "secret" not in str(refused.value)


def test_a_database_that_only_reads_ends_the_consumer_and_nothing_is_acknowledged(stream: Stream):
    stream.run_once_for_the_tables()
    stream.add(*map(position, range(10)))
    stream.database.execute(f"ALTER DATABASE {stream.database.name} SET default_transaction_read_only TO on")
    with pytest.raises(RefusedError, match="PG_CONNECTION_STRING must name the primary"):
        stream.run()
    stream.database.execute(
        "BEGIN; SET TRANSACTION READ WRITE; "
        f"ALTER DATABASE {stream.database.name} RESET default_transaction_read_only; COMMIT"
    )
    assert stream.run().counts.new == 10


def test_a_database_whose_locks_are_taken_is_not_told_as_away(
    stream: Stream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level("INFO", "event_archive")
    hurried = replace(stream.settings().postgres, lock_timeout_seconds=0.2)
    monkeypatch.setattr(StreamSettings, "postgres", hurried)
    monkeypatch.setattr(landing, "_ATTEMPTS", 1)
    stream.add(position(1))
    with Background(stream) as consumer:
        until(lambda: consumer.totals.counts.new == 1)
        with psycopg.connect(stream.database.dsn) as other:
            other.execute("LOCK TABLE positions IN SHARE MODE")
            stream.add(position(2))
            until(lambda: consumer._attempt > 0)
        until(stream.is_drained)
    assert (consumer.totals.counts.new, consumer.totals.reconnects) == (2, 0)
    (warning,) = [of.message for of in caplog.records if of.levelno == logging.WARNING]
    assert warning.endswith("Nothing is read meanwhile.")
    assert re.search(r"postgres lets it go on, after \d+ s\n", caplog.text)


@pytest.mark.parametrize("former", [b"no JSON", None], ids=["rejected", "trimmed"])
def test_a_rejected_entry_whose_id_comes_again_with_other_bytes_is_kept_too(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, former: bytes | None
):
    """A stream that is made anew, or a replica that takes over with a clock behind, gives an id away twice."""
    redis, first = stream.server.redis, {"payload": former or b"gone"}
    redis.xadd(KEY, first, id="7-1")  # type: ignore[arg-type]
    if former is None:
        stream.read_as("tester", 1)
        redis.xdel(KEY, "7-1")
    stream.run()
    for _ in range(2):
        redis.delete(KEY)
        redis.xadd(KEY, {"payload": json.dumps(position(1, timestamp="1970-01-01"))}, id="7-1")
        counts = stream.run().counts
    assert (counts.taken, counts.known) == (1, 1)
    first_kept, (_, also_kept) = stream.rejected("locator, raw")
    assert first_kept == (f"{KEY} 7-1", former or b"")
    assert json.loads(also_kept)["timestamp"] == "1970-01-01"
    monkeypatch.setattr(records, "EARLIEST", datetime(1970, 1, 1, tzinfo=UTC))
    assert replayed(stream).new == 1
    assert stream.rows("stream_id") == ["7-1"]
    assert stream.rejected("locator, raw") == [first_kept]


def test_each_field_of_an_entry_is_kept_also_where_several_have_one_name(each_stream: Stream):
    def add(*pairs: str | bytes) -> None:
        each_stream.server.redis.execute_command("XADD", KEY, "*", *pairs)  # type: ignore[no-untyped-call]

    former, last = (json.dumps(position(number, attributes={})) for number in (1, 2))
    add("payload", former, "payload", last, "payload", last)
    add("imei", "3", "ts", "2024-03-01", "note", "a", "note", "b", "note", "c", "note_", "d", "lat", "1", "lat", "2")
    add("payload", "no JSON", "payload", b"\xff")
    assert each_stream.run().counts.rejected == 1
    assert each_stream.rows("device_id, latitude, attributes") == [
        ("3", 2, {"note": "c", "note_": "d", "note__": "a", "note___": "b", "lat_": "1"}),
        ("device-2", 48.0002, {"payload_": former}),
    ]
    ((raw,),) = each_stream.rejected("raw")
    assert json.loads(raw) == {"payload": "\udcff", "payload_": "no JSON"}
    state = look_at_group(each_stream.settings())
    settings = each_stream.settings()
    with open_group(settings) as opened, settings.postgres.session() as session:
        assert books.look(opened._redis, session, settings, state.settled, NONE_AGED).missing == []


@pytest.mark.parametrize("service", ["redis", "postgres"])
def test_a_consumer_that_drains_a_stream_waits_for_a_while_where_one_goes_away(
    stream: Stream, database_line: Wire, service: str
):
    stream.add(position(1))
    until_then = time.monotonic() + 20

    def told_to_stop() -> bool:
        if consumer.totals.counts.new and service == "redis":
            stream.server.kill()
        elif consumer.totals.counts.new and not stream.pending():
            database_line.shut()
            database_line.expect(Trouble("client", any_message))
            stream.add(position(2))
        return time.monotonic() > until_then

    consumer = Consumer(stream.settings(), drain=True, told_to_stop=told_to_stop)
    with pytest.raises(UnreachableError):
        consumer.run()
    assert (consumer.totals.ended, consumer.totals.counts.new) == ("failed", 1)

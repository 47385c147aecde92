"""A stream's consumer while others trim, move, pause, fill or flush what it reads, on real servers."""

import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from event_archive.config.sources import StreamSettings
from event_archive.errors import ConfigurationError, RefusedError, UnreachableError
from event_archive.sources import landing
from event_archive.sources.redis_stream import address, books, consume, loop, records
from event_archive.sources.redis_stream.consume import Consumer
from event_archive.sources.redis_stream.group import Group, open_group
from event_archive.sources.redis_stream.state import look_at_group
from event_archive.sources.runs import NONE_AGED
from event_archive_tests.faults.wire import Trouble, Wire, any_message, wire
from event_archive_tests.fixtures.postgres import Server
from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, position
from event_archive_tests.fixtures.waiting import until
from event_archive_tests.integration.test_stream_cases import Background
from event_archive_tests.integration.test_stream_replay import replayed

pytestmark = pytest.mark.slow

_HIGHEST = "18446744073709551615-18446744073709551615"


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(consume, "RECONNECT_SECONDS", (0.05, 0.1, 0.1, 0.1, 0.1, 0.1))


@pytest.fixture
def postgres_line(stream: Stream, server_18: Server) -> Iterator[Wire]:
    with wire(server_18) as proxy:
        stream.variables["pg_connection_string"] = proxy.dsn(stream.database.name)
        yield proxy


def test_what_is_pending_of_its_name_and_it_never_heard_of_is_taken_in_once_it_is_idle(each_stream: Stream):
    ids = each_stream.add(*map(position, range(10)))
    with Background(each_stream, stream_claim_idle="1 second") as consumer:
        until(lambda: consumer.totals.counts.new == 10)
        # As a process of the same name that was killed leaves it, or a read that arrived late.
        each_stream.server.redis.xclaim(KEY, GROUP, "tester", 0, [*ids[:5]], force=True, justid=True)
        until(lambda: consumer.totals.counts.known == 5)
    assert each_stream.pending() == {}


def test_an_entry_that_is_trimmed_just_before_it_is_claimed_is_lost_by_its_id(
    each_stream: Stream, monkeypatch: pytest.MonkeyPatch
):
    ids = each_stream.add(*map(position, range(10)))
    each_stream.read_as("gone", 10)
    claim = Group.claim

    def late(of: Group, claimed: Sequence[bytes], seconds: float):
        each_stream.server.redis.xdel(KEY, *ids[:3])
        return claim(of, claimed, seconds)

    monkeypatch.setattr(Group, "claim", late)
    counts = each_stream.run(stream_claim_idle="1 second").counts
    assert (counts.new, counts.lost) == (7, 3)
    assert each_stream.rejected("reason") == [(loop.TRIMMED,)] * 3


def test_an_entry_that_was_delivered_often_and_trimmed_is_lost_also_where_postgresql_goes_away(
    stream: Stream, postgres_line: Wire
):
    [of] = stream.add(position(1))
    stream.read_as("tester", 1)
    stream.server.redis.xclaim(KEY, GROUP, "tester", 0, [of], retrycount=3, justid=True)
    stream.server.redis.xdel(KEY, of)
    cut = postgres_line.expect(Trouble("client", lambda kind, body: kind == b"Q" and b"COPY" in body))
    assert stream.run().counts.lost == 1
    assert cut.met.is_set()
    assert stream.rejected("reason") == [(loop.TRIMMED,)]


def test_entries_that_are_tried_alone_do_not_keep_a_consumer_from_stopping(stream: Stream):
    stream.run_once_for_the_tables()
    ids = stream.add(*map(position, range(10)))
    stream.read_as("tester", 10)
    stream.server.redis.xclaim(KEY, GROUP, "tester", 0, [*ids], retrycount=3, justid=True)
    consumer = stream.consumer(told_to_stop=lambda: consumer.totals.batches >= 2)
    consumer.run()
    assert consumer.totals.batches == 2
    assert stream.pending() == {"tester": 8}


def test_a_read_that_somebody_ends_is_no_group_that_is_gone(each_stream: Stream):
    redis = each_stream.server.redis
    with Background(each_stream) as consumer:
        until(lambda: bool(each_stream.server.redis.exists(KEY)))

        def blocked() -> list[int]:
            return [int(of["id"]) for of in redis.client_list() if "b" in of["flags"]]

        until(lambda: any(redis.client_unblock(of, error=True) for of in blocked()))
        each_stream.add(position(1))
        until(lambda: consumer.totals.counts.new == 1)
    assert consumer.totals.groups_recreated == 0


def test_the_highest_id_of_all_is_an_id(each_stream: Stream):
    each_stream.server.redis.xadd(KEY, {"payload": json.dumps(position(1))}, id=_HIGHEST)
    assert look_at_group(each_stream.settings()).lag_entries == 1
    assert each_stream.run().counts.new == 1
    assert look_at_group(each_stream.settings()).lag_entries == 0
    assert each_stream.rows("stream_id") == [_HIGHEST]


def test_a_server_whose_memory_is_full_is_read_to_the_end(each_stream: Stream):
    each_stream.add(*map(position, range(10)))
    each_stream.read_as("gone", 5)
    each_stream.server.redis.config_set("maxmemory", "1")
    totals = each_stream.run(stream_claim_idle="1 second")
    assert (totals.counts.new, totals.claimed, totals.groups_recreated) == (10, 5, 0)


def test_a_flush_at_any_moment_is_a_group_that_is_gone(each_stream: Stream, monkeypatch: pytest.MonkeyPatch):
    idle = Group.idle
    flushed: list[bool] = []

    def flushing(of: Group, seconds: float, count: int):
        found = idle(of, seconds, count)
        if not flushed:
            flushed.append(each_stream.server.redis.flushall())
        return found

    monkeypatch.setattr(Group, "idle", flushing)
    with Background(each_stream) as consumer:
        until(lambda: bool(flushed))
        until(lambda: consumer.totals.groups_recreated == 1)
        each_stream.add(position(1))
        until(lambda: consumer.totals.counts.new == 1)


def test_a_partition_that_is_dropped_in_the_midst_is_made_again(stream: Stream):
    stream.add(position(1))
    with Background(stream) as consumer:
        until(lambda: consumer.totals.counts.new == 1)
        stream.database.execute("DROP TABLE positions_2024_03_01")
        stream.add(position(2))
        until(lambda: consumer.totals.counts.new == 2)
    assert stream.rows() == [2]
    assert consumer.totals.counts.rejected == 0


def test_a_server_that_pauses_its_clients_is_waited_for(each_stream: Stream, monkeypatch: pytest.MonkeyPatch):
    for timeout in ("socket_timeout", "socket_connect_timeout"):
        monkeypatch.setitem(address._OWN, timeout, 1.5)
    with Background(each_stream, stream_batch=10) as consumer:
        each_stream.add(*map(position, range(10)))
        until(lambda: consumer.totals.counts.new == 10)
        # Not as a transaction: Redis 7.0 dies of a CLIENT PAUSE in one.
        pipeline = each_stream.server.redis.pipeline(transaction=False)
        for number in range(10, 40):
            pipeline.xadd(KEY, {"payload": json.dumps(position(number))})
        pipeline.client_pause(4000, all=True)
        pipeline.execute()
        until(lambda: consumer.totals.reconnects == 1)
        until(each_stream.is_drained)
    assert each_stream.rows() == list(range(40))


def test_a_server_that_becomes_a_replica_and_a_primary_again_loses_nothing(stream: Stream):
    with Background(stream) as consumer:
        stream.add(*map(position, range(10)))
        until(lambda: consumer.totals.counts.new == 10)
        stream.server.redis.replicaof("127.0.0.1", "1")
        until(lambda: bool(consumer._away_since))
        stream.server.redis.replicaof("NO", "ONE")
        stream.add(*map(position, range(10, 20)))
        until(lambda: consumer.totals.counts.new == 20)
    assert consumer.totals.groups_recreated == 0
    assert stream.rows() == list(range(20))


@pytest.mark.parametrize("parameters", ["protocol=2", "protocol=3", "decode_responses=true", "retry_on_timeout=yes"])
def test_parameters_of_the_url_change_nothing_that_is_read(each_stream: Stream, parameters: str):
    ids = each_stream.add(*map(position, range(10)), b"no JSON")
    each_stream.read_as("gone", 5)
    each_stream.server.redis.xdel(KEY, ids[0])
    totals = each_stream.run(redis_url=f"{each_stream.server.url}?{parameters}", stream_claim_idle="1 second")
    assert (totals.counts.new, totals.counts.lost, totals.counts.rejected, totals.claimed) == (9, 1, 1, 4)
    assert each_stream.pending() == {}


def test_a_consumer_that_somebody_deletes_goes_on(each_stream: Stream):
    with Background(each_stream) as consumer:
        each_stream.add(position(1))
        until(lambda: consumer.totals.counts.new == 1)
        each_stream.server.redis.xgroup_delconsumer(KEY, GROUP, "tester")
        each_stream.add(position(2))
        until(lambda: consumer.totals.counts.new == 2)
    assert each_stream.pending() == {}


def test_a_stream_that_another_type_takes_the_place_of_stops_the_consumer(each_stream: Stream):
    consumer = each_stream.consumer(told_to_stop=lambda: False)
    each_stream.add(position(1))
    turned = consumer.turned

    def replace() -> None:
        turned()
        each_stream.server.redis.set(KEY, "a text")

    consumer.turned = replace  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match="telemetry:t is no stream"):
        consumer.run()


def test_entries_of_five_megabytes_are_rows(stream: Stream):
    stream.add(*[position(number, attributes={"number": number, "text": "x" * 5_000_000}) for number in range(5)])
    began = time.monotonic()
    assert stream.run().counts.new == 5
    assert time.monotonic() - began < 60


def test_a_batch_has_fewer_entries_where_they_are_large(stream: Stream):
    stream.add(*[position(number, attributes={"text": "x" * 1_000_000}) for number in range(64)])
    totals = stream.run()
    assert (totals.counts.new, totals.batches >= 3) == (64, True)
    stream.add(*map(position, range(100, 5000)))
    assert stream.run().batches < 4900 / 100


def test_two_processes_of_one_name_lose_nothing(each_stream: Stream):
    each_stream.run_once_for_the_tables()
    with Background(each_stream, stream_batch=10, stream_claim_idle="1 second") as one:
        with Background(each_stream, stream_batch=10) as another:
            each_stream.add(*map(position, range(300)))
            until(lambda: another.totals.counts.taken > 20)
        # It has left the group, by the name of the one that goes on.
        each_stream.add(*map(position, range(300, 400)))
        until(each_stream.is_drained)
    assert one.totals.counts.new + another.totals.counts.new == 400
    assert one.totals.groups_recreated == 0
    assert each_stream.rows() == list(range(400))


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
    stream: Stream, postgres_line: Wire, service: str
):
    stream.add(position(1))
    until_then = time.monotonic() + 20

    def told_to_stop() -> bool:
        if consumer.totals.counts.new and service == "redis":
            stream.server.kill()
        elif consumer.totals.counts.new and not stream.pending():
            postgres_line.shut()
            postgres_line.expect(Trouble("client", any_message))
            stream.add(position(2))
        return time.monotonic() > until_then

    consumer = Consumer(stream.settings(), drain=True, told_to_stop=told_to_stop)
    with pytest.raises(UnreachableError):
        consumer.run()
    assert (consumer.totals.ended, consumer.totals.counts.new) == ("failed", 1)

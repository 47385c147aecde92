"""A stream's consumer while others trim, move, pause, fill or flush what it reads, on real servers."""

import json
import time
from collections.abc import Sequence

import pytest

from event_archive.errors import ConfigurationError
from event_archive.sources.redis_stream import address, loop
from event_archive.sources.redis_stream.group import Group
from event_archive.sources.redis_stream.state import look_at_group
from event_archive_tests.faults.wire import Trouble, Wire
from event_archive_tests.fixtures.streaming import Background
from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, position
from event_archive_tests.fixtures.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hurried")]

_HIGHEST = "18446744073709551615-18446744073709551615"


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
    stream: Stream, database_line: Wire
):
    [of] = stream.add(position(1))
    stream.read_as("tester", 1)
    stream.server.redis.xclaim(KEY, GROUP, "tester", 0, [of], retrycount=3, justid=True)
    stream.server.redis.xdel(KEY, of)
    cut = database_line.expect(Trouble("client", lambda kind, body: kind == b"Q" and b"COPY" in body))
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

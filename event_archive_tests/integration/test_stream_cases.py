"""The hardest cases of a stream's consumer, on a real server each; the numbers are those of the list of cases."""

import json
import logging
from itertools import cycle

import psycopg
import pytest

from event_archive.sources.redis_stream import loop
from event_archive.sources.redis_stream.group import Group, StreamAwayError, open_group
from event_archive_tests.faults.redis_wire import RedisWire
from event_archive_tests.faults.wire import Trouble, Wire
from event_archive_tests.fixtures.streaming import Background
from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, position
from event_archive_tests.fixtures.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hurried")]


def test_entries_become_rows_and_are_acknowledged(each_stream: Stream):
    each_stream.add(*map(position, range(2500)))
    totals = each_stream.run()
    assert (totals.counts.taken, totals.counts.new, totals.batches < 10) == (2500, 2500, True)
    assert each_stream.rows() == list(range(2500))
    assert each_stream.pending() == {}
    assert each_stream.consumers() == [], "it has left"


# 1
def test_what_was_committed_and_not_acknowledged_comes_again_and_changes_nothing(each_stream: Stream):
    each_stream.add(*map(position, range(10)), b"no JSON")
    each_stream.run()
    before = each_stream.rows("xmin::text, ctid::text, stream_id")
    each_stream.server.redis.xgroup_setid(KEY, GROUP, "0")
    each_stream.read_as("tester", 100)
    counts = each_stream.run().counts
    assert (counts.taken, counts.known, counts.new, counts.rejected) == (11, 11, 0, 0)
    assert each_stream.rows("xmin::text, ctid::text, stream_id") == before
    assert each_stream.pending() == {}


# 2
@pytest.mark.parametrize("sent", [0, 1, 500])
def test_entries_of_a_reply_that_never_arrived_are_read_before_new_ones(
    stream: Stream, redis_line: RedisWire, sent: int
):
    ids = stream.add(*map(position, range(20)))
    cut = redis_line.cut(b"XREADGROUP", sent=sent)
    totals = stream.run(stream_batch=15)
    assert cut.met.is_set()
    assert (totals.counts.new, totals.batches, totals.reconnects) == (20, 2, 1)
    assert stream.rows("stream_id") == [of.decode() for of in ids]


# 1
@pytest.mark.parametrize("sent", [None, 0])
def test_an_acknowledgement_that_was_lost_or_its_reply_loses_nothing(
    stream: Stream, redis_line: RedisWire, sent: int | None
):
    stream.add(*map(position, range(20)))
    redis_line.cut(b"XACK", sent=sent)
    totals = stream.run()
    assert (totals.counts.new, totals.counts.known) == (20, 20 if sent is None else 0)
    assert stream.pending() == {}


# 3
def test_entries_of_a_consumer_that_never_returns_are_claimed_to_the_last(each_stream: Stream):
    each_stream.add(*map(position, range(250)))
    each_stream.read_as("gone", 230)
    totals = each_stream.run(stream_claim_idle="1 second", stream_batch=100)
    assert (totals.claimed, totals.counts.new) == (230, 250)
    assert each_stream.rows() == list(range(250))
    assert each_stream.pending() == {}


# 4
def test_a_batch_that_another_consumer_is_slow_with_is_not_taken_away(stream: Stream):
    stream.run_once_for_the_tables()
    stream.add(*map(position, range(10)))
    with psycopg.connect(stream.database.dsn) as other:
        other.execute("LOCK TABLE positions IN SHARE MODE")
        with Background(stream, stream_consumer="slow") as slow:
            until(lambda: stream.pending() == {"slow": 10})
            turns = iter([False] * 6 + [True])
            quick = stream.consumer(stream_consumer="quick", told_to_stop=lambda: next(turns, True)).run()
            assert (quick.claimed, quick.counts.taken) == (0, 0)
            assert stream.pending() == {"slow": 10}
            other.commit()
            until(lambda: stream.pending() == {})
    assert slow.totals.counts.new == 10


# 4
def test_a_batch_that_is_claimed_while_it_lands_becomes_one_row_an_entry(stream: Stream):
    stream.run_once_for_the_tables()
    stream.add(*map(position, range(10)))
    with psycopg.connect(stream.database.dsn) as other:
        other.execute("LOCK TABLE positions IN SHARE MODE")
        with Background(stream, stream_consumer="slow") as slow:
            until(lambda: stream.pending() == {"slow": 10})
            with Background(stream, stream_consumer="quick", stream_claim_idle="1 second") as quick:
                until(lambda: stream.pending() == {"quick": 10})
                other.commit()
                until(lambda: stream.pending() == {} and quick.totals.counts.taken == 10)
    assert slow.totals.counts.new + quick.totals.counts.new == 10
    assert slow.totals.counts.known + quick.totals.counts.known == 10
    assert stream.rows() == list(range(10))


# 6
def test_an_entry_that_was_delivered_often_is_tried_alone_and_not_rejected(each_stream: Stream):
    ids = each_stream.add(*map(position, range(10)))
    each_stream.read_as("tester", 10)
    for _ in range(50):
        each_stream.server.redis.xreadgroup(GROUP, "tester", {KEY: ids[3]}, count=2)
    totals = each_stream.run()
    # Those before, the two, and those behind them.
    assert (totals.batches, totals.counts.new, totals.counts.rejected) == (4, 10, 0)
    assert each_stream.pending() == {}


# 6
def test_an_entry_that_ended_the_process_alone_is_rejected_with_its_bytes_if_they_can_be_had(each_stream: Stream):
    first, second = each_stream.add(position(1), position(2))
    each_stream.read_as("tester", 2)
    for of, times in ((first, 2), (second, 3)):
        each_stream.server.redis.xclaim(KEY, GROUP, "tester", 0, [of], retrycount=times * loop._ALONE, justid=True)
    totals = each_stream.run()
    assert (totals.counts.rejected, totals.counts.new) == (2, 0)
    (locator, reason, raw), (_, _, of_second) = each_stream.rejected()
    assert (locator, json.loads(raw), of_second) == (f"{KEY} {first.decode()}", position(1), b"")
    assert reason == "it ended the process each time that it was taken in alone"
    assert each_stream.pending() == {}


# 6, 7
def test_an_entry_that_was_alone_when_postgresql_went_away_did_not_end_the_process(stream: Stream, database_line: Wire):
    [first] = stream.add(position(1))
    stream.read_as("tester", 1)
    stream.server.redis.xclaim(KEY, GROUP, "tester", 0, [first], retrycount=3, justid=True)
    for _ in range(2 * loop._MOST_ALONE):
        cut = database_line.expect(Trouble("client", lambda kind, body: kind == b"Q" and b"COPY" in body))
        with Background(stream):
            until(cut.met.is_set)
    assert stream.run().counts.rejected == 0
    assert stream.rows() == [1]


# 6, 7
def test_an_entry_that_was_alone_when_both_went_away_did_not_end_the_process(
    stream: Stream, database_line: Wire, monkeypatch: pytest.MonkeyPatch
):
    original, is_to_succeed = Group.mark, cycle([True, False])

    def mark(group: Group, of: bytes, deliveries: int) -> None:
        if not next(is_to_succeed):
            raise StreamAwayError("away")
        original(group, of, deliveries)

    monkeypatch.setattr(Group, "mark", mark)
    [first] = stream.add(position(1))
    stream.read_as("tester", 1)
    stream.server.redis.xclaim(KEY, GROUP, "tester", 0, [first], retrycount=3, justid=True)
    with Background(stream):
        for _ in range(2 * loop._MOST_ALONE):
            cut = database_line.expect(Trouble("client", lambda kind, body: kind == b"Q" and b"COPY" in body))
            until(cut.met.is_set)
        until(lambda: stream.rows() == [1] or bool(stream.rejected()))
    assert stream.rejected() == []


# 10
def test_what_was_trimmed_while_it_was_pending_is_lost_by_its_id(each_stream: Stream, caplog: pytest.LogCaptureFixture):
    ids = each_stream.add(*map(position, range(20)))
    each_stream.read_as("tester", 5)
    each_stream.read_as("gone", 5)
    each_stream.server.redis.xdel(KEY, *ids[2:8])
    totals = each_stream.run(stream_claim_idle="1 second")
    assert (totals.counts.lost, totals.counts.new, totals.counts.rejected) == (6, 14, 0)
    reason = "it was trimmed from the stream while it was pending"
    assert each_stream.rejected() == [(f"{KEY} {of.decode()}", reason, b"") for of in ids[2:8]]
    assert each_stream.pending() == {}
    alarms = [of.message for of in caplog.records if of.levelno == logging.ERROR]
    assert len(alarms) == 2
    assert alarms[0].startswith(f"3 entries were trimmed while pending, from {KEY} {ids[2].decode()} on; ")
    assert "MAXLEN" in alarms[0]


# 12
def test_an_old_entry_that_is_claimed_after_a_newer_one_was_written_changes_nothing(each_stream: Stream):
    redis = each_stream.server.redis
    for of in ("9-1", "10-1"):
        redis.xadd(KEY, {"payload": json.dumps(position(1, attributes={"of": of}))}, id=of)
    each_stream.read_as("gone", 1)
    totals = each_stream.run(stream_claim_idle="1 second")
    assert (totals.counts.new, totals.counts.superseded, totals.claimed) == (1, 1, 1)
    assert each_stream.rows("stream_id, attributes ->> 'of'") == [("10-1", "10-1")]


# 16
def test_instances_with_the_same_devices_share_the_work(each_stream: Stream):
    # Each key comes four times, in both orders, so that batches of all instances overlap.
    numbers = [*range(1000), *range(999, -1, -1)] * 2
    ids = each_stream.add(*map(position, numbers))
    with (
        Background(each_stream, stream_consumer="a", stream_batch=100) as a,
        Background(each_stream, stream_consumer="b", stream_batch=100) as b,
        Background(each_stream, stream_consumer="c", stream_batch=100) as c,
    ):
        until(each_stream.is_drained)
    counts = [of.totals.counts for of in (a, b, c)]
    assert sum(of.new for of in counts) == 1000
    assert sum(of.superseded + of.known for of in counts) == 3000
    newest = dict(zip(numbers, ids, strict=True))
    assert each_stream.rows("stream_id") == [newest[number].decode() for number in range(1000)]
    assert each_stream.consumers() == []


# 17
def test_names_of_dead_consumers_are_removed_once_all_they_had_was_claimed(
    each_stream: Stream, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loop, "_DEAD_SECONDS", 0)
    each_stream.add(*map(position, range(10)))
    each_stream.read_as("dead", 5)
    each_stream.server.redis.xgroup_createconsumer(KEY, GROUP, "dead too")
    with Background(each_stream, stream_claim_idle="1 second") as consumer:
        until(lambda: each_stream.consumers() == ["tester"])
    assert (consumer.totals.claimed, each_stream.rows()) == (5, list(range(10)))


# 17
def test_a_name_is_not_removed_while_something_is_pending(each_stream: Stream):
    each_stream.add(*map(position, range(10)))
    each_stream.read_as("tester", 5)
    with open_group(each_stream.settings()) as group:
        assert not group.leave()
        assert group.remove_dead(0) == 0
        assert each_stream.pending() == {"tester": 5}
        group.acknowledge([of.id for of in group.pending(10)])
        assert group.leave()
    assert each_stream.consumers() == []

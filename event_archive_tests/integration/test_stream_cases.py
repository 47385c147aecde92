"""The hardest cases of a stream's consumer, on a real server each; the numbers are those of the list of cases."""

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import cycle
from typing import Any

import psycopg
import pytest

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import Retention
from event_archive.errors import ClocksError, ConfigurationError, UnreachableError
from event_archive.lake.protocol import Lake
from event_archive.sources import runs
from event_archive.sources.redis_stream import consume, loop
from event_archive.sources.redis_stream.consume import Consumer
from event_archive.sources.redis_stream.group import Group, StreamAwayError, open_group
from event_archive.sources.redis_stream.records import Decoded, decode
from event_archive.sources.redis_stream.status import status
from event_archive.sources.runs import RECONNECT_SECONDS
from event_archive_tests.faults.redis_wire import RedisWire, redis_wire
from event_archive_tests.faults.wire import Trouble, Wire, any_message, wire
from event_archive_tests.fixtures.ages import aged_until
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Server
from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, position
from event_archive_tests.fixtures.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch):
    """Waits are as many as ever, and short."""
    monkeypatch.setattr(consume, "RECONNECT_SECONDS", (0.05, 0.1, 0.1, 0.1, 0.1, 0.1))


@pytest.fixture
def redis_line(stream: Stream) -> Iterator[RedisWire]:
    """Between the consumer and Redis."""
    with redis_wire(stream.server) as proxy:
        stream.variables["redis_url"] = proxy.url
        yield proxy


@pytest.fixture
def postgres_line(stream: Stream, server_18: Server) -> Iterator[Wire]:
    """Between the consumer and PostgreSQL."""
    with wire(server_18) as proxy:
        stream.variables["pg_connection_string"] = proxy.dsn(stream.database.name)
        yield proxy


class Background:
    """A consumer in a thread of its own, until it is told to stop."""

    def __init__(self, stream: Stream, **variables: Any) -> None:
        self._stop = threading.Event()
        self.consumer = stream.consumer(told_to_stop=self._stop.is_set, **variables)
        self._thread = ThreadPoolExecutor(1)
        self._run = self._thread.submit(self.consumer.run)

    def __enter__(self) -> Consumer:
        return self.consumer

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.shutdown()
        self._run.result()
        assert self.consumer.totals.counts.balance == 0


def test_entries_become_rows_and_are_acknowledged(each_stream: Stream):
    each_stream.add(*map(position, range(2500)))
    totals = each_stream.run()
    assert (totals.counts.taken, totals.counts.new, totals.batches < 10) == (2500, 2500, True)
    assert each_stream.rows() == list(range(2500))
    assert each_stream.pending() == {}
    assert each_stream.consumers() == [], "it has left"


# Days of which nothing is younger than a year are archived.
ARCHIVED = Dataset(
    TableName("public", "positions"), "ts", "folder", "positions", Retention.parse("1 year"), date(2015, 1, 1)
)


def young(number: int) -> dict[str, Any]:
    return position(number, timestamp=datetime.now(UTC).isoformat())


def test_the_first_pass_takes_in_records_however_old(stream: Stream):
    stream.add(position(1), young(2), position(3))
    # Its consumers end in the midst, and the group is lost.
    stream.read_as("gone", 1)
    consumer = stream.consumer(
        datasets=[ARCHIVED], stream_batch=1, told_to_stop=lambda: consumer.totals.counts.new >= 1
    )
    consumer.run()
    stream.server.redis.xgroup_destroy(KEY, GROUP)
    counts = stream.run(datasets=[ARCHIVED], stream_claim_idle="1 second").counts
    assert counts.too_old == 0
    assert sorted(stream.rows()) == [1, 2, 3]


def test_after_the_first_pass_what_is_of_an_aged_day_is_left_out_counted_and_acknowledged(stream: Stream):
    stream.add(position(1))
    stream.run(datasets=[ARCHIVED])
    stream.add(position(2), young(3))
    counts = stream.run(datasets=[ARCHIVED]).counts
    assert (counts.taken, counts.new, counts.too_old) == (2, 1, 1)
    assert sorted(stream.rows()) == [1, 3]
    assert stream.pending() == {}


@pytest.mark.parametrize("ahead", [-1, 1])
def test_where_two_clocks_are_far_apart_nothing_is_taken_for_archived_or_not(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, ahead: int
):
    """A day that is aged by one of them alone may be in no file, or be in one."""
    stream.add(position(1))
    stream.run(datasets=[ARCHIVED])
    stream.add(position(2))
    with monkeypatch.context() as patch:
        patch.setattr(runs, "now_utc", lambda: datetime.now(UTC) + ahead * timedelta(hours=1.1))
        with pytest.raises(ClocksError, match="the database's clock says .* Set the one that is wrong"):
            stream.run(datasets=[ARCHIVED])
        # Who only looks takes nothing in.
        assert status(stream.settings(), [ARCHIVED]).books is not None
        patch.setattr(runs, "now_utc", lambda: datetime.now(UTC) + ahead * timedelta(hours=0.9))
        assert stream.run(datasets=[ARCHIVED]).counts.too_old == 1
    assert stream.pending() == {}


def test_what_the_group_reads_again_from_the_beginning_is_too_old_where_it_is_archived(stream: Stream):
    stream.add(position(1), young(2))
    stream.run(datasets=[ARCHIVED])
    stream.add(young(3))
    assert stream.run(datasets=[ARCHIVED]).counts.too_old == 0
    stream.database.execute("DELETE FROM positions")
    stream.server.redis.xgroup_destroy(KEY, GROUP)
    counts = stream.run(datasets=[ARCHIVED]).counts
    assert (counts.taken, counts.too_old, stream.rows()) == (3, 1, [2, 3])


def test_the_first_pass_lasts_while_any_consumer_has_some_of_it_pending(stream: Stream):
    stream.add(position(1), position(2))
    stream.read_as("slow", 1)
    with Background(stream, datasets=[ARCHIVED]) as consumer:
        until(lambda: consumer.totals.counts.new == 1)
    stream.add(position(3))
    with Background(stream, datasets=[ARCHIVED]) as consumer:
        until(lambda: consumer.totals.counts.taken == 1)
    assert consumer.totals.counts.too_old == 0
    stream.run(datasets=[ARCHIVED], stream_claim_idle="1 second")
    assert sorted(stream.rows()) == [1, 2, 3]
    stream.add(position(4))
    assert stream.run(datasets=[ARCHIVED]).counts.too_old == 1


@pytest.mark.parametrize("in_first_pass", [False, True])
def test_what_a_worker_has_in_hand_while_its_day_is_purged_does_not_come_back(
    stream: Stream, local_lake: Lake, monkeypatch: pytest.MonkeyPatch, in_first_pass: bool
):
    """It stands still from before midnight until after the night; another one takes over, and has a newer record."""
    aged, stands_still = aged_until(1), False
    monkeypatch.setattr(loop, "aged_times", lambda *_: aged)
    monkeypatch.setattr(loop, "aged_by_now", lambda *_: aged)
    archived = replace(ARCHIVED, purge="drop")
    other = {"datasets": [archived], "stream_consumer": "other", "stream_claim_idle": "1 second"}

    def stand_still(*entries: Any, **options: Any) -> Decoded:
        nonlocal aged, stands_still
        decoded = decode(*entries, **options)
        if stands_still:
            stands_still = False
            for number in (1, 2):
                stream.add(position(1, latitude=number), young(2))
                stream.run(**other)
            aged = aged_until(2)
            assert Pipeline(stream.database, local_lake, archived).run().how == "dropped"
        return decoded

    monkeypatch.setattr(loop, "decode", stand_still)
    if not in_first_pass:
        stream.add(young(2))
        stream.run(datasets=[archived])
    stream.add(position(1, latitude=0))
    stands_still = True
    counts = stream.run(datasets=[archived]).counts
    assert (counts.taken, counts.new, counts.too_old) == (1, 0, 1)
    assert {*stream.rows()} == {2}
    assert stream.database.execute("SELECT to_regclass('positions_2024_03_01')") == [(None,)]
    assert stream.pending() == {}


def test_a_stream_that_never_had_an_entry_has_not_been_passed_over(stream: Stream):
    with Background(stream, datasets=[ARCHIVED]) as consumer:
        until(lambda: consumer.has_worked)
    stream.add(position(1))
    assert stream.run(datasets=[ARCHIVED]).counts.new == 1


def test_where_nothing_is_archived_nothing_is_too_old_and_no_further_table_is_made(stream: Stream):
    stream.add(position(1))
    stream.run()
    stream.add(position(2))
    assert stream.run().counts.new == 1
    assert stream.database.execute("SELECT to_regclass('stream_groups')") == [(None,)]


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
def test_an_entry_that_was_alone_when_postgresql_went_away_did_not_end_the_process(stream: Stream, postgres_line: Wire):
    [first] = stream.add(position(1))
    stream.read_as("tester", 1)
    stream.server.redis.xclaim(KEY, GROUP, "tester", 0, [first], retrycount=3, justid=True)
    for _ in range(2 * loop._MOST_ALONE):
        cut = postgres_line.expect(Trouble("client", lambda kind, body: kind == b"Q" and b"COPY" in body))
        with Background(stream):
            until(cut.met.is_set)
    assert stream.run().counts.rejected == 0
    assert stream.rows() == [1]


# 6, 7
def test_an_entry_that_was_alone_when_both_went_away_did_not_end_the_process(
    stream: Stream, postgres_line: Wire, monkeypatch: pytest.MonkeyPatch
):
    original, is_to_succeed = Group.mark, cycle([True, False])

    def mark(group: Group, of: bytes, deliveries: int) -> None:
        if not next(is_to_succeed):
            raise StreamAwayError
        original(group, of, deliveries)

    monkeypatch.setattr(Group, "mark", mark)
    [first] = stream.add(position(1))
    stream.read_as("tester", 1)
    stream.server.redis.xclaim(KEY, GROUP, "tester", 0, [first], retrycount=3, justid=True)
    with Background(stream):
        for _ in range(2 * loop._MOST_ALONE):
            cut = postgres_line.expect(Trouble("client", lambda kind, body: kind == b"Q" and b"COPY" in body))
            until(cut.met.is_set)
        until(lambda: stream.rows() == [1] or bool(stream.rejected()))
    assert stream.rejected() == []


# 7
def test_while_postgresql_is_down_nothing_is_acknowledged_or_rejected_and_reading_stops(
    stream: Stream, postgres_line: Wire, caplog: pytest.LogCaptureFixture
):
    stream.add(*map(position, range(10)))
    with Background(stream, stream_batch=10) as consumer:
        until(lambda: consumer.totals.counts.new == 10)
        postgres_line.shut()
        cut = postgres_line.expect(Trouble("client", any_message))
        stream.add(*map(position, range(10, 50)))
        until(cut.met.is_set)
        pending = stream.pending()
        until(lambda: consumer._attempt > len(RECONNECT_SECONDS))
        assert stream.pending() == pending != {}
        assert consumer.metrics.still_seconds < 5, "it is alive"
        postgres_line.open()
        until(stream.is_drained)
    assert (consumer.totals.counts.new, consumer.totals.counts.rejected) == (50, 0)
    assert consumer.totals.reconnects == 1
    warnings = [of.message for of in caplog.records if of.levelno == logging.WARNING]
    assert len(warnings) == 1, "it is said once"
    assert warnings[0].endswith("Nothing is read meanwhile.")


# 8
@pytest.mark.parametrize("how", ["group destroyed", "stream deleted", "server flushed"])
def test_a_group_that_is_gone_is_made_again_from_the_beginning_of_the_stream(each_stream: Stream, how: str):
    stream = each_stream
    redis = stream.server.redis
    with Background(stream) as consumer:
        stream.add(*map(position, range(10)))
        until(lambda: consumer.totals.counts.new == 10)
        if how == "group destroyed":
            redis.xgroup_destroy(KEY, GROUP)
        elif how == "stream deleted":
            redis.delete(KEY)
        else:
            redis.flushall()
        until(lambda: consumer.totals.groups_recreated == 1)
        stream.add(*map(position, range(10, 20)))
        until(lambda: consumer.totals.counts.new == 20)
    assert consumer.totals.counts.known == (10 if how == "group destroyed" else 0)
    assert stream.rows() == list(range(20))
    assert b"groups_recreated_total{" in consumer.metrics.text()


# 9
def test_a_group_that_is_there_goes_on_where_it_is(each_stream: Stream):
    each_stream.add(position(0))
    each_stream.server.redis.xgroup_create(KEY, GROUP, id="$")
    each_stream.add(position(1))
    assert each_stream.run().counts.new == 1
    assert each_stream.rows() == [1]


# 9
def test_a_key_of_another_type_is_a_wrong_setting(each_stream: Stream):
    each_stream.server.redis.set(KEY, "a text")
    with pytest.raises(ConfigurationError, match="telemetry:t is no stream.*Check STREAM_KEY"):
        each_stream.run()


# 9
@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        ("", "Redis refuses the connection.*Check user and password in REDIS_URL"),
        ("default:wrong", "Redis refuses the connection.*Check user and password in REDIS_URL"),
        ("somebody:wrong", "Redis refuses the connection"),
        ("reader:secret", "needs, on the key telemetry:t: .xgroup .xreadgroup"),
    ],
)
def test_a_refusal_is_a_wrong_setting_with_what_to_do(each_stream: Stream, credentials: str, words: str):
    each_stream.set_user("reader", "on", ">secret", "~*", "+get", "+ping")
    each_stream.set_user("default", "resetpass", ">another")
    url = f"unix://{credentials}@{each_stream.server.socket}".replace("//@", "//")
    with pytest.raises(ConfigurationError, match=words) as refused:
        each_stream.run(redis_url=url)
    assert "secret" not in str(refused.value)
    assert "wrong" not in str(refused.value)


# 9
def test_a_user_with_the_rights_that_the_message_names_is_enough(each_stream: Stream):
    rights = ["+xgroup", "+xreadgroup", "+xack", "+xpending", "+xclaim", "+xinfo", "+xrange", "+eval"]
    each_stream.set_user("app", "reset", "on", ">secret", f"~{KEY}", *rights)
    each_stream.add(*map(position, range(10)))
    each_stream.read_as("gone", 5)
    totals = each_stream.run(redis_url=f"unix://app:secret@{each_stream.server.socket}", stream_claim_idle="1 second")
    assert (totals.counts.new, totals.claimed) == (10, 5)


# 9
@pytest.mark.parametrize("url", ["unix:///nowhere", "redis://127.0.0.1:1"])
def test_a_server_that_never_answered_ends_the_consumer_after_a_while(stream: Stream, url: str):
    with pytest.raises(StreamAwayError, match="Check REDIS_URL and the server"):
        stream.run(redis_url=url)


# 9
@pytest.mark.parametrize(
    "parameter",
    [
        *("nonsense=1", "cache=1", "retry_on_error=x", "credential_provider=x", "event_dispatcher=x"),
        *("maint_notifications_config=x", "encoding_errors=bogus", "socket_timeout=soon", "protocol=9"),
        *(
            "client_name=a%20b",
            "ssl_ciphers=bogus",
            "ssl_ca_data=abc",
            "ssl_cert_reqs=bogus",
            "pa55%2Fw0rd=1",
            "pa55=1@h",
        ),
        "socket_read_size=0",
    ],
)
def test_a_parameter_of_the_url_that_nobody_knows_is_a_wrong_setting(stream: Stream, parameter: str):
    scheme = "rediss" if "ssl" in parameter else "redis"
    with pytest.raises(ConfigurationError, match="has a parameter that redis-py does not know") as caught:
        stream.run(redis_url=f"{scheme}://127.0.0.1:1?{parameter}")
    assert "pa55" not in str(caught.value)


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


# 22
def test_redis_that_restarts_is_waited_for_and_nothing_is_lost_or_doubled(
    each_stream: Stream, caplog: pytest.LogCaptureFixture
):
    stream = each_stream
    with Background(stream, stream_batch=10) as consumer:
        for number in range(5):
            stream.add(*map(position, range(number * 100, number * 100 + 100)))
            until(lambda: consumer.totals.counts.new > number * 100)  # noqa: B023 (waited for in the loop)
            stream.server.restart()
            until(lambda: consumer.totals.reconnects == number + 1)  # noqa: B023 (as above)
        until(stream.is_drained)
    assert stream.rows() == list(range(500))
    warnings = [of.message for of in caplog.records if of.levelno == logging.WARNING]
    assert len(warnings) == 5, "each is said once"


# 22
def test_both_that_go_away_are_told_apart(
    stream: Stream, redis_line: RedisWire, postgres_line: Wire, caplog: pytest.LogCaptureFixture
):
    stream.add(*map(position, range(10)))
    with Background(stream) as consumer:
        until(lambda: consumer.totals.counts.new == 10)
        postgres_line.shut()
        postgres_line.expect(Trouble("client", any_message))
        stream.add(*map(position, range(10, 20)))
        until(lambda: "postgres" in consumer._away_since)
        redis_line.shut()
        until(lambda: "redis" in consumer._away_since)
        redis_line.open()
        postgres_line.open()
        until(lambda: consumer.totals.counts.new == 20)
    assert consumer.totals.reconnects == 2
    assert len([of for of in caplog.records if of.levelno == logging.WARNING]) == 2


# 22
def test_postgresql_that_never_answered_ends_the_consumer_after_a_while(stream: Stream, postgres_line: Wire):
    postgres_line.shut()
    with pytest.raises(UnreachableError, match="PostgreSQL cannot be reached"):
        stream.run()
    assert not stream.server.redis.exists(KEY)

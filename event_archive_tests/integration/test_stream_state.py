"""A stream as it is seen from outside, on real servers."""

import re
from typing import Any

import pytest

from event_archive.errors import ConfigurationError
from event_archive.sources.redis_stream.group import StreamAwayError
from event_archive.sources.redis_stream.state import GroupState, TableState, look_at_group, table_state
from event_archive.sources.redis_stream.status import status
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.timescale import make_hypertable
from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, position


def look(stream: Stream) -> GroupState:
    return look_at_group(stream.settings())


def look_at_table(stream: Stream, **variables: Any) -> TableState | None:
    settings = stream.settings(**variables)
    with settings.postgres.session() as session:
        return table_state(session, settings.table)


def test_before_the_first_run_there_is_no_table_but_a_schema(stream: Stream):
    assert look_at_table(stream) is None
    with pytest.raises(ConfigurationError, match="INGEST_SCHEMA .'nowhere'. names no schema"):
        look_at_table(stream, ingest_schema="nowhere")


def test_a_stream_that_is_not_there_has_no_lag(each_stream: Stream):
    assert look(each_stream) == GroupState(0, b"0-0", 0, 0, 0.0, 0, 0.0, b"0-0", exists=False)


def test_before_its_group_is_made_all_of_a_stream_waits(each_stream: Stream):
    each_stream.server.redis.xadd(KEY, {"a": "1"}, id="1000-0")
    each_stream.add(position(1))
    found = look(each_stream)
    assert (found.length, found.lag_entries, found.pending, found.consumers) == (2, 2, 0, 0)
    # The age is that of the first one, by its id.
    assert found.lag_seconds > 1e9


def test_lag_and_pending_are_told_in_entries_and_in_seconds(each_stream: Stream):
    redis = each_stream.server.redis
    now_ms = redis.time()[0] * 1000
    ids: list[Any] = [redis.xadd(KEY, {"a": "1"}, id=f"{now_ms - age * 1000}-0") for age in (40, 30, 20, 10)]
    each_stream.read_as("gone", 2)
    found = look(each_stream)
    assert (found.length, found.lag_entries, found.pending, found.consumers) == (4, 2, 2, 1)
    assert found.lag_seconds == pytest.approx(20, abs=3)
    assert found.oldest_pending_seconds == pytest.approx(40, abs=3)
    assert found.settled == b"(" + ids[0]
    redis.xack(KEY, GROUP, ids[0])
    found = look(each_stream)
    assert found.oldest_pending_seconds == pytest.approx(30, abs=3)
    assert found.settled == b"(" + ids[1]


# Case 19.
def test_where_redis_cannot_tell_the_lag_its_age_is_measured(each_stream: Stream):
    redis = each_stream.server.redis
    ids = each_stream.add(*map(position, range(6)))
    each_stream.read_as("tester", 3)
    redis.xdel(KEY, ids[4])
    [group] = redis.xinfo_groups(KEY)
    assert group["lag"] is None
    found = look(each_stream)
    assert found.lag_entries is None
    assert 0 < found.lag_seconds < 60
    redis.xdel(KEY, ids[3], ids[5])
    assert (look(each_stream).lag_entries, look(each_stream).lag_seconds) == (0, 0.0)


# Case 19, as Redis 7.0 has it: the group was read to its end, then its last entries were deleted.
def test_a_lag_that_no_entry_stands_behind_is_none(each_stream: Stream):
    redis = each_stream.server.redis
    ids = each_stream.add(*map(position, range(3)))
    each_stream.read_as("tester", 2)
    redis.xtrim(KEY, maxlen=0)
    redis.xack(KEY, GROUP, *ids)
    found = look(each_stream)
    assert (found.length, found.lag_entries, found.lag_seconds, found.pending) == (0, 0, 0.0, 0)


def test_entries_that_were_trimmed_before_anybody_read_them_are_no_lag(each_stream: Stream):
    redis = each_stream.server.redis
    each_stream.add(*map(position, range(30)))
    each_stream.read_as("tester", 1)
    redis.xtrim(KEY, maxlen=5, approximate=False)
    assert look(each_stream).lag_entries in (5, None)


def test_a_group_that_was_set_back_lags_again(each_stream: Stream):
    each_stream.add(*map(position, range(3)))
    each_stream.read_as("tester", 3)
    assert look(each_stream).lag_entries == 0
    each_stream.server.redis.xgroup_setid(KEY, GROUP, "0")
    found = look(each_stream)
    assert found.lag_entries is None or found.lag_entries == 3
    assert found.lag_seconds > 0


def test_a_redis_that_is_away_and_a_key_of_another_kind_are_told(stream: Stream):
    stream.server.redis.set(KEY, "text")
    with pytest.raises(ConfigurationError, match="is no stream"):
        look(stream)
    stream.server.kill()
    with pytest.raises(StreamAwayError, match="Redis cannot be reached"):
        look(stream)
    stream.server.start()


def test_a_user_with_the_rights_that_the_message_names_may_look(each_stream: Stream):
    each_stream.add(position(1))
    each_stream.run()
    named = {"redis_url": f"unix://app:secret@{each_stream.server.socket}"}
    each_stream.set_user("app", "reset", "on", ">secret")
    with pytest.raises(ConfigurationError) as refused:
        status(each_stream.settings(**named), [])
    rights = re.findall(r"[+][a-z]+", str(refused.value))
    assert "+xrevrange" in rights
    each_stream.set_user("app", "reset", "on", ">secret", f"~{KEY}", *rights)
    found = status(each_stream.settings(**named), []).books
    assert found is not None
    assert (found.looked_at, found.missing) == (1, [])


def test_a_table_that_is_not_there_is_told_of_as_such(stream: Stream):
    assert look_at_table(stream) is None


@pytest.mark.parametrize("kind", ["plain", "partitioned"])
def test_rows_and_the_latest_time_are_seen_without_counting(stream: Stream, kind: str):
    database = stream.database
    make_positions(database, partitioned=kind == "partitioned")
    assert look_at_table(stream) == TableState(0, None)
    database.execute(
        "INSERT INTO positions SELECT 'd' || n % 7, '2024-03-01Z'::timestamptz + n * interval '1 minute' "
        "FROM generate_series(1, 1440 * 2) n"
    )
    found = look_at_table(stream)
    assert found is not None
    assert str(found.last) == "2024-03-03 00:00:00+00:00"
    database.execute("ANALYZE positions")
    assert look_at_table(stream) == TableState(2880, found.last)


def test_rows_and_the_latest_time_are_those_of_a_hypertables_chunks(stream: Stream, timescale: Database):
    make_positions(timescale, partitioned=False)
    make_hypertable(timescale, "positions", "ts", [("2024-03-01", "2024-03-02"), ("2024-03-02", "2024-03-03")])
    timescale.execute("INSERT INTO _timescaledb_internal.positions_2024_03_01 VALUES ('d', '2024-03-01 12:00Z')")
    timescale.execute("ANALYZE")
    found = look_at_table(stream)
    assert found is not None
    assert (found.rows, str(found.last)) == (1, "2024-03-01 12:00:00+00:00")


def make_positions(database: Database, *, partitioned: bool) -> None:
    key = 'device_id text COLLATE "C", ts timestamptz, PRIMARY KEY (device_id, ts)'
    if not partitioned:
        database.execute(f"CREATE TABLE positions ({key})")
        return
    database.execute(f"CREATE TABLE positions ({key}) PARTITION BY RANGE (ts)")
    for day in range(1, 8):
        database.execute(
            f"CREATE TABLE positions_{day} PARTITION OF positions "
            f"FOR VALUES FROM ('2024-03-0{day}Z') TO ('2024-03-0{day + 1}Z')"
        )

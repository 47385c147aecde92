"""Rejected entries of a stream, tried again from their bytes."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from event_archive.config.sources import StreamReading
from event_archive.domain.dataset import TableName
from event_archive.sources.landing import Counts
from event_archive.sources.redis_stream import loop
from event_archive.sources.redis_stream.replay import replay
from event_archive.sources.rejected import RejectedRecords
from event_archive_tests.fixtures.installation import run_cli
from event_archive_tests.fixtures.valkey import KEY, Stream, position

pytestmark = pytest.mark.slow

NAMES = ("deviceId", "timestamp", "latitude", "satellites", "note")


def replayed(stream: Stream) -> Counts:
    settings = StreamReading.model_validate({"pg_connection_string": stream.database.dsn})
    with settings.postgres.session() as session:
        return RejectedRecords(session, TableName("public", "rejected_records")).replay(replay(settings))


def flat(number: int, **fields: str) -> dict[str, str]:
    """A position in fields of their own, one of which fills no column."""
    record: dict[str, Any] = position(number, note='{"a": "ü"}')
    return {name: str(record[name]) for name in NAMES} | fields


def test_entries_that_are_rows_by_now_land_and_the_others_stay(stream: Stream, monkeypatch: Any):
    redis = stream.server.redis
    [lost] = stream.add(position(6))
    stream.read_as("tester", 10)
    redis.xdel(KEY, lost)
    monkeypatch.setattr("event_archive.sources.redis_stream.records.EARLIEST", datetime(2025, 1, 1, tzinfo=UTC))
    stream.add(position(1), b"no JSON", position(2, timestamp="1970-01-01T00:00:00Z"))
    redis.xadd(KEY, flat(3))  # type: ignore[arg-type]
    redis.xadd(KEY, {"payload": json.dumps(position(4)), "deviceId": "of the envelope"})
    redis.xadd(KEY, flat(5) | {b"bytes": b"\xff"})  # type: ignore[arg-type]
    # A text that would be the record, were it one of several fields.
    redis.xadd(KEY, {"payload": json.dumps(flat(7, data=json.dumps(position(8))))})
    counts = stream.run().counts
    assert (counts.rejected, counts.lost, stream.rows()) == (7, 1, [])

    monkeypatch.setattr("event_archive.sources.redis_stream.records.EARLIEST", datetime(2000, 1, 1, tzinfo=UTC))
    counts = replayed(stream)
    assert (counts.taken, counts.new) == (4, 4)
    kept = stream.rejected("reason")
    assert (loop.TRIMMED,) in kept
    assert len(kept) == 4
    found = stream.rows("device_id, ts, latitude, satellites, attributes, stream_id")
    stream.database.execute("DELETE FROM positions; DELETE FROM rejected_records")
    redis.xgroup_setid(KEY, "processor", "0")
    stream.run()
    assert stream.rows("device_id, ts, latitude, satellites, attributes, stream_id") == found


def test_an_entry_whose_row_a_newer_one_has_is_superseded(stream: Stream):
    stream.add(position(1, latitude="north"))
    stream.add(position(1, latitude=1))
    stream.run()
    older = json.dumps(position(1, latitude=2)).encode()
    stream.database.execute("UPDATE rejected_records SET raw = %s", older)
    counts = replayed(stream)
    assert (counts.superseded, counts.new) == (1, 0)
    assert stream.rows("latitude") == [1]
    assert stream.rejected() == []


def test_an_entry_that_postgresql_refuses_again_stays_as_it_is(stream: Stream):
    stream.add(position(1), position(2))
    stream.run_once_for_the_tables()
    stream.database.execute("ALTER TABLE positions ADD CONSTRAINT none CHECK (satellites IS NULL)")
    stream.server.redis.xgroup_setid(KEY, "processor", "0")
    stream.run()
    before = stream.rejected("locator, raw")
    assert len(before) == 3
    counts = replayed(stream)
    assert (counts.taken, counts.rejected) == (3, 3)
    assert stream.rejected("locator, raw") == before


def test_the_command_replays_without_the_streams_address(stream: Stream):
    stream.add(position(1, timestamp="01/03/2024"))
    stream.run()
    stream.database.execute("UPDATE rejected_records SET raw = %s", json.dumps(position(1)).encode())
    result = run_cli("rejected", "--source", "stream", "--replay", PG_CONNECTION_STRING=stream.database.dsn)
    assert result.code == 0, result.stderr
    assert json.loads(result.stdout)["new"] == 1
    assert stream.rows() == [1]

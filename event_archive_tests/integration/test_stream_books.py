"""The books of a stream, looked at from outside after a consumer ran."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from event_archive.config.environment import PipelineSettings
from event_archive.domain.dataset import Dataset, TableName
from event_archive.sources.redis_stream.books import Books
from event_archive.sources.redis_stream.status import Status, status
from event_archive_tests.fixtures.installation import run_cli
from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, position

pytestmark = pytest.mark.slow


def look(stream: Stream, datasets: Sequence[Dataset] = ()) -> Status:
    return status(stream.settings(), datasets)


def books(stream: Stream, datasets: Sequence[Dataset] = ()) -> Books:
    found = look(stream, datasets).books
    assert found is not None
    return found


def test_there_are_no_books_before_there_is_a_table(stream: Stream):
    stream.add(position(1))
    found = look(stream)
    assert (found.table, found.books, found.group.lag_entries) == (None, None, 1)


def test_books_balance_where_each_entry_is_a_row_superseded_or_rejected(stream: Stream):
    stream.add(position(1), position(2), b"no JSON", position(1, speed=99))
    stream.run()
    found = look(stream)
    assert found.books == Books(looked_at=4, missing=[], rejected=1, lost=0)
    assert found.table is not None
    assert str(found.table.last) == "2024-03-01 00:00:02+00:00"


def test_an_entry_that_somebody_else_acknowledged_is_missing(stream: Stream):
    stream.add(position(1))
    stream.run()
    [taken] = stream.add(position(2))
    stream.read_as("a program that only reads", 1)
    stream.server.redis.xack(KEY, GROUP, taken)
    stream.add(position(3))
    stream.run()
    assert books(stream) == Books(looked_at=3, missing=[taken.decode()], rejected=0, lost=0)


def test_a_row_that_is_older_than_the_entry_acknowledged_is_missing(stream: Stream):
    stream.add(position(1))
    stream.run()
    [newer] = stream.add(position(1, speed=99))
    stream.read_as("a program that only reads", 1)
    stream.server.redis.xack(KEY, GROUP, newer)
    assert books(stream).missing == [newer.decode()]


def test_what_is_not_acknowledged_yet_is_not_missing(stream: Stream):
    stream.add(position(1))
    stream.run()
    stream.add(position(2), position(3))
    stream.read_as("another", 1)
    assert books(stream) == Books(looked_at=1, missing=[], rejected=0, lost=0)


def test_a_row_whose_day_is_archived_may_be_gone(stream: Stream):
    stream.add(position(1), position(2))
    stream.run()
    stream.database.execute("DELETE FROM positions")
    assert len(books(stream).missing) == 2
    archived = replace(PipelineSettings().dataset, table=TableName("public", "positions"), time_column="ts")
    assert books(stream, [archived]).missing == []


def test_entries_that_were_trimmed_while_pending_count_as_lost(stream: Stream):
    ids = stream.add(position(1), position(2))
    stream.read_as("tester", 2)
    stream.server.redis.xdel(KEY, ids[0])
    stream.run()
    assert books(stream) == Books(looked_at=1, missing=[], rejected=0, lost=1)


def test_a_thousand_entries_are_looked_at_and_fewer_where_they_are_large(stream: Stream):
    stream.add(*(position(number) for number in range(1, 1100)))
    stream.run()
    assert books(stream) == Books(looked_at=1000, missing=[], rejected=0, lost=0)
    large = "x" * 500_000
    stream.add(*(position(number, attributes={"large": large}) for number in range(2000, 2060)))
    stream.run()
    assert books(stream) == Books(looked_at=50, missing=[], rejected=0, lost=0)


@pytest.mark.slow
def test_the_command_says_how_a_stream_stands(stream: Stream):
    variables = {"REDIS_URL": stream.server.url, "PG_CONNECTION_STRING": stream.database.dsn}
    before = run_cli("ingest", "stream", "--status", **variables, LOG_FORMAT="console")
    assert (before.code, "not there yet" in before.stdout) == (0, True)
    assert "telemetry:t: 0 entries; there is no group processor yet\n" in before.stdout
    stream.add(position(1), b"no JSON", position(2))
    waiting = run_cli("ingest", "stream", "--status", **variables, LOG_FORMAT="console").stdout
    assert waiting.startswith("telemetry:t: 3 entries; there is no group processor yet\n  not read yet: 3, ")
    stream.run()
    stream.database.execute("ALTER TABLE positions RENAME TO away")
    gone = run_cli("ingest", "stream", "--status", **variables, LOG_FORMAT="console").stdout
    assert gone.endswith("public.positions: not there, though the group is past entries\n")
    stream.database.execute("ALTER TABLE away RENAME TO positions")
    stream.add(position(3))
    done = run_cli("ingest", "stream", "--status", **variables)
    assert done.code == 0
    line = json.loads(done.stdout)
    assert line.pop("lag_seconds") > 0
    assert line == {
        "outcome": "done",
        "source": "stream",
        "length": 4,
        "consumers": 0,
        "lag_entries": 1,
        "pending": 0,
        "oldest_pending_seconds": 0.0,
        "rows": line["rows"],
        "last": "2024-03-01T00:00:02Z",
        "looked_at": 3,
        "missing": [],
        "rejected": 1,
        "lost": 0,
    }
    told = run_cli("ingest", "stream", "--status", **variables, LOG_FORMAT="console").stdout
    assert "of the 3 entries acknowledged last, 0 are missing" in told
    assert "not read yet: 1" in told
    assert "telemetry:t: 4 entries; group processor, 0 consumers\n" in told
    stream.database.execute("TRUNCATE positions")
    told = run_cli("ingest", "stream", "--status", **variables, LOG_FORMAT="console").stdout
    assert "nobody knows" not in told


def test_two_streams_whose_entries_have_the_same_ids_have_books_of_their_own(stream: Stream):
    for key in ("one", "another"):
        stream.server.redis.xadd(key, {"payload": f"no JSON, of {key}"}, id="5-1")
        consumer = stream.consumer(stream_key=key, told_to_stop=lambda: consumer.totals.batches > 0)  # noqa: B023
        assert consumer.run().counts.rejected == 1
    assert stream.rejected("locator") == [("another 5-1",), ("one 5-1",)]
    found = status(stream.settings(stream_key="one"), ()).books
    assert found == Books(looked_at=1, missing=[], rejected=1, lost=0)

"""The table ``positions``: one row for each device and time, that of the highest stream id; what becomes a row."""

import base64
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from event_archive.domain.days import Retention
from event_archive.lake.local.folder import LocalLake
from event_archive.operations.restore.day import restore_day
from event_archive.sources.landing import Counts
from event_archive.sources.redis_stream.records import Entry, decode
from event_archive.sources.runs import NONE_AGED
from event_archive_tests.fixtures.landed_positions import (
    DAY,
    TARGET,
    batch,
    landed,
    make,
    names,
    nothing,
    opened,
    partitions,
    rows,
)
from event_archive_tests.fixtures.landing import land
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database

pytestmark = pytest.mark.slow


def test_of_a_device_and_time_twice_in_a_batch_the_higher_stream_id_wins(positions_table: Database):
    # Case 11. As text, 9-0 would be the highest, and 1709251200000-9 higher than 1709251200000-10.
    make(positions_table, DAY)
    at = "2024-03-01T12:00Z"
    (counts,) = landed(
        positions_table,
        batch(
            ("a", at, "1709251200000-9"),
            ("a", at, "1709251200000-10"),
            ("a", at, "9-0"),
            ("b", at, "18446744073709551615-18446744073709551615"),
            ("b", at, "18446744073709551615-18446744073709551614"),
        ),
    )
    assert rows(positions_table) == [
        ("a", "2024-03-01 12:00", "1709251200000-10"),
        ("b", "2024-03-01 12:00", "18446744073709551615-18446744073709551615"),
    ]
    assert counts == Counts(taken=5, new=2, superseded=3)


def test_an_old_entry_that_is_claimed_after_a_newer_one_leaves_the_row(positions_table: Database):
    # Case 12.
    make(positions_table, DAY)
    at = "2024-03-01T12:00Z"
    counts = landed(
        positions_table,
        batch(("a", at, "1709251200000-10"), ("b", at, "9-1")),
        batch(("a", at, "1709251200000-9"), ("b", at, "10-0")),
    )
    assert [row[2] for row in rows(positions_table)] == ["1709251200000-10", "10-0"]
    assert counts[1] == Counts(taken=2, superseded=2)


def test_a_batch_that_comes_again_changes_nothing(positions_table: Database):
    make(positions_table, DAY)
    of = batch(("a", "2024-03-01T12:00Z", "5-1"), ("a", "2024-03-01T12:00Z", "5-2"), ("b", "2024-03-01T12:00Z", "5-3"))
    landed(positions_table, of)
    before = positions_table.execute("SELECT tableoid::regclass::text, ctid, xmin, * FROM positions")
    assert landed(positions_table, of) == [Counts(taken=3, known=2, superseded=1)]
    assert positions_table.execute("SELECT tableoid::regclass::text, ctid, xmin, * FROM positions") == before


def entry(number: int, payload: str) -> Entry:
    return Entry(b"1709294400000-%d" % number, {b"payload": payload.encode()})


def taken_in(database: Database, *entries: Entry) -> Counts:
    """What becomes of some entries, from decoding to the commit."""
    found = decode(
        entries, stream="telemetry:t", aged=NONE_AGED, now=datetime(2024, 3, 2, tzinfo=UTC), zone=ZoneInfo("UTC")
    )
    with opened(database) as session:
        partitions().make(session, found.days)
        return land(session, TARGET, "stream", found.batch, nothing)


def test_one_bad_entry_among_thousands_is_rejected_in_the_commit_of_the_others(positions_table: Database):
    # Case 5: one that is no JSON, and one that PostgreSQL alone refuses.
    good = '{{"imei":"a","ts":"2024-03-01T12:00:{:09.6f}Z","attributes":{{"n":{}}}}}'
    entries = [entry(number, good.format(number / 100, number)) for number in range(5000)]
    entries[1234], entries[4321] = entry(1234, '{"imei"'), entry(4321, good.format(0, "1e200000"))
    assert taken_in(positions_table, *entries) == Counts(taken=5000, new=4998, rejected=2)
    kept = positions_table.execute("SELECT locator, raw FROM rejected_records ORDER BY id")
    assert [(of, bytes(raw)) for of, raw in kept] == [  # type: ignore[call-overload]
        (f"telemetry:t 1709294400000-{number}", entries[number].fields[b"payload"]) for number in (1234, 4321)
    ]
    assert taken_in(positions_table, *entries) == Counts(taken=5000, known=5000)


def test_numbers_of_any_size_and_bytes_are_what_the_producer_had(positions_table: Database):
    # Case 20.
    data = bytes(range(256)) * 4096
    sentinels = (
        '"big":{"__bigint":"-123456789012345678901234567890"},"some":[{"__buffer_b64":"AP8="}],'
        '"node":{"type":"Buffer","data":[0,255]},"not":{"__bigint":"5","x":1},'
        '"mebibyte":{"__buffer_b64":"' + base64.b64encode(data).decode() + '"}'
    )
    numbers = '"plain":98765432109876543210,"tiny":1e-400,"huge":1e400'
    taken_in(positions_table, entry(1, '{"imei":"a","ts":1709294400,"attributes":{' + sentinels + "," + numbers + "}}"))
    query = """
    SELECT attributes -> 'big' = to_jsonb(-123456789012345678901234567890), attributes ->> 'plain',
           (attributes -> 'tiny')::numeric = 1e-400, (attributes -> 'huge')::numeric = 1e400,
           (attributes #>> '{some,0}')::bytea, (attributes ->> 'node')::bytea, attributes -> 'not',
           (attributes ->> 'mebibyte')::bytea = %s
    FROM positions
    """
    assert positions_table.execute(query, data) == [
        (True, "98765432109876543210", True, True, b"\0\xff", b"\0\xff", {"__bigint": "5", "x": 1}, True)
    ]


def test_every_column_holds_what_the_record_says(positions_table: Database):
    record = (
        '{"imei":356307042441013,"ts":1709294400123,"lat":54.7146368,"lng":-25.3,"alt":111,"course":359.5,"sats":15,'
        '"speed":57,"priority":1,"attributes":{"ü":"\\n"}}'
    )
    taken_in(positions_table, entry(1, record), entry(2, '{"imei":"\\u0001\\t\\"ü","ts":"2024-03-01"}'))
    kept = positions_table.execute("SELECT * FROM positions ORDER BY stream_id")
    at = datetime(2024, 3, 1, 12, 0, 0, 123000, UTC)
    assert kept == [
        *[("356307042441013", at, 54.7146368, -25.3, 111.0, 359.5, 15, 57.0, 1, {"ü": "\n"}, "1709294400000-1")],
        *[('\1\t"ü', datetime(2024, 3, 1, tzinfo=UTC), *[None] * 7, {}, "1709294400000-2")],
    ]


def aged_positions(database: Database, lake: LocalLake) -> Pipeline:
    """The table as a dataset whose partitions are dropped."""
    return Pipeline(database, lake).of(
        table=TARGET.table, time_column="ts", file_prefix="positions", purge="drop", retention=Retention(0, 30)
    )


def test_a_day_lands_is_archived_dropped_and_restored(positions_table: Database, local_lake: LocalLake):
    record = '{{"imei":"{0}","ts":"2024-03-01T12:00:{0:02}Z","attributes":{{"n":{{"__bigint":"7{0}{1}"}}}}}}'
    taken_in(positions_table, *(entry(number, record.format(number, "0" * 30)) for number in range(50)))
    taken_in(positions_table, entry(99, '{"imei":"next","ts":"2024-02-29T12:00:00Z"}'))
    before = positions_table.execute("SELECT * FROM positions WHERE ts >= '2024-03-01Z' ORDER BY device_id")
    of = aged_positions(positions_table, local_lake)
    purged = of.run()
    assert (purged.outcome, purged.deleted, purged.how) == ("purged", 50, "dropped")
    assert purged.partitions == ("public.positions_2024_03_01",)
    assert names(positions_table) == ["positions_2024_02_29"]
    assert make(positions_table, DAY) == [DAY]
    assert restore_day(of.site, DAY, TARGET.table).restored == 50
    assert positions_table.execute("SELECT * FROM positions WHERE ts >= '2024-03-01Z' ORDER BY device_id") == before

"""The table ``positions``: one row for each device and time, that of the highest stream id, in partitions by day."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pytest

from event_archive.postgres.session import Connection, Postgres, Session
from event_archive.sources.copy_format import line
from event_archive.sources.landing import Batch, Counts, land, rejected_table
from event_archive.sources.redis_stream.partitions import Partitions
from event_archive.sources.redis_stream.positions import make_table, target
from event_archive.sources.tables import make_missing
from event_archive_tests.fixtures.postgres import Database

TARGET = target("public")
DAY = date(2024, 3, 1)
PARTITIONS = Partitions(TARGET.table)

Row = tuple[str, str, str]
"""Device, time and stream id."""


@contextmanager
def opened(database: Database, user: str = "postgres") -> Iterator[Session]:
    with Postgres(database.server.dsn(database.name, user), lock_timeout_seconds=5).session() as session:
        yield session


@pytest.fixture
def table(each_database: Database) -> Database:
    """A database with the table, and no partition."""
    with opened(each_database) as session:
        assert make_table(session, "public")
        make_missing(session, rejected_table(TARGET))
    return each_database


def batch(*rows: Row) -> Batch:
    lines = [
        line(
            (device.encode(), time.encode(), b"54.7", b"25.3", *[None] * 5, b'{"id":"%b"}' % key.encode(), key.encode())
        )
        for device, time, key in rows
    ]
    made = Batch(lines)
    made.origins.append((0, lambda index: (rows[index][2], repr(rows[index]).encode())))
    return made


def nothing(_connection: Connection) -> None:
    """The position behind a batch is the group's."""


def landed(database: Database, *batches: Batch) -> list[Counts]:
    with opened(database) as session:
        return [land(session, TARGET, "stream", of, nothing) for of in batches]


def rows(database: Database) -> list[tuple[object, ...]]:
    return database.execute(
        "SELECT device_id, to_char(ts, 'YYYY-MM-DD HH24:MI'), stream_id FROM positions "
        "WHERE attributes ->> 'id' = stream_id ORDER BY ts, device_id"
    )


def make(database: Database, *days: date) -> list[date]:
    with opened(database) as session:
        return PARTITIONS.make(session, days)


def test_of_a_device_and_time_twice_in_a_batch_the_higher_stream_id_wins(table: Database):
    # Case 11. As text, 9-0 would be the highest, and 1709251200000-9 higher than 1709251200000-10.
    make(table, DAY)
    at = "2024-03-01T12:00Z"
    (counts,) = landed(
        table,
        batch(
            ("a", at, "1709251200000-9"),
            ("a", at, "1709251200000-10"),
            ("a", at, "9-0"),
            ("b", at, "18446744073709551615-18446744073709551615"),
            ("b", at, "18446744073709551615-18446744073709551614"),
        ),
    )
    assert rows(table) == [
        ("a", "2024-03-01 12:00", "1709251200000-10"),
        ("b", "2024-03-01 12:00", "18446744073709551615-18446744073709551615"),
    ]
    assert counts == Counts(taken=5, new=2, superseded=3)


def test_an_old_entry_that_is_claimed_after_a_newer_one_leaves_the_row(table: Database):
    # Case 12.
    make(table, DAY)
    at = "2024-03-01T12:00Z"
    counts = landed(
        table,
        batch(("a", at, "1709251200000-10"), ("b", at, "9-1")),
        batch(("a", at, "1709251200000-9"), ("b", at, "10-0")),
    )
    assert [row[2] for row in rows(table)] == ["1709251200000-10", "10-0"]
    assert counts[1] == Counts(taken=2, superseded=2)


def test_a_batch_that_comes_again_changes_nothing(table: Database):
    make(table, DAY)
    of = batch(("a", "2024-03-01T12:00Z", "5-1"), ("a", "2024-03-01T12:00Z", "5-2"), ("b", "2024-03-01T12:00Z", "5-3"))
    landed(table, of)
    before = table.execute("SELECT tableoid::regclass::text, ctid, xmin, * FROM positions")
    assert landed(table, of) == [Counts(taken=3, known=2, superseded=1)]
    assert table.execute("SELECT tableoid::regclass::text, ctid, xmin, * FROM positions") == before

"""The partitions of the table ``positions``, by day: made ahead, or where they are missing, by whoever may."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import ONE_DAY, now_utc
from event_archive.errors import BusyError, RefusedError
from event_archive.sources.landing import Counts, rejected_table
from event_archive.sources.redis_stream.partitions import Partitions
from event_archive.sources.redis_stream.positions import make_table, target
from event_archive.sources.redis_stream.state import table_state
from event_archive.sources.tables import make_missing
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
from event_archive_tests.fixtures.landing import land, until_blocked
from event_archive_tests.fixtures.postgres import Database

pytestmark = pytest.mark.slow


def test_a_day_without_a_partition_gets_one_beside_open_inserts(positions_table: Database):
    # Case 15. The session's lock timeout is shorter than the other insert stays open.
    make(positions_table, DAY)
    with psycopg.connect(positions_table.dsn) as other:
        other.execute(
            "INSERT INTO positions (device_id, ts, attributes, stream_id) VALUES ('a', '2024-03-01Z', '{}', '1-1')"
        )
        assert make(positions_table, DAY, DAY + timedelta(days=1)) == [date(2024, 3, 2)]
        assert landed(positions_table, batch(("b", "2024-03-02T12:00Z", "1-2")))[0].new == 1
    assert rows(positions_table) == [("b", "2024-03-02 12:00", "1-2")]
    assert names(positions_table) == ["positions_2024_03_01", "positions_2024_03_02"]
    assert make(positions_table, DAY, DAY + timedelta(days=1)) == []


def test_processes_that_meet_the_same_new_days_make_each_of_them_once(positions_table: Database):
    # Case 15.
    days = [DAY + timedelta(days=number) for number in range(60)]
    barrier = threading.Barrier(4)

    def work(_number: int) -> list[date]:
        with opened(positions_table) as session:
            barrier.wait()
            return partitions().make(session, days)

    with ThreadPoolExecutor(4) as pool:
        made = [day for some in pool.map(work, range(4)) for day in some]
    assert sorted(made) == days
    assert len(names(positions_table)) == len(days)


MADE_ELSEWHERE = """
CREATE TABLE {name} (LIKE positions INCLUDING ALL);
ALTER TABLE positions ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')
"""


@pytest.mark.parametrize("name", ["positions_2024_03_01", "another"])
def test_a_partition_that_somebody_else_makes_meanwhile_is_taken(positions_table: Database, name: str):
    # Case 15: the other one takes no advisory lock.
    with psycopg.connect(positions_table.dsn) as other, ThreadPoolExecutor(1) as pool:
        other.execute(MADE_ELSEWHERE.format(name=name, start="2024-03-01 00:00Z", end="2024-03-02 00:00Z").encode())
        making = pool.submit(make, positions_table, DAY)
        until_blocked(positions_table)
        other.commit()
        assert making.result() == []
    assert names(positions_table) == [name]


@pytest.mark.parametrize(
    "ranges",
    [
        [("2024-02-26 00:00Z", "2024-03-04 00:00Z")],
        [("2024-03-01 00:00Z", "2024-03-01 10:00Z"), ("2024-03-01 10:00Z", "2024-03-02 00:00Z")],
        [("2024-03-01 00:00Z", "infinity")],
    ],
)
def test_partitions_of_another_length_are_as_good(positions_table: Database, ranges: list[tuple[str, str]]):
    for number, (start, end) in enumerate(ranges):
        positions_table.execute(MADE_ELSEWHERE.format(name=f"p{number}", start=start, end=end))
    assert make(positions_table, DAY) == []
    assert (
        landed(positions_table, batch(("a", "2024-03-01T00:00Z", "1-1"), ("a", "2024-03-01T23:59Z", "1-2")))[0].new == 2
    )


@pytest.mark.parametrize("bounds", ["DEFAULT", "FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"])
def test_nothing_is_made_where_one_partition_takes_all(positions_table: Database, bounds: str):
    positions_table.execute(f"CREATE TABLE rest PARTITION OF positions {bounds}")
    assert make(positions_table, DAY) == []
    assert landed(positions_table, batch(("a", "2024-03-01T00:00Z", "1-1")))[0].new == 1


def test_a_table_in_the_way_is_told_of(positions_table: Database):
    positions_table.execute("CREATE TABLE positions_2024_03_01 (x int)")
    with pytest.raises(
        RefusedError, match='public.positions: the partition of 2024-03-01 cannot be made.*"positions_2024'
    ):
        make(positions_table, DAY)
    positions_table.execute("DROP TABLE positions_2024_03_01")
    positions_table.execute(MADE_ELSEWHERE.format(name="noon", start="2024-03-01 12:00Z", end="2024-03-02 00:00Z"))
    with pytest.raises(RefusedError, match='would overlap partition "noon".*so that all of the day has a partition'):
        make(positions_table, DAY)
    assert names(positions_table) == ["noon"]


def test_records_for_a_partition_that_was_dropped_meanwhile_land_a_minute_later_and_are_not_rejected(
    positions_table: Database,
):
    seconds = iter([0.0, 59.0, 60.0])
    made = Partitions(TARGET.table, clock=lambda: next(seconds))
    of = batch(("a", "2024-03-01T12:00Z", "1-1"), ("a", "2024-03-02T12:00Z", "1-2"))
    days = [DAY, DAY + timedelta(days=1)]
    with opened(positions_table) as session:
        assert made.make(session, days) == days
        positions_table.execute("DROP TABLE positions_2024_03_01")
        assert made.make(session, days) == []
        with pytest.raises(BusyError, match="public.positions has no partition for some records"):
            land(session, TARGET, "stream", of, nothing, pause=lambda _seconds: None)
        assert positions_table.execute("SELECT count(*) FROM rejected_records") == [(0,)]
        assert made.make(session, days) == [DAY]
        assert land(session, TARGET, "stream", of, nothing) == Counts(taken=2, new=2)


def test_partitions_are_made_ahead_from_today_on(positions_table: Database):
    with opened(positions_table) as session:
        before = now_utc().date()
        made = partitions().ahead(session, 3)
        assert len(made) in (4, 5)
        assert made[0] == before
        assert partitions().ahead(session, 3)[1:] == []
    assert len(names(positions_table)) >= 4


def test_a_partition_has_all_that_the_table_has(positions_table: Database):
    make(positions_table, DAY)
    of = "SELECT count(*) FROM pg_index WHERE indrelid = 'positions_2024_03_01'::regclass AND indisvalid"
    assert positions_table.execute(of) == [(2,)]
    with pytest.raises(psycopg.errors.NotNullViolation):
        positions_table.execute("INSERT INTO positions (device_id, ts, attributes) VALUES ('a', '2024-03-01Z', '{}')")


def test_a_table_with_an_identity_gets_partitions(positions_table: Database):
    positions_table.execute("ALTER TABLE positions ADD number bigint GENERATED ALWAYS AS IDENTITY")
    assert make(positions_table, DAY) == [DAY]
    landed(positions_table, batch(("a", "2024-03-01 00:00Z", "1-0"), ("b", "2024-03-01 00:00Z", "1-1")))
    assert positions_table.execute("SELECT number FROM positions ORDER BY device_id") == [(1,), (2,)]


def test_an_ordinary_table_gets_no_partitions(each_database: Database):
    each_database.execute("CREATE TABLE positions (device_id text, ts timestamptz)")
    with opened(each_database) as session:
        assert not make_table(session, "public")
    assert make(each_database, DAY) == []


def test_names_that_need_quotes_are_quoted(each_database: Database):
    each_database.execute('CREATE SCHEMA "My ""schema"')
    schema = 'My "schema'
    with opened(each_database) as session:
        assert make_table(session, schema)
        make_missing(session, TableName(schema, "rejected_records"))
        assert Partitions(TableName(schema, "positions")).make(session, [DAY]) == [DAY]
        of = batch(("a", "2024-03-01T00:00Z", "1-1"))
        assert land(session, target(schema), "stream", of, nothing).new == 1


def test_where_timescaledb_is_the_table_is_a_hypertable_and_gets_no_partitions(timescale: Database):
    with opened(timescale) as session:
        assert make_table(session, "public")
        assert not make_table(session, "public")
        make_missing(session, rejected_table(TARGET))
    query = "SELECT hypertable_schema::text, hypertable_name::text FROM timescaledb_information.hypertables"
    assert timescale.execute(query) == [("public", "positions")]
    assert timescale.execute("SELECT count(*) FROM pg_index WHERE indrelid = 'positions'::regclass") == [(2,)]
    assert make(timescale, DAY) == []
    counts = landed(
        timescale,
        batch(("a", "2024-03-01T12:00Z", "9-0")),
        batch(("a", "2024-03-01T12:00Z", "10-0")),
        batch(("a", "2024-03-01T12:00Z", "9-5")),
    )
    assert counts == [Counts(taken=1, new=1), Counts(taken=1, superseded=1), Counts(taken=1, superseded=1)]
    assert [row[2] for row in rows(timescale)] == ["10-0"]


@pytest.fixture
def poor_role(positions_table: Database) -> Iterator[str]:
    """A role that may write, and owns nothing."""
    role = f"poor_{positions_table.name}"
    positions_table.execute(
        f"CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT, UPDATE ON positions, rejected_records TO {role}"
    )
    yield role
    positions_table.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_role_that_may_not_make_partitions_is_told_statements_which_work(positions_table: Database, poor_role: str):
    with opened(positions_table, poor_role) as session:
        with pytest.raises(RefusedError, match="Partitions are made by the table's owner") as refused:
            partitions().make(session, [DAY, DAY + ONE_DAY])
        positions_table.execute(str(refused.value).partition("as by\n")[2].partition(" [SQLSTATE")[0])
        assert partitions().make(session, [DAY, DAY + ONE_DAY]) == []
        assert land(session, TARGET, "stream", batch(("a", "2024-03-01T00:00Z", "1-1")), nothing).new == 1
        # It may read the table, but no partition by itself.
        found = table_state(session, TARGET.table)
        assert found is not None
        assert found.last is None

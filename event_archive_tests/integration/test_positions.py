"""The table ``positions``: one row for each device and time, that of the highest stream id, in partitions by day."""

import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import ONE_DAY, Retention, now_utc
from event_archive.errors import BusyError, RefusedError
from event_archive.lake.local.folder import LocalLake
from event_archive.operations.restore.day import restore_day
from event_archive.postgres.session import Connection, Postgres, Session
from event_archive.sources.copy_format import line
from event_archive.sources.landing import Batch, Counts, rejected_table
from event_archive.sources.redis_stream.partitions import Partitions
from event_archive.sources.redis_stream.positions import make_table, target
from event_archive.sources.redis_stream.records import Entry, decode
from event_archive.sources.redis_stream.state import table_state
from event_archive.sources.runs import NONE_AGED
from event_archive.sources.tables import make_missing
from event_archive_tests.fixtures.landing import land
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.integration.test_landing import until_blocked

pytestmark = pytest.mark.slow

TARGET = target("public")
DAY = date(2024, 3, 1)

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


def partitions() -> Partitions:
    """A process's, that has seen none yet."""
    return Partitions(TARGET.table)


def make(database: Database, *days: date) -> list[date]:
    with opened(database) as session:
        return partitions().make(session, days)


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


def names(database: Database) -> list[object]:
    query = "SELECT relid::regclass::text FROM pg_partition_tree('positions') WHERE isleaf AND level > 0 ORDER BY 1"
    return [name for (name,) in database.execute(query)]


def test_a_day_without_a_partition_gets_one_beside_open_inserts(table: Database):
    # Case 15. The session's lock timeout is shorter than the other insert stays open.
    make(table, DAY)
    with psycopg.connect(table.dsn) as other:
        other.execute(
            "INSERT INTO positions (device_id, ts, attributes, stream_id) VALUES ('a', '2024-03-01Z', '{}', '1-1')"
        )
        assert make(table, DAY, DAY + timedelta(days=1)) == [date(2024, 3, 2)]
        assert landed(table, batch(("b", "2024-03-02T12:00Z", "1-2")))[0].new == 1
    assert rows(table) == [("b", "2024-03-02 12:00", "1-2")]
    assert names(table) == ["positions_2024_03_01", "positions_2024_03_02"]
    assert make(table, DAY, DAY + timedelta(days=1)) == []


def test_processes_that_meet_the_same_new_days_make_each_of_them_once(table: Database):
    # Case 15.
    days = [DAY + timedelta(days=number) for number in range(60)]
    barrier = threading.Barrier(4)

    def work(_number: int) -> list[date]:
        with opened(table) as session:
            barrier.wait()
            return partitions().make(session, days)

    with ThreadPoolExecutor(4) as pool:
        made = [day for some in pool.map(work, range(4)) for day in some]
    assert sorted(made) == days
    assert len(names(table)) == len(days)


MADE_ELSEWHERE = """
CREATE TABLE {name} (LIKE positions INCLUDING ALL);
ALTER TABLE positions ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')
"""


@pytest.mark.parametrize("name", ["positions_2024_03_01", "another"])
def test_a_partition_that_somebody_else_makes_meanwhile_is_taken(table: Database, name: str):
    # Case 15: the other one takes no advisory lock.
    with psycopg.connect(table.dsn) as other, ThreadPoolExecutor(1) as pool:
        other.execute(MADE_ELSEWHERE.format(name=name, start="2024-03-01 00:00Z", end="2024-03-02 00:00Z").encode())
        making = pool.submit(make, table, DAY)
        until_blocked(table)
        other.commit()
        assert making.result() == []
    assert names(table) == [name]


@pytest.mark.parametrize(
    "ranges",
    [
        [("2024-02-26 00:00Z", "2024-03-04 00:00Z")],
        [("2024-03-01 00:00Z", "2024-03-01 10:00Z"), ("2024-03-01 10:00Z", "2024-03-02 00:00Z")],
        [("2024-03-01 00:00Z", "infinity")],
    ],
)
def test_partitions_of_another_length_are_as_good(table: Database, ranges: list[tuple[str, str]]):
    for number, (start, end) in enumerate(ranges):
        table.execute(MADE_ELSEWHERE.format(name=f"p{number}", start=start, end=end))
    assert make(table, DAY) == []
    assert landed(table, batch(("a", "2024-03-01T00:00Z", "1-1"), ("a", "2024-03-01T23:59Z", "1-2")))[0].new == 2


@pytest.mark.parametrize("bounds", ["DEFAULT", "FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"])
def test_nothing_is_made_where_one_partition_takes_all(table: Database, bounds: str):
    table.execute(f"CREATE TABLE rest PARTITION OF positions {bounds}")
    assert make(table, DAY) == []
    assert landed(table, batch(("a", "2024-03-01T00:00Z", "1-1")))[0].new == 1


def test_a_table_in_the_way_is_told_of(table: Database):
    table.execute("CREATE TABLE positions_2024_03_01 (x int)")
    with pytest.raises(
        RefusedError, match='public.positions: the partition of 2024-03-01 cannot be made.*"positions_2024'
    ):
        make(table, DAY)
    table.execute("DROP TABLE positions_2024_03_01")
    table.execute(MADE_ELSEWHERE.format(name="noon", start="2024-03-01 12:00Z", end="2024-03-02 00:00Z"))
    with pytest.raises(RefusedError, match='would overlap partition "noon".*so that all of the day has a partition'):
        make(table, DAY)
    assert names(table) == ["noon"]


def test_records_for_a_partition_that_was_dropped_meanwhile_land_a_minute_later_and_are_not_rejected(table: Database):
    seconds = iter([0.0, 59.0, 60.0])
    made = Partitions(TARGET.table, clock=lambda: next(seconds))
    of = batch(("a", "2024-03-01T12:00Z", "1-1"), ("a", "2024-03-02T12:00Z", "1-2"))
    days = [DAY, DAY + timedelta(days=1)]
    with opened(table) as session:
        assert made.make(session, days) == days
        table.execute("DROP TABLE positions_2024_03_01")
        assert made.make(session, days) == []
        with pytest.raises(BusyError, match="public.positions has no partition for some records"):
            land(session, TARGET, "stream", of, nothing, pause=lambda _seconds: None)
        assert table.execute("SELECT count(*) FROM rejected_records") == [(0,)]
        assert made.make(session, days) == [DAY]
        assert land(session, TARGET, "stream", of, nothing) == Counts(taken=2, new=2)


def test_partitions_are_made_ahead_from_today_on(table: Database):
    with opened(table) as session:
        before = now_utc().date()
        made = partitions().ahead(session, 3)
        assert len(made) in (4, 5)
        assert made[0] == before
        assert partitions().ahead(session, 3)[1:] == []
    assert len(names(table)) >= 4


def test_a_partition_has_all_that_the_table_has(table: Database):
    make(table, DAY)
    of = "SELECT count(*) FROM pg_index WHERE indrelid = 'positions_2024_03_01'::regclass AND indisvalid"
    assert table.execute(of) == [(2,)]
    with pytest.raises(psycopg.errors.NotNullViolation):
        table.execute("INSERT INTO positions (device_id, ts, attributes) VALUES ('a', '2024-03-01Z', '{}')")


def test_a_table_with_an_identity_gets_partitions(table: Database):
    table.execute("ALTER TABLE positions ADD number bigint GENERATED ALWAYS AS IDENTITY")
    assert make(table, DAY) == [DAY]
    landed(table, batch(("a", "2024-03-01 00:00Z", "1-0"), ("b", "2024-03-01 00:00Z", "1-1")))
    assert table.execute("SELECT number FROM positions ORDER BY device_id") == [(1,), (2,)]


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
def poor_role(table: Database) -> Iterator[str]:
    """A role that may write, and owns nothing."""
    role = f"poor_{table.name}"
    table.execute(f"CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT, UPDATE ON positions, rejected_records TO {role}")
    yield role
    table.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_role_that_may_not_make_partitions_is_told_statements_which_work(table: Database, poor_role: str):
    with opened(table, poor_role) as session:
        with pytest.raises(RefusedError, match="Partitions are made by the table's owner") as refused:
            partitions().make(session, [DAY, DAY + ONE_DAY])
        table.execute(str(refused.value).partition("as by\n")[2].partition(" [SQLSTATE")[0])
        assert partitions().make(session, [DAY, DAY + ONE_DAY]) == []
        assert land(session, TARGET, "stream", batch(("a", "2024-03-01T00:00Z", "1-1")), nothing).new == 1
        # It may read the table, but no partition by itself.
        found = table_state(session, TARGET.table)
        assert found is not None
        assert found.last is None


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


def test_one_bad_entry_among_thousands_is_rejected_in_the_commit_of_the_others(table: Database):
    # Case 5: one that is no JSON, and one that PostgreSQL alone refuses.
    good = '{{"imei":"a","ts":"2024-03-01T12:00:{:09.6f}Z","attributes":{{"n":{}}}}}'
    entries = [entry(number, good.format(number / 100, number)) for number in range(5000)]
    entries[1234], entries[4321] = entry(1234, '{"imei"'), entry(4321, good.format(0, "1e200000"))
    assert taken_in(table, *entries) == Counts(taken=5000, new=4998, rejected=2)
    kept = table.execute("SELECT locator, raw FROM rejected_records ORDER BY id")
    assert [(of, bytes(raw)) for of, raw in kept] == [  # type: ignore[call-overload]
        (f"telemetry:t 1709294400000-{number}", entries[number].fields[b"payload"]) for number in (1234, 4321)
    ]
    assert taken_in(table, *entries) == Counts(taken=5000, known=5000)


def test_numbers_of_any_size_and_bytes_are_what_the_producer_had(table: Database):
    # Case 20.
    data = bytes(range(256)) * 4096
    sentinels = (
        '"big":{"__bigint":"-123456789012345678901234567890"},"some":[{"__buffer_b64":"AP8="}],'
        '"node":{"type":"Buffer","data":[0,255]},"not":{"__bigint":"5","x":1},'
        '"mebibyte":{"__buffer_b64":"' + base64.b64encode(data).decode() + '"}'
    )
    numbers = '"plain":98765432109876543210,"tiny":1e-400,"huge":1e400'
    taken_in(table, entry(1, '{"imei":"a","ts":1709294400,"attributes":{' + sentinels + "," + numbers + "}}"))
    query = """
    SELECT attributes -> 'big' = to_jsonb(-123456789012345678901234567890), attributes ->> 'plain',
           (attributes -> 'tiny')::numeric = 1e-400, (attributes -> 'huge')::numeric = 1e400,
           (attributes #>> '{some,0}')::bytea, (attributes ->> 'node')::bytea, attributes -> 'not',
           (attributes ->> 'mebibyte')::bytea = %s
    FROM positions
    """
    assert table.execute(query, data) == [
        (True, "98765432109876543210", True, True, b"\0\xff", b"\0\xff", {"__bigint": "5", "x": 1}, True)
    ]


def test_every_column_holds_what_the_record_says(table: Database):
    record = (
        '{"imei":356307042441013,"ts":1709294400123,"lat":54.7146368,"lng":-25.3,"alt":111,"course":359.5,"sats":15,'
        '"speed":57,"priority":1,"attributes":{"ü":"\\n"}}'
    )
    taken_in(table, entry(1, record), entry(2, '{"imei":"\\u0001\\t\\"ü","ts":"2024-03-01"}'))
    kept = table.execute("SELECT * FROM positions ORDER BY stream_id")
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


def test_a_day_lands_is_archived_dropped_and_restored(table: Database, local_lake: LocalLake):
    record = '{{"imei":"{0}","ts":"2024-03-01T12:00:{0:02}Z","attributes":{{"n":{{"__bigint":"7{0}{1}"}}}}}}'
    taken_in(table, *(entry(number, record.format(number, "0" * 30)) for number in range(50)))
    taken_in(table, entry(99, '{"imei":"next","ts":"2024-02-29T12:00:00Z"}'))
    before = table.execute("SELECT * FROM positions WHERE ts >= '2024-03-01Z' ORDER BY device_id")
    of = aged_positions(table, local_lake)
    purged = of.run()
    assert (purged.outcome, purged.deleted, purged.how) == ("purged", 50, "dropped")
    assert purged.partitions == ("public.positions_2024_03_01",)
    assert names(table) == ["positions_2024_02_29"]
    assert make(table, DAY) == [DAY]
    assert restore_day(of.site, DAY, TARGET.table).restored == 50
    assert table.execute("SELECT * FROM positions WHERE ts >= '2024-03-01Z' ORDER BY device_id") == before

"""Tables of many partitions: more than one statement can lock, and a day touches its own alone."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from event_archive.config.environment import Settings
from event_archive.doctor import TOPICS
from event_archive.doctor.findings import go_through
from event_archive.domain.dataset import TableName
from event_archive.domain.days import ONE_DAY, day_range
from event_archive.errors import BusyError
from event_archive.nightly.backlog import (
    aged_rows,
    backlog,
    days_to_do,
    days_without_rows,
    rows_of_aged_days,
)
from event_archive.nightly.estimate import estimate
from event_archive.nightly.orphans import orphans
from event_archive.operations.restore.day import restore_day
from event_archive.operations.verify import verify_day
from event_archive.postgres.catalogue.ranges import beginnings
from event_archive.table import rows
from event_archive.table.rows import Orphans, count_orphans, days_with_rows
from event_archive.table.shape import current_shape, reflect
from event_archive.table.windows import MOST_PARTITIONS, letting_go, windows
from event_archive_tests.fixtures.meanwhile import while_reading
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database, Server, _serve, new_database

pytestmark = pytest.mark.slow

FIRST, LAST = date(2023, 1, 1), date(2024, 3, 31)
DAYS = list(day_range(FIRST, LAST))
TABLE = "CREATE TABLE t (id serial, at timestamp, PRIMARY KEY (at, id)) PARTITION BY RANGE (at)"
FEW_LOCKS = """
max_locks_per_transaction = 10
max_connections = 12
autovacuum_max_workers = 1
max_worker_processes = 2
max_wal_senders = 0
max_replication_slots = 0
wal_level = minimal
"""


def make_partitions(database: Database, days: list[date]) -> None:
    """A partition a day, a few in a transaction: each takes locks."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(TABLE)
        for start in range(0, len(days), 20):
            with connection.transaction():
                for day in days[start : start + 20]:
                    connection.execute(
                        sql.SQL("CREATE TABLE {} PARTITION OF t FOR VALUES FROM ({}) TO ({})").format(
                            sql.Identifier(f"t_{day}"), sql.Literal(str(day)), sql.Literal(str(day + ONE_DAY))
                        )
                    )


def of_t(database: Database, pipeline: Pipeline) -> Pipeline:
    return Pipeline(
        database, pipeline.lake, replace(pipeline.dataset, table=TableName("public", "t"), time_column="at")
    )


@pytest.fixture(scope="module")
def server_of_few_locks() -> Iterator[Server]:
    """One whose lock memory is too small for all partitions at once; they lie in its template."""
    for server in _serve(18, FEW_LOCKS):
        make_partitions(Database(server, "specification"), DAYS)
        yield server


@pytest.fixture
def crowded(server_of_few_locks: Server, pipeline: Pipeline) -> Iterator[Pipeline]:
    """A table of 456 daily partitions, a row in every fifth."""
    for database in new_database(server_of_few_locks):
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            for number, day in enumerate(DAYS[::5]):
                connection.execute("INSERT INTO t VALUES (%s, %s)", (number, day))
        yield of_t(database, pipeline)


def test_questions_about_all_days_lock_few_partitions_at_once(
    crowded: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(psycopg.errors.OutOfMemory):
        crowded.database.execute("SELECT count(*) FROM t")
    dataset, postgres, now, filled = crowded.dataset, crowded.postgres, datetime.now(UTC), DAYS[::5]
    assert days_to_do(dataset, now, postgres, timeout_seconds=45).days == filled
    assert rows_of_aged_days(dataset, now, postgres).rows == dict.fromkeys(filled, 1)
    assert backlog(dataset, now, postgres, grace_days=3).days == len(filled)
    assert estimate(dataset, filled, postgres).rows == dict.fromkeys(filled, 1)
    assert days_without_rows(dataset, DAYS, postgres) == [day for day in DAYS if day not in filled]
    caplog.clear()
    monkeypatch.setattr("event_archive.nightly.backlog._ALL_PROBES_SECONDS", 0)
    assert days_without_rows(dataset, DAYS, postgres) == []
    assert f"whether {len(DAYS)} of {len(DAYS)} days have rows could not be seen in time" in caplog.text
    assert orphans(dataset, postgres) == Orphans(0, 0)
    late = crowded.of(start=LAST)
    assert orphans(late.dataset, postgres) == Orphans(before_start=len(filled) - (LAST in filled), not_finite=0)


def test_the_doctor_looks_at_a_crowded_table(crowded: Pipeline, clean: pytest.MonkeyPatch, tmp_path: Path):
    clean.setenv("PG_CONNECTION_STRING", crowded.database.dsn)
    clean.setenv("ARCHIVE_LOCAL_PATH", str(tmp_path))
    clean.setenv("EVENT_TABLE", "t")
    clean.setenv("EVENT_TIME_COLUMN", "at")
    found = {finding.name: finding for finding in go_through(TOPICS, Settings.load)}
    for name in ("table", "time_index", "triggers", "foreign_keys", "replication", "autovacuum", "orphans"):
        assert found[name].status == "good", found[name]


# A day


@contextmanager
def locked(database: Database, tables: list[str], mode: str = "ACCESS EXCLUSIVE") -> Iterator[psycopg.Connection]:
    """Another session has a lock on tables, until the block ends."""
    with psycopg.connect(database.dsn) as connection:
        for table in tables:
            lock = sql.SQL("LOCK TABLE {} IN {} MODE")
            connection.execute(lock.format(sql.Identifier(table), sql.SQL(mode)))
        yield connection
        connection.rollback()


def test_a_day_touches_its_own_partitions_alone(each_database: Database, pipeline: Pipeline):
    days = list(day_range(DAY - 60 * ONE_DAY, DAY + 60 * ONE_DAY))
    make_partitions(each_database, days)
    each_database.execute("CREATE INDEX ON t (id)")
    each_database.execute("INSERT INTO t SELECT n, '2024-03-01 12:00' FROM generate_series(1, 3) AS n")
    of = of_t(each_database, pipeline)
    with locked(each_database, [f"t_{day}" for day in days if day != DAY]):
        assert aged_rows(of.dataset, DAY, of.postgres).rows == 3
        assert of.archive().rows == 3
        each_database.execute("INSERT INTO t VALUES (4, '2024-03-01 23:59:59.999')")
        assert of.archive().rows_appended == 1
        assert of.purge(dry_run=True).proven == 4
        assert of.purge().deleted == 4
        assert days_without_rows(of.dataset, [DAY], of.postgres) == [DAY]
        assert not verify_day(of.dataset, DAY, table=current_shape(of.dataset, of.postgres), lake=of.lake).problems
        assert restore_day(of.site, DAY, of.dataset.table).restored == 4
        assert restore_day(of.site, DAY, of.dataset.table).skipped == 4
    assert each_database.execute("SELECT nextval('t_id_seq')") == [(5,)]


def test_a_day_of_a_table_with_triggers_touches_its_own_partitions_alone(database: Database, pipeline: Pipeline):
    make_partitions(database, [DAY, DAY + ONE_DAY])
    database.execute(
        """INSERT INTO t VALUES (1, '2024-03-01 12:00');
        CREATE FUNCTION silent() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
        CREATE TRIGGER silent BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION silent()"""
    )
    of = of_t(database, pipeline)
    of.archive()
    with locked(database, [f"t_{DAY + ONE_DAY}"]):
        assert of.purge().deleted == 1


def test_a_lock_on_another_days_partition_would_be_seen(database: Database, pipeline: Pipeline):
    make_partitions(database, [DAY])
    of = of_t(database, pipeline)
    with locked(database, [f"t_{DAY}"]), pytest.raises(BusyError, match="lock timeout"):
        aged_rows(of.dataset, DAY, of.postgres)


def test_a_restore_finds_a_row_of_the_key_at_either_end_of_the_file(database: Database, pipeline: Pipeline):
    make_partitions(database, [DAY])
    database.execute(
        "INSERT INTO t VALUES (1, '2024-03-01'), (2, '2024-03-01 05:00'), (3, '2024-03-01 23:59:59.999999')"
    )
    of = of_t(database, pipeline)
    of.archive()
    database.execute("DELETE FROM t WHERE id = 2")
    restored = restore_day(of.site, DAY, of.dataset.table)
    assert (restored.restored, restored.skipped) == (1, 2)


def test_an_export_that_waited_while_a_partition_was_written_anew_has_its_rows(
    each_database: Database, pipeline: Pipeline
):
    make_partitions(each_database, [DAY, DAY + ONE_DAY])
    each_database.execute("INSERT INTO t SELECT n, '2024-03-01 12:00' FROM generate_series(1, 3) AS n")
    of = of_t(each_database, pipeline)
    with written_anew(each_database):
        assert of.archive().rows == 3


def test_an_append_that_waited_while_a_partition_was_written_anew_has_its_rows(
    each_database: Database, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    make_partitions(each_database, [DAY, DAY + ONE_DAY])
    each_database.execute("INSERT INTO t SELECT n, '2024-03-01 12:00' FROM generate_series(1, 3) AS n")
    of = of_t(each_database, pipeline)
    of.archive()
    each_database.execute("INSERT INTO t SELECT n, '2024-03-01 13:00' FROM generate_series(4, 5) AS n")
    with ExitStack() as stack:
        rewrite = lambda: stack.enter_context(written_anew(each_database))  # noqa: E731
        with while_reading(monkeypatch, of.lake, rewrite):
            assert of.archive().rows_appended == 2


@contextmanager
def written_anew(database: Database) -> Iterator[None]:
    """Another session has written the day's partition anew, and commits as soon as anybody waits for it."""
    partition, ended = sql.Identifier(f"t_{DAY}"), threading.Event()
    with psycopg.connect(database.dsn) as connection:
        connection.execute(sql.SQL("ALTER TABLE {} SET UNLOGGED").format(partition))

        def commit() -> None:
            while not ended.is_set() and not database.execute("SELECT 1 FROM pg_locks WHERE NOT granted"):
                pass
            connection.commit()

        thread = threading.Thread(target=commit)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


# Stretches


SHAPES = {
    "date": "CREATE TABLE t (id int, at date, PRIMARY KEY (at, id)) PARTITION BY RANGE (at)",
    "timestamp": TABLE,
    "timestamptz": "CREATE TABLE t (id int, at timestamptz, PRIMARY KEY (at, id)) PARTITION BY RANGE (at)",
    "more columns": "CREATE TABLE t (id int, at timestamp, PRIMARY KEY (at, id)) PARTITION BY RANGE (at, id)",
}


def stretches(of: Pipeline, first: date = FIRST, last: date = LAST) -> list[tuple[date, date]]:
    with of.postgres.transaction("test") as connection:
        return windows(connection, reflect(connection, of.dataset), first, last)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("event_archive.table.windows.MOST_PARTITIONS", 1)


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("kind", SHAPES)
def test_stretches_end_where_partitions_begin(each_database: Database, pipeline: Pipeline, kind: str):
    each_database.execute(f"SET TimeZone TO 'UTC'; {SHAPES[kind]}")
    second = ", 5" if kind == "more columns" else ""
    for start, end in [("2023-02-01", "2023-03-01"), ("2023-03-01", "2023-04-01"), ("2024-01-01", "2024-02-01")]:
        each_database.execute(
            f"""SET TimeZone TO 'UTC';
            CREATE TABLE "{start}" PARTITION OF t FOR VALUES FROM ('{start}'{second}) TO ('{end}'{second})"""
        )
    of = of_t(each_database, pipeline)
    assert stretches(of) == [
        (FIRST, date(2023, 2, 28)),
        (date(2023, 3, 1), date(2023, 12, 31)),
        (date(2024, 1, 1), LAST),
    ]
    assert stretches(of, date(2023, 2, 5), date(2023, 2, 7)) == [(date(2023, 2, 5), date(2023, 2, 7))]
    assert stretches(of, LAST, FIRST) == []


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize(
    "definition",
    [
        "CREATE TABLE t (id int, at timestamp, PRIMARY KEY (id, at)) PARTITION BY HASH (id)",
        "CREATE TABLE t (id int, at timestamp, PRIMARY KEY (id, at)) PARTITION BY RANGE (id)",
        f"{TABLE}; CREATE TABLE p PARTITION OF t FOR VALUES FROM (MINVALUE) TO ('2024-01-01')",
        f"{TABLE}; CREATE TABLE p PARTITION OF t FOR VALUES FROM ('0045-02-29 BC') TO ('2024-01-01')",
        f"{TABLE}; CREATE TABLE p PARTITION OF t FOR VALUES FROM ('20000-01-01') TO (MAXVALUE)",
        f"{TABLE}; CREATE TABLE p PARTITION OF t DEFAULT",
        f"{TABLE}; CREATE TABLE p PARTITION OF t FOR VALUES FROM ('2023-02-01') TO (MAXVALUE) PARTITION BY HASH (id)",
        """CREATE TABLE t (id int, at timestamp PRIMARY KEY);
        CREATE TABLE other (at timestamp) PARTITION BY RANGE (at);
        CREATE TABLE p PARTITION OF other FOR VALUES FROM ('2023-02-01') TO ('2024-01-01')""",
    ],
    ids=["hash", "another column", "from the first", "BC", "year 20000", "default", "no leaf", "one piece"],
)
def test_what_is_no_range_of_times_ends_no_stretch(each_database: Database, pipeline: Pipeline, definition: str):
    each_database.execute(definition)
    assert stretches(of_t(each_database, pipeline), date.min, date.max) == [(date.min, date.max)]


@pytest.mark.usefixtures("one_by_one")
def test_partitions_of_partitions_count_where_the_time_divides_them(each_database: Database, pipeline: Pipeline):
    each_database.execute(
        """CREATE TABLE t (id int, at timestamp, PRIMARY KEY (at, id)) PARTITION BY LIST (id);
        CREATE TABLE one PARTITION OF t FOR VALUES IN (1) PARTITION BY RANGE (at);
        CREATE TABLE jan PARTITION OF one FOR VALUES FROM ('2023-01-01') TO ('2023-02-01') PARTITION BY HASH (id);
        CREATE TABLE jan_0 PARTITION OF jan FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE jan_1 PARTITION OF jan FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE feb PARTITION OF one FOR VALUES FROM ('2023-02-01') TO ('2023-03-01');
        CREATE TABLE rest PARTITION OF t DEFAULT"""
    )
    with Pipeline(each_database, pipeline.lake).postgres.transaction("test") as connection:
        ((oid,),) = each_database.execute("SELECT 't'::regclass::oid::int8")
        assert isinstance(oid, int)
        for backslashes in ("on", "off"):
            connection.execute("SELECT set_config('standard_conforming_strings', %s, true)", (backslashes,))
            assert beginnings(connection, oid, "at") == [(date(2023, 1, 1), 2), (date(2023, 2, 1), 1)]
        assert beginnings(connection, oid, "id") == []


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("key", ["at, id", "id, at"], ids=["indexed", "not indexed"])
def test_rows_are_found_in_each_stretch_whatever_partition_they_are_in(
    each_database: Database, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, key: str
):
    """The partitions begin at noon, and one takes what no other does, rows of no day among them."""
    noon = timedelta(hours=12)
    each_database.execute(f"{TABLE.replace('at, id', key)}; CREATE TABLE rest PARTITION OF t DEFAULT")
    for day in (DAY - ONE_DAY, DAY, DAY + ONE_DAY):
        start, end = (datetime(day.year, day.month, day.day) + noon * place for place in (1, 3))  # noqa: DTZ001
        each_database.execute(f"CREATE TABLE \"{day}\" PARTITION OF t FOR VALUES FROM ('{start}') TO ('{end}')")
    each_database.execute(
        """INSERT INTO t SELECT n, '2024-02-28'::timestamp + n * interval '6 hours' FROM generate_series(0, 19) AS n;
        INSERT INTO t VALUES (1, 'infinity'), (1, '-infinity'), (1, '0044-03-15 BC'), (1, '1999-01-01'),
        (1, '2030-01-01')"""
    )
    of = of_t(each_database, pipeline)
    assert len(stretches(of)) == 3
    found = rows_of_aged_days(of.dataset, datetime.now(UTC), of.postgres)
    assert found.rows == dict.fromkeys(day_range(date(2024, 2, 28), date(2024, 3, 3)), 4)
    assert found.orphans == Orphans(before_start=2, not_finite=2)
    assert days_to_do(of.dataset, datetime.now(UTC), of.postgres).days == list(found.rows)
    late = of.of(start=date(2024, 3, 2))
    assert orphans(late.dataset, late.postgres) == Orphans(before_start=14, not_finite=2)
    # No stretch is searched any more once it is clear that something is wrong.
    monkeypatch.setattr(rows, "MOST_ORPHANS", 2)
    some = orphans(late.dataset, late.postgres)
    assert some.before_start + some.not_finite == 3


@pytest.mark.usefixtures("one_by_one")
def test_rows_without_a_time_are_counted_once_in_whatever_stretches_the_others_are(
    database: Database, pipeline: Pipeline
):
    database.execute(
        """CREATE TABLE t (id int PRIMARY KEY, at timestamp) PARTITION BY LIST (id);
        CREATE TABLE one PARTITION OF t FOR VALUES IN (1, 2, 3) PARTITION BY RANGE (id);
        CREATE TABLE ones PARTITION OF one DEFAULT;
        INSERT INTO t VALUES (1, NULL), (2, 'infinity'), (3, '1999-01-01')"""
    )
    of = of_t(database, pipeline)
    assert orphans(of.dataset, of.postgres) == Orphans(before_start=1, not_finite=2)


def test_a_hundred_partitions_are_a_stretch(crowded: Pipeline):
    found = stretches(crowded)
    assert [(end - start).days + 1 for start, end in found] == [MOST_PARTITIONS] * 4 + [56]
    assert [start for start, _ in found[1:]] == [end + ONE_DAY for _, end in found[:-1]]


# Time


@pytest.mark.parametrize("ask", [days_with_rows, count_orphans])
def test_a_search_is_given_up_in_time_in_whatever_stretch_it_is(crowded: Pipeline, ask: Callable[..., object]):
    of = crowded.of(start=LAST)
    days = () if ask is count_orphans else (FIRST, LAST)
    with (
        locked(crowded.database, [f"t_{date(2023, 9, 1)}"]),
        pytest.raises(BusyError, match="statement timeout"),
        of.postgres.transaction("test") as connection,
    ):
        ask(connection, reflect(connection, of.dataset), *days, until=time.monotonic() + 0.5)


def test_a_search_whose_time_is_over_is_given_up_at_once(pipeline: Pipeline):
    with (
        pytest.raises(BusyError, match="statement timeout"),
        pipeline.postgres.transaction("test") as connection,
        letting_go(connection, time.monotonic() - 1),
    ):
        connection.execute("SELECT pg_catalog.pg_sleep(5)")

"""Tables of many partitions: more than one statement can lock, and a day touches its own alone."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from event_archive.config.environment import Settings
from event_archive.doctor import TOPICS
from event_archive.doctor.findings import go_through
from event_archive.domain.days import ONE_DAY, day_range
from event_archive.errors import BusyError
from event_archive.nightly.backlog import aged_rows, backlog, days_to_do, days_without_rows, rows_of_aged_days
from event_archive.nightly.estimate import estimate
from event_archive.nightly.orphans import orphans
from event_archive.operations.restore.day import restore_day
from event_archive.operations.verify import verify_day
from event_archive.table.rows import Orphans, count_orphans, days_with_rows
from event_archive.table.shape import current_shape, reflect
from event_archive.table.windows import MOST_PARTITIONS
from event_archive_tests.fixtures.many_partitions import FIRST, LAST, TABLE, of_t, stretches
from event_archive_tests.fixtures.meanwhile import while_reading
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database, Server, _serve, new_database

pytestmark = pytest.mark.slow


DAYS = list(day_range(FIRST, LAST))


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

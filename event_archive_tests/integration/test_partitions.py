"""Partitions that are dropped in place of their rows, or because a purge emptied them; and what keeps one."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta, tzinfo
from typing import Any

import psycopg
import pytest
from dagster import DagsterExecutionInterruptedError

from event_archive.domain.dataset import TableName
from event_archive.lake.protocol import Lake
from event_archive.nightly import day
from event_archive.nightly.outcome import DayOutcome
from event_archive.observability.json_lines import JsonDisplay
from event_archive.operations.purge import purge_day
from event_archive.postgres.catalogue import server
from event_archive.postgres.catalogue.partitions import bounded_partitions
from event_archive.table.partitions import unfit
from event_archive.table.shape import current_shape
from event_archive_tests.fixtures.partitions import DAILY, DAYS_OF_WEEK, NEXT, WEEKLY, of_table, partitions
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, rows_of
from event_archive_tests.fixtures.postgres import Database, Server, new_database

pytestmark = pytest.mark.slow


def test_the_partition_of_a_day_is_dropped_in_place_of_its_rows(each_database: Database, lake: Lake):
    of = of_table(Pipeline(each_database, lake), DAILY)
    purged = of.run()
    assert (purged.outcome, purged.deleted, purged.left) == ("purged", 5, 0)
    assert (purged.how, purged.partitions, purged.reason) == ("dropped", ("public.d1",), None)
    assert partitions(of) == {"d2"}
    assert of.count() == 3
    assert len(of.records_of_file()) == 5


def test_a_dry_run_says_what_would_be_dropped(pipeline: Pipeline):
    of = of_table(pipeline, DAILY)
    of.archive()
    purged = of.purge(dry_run=True)
    assert (purged.outcome, purged.deleted, purged.proven, purged.how) == ("dry run", 0, 5, "dropped")
    assert partitions(of) == {"d1", "d2"}
    assert of.count() == 8


def test_a_partition_of_many_days_is_dropped_once_all_of_them_are_archived(each_database: Database, local_lake: Lake):
    of = of_table(Pipeline(each_database, local_lake), WEEKLY)
    first, second, third = (of.run(day) for day in DAYS_OF_WEEK)
    for waiting in (first, second):
        assert (waiting.outcome, waiting.deleted) == ("waiting", 0)
        assert "which lies in the same partition, is not archived yet" in str(waiting.reason)
    assert (third.outcome, third.deleted, third.how, third.partitions) == ("purged", 10, "dropped", ("public.w",))
    assert of.count() == 0
    assert [len(of.records_of_file(day)) for day in DAYS_OF_WEEK] == [5, 3, 2]
    assert of.run(DAY).deleted == 0


LIST_THEN_RANGE = """
CREATE TABLE t (id int, tenant text, at timestamptz NOT NULL, note text, PRIMARY KEY (id, tenant, at))
  PARTITION BY LIST (tenant);
CREATE TABLE a PARTITION OF t FOR VALUES IN ('a') PARTITION BY RANGE (at);
CREATE TABLE b PARTITION OF t FOR VALUES IN ('b') PARTITION BY RANGE (at);
CREATE TABLE rest PARTITION OF t DEFAULT;
CREATE TABLE a1 PARTITION OF a FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00');
CREATE TABLE b1 PARTITION OF b FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00');
INSERT INTO t VALUES (1, 'a', '2024-03-01 08:00+00', 'n'), (2, 'b', '2024-03-01 09:00+00', 'n');
"""
RANGE_THEN_HASH = """
CREATE TABLE t (id int, at timestamptz NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE m PARTITION OF t FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00') PARTITION BY HASH (id);
CREATE TABLE m0 PARTITION OF m FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE m1 PARTITION OF m FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO t SELECT n, '2024-03-01 08:00+00' FROM generate_series(1, 20) AS n;
"""


@pytest.mark.parametrize(("definition", "rows"), [(LIST_THEN_RANGE, 2), (RANGE_THEN_HASH, 20)])
def test_all_leaves_of_a_day_are_dropped_at_once(pipeline: Pipeline, definition: str, rows: int):
    of = of_table(pipeline, definition)
    purged = of.run()
    assert (purged.deleted, len(purged.partitions), of.count()) == (rows, 2, 0)


def test_a_dry_run_says_of_no_row_that_it_is_deleted(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    of = of_table(pipeline, DAILY)
    of.database.execute("ALTER TABLE t DETACH PARTITION d1; ALTER TABLE t ATTACH PARTITION d1 DEFAULT")
    of.archive()
    assert of.purge(dry_run=True).how == "deleted"
    assert "rows would be deleted, no partition dropped: it lies in no partition of a range" in caplog.text
    assert "rows are deleted" not in caplog.text
    of.purge()
    assert "rows are deleted, no partition is dropped: it lies in no partition of a range" in caplog.text


def test_rows_of_the_day_in_a_default_partition_keep_the_others(pipeline: Pipeline):
    of = of_table(pipeline, f"{LIST_THEN_RANGE} INSERT INTO t VALUES (3, 'c', '2024-03-01 10:00+00', 'n')")
    purged = of.run()
    assert (purged.how, purged.deleted) == ("deleted", 3)
    assert purged.reason == "some of its rows lie in other partitions"


def test_a_default_partition_stays_and_takes_later_rows(pipeline: Pipeline):
    of = of_table(pipeline, f"{DAILY} CREATE TABLE rest PARTITION OF t DEFAULT")
    assert of.run().partitions == ("public.d1",)
    of.database.execute("INSERT INTO t VALUES (99, '2024-03-01 10:00+00', 'late')")
    late = of.run()
    assert (late.how, late.deleted, len(of.records_of_file())) == ("deleted", 1, 6)
    assert partitions(of) == {"d2", "rest"}


@pytest.mark.parametrize("kind", ["timestamp", "date"])
def test_bounds_of_every_type_are_understood(pipeline: Pipeline, kind: str):
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (id int, at {kind} NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE open PARTITION OF t FOR VALUES FROM (MINVALUE) TO ('2024-03-01');
        CREATE TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');
        CREATE TABLE ever PARTITION OF t FOR VALUES FROM ('2024-03-02') TO (MAXVALUE);
        INSERT INTO t VALUES (1, '2024-03-01')""",
    )
    with of.postgres.transaction("test") as connection:
        (row,) = connection.execute("SELECT 'public.t'::regclass::oid::int8").fetchall()
        found = bounded_partitions(connection, row[0], "at", date(2024, 2, 1), date(2024, 4, 1))
    assert [(of_.name, of_.first, of_.last) for of_ in found] == [
        ("open", None, date(2024, 2, 29)),
        ("d1", DAY, DAY),
    ]
    assert of.run().partitions == ("public.d1",)


def test_a_partition_up_to_the_last_date_there_is_keeps_no_other(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int, at date NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');
        CREATE TABLE ever PARTITION OF t FOR VALUES FROM ('2024-03-02') TO ('5874897-12-31');
        INSERT INTO t VALUES (1, '2024-03-01'), (2, '5874897-12-30')""",
    )
    assert of.run().partitions == ("public.d1",)


@pytest.mark.parametrize(
    ("by", "bound"),
    [
        ("RANGE (at, id)", "FROM ('2024-03-01', '2024-03-01') TO ('2024-03-02', '2024-03-01')"),
        ("RANGE (at, id)", "FROM (MINVALUE, MINVALUE) TO ('2024-03-02', MINVALUE)"),
        ("RANGE (id)", "FROM ('2024-03-01') TO ('2024-03-02')"),
        ("LIST (at)", "IN ('2024-03-01')"),
        ("HASH (at)", "WITH (MODULUS 1, REMAINDER 0)"),
    ],
)
def test_what_is_no_range_of_times_alone_has_no_bounds(pipeline: Pipeline, by: str, bound: str):
    pipeline.database.execute(
        f"CREATE TABLE t (id date, at date) PARTITION BY {by}; CREATE TABLE p PARTITION OF t FOR VALUES {bound}"
    )
    with pipeline.postgres.transaction("test") as connection:
        (row,) = connection.execute("SELECT 'public.t'::regclass::oid::int8").fetchall()
        assert bounded_partitions(connection, row[0], "at", date.min, date.max - timedelta(days=1)) == []


def test_a_partition_that_is_a_foreign_table_is_not_dropped(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int, at timestamptz NOT NULL) PARTITION BY RANGE (at);
        CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing;
        CREATE FOREIGN TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02') SERVER elsewhere;
        CREATE TABLE keyed (id int PRIMARY KEY, at timestamptz)""",
    )
    keyed = current_shape(replace(of.dataset, table=TableName("public", "keyed")), of.postgres)
    with of.postgres.transaction("test") as connection:
        (row,) = connection.execute("SELECT 'public.t'::regclass::oid::int8").fetchall()
        (found,) = bounded_partitions(connection, row[0], "at", DAY, DAY)
        assert unfit(connection, keyed, found) == "public.d1 is a foreign table"


class _Behind(datetime):
    """This machine's clock, at which the first partition is the present day's."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "_Behind":
        return cls(2024, 3, 1, 12, tzinfo=tz)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, DagsterExecutionInterruptedError])
def test_who_is_told_to_stop_once_a_purge_has_committed_hears_what_was_deleted(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException]
):
    def stop(*_: object) -> None:
        raise interrupt

    monkeypatch.setattr("event_archive.operations.purge.drop_empty", stop)
    purged = of_table(pipeline, DAILY, drop_empty_partitions=True).run()
    assert (purged.deleted, purged.outcome) == (5, "purged")


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, DagsterExecutionInterruptedError])
@pytest.mark.parametrize("goes_through", [True, False])
def test_who_is_told_to_stop_amid_a_commit_hears_what_was_deleted_if_it_was(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException], goes_through: bool
):
    of = of_table(pipeline, DAILY, purge="delete")
    record = of.archive().record
    commit = psycopg.Connection.commit

    def stop(connection: psycopg.Connection[Any]) -> None:
        is_purge = connection.execute("SELECT count(*) FROM public.d1").fetchone() == (0,)
        if goes_through or not is_purge:
            commit(connection)
        if is_purge:
            monkeypatch.setattr(psycopg.Connection, "commit", commit)
            raise interrupt

    monkeypatch.setattr(psycopg.Connection, "commit", stop)
    if goes_through:
        assert purge_day(of.site, DAY, record, dry_run=False).deleted == 5
    else:
        with pytest.raises(interrupt):
            purge_day(of.site, DAY, record, dry_run=False)
    assert of.database.execute("SELECT count(*) FROM d1") == [(0 if goes_through else 5,)]


def test_who_is_told_to_stop_while_a_file_is_verified_hears_what_was_deleted(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    told: list[object] = []

    def stop(*of: object) -> None:
        told.extend(of)
        raise KeyboardInterrupt

    monkeypatch.setattr(day, "_verify", stop)
    done = DayOutcome(DAY)
    day.run_day(day.Night(of_table(pipeline, DAILY).site, JsonDisplay(), verify=True, stopped=lambda: bool(told)), done)
    assert (done.deleted, done.outcome) == (5, "purged")


@pytest.mark.parametrize("purge", ["drop", "delete"])
def test_a_partition_that_is_aged_by_the_databases_clock_alone_is_not_dropped(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, purge: str
):
    """The application may still write to it."""
    of = of_table(pipeline, DAILY, purge=purge, drop_empty_partitions=True)
    of.archive()
    monkeypatch.setattr(server, "datetime", _Behind)
    assert of.purge().partitions == ()
    assert "d1" in partitions(of)


def test_a_partition_that_is_being_detached_is_none_any_more(pipeline: Pipeline):
    of = of_table(pipeline, f"{DAILY} DELETE FROM d1", purge="delete", drop_empty_partitions=True)
    with psycopg.connect(of.database.dsn) as reader, psycopg.connect(of.database.dsn, autocommit=True) as other:
        reader.execute("SELECT FROM t")
        other.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("ALTER TABLE t DETACH PARTITION d1 CONCURRENTLY")
    assert of.run(NEXT).partitions == ("public.d2",)
    assert rows_of(of, "d1") == 0


@pytest.fixture
def database_16(server_16: Server) -> Iterator[Database]:
    yield from new_database(server_16)


def test_an_identity_of_a_partition_alone_keeps_it_from_nothing(database_16: Database, local_lake: Lake):
    """From PostgreSQL 17 on, a partition has none that is not the table's."""
    numbered = f"{DAILY} ALTER TABLE d1 ALTER id ADD GENERATED ALWAYS AS IDENTITY"
    assert of_table(Pipeline(database_16, local_lake), numbered).run().partitions == ("public.d1",)

"""A partition that is dropped while others read, write, lock and archive."""

import threading
from datetime import date

import psycopg
import pytest

from event_archive.errors import IntegrityError
from event_archive.lake.local.folder import LocalLake
from event_archive.operations import dropping
from event_archive.operations.restore.day import restore_day
from event_archive.table.locks import lock_day
from event_archive_tests.fixtures.meanwhile import while_reading
from event_archive_tests.fixtures.partitions import (
    DAILY,
    DAYS_OF_WEEK,
    NEXT,
    WEEKLY,
    at_once,
    of_table,
    waiting_writer,
)
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, T

pytestmark = pytest.mark.slow


def test_nobody_waits_for_the_table_while_files_are_read_for_a_drop(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)

    def migrate() -> None:
        of.database.execute("SET lock_timeout = '1s'; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")

    with while_reading(monkeypatch, of.lake, migrate, nth=2):
        assert of.purge(DAYS_OF_WEEK[-1]).how == "dropped"


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ("INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'late')", "late"),
        ("UPDATE t SET note = 'changed' WHERE id = 2", "changed"),
    ],
)
def test_a_row_that_comes_or_changes_right_before_the_comparison_stays(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, change: str, kept: str
):
    of = of_table(pipeline, DAILY)
    of.archive()
    at_once(monkeypatch, "keep_writers_out", lambda: of.database.execute(change))
    purged = of.purge()
    assert (purged.how, purged.left) == ("deleted", 1)
    assert of.database.execute("SELECT note FROM d1") == [(kept,)]


def test_nobody_writes_to_the_partition_from_the_comparison_on_and_everybody_reads(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of = of_table(pipeline, DAILY)
    of.archive()
    seen = []

    def write() -> None:
        seen.append(of.count())
        with pytest.raises(psycopg.errors.LockNotAvailable):
            of.database.execute("SET lock_timeout = '50ms'; INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'late')")

    at_once(monkeypatch, "drop_locked", write)
    assert of.purge().how == "dropped"
    assert seen == [8]


def test_a_table_that_is_never_free_is_deleted_from(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dropping, "_PATIENCE", 0)
    of = of_table(pipeline, DAILY)
    of.archive()
    with psycopg.connect(of.database.dsn) as reader:
        reader.execute("SELECT count(*) FROM t")
        purged = of.purge()
    assert (purged.how, purged.deleted) == ("deleted", 5)
    assert "the table's lock was not to be had" in str(purged.reason)


def test_the_drop_is_tried_again_until_the_table_is_free(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(pipeline, DAILY)
    of.archive()
    with psycopg.connect(of.database.dsn) as reader:
        reader.execute("SELECT count(*) FROM t")
        at_once(monkeypatch, "_pause", reader.commit)
        assert of.purge().how == "dropped"


@pytest.mark.parametrize("gone", [DAY, NEXT], ids=["its own", "that of another day"])
def test_a_file_that_vanishes_while_the_drop_waits_for_the_table_keeps_the_partition(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, gone: date
):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    assert isinstance(of.lake, LocalLake)
    file = of.lake._target(of.dataset.path(gone))
    with psycopg.connect(of.database.dsn) as reader:
        reader.execute("SELECT count(*) FROM t")

        def vanish() -> None:
            file.unlink()
            reader.commit()

        at_once(monkeypatch, "_pause", vanish)
        if gone == DAY:
            with pytest.raises(IntegrityError, match="is gone from the lake"):
                of.purge()
        else:
            purged = of.purge()
            assert (purged.how, purged.deleted) == ("deleted", 5)
            assert "is gone from the lake" in str(purged.reason)
    assert of.count(f"at::date = '{gone}'") == {DAY: 5, NEXT: 3}[gone]


@pytest.mark.parametrize("table", ["t", "d1"])
def test_a_writer_that_waits_makes_the_drop_give_up(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, table: str):
    """One that writes to the partition by its own name keeps us from nothing, but would find it gone."""
    of = of_table(pipeline, DAILY)
    of.archive()
    writers: list[threading.Thread] = []
    at_once(monkeypatch, "drop_locked", lambda: writers.append(waiting_writer(of, table)))
    purged = of.purge()
    writers[0].join()
    assert (purged.how, purged.deleted) == ("deleted", 5)
    assert purged.reason == "another session waits for public.d1"
    assert of.database.execute("SELECT note FROM d1") == [("late",)]


@pytest.mark.parametrize(("purged", "other"), [(DAY, NEXT), (NEXT, DAY)])
def test_a_day_waits_while_another_command_works_on_one_of_its_partition(pipeline: Pipeline, purged: date, other: date):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    with of.postgres.transaction("test") as connection:
        assert lock_day(connection, of.dataset, other)
        done = of.purge(purged)
    assert (done.outcome, done.deleted) == ("waiting", 0)
    assert done.reason == f"another command is working on {other}, which lies in the same partition"
    assert of.purge(purged).how == "dropped"


@pytest.mark.parametrize("moment", ["keep_writers_out", "_count_proven"])
def test_the_file_of_another_day_that_is_taken_away_keeps_the_partition(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, moment: str
):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    lake = of.lake
    assert isinstance(lake, LocalLake)
    at_once(monkeypatch, moment, (lake._root / of.dataset.path(NEXT)).unlink)
    purged = of.purge()
    assert (purged.how, purged.deleted) == ("deleted", 5)
    assert f"{of.dataset.path(NEXT)} is gone from the lake" in str(purged.reason)
    assert "Nothing was" not in str(purged.reason)
    assert of.count() == 5


def test_a_restore_into_a_dropped_partition_says_to_create_it(pipeline: Pipeline):
    of = of_table(pipeline, DAILY)
    of.run()
    with pytest.raises(Exception, match=r"no partition takes it: create that partition, or use --table"):
        restore_day(of.site, DAY, T)
    of.database.execute(
        "CREATE TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00')"
    )
    assert restore_day(of.site, DAY, T).restored == 5

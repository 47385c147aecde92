"""Partitions that a purge has emptied are dropped while others work on them, and keep nobody waiting."""

from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from event_archive.operations import dropping, dropping_empty
from event_archive.postgres.catalogue.partitions import Partition
from event_archive.table.holds import hold
from event_archive.table.locks import lock_day
from event_archive.table.partitions import has_any_row
from event_archive_tests.fixtures.partitions import DAILY, DAYS_OF_WEEK, NEXT, WEEKLY, of_table, partitions
from event_archive_tests.fixtures.pipeline import DAY, Pipeline

pytestmark = pytest.mark.slow


# Empty partitions


def test_an_empty_partition_with_triggers_is_dropped(pipeline: Pipeline):
    of = of_table(
        pipeline,
        f"""{DAILY} CREATE FUNCTION silent() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
        CREATE TRIGGER silent BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION silent();""",
        purge="delete",
        drop_empty_partitions=True,
    )
    assert (of.run().partitions, partitions(of)) == (("public.d1",), {"d2"})


def test_a_partition_that_cannot_be_dropped_keeps_no_writer_waiting(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(dropping_empty, "keep_writers_out", None)
    owned = f"{DAILY} CREATE SEQUENCE ids OWNED BY d1.id"
    of = of_table(pipeline, owned, purge="delete", drop_empty_partitions=True)
    assert (of.run().deleted, partitions(of)) == (5, {"d1", "d2"})
    assert "sequence public.ids belongs to public.d1" in caplog.text


def test_a_table_that_is_altered_meanwhile_keeps_its_empty_partition(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    original = dropping.keep_writers_out

    def altered(*arguments: Any) -> None:
        of.database.execute("ALTER TABLE t ADD COLUMN more int")
        original(*arguments)

    monkeypatch.setattr(dropping_empty, "keep_writers_out", altered)
    assert (of.run().deleted, partitions(of)) == (5, {"d1", "d2"})
    assert "empty partition public.d1 is not dropped: its partitions were altered meanwhile" in caplog.text


def test_a_partition_that_holds_a_row_keeps_no_writer_waiting(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dropping_empty, "keep_writers_out", None)
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    of.archive()
    of.database.execute("INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'late')")
    assert (of.purge().deleted, partitions(of)) == (5, {"d1", "d2"})


def test_a_partition_is_not_locked_while_the_next_is_looked_at(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    of.archive(NEXT)
    of.database.execute("DELETE FROM t WHERE id <= 5")
    looked: list[str] = []

    def noted(connection: Any, partition: Partition) -> bool:
        locked = "SELECT relation::regclass::text FROM pg_locks WHERE pid = %s AND relation::regclass::text LIKE 'd_'"
        if len(looked) < 2:
            assert of.database.execute(locked, connection.info.backend_pid) == []
        looked.append(partition.name)
        return has_any_row(connection, partition)

    monkeypatch.setattr(dropping_empty, "has_any_row", noted)
    assert of.purge(NEXT).partitions == ("public.d1", "public.d2")
    assert looked[:2] == ["d1", "d2"]


def test_the_first_month_of_all_has_none_before_it(pipeline: Pipeline):
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    assert dropping_empty.drop_empty(of.site, date(1, 1, 5)) == []


def test_an_empty_partition_goes_with_a_later_day_that_is_dropped(pipeline: Pipeline):
    of = of_table(pipeline, DAILY, drop_empty_partitions=True)
    of.database.execute("DELETE FROM t WHERE id <= 5")
    purged = of.run(NEXT)
    assert (purged.how, purged.deleted, purged.partitions) == ("dropped", 3, ("public.d2", "public.d1"))
    assert partitions(of) == set()


def test_an_empty_partition_of_a_day_that_another_command_works_on_stays(pipeline: Pipeline):
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    of.database.execute("DELETE FROM t WHERE id <= 5")
    with psycopg.connect(of.database.dsn) as other:
        assert lock_day(other, of.dataset, DAY)
        assert of.run(NEXT).partitions == ("public.d2",)
    assert partitions(of) == {"d1"}


@pytest.mark.parametrize("held", DAYS_OF_WEEK, ids=str)
def test_an_empty_partition_of_which_any_day_is_held_stays(pipeline: Pipeline, held: date):
    of = of_table(pipeline, WEEKLY, purge="delete", drop_empty_partitions=True)
    of.database.execute("DELETE FROM t WHERE id > 5")
    of.archive()
    last = DAYS_OF_WEEK[-1] + timedelta(days=1)
    hold(of.dataset, held, held, "audit", of.postgres)
    of.database.execute("DELETE FROM t")
    of.archive(last)
    of.purge(last)
    assert partitions(of) == {"w"}

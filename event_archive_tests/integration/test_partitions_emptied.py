"""Partitions that a purge has emptied, and which may be dropped empty."""

from datetime import date

import psycopg
import pytest

from event_archive.operations import dropping
from event_archive.operations.restore.day import restore_day
from event_archive.table.holds import hold
from event_archive_tests.fixtures.partitions import (
    DAILY,
    NEXT,
    WEEKLY,
    aged_up_to,
    at_once,
    of_table,
    partitions,
    run_week,
)
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, T, rows_of

pytestmark = pytest.mark.slow


def test_a_partition_that_a_purge_has_emptied_is_dropped(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY, purge="delete", drop_empty_partitions=True)
    first, second, third = run_week(of)
    assert [day.deleted for day in (first, second, third)] == [5, 3, 2]
    assert [day.partitions for day in (first, second, third)] == [(), (), ("public.w",)]
    assert third.how == "deleted"
    assert partitions(of) == set()


def test_a_dry_run_drops_no_empty_partition(pipeline: Pipeline):
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    of.archive()
    of.database.execute("DELETE FROM t WHERE id <= 5")
    assert of.purge(dry_run=True).partitions == ()
    assert partitions(of) == {"d1", "d2"}
    purged = of.purge()
    assert (purged.outcome, purged.partitions) == ("purged", ("public.d1",))


def test_an_empty_partition_that_is_not_aged_as_a_whole_stays(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY, purge="delete", drop_empty_partitions=True, retention=aged_up_to(date(2024, 3, 2)))
    of.database.execute("DELETE FROM t WHERE id > 5")
    assert (of.run().deleted, partitions(of)) == (5, {"w"})


def test_what_cannot_be_dropped_empty_stays_and_the_day_is_purged(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    of = of_table(pipeline, f"{DAILY} CREATE VIEW v AS SELECT * FROM d1", purge="delete", drop_empty_partitions=True)
    assert (of.run().deleted, partitions(of)) == (5, {"d1", "d2"})
    assert "empty partition public.d1 is not dropped: cannot drop table d1" in caplog.text


def test_a_role_that_owns_no_partition_is_told_so_and_needs_no_grant_on_them(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
):
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    role = f"reader_{of.database.name}"
    of.database.execute(
        f"CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON t TO {role}; GRANT TEMPORARY ON DATABASE "
        f"{of.database.name} TO {role}"
    )
    try:
        assert Pipeline(of.database, of.lake, of.dataset, role=role).run().deleted == 5
    finally:
        of.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert f"partition public.d1 is not dropped, empty or not: {role} does not own public.d1" in caplog.text
    assert "permission denied" not in caplog.text


def test_an_empty_partition_takes_no_sequence_along(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    owned = f"{DAILY} CREATE SEQUENCE ids OWNED BY d1.id"
    of = of_table(pipeline, owned, purge="delete", drop_empty_partitions=True)
    assert (of.run().deleted, partitions(of)) == (5, {"d1", "d2"})
    assert "sequence public.ids belongs to public.d1" in caplog.text
    of.database.execute("ALTER SEQUENCE ids OWNED BY NONE; INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'late')")
    assert (of.run().deleted, partitions(of)) == (1, {"d2"})
    assert of.database.execute("SELECT nextval('ids')") == [(1,)]


def test_a_partition_that_is_filled_before_it_is_dropped_stays(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    insert = "INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'late')"
    at_once(monkeypatch, "keep_writers_out", lambda: of.database.execute(insert))
    assert (of.run().deleted, partitions(of), rows_of(of, "d1")) == (5, {"d1", "d2"}, 1)


def test_an_empty_partition_that_could_not_be_dropped_goes_with_a_later_day(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(dropping, "_PATIENCE", 0)
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    with psycopg.connect(of.database.dsn) as reader:
        reader.execute("SELECT count(*) FROM t")
        assert (of.run().deleted, partitions(of)) == (5, {"d1", "d2"})
    assert "empty partition public.d1 is not dropped: the table's lock was not to be had" in caplog.text
    assert of.run(NEXT).partitions == ("public.d1", "public.d2")
    assert partitions(of) == set()


def test_an_empty_partition_of_a_held_day_stays_for_its_restore(pipeline: Pipeline):
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    of.run()
    of.database.execute(
        "CREATE TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00')"
    )
    hold(of.dataset, DAY, DAY, "audit", of.postgres)
    assert of.run(NEXT).partitions == ("public.d2",)
    assert restore_day(of.site, DAY, T).restored == 5


def test_an_empty_partition_goes_although_a_trigger_keeps_a_row_of_another(pipeline: Pipeline):
    of = of_table(pipeline, DAILY, purge="delete", drop_empty_partitions=True)
    of.run()
    assert partitions(of) == {"d2"}
    of.database.execute("CREATE TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02')")
    of.database.execute(
        """CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER keep BEFORE DELETE ON d2 FOR EACH ROW WHEN (OLD.id = 6) EXECUTE FUNCTION keep()"""
    )
    purged = of.run(NEXT)
    assert (purged.outcome, purged.deleted, partitions(of)) == ("kept", 2, {"d2"})

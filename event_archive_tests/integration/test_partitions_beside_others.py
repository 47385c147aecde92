"""Partitions that are dropped while others work: which locks are asked for and for how long, what comes meanwhile."""

import threading
import time
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from event_archive.errors import RefusedError
from event_archive.operations import deleting, dropping, dropping_empty, purge
from event_archive.operations.purge import purge_day
from event_archive.postgres.catalogue.partitions import Partition
from event_archive.table.holds import hold
from event_archive.table.locks import lock_day
from event_archive.table.partitions import has_any_row
from event_archive_tests.fixtures.partitions import (
    DAILY,
    DAYS_OF_WEEK,
    NEXT,
    TABLE,
    WEEKLY,
    aged_up_to,
    at_once,
    of_table,
    partitions,
    waiting_writer,
)
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.waiting import until

pytestmark = pytest.mark.slow


def test_no_lock_is_waited_for_as_long_as_postgresql_waits_before_it_looks_for_a_deadlock_twice(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """The writers' lock for twice that time, the readers' for half of it, whatever the lock timeout is."""
    asked: list[tuple[str, str]] = []
    original = dropping._lock

    def noted(connection: Any, names: Any, mode: str, **how: Any) -> None:
        asked.extend((mode, connection.execute("SHOW lock_timeout").fetchone()[0]) for _ in names)
        original(connection, names, mode, **how)

    monkeypatch.setattr(dropping, "_lock", noted)
    of = of_table(pipeline, DAILY)
    of.archive()
    site = replace(of.site, postgres=replace(of.postgres, lock_timeout_seconds=60))
    assert purge_day(site, DAY, of.records[DAY], dry_run=False).how == "dropped"
    assert asked == [("SHARE", "2s"), ("ACCESS EXCLUSIVE", "500ms"), ("ACCESS EXCLUSIVE", "500ms")]


def test_a_partition_that_is_written_to_is_left_to_the_writer(pipeline: Pipeline):
    of = of_table(pipeline, DAILY)
    of.archive()
    with psycopg.connect(of.database.dsn) as writer:
        writer.execute("INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'late')")
        purged = of.purge()
        writer.commit()
    assert (purged.how, purged.deleted) == ("deleted", 5)
    assert str(purged.reason) == "rows are being written to public.d1"


def test_a_partition_is_dropped_while_another_is_vacuumed(pipeline: Pipeline):
    of = of_table(pipeline, DAILY)
    of.archive()
    with psycopg.connect(of.database.dsn) as vacuuming:
        vacuuming.execute("LOCK TABLE d2 IN SHARE UPDATE EXCLUSIVE MODE")
        assert of.purge().how == "dropped"


def test_a_partition_that_is_kept_is_written_to_while_its_rows_are_deleted(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of = of_table(pipeline, DAILY)
    of.archive()
    of.database.execute("UPDATE t SET note = 'new' WHERE id = 1")
    original = deleting.delete_identical

    def then_somebody_writes(*arguments: Any) -> int:
        deleted = original(*arguments)
        of.database.execute("SET lock_timeout TO '1s'; INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'late')")
        return deleted

    monkeypatch.setattr(purge, "delete_identical", then_somebody_writes)
    purged = of.purge()
    assert (purged.how, purged.deleted, purged.left) == ("deleted", 4, 2)


@pytest.mark.parametrize(
    ("comes", "words"),
    [
        ("CREATE SEQUENCE ids OWNED BY d1.id", "sequence public.ids belongs to public.d1"),
        ("CREATE PUBLICATION p_{} FOR ALL TABLES", "subscribers of publication p_"),
    ],
    ids=["a sequence", "a publication"],
)
def test_what_comes_after_the_rows_were_compared_keeps_the_partition(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, comes: str, words: str
):
    of = of_table(pipeline, DAILY)
    of.archive()
    at_once(monkeypatch, "drop_locked", lambda: of.database.execute(comes.format(of.database.name)))
    purged = of.purge()
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 5, {"d1", "d2"})
    assert words in str(purged.reason)


HALVES = f"""{TABLE}
CREATE TABLE morning PARTITION OF t FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-01 12:00+00');
INSERT INTO t SELECT n, '2024-03-01 08:00+00', 'n' FROM generate_series(1, 5) AS n;
"""
AFTERNOON = """
CREATE TABLE afternoon PARTITION OF t FOR VALUES FROM ('2024-03-01 12:00+00') TO ('2024-03-02 00:00+00');
INSERT INTO t VALUES (99, '2024-03-01 13:00+00', 'late')
"""
LEAVES = f"""{TABLE}
CREATE TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00')
  PARTITION BY RANGE (id);
CREATE TABLE a PARTITION OF d1 FOR VALUES FROM (0) TO (10);
CREATE TABLE b PARTITION OF d1 FOR VALUES FROM (10) TO (20);
INSERT INTO t VALUES (1, '2024-03-01 08:00+00', 'n'), (11, '2024-03-01 08:00+00', 'n');
"""


def test_a_partition_of_the_day_that_comes_before_the_comparison_is_not_passed_over(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of = of_table(pipeline, HALVES)
    of.archive()
    at_once(monkeypatch, "keep_writers_out", lambda: of.database.execute(AFTERNOON))
    purged = of.purge()
    assert (purged.how, purged.deleted, purged.left) == ("deleted", 5, 1)
    assert purged.reason == "its partitions were altered meanwhile"
    assert partitions(of) == {"morning", "afternoon"}


def test_a_partition_whose_parent_takes_another_name_after_the_comparison_stays(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """The parent is locked by its name, before the partition."""
    of = of_table(pipeline, LEAVES)
    of.archive()
    rename = "SET lock_timeout TO '2s'; ALTER TABLE d1 RENAME TO former; CREATE TABLE d1 (id int)"
    at_once(monkeypatch, "drop_locked", lambda: of.database.execute(rename))
    purged = of.purge()
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 2, {"a", "b"})
    assert purged.reason == "its partitions were altered meanwhile"


@pytest.mark.parametrize(
    ("lock", "reason"),
    [(1, "of 2 rows is in no file in their present form, in public.a"), (2, "being written to public.a, public.b")],
    ids=["before they are waited for", "before they are locked"],
)
def test_a_writer_to_several_partitions_waits_for_us_in_no_circle(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, lock: int, reason: str
):
    of = of_table(pipeline, LEAVES)
    of.archive()
    of.database.execute(f"ALTER DATABASE {of.database.name} SET deadlock_timeout = '5s'")
    ended = threading.Event()
    with psycopg.connect(of.database.dsn) as writer:
        # The writer would lose as soon as there is a circle.
        writer.execute("SET deadlock_timeout TO '100ms'")
        (writer_pid,) = writer.execute("SELECT pg_backend_pid()").fetchone() or ()

        def go_on() -> None:
            waits = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND {writer_pid} = ANY (pg_blocking_pids(pid))"
            until(lambda: ended.is_set() or of.database.execute(waits) == [(1,)])
            writer.execute("INSERT INTO t VALUES (2, '2024-03-01 09:00+00', 'late')")
            writer.commit()

        def begin() -> None:
            writer.execute("INSERT INTO t VALUES (12, '2024-03-01 09:00+00', 'late')")
            going_on.start()

        going_on = threading.Thread(target=go_on)
        at_once(monkeypatch, "_lock", begin, call=lock)
        purged = of.purge()
        ended.set()
        going_on.join()
    assert (purged.how, purged.deleted) == ("deleted", 2)
    assert reason in str(purged.reason)
    assert of.database.execute("SELECT id FROM t ORDER BY id") == [(2,), (12,)]


def test_a_writer_who_comes_while_the_drop_waits_for_the_table_waits_no_longer(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dropping, "_FIRST_PAUSE_SECONDS", 15)
    of = of_table(pipeline, DAILY)
    of.archive()
    writers: list[threading.Thread] = []
    with psycopg.connect(of.database.dsn) as reader:
        reader.execute("SELECT count(*) FROM t")
        at_once(monkeypatch, "_pause", lambda: writers.append(waiting_writer(of, "t")))
        started = time.monotonic()
        purged = of.purge()
    writers[0].join()
    assert time.monotonic() - started < 10
    assert (purged.how, purged.deleted) == ("deleted", 5)
    assert purged.reason == "another session waits for public.d1"


def test_a_rule_that_comes_after_the_rows_were_compared_is_refused(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(pipeline, DAILY)
    of.archive()
    rule = "CREATE RULE kept AS ON DELETE TO t DO INSTEAD NOTHING"
    at_once(monkeypatch, "drop_locked", lambda: of.database.execute(rule))
    with pytest.raises(RefusedError, match="a rule on DELETE, kept"):
        of.purge()
    assert (of.count(), partitions(of)) == (8, {"d1", "d2"})


def test_an_event_trigger_that_sees_a_drop_finds_what_it_names(pipeline: Pipeline):
    of = of_table(
        pipeline,
        f"""{DAILY}
        CREATE TABLE gone (name text);
        CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          INSERT INTO gone SELECT object_identity FROM pg_event_trigger_dropped_objects() WHERE object_type = 'table';
        END $$;
        CREATE EVENT TRIGGER noted ON sql_drop WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION noted();""",
    )
    assert of.run().how == "dropped"
    assert of.database.execute("SELECT name FROM gone") == [("public.d1",)]


# Other days


@pytest.mark.parametrize("how", ["its file is damaged", "it is not the file that was recorded"])
def test_another_day_whose_file_is_no_proof_keeps_the_partition(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, how: str
):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    file = of.lake.stat(of.dataset.path(NEXT))
    assert file is not None
    damaged = how == "its file is damaged"
    content = of.content(NEXT)
    of.put(content.replace(b"n", b"N") if damaged else content, metadata=dict(file.metadata), day=NEXT)
    recorded = None if damaged else of.records.get
    if not damaged:
        # Nor is it read back.
        monkeypatch.setattr(dropping, "_prove_other", None)
    purged = purge_day(of.site, DAY, of.records[DAY], dry_run=False, recorded=recorded)
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 5, {"w"})
    assert of.dataset.path(NEXT) in str(purged.reason)
    assert "Nothing was" not in str(purged.reason)
    assert of.count() == 5


def test_a_text_of_another_day_that_became_a_time_keeps_the_partition(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY)
    of.database.execute("ALTER TABLE t ADD said text; UPDATE t SET said = 'today' WHERE id > 5")
    for day in DAYS_OF_WEEK:
        of.archive(day)
    of.database.execute("ALTER TABLE t ALTER said TYPE date USING said::date")
    purged = of.purge()
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 5, {"w"})
    assert f"{of.dataset.path(NEXT)}: it says now, today" in str(purged.reason)


def test_the_file_of_another_day_that_changes_before_it_is_read_keeps_the_partition(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    at_once(monkeypatch, "_prove_other", lambda: of.put(b"id\n", day=NEXT))
    purged = of.purge()
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 5, {"w"})


def test_a_day_waits_for_one_of_its_partition_that_had_no_rows_when_it_was_archived(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY)
    of.archive()
    of.database.execute("DELETE FROM t WHERE id > 5")
    assert of.archive(NEXT).etag is None
    of.database.execute("INSERT INTO t VALUES (99, '2024-03-02 09:00+00', 'late')")
    purged = purge_day(of.site, DAY, of.records[DAY], dry_run=False, recorded=of.records.get)
    assert (purged.outcome, purged.left) == ("waiting", 5)
    assert purged.reason == "2024-03-02, which lies in the same partition, is not archived yet"


def test_an_earlier_day_of_the_partition_is_waited_for(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    with psycopg.connect(of.database.dsn) as other:
        assert lock_day(other, of.dataset, DAY)
        soon = threading.Timer(0.5, other.commit)
        soon.start()
        assert of.purge(NEXT).how == "dropped"
        soon.join()


def test_a_later_day_of_the_partition_is_not_waited_for(pipeline: Pipeline):
    """Or two purges would wait for one another."""
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    site = replace(of.site, postgres=replace(of.postgres, lock_timeout_seconds=60))
    with psycopg.connect(of.database.dsn) as other:
        assert lock_day(other, of.dataset, NEXT)
        started = time.monotonic()
        assert purge_day(site, DAY, of.records[DAY], dry_run=False).outcome == "waiting"
    assert time.monotonic() - started < 30


def test_a_partition_whose_last_day_is_the_youngest_aged_one_is_dropped(pipeline: Pipeline):
    assert of_table(pipeline, DAILY, retention=aged_up_to(DAY)).run().how == "dropped"


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

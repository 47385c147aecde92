"""Partitions that are dropped while others work: which locks are asked for and for how long, what comes meanwhile."""

import threading
import time
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from event_archive.errors import RefusedError
from event_archive.operations import deleting, dropping, purge
from event_archive.operations.purge import purge_day
from event_archive_tests.fixtures.partitions import DAILY, TABLE, at_once, of_table, partitions, waiting_writer
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

"""Partitions that are dropped while others work: which locks are asked for and for how long, what comes meanwhile."""

import threading
import time
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from event_archive.errors import RefusedError
from event_archive.operations import deleting, dropping, purge
from event_archive.operations.purge import purge_day
from event_archive.table.holds import hold
from event_archive.table.locks import lock_day
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.integration.test_partitions import (
    DAILY,
    DAYS_OF_WEEK,
    NEXT,
    WEEKLY,
    aged_up_to,
    at_once,
    of_table,
    partitions,
)

pytestmark = pytest.mark.slow


def test_no_lock_is_waited_for_as_long_as_postgresql_waits_before_it_looks_for_a_deadlock_twice(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """The writers' lock for twice that time, the readers' for half of it, whatever the lock timeout is."""
    asked, original = [], dropping._lock

    def noted(connection: Any, names: Any, mode: str) -> None:
        asked.append((mode, connection.execute("SHOW lock_timeout").fetchone()[0]))
        original(connection, names, mode)

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
    assert str(purged.reason) == "public.d1 is being written to"


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
    at_once(monkeypatch, "_drop", lambda: of.database.execute(comes.format(of.database.name)))
    purged = of.purge()
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 5, {"d1", "d2"})
    assert words in str(purged.reason)


def test_a_rule_that_comes_after_the_rows_were_compared_is_refused(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(pipeline, DAILY)
    of.archive()
    rule = "CREATE RULE kept AS ON DELETE TO t DO INSTEAD NOTHING"
    at_once(monkeypatch, "_drop", lambda: of.database.execute(rule))
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
def test_another_day_whose_file_is_no_proof_keeps_the_partition(pipeline: Pipeline, how: str):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    file = of.lake.stat(of.dataset.path(NEXT))
    assert file is not None
    damaged = how == "its file is damaged"
    content = of.content(NEXT)
    of.put(content.replace(b"n", b"N") if damaged else content, metadata=dict(file.metadata), day=NEXT)
    recorded = None if damaged else of.records.get
    purged = purge_day(of.site, DAY, of.records[DAY], dry_run=False, recorded=recorded)
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 5, {"w"})
    assert of.dataset.path(NEXT) in str(purged.reason)
    assert of.count() == 5


def test_the_file_of_another_day_that_changes_before_it_is_read_keeps_the_partition(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of = of_table(pipeline, WEEKLY)
    for day in DAYS_OF_WEEK:
        of.archive(day)
    at_once(monkeypatch, "_prove_other", lambda: of.put(b"id\n", day=NEXT))
    purged = of.purge()
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 5, {"w"})


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

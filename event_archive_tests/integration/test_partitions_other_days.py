"""Partitions that hold rows of several days: whose file is no proof, which day is waited for."""

import threading
import time
from dataclasses import replace

import psycopg
import pytest

from event_archive.operations import dropping
from event_archive.operations.purge import purge_day
from event_archive.table.locks import lock_day
from event_archive_tests.fixtures.partitions import (
    DAILY,
    DAYS_OF_WEEK,
    NEXT,
    WEEKLY,
    aged_up_to,
    at_once,
    of_table,
    partitions,
)
from event_archive_tests.fixtures.pipeline import DAY, Pipeline

pytestmark = pytest.mark.slow


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

"""Who loads a file: claims, leases, locks, several workers, clocks that differ.

The numbers in the comments are those of the hardest cases of an ingestion of log files.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import RefusedError
from event_archive.sources.log_files import decoding
from event_archive.sources.log_files.ingest import _Work
from event_archive.sources.log_files.ledger import _SOON, Ledger
from event_archive.sources.log_files.loading import Loader, PassedOnError
from event_archive.sources.log_files.places import open_store
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson


@contextmanager
def worker(logs: Logs) -> Iterator[tuple[Ledger, Loader]]:
    """What a process works with."""
    run = logs.ingestion()
    with run.settings.postgres.session() as session:
        work = _Work(run, session, open_store(run.settings), 0)
        yield work.ledger, work._loader()


# 5: the old worker wakes
def test_a_worker_that_wakes_after_its_lease_ran_out_changes_nothing(logs: Logs):
    logs.write("a.log", ndjson(*map(entry, range(10))))
    logs.run(limit=0)
    with worker(logs) as (ledger, loader):
        claim = ledger.claim()
        assert claim is not None
        logs.wait_no_more()
        assert logs.run().files == 1
        before = logs.files("status, version, attempts, rows, updated_at")
        with pytest.raises(PassedOnError):
            loader.load(claim)
        ledger.fail(claim, "nothing")
        ledger.release(claim)
        assert logs.files("status, version, attempts, rows, updated_at") == before
    assert len(logs.rows()) == 10


def test_a_file_that_is_being_loaded_is_passed_over_without_waiting(logs: Logs):
    logs.write("a.log", ndjson(entry(1)))
    logs.write("b.log", ndjson(entry(2)))
    logs.run(limit=0)
    with worker(logs) as (ledger, loader), loader.session.transaction("a test") as connection:
        # As in the midst of the load; the lease has run out long since.
        logs.database.execute(
            "UPDATE processed_files SET status = 'PROCESSING', lease = now() - interval '1 hour' "
            "WHERE key LIKE '%/a.log'"
        )
        connection.execute("SELECT FROM public.processed_files WHERE key LIKE '%/a.log' FOR UPDATE")
        assert logs.run().files == 1
        assert logs.rows() == ["request 2"]
    assert logs.run().files == 1
    assert ledger.most_attempts == 5


def test_a_change_of_a_file_that_is_being_loaded_is_seen_by_the_next_listing(logs: Logs):
    logs.write("a.log", ndjson(entry(1)))
    logs.run()
    with worker(logs) as (_, loader), loader.session.transaction("a test") as connection:
        connection.execute("SELECT FROM public.processed_files FOR UPDATE")
        logs.write("a.log", ndjson(entry(1), entry(2)))
        assert logs.run().files == 0
    [(due,)] = logs.database.execute("SELECT full_pass_at IS NULL FROM log_listing")
    assert due
    assert logs.run().files == 1


def test_a_file_that_ended_each_of_its_processes_is_failed(logs: Logs):
    logs.write("a.log", ndjson(entry(1)))
    logs.run(limit=0)
    with worker(logs) as (ledger, _):
        for _ in range(ledger.most_attempts):
            assert ledger.claim() is not None
            logs.wait_no_more()
        assert ledger.claim() is None
    totals = logs.run()
    assert (totals.files, totals.failed) == (0, 1)
    assert "broke off" in str(totals.failures[0])
    assert logs.files("status") == [("FAILED",)]
    assert "broke off" in logs.errors()[0]
    assert logs.run().failures == []


# 13: several workers, and one that dies
def test_several_workers_load_each_file_once(each_logs: Logs):
    for number in range(40):
        each_logs.write(f"{number}.log", ndjson(*(entry(n, file=number) for n in range(50))))
    loaded: list[int] = []
    workers = [threading.Thread(target=lambda: loaded.append(each_logs.run().files)) for _ in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert sum(loaded) == 40
    assert len(each_logs.rows()) == 2000
    assert {attempts for (attempts,) in each_logs.files("attempts")} == {1}


def test_a_worker_that_looks_at_a_claim_does_not_take_it_away(logs: Logs):
    logs.write("a.log", ndjson(entry(1)))
    logs.run(limit=0)
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with worker(logs) as (ledger, loader), worker(logs) as (other, _):
        claim = ledger.claim()
        assert claim is not None
        loading = threading.Thread(target=lambda: loader.load(claim))
        with other.session.transaction("a look") as connection:
            assert connection.execute(other._sql(_SOON), other._values()).fetchone()
            loading.start()
            while loading.is_alive() and not logs.database.execute(waiting):
                pass
        loading.join()
    assert logs.files("status, attempts, rows") == [("COMPLETED", 1, 1)]


# 17: the clock of the storage
@pytest.mark.parametrize("shift", [-(10**8), 10**8], ids=["behind", "ahead"])
def test_a_clock_of_the_store_that_is_wrong_changes_nothing(logs: Logs, shift: int):
    for name in ("a.log", "b.log"):
        path = logs.write(name, ndjson(entry(1)))
        os.utime(path, (path.stat().st_mtime + shift,) * 2)
        assert logs.run().files == 1
    path = logs.write("a.log", ndjson(entry(1), entry(2)))
    os.utime(path, (path.stat().st_mtime + shift * 2,) * 2)
    assert logs.run().files == 1
    assert len(logs.rows()) == 3


def test_a_database_that_goes_away_in_the_midst_is_waited_for(logs: Logs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "_BLOCK_BYTES", 1024)
    logs.write("a.log", ndjson(*map(entry, range(200))))
    asked = 0

    def kill() -> bool:
        nonlocal asked
        asked += 1
        if asked == 4:
            with psycopg.connect(logs.database.dsn, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        return False

    assert logs.run(told_to_stop=kill).counts.new == 200
    assert logs.files() == [("COMPLETED", 200, 0)]


def test_a_database_that_refuses_ends_the_run_before_each_file_has_failed_for_it(logs: Logs):
    logs.run()
    logs.database.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON processed_files DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (new.status = 'COMPLETED') EXECUTE FUNCTION refuse()
        """
    )
    for number in range(5):
        logs.write(f"{number}.log", ndjson(entry(number)))
    with pytest.raises(RefusedError, match="a function raised an exception"):
        logs.run()
    assert sorted(status for (status,) in logs.files("status")) == ["FAILED"] * 3 + ["PENDING"] * 2


# 3: the file changes while it is read
def test_a_file_that_changes_again_and_again_is_failed_and_the_rest_goes_on(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
):
    path = logs.write("a.log", ndjson(entry(1)))
    logs.write("b.gz", array(entry(2)))
    opened = Loader.load

    def load(self: Loader, claim: object, *landed: object) -> object:
        if claim.file.key == str(path):  # type: ignore[attr-defined]
            with path.open("ab") as file:
                file.write(ndjson(entry(3)))
        return opened(self, claim, *landed)  # type: ignore[arg-type]

    monkeypatch.setattr(Loader, "load", load)
    assert logs.run().files == 1
    assert logs.rows() == ["request 2"]
    assert logs.errors()[0] == "It changes while it is read."
    monkeypatch.undo()
    logs.wait_no_more()
    assert logs.run().files == 1


def test_tables_are_made_where_they_are_missing_in_the_schema_that_is_named(logs: Logs):
    logs.database.execute("CREATE SCHEMA events")
    logs.write("a.log", ndjson(entry(1)))
    logs.run(ingest_schema="events")
    assert logs.database.execute("SELECT count(*)::int FROM events.logs") == [(1,)]
    assert TableName("events", "logs") == logs.settings(ingest_schema="events").table


def test_files_wait_once_they_are_listed_until_they_are_loaded_or_failed(logs: Logs):
    assert not logs.ingestion().waits()
    logs.write("a.log", ndjson(entry(1)))
    damaged = logs.write("b.gz", array(entry(2))[:-5])
    assert logs.ingestion().waits()
    assert logs.files("status") == [("PENDING",), ("PENDING",)], "looking writes them down, and loads none"
    logs.run()
    assert not logs.ingestion().waits(), "the failed file is not due"
    logs.wait_no_more()
    assert logs.ingestion().waits()
    logs.database.execute("UPDATE processed_files SET attempts = 5 WHERE status = 'FAILED'")
    assert not logs.ingestion().waits(), "the failed file was given up"
    damaged.write_bytes(array(entry(2)))
    assert logs.ingestion().waits(), "its new version"


def test_a_file_that_still_grows_does_not_wait(logs: Logs):
    path = logs.write("a.log", ndjson(entry(1)))
    run = logs.ingestion(logs_min_age="10 minutes")
    assert not run.waits()
    os.utime(path, (1_709_290_800, 1_709_290_800))
    assert run.waits()


def test_a_listing_that_is_stopped_is_left_to_a_run(logs: Logs):
    logs.write("a.log", ndjson(entry(1)))
    logs.run()
    assert logs.ingestion().waits(told_to_stop=lambda: True)
    assert not logs.ingestion().waits()


def test_a_file_waits_while_its_process_is_gone_and_not_while_it_is_loaded(logs: Logs):
    logs.write("a.log", ndjson(entry(1)))
    logs.run(limit=0)
    with worker(logs) as (ledger, loader):
        assert ledger.claim() is not None
        assert not logs.ingestion().waits(), "it is claimed"
        logs.wait_no_more()
        assert logs.ingestion().waits()
        with loader.session.transaction("as in the midst of the load") as connection:
            connection.execute("SELECT FROM public.processed_files FOR UPDATE")
            assert not logs.ingestion().waits()
        # Somebody has to say that it is given up.
        logs.database.execute("UPDATE processed_files SET attempts = 5")
        assert logs.ingestion().waits()
    assert logs.run().files == 0
    assert logs.files("status") == [("FAILED",)]
    assert not logs.ingestion().waits()

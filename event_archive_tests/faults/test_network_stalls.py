"""A PostgreSQL that stands still, comes late, or ends a session is ridden out, or given up in time."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from event_archive.errors import BusyError, EventArchiveError, UnreachableError
from event_archive_tests.faults.cut_lines import CUTS, ROWS, ends_within, with_file
from event_archive_tests.faults.tally import survived
from event_archive_tests.faults.union import ThroughWire, assert_one_run_puts_it_right, in_table
from event_archive_tests.faults.wire import Trouble, Wire, any_message
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database


def test_a_server_that_comes_up_a_moment_later_is_waited_for(locally: ThroughWire, postgres_line: Wire):
    before = with_file(locally, late=False)
    postgres_line.shut()
    later = threading.Timer(1.5, postgres_line.open)
    later.start()
    try:
        with ends_within(8):
            assert locally.run().deleted == ROWS
    finally:
        later.join()
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL refused, then up")


def test_a_server_that_goes_between_archive_and_purge_costs_only_work(locally: ThroughWire, postgres_line: Wire):
    before = with_file(locally, late=False)
    locally.archive()
    postgres_line.shut()
    with ends_within(8), pytest.raises(UnreachableError, match="PostgreSQL cannot be reached: .*refused"):
        locally.purge()
    assert in_table(locally) == before
    postgres_line.open()
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL refused for good")


def test_a_server_that_takes_connections_but_never_answers_is_given_up(locally: ThroughWire, postgres_line: Wire):
    before = with_file(locally, late=False)
    locally.connect_timeout = 2
    for _ in range(3):
        postgres_line.expect(Trouble("server", any_message, seconds=60))
    with ends_within(14), pytest.raises(UnreachableError, match="PostgreSQL cannot be reached: .*timeout"):
        locally.archive()
    postgres_line.calm()
    postgres_line.close()
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL silent")


@pytest.mark.parametrize(
    "at",
    ["amid COPY OUT", "at the first block of COPY IN", "after the DELETE was done", "before the purge's COMMIT"],
)
def test_a_line_that_stalls_for_a_moment_is_ridden_out(locally: ThroughWire, postgres_line: Wire, at: str):
    before = with_file(locally, late=False)
    trouble = CUTS[at]()
    trouble.seconds = 1
    postgres_line.expect(trouble)
    with ends_within(8):
        assert locally.run().deleted == ROWS
    assert trouble.met.is_set()
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL's line stalled")


@pytest.mark.parametrize("at", ["before the DELETE", "after the DELETE was done", "before the purge's COMMIT"])
def test_a_purge_that_stalls_keeps_nobody_waiting(locally: ThroughWire, postgres_line: Wire, at: str):
    before = with_file(locally, late=False)
    locally.archive()
    trouble = CUTS[at]()
    trouble.seconds = 2
    trouble.nth = 1  # The archive has been: of COMMITs, too, the first is the purge's.
    postgres_line.expect(trouble)
    other = Pipeline(locally.database, locally.lake, records=locally.records)
    with ThreadPoolExecutor(1) as pool:
        stalled = pool.submit(locally.purge)
        assert trouble.met.wait(10)
        with ends_within(1.5):
            assert other.purge().outcome == "locked"
        assert stalled.result().deleted == ROWS
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL's line stalled")


def backends(database: Database) -> list[int]:
    return [
        int(str(pid))
        for (pid,) in database.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'event_archive'"
        )
    ]


@pytest.mark.parametrize(
    ("end", "expected"), [("pg_terminate_backend", UnreachableError), ("pg_cancel_backend", BusyError)]
)
@pytest.mark.parametrize("at", ["amid COPY OUT", "at the first block of COPY IN"])
def test_a_session_that_somebody_ends_is_said(
    locally: ThroughWire, postgres_line: Wire, at: str, end: str, expected: type[EventArchiveError]
):
    """While the line stalls, so that the statement is on its way."""
    locally.add(6_000 if at == "amid COPY OUT" else ROWS)
    before = in_table(locally)
    trouble = CUTS[at]()
    trouble.seconds = 1
    postgres_line.expect(trouble)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(locally.run)
        assert trouble.met.wait(10)
        (pid,) = backends(locally.database)
        locally.database.execute(f"SELECT {end}({pid})")
        with pytest.raises(expected, match="Nothing was deleted"):
            run.result()
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL's session ended or cancelled")


def test_a_backend_that_stands_still_for_a_moment_is_ridden_out(locally: ThroughWire, postgres_line: Wire):
    """SIGSTOP, as a machine that swaps or is moved looks from outside."""
    before = with_file(locally, late=False)
    locally.archive()
    trouble = CUTS["before the DELETE"]()
    trouble.seconds = 0.3
    postgres_line.expect(trouble)
    with ThreadPoolExecutor(1) as pool:
        purge = pool.submit(locally.purge)
        assert trouble.met.wait(10)
        (pid,) = backends(locally.database)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(1)
            assert not purge.done()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert purge.result().deleted == ROWS
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL's backend stood still")


def test_a_statement_that_takes_longer_than_it_may_is_said(locally: ThroughWire):
    with (
        ends_within(3),
        pytest.raises(BusyError, match="took longer than it may"),
        locally.postgres.transaction("the day", statement_timeout_seconds=0.3) as connection,
    ):
        connection.execute("SELECT pg_sleep(10)")
    survived("faults: PostgreSQL's timeouts")


@pytest.mark.parametrize("verb", ["archive", "purge"])
def test_a_lock_on_the_table_is_not_waited_for_for_ever(locally: ThroughWire, verb: str):
    before = with_file(locally, late=False)
    locally.archive()
    with psycopg.connect(locally.database.dsn) as other:
        other.execute('LOCK TABLE "Event" IN ACCESS EXCLUSIVE MODE')
        with ends_within(5), pytest.raises(BusyError, match="Somebody holds a lock on the table"):
            locally.archive() if verb == "archive" else locally.purge()
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL's timeouts")

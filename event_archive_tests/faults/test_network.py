"""The line to PostgreSQL and to the Blob service breaks, stalls and lies: nothing is lost or doubled."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import get_args

import psycopg
import pytest

from event_archive.errors import BusyError, EventArchiveError, FileChangedError, IntegrityError, UnreachableError
from event_archive.lake.azure.container import AzureLake
from event_archive.lake.protocol import Lake
from event_archive.nightly import day
from event_archive.nightly.outcome import DayOutcome
from event_archive.observability.json_lines import JsonDisplay
from event_archive.operations.archive import ArchivedDay
from event_archive.postgres.session import Postgres
from event_archive.table.rows import RowsOfDay
from event_archive_tests.azurite import Azurite
from event_archive_tests.azurite.proxy import Fault, FaultyAzurite, faulty, request
from event_archive_tests.faults.tally import survived
from event_archive_tests.faults.union import (
    Row,
    ThroughWire,
    assert_nothing_lost,
    assert_one_run_puts_it_right,
    in_file,
    in_table,
)
from event_archive_tests.faults.wire import (
    Sender,
    Trouble,
    Wire,
    any_message,
    commit,
    copy_data,
    done,
    progress,
    statement,
    wire,
)
from event_archive_tests.fixtures.lakes import SMALL_BLOCK_BYTES
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database, Server

EVERY = 3
ROWS = 700  # some 140 kB: three of the small blocks, one message a row


@pytest.fixture
def line(server_18: Server) -> Iterator[Wire]:
    """The proxy before PostgreSQL."""
    with wire(server_18) as proxy:
        yield proxy


@pytest.fixture
def through(database: Database, lake: Lake, line: Wire) -> ThroughWire:
    """The pipeline through the proxy, on each kind of lake."""
    return ThroughWire(database, lake, wire=line)


@pytest.fixture
def locally(database: Database, local_lake: Lake, line: Wire) -> ThroughWire:
    """The pipeline through the proxy, where the kind of lake does not matter."""
    return ThroughWire(database, local_lake, wire=line)


def with_file(pipeline: Pipeline, *, late: bool) -> list[Row]:
    """A day of rows; with ``late``, most of them archived and purged already."""
    if late:
        pipeline.add(ROWS)
        before = in_table(pipeline)
        Pipeline(pipeline.database, pipeline.lake).run()
        pipeline.add(50, prefix="late")
        return before + in_table(pipeline)
    pipeline.add(ROWS)
    return in_table(pipeline)


@contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


# The line to PostgreSQL

CUTS = {
    "before COPY OUT": partial(Trouble, "client", statement("TO STDOUT")),
    "at the first row of COPY OUT": partial(Trouble, "server", copy_data),
    "amid COPY OUT": partial(Trouble, "server", copy_data, nth=40),
    "amid a row of COPY OUT": partial(Trouble, "server", copy_data, nth=30, sent=17),
    "amid COPY OUT, by a reset": partial(Trouble, "server", copy_data, nth=30, reset=True),
    "at the end of COPY OUT": partial(Trouble, "server", lambda kind, _: kind == b"c"),
    "before COPY OUT is done": partial(Trouble, "server", done("COPY")),
    "before COPY IN": partial(Trouble, "client", statement("FROM STDIN")),
    "at the first block of COPY IN": partial(Trouble, "client", copy_data),
    "amid a block of COPY IN": partial(Trouble, "client", copy_data, sent=5000),
    "amid COPY IN, by a reset": partial(Trouble, "client", copy_data, sent=5000, reset=True),
    "before the end of COPY IN": partial(Trouble, "client", lambda kind, _: kind == b"c"),
    "after the end of COPY IN": partial(Trouble, "client", lambda kind, _: kind == b"c", sent=-1),
    "before the DELETE": partial(Trouble, "client", statement("DELETE FROM")),
    "amid the DELETE's text": partial(Trouble, "client", statement("DELETE FROM"), sent=20),
    "after the DELETE was sent": partial(Trouble, "client", statement("DELETE FROM"), sent=-1),
    "after the DELETE was done": partial(Trouble, "server", done("DELETE")),
    "before the purge's COMMIT": partial(Trouble, "client", commit, nth=2),
}


@pytest.mark.parametrize("late", [False, True], ids=["first file", "append"])
@pytest.mark.parametrize("where", CUTS)
def test_a_cut_line_costs_only_work(through: ThroughWire, line: Wire, where: str, late: bool):
    before = with_file(through, late=late)
    trouble = line.expect(CUTS[where]())
    with pytest.raises(UnreachableError) as error:
        through.run()
    assert "Nothing was deleted that is not archived; the next run goes on." in str(error.value)
    # Why it is lost is said, not only that it is.
    assert "the connection is lost" not in str(error.value)
    assert trouble.met.is_set()
    assert_one_run_puts_it_right(through, before)
    survived("faults: PostgreSQL's line cut")


@pytest.mark.parametrize("late", [False, True], ids=["first file", "append"])
def test_a_line_that_is_cut_before_the_archives_commit_costs_nothing(through: ThroughWire, line: Wire, late: bool):
    """The file is committed by then, and in the database there is nothing to commit."""
    before = with_file(through, late=late)
    trouble = line.expect(Trouble("client", commit))
    assert through.run().left == 0
    assert trouble.met.is_set()
    assert in_table(through) == []
    assert sorted(in_file(through), key=lambda row: int(row[0])) == before
    survived("faults: PostgreSQL's line cut")


@pytest.mark.parametrize("cut", ["its answer is lost", "it is the last that gets through"])
@pytest.mark.parametrize("verb", ["archive", "purge"])
def test_a_commit_without_an_answer_is_an_error_that_promises_nothing_false(
    through: ThroughWire, line: Wire, verb: str, cut: str
):
    """The ambiguous commit: the rows may be gone, and then they are in the file. The file is whole before its own."""
    through.add(ROWS)
    before = in_table(through)
    if verb == "purge":
        through.archive()
    trouble = line.expect(
        Trouble("server", done("COMMIT")) if cut == "its answer is lost" else Trouble("client", commit, sent=-1)
    )
    if verb == "archive":
        assert through.archive().rows_appended == ROWS
    else:
        with pytest.raises(UnreachableError, match=r"Nothing was deleted that is not archived; the next run goes on\."):
            through.purge()
    assert trouble.met.is_set()
    if verb == "purge" and cut == "its answer is lost":
        assert in_table(through) == []
    assert_one_run_puts_it_right(through, before)
    survived("faults: PostgreSQL's commit without an answer")


@pytest.mark.parametrize("lasts_seconds", [1, 4], ids=["for a moment", "for longer than is waited"])
def test_a_day_that_only_the_lost_session_holds_is_not_told_as_locked(
    locally: ThroughWire, line: Wire, monkeypatch: pytest.MonkeyPatch, lasts_seconds: int
):
    """The server goes on with a DELETE whose client is gone, and keeps the day's lock until it is done."""
    locally.add(3)
    before = in_table(locally)
    locally.database.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN PERFORM pg_sleep({lasts_seconds / 2}); RETURN OLD; END $$;"
        "CREATE TRIGGER slow BEFORE DELETE ON \"Event\" FOR EACH ROW WHEN (old.event_id NOT LIKE '%0') "
        "EXECUTE FUNCTION slow();"
    )
    monkeypatch.setattr(day, "_RETRY_AFTER_SECONDS", (0,))
    trouble = line.expect(Trouble("client", statement("DELETE"), sent=-1))
    done = DayOutcome(DAY)
    day.run_day(day.Night(locally.site, JsonDisplay()), done)
    assert trouble.met.is_set()
    if lasts_seconds == 1:
        assert (done.outcome, done.deleted, done.left) == ("purged", 3, 0), done
    else:
        assert done.outcome == "failed"
        assert "PostgreSQL still goes on with a session of this run whose connection broke" in str(done.error)
        assert in_table(locally) == before
    assert in_file(locally) == before


def test_what_a_commit_without_an_answer_did_is_counted(
    locally: ThroughWire, line: Wire, monkeypatch: pytest.MonkeyPatch
):
    """The day is tried again, and has no rows any more: this run deleted them all the same."""
    locally.add(3)
    monkeypatch.setattr(day, "_RETRY_AFTER_SECONDS", (0, 0))

    class LosingTheCommits(day.NoReports):
        def counted(self, day: date, rows: RowsOfDay) -> None:
            line.expect(Trouble("server", done("COMMIT")))

        def archived(self, archived: ArchivedDay, lake: Lake) -> None:
            line.expect(Trouble("server", done("COMMIT")))

    ended, later = DayOutcome(DAY), DayOutcome(DAY)
    day.run_day(day.Night(locally.site, JsonDisplay(), reports=LosingTheCommits()), ended)
    assert in_table(locally) == []
    assert (ended.outcome, ended.rows_appended, ended.proven, ended.deleted, ended.left) == ("purged", 3, 3, 3, 0)
    assert ended.how == "deleted"
    # Another night of the same process has a day of its own.
    locally.add(1, prefix="late")
    day.run_day(day.Night(locally.site, JsonDisplay()), later)
    assert later.deleted == 1


@pytest.mark.parametrize("sender", get_args(Sender))
@pytest.mark.parametrize("late", [False, True], ids=["first file", "append"])
def test_the_line_may_be_cut_at_any_message(locally: ThroughWire, line: Wire, late: bool, sender: Sender):
    """Every third in turn, some torn apart, from one of the first three on: so every one in the course of a few runs.

    The same day again and again, each time with rows of its own.
    """
    met = True
    nth = random.randint(1, 3) - EVERY
    before: list[Row] = []
    if late:
        locally.add(3, prefix="first")
        before = in_table(locally)
        Pipeline(locally.database, locally.lake).run()
    while met:
        nth += EVERY
        assert nth < 1000
        if not late:
            before = []
            (locally.lake._root / locally.dataset.path(DAY)).unlink(missing_ok=True)  # type: ignore[attr-defined]
        locally.add(2, prefix=f"{nth}")
        before = before + in_table(locally)
        trouble = line.expect(
            Trouble(
                sender, progress if sender == "server" else any_message, nth=nth, sent=nth % 4 * 3, reset=nth % 2 == 0
            )
        )
        # Where the line was cut before the server let us in, the run connects again and ends well.
        with suppress(UnreachableError):
            locally.run()
        met = trouble.met.is_set()
        line.calm()
        assert_one_run_puts_it_right(locally, before)
        if met:
            survived("faults: PostgreSQL's line cut")
    assert nth > 30


def test_a_server_that_comes_up_a_moment_later_is_waited_for(locally: ThroughWire, line: Wire):
    before = with_file(locally, late=False)
    line.shut()
    later = threading.Timer(1.5, line.open)
    later.start()
    try:
        with ends_within(8):
            assert locally.run().deleted == ROWS
    finally:
        later.join()
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL refused, then up")


def test_a_server_that_goes_between_archive_and_purge_costs_only_work(locally: ThroughWire, line: Wire):
    before = with_file(locally, late=False)
    locally.archive()
    line.shut()
    with ends_within(8), pytest.raises(UnreachableError, match="PostgreSQL cannot be reached: .*refused"):
        locally.purge()
    assert in_table(locally) == before
    line.open()
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL refused for good")


def test_a_server_that_takes_connections_but_never_answers_is_given_up(locally: ThroughWire, line: Wire):
    before = with_file(locally, late=False)
    locally.connect_timeout = 2
    for _ in range(3):
        line.expect(Trouble("server", any_message, seconds=60))
    with ends_within(14), pytest.raises(UnreachableError, match="PostgreSQL cannot be reached: .*timeout"):
        locally.archive()
    line.calm()
    line.close()
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL silent")


@pytest.mark.parametrize(
    "at",
    ["amid COPY OUT", "at the first block of COPY IN", "after the DELETE was done", "before the purge's COMMIT"],
)
def test_a_line_that_stalls_for_a_moment_is_ridden_out(locally: ThroughWire, line: Wire, at: str):
    before = with_file(locally, late=False)
    trouble = CUTS[at]()
    trouble.seconds = 1
    line.expect(trouble)
    with ends_within(8):
        assert locally.run().deleted == ROWS
    assert trouble.met.is_set()
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL's line stalled")


@pytest.mark.parametrize("at", ["before the DELETE", "after the DELETE was done", "before the purge's COMMIT"])
def test_a_purge_that_stalls_keeps_nobody_waiting(locally: ThroughWire, line: Wire, at: str):
    before = with_file(locally, late=False)
    locally.archive()
    trouble = CUTS[at]()
    trouble.seconds = 2
    trouble.nth = 1  # The archive has been: of COMMITs, too, the first is the purge's.
    line.expect(trouble)
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
    locally: ThroughWire, line: Wire, at: str, end: str, expected: type[EventArchiveError]
):
    """While the line stalls, so that the statement is on its way."""
    locally.add(6_000 if at == "amid COPY OUT" else ROWS)
    before = in_table(locally)
    trouble = CUTS[at]()
    trouble.seconds = 1
    line.expect(trouble)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(locally.run)
        assert trouble.met.wait(10)
        (pid,) = backends(locally.database)
        locally.database.execute(f"SELECT {end}({pid})")
        with pytest.raises(expected, match="Nothing was deleted"):
            run.result()
    assert_one_run_puts_it_right(locally, before)
    survived("faults: PostgreSQL's session ended or cancelled")


def test_a_backend_that_stands_still_for_a_moment_is_ridden_out(locally: ThroughWire, line: Wire):
    """SIGSTOP, as a machine that swaps or is moved looks from outside."""
    before = with_file(locally, late=False)
    locally.archive()
    trouble = CUTS["before the DELETE"]()
    trouble.seconds = 0.3
    line.expect(trouble)
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


# The line to the Blob service


@pytest.fixture
def service(azurite: Azurite) -> Iterator[FaultyAzurite]:
    """Azurite, misbehaving on demand."""
    with faulty(azurite) as proxy:
        yield proxy


@contextmanager
def pipeline_at(
    service: FaultyAzurite, database: Database, container: str, *, retry_seconds: float = 10
) -> Iterator[Pipeline]:
    with AzureLake.from_connection_string(
        service.service.connection_string, container, block_bytes=SMALL_BLOCK_BYTES, retry_seconds=retry_seconds
    ) as lake:
        yield Pipeline(database, lake)


@pytest.fixture
def blob(service: FaultyAzurite, database: Database, container: str) -> Iterator[Pipeline]:
    """The pipeline through the proxy before Azurite."""
    with pipeline_at(service, database, container) as pipeline:
        yield pipeline


REQUESTS: dict[str, Callable[[str, str], bool]] = {
    "stat": request("HEAD"),
    "stage": lambda method, address: method == "PUT" and "comp=block&" in f"{address}&",
    "commit": request("PUT", "comp=blocklist"),
    "list of blocks": request("GET", "comp=blocklist"),
    "read": lambda method, address: method == "GET" and "comp=" not in address,
}


def retry_after(kind: str) -> dict[str, str]:
    if kind == "a date":
        return {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=1.2), usegmt=True)}
    return {"Retry-After": kind} if kind else {}


@pytest.mark.parametrize("wait", ["", "1", "a date"], ids=["no Retry-After", "Retry-After", "Retry-After, a date"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_blob_service_is_ridden_out(blob: Pipeline, service: FaultyAzurite, status: int, wait: str):
    """Each kind of request once in one run, of a day that has a file: so every kind occurs."""
    before = with_file(blob, late=True)
    service.faults.extend(Fault(matches, status, retry_after(wait)) for matches in REQUESTS.values())
    with ends_within(30):
        assert blob.run().deleted == 50
    assert service.faults == []
    assert_one_run_puts_it_right(blob, before)
    for _ in REQUESTS:
        survived(f"faults: Blob service answers {status}")


@pytest.mark.parametrize("late", [False, True], ids=["first file", "append"])
@pytest.mark.parametrize("what", ["stage", "commit", "both"])
def test_an_answer_that_is_lost_doubles_nothing(blob: Pipeline, service: FaultyAzurite, what: str, late: bool):
    before = with_file(blob, late=late)
    whats = ["stage", "commit"] if what == "both" else [what]
    service.faults.extend(Fault(REQUESTS[name], sent_fraction=0) for name in whats)
    with ends_within(20):
        assert blob.run().left == 0
    assert service.faults == []
    assert_one_run_puts_it_right(blob, before)
    survived("faults: Blob service's answer lost")


@pytest.mark.parametrize("fraction", [0, 0.4, 0.99])
@pytest.mark.parametrize("late", [False, True], ids=["purge", "append"])
def test_a_download_cut_short_is_taken_up_again(blob: Pipeline, service: FaultyAzurite, late: bool, fraction: float):
    before = with_file(blob, late=late)
    service.faults.extend(Fault(REQUESTS["read"], sent_fraction=fraction) for _ in range(2))
    with ends_within(20):
        assert blob.run().left == 0
    assert service.faults == []
    assert_one_run_puts_it_right(blob, before)
    survived("faults: Blob service's download cut short")


def test_a_download_that_is_always_cut_short_deletes_nothing(
    service: FaultyAzurite, database: Database, container: str
):
    with pipeline_at(service, database, container, retry_seconds=2) as pipeline:
        before = with_file(pipeline, late=False)
        pipeline.archive()
        service.faults.append(Fault(REQUESTS["read"], sent_fraction=0.5, again=True))
        with ends_within(10), pytest.raises(UnreachableError):
            pipeline.purge()
        assert in_table(pipeline) == before
        service.faults.clear()
        assert_one_run_puts_it_right(pipeline, before)
    survived("faults: Blob service's download cut short")


@pytest.mark.parametrize("what", REQUESTS)
def test_a_blob_service_that_stalls_is_asked_again(
    blob: Pipeline, service: FaultyAzurite, what: str, monkeypatch: pytest.MonkeyPatch
):
    """The stalled request still arrives, later than the one that took its place."""
    monkeypatch.setattr("event_archive.lake.azure.retry.READ_TIMEOUT_SECONDS", 0.7)
    before = with_file(blob, late=True)
    service.faults.append(Fault(REQUESTS[what], delay_seconds=2))
    with ends_within(20):
        assert blob.run().deleted == 50
    assert service.faults == []
    time.sleep(1)
    assert_one_run_puts_it_right(blob, before)
    survived("faults: Blob service stalled")


def test_a_slow_blob_service_is_only_slow(blob: Pipeline, service: FaultyAzurite):
    before = with_file(blob, late=True)
    service.faults.append(Fault(lambda _method, _address: True, delay_seconds=0.1, again=True))
    with ends_within(20):
        assert blob.run().deleted == 50
    service.faults.clear()
    assert_one_run_puts_it_right(blob, before)
    survived("faults: Blob service slow")


@pytest.mark.parametrize("late", [False, True], ids=["first file", "append"])
def test_a_commit_that_arrives_after_its_run_gave_up_doubles_nothing(
    service: FaultyAzurite, database: Database, container: str, late: bool
):
    """Another run has archived the day by then: the late one finds another ETag, and changes nothing."""
    with pipeline_at(service, database, container, retry_seconds=1) as pipeline:
        before = with_file(pipeline, late=late)
        service.faults.extend(Fault(REQUESTS["commit"], delay_seconds=3) for _ in range(3))
        with ends_within(10), pytest.raises(UnreachableError, match="may or may not have been committed"):
            pipeline.archive()
        service.faults.clear()
        assert_nothing_lost(pipeline, before)
        assert_one_run_puts_it_right(pipeline, before)
        content = in_file(pipeline)
        time.sleep(3)
        assert in_file(pipeline) == content
        assert_one_run_puts_it_right(pipeline, before)
    survived("faults: Blob service commits late")


@pytest.mark.parametrize("late", [False, True], ids=["first file", "append"])
def test_a_commit_that_arrives_amid_the_next_run_doubles_nothing(
    service: FaultyAzurite, database: Database, container: str, late: bool
):
    """Between the next run's stat and its commit: that run has lost a race, and starts again."""
    with pipeline_at(service, database, container, retry_seconds=1) as pipeline:
        before = with_file(pipeline, late=late)
        service.faults.extend(Fault(REQUESTS["commit"], delay_seconds=4) for _ in range(3))
        with pytest.raises(UnreachableError):
            pipeline.archive()
        service.faults.clear()
        with pipeline_at(service, database, container, retry_seconds=10) as patient:
            service.faults.append(Fault(REQUESTS["commit"], delay_seconds=5))
            assert patient.run().left == 0
            assert in_table(patient) == []
            assert_one_run_puts_it_right(patient, before)
    survived("faults: Blob service commits late")


def test_a_commit_that_arrives_after_its_row_went_back_and_was_purged_changes_nothing(
    service: FaultyAzurite, database: Database, container: str
):
    """The file holds the row as it was purged: the next run has nothing to append, by which the late one would lose."""
    late_seconds = 10  # The next run has done its part by then, on a slow machine, too.
    with pipeline_at(service, database, container, retry_seconds=1) as pipeline:
        pipeline.add(3)
        pipeline.archive()
        database.execute("""UPDATE "Event" SET event_type = 'between' WHERE id = 1""")
        service.faults.extend(Fault(REQUESTS["commit"], delay_seconds=late_seconds) for _ in range(3))
        with pytest.raises(UnreachableError, match="may or may not have been committed"):
            pipeline.archive()
        service.faults.clear()
        database.execute("""UPDATE "Event" SET event_type = 'order.created' WHERE id = 1""")
        with pytest.raises(IntegrityError, match="got no answer, and may still come"):
            pipeline.purge()
        assert pipeline.run().deleted == 3
        content = in_file(pipeline)
        time.sleep(late_seconds)
        assert in_file(pipeline) == content
        assert "between" not in pipeline.values("event_type")
    survived("faults: Blob service commits late")


GONE = {
    "refuses": Fault(lambda _method, _address: True, 503, again=True),
    "hangs up": Fault(lambda _method, _address: True, sent_fraction=0, again=True),
    "is silent": Fault(lambda _method, _address: True, delay_seconds=60, again=True),
}


@pytest.mark.parametrize("how", GONE)
@pytest.mark.parametrize("what", [*REQUESTS, "the second stat"])
def test_a_blob_service_that_is_gone_for_good_is_given_up_in_time(
    service: FaultyAzurite, database: Database, container: str, what: str, how: str
):
    """From one request of the run on; the second stat is the purge's, that of the file which it is about to read."""
    retry_seconds = 1
    with pipeline_at(service, database, container, retry_seconds=retry_seconds) as pipeline:
        before = with_file(pipeline, late=True)
        if what == "the second stat":
            pipeline.archive()
        matches = REQUESTS.get(what, REQUESTS["stat"])
        gone = threading.Event()

        def from_then_on(method: str, address: str) -> bool:
            if matches(method, address):
                gone.set()
            return gone.is_set()

        fault = GONE[how]
        service.faults.append(
            Fault(
                from_then_on,
                fault.status,
                delay_seconds=fault.delay_seconds,
                sent_fraction=fault.sent_fraction,
                again=True,
            )
        )
        # A failed commit is followed by a question whether it was ours.
        with ends_within(2 * (retry_seconds + 2) + 2), pytest.raises((UnreachableError, FileChangedError)):
            pipeline.purge() if what == "the second stat" else pipeline.run()
        assert gone.is_set()
        service.faults.clear()
        assert_one_run_puts_it_right(pipeline, before)
    survived("faults: Blob service gone for good")


def test_a_blob_service_that_is_gone_after_the_delete_rolls_it_back(
    service: FaultyAzurite, database: Database, container: str
):
    """The last question before the commit, whether the file still stands, gets no answer: then nothing is deleted."""
    with pipeline_at(service, database, container, retry_seconds=1) as pipeline:
        before = with_file(pipeline, late=False)
        pipeline.archive()
        stats = iter([False, True])
        service.faults.append(
            Fault(lambda method, _address: method == "HEAD" and next(stats, True), sent_fraction=0, again=True)
        )
        with ends_within(6), pytest.raises(UnreachableError):
            pipeline.purge()
        assert in_table(pipeline) == before
        service.faults.clear()
        assert_one_run_puts_it_right(pipeline, before)
    survived("faults: Blob service gone for good")


def test_the_wait_of_a_connection_is_one_that_can_be_configured():
    """So that nobody has to wait for the defaults: what the connection string says is kept."""
    started = time.monotonic()
    with pytest.raises(UnreachableError), Postgres("host=127.0.0.1 port=1 connect_timeout=1").transaction("x"):
        pass
    assert time.monotonic() - started < 6

"""The line to PostgreSQL breaks, stalls and lies: nothing is lost or doubled."""

import random
import time
from contextlib import suppress
from datetime import date
from typing import get_args

import pytest

from event_archive.errors import UnreachableError
from event_archive.lake.protocol import Lake
from event_archive.nightly import day
from event_archive.nightly.outcome import DayOutcome
from event_archive.observability.json_lines import JsonDisplay
from event_archive.operations.archive import ArchivedDay
from event_archive.postgres.session import Postgres
from event_archive.table.rows import RowsOfDay
from event_archive_tests.faults.cut_lines import CUTS, ROWS, with_file
from event_archive_tests.faults.tally import survived
from event_archive_tests.faults.union import Row, ThroughWire, assert_one_run_puts_it_right, in_file, in_table
from event_archive_tests.faults.wire import Sender, Trouble, Wire, any_message, commit, done, progress, statement
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database

EVERY = 3


@pytest.fixture
def through(database: Database, lake: Lake, postgres_line: Wire) -> ThroughWire:
    """The pipeline through the proxy, on each kind of lake."""
    return ThroughWire(database, lake, wire=postgres_line)


@pytest.mark.parametrize("late", [False, True], ids=["first file", "append"])
@pytest.mark.parametrize("where", CUTS)
def test_a_cut_line_costs_only_work(through: ThroughWire, postgres_line: Wire, where: str, late: bool):
    before = with_file(through, late=late)
    trouble = postgres_line.expect(CUTS[where]())
    with pytest.raises(UnreachableError) as error:
        through.run()
    assert "Nothing was deleted that is not archived; the next run goes on." in str(error.value)
    # Why it is lost is said, not only that it is.
    assert "the connection is lost" not in str(error.value)
    assert trouble.met.is_set()
    assert_one_run_puts_it_right(through, before)
    survived("faults: PostgreSQL's line cut")


@pytest.mark.parametrize("late", [False, True], ids=["first file", "append"])
def test_a_line_that_is_cut_before_the_archives_commit_costs_nothing(
    through: ThroughWire, postgres_line: Wire, late: bool
):
    """The file is committed by then, and in the database there is nothing to commit."""
    before = with_file(through, late=late)
    trouble = postgres_line.expect(Trouble("client", commit))
    assert through.run().left == 0
    assert trouble.met.is_set()
    assert in_table(through) == []
    assert sorted(in_file(through), key=lambda row: int(row[0])) == before
    survived("faults: PostgreSQL's line cut")


@pytest.mark.parametrize("cut", ["its answer is lost", "it is the last that gets through"])
@pytest.mark.parametrize("verb", ["archive", "purge"])
def test_a_commit_without_an_answer_is_an_error_that_promises_nothing_false(
    through: ThroughWire, postgres_line: Wire, verb: str, cut: str
):
    """The ambiguous commit: the rows may be gone, and then they are in the file. The file is whole before its own."""
    through.add(ROWS)
    before = in_table(through)
    if verb == "purge":
        through.archive()
    trouble = postgres_line.expect(
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
    locally: ThroughWire, postgres_line: Wire, monkeypatch: pytest.MonkeyPatch, lasts_seconds: int
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
    trouble = postgres_line.expect(Trouble("client", statement("DELETE"), sent=-1))
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
    locally: ThroughWire, postgres_line: Wire, monkeypatch: pytest.MonkeyPatch
):
    """The day is tried again, and has no rows any more: this run deleted them all the same."""
    locally.add(3)
    monkeypatch.setattr(day, "_RETRY_AFTER_SECONDS", (0, 0))

    class LosingTheCommits(day.NoReports):
        def counted(self, day: date, rows: RowsOfDay) -> None:
            postgres_line.expect(Trouble("server", done("COMMIT")))

        def archived(self, archived: ArchivedDay, lake: Lake) -> None:
            postgres_line.expect(Trouble("server", done("COMMIT")))

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
def test_the_line_may_be_cut_at_any_message(locally: ThroughWire, postgres_line: Wire, late: bool, sender: Sender):
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
        trouble = postgres_line.expect(
            Trouble(
                sender, progress if sender == "server" else any_message, nth=nth, sent=nth % 4 * 3, reset=nth % 2 == 0
            )
        )
        # Where the line was cut before the server let us in, the run connects again and ends well.
        with suppress(UnreachableError):
            locally.run()
        met = trouble.met.is_set()
        postgres_line.calm()
        assert_one_run_puts_it_right(locally, before)
        if met:
            survived("faults: PostgreSQL's line cut")
    assert nth > 30


def test_the_wait_of_a_connection_is_one_that_can_be_configured():
    """So that nobody has to wait for the defaults: what the connection string says is kept."""
    started = time.monotonic()
    with pytest.raises(UnreachableError), Postgres("host=127.0.0.1 port=1 connect_timeout=1").transaction("x"):
        pass
    assert time.monotonic() - started < 6

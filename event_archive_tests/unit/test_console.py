"""The live line of a run: a percentage that grows, and the phase under way."""

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from event_archive.domain.days import ONE_DAY
from event_archive.nightly.outcome import DayOutcome, Totals
from event_archive.observability import console
from event_archive.observability.console import ConsoleDisplay
from event_archive_tests.fixtures.pipeline import DAY


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[ConsoleDisplay]:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120, markup=False, highlight=False)
    monkeypatch.setattr(console, "plain_console", lambda: terminal)
    display = ConsoleDisplay()
    with display.running({("", DAY): 999, ("", DAY + ONE_DAY): 999}):
        yield display


def percentage(display: ConsoleDisplay) -> float:
    assert display._live is not None
    return display._live.tasks[0].percentage


def phase(display: ConsoleDisplay) -> str:
    assert display._live is not None
    return display._live.tasks[0].description


def test_a_run_moves_from_phase_to_phase_and_never_back(display: ConsoleDisplay):
    seen = []
    for day in (DAY, DAY + ONE_DAY):
        display.day_begins(day, "")
        assert phase(display) == f"{day}  counting"
        display.begin("exporting")
        display.advance(500, 50_000)
        assert phase(display) == f"{day}  exporting  500 rows, 50.0 kB"
        seen.append(percentage(display))
        display.advance(499, 50_000)
        display.begin("reading back", total_bytes=100_000)
        display.advance(0, 60_000)
        assert phase(display) == f"{day}  reading back  60.0 kB of 100.0 kB"
        seen.append(percentage(display))
        display.begin("comparing and deleting")
        seen.append(percentage(display))
        display.day_ends(DayOutcome(day, outcome="purged"))
        seen.append(percentage(display))
    assert seen == sorted(seen)
    assert (seen[3], seen[-1]) == (50.0, 100.0)


def test_a_file_that_is_read_twice_is_told_as_two_phases_of_its_size(display: ConsoleDisplay):
    display.day_begins(DAY, "")
    for _ in range(2):
        display.begin("reading back", total_bytes=134_000_000)
        for _ in range(2):
            display.advance(0, 67_000_000)
        assert phase(display) == f"{DAY}  reading back  134.0 MB of 134.0 MB"


def test_a_run_that_was_stopped_says_so_in_its_total(display: ConsoleDisplay):
    totals = Totals()
    totals.add(DayOutcome(DAY, rows=5, outcome="purged"))
    display.run_ends(totals, 1.5, outcome="stopped")
    assert isinstance(display.console.file, io.StringIO)
    assert "1 day, stopped" in display.console.file.getvalue()


def test_the_heads_of_columns_stand_over_them_where_names_are_short(capsys: pytest.CaptureFixture[str]):
    display = ConsoleDisplay()
    with display.running({("det", DAY): None}):
        display.day_ends(DayOutcome(DAY, "det", outcome="dry run", proven=1))
    head, line = capsys.readouterr().out.splitlines()
    assert head.index("day") == line.index(str(DAY))
    assert line.endswith("dry run: 1 row proven, none deleted")

"""What a person at a terminal sees of a run: a line a day, and a live line of what is under way.

Not here: JSON lines (``json_lines.py``), exit codes, what is run.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from event_archive.domain.progress import Phase
from event_archive.domain.wording import counted, size
from event_archive.errors import printable
from event_archive.nightly.outcome import DayOutcome, Totals

_LINE = "{:<10}  {:>12}  {:>12}  {:>10}  {:>12}  {:>8}  {:>8}  {}"
_DATASET = "dataset"
_COLUMNS = 80
_HEADER = _LINE.format("day", "rows", "appended", "size", "deleted", "left", "seconds", "")

_PHASES: dict[Phase, tuple[float, float]] = {
    "exporting": (0.0, 0.4),
    "reading back": (0.4, 0.8),
    "comparing and deleting": (0.8, 1.0),
}
"""Which part of a day each phase is, as measured on a million rows (docs/performance.md); a late row's read-back before
its export only makes the bar wait."""


def plain_console() -> Console:
    """Standard output, for text that others wrote: as it is, to the letter."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    # In no columns at all, which a terminal's size may say, nothing would be shown.
    console.width = console.width or _COLUMNS
    return console


class ConsoleDisplay:
    """A run's ``Observer`` for people: a table, and a live line where the console is a terminal."""

    def __init__(self) -> None:
        self.console = plain_console()
        self._rows: Mapping[tuple[str, date], int] = {}
        self._width = 0
        self._live: Progress | None = None
        self._task = TaskID(0)
        self._done_rows = 0
        self._day: tuple[str, date] | None = None
        self._phase: Phase = "counting"
        self._total_bytes: int | None = None
        self._moved = (0, 0)

    @property
    def counts_beforehand(self) -> bool:
        """Whether ``running`` makes use of the number of rows."""
        return self.console.is_terminal

    @contextmanager
    def running(self, rows: Mapping[tuple[str, date], int | None]) -> Iterator[None]:
        """While the days run.

        Args:
            rows: how many rows each day of a dataset holds, None where that is not known; the percentage and the time
                left go by them.
        """
        self._rows = {day: count or 0 for day, count in rows.items()}
        self._width = max((max(len(dataset), len(_DATASET)) + 2 for dataset, _ in rows if dataset), default=0)
        self.console.print(self._of(_DATASET if self._width else "", _HEADER), style="bold")
        self._live = Progress(
            BarColumn(20), TaskProgressColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
            TextColumn("left:"), TimeRemainingColumn(), console=self.console, transient=True,
            disable=not self.console.is_terminal,
        )  # fmt: skip
        # A day without a row takes its time, too.
        total = sum(count + 1 for count in self._rows.values())
        self._task = self._live.add_task("", total=total)
        with self._live:
            yield

    def day_begins(self, day: date, dataset: str) -> None:
        """A day begins."""
        self._day = dataset, day
        self.begin("counting")

    def begin(self, phase: Phase, *, total_bytes: int | None = None) -> None:
        """A phase begins."""
        self._phase, self._total_bytes, self._moved = phase, total_bytes, (0, 0)
        self._refresh()

    def advance(self, rows: int, size_bytes: int) -> None:
        """Takes note of rows and bytes that went by."""
        self._moved = (self._moved[0] + rows, self._moved[1] + size_bytes)
        self._refresh()

    def day_ends(self, outcome: DayOutcome) -> None:
        """Shows one day that is done."""
        self._done_rows += self._rows.get((outcome.dataset, outcome.day), 0) + 1
        if self._live:
            self._live.update(self._task, completed=self._done_rows)
        if outcome.error:
            self.console.print(self._of(outcome.dataset, f"{outcome.day}  failed: {outcome.error}"), style="red")
            return
        line = _LINE.format(
            str(outcome.day), f"{outcome.rows:,}", f"{outcome.rows_appended:,}", size(outcome.bytes),
            f"{outcome.deleted:,}", f"{outcome.left:,}", f"{outcome.seconds:.1f}", _remark(outcome),
        )  # fmt: skip
        self.console.print(self._of(outcome.dataset, line).rstrip())

    def dataset_failed(self, dataset: str, error: str) -> None:
        """Shows why a dataset could not begin, or not go on."""
        self.console.print(f"{dataset}  failed: {error}", style="red")

    def run_ends(self, totals: Totals, seconds: float, *, outcome: str, remark: str = "") -> None:
        """Shows the sums."""
        if totals.days:
            failed = f", {totals.failed} failed" if totals.failed else ""
            line = _LINE.format(
                "total", f"{totals.rows:,}", f"{totals.rows_appended:,}", size(totals.bytes),
                f"{totals.deleted:,}", f"{totals.left:,}", f"{seconds:.1f}",
                counted(totals.days, "day", "days") + failed + (", stopped" if outcome == "stopped" else ""),
            )  # fmt: skip
            self.console.print(self._of("", line), style="bold")
        if remark:
            self.console.print(remark)

    def _of(self, dataset: str, line: str) -> str:
        """A line with the dataset before it, where datasets have names."""
        return f"{dataset:<{self._width}}{line}" if self._width else line

    def _refresh(self) -> None:
        if self._live is None or self._day is None:
            return
        rows, size_bytes = self._moved
        of_day = self._rows.get(self._day, 0)
        dataset, day = self._day
        description = f"{dataset + '  ' if dataset else ''}{day}  {self._phase}"
        share = 0.0
        if self._phase == "exporting":
            description += f"  {rows:,} rows, {size(size_bytes)}"
            share = rows / of_day if of_day else 0.0
        elif self._total_bytes:
            description += f"  {size(size_bytes)} of {size(self._total_bytes)}"
            share = size_bytes / self._total_bytes
        begin, end = _PHASES.get(self._phase, (0.0, 0.0))
        completed = self._done_rows + of_day * (begin + (end - begin) * min(share, 1.0))
        # A read-back before the export of late rows would else set the bar back.
        completed = max(completed, self._live.tasks[self._task].completed)
        self._live.update(self._task, description=description, completed=completed)


def _remark(outcome: DayOutcome) -> str:
    if outcome.outcome == "locked":
        return "another command is working on this day"
    if outcome.outcome == "held":
        return f"held, not purged: {printable(outcome.reason)}"
    if outcome.outcome == "kept":
        return printable(outcome.reason)
    if outcome.outcome == "waiting":
        return f"archived, waits: {printable(outcome.reason)}"
    if outcome.outcome == "dry run":
        proven = f"dry run: {counted(outcome.proven, 'row', 'rows')} proven, none deleted"
        return f"{proven}; {outcome.reason}" if outcome.reason else proven
    return outcome.outcome if outcome.outcome == "nothing to do" else ""

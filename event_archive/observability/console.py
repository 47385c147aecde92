"""What a person or a log collector sees of a run on the command line. Not here: exit codes, what is run."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from event_archive.domain.progress import Phase
from event_archive.domain.wording import counted, size
from event_archive.nightly.outcome import DayOutcome, Totals

logger = logging.getLogger(__name__)

_LINE = "{:<10}  {:>12}  {:>12}  {:>10}  {:>12}  {:>8}  {:>8}  {}"
_HEADER = _LINE.format("day", "rows", "appended", "size", "deleted", "left", "seconds", "")


def plain_console() -> Console:
    """Standard output, for text that others wrote: as it is, to the letter."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


@dataclass
class Display:
    """Shows a run as it goes: a line a day and a live line of what is under way; JSON lines elsewhere."""

    as_json: bool
    console: Console = field(default_factory=plain_console)
    _live: Progress | None = None
    _task: Any = None
    _phase: str = ""
    _moved: dict[str, list[int]] = field(default_factory=dict)

    @contextmanager
    def running(self, days: Sequence[date]) -> Iterator[None]:
        """While the days run."""
        if self.as_json:
            yield
            return
        self.console.print(_HEADER, style="bold")
        self._live = Progress(
            BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
            console=self.console, transient=True, disable=not self.console.is_terminal,
        )  # fmt: skip
        self._task = self._live.add_task("", total=len(days))
        with self._live:
            yield

    def begin(self, phase: Phase, *, total_bytes: int | None = None) -> None:
        """A phase begins."""
        self._phase = phase

    def advance(self, rows: int, size_bytes: int) -> None:
        """Takes note of rows and bytes that went by."""
        if self._live is None:
            return
        what = self._phase
        moved = self._moved.setdefault(what, [0, 0])
        moved[0] += rows
        moved[1] += size_bytes
        told = f"{what} {moved[0]:,} rows, {size(moved[1])}" if moved[0] else f"{what} {size(moved[1])}"
        elapsed = self._live.tasks[self._task].elapsed or 0
        rate = f", {size(sum(b for _, b in self._moved.values()) / elapsed)}/s" if elapsed > 1 else ""
        self._live.update(self._task, description=told + rate)

    def day(self, run: DayOutcome) -> None:
        """Shows one day that is done. In JSON, the assets have logged what went well."""
        if self.as_json:
            if run.error:
                logger.error("day %s failed: %s", run.day, run.error, extra=run.line)
            return
        if self._live:
            self._live.advance(self._task)
        if run.error:
            self.console.print(f"{run.day}  failed: {run.error}", style="red")
            return
        self.console.print(
            _LINE.format(
                str(run.day), f"{run.rows:,}", f"{run.rows_appended:,}", size(run.bytes), f"{run.deleted:,}",
                f"{run.left:,}", f"{run.seconds:.1f}", _remark(run),
            ).rstrip()
        )  # fmt: skip

    def done(self, totals: Totals, seconds: float, *, remark: str = "") -> None:
        """Shows the sums."""
        if self.as_json:
            sums = {name: value for name, value in vars(totals).items() if isinstance(value, int)}
            extra = sums | {"seconds": round(seconds, 3)}
            logger.info("%s", remark or "run done", extra=extra)
            return
        if totals.days:
            self.console.print(
                _LINE.format(
                    "total", f"{totals.rows:,}", f"{totals.rows_appended:,}", size(totals.bytes),
                    f"{totals.deleted:,}", f"{totals.left:,}", f"{seconds:.1f}",
                    counted(totals.days, "day", "days") + (f", {totals.failed} failed" if totals.failed else ""),
                ),
                style="bold",
            )  # fmt: skip
        if remark:
            self.console.print(remark)


def _remark(run: DayOutcome) -> str:
    if run.outcome == "locked":
        return "another run holds this day"
    if run.outcome == "held":
        return f"held, not purged: {run.reason}"
    if run.outcome == "dry run":
        return f"dry run: {run.proven:,} rows proven, none deleted"
    return "" if run.rows_appended or run.deleted else "nothing new"

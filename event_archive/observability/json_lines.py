"""Standard output where no terminal is attached: one JSON object a line, of one shape in every command.

Each has its ``outcome`` and, where something went wrong, the ``error``; a line about a day has ``day``, ``rows``,
``deleted``, ``bytes`` and ``seconds`` as far as the command knows them; the last line of a command that does several
days holds their totals. Not here: log lines (``logs.py``), what a terminal gets (``console.py``).
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime

import click

from event_archive.domain.days import iso, now_utc
from event_archive.domain.progress import Phase
from event_archive.domain.wording import counted
from event_archive.nightly.outcome import DayOutcome, Totals


def write_line(outcome: str, *, dataset: str = "", error: str | None = None, **fields: object) -> None:
    """Writes one line.

    Args:
        outcome: what came of it.
        dataset: the name of the dataset that it is about; empty where that has none.
        error: what went wrong, for people; None where nothing did.
        fields: what it is about, and what else is known.
    """
    line = ({"dataset": dataset} if dataset else {}) | fields | {"outcome": outcome}
    line |= {} if error is None else {"error": error}
    click.echo(json.dumps(line, default=_as_text))
    _written.append(outcome)


def last_outcome() -> str | None:
    """The outcome that was written last in this process; None where none was."""
    return _written[-1] if _written else None


_written: deque[str] = deque(maxlen=1)


class JsonDisplay:
    """A run's ``Observer`` that writes a line a day, and one of the totals."""

    counts_beforehand = False

    def begin(self, phase: Phase, *, total_bytes: int | None = None) -> None:
        """Says nothing."""

    def advance(self, rows: int, size_bytes: int) -> None:
        """Says nothing."""

    @contextmanager
    def running(self, _rows: Mapping[tuple[str, date], int | None]) -> Iterator[None]:
        """While the days run."""
        yield

    def day_begins(self, day: date, dataset: str) -> None:
        """Says nothing."""

    def day_ends(self, outcome: DayOutcome) -> None:
        """Writes the line of a day."""
        message = f"day {outcome.day}: {outcome.outcome}"
        if outcome.error:
            message = f"day {outcome.day} failed: {outcome.error}"
        write_line(
            outcome.outcome,
            error=outcome.error,
            **_as_a_log_line(message, failed=outcome.error is not None),
            dataset=outcome.dataset,
            day=outcome.day,
            **({"reason": outcome.reason} if outcome.reason else {}),
            rows=outcome.rows,
            deleted=outcome.deleted,
            **({"proven": outcome.proven} if outcome.outcome == "dry run" else {}),
            left=outcome.left,
            **outcome.details,
            bytes=outcome.bytes,
            seconds=round(outcome.seconds, 3),
        )

    def dataset_failed(self, dataset: str, error: str) -> None:
        """Writes why a dataset could not begin, or not go on."""
        write_line("failed", error=error, **_as_a_log_line(f"{dataset}: {error}", failed=True), dataset=dataset)

    def run_ends(self, totals: Totals, seconds: float, *, outcome: str, remark: str = "") -> None:
        """Writes the totals."""
        failed = f"{totals.failed} of {counted(totals.days, 'day', 'days')} failed" if totals.failed else ""
        error = ". ".join(filter(None, (failed, remark))) if outcome == "failed" else None
        write_line(
            outcome,
            error=error,
            **_as_a_log_line(error or remark or f"run {outcome}", failed=False),
            days=totals.days,
            failed=totals.failed,
            rows=totals.rows,
            rows_appended=totals.rows_appended,
            deleted=totals.deleted,
            left=totals.left,
            bytes=totals.bytes,
            seconds=round(seconds, 3),
        )


def _as_a_log_line(message: str, *, failed: bool) -> dict[str, str]:
    """What a collector of container logs looks for."""
    return {"message": message, "level": "error" if failed else "info", "timestamp": iso(now_utc())}


def _as_text(value: object) -> str:
    """Times have one form in every line, that of ``timestamp``, which jq and all else can read."""
    return iso(value) if isinstance(value, datetime) else str(value)

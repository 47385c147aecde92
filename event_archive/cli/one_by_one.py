"""Days with files, one after the other: a line of each, and their totals, for ``verify``, ``restore`` and ``adopt``.

Not here: what is done with a file (``files``).
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import click

from event_archive.cli import EXIT_FAILED, exit_code, stop
from event_archive.cli.arguments import each_dataset, within
from event_archive.domain.wording import counted
from event_archive.errors import (
    EventArchiveError,
    IntegrityError,
    RefusedError,
    UnexpectedError,
    UnreachableError,
    printable,
)

if TYPE_CHECKING:
    from event_archive.config.environment import PipelineSettings, Settings
    from event_archive.domain.dataset import Dataset
    from event_archive.lake.protocol import Lake

Found = dict[str, int | float | str]
"""What is known of a day that is done, by name."""


def each_with_files(pipelines: "Sequence[PipelineSettings]", do: "Callable[[Settings], bool]") -> None:
    """Does something with the files of each dataset; ``do`` says whether there were any. Fails where none has one."""
    had_files: list[bool] = []
    each_dataset(pipelines, lambda settings: had_files.append(do(settings)))
    if not any(had_files):
        raise RefusedError(
            "No dataset has such a file. Look whether the lake, its container and folder are right, and the range is."
        )


@dataclass(frozen=True, slots=True)
class Chosen:
    """The days that a command is to do, what it says where there are none, and how many of its range have no file."""

    days: tuple[date, ...]
    none: str = ""
    without_file: int | None = None


def choose(
    dataset: "Dataset", lake: "Lake", days: tuple[date, ...], first: date | None, last: date | None, *, to: str
) -> Chosen:
    """The days named, or those of a range, which may be open at either end, that have a file."""
    if not days:
        in_lake = (dataset.day_of(file.path) for file in lake.list(dataset.folder))
        days = tuple(day for day in in_lake if day and within(day, first, last))
    between = (f" from {first}" if first else "") + (f" to {last}" if last else "")
    of_range = f", of days{between}" if between else ""
    none = f"There is no file {dataset.file_prefix}_YYYY-MM-DD.csv to {to} in {lake.url(dataset.folder)}{of_range}."
    return Chosen(days, none, days_without_file(days, first, last))


def days_without_file(days: tuple[date, ...], first: date | None, last: date | None) -> int | None:
    """How many days of a range, of which these have a file, have none; None where it is open, or none was given."""
    return (last - first).days + 1 - len(days) if first and last else None


class DamagedError(IntegrityError):
    """A file is not what its manifest says; with what else is known of it."""

    def __init__(self, problems: str, found: Found) -> None:
        super().__init__(problems)
        self.found = found


def each_day(settings: "Settings", chosen: Chosen, do: Callable[[date], Found], *, good: str) -> None:
    """Does each day and says a line of it, and their totals; fails where one did, or where there was none."""
    totals: dict[str, int | float] = {"days": 0, "failed": 0}
    if chosen.without_file is not None:
        totals["without_file"] = chosen.without_file
    failures: list[EventArchiveError] = []
    for day in chosen.days:
        _stop_if_requested()
        error: EventArchiveError | None = None
        try:
            found = do(day)
        except Exception as failure:  # noqa: BLE001 (hides nothing: the day has failed, the others have their turn)
            # An error that a stop led to says nothing of the day.
            _stop_if_requested()
            error = failure if isinstance(failure, EventArchiveError) else UnexpectedError.of(failure)
            found = failure.found if isinstance(failure, DamagedError) else {}
            failures.append(error)
        totals["days"] += 1
        totals["failed"] += error is not None
        for name, value in found.items():
            if not isinstance(value, str):
                totals[name] = totals.get(name, 0) + value
        _show(settings, None if error is None else str(error), good, found, day=day)
        if isinstance(error, UnreachableError):
            break
    failed = f"{totals['failed']} of {counted(len(chosen.days), 'day', 'days')} failed" if totals["failed"] else None
    if failed and (left := len(chosen.days) - int(totals["days"])):
        failed += f". A service is out of reach: {counted(left, 'day was', 'days were')} not tried"
    if not chosen.days:
        # Among several datasets, a new one has none yet.
        failed = chosen.none if not settings.entry.name else None
        click.echo(chosen.none, err=True)
    if chosen.days or settings.log_as_json:
        _show(settings, failed, "done", totals)
    if failed:
        sys.exit(exit_code(failures) if failures else EXIT_FAILED)


def _stop_if_requested() -> None:
    if stop.requested():
        raise KeyboardInterrupt


def _show(
    settings: "Settings",
    error: str | None,
    outcome: str,
    found: "Found | dict[str, int | float]",
    day: date | None = None,
) -> None:
    from event_archive.observability.json_lines import write_line

    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}
    if settings.log_as_json:
        of_day = {"day": day} if day else {}
        write_line("failed" if error else outcome, dataset=settings.entry.name, error=error, **of_day, **rounded)
        return
    figures = ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {printable(str(value))}"
        for name, value in rounded.items()
    )
    whose = f"{settings.entry.name}  " if settings.entry.name else ""
    text = f"{whose}{day or 'total'}  {error or outcome}" + (f"  ({figures})" if figures else "")
    click.secho(text, fg="red" if error else None, bold=day is None)

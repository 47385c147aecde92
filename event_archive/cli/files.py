"""``event-archive verify``, ``restore`` and ``adopt``: what is done with the files of days.

Not here: how a file is read or restored (``operations``), archiving and purging (``run``).
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import click

from event_archive.cli import EXIT_FAILED, exit_code, stop
from event_archive.cli.arguments import (
    DAY,
    check_range,
    dataset_option,
    day_and_last,
    days_argument,
    each_dataset,
    load_pipelines,
    range_options,
    within,
)
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


@click.command(short_help="Reads files back and compares them with their manifest.")
@days_argument
@range_options
@dataset_option
def verify(days: tuple[date, ...], first: date | None, last: date | None, datasets: tuple[str, ...]) -> None:
    """Reads files back and compares them with their manifest: all files, those of a range, or of the days named."""
    check_range(days, first, last)
    _each_dataset(load_pipelines(datasets), lambda settings: _verify(settings, days, first, last))


def _verify(settings: "Settings", days: tuple[date, ...], first: date | None, last: date | None) -> bool:
    from event_archive.config.services import lake, primary
    from event_archive.operations.marker import claim_to_read, files_of
    from event_archive.operations.verify import verify_day
    from event_archive.table.shape import shape_if_any

    dataset = settings.dataset
    with lake(settings) as opened:
        chosen = _chosen(dataset, opened, days, first, last, to="verify")
        table = shape_if_any(dataset, primary(settings))
        if not settings.log_as_json and (claim := claim_to_read(dataset, opened)):
            click.echo(f"{files_of(dataset)} belongs to {claim.source}.")

        def verified(day: date) -> Found:
            done = verify_day(dataset, day, table=table, lake=opened)
            found: Found = {} if done.rows is None else {"rows": done.rows}
            found |= {"bytes": done.bytes, "seconds": done.seconds}
            if done.source and settings.log_as_json:
                found["source"] = str(done.source)
            if done.remarks:
                found["remarks"] = "; ".join(done.remarks)
            if done.problems:
                raise _DamagedError("; ".join(done.problems), found)
            return found

        _each(settings, chosen, verified, good="good")
    return bool(chosen.days)


@click.command(short_help="Puts rows back from the files.")
@click.argument("day", type=DAY)
@click.option("--to", "last", type=DAY, help="Restore every day up to this one that has a file.")
@click.option("--table", "target", help="The table to fill (default: the source's name with _restored).")
@click.option("--in-place", is_flag=True, help="Fill the source itself; the night purges the rows again unless held.")
@dataset_option
def restore(day: date, last: date | None, target: str | None, datasets: tuple[str, ...], *, in_place: bool) -> None:
    """Puts rows back from the files. A row that stands in the table is never changed."""
    first, last = day_and_last(day, last)
    if target and in_place:
        raise click.UsageError("Give --table or --in-place, not both.")
    each_dataset(
        load_pipelines(datasets, one_by_one=True),
        lambda settings: _restore(settings, first, last, target, in_place=in_place),
    )


def _restore(settings: "Settings", first: date, last: date, target: str | None, *, in_place: bool) -> None:
    from event_archive.config.services import lake, primary
    from event_archive.operations.restore.day import days_with_file, restore_day
    from event_archive.operations.restore.target import target_named
    from event_archive.operations.site import Site

    dataset = settings.dataset
    into = target_named(dataset, target, in_place=in_place)
    with lake(settings) as opened:
        site = Site(dataset, primary(settings), opened)

        def restored(one_day: date) -> Found:
            done = restore_day(site, one_day, into)
            return {
                "restored": done.restored,
                "skipped": done.skipped,
                "superseded": done.superseded,
                "table": str(done.target),
                "seconds": done.seconds,
                **({"source": str(done.source)} if done.source and settings.log_as_json else {}),
                **({"setval": " ".join(done.setval)} if done.setval else {}),
            }

        days = tuple(days_with_file(dataset, opened, first, last))
        without_file = _without_file(days, first, last) if first < last else None
        _each(settings, _Chosen(days, without_file=without_file), restored, good="restored")


@click.command(short_help="Accepts files as they stand, whatever their manifest says.")
@days_argument
@range_options
@click.option("--source", is_flag=True, help="Make this table of this database the owner of all files, once.")
@dataset_option
def adopt(
    days: tuple[date, ...], first: date | None, last: date | None, datasets: tuple[str, ...], *, source: bool
) -> None:
    """Writes a new manifest for files that contradict theirs, of the days named or a range; their bytes stay."""
    if bool(days or first or last) == source:
        raise click.UsageError("Name days, or give a range with --from and --to, or --source.")
    check_range(days, first, last)
    _each_dataset(
        load_pipelines(datasets, one_by_one=True),
        lambda settings: _adopt_source(settings) if source else _adopt(settings, days, first, last),
    )


def _adopt(settings: "Settings", days: tuple[date, ...], first: date | None, last: date | None) -> bool:
    from event_archive.config.services import lake, primary
    from event_archive.operations.adopt import adopt_day
    from event_archive.operations.site import Site

    dataset = settings.dataset
    with lake(settings) as opened:
        site = Site(dataset, primary(settings), opened)
        chosen = _chosen(dataset, opened, days, first, last, to="adopt")

        def adopted(day: date) -> Found:
            started = time.monotonic()
            manifest = adopt_day(site, day)
            seconds = time.monotonic() - started
            return {"rows": manifest.rows, "bytes": manifest.bytes, "sha256": manifest.sha256, "seconds": seconds}

        _each(settings, chosen, adopted, good="adopted")
    return bool(chosen.days)


def _adopt_source(settings: "Settings") -> bool:
    from event_archive.config.services import lake, primary
    from event_archive.observability.json_lines import write_line
    from event_archive.operations.claim import adopt_source
    from event_archive.operations.marker import files_of
    from event_archive.operations.site import Site
    from event_archive.table.shape import current_shape

    dataset, postgres = settings.dataset, primary(settings)
    # A table that is not there would own nothing, and one without that time column has no days.
    current_shape(dataset, postgres, "adopt")
    with lake(settings) as opened:
        claim = adopt_source(Site(dataset, postgres, opened))
    former = [str(of) for of in claim.former]
    if settings.log_as_json:
        source = str(claim.source)
        write_line("adopted", dataset=dataset.name, files=files_of(dataset), source=source, former=former)
        return True
    click.echo(f"{files_of(dataset)} belongs to {claim.source} from now on.")
    for of in former:
        click.echo(f"Its files too: {of}.")
    return True


def _each_dataset(pipelines: "Sequence[PipelineSettings]", do: "Callable[[Settings], bool]") -> None:
    """Does something with the files of each dataset; ``do`` says whether there were any. Fails where none has one."""
    had_files: list[bool] = []
    each_dataset(pipelines, lambda settings: had_files.append(do(settings)))
    if not any(had_files):
        raise RefusedError(
            "No dataset has such a file. Look whether the lake, its container and folder are right, and the range is."
        )


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The days that a command is to do, what it says where there are none, and how many of its range have no file."""

    days: tuple[date, ...]
    none: str = ""
    without_file: int | None = None


def _chosen(
    dataset: "Dataset", lake: "Lake", days: tuple[date, ...], first: date | None, last: date | None, *, to: str
) -> _Chosen:
    """The days named, or those of a range, which may be open at either end, that have a file."""
    if not days:
        in_lake = (dataset.day_of(file.path) for file in lake.list(dataset.folder))
        days = tuple(day for day in in_lake if day and within(day, first, last))
    between = (f" from {first}" if first else "") + (f" to {last}" if last else "")
    of_range = f", of days{between}" if between else ""
    none = f"There is no file {dataset.file_prefix}_YYYY-MM-DD.csv to {to} in {lake.url(dataset.folder)}{of_range}."
    return _Chosen(days, none, _without_file(days, first, last))


def _without_file(days: tuple[date, ...], first: date | None, last: date | None) -> int | None:
    """How many days of a range, of which these have a file, have none; None where it is open, or none was given."""
    return (last - first).days + 1 - len(days) if first and last else None


class _DamagedError(IntegrityError):
    """A file is not what its manifest says; with what else is known of it."""

    def __init__(self, problems: str, found: Found) -> None:
        super().__init__(problems)
        self.found = found


def _each(settings: "Settings", chosen: _Chosen, do: Callable[[date], Found], *, good: str) -> None:
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
            found = failure.found if isinstance(failure, _DamagedError) else {}
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

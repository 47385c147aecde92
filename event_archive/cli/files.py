"""``event-archive verify``, ``restore`` and ``adopt``: what is done with the files of days."""

import json
import sys
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any

import click

from event_archive.cli.arguments import (
    DAY,
    check_range,
    day_and_last,
    days_argument,
    load_settings,
    range_options,
    within,
)
from event_archive.errors import BusyError, EventArchiveError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from event_archive.config.environment import Settings


@click.command()
@days_argument()
@range_options
def verify(days: tuple[date, ...], first: date | None, last: date | None) -> None:
    """Reads files back and holds them against their manifest: all files, those of a range, or of the days named."""
    check_range(days, first, last)
    from event_archive.config import services
    from event_archive.operations.verify import verify_day
    from event_archive.table.shape import current_shape

    settings = load_settings()
    with services.lake(settings) as lake:
        in_lake = (settings.dataset.day_of(file.path) for file in lake.list(settings.dataset.folder))
        wanted = days or tuple(day for day in in_lake if day and within(day, first, last))
        table = None
        try:
            table = current_shape(settings.dataset, services.primary(settings), "copy")
        except (BusyError, RefusedError, UnreachableError) as error:
            click.echo(f"Values are not looked at, only the files as a whole: {error}", err=True)

        def verified(day: date) -> tuple[dict[str, Any], str | None]:
            found = verify_day(settings.dataset, day, table=table, lake=lake)
            told: dict[str, Any] = {"rows": found.rows, "bytes": found.bytes, "seconds": round(found.seconds, 3)}
            if found.remarks:
                told["remarks"] = "; ".join(found.remarks)
            return told, "; ".join(found.problems) or None

        _each(settings, wanted, verified, good="good", none="There is no file to verify.")


@click.command()
@click.argument("day", type=DAY)
@click.option("--to", "last", type=DAY, help="Restore every day up to this one that has a file.")
@click.option("--table", "target", help="The table to fill (default: the source's name with _restored).")
@click.option("--in-place", is_flag=True, help="Fill the source itself; the night purges the rows again unless held.")
def restore(day: date, last: date | None, target: str | None, *, in_place: bool) -> None:
    """Puts rows back from the files. A row that stands in the table is never changed."""
    first, last = day_and_last(day, last)
    if target and in_place:
        raise click.UsageError("Give --table or --in-place, not both.")
    from event_archive.config import services
    from event_archive.operations.restore.day import days_with_file, restore_day
    from event_archive.operations.restore.target import target_named
    from event_archive.operations.site import Site

    settings = load_settings()
    dataset = settings.dataset
    into = target_named(dataset, target, in_place=in_place)
    with services.lake(settings) as lake:
        wanted = tuple(days_with_file(dataset, lake, first, last))

        def restored(one_day: date) -> tuple[dict[str, Any], None]:
            done = restore_day(Site(dataset, services.primary(settings), lake), one_day, into)
            told = {"restored": done.restored, "skipped": done.skipped, "superseded": done.superseded}
            return told | {"table": str(done.target), "seconds": round(done.seconds, 3)}, None

        _each(settings, wanted, restored, good="restored", none="")


@click.command()
@days_argument(required=True)
def adopt(days: tuple[date, ...]) -> None:
    """Accepts files as they stand, though they contradict their manifest: it is made anew, the bytes stay."""
    from event_archive.config import services
    from event_archive.operations.adopt import adopt_day
    from event_archive.operations.site import Site

    settings = load_settings()
    with services.lake(settings) as lake:

        def adopted(day: date) -> tuple[dict[str, Any], None]:
            manifest = adopt_day(Site(settings.dataset, services.primary(settings), lake), day)
            return {"rows": manifest.rows, "bytes": manifest.bytes, "sha256": manifest.sha256}, None

        _each(settings, days, adopted, good="adopted", none="")


Told = tuple[dict[str, Any], str | None]


def _each(settings: "Settings", days: tuple[date, ...], do: Callable[[date], Told], *, good: str, none: str) -> None:
    """Does each day and says a line of it; exits with 1 where one failed, or where there was none."""
    failed = 0
    for day in days:
        stop = False
        try:
            told, problem = do(day)
        except EventArchiveError as error:
            told, problem, stop = {}, str(error), isinstance(error, UnreachableError)
        failed += problem is not None
        if settings.log_as_json:
            click.echo(json.dumps({"day": day.isoformat(), "result": problem or good, "good": problem is None, **told}))
        else:
            counts = ", ".join(
                f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in told.items()
            )
            click.secho(
                f"{day}  {problem or good}" + (f"  ({counts})" if counts else ""), fg="red" if problem else None
            )
        if stop:
            break
    if not days:
        click.echo(none, err=True)
    if failed or not days:
        sys.exit(1)

"""``event-archive verify``, ``restore`` and ``adopt``: what is done with the files of days.

Not here: how a file is read or restored (``operations``), the lines and totals (``one_by_one``), archiving (``run``).
"""

import time
from datetime import date
from typing import TYPE_CHECKING

import click

from event_archive.cli.arguments import (
    DAY,
    check_range,
    dataset_option,
    day_and_last,
    days_argument,
    each_dataset,
    load_pipelines,
    range_options,
)
from event_archive.cli.one_by_one import (
    Chosen,
    DamagedError,
    Found,
    choose,
    days_without_file,
    each_day,
    each_with_files,
)

if TYPE_CHECKING:
    from event_archive.config.environment import Settings


@click.command(short_help="Reads files back and compares them with their manifest.")
@days_argument
@range_options
@dataset_option
def verify(days: tuple[date, ...], first: date | None, last: date | None, datasets: tuple[str, ...]) -> None:
    """Reads files back and compares them with their manifest: all files, those of a range, or of the days named."""
    check_range(days, first, last)
    each_with_files(load_pipelines(datasets), lambda settings: _verify(settings, days, first, last))


def _verify(settings: "Settings", days: tuple[date, ...], first: date | None, last: date | None) -> bool:
    from event_archive.config.services import lake, primary
    from event_archive.operations.marker import claim_to_read, files_of
    from event_archive.operations.verify import verify_day
    from event_archive.table.shape import shape_if_any

    dataset = settings.dataset
    with lake(settings) as opened:
        chosen = choose(dataset, opened, days, first, last, to="verify")
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
                raise DamagedError("; ".join(done.problems), found)
            return found

        each_day(settings, chosen, verified, good="good")
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
        without_file = days_without_file(days, first, last) if first < last else None
        each_day(settings, Chosen(days, without_file=without_file), restored, good="restored")


@click.command(short_help="Accepts files as they stand, whatever their manifest says.")
@days_argument
@range_options
@click.option("--present-key", is_flag=True, help="The table's present key tells all rows of these files apart.")
@click.option("--source", is_flag=True, help="Make this table of this database the owner of all files, once.")
@dataset_option
def adopt(
    days: tuple[date, ...],
    first: date | None,
    last: date | None,
    datasets: tuple[str, ...],
    *,
    present_key: bool,
    source: bool,
) -> None:
    """Writes a new manifest for files that contradict theirs, of the days named or a range; their bytes stay."""
    if bool(days or first or last) == source:
        raise click.UsageError("Name days, or give a range with --from and --to, or --source.")
    if present_key and source:
        raise click.UsageError("--present-key is of days, not of --source.")
    check_range(days, first, last)
    each_with_files(
        load_pipelines(datasets, one_by_one=True),
        lambda settings: _adopt_source(settings) if source else _adopt(settings, days, first, last, present_key),
    )


def _adopt(
    settings: "Settings", days: tuple[date, ...], first: date | None, last: date | None, present_key: bool
) -> bool:
    from event_archive.config.services import lake, primary
    from event_archive.operations.adopt import adopt_day
    from event_archive.operations.site import Site

    dataset = settings.dataset
    with lake(settings) as opened:
        site = Site(dataset, primary(settings), opened)
        chosen = choose(dataset, opened, days, first, last, to="adopt")

        def adopted(day: date) -> Found:
            started = time.monotonic()
            manifest = adopt_day(site, day, present_key=present_key)
            seconds = time.monotonic() - started
            return {"rows": manifest.rows, "bytes": manifest.bytes, "sha256": manifest.sha256, "seconds": seconds}

        each_day(settings, chosen, adopted, good="adopted")
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

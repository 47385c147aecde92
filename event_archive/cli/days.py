"""``event-archive days``: what there is, in the table and in the lake, and in which state each day is.

Not here: counting (``nightly.backlog``), estimating (``nightly.estimate``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

import click

from event_archive.cli.arguments import (
    check_range,
    dataset_option,
    each_dataset,
    load_pipelines,
    range_options,
    within,
)
from event_archive.errors import IntegrityError, OtherSourceError

if TYPE_CHECKING:
    from event_archive.config.environment import Settings
    from event_archive.domain.dataset import Dataset
    from event_archive.domain.manifest import Manifest
    from event_archive.domain.source import Source
    from event_archive.lake.protocol import StoredFile
    from event_archive.operations.site import Site


@dataclass(frozen=True, slots=True)
class _ListedDay:
    """One day.

    Attributes:
        day: the day.
        state: ``aged``: its rows are in the table alone; ``archived``: in both, as after a dry run, or where late rows
            came; ``purged``: in the lake alone; ``held``; ``waiting``: for its partition; ``failed``: the command line
            failed on it last time;
            ``young``: it is not aged, ``before start``: older than ARCHIVE_START_DATE, so its rows were not counted;
            ``not ours``: its file is of another source or day, ``no manifest``: nobody can tell what its file is,
            ``changed``: its file has another length than its manifest says.
        rows: in the table; None where they were not counted.
        file: in the lake.
    """

    day: date
    state: str
    rows: int | None
    file: "StoredFile | None"

    @property
    def lake_rows(self) -> int | None:
        """Rows in the file, as its manifest says; None where there is none, or it contradicts that."""
        from event_archive.domain.manifest import stored_rows

        if self.file is None or _contradicts(self.file, _manifest(self.file)):
            return None
        return stored_rows(self.file)

    @property
    def is_left(self) -> bool:
        """Whether a run has something to do. A held day is archived and not purged: it is done once it has a file."""
        return bool(self.rows) and self.state != "waiting" and not (self.state == "held" and self.file)


@click.command("days", short_help="Lists the aged days: state, rows here and in the lake.")
@range_options
@dataset_option
def list_days(first: date | None, last: date | None, datasets: tuple[str, ...]) -> None:
    """Lists the aged days: their state, rows in the table, rows and bytes in the lake."""
    check_range((), first, last)
    each_dataset(load_pipelines(datasets), lambda settings: _list_days(settings, first, last))


def _list_days(settings: "Settings", first: date | None, last: date | None) -> None:
    from event_archive.config.services import lake, primary
    from event_archive.domain.days import now_utc
    from event_archive.nightly.attempts import read_attempts
    from event_archive.nightly.backlog import rows_of_aged_days
    from event_archive.nightly.estimate import estimate
    from event_archive.nightly.orphans import orphans_told
    from event_archive.operations.site import Site

    dataset, postgres = settings.dataset, primary(settings)
    table = rows_of_aged_days(dataset, now_utc(), postgres)
    with lake(settings) as opened:
        files = {day: file for file in opened.list(dataset.folder) if (day := dataset.day_of(file.path))}
        attempts = read_attempts(dataset, opened)
        whose, is_own = _owner(Site(dataset, postgres, opened))
    # Where the files are another's, so is what is written down of attempts.
    failed = {day for day, attempt in attempts.items() if attempt.failed and not whose}
    listed = []
    for day in sorted(table.rows.keys() | files.keys() | failed):
        if within(day, first, last):
            file = files.get(day)
            # Of a day that is not aged nothing is known: it was not counted.
            rows = table.rows.get(day, 0) if dataset.is_aged(day, table.at) else None
            state = (
                _state_of_age(dataset, day, table.at)
                or ("held" if rows and day in table.held else "")
                or ("failed" if day in failed else "")
                or (_state_of_file(file, day, is_own) if file else "")
                or ("waiting" if rows and file and day in table.waiting else "")
                or (("archived" if file else "aged") if rows else "purged")
            )
            listed.append(_ListedDay(day, state, rows, file))
    left = sum(day.rows or 0 for day in listed)
    to_do = [day for day in listed if day.is_left]
    days = [day.day for day in to_do]
    found = estimate(dataset, days, postgres, max_bytes_per_second=settings.export_rate_limit)
    rows_to_do = sum(day.rows or 0 for day in to_do)
    left_bytes, left_seconds = found.bytes_of(rows_to_do), found.seconds_of(rows_to_do, len(to_do))
    if settings.log_as_json:
        _show_json(dataset, listed, left, left_bytes, left_seconds, whose)
    else:
        _show_table(listed, left, left_bytes, left_seconds)
        click.echo(dataset.aged_told(table.at))
    if whose:
        click.echo(f"Warning: {whose}", err=True)
    if table.orphans:
        click.echo(f"Warning: {orphans_told(dataset, table.orphans)}", err=True)


def _owner(site: "Site") -> "tuple[str, Callable[[Source], bool]]":
    """That the files belong to another source, in words, empty where they do not; and which sources are ours."""
    from event_archive.operations.claim import owner

    try:
        claim = owner(site)
    except OtherSourceError as error:
        return str(error), lambda _source: False
    except IntegrityError as error:
        claim, warning = None, str(error)
    else:
        warning = ""
    return warning, claim.holds if claim else lambda source: source.table == str(site.dataset.table)


def _state_of_age(dataset: "Dataset", day: date, now: datetime) -> str:
    if dataset.is_aged(day, now):
        return ""
    return "young" if day >= dataset.start else "before start"


def _state_of_file(file: "StoredFile", day: date, is_own: "Callable[[Source], bool]") -> str:
    """Why a file says nothing of the day; empty where it does."""
    manifest = _manifest(file)
    if manifest is None:
        return "no manifest"
    if not (manifest.day in ("", day.isoformat()) and is_own(manifest.source)):
        return "not ours"
    return "changed" if _contradicts(file, manifest) else ""


def _manifest(file: "StoredFile") -> "Manifest | None":
    """What a file says of itself, whatever its length; None where that is nothing, or unreadable."""
    from event_archive.domain.manifest import Manifest

    try:
        return Manifest.claimed_by(file)
    except IntegrityError:
        return None


def _contradicts(file: "StoredFile", manifest: "Manifest | None") -> bool:
    """Whether a file has another length than its manifest says."""
    return manifest is not None and manifest.bytes != file.size_bytes


def _show_json(
    dataset: "Dataset", listed: list[_ListedDay], left: int, left_bytes: int, left_seconds: float, whose: str
) -> None:
    from event_archive.observability.json_lines import write_line

    for day in listed:
        write_line(
            day.state,
            dataset=dataset.name,
            day=day.day,
            rows=day.rows,
            lake_rows=day.lake_rows,
            lake_bytes=day.file.size_bytes if day.file else None,
        )
    write_line(
        "done",
        error=whose or None,
        dataset=dataset.name,
        days=len(listed),
        rows=left,
        lake_rows=sum(day.lake_rows or 0 for day in listed),
        lake_bytes=sum(day.file.size_bytes for day in listed if day.file),
        estimated_bytes=left_bytes,
        estimated_seconds=round(left_seconds, 3),
    )


def _show_table(listed: list[_ListedDay], left: int, left_bytes: int, left_seconds: float) -> None:
    from event_archive.domain.wording import counted, duration, size

    form = "{:<10}  {:>14}  {:>14}  {:>10}  {}"
    click.echo(form.format("day", "rows in table", "rows in lake", "size", "state"))
    for day in listed:
        stored = day.lake_rows
        click.echo(
            form.format(
                str(day.day),
                "-" if day.rows is None else f"{day.rows:,}",
                ("?" if day.file else "-") if stored is None else f"{stored:,}",
                size(day.file.size_bytes) if day.file else "-",
                "failed last time" if day.state == "failed" else day.state,
            )
        )
    files = [day.file for day in listed if day.file]
    stored_in_all = sum(day.lake_rows or 0 for day in listed)
    total_bytes = sum(file.size_bytes for file in files)
    click.echo(
        form.format("total", f"{left:,}", f"{stored_in_all:,}", size(total_bytes), counted(len(listed), "day", "days"))
    )
    if left_bytes:
        click.echo(f"What is left to do will take about {duration(left_seconds)}, and {size(left_bytes)} of CSV.")

"""``event-archive days``: what there is, in the table and in the lake, and in which state each day is.

Not here: counting (``nightly.backlog``), estimating (``nightly.estimate``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

import click

from event_archive.cli.arguments import check_range, load_settings, range_options, within
from event_archive.errors import IntegrityError, OtherSourceError

if TYPE_CHECKING:
    from event_archive.domain.dataset import Dataset
    from event_archive.lake.protocol import StoredFile
    from event_archive.nightly.backlog import AgedDays
    from event_archive.operations.site import Site


@dataclass(frozen=True, slots=True)
class _ListedDay:
    """One day.

    Attributes:
        day: the day.
        state: ``aged``: its rows are in the table alone; ``archived``: in both, as after a dry run, or where late rows
            came; ``purged``: in the lake alone; ``held``; ``waiting``: for its
            partition; ``failed``: the command line failed on it last time;
            ``young``: it is not aged, ``before start``: older than ARCHIVE_START_DATE, so its rows were not counted.
        rows: in the table; None where they were not counted.
        file: in the lake.
    """

    day: date
    state: str
    rows: int | None
    file: "StoredFile | None"


@click.command("days")
@range_options
def list_days(first: date | None, last: date | None) -> None:
    """Lists the aged days: their state, rows in the table, rows and bytes in the lake."""
    check_range((), first, last)
    from event_archive.config.services import lake, primary
    from event_archive.domain.days import now_utc
    from event_archive.nightly.attempts import read_attempts
    from event_archive.nightly.backlog import orphans_told, rows_of_aged_days
    from event_archive.nightly.estimate import estimate
    from event_archive.operations.site import Site

    settings = load_settings()
    dataset, now, postgres = settings.dataset, now_utc(), primary(settings)
    table = rows_of_aged_days(dataset, now, postgres)
    with lake(settings) as opened:
        files = {day: file for file in opened.list(dataset.folder) if (day := dataset.day_of(file.path))}
        attempts = read_attempts(dataset, opened) if table.rows else {}
        whose = _other_owner(Site(dataset, postgres, opened))
    failed = {day for day, attempt in attempts.items() if attempt.failed}
    listed = [
        _ListedDay(day, _state(dataset, day, now, table, files, failed), rows, files.get(day))
        for day in sorted(table.rows.keys() | files.keys())
        if within(day, first, last)
        # Of a day that is not aged nothing is known: it was not counted.
        for rows in [table.rows.get(day, 0) if dataset.is_aged(day, now) else None]
    ]
    left = sum(day.rows or 0 for day in listed)
    to_do = [day for day in listed if day.rows and day.state not in ("held", "waiting")]
    found = estimate(dataset, [day.day for day in to_do], postgres)
    rows_to_do = sum(day.rows or 0 for day in to_do)
    left_bytes, left_seconds = found.bytes_of(rows_to_do), found.seconds_of(rows_to_do)
    if settings.log_as_json:
        _show_json(listed, left, left_bytes, left_seconds, whose)
    else:
        _show_table(listed, left, left_bytes, left_seconds)
        last_aged = dataset.retention.last_aged_day(now)
        click.echo(f"{dataset.table}: days up to {last_aged} are aged at {now:%Y-%m-%d %H:%M} UTC.")
    if whose:
        click.echo(f"Warning: {whose}", err=True)
    if table.orphans:
        click.echo(f"Warning: {orphans_told(dataset, table.orphans)}", err=True)


def _other_owner(site: "Site") -> str:
    """That the files belong to another source, in words; empty where they do not."""
    from event_archive.operations.claim import owner

    try:
        owner(site)
    except (OtherSourceError, IntegrityError) as error:
        return str(error)
    return ""


def _state(
    dataset: "Dataset",
    day: date,
    now: datetime,
    table: "AgedDays",
    files: Mapping[date, "StoredFile"],
    failed: set[date],
) -> str:
    if not dataset.is_aged(day, now):
        return "young" if day >= dataset.start else "before start"
    if not table.rows.get(day):
        return "purged"
    if day in table.held:
        return "held"
    if day in failed:
        return "failed"
    if day in table.waiting and day in files:
        return "waiting"
    return "archived" if day in files else "aged"


def _show_json(listed: list[_ListedDay], left: int, left_bytes: int, left_seconds: float, whose: str) -> None:
    from event_archive.domain.manifest import stored_rows
    from event_archive.observability.json_lines import write_line

    for day in listed:
        write_line(
            day.state,
            day=day.day,
            rows=day.rows,
            lake_rows=stored_rows(day.file) if day.file else None,
            lake_bytes=day.file.size_bytes if day.file else None,
        )
    write_line(
        "done",
        error=whose or None,
        days=len(listed),
        rows=left,
        lake_rows=sum(stored_rows(day.file) or 0 for day in listed if day.file),
        lake_bytes=sum(day.file.size_bytes for day in listed if day.file),
        estimated_bytes=left_bytes,
        estimated_seconds=round(left_seconds, 3),
    )


def _show_table(listed: list[_ListedDay], left: int, left_bytes: int, left_seconds: float) -> None:
    from event_archive.domain.manifest import stored_rows
    from event_archive.domain.wording import counted, duration, size

    form = "{:<10}  {:>14}  {:>14}  {:>10}  {}"
    click.echo(form.format("day", "rows in table", "rows in lake", "size", "state"))
    for day in listed:
        stored = stored_rows(day.file) if day.file else None
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
    stored_in_all = sum(stored_rows(file) or 0 for file in files)
    total_bytes = sum(file.size_bytes for file in files)
    click.echo(
        form.format("total", f"{left:,}", f"{stored_in_all:,}", size(total_bytes), counted(len(listed), "day", "days"))
    )
    if left_bytes:
        click.echo(f"What is left to do will take about {duration(left_seconds)}, and {size(left_bytes)} of CSV.")

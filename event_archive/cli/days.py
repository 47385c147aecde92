"""``event-archive days``: what there is, in the table and in the lake."""

import json
from datetime import date, datetime

import click

from event_archive.cli.arguments import check_range, load_settings, range_options, within


@click.command("days")
@range_options
def list_days(first: date | None, last: date | None) -> None:
    """Lists the aged days: rows in the table, rows and bytes in the lake."""
    check_range((), first, last)
    from event_archive.config import services
    from event_archive.domain.days import now_utc
    from event_archive.domain.manifest import stored_rows
    from event_archive.nightly.backlog import orphans_told, rows_of_aged_days

    settings = load_settings()
    dataset, now = settings.dataset, now_utc()
    in_table, orphans = rows_of_aged_days(dataset, now, services.primary(settings))
    with services.lake(settings) as lake:
        in_lake = {day: file for file in lake.list(dataset.folder) if (day := dataset.day_of(file.path))}
    lines = [
        {
            "day": day.isoformat(),
            # Of a day that is not aged nothing is known: it was not counted.
            "rows": in_table.get(day, 0) if dataset.is_aged(day, now) else None,
            "lake_rows": stored_rows(in_lake[day]) if day in in_lake else None,
            "lake_bytes": in_lake[day].size_bytes if day in in_lake else None,
        }
        for day in sorted(in_table.keys() | in_lake.keys())
        if within(day, first, last)
    ]
    if settings.log_as_json:
        for line in lines:
            click.echo(json.dumps(line))
    else:
        _print_days(lines, now, str(dataset.table), dataset.retention.last_aged_day(now))
    if orphans:
        click.echo(f"Warning: {orphans_told(dataset, orphans)}", err=True)


def _print_days(lines: list[dict[str, str | int | None]], now: datetime, table: str, last_aged: date) -> None:
    from event_archive.domain.wording import size

    form = "{:<10}  {:>14}  {:>14}  {:>10}"
    click.echo(form.format("day", "rows in table", "rows in lake", "size"))
    for line in lines:
        stored, size_bytes = line["lake_rows"], line["lake_bytes"]
        unknown = "-" if size_bytes is None else "?"
        click.echo(
            form.format(
                str(line["day"]),
                "-" if line["rows"] is None else f"{line['rows']:,}",
                f"{stored:,}" if isinstance(stored, int) else unknown,
                size(size_bytes) if isinstance(size_bytes, int) else "-",
            )
        )
    click.echo(f"{table}: days up to {last_aged} are aged at {now:%Y-%m-%d %H:%M} UTC.")

"""``event-archive run --plan``: what a run would do. Here: how it is shown. Not here: planning, estimating."""

from datetime import date, timedelta

import click

from event_archive.domain.wording import counted, duration, size
from event_archive.nightly.estimate import estimate
from event_archive.observability.json_lines import write_line
from event_archive.operations.site import Site


def show_plan(site: Site, planned: list[date], *, budget: timedelta | None, as_json: bool) -> None:
    """Shows the days in their order, with rows, bytes and seconds, and the sums."""
    found = estimate(site.dataset, planned, site.postgres)
    rows = sum(found.rows.values())
    if as_json:
        name = site.dataset.name
        for day in planned:
            of_day = found.rows[day]
            size_bytes, seconds = found.bytes_of(of_day), round(found.seconds_of(of_day), 3)
            write_line("planned", dataset=name, day=day, rows=of_day, deleted=0, bytes=size_bytes, seconds=seconds)
        days = len(planned)
        size_bytes, seconds = found.bytes_of(rows), round(found.seconds_of(rows, days), 3)
        write_line("planned", dataset=name, days=days, rows=rows, deleted=0, bytes=size_bytes, seconds=seconds)
        return
    form = "{:<10}  {:>14}  {:>10}  {:>10}"
    click.echo(form.format("day", "rows", "about", "takes"))
    for day in planned:
        of_day = found.rows[day]
        seconds = found.seconds_of(of_day)
        takes = duration(seconds) if seconds >= 1 else "< 1 s"
        click.echo(form.format(str(day), f"{of_day:,}", size(found.bytes_of(of_day)), takes))
    takes = duration(found.seconds_of(rows, len(planned)))
    ends = f"; no day begins once RUN_BUDGET ({budget}) has passed" if budget else ""
    click.echo(
        f"{site.dataset.label}: a run would do {counted(len(planned), 'day', 'days')} in this order: {rows:,} rows, "
        f"about {size(found.bytes_of(rows))} of CSV, in about {takes}{ends}. Nothing was "
        "touched."
    )

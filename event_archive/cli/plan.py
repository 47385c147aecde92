"""``event-archive run --plan``: what a run would do. Here: how it is shown. Not here: planning, estimating."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime

import click

from event_archive.config.environment import Settings
from event_archive.domain.dataset import Dataset
from event_archive.domain.wording import counted, duration, size, took
from event_archive.nightly.estimate import estimate
from event_archive.nightly.purged_first import Purged, first_day_left
from event_archive.observability.json_lines import write_line
from event_archive.operations.site import Site


def nothing_to_do(datasets: Iterable[tuple[Dataset, datetime]], *, ranged: bool, as_json: bool) -> str:
    """Why no day is done; people also see which days are aged, and at what time: the retention may be a wrong one."""
    why = f"Nothing to do: no aged day{' in this range' if ranged else ''} has rows."
    return why if as_json else " ".join([why, *(dataset.aged_told(at) for dataset, at in datasets)])


def show_plan(
    settings: Settings, site: Site, planned: list[date], at: datetime, *, ranged: bool, earlier: Sequence[Purged]
) -> None:
    """Shows the days in their order, with rows, bytes and seconds, and the sums.

    Args:
        settings: of the run: its limits, and whether it writes JSON lines.
        site: of the dataset.
        planned: its days.
        at: the time by which days are aged.
        ranged: days of a range were asked for.
        earlier: the datasets whose days are purged first.
    """
    first = first_day_left(earlier, max(planned)) if earlier and planned else date.max
    waiting = sum(day >= first for day in planned)
    found = estimate(site.dataset, planned, site.postgres, max_bytes_per_second=settings.export_rate_limit)
    rows = sum(found.rows.values())
    if settings.log_as_json:
        name = site.dataset.name
        for day in planned:
            of_day = found.rows[day]
            size_bytes, seconds = found.bytes_of(of_day), round(found.seconds_of(of_day), 3)
            write_line("planned", dataset=name, day=day, rows=of_day, deleted=0, bytes=size_bytes, seconds=seconds)
        days = len(planned)
        write_line(
            "planned",
            dataset=name,
            days=days,
            waiting=waiting,
            rows=rows,
            deleted=0,
            bytes=found.bytes_of(rows),
            seconds=round(found.seconds_of(rows, days), 3),
        )
        return
    if not planned:
        click.echo(nothing_to_do([(site.dataset, at)], ranged=ranged, as_json=False))
        return
    form = "{:<10}  {:>14}  {:>10}  {:>10}"
    click.echo(form.format("day", "rows", "about", "takes"))
    for day in planned:
        of_day = found.rows[day]
        takes = took(found.seconds_of(of_day))
        click.echo(form.format(str(day), f"{of_day:,}", size(found.bytes_of(of_day)), takes))
    takes = duration(found.seconds_of(rows, len(planned)))
    budget = settings.run_budget
    ends = f"; no day begins once RUN_BUDGET ({budget}) has passed" if budget else ""
    click.echo(
        f"{site.dataset.label}: a run would do {counted(len(planned), 'day', 'days')} in this order: "
        f"{counted(rows, 'row', 'rows')}, about {size(found.bytes_of(rows))} of CSV, in about {takes}{ends}. "
        "Nothing was touched."
    )
    if waiting:
        others = " and ".join(dataset.label for dataset, _ in earlier)
        wait = counted(waiting, "of these days waits", "of these days wait")
        click.echo(f"{wait} for {others}, purged first: there are rows of {first}.")

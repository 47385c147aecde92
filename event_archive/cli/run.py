"""``event-archive run``: the nightly job in this process, through the assets themselves."""

import gc
import sys
import time
from datetime import date
from typing import TYPE_CHECKING

import click

from event_archive.cli.arguments import check_range, days_argument, load_settings, range_options, within

if TYPE_CHECKING:
    from event_archive.config.environment import Settings
    from event_archive.nightly.outcome import Totals


_THRESHOLDS = gc.get_threshold()
"""Python's own: ``main`` raises them while commands import."""


@click.command()
@days_argument()
@range_options
@click.option("--dry-run", is_flag=True, help="Archive, read back and compare, then roll back instead of committing.")
def run(days: tuple[date, ...], first: date | None, last: date | None, *, dry_run: bool) -> None:
    """Archives and purges every aged day that still holds rows, those of a range, or the days named (YYYY-MM-DD)."""
    check_range(days, first, last)
    from event_archive.cli.announce import announced
    from event_archive.domain.days import now_utc

    settings = load_settings(log_is_output=True)
    for day in [*days, *filter(None, (first, last))]:
        settings.dataset.require_aged(day, now_utc())
    with announced(settings) as totals:
        _run(settings, days, first, last, totals, dry_run=dry_run or settings.dry_run)
    if totals.failures:
        sys.exit(1)


def _run(
    settings: "Settings",
    days: tuple[date, ...],
    first: date | None,
    last: date | None,
    totals: "Totals",
    *,
    dry_run: bool,
) -> None:
    from event_archive.config import services
    from event_archive.domain.days import now_utc
    from event_archive.nightly.backlog import days_to_do
    from event_archive.observability.console import Display
    from event_archive.table.shape import current_shape

    started, dataset = time.monotonic(), settings.dataset
    if days:
        current_shape(settings.dataset, services.primary(settings))
        wanted = list(days)
    else:
        to_do = days_to_do(dataset, now_utc(), services.primary(settings)).days
        wanted = [day for day in to_do if within(day, first, last)]
    # A lake that is out of reach is one clear error now, not one a day.
    with services.lake(settings) as lake:
        lake.stat(dataset.path(dataset.start))
    display, remark = Display(as_json=settings.log_as_json), ""
    if not wanted:
        display.done(totals, time.monotonic() - started, remark="Nothing to do: no aged day holds rows.")
        return

    from event_archive.defs.build import build_definitions
    from event_archive.defs.in_process import instance_of_environment, run_day

    job = build_definitions(settings).resolve_job_def("archive_job")
    # What is there by now stays. The days make garbage, which is to be found soon.
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    with instance_of_environment() as instance, display.running(wanted):
        for day in wanted:
            # The first day is always done, or a short budget would never come to an end.
            if totals.days and settings.run_budget and time.monotonic() - started > settings.run_budget.total_seconds():
                remark = f"The run's budget of {settings.run_budget} is used up; the next run goes on with {day}."
                break
            result = run_day(job, day, instance, dry_run=dry_run)
            totals.add(result)
            display.day(result)
            if result.unreachable:
                remark = "A service is out of reach; the days that are left were not tried."
                break
    display.done(totals, time.monotonic() - started, remark=remark)

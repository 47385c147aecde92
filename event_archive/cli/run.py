"""``event-archive run``: the night in this process, and its plan. Not here: the days' order, what is done to a day."""

import gc
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from typing import TYPE_CHECKING

import click

from event_archive.cli import exit_code, stop
from event_archive.cli.arguments import check_range, days_argument, load_settings, range_options, within

if TYPE_CHECKING:
    from event_archive.config.environment import Settings
    from event_archive.nightly.outcome import Totals
    from event_archive.nightly.run import Reports
    from event_archive.observability.console import ConsoleDisplay
    from event_archive.observability.json_lines import JsonDisplay
    from event_archive.operations.site import Site


_THRESHOLDS = gc.get_threshold()
"""Python's own: ``run_command`` raises them while commands import."""


@click.command()
@days_argument()
@range_options
@click.option("--dry-run", is_flag=True, help="Archive, read back and compare, then roll back instead of committing.")
@click.option("--plan", "plan_only", is_flag=True, help="Say which days a run would do and about what they take.")
def run(days: tuple[date, ...], first: date | None, last: date | None, *, dry_run: bool, plan_only: bool) -> None:
    """Archives and purges every aged day that still has rows, those of a range, or the days named (YYYY-MM-DD)."""
    check_range(days, first, last)
    from event_archive.config.environment import dagster_home
    from event_archive.config.services import lake, primary, replica
    from event_archive.domain.days import now_utc
    from event_archive.observability.announcement import announced
    from event_archive.operations.claim import claim_first, owner
    from event_archive.operations.site import Site

    started, settings = time.monotonic(), load_settings(log_is_output=True)
    for day in [*days, *filter(None, (first, last))]:
        settings.dataset.require_aged(day, now_utc())
    if plan_only:
        dagster_home()
        with lake(settings) as opened:
            site = Site(settings.dataset, primary(settings), opened)
            planned = _planned(site, days, first, last)
            owner(site)
            _show_plan(settings, site, planned)
        return
    with announced(settings, stop.requested) as totals, lake(settings) as opened:
        # What is wrong with it is to be known in a night without days, too.
        dagster_home()
        site = Site(settings.dataset, primary(settings), opened, replica(settings))
        planned = _planned(site, days, first, last)
        if planned:
            # Before the first day: a run that may do none, or whose lake is away, is told so once and leaves nothing.
            claim_first(site)
        complete = not (days or first or last)
        _run(settings, site, planned, totals, started, complete=complete, dry_run=dry_run or settings.dry_run)
    if totals.failures:
        sys.exit(exit_code(failed.cause for failed in totals.failures if failed.cause))


def _planned(site: "Site", days: tuple[date, ...], first: date | None, last: date | None) -> list[date]:
    """The days of a run, in their order."""
    from event_archive.domain.days import now_utc
    from event_archive.nightly.attempts import read_attempts
    from event_archive.nightly.backlog import days_to_do
    from event_archive.nightly.plan import plan
    from event_archive.table.shape import current_shape

    now = now_utc()
    if days:
        current_shape(site.dataset, site.postgres)
        return list(days)
    found = days_to_do(site.dataset, now, site.postgres)
    attempts = read_attempts(site.dataset, site.lake)
    # A day that failed after its rows were gone, at its report or verification, has no rows and is not done.
    failed = {day for day, attempt in attempts.items() if attempt.failed and site.dataset.is_aged(day, now)}
    wanted = [day for day in failed.union(found.days) if within(day, first, last)]
    return plan(wanted, attempts, found.staying, now=now)


def _run(
    settings: "Settings",
    site: "Site",
    planned: list[date],
    totals: "Totals",
    started: float,
    *,
    complete: bool,
    dry_run: bool,
) -> None:
    from event_archive.nightly.estimate import rows_if_counted
    from event_archive.nightly.run import Night, run_days

    display = _display(settings)
    if not planned:
        where = "" if complete else " in this range"
        remark = f"Nothing to do: no aged day{where} has rows."
        display.run_ends(totals, time.monotonic() - started, outcome="done", remark=remark)
        return
    rows = rows_if_counted(site.dataset, planned, site.postgres) if display.counts_beforehand else {}
    remark = outcome = ""
    try:
        with _reports(site) as reports, display.running(planned, rows):
            night = Night(
                site,
                display,
                dry_run=dry_run,
                verify=settings.verify_nightly,
                message_prefix=settings.logical_message_prefix,
                max_bytes_per_second=settings.export_rate_limit,
                max_replica_lag_bytes=settings.max_replica_lag,
                reports=reports,
                stopped=stop.requested,
            )
            # What is there by now stays. The days make garbage, which is to be found soon.
            gc.freeze()
            gc.set_threshold(*_THRESHOLDS)
            remark = run_days(night, planned, totals, budget=settings.run_budget, started=started, complete=complete)
        outcome = "failed" if totals.failures else "done"
    finally:
        if outcome or stop.requested():
            display.run_ends(totals, time.monotonic() - started, outcome=outcome or "stopped", remark=remark)


def _display(settings: "Settings") -> "ConsoleDisplay | JsonDisplay":
    if settings.log_as_json:
        from event_archive.observability.json_lines import JsonDisplay

        return JsonDisplay()
    from event_archive.observability.console import ConsoleDisplay

    return ConsoleDisplay()


def _reports(site: "Site") -> "AbstractContextManager[Reports]":
    """Dagster's records, where DAGSTER_HOME says that there are any. Only then is Dagster imported."""
    from event_archive.config.environment import dagster_home

    if dagster_home() is None:
        from event_archive.nightly.run import NO_REPORTS

        return nullcontext(NO_REPORTS)
    from event_archive.defs.report import reporting

    return reporting(site.dataset)


def _show_plan(settings: "Settings", site: "Site", planned: list[date]) -> None:
    from event_archive.domain.wording import counted, duration, size
    from event_archive.nightly.estimate import estimate
    from event_archive.observability.json_lines import write_line

    found = estimate(site.dataset, planned, site.postgres)
    rows = sum(found.rows.values())
    if settings.log_as_json:
        for day in planned:
            of_day = found.rows[day]
            seconds = round(found.seconds_of(of_day), 3)
            write_line("planned", day=day, rows=of_day, deleted=0, bytes=found.bytes_of(of_day), seconds=seconds)
        seconds = round(found.seconds_of(rows), 3)
        write_line("planned", days=len(planned), rows=rows, deleted=0, bytes=found.bytes_of(rows), seconds=seconds)
        return
    form = "{:<10}  {:>14}  {:>10}  {:>10}"
    click.echo(form.format("day", "rows", "about", "takes"))
    for day in planned:
        of_day = found.rows[day]
        click.echo(
            form.format(str(day), f"{of_day:,}", size(found.bytes_of(of_day)), duration(found.seconds_of(of_day)))
        )
    click.echo(
        f"{site.dataset.table}: a run would do {counted(len(planned), 'day', 'days')} in this order: {rows:,} rows, "
        f"about {size(found.bytes_of(rows))} of CSV, in about {duration(found.seconds_of(rows))}. Nothing was touched."
    )

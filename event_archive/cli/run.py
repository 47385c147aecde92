"""``event-archive run``: the night in this process, and its plan. Not here: the days' order, what is done to a day."""

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

import click

from event_archive.cli import EXIT_FAILED, exit_code, stop
from event_archive.cli.arguments import (
    check_range,
    dataset_option,
    days_argument,
    each_dataset,
    load_pipelines,
    range_options,
    within,
)

if TYPE_CHECKING:
    from event_archive.config.environment import PipelineSettings, Settings
    from event_archive.domain.dataset import Dataset
    from event_archive.errors import EventArchiveError
    from event_archive.nightly.day import Observer, Reports
    from event_archive.nightly.outcome import Totals
    from event_archive.nightly.run import Share
    from event_archive.observability.console import ConsoleDisplay
    from event_archive.observability.json_lines import JsonDisplay
    from event_archive.operations.site import Site


_THRESHOLDS = gc.get_threshold()
"""Python's own: ``run_command`` raises them while commands import."""


@click.command()
@days_argument()
@range_options
@dataset_option
@click.option("--dry-run", is_flag=True, help="Archive, read back and compare, then roll back instead of committing.")
@click.option("--plan", "plan_only", is_flag=True, help="Say which days a run would do and about what they take.")
def run(
    days: tuple[date, ...],
    first: date | None,
    last: date | None,
    datasets: tuple[str, ...],
    *,
    dry_run: bool,
    plan_only: bool,
) -> None:
    """Archives and purges every aged day that still has rows, those of a range, or the days named (YYYY-MM-DD)."""
    check_range(days, first, last)
    from event_archive.config.datasets import load_datasets
    from event_archive.config.environment import dagster_home
    from event_archive.domain.days import now_utc
    from event_archive.observability.announcement import announced

    started, pipelines = time.monotonic(), load_pipelines(datasets, log_is_output=True)
    for of in pipelines:
        for day in [*days, *filter(None, (first, last))]:
            of.dataset.require_aged(day, now_utc())
    wanted = _Wanted(days, first, last)
    if plan_only:
        dagster_home()
        each_dataset(pipelines, lambda settings: _plan_only(settings, wanted))
        return
    with ExitStack() as stack:
        names = [of.dataset.name for of in load_datasets()]
        parts = [
            _Part(
                of,
                stack.enter_context(announced(of, stop.requested, [name for name in names if name != of.entry.name])),
            )
            for of in pipelines
        ]
        # What is wrong with it is to be known in a night without days, too.
        dagster_home()
        for part in parts:
            _prepare(part, wanted, stack, alone=len(parts) == 1)
        _run(parts, wanted, started, dry_run=dry_run)
    failures = [failed for part in parts for failed in part.causes]
    if failures:
        code = exit_code(failures)
        # Where some dataset was done, the settings are not wrong as a whole.
        sys.exit(EXIT_FAILED if any(not part.causes for part in parts) else code)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The days that the arguments ask for: those named, a range that may be open, or all."""

    days: tuple[date, ...]
    first: date | None
    last: date | None

    @property
    def all(self) -> bool:
        """No argument says which."""
        return not (self.days or self.first or self.last)


@dataclass(slots=True)
class _Part:
    """One dataset of a run. ``settings`` and ``site`` are there once it could begin."""

    pipeline: "PipelineSettings"
    totals: "Totals"
    settings: "Settings | None" = None
    site: "Site | None" = None
    planned: list[date] = field(default_factory=list)

    @property
    def causes(self) -> "list[EventArchiveError]":
        """Why it failed, or days of it."""
        of_days = [failed.cause for failed in self.totals.failures if failed.cause]
        return [self.totals.failure, *of_days] if self.totals.failure else of_days


def _prepare(part: _Part, wanted: _Wanted, stack: ExitStack, *, alone: bool) -> None:
    """Plans a dataset's days. Among several, one that cannot begin stops no other."""
    from event_archive.config.services import lake, primary, replica
    from event_archive.errors import EventArchiveError
    from event_archive.operations.claim import claim_first
    from event_archive.operations.site import Site

    try:
        settings = part.pipeline.with_secrets()
        opened = stack.enter_context(lake(settings))
        site = Site(settings.dataset, primary(settings), opened, replica(settings))
        part.planned = _planned(site, wanted)
        if part.planned:
            # Before the first day: a run that may do none, or whose lake is away, is told so once and leaves nothing.
            claim_first(site)
        part.settings, part.site = settings, site
    except EventArchiveError as error:
        if alone or stop.requested():
            raise
        part.totals.failure = error


def _plan_only(settings: "Settings", wanted: _Wanted) -> None:
    from event_archive.cli.plan import show_plan
    from event_archive.config.services import lake, primary
    from event_archive.operations.claim import owner
    from event_archive.operations.site import Site

    with lake(settings) as opened:
        site = Site(settings.dataset, primary(settings), opened)
        planned = _planned(site, wanted)
        owner(site)
        show_plan(site, planned, budget=settings.run_budget, as_json=settings.log_as_json)


def _planned(site: "Site", wanted: _Wanted) -> list[date]:
    """The days of a run, in their order."""
    from event_archive.domain.days import now_utc
    from event_archive.nightly.attempts import read_attempts
    from event_archive.nightly.backlog import days_to_do
    from event_archive.nightly.plan import plan
    from event_archive.table.shape import current_shape

    now = now_utc()
    if wanted.days:
        current_shape(site.dataset, site.postgres)
        return list(wanted.days)
    found = days_to_do(site.dataset, now, site.postgres)
    attempts = read_attempts(site.dataset, site.lake)
    # A day that failed after its rows were gone, at its report or verification, has no rows and is not done.
    failed = {day for day, attempt in attempts.items() if attempt.failed and site.dataset.is_aged(day, now)}
    days = [day for day in failed.union(found.days) if within(day, wanted.first, wanted.last)]
    return plan(days, attempts, found.staying, now=now)


def _run(parts: "list[_Part]", wanted: _Wanted, started: float, *, dry_run: bool) -> None:
    from event_archive.nightly.outcome import Totals
    from event_archive.nightly.run import run_shares

    display = _display(as_json=parts[0].pipeline.log_as_json)
    for part in parts:
        if part.totals.failure:
            display.dataset_failed(part.pipeline.dataset.name, str(part.totals.failure))
    remarks: list[str] = []
    outcome = ""
    try:
        if any(part.planned for part in parts if part.site):
            with _reports() as reports, display.running(_rows(parts, counted=display.counts_beforehand)):
                shares = [share for part in parts for share in _shares(part, display, reports, wanted, dry_run=dry_run)]
                # What is there by now stays. The days make garbage, which is to be found soon.
                gc.freeze()
                gc.set_threshold(*_THRESHOLDS)
                budget = next(part.settings.run_budget for part in parts if part.settings)
                remarks = run_shares(shares, budget=budget, started=started)
        elif any(part.site for part in parts):
            remarks = [f"Nothing to do: no aged day{'' if wanted.all else ' in this range'} has rows."]
        outcome = "failed" if any(part.causes for part in parts) else "done"
    finally:
        if outcome or stop.requested():
            totals = Totals.of([part.totals for part in parts])
            failed = [part.pipeline.dataset.name for part in parts if part.totals.failure]
            if failed:
                remarks.insert(0, f"Datasets that failed: {', '.join(failed)}.")
            seconds = time.monotonic() - started
            display.run_ends(totals, seconds, outcome=outcome or "stopped", remark=" ".join(remarks))


def _rows(parts: list[_Part], *, counted: bool) -> dict[tuple[str, date], int | None]:
    """How many rows each day of each dataset has, where that is to be counted."""
    from event_archive.nightly.estimate import rows_if_counted

    found: dict[tuple[str, date], int | None] = {}
    for part in parts:
        if part.site is not None:
            dataset = part.site.dataset
            rows = rows_if_counted(dataset, part.planned, part.site.postgres) if counted and part.planned else {}
            found |= {(dataset.name, day): rows.get(day) for day in part.planned}
    return found


def _shares(
    part: _Part, display: "Observer", reports: "Callable[[Dataset], Reports]", wanted: _Wanted, *, dry_run: bool
) -> "Iterator[Share]":
    """What is to be done for a dataset that could begin."""
    from event_archive.nightly.day import Night
    from event_archive.nightly.run import Share

    if part.site is None or part.settings is None:
        return
    settings = part.settings
    night = Night(
        part.site,
        display,
        dry_run=dry_run or settings.dry_run,
        verify=settings.verify_nightly,
        message_prefix=settings.logical_message_prefix,
        max_bytes_per_second=settings.export_rate_limit,
        max_replica_lag_bytes=settings.max_replica_lag,
        reports=reports(part.site.dataset),
        stopped=stop.requested,
    )
    yield Share(night, part.planned, complete=wanted.all, totals=part.totals, first_left=_first_left(settings))


def _first_left(settings: "Settings") -> "Callable[[date], date] | None":
    """As ``Share.first_left``."""
    if not settings.entry.after:
        return None
    from event_archive.config.datasets import chosen
    from event_archive.config.services import primary
    from event_archive.nightly.backlog import first_day_left

    earlier = [of.with_secrets() for of in chosen(settings.entry.after)]
    return lambda last: min(first_day_left(of.dataset, last, primary(of)) for of in earlier)


def _display(*, as_json: bool) -> "ConsoleDisplay | JsonDisplay":
    if as_json:
        from event_archive.observability.json_lines import JsonDisplay

        return JsonDisplay()
    from event_archive.observability.console import ConsoleDisplay

    return ConsoleDisplay()


def _reports() -> "AbstractContextManager[Callable[[Dataset], Reports]]":
    """Dagster's records, where DAGSTER_HOME says that there are any. Only then is Dagster imported."""
    from event_archive.config.environment import dagster_home

    if dagster_home() is None:
        from event_archive.nightly.day import NO_REPORTS

        return nullcontext(lambda _: NO_REPORTS)
    from event_archive.defs.report import reporting

    return reporting()

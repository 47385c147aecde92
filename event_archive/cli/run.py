"""``event-archive run``: the night in this process, and its plan. Not here: the days' order, what is done to a day."""

import gc
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from datetime import date, datetime
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
    from event_archive.nightly.purged_first import Purged
    from event_archive.nightly.run import Share
    from event_archive.observability.console import ConsoleDisplay
    from event_archive.observability.json_lines import JsonDisplay
    from event_archive.operations.site import Site


_THRESHOLDS = gc.get_threshold()
"""Python's own: ``run_command`` raises them while commands import."""


@click.command(short_help="Archives every aged day that has rows, and purges it.")
@days_argument
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
    from event_archive.config.datasets import chosen, earlier
    from event_archive.config.environment import dagster_home
    from event_archive.domain.days import now_utc
    from event_archive.observability.announcement import announced

    started, known = time.monotonic(), load_pipelines((), log_is_output=True)
    pipelines = chosen(known, datasets)
    for of in pipelines:
        for day in [*days, *filter(None, (first, last))]:
            of.dataset.require_aged(day, now_utc())
    wanted = _Wanted(days, first, last)
    if plan_only:
        dagster_home()
        each_dataset(pipelines, lambda settings: _plan_only(settings, wanted, earlier(known, settings)))
        return
    with ExitStack() as stack:
        names = {of.entry.name for of in known}
        parts = [
            _Part(of, stack.enter_context(announced(of, stop.requested, names - {of.entry.name})), earlier(known, of))
            for of in pipelines
        ]
        # What is wrong with it is to be known in a night without days, too.
        dagster_home()
        for part in parts:
            part.begun = _begun(part, wanted, stack, alone=len(parts) == 1)
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


@dataclass(frozen=True, slots=True)
class _Begun:
    """A dataset that could begin: its settings, secrets included, and what its ``Share`` is made of."""

    settings: "Settings"
    site: "Site"
    days: list[date]
    aged_at: datetime
    last_tried: str
    earlier: "list[Purged]"


@dataclass(slots=True)
class _Part:
    """One dataset of a run.

    Attributes:
        pipeline: its settings.
        totals: over its days.
        earlier: the datasets whose days are purged first.
        begun: None where it could not begin.
    """

    pipeline: "PipelineSettings"
    totals: "Totals"
    earlier: "list[PipelineSettings]"
    begun: _Begun | None = None

    @property
    def causes(self) -> "list[EventArchiveError]":
        """Why it failed, or days of it."""
        of_days = [failed.cause for failed in self.totals.failures if failed.cause]
        return [self.totals.failure, *of_days] if self.totals.failure else of_days


def _begun(part: _Part, wanted: _Wanted, stack: ExitStack, *, alone: bool) -> _Begun | None:
    """Plans a dataset's days. Among several, one that cannot begin stops no other."""
    from event_archive.config.services import lake, primary, replica, with_primaries
    from event_archive.errors import EventArchiveError
    from event_archive.operations.claim import claim_first
    from event_archive.operations.site import Site

    try:
        settings = part.pipeline.with_secrets()
        opened = stack.enter_context(lake(settings))
        site = Site(settings.dataset, primary(settings), opened, replica(settings))
        planned, aged_at, last_tried = _planned(site, wanted)
        if planned:
            # Before the first day: a run that may do none, or whose lake is away, is told so once and leaves nothing.
            claim_first(site)
        return _Begun(settings, site, planned, aged_at, last_tried, with_primaries(part.earlier))
    except EventArchiveError as error:
        if alone or stop.requested():
            raise
        part.totals.failure = error
        return None


def _plan_only(settings: "Settings", wanted: _Wanted, before: "list[PipelineSettings]") -> None:
    from event_archive.cli.plan import show_plan
    from event_archive.config.services import lake, primary, with_primaries
    from event_archive.operations.claim import owner
    from event_archive.operations.site import Site

    with lake(settings) as opened:
        site = Site(settings.dataset, primary(settings), opened)
        planned, aged_at, _ = _planned(site, wanted)
        if planned:
            owner(site)
        first = with_primaries(before)
        show_plan(settings, site, planned, aged_at, ranged=not wanted.all, earlier=first)


def _planned(site: "Site", wanted: _Wanted) -> tuple[list[date], datetime, str]:
    """The days of a run, in their order; by when they are aged; and when a run last tried one, where that matters."""
    from event_archive.domain.days import now_utc
    from event_archive.nightly.attempts import read_attempts
    from event_archive.nightly.backlog import aged_at, days_to_do
    from event_archive.nightly.plan import plan

    now = now_utc()
    if wanted.days:
        return list(wanted.days), aged_at(site.dataset, wanted.days, site.postgres), ""
    found = days_to_do(site.dataset, now, site.postgres)
    attempts = read_attempts(site.dataset, site.lake)
    # A day that failed after its rows were gone, at its report or verification, has no rows and is not done.
    failed = {day for day, attempt in attempts.items() if attempt.failed and site.dataset.is_aged(day, found.at)}
    days = [day for day in failed.union(found.days) if within(day, wanted.first, wanted.last)]
    last_tried = max((attempt.at for attempt in attempts.values()), default="")
    return plan(days, attempts, found.staying, now=now), found.at, last_tried


def _run(parts: "list[_Part]", wanted: _Wanted, started: float, *, dry_run: bool) -> None:
    from event_archive.cli.plan import nothing_to_do
    from event_archive.nightly.outcome import Totals
    from event_archive.nightly.run import run_shares

    display = _display(as_json=parts[0].pipeline.log_as_json)
    _show_failures(parts, display)
    begun = [(part.begun, part.totals) for part in parts if part.begun]
    remarks, outcome = list[str](), ""
    try:
        if any(of.days for of, _ in begun):
            rows = _rows([of for of, _ in begun], counted=display.counts_beforehand)
            with _reports() as reports, display.running(rows):
                shares = [_share(of, totals, display, reports, wanted, dry_run=dry_run) for of, totals in begun]
                # What is there by now stays. The days make garbage, which is to be found soon.
                gc.freeze()
                gc.set_threshold(*_THRESHOLDS)
                remarks = run_shares(shares, budget=begun[0][0].settings.run_budget, started=started)
            _show_failures([part for part in parts if part.begun], display)
        elif len(begun) == len(parts):
            looked_at = [(of.site.dataset, of.aged_at) for of, _ in begun]
            remarks = [nothing_to_do(looked_at, ranged=not wanted.all, as_json=parts[0].pipeline.log_as_json)]
        outcome = "failed" if any(part.causes for part in parts) else "done"
    finally:
        if outcome or stop.requested():
            totals = Totals.of([part.totals for part in parts])
            failed = [part.pipeline.dataset.name for part in parts if part.totals.failure]
            if failed:
                remarks.insert(0, f"Datasets that failed: {', '.join(failed)}.")
            seconds = time.monotonic() - started
            display.run_ends(totals, seconds, outcome=outcome or "stopped", remark=" ".join(remarks))


def _show_failures(parts: list[_Part], display: "ConsoleDisplay | JsonDisplay") -> None:
    """Says why datasets could not begin, or not go on."""
    for part in parts:
        if part.totals.failure:
            display.dataset_failed(part.pipeline.dataset.name, str(part.totals.failure))


def _rows(datasets: list[_Begun], *, counted: bool) -> dict[tuple[str, date], int | None]:
    """How many rows each day of each dataset has, where that is to be counted."""
    from event_archive.nightly.estimate import rows_if_counted

    found: dict[tuple[str, date], int | None] = {}
    for of in datasets:
        dataset = of.site.dataset
        rows = rows_if_counted(dataset, of.days, of.site.postgres) if counted and of.days else {}
        found |= {(dataset.name, day): rows.get(day) for day in of.days}
    return found


def _share(
    of: _Begun,
    totals: "Totals",
    display: "Observer",
    reports: "Callable[[Dataset], Reports]",
    wanted: _Wanted,
    *,
    dry_run: bool,
) -> "Share":
    """What is to be done for a dataset."""
    from event_archive.nightly.day import Night
    from event_archive.nightly.run import Share

    settings = of.settings
    night = Night(
        of.site,
        display,
        dry_run=dry_run or settings.dry_run,
        verify=settings.verify_nightly,
        message_prefix=settings.logical_message_prefix,
        max_bytes_per_second=settings.export_rate_limit,
        max_replica_lag_bytes=settings.max_replica_lag,
        reports=reports(of.site.dataset),
        stopped=stop.requested,
    )
    return Share(night, of.days, wanted.all, totals, of.earlier, of.last_tried)


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

"""The night itself: one day after another through archive and purge, as the command line runs it.

Here: what is done to a day, what is tried again, when a night ends early. Not here: which days, and in which order
(``plan.py``); what Dagster does, whose assets call the same operations; who is told of it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

from event_archive.domain.days import now_utc
from event_archive.domain.progress import Progress
from event_archive.domain.wording import counted
from event_archive.errors import (
    EventArchiveError,
    IntegrityError,
    LockedError,
    RecordsError,
    UnexpectedError,
    UnreachableError,
)
from event_archive.lake.protocol import Lake
from event_archive.nightly.attempts import remember
from event_archive.nightly.backlog import aged_rows
from event_archive.nightly.outcome import DayOutcome, Totals
from event_archive.nightly.replicas import await_replicas
from event_archive.operations.archive import ArchivedDay, archive_day
from event_archive.operations.purge import PurgedDay, purge_day
from event_archive.operations.site import Site
from event_archive.table.rows import RowsOfDay
from event_archive.table.shape import shape_if_any

if TYPE_CHECKING:
    # pyarrow is a fifth of the memory of a night that asks for no verification.
    from event_archive.operations.verify import VerifiedDay

logger = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = (15, 30)
"""As ``defs.failures.RETRY_SECONDS``: a restart of PostgreSQL or a lock of a migration is over by then."""

Result = TypeVar("Result")


class Observer(Progress, Protocol):
    """Told how a run goes, as it goes: days, and the phases and blocks of each."""

    def day_begins(self, day: date, dataset: str) -> None:
        """A day of a dataset, which may have no name, begins."""
        ...

    def day_ends(self, outcome: DayOutcome) -> None:
        """A day is over, whatever became of it."""
        ...


class Reports(Protocol):
    """Told of what each step of a day did, once it is done: Dagster's records, where they are kept.

    Every method raises ``RecordsError`` where that cannot be recorded.
    """

    def counted(self, day: date, rows: RowsOfDay) -> None:
        """The day's rows were counted."""
        ...

    def archived(self, archived: ArchivedDay, lake: Lake) -> None:
        """The day's file is up to date."""
        ...

    def purged(self, purged: PurgedDay) -> None:
        """The day's rows were deleted, or left for a reason."""
        ...

    def verified(self, verified: "VerifiedDay") -> None:
        """The day's file was verified."""
        ...


class NoReports:
    """``Reports`` that are kept nowhere."""

    def counted(self, day: date, rows: RowsOfDay) -> None:
        """Records nothing."""

    def archived(self, archived: ArchivedDay, lake: Lake) -> None:
        """Records nothing."""

    def purged(self, purged: PurgedDay) -> None:
        """Records nothing."""

    def verified(self, verified: "VerifiedDay") -> None:
        """Records nothing."""


NO_REPORTS = NoReports()


@dataclass(frozen=True, slots=True)
class Night:
    """How the days of one run are done.

    Attributes:
        site: the dataset, with its database and its lake.
        observer: told how the run goes.
        dry_run: everything but the commit.
        verify: each file is read by ``verify`` as well, when its day is purged.
        message_prefix: as for ``purge_day``.
        max_bytes_per_second: as for ``archive_day``.
        max_replica_lag_bytes: streaming replicas are waited for until they are no further behind; None to ask nobody.
        reports: told of every step that is done.
        stopped: says whether the process was told to stop.
    """

    site: Site
    observer: Observer
    dry_run: bool = False
    verify: bool = False
    message_prefix: str | None = None
    max_bytes_per_second: int | None = None
    max_replica_lag_bytes: int | None = None
    reports: Reports = NO_REPORTS
    stopped: Callable[[], bool] = bool


@dataclass(slots=True)
class Share:
    """One dataset's part in a run.

    Attributes:
        night: how its days are done.
        days: those that are left, in their order.
        complete: they are all the days that there are to do, and not some that a person named.
        totals: the sums over its days, filled in as they go.
        first_left: of the datasets whose days are purged before this one's, the first day that still has rows, among
            those up to the day given; the day after it where there is none. None where no dataset comes before.
    """

    night: Night
    days: list[date]
    complete: bool
    totals: Totals
    first_left: Callable[[date], date] | None = None

    def next_day(self) -> date | None:
        """The next day that may be done; None where there is none, or all wait for another dataset."""
        if not self.days or self.first_left is None:
            return next(iter(self.days), None)
        first = self.first_left(max(self.days))
        return next((day for day in self.days if day < first), None)


def run_shares(shares: Sequence[Share], *, budget: timedelta | None, started: float) -> list[str]:
    """Does one day of each dataset in turn, however the days before went, as long as services answer and time is left.

    Args:
        shares: what is to be done.
        budget: once it has passed, no day begins; the first always does, or a budget shorter than one day's work would
            never get anywhere.
        started: when the budget began, by ``time.monotonic``.

    Returns:
        Why days are left; empty where none are.

    Raises:
        KeyboardInterrupt: the process was told to stop.
    """
    began = now_utc().isoformat(timespec="seconds")
    try:
        return _in_turn(shares, budget, started)
    finally:
        for share in shares:
            site = share.night.site
            remember(site.dataset, site.lake, share.totals, at=began, days_left=share.days, complete=share.complete)


def _in_turn(shares: Sequence[Share], budget: timedelta | None, started: float) -> list[str]:
    remarks: list[str] = []
    at_work, begun = list(shares), False
    while True:
        waiting = list[Share]()
        for share in tuple(at_work):
            _stop_if_requested(share.night)
            day = _next_day(share)
            if day is None:
                waiting += [share] * bool(share.days)
                continue
            name = share.night.site.dataset.name
            if begun and budget and time.monotonic() - started > budget.total_seconds():
                whose = f"{name}, " if name else ""
                return [*remarks, f"The run's budget of {budget} is used up; the next run goes on with {whose}{day}."]
            begun = True
            cause = _do(share, day)
            if isinstance(cause, RecordsError):
                return [*remarks, "Dagster's own records are out of reach; the days that are left were not tried."]
            if isinstance(cause, UnreachableError) and not _services_answer(share.night.site):
                whose = f"{name}: a" if name else "A"
                remarks.append(f"{whose} service is out of reach; the days that are left were not tried.")
                at_work.remove(share)
        if len(waiting) == len([share for share in at_work if share.days]):
            return [*remarks, *map(_waits, waiting)]


def _next_day(share: Share) -> date | None:
    try:
        return share.next_day()
    except EventArchiveError as error:
        _stop_if_requested(share.night)
        share.totals.failure = error
        return None


def _waits(share: Share) -> str:
    days = counted(len(share.days), "day waits", "days wait")
    return f"{share.night.site.dataset.label}: {days} for a dataset that is purged first."


def _do(share: Share, day: date) -> EventArchiveError | None:
    """Does one day; why it failed, if it did."""
    night, totals = share.night, share.totals
    share.days.remove(day)
    totals.day_in_hand = day
    night.observer.day_begins(day, night.site.dataset.name)
    outcome = _run_day(night, day)
    totals.add(outcome)
    night.observer.day_ends(outcome)
    _stop_if_requested(night)
    return outcome.cause


def _run_day(night: Night, day: date) -> DayOutcome:
    """Does one day and says how it went, whatever the operations raise."""
    started = time.monotonic()
    outcome = DayOutcome(day, night.site.dataset.name)
    try:
        _steps(night, outcome)
    except LockedError:
        outcome.outcome = "locked"
    except Exception as error:  # noqa: BLE001 (hides nothing: the day has failed, and the other days have their turn)
        # An error that a stop led to says nothing of the day.
        _stop_if_requested(night)
        outcome.outcome = "failed"
        outcome.cause = error if isinstance(error, EventArchiveError) else UnexpectedError.of(error)
    outcome.seconds = time.monotonic() - started
    return outcome


def _steps(night: Night, done: DayOutcome) -> None:
    """Archives and purges a day; ``done`` says what was done, also where a step fails."""
    site, day = night.site, done.day
    night.observer.begin("counting")
    rows = _with_retries(night, lambda: aged_rows(site.dataset, day, site.postgres))
    night.reports.counted(day, rows)
    archived = _with_retries(
        night,
        lambda: archive_day(site, day, max_bytes_per_second=night.max_bytes_per_second, progress=night.observer),
    )
    done.archived(archived)
    night.reports.archived(archived, site.lake)
    purged = _with_retries(night, lambda: _purge(night, archived))
    done.purged(purged)
    night.reports.purged(purged)
    if night.verify and archived.etag and purged.outcome != "locked":
        _with_retries(night, lambda: _verify(night, day))


def _purge(night: Night, archived: ArchivedDay) -> PurgedDay:
    if night.max_replica_lag_bytes:
        await_replicas(night.site.postgres, night.max_replica_lag_bytes)
    return purge_day(
        night.site,
        archived.day,
        archived.record,
        dry_run=night.dry_run,
        message_prefix=night.message_prefix,
        progress=night.observer,
    )


def _verify(night: Night, day: date) -> None:
    from event_archive.operations.verify import verify_day

    site = night.site
    table = shape_if_any(site.dataset, site.postgres)
    verified = verify_day(site.dataset, day, table=table, lake=site.lake, progress=night.observer)
    night.reports.verified(verified)
    if verified.problems:
        raise IntegrityError(
            f"{verified.path} is damaged: {'; '.join(verified.problems)}. Rows of it may have been deleted from the "
            "table: bring the right file back (soft delete, a replica, a backup), then run the day again."
        )


def _with_retries(night: Night, step: Callable[[], Result]) -> Result:
    """Tries a step again where it failed for a reason that passes."""
    for wait_seconds in _RETRY_AFTER_SECONDS:
        try:
            return step()
        except EventArchiveError as error:
            _stop_if_requested(night)
            if not error.transient:
                raise
            logger.warning("trying again in %d s: %s", wait_seconds, error)
        time.sleep(wait_seconds)
    return step()


def _stop_if_requested(night: Night) -> None:
    if night.stopped():
        raise KeyboardInterrupt


def _services_answer(site: Site) -> bool:
    """Whether PostgreSQL and the lake answer: then the outage concerned one day only."""
    try:
        with site.postgres.transaction(str(site.dataset.table)) as connection:
            connection.execute("SELECT 1")
        site.lake.stat(site.dataset.path(now_utc().date()))
    except EventArchiveError:
        return False
    return True

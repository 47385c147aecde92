"""The night itself: one day after another, of each dataset in turn, as the command line runs it.

Here: whose turn it is, and when a night ends early. Not here: what is done to a day (``day``), in which order the days
of a dataset come (``plan``).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from event_archive.domain.days import now_utc
from event_archive.domain.wording import counted
from event_archive.errors import EventArchiveError, RecordsError, UnreachableError
from event_archive.nightly.attempts import remember
from event_archive.nightly.day import Night, run_day, stop_if_requested
from event_archive.nightly.outcome import DayOutcome, Totals
from event_archive.nightly.purged_first import Purged, first_day_left
from event_archive.operations.site import Site


@dataclass(slots=True)
class Share:
    """One dataset's part in a run.

    Attributes:
        night: how its days are done.
        days: those that are left, in their order.
        complete: they are all the days that there are to do, and not some that a person named.
        totals: the sums over its days, filled in as they go.
        earlier: the datasets whose days are purged before this one's.
        last_tried: when a run last tried a day of it, as ``Attempt.at``.
    """

    night: Night
    days: list[date]
    complete: bool
    totals: Totals
    earlier: Sequence[Purged] = ()
    last_tried: str = ""

    def next_day(self) -> date | None:
        """The next day that may be done; None where there is none, or all wait for another dataset."""
        if not self.days or not self.earlier:
            return next(iter(self.days), None)
        first = first_day_left(self.earlier, max(self.days))
        return next((day for day in self.days if day < first), None)


def run_shares(shares: Sequence[Share], *, budget: timedelta | None, started: float) -> list[str]:
    """Does one day of each dataset in turn, however the days before went, as long as services answer and time is left.

    The dataset that has waited longest begins: a budget that one day fits serves each of them within so many runs.

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
        return _in_turn(sorted(shares, key=lambda share: share.last_tried), budget, started)
    finally:
        for share in shares:
            site = share.night.site
            remember(site.dataset, site.lake, share.totals, at=began, days_left=share.days, complete=share.complete)


def _in_turn(shares: Sequence[Share], budget: timedelta | None, started: float) -> list[str]:
    remarks: list[str] = []
    at_work, begun = list(shares), False
    while True:
        waiting, done = list[Share](), False
        for share in tuple(at_work):
            stop_if_requested(share.night)
            day = _next_day(share)
            if day is None:
                # Of one that failed, nobody knows for what.
                waiting += [share] * bool(share.days and not share.totals.failure)
                continue
            if begun and budget and time.monotonic() - started > budget.total_seconds():
                left = counted(sum(len(of.days) for of in shares), "of its days was", "of its days were")
                return [*remarks, f"The run's budget of {budget} is used up; {left} not tried."]
            begun = done = True
            cause = _do(share, day)
            if isinstance(cause, RecordsError):
                return [*remarks, _not_tried("Dagster's own records are out of reach", at_work)]
            if isinstance(cause, UnreachableError) and not _services_answer(share.night.site):
                name = share.night.site.dataset.name
                whose = f"{name}: a" if name else "A"
                remarks.append(_not_tried(f"{whose} service is out of reach", [share]))
                at_work.remove(share)
        if not done:
            return [*remarks, *map(_waits, waiting)]


def _next_day(share: Share) -> date | None:
    try:
        day = share.next_day()
        # What failed in a former turn may have been for a moment.
        share.totals.failure = None
        return day
    except EventArchiveError as error:
        stop_if_requested(share.night)
        share.totals.failure = error
        return None


def _not_tried(why: str, shares: Sequence[Share]) -> str:
    return f"{why}; the days that are left were not tried." if any(share.days for share in shares) else f"{why}."


def _waits(share: Share) -> str:
    days = counted(len(share.days), "day waits", "days wait")
    return f"{share.night.site.dataset.label}: {days} for a dataset that is purged first."


def _do(share: Share, day: date) -> EventArchiveError | None:
    """Does one day; why it failed, if it did."""
    night, totals = share.night, share.totals
    share.days.remove(day)
    totals.day_in_hand = day
    night.observer.day_begins(day, night.site.dataset.name)
    outcome = DayOutcome(day, night.site.dataset.name)
    try:
        run_day(night, outcome)
    except KeyboardInterrupt:
        totals.stop(outcome.rows_appended)
        raise
    totals.add(outcome)
    night.observer.day_ends(outcome)
    stop_if_requested(night)
    return outcome.cause


def _services_answer(site: Site) -> bool:
    """Whether PostgreSQL and the lake answer: then the outage concerned one day only."""
    try:
        with site.postgres.transaction(str(site.dataset.table)) as connection:
            connection.execute("SELECT 1")
        site.lake.stat(site.dataset.path(now_utc().date()))
    except EventArchiveError:
        return False
    return True

"""One day of the night: through archive and purge, as the command line does it.

Here: what is done to a day, what is tried again, who is told of each step. Not here: which days, and in which order
(``plan``, ``run``); what Dagster does, whose assets call the same operations.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Protocol, TypeVar

from event_archive.domain.progress import Progress
from event_archive.errors import (
    EventArchiveError,
    IntegrityError,
    LockedError,
    UnexpectedError,
)
from event_archive.lake.protocol import Lake
from event_archive.nightly.backlog import aged_rows
from event_archive.nightly.outcome import DayOutcome
from event_archive.nightly.replicas import await_replicas
from event_archive.operations.archive import ArchivedDay, archive_day
from event_archive.operations.drop_plan import Recorded
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

    @property
    def recorded(self) -> Recorded | None:
        """As for ``purge_day``: what is recorded of other days."""
        ...

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

    recorded: Recorded | None = None

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
    """How the days of one dataset are done.

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


def run_day(night: Night, outcome: DayOutcome) -> None:
    """Does one day, and says in its outcome how it went, whatever the operations raise.

    Raises:
        KeyboardInterrupt: the process was told to stop; the numbers say what was done before that.
    """
    started = time.monotonic()
    try:
        _steps(night, outcome)
    except LockedError:
        outcome.outcome = "locked"
    except Exception as error:  # noqa: BLE001 (hides nothing: the day has failed, and the other days have their turn)
        # An error that a stop led to says nothing of the day.
        stop_if_requested(night)
        outcome.outcome = "failed"
        outcome.cause = error if isinstance(error, EventArchiveError) else UnexpectedError.of(error)
    outcome.seconds = time.monotonic() - started


def _steps(night: Night, done: DayOutcome) -> None:
    """Archives and purges a day; ``done`` says what was done, also where a step fails."""
    site, day = night.site, done.day
    night.observer.begin("counting")
    rows = _with_retries(night, lambda: aged_rows(site.dataset, day, site.postgres))
    done.left = rows.rows
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
    if night.verify and archived.etag and purged.outcome != "locked" and not night.stopped():
        try:
            _with_retries(night, lambda: _verify(night, day))
        except KeyboardInterrupt:
            # What was purged is told all the same; the caller looks whether the process was told to stop.
            if not night.stopped():
                raise


def _purge(night: Night, archived: ArchivedDay) -> PurgedDay:
    if night.max_replica_lag_bytes:
        setting = night.site.dataset.setting("MAX_REPLICA_LAG")
        await_replicas(night.site.postgres, night.max_replica_lag_bytes, setting=setting)
    return purge_day(
        night.site,
        archived.day,
        archived.record,
        dry_run=night.dry_run,
        recorded=night.reports.recorded,
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
            stop_if_requested(night)
            if not error.transient:
                raise
            logger.warning("trying again in %d s: %s", wait_seconds, error)
        time.sleep(wait_seconds)
    return step()


def stop_if_requested(night: Night) -> None:
    """Ends the work where the process was told to stop.

    Raises:
        KeyboardInterrupt: it was.
    """
    if night.stopped():
        raise KeyboardInterrupt

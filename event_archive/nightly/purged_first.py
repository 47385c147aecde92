"""Datasets whose days are purged before those of another: what of them is left. Not here: the order of a run's days."""

import time
from collections.abc import Sequence
from datetime import date

from event_archive.domain.dataset import Dataset
from event_archive.domain.days import ONE_DAY
from event_archive.errors import WaitingError
from event_archive.postgres.session import Postgres
from event_archive.table.advice import ARCHIVE_ADVICE
from event_archive.table.rows import first_day_with_rows
from event_archive.table.shape import reflect

Purged = tuple[Dataset, Postgres]
"""A dataset whose days are purged before those of another, and its database."""


def first_day_left(earlier: Sequence[Purged], last: date, *, timeout_seconds: float = 0) -> date:
    """The first day of which any of some datasets has rows, of those up to ``last``; the day after ``last`` where none.

    Args:
        earlier: the datasets, at least one.
        last: the last day that is looked at.
        timeout_seconds: how long it may take in all; 0 for no limit.

    Raises:
        BusyError: it took longer.
        RefusedError, UnreachableError: as PostgreSQL says.
    """
    seconds = timeout_seconds / len(earlier)
    return min(_first_day_left(dataset, last, postgres, timeout_seconds=seconds) for dataset, postgres in earlier)


def _first_day_left(dataset: Dataset, last: date, postgres: Postgres, *, timeout_seconds: float = 0) -> date:
    until = time.monotonic() + timeout_seconds if timeout_seconds else None
    with postgres.transaction(
        dataset.label, statement_timeout_seconds=timeout_seconds, advice=ARCHIVE_ADVICE
    ) as connection:
        found = first_day_with_rows(connection, reflect(connection, dataset), dataset.start, last, until=until)
    return found or last + ONE_DAY


def require_purged(dataset: Dataset, day: date, postgres: Postgres, *, before: Dataset) -> None:
    """Refuses to go on with ``before`` while another dataset has rows of a day, or of an older one.

    Raises:
        WaitingError: it has.
        RefusedError, UnreachableError, BusyError: as PostgreSQL says.
    """
    if (first := _first_day_left(dataset, day, postgres)) <= day:
        raise WaitingError(
            f"{before.label}, {day}: it comes after {dataset.label}, which has rows of {first}. Nothing was deleted; "
            "a later run goes on when they are purged."
        )

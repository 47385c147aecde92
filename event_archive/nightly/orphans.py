"""Rows that no day will ever archive: counted, and told of. Not here: rows of days (``backlog``)."""

import logging
import time

from event_archive.domain.dataset import Dataset
from event_archive.domain.days import EARLIEST_START
from event_archive.domain.wording import counted
from event_archive.errors import BusyError
from event_archive.postgres.session import Postgres
from event_archive.table.advice import ARCHIVE_ADVICE
from event_archive.table.rows import MOST_ORPHANS, Orphans, count_orphans
from event_archive.table.shape import reflect

logger = logging.getLogger(__name__)


def report_orphans(dataset: Dataset, postgres: Postgres, *, timeout_seconds: float) -> None:
    """Warns of rows that no day will ever archive. That they cannot be counted in time stops nobody."""
    try:
        found = orphans(dataset, postgres, timeout_seconds=timeout_seconds)
    except BusyError as error:
        logger.warning("rows of no day could not be counted: %s", error)
        return
    if found:
        logger.warning("%s", orphans_told(dataset, found))


def orphans(dataset: Dataset, postgres: Postgres, *, timeout_seconds: float = 0) -> Orphans:
    """Counts the rows that no day will ever archive.

    Raises:
        BusyError: it took longer than ``timeout_seconds``, where that is not 0.
        RefusedError, UnreachableError: as PostgreSQL says.
    """
    with postgres.transaction(
        str(dataset.table), statement_timeout_seconds=timeout_seconds, advice=ARCHIVE_ADVICE
    ) as connection:
        until = time.monotonic() + timeout_seconds if timeout_seconds else None
        return count_orphans(connection, reflect(connection, dataset), until=until)


def orphans_told(dataset: Dataset, orphans: Orphans) -> str:
    """A sentence about rows that no day will ever archive, and what to do about them."""
    parts = []
    # They were counted no further.
    at_least = "at least " if orphans.before_start + orphans.not_finite >= MOST_ORPHANS else ""
    if orphans.before_start:
        lie = counted(orphans.before_start, "row lies", "rows lie")
        earlier = (
            f"set {dataset.setting('ARCHIVE_START_DATE')} earlier to archive them ({EARLIEST_START} at the earliest)"
        )
        is_first = dataset.start <= EARLIEST_START
        what_to_do = "no file can be of their days: give them another time" if is_first else earlier
        parts.append(f"{at_least}{lie} before the first day that is archived, {dataset.start}: {what_to_do}")
    if orphans.not_finite:
        have = counted(orphans.not_finite, "row has", "rows have")
        parts.append(f"{at_least}{have} NULL or infinity as {dataset.time_column}: give them a time")
    return f"{dataset.label}: {'; '.join(parts)}. They stay in the table."

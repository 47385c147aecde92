"""Deletes the rows of one aged day from PostgreSQL. The stakes: what this module deletes is gone.

All in one transaction: see by the database's clock that the day is aged, lock the table's day, see that it is not held,
read the file back into a temporary table, DELETE what is identical to it in key and every column, compare the counts,
see that the file is still there, commit. It is READ COMMITTED, so that PostgreSQL compares a row that was updated
meanwhile again in its new form, and leaves it; and so that the look for a hold, after the lock, sees every hold that
was committed before it (docs/decisions/0006).

Not here: writing the file, how it is read back, when a purge is tried again.
"""

import json
import logging
import time
from dataclasses import dataclass
from datetime import date
from typing import Literal

from psycopg import sql

from event_archive.domain.dataset import Dataset
from event_archive.domain.manifest import Manifest
from event_archive.domain.progress import NO_PROGRESS, Progress
from event_archive.domain.record import Record
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.loading import load
from event_archive.operations.readback import Readback
from event_archive.operations.site import Site
from event_archive.postgres.session import Connection, one
from event_archive.table.advice import ARCHIVE_ADVICE
from event_archive.table.holds import hold_on
from event_archive.table.locks import lock_day
from event_archive.table.rows import count_day, has_rows
from event_archive.table.shape import TABLE_ALIAS, Table, reflect

logger = logging.getLogger(__name__)

Outcome = Literal["purged", "dry run", "locked", "held"]


@dataclass(frozen=True, slots=True)
class PurgedDay:
    """What a purge did.

    Attributes:
        day: the day.
        deleted: rows deleted; 0 in a dry run.
        proven: rows that were found in the file, identical in every column. A run that is not dry deletes them.
        left: rows of the day that stay, because the file does not hold them in their present form.
        outcome: ``locked`` where another command is working on the day; ``held`` where a person put a hold on it.
        reason: why it is held.
        seconds: how long the call took.
    """

    day: date
    deleted: int
    proven: int
    left: int
    outcome: Outcome
    reason: str | None
    seconds: float


class _RollBack(Exception):  # noqa: N818 (no error: the end of a dry run)
    """Ends the transaction without a commit."""


def purge_day(
    site: Site,
    day: date,
    record: Record,
    *,
    dry_run: bool,
    message_prefix: str | None = None,
    progress: Progress = NO_PROGRESS,
) -> PurgedDay:
    """Deletes those of the day's rows that the day's file holds, identical in every column.

    Args:
        site: the dataset, with its database and its lake.
        day: must be aged by the database's clock.
        record: what the day's latest archive recorded of its file.
        dry_run: do everything, then roll back instead of committing.
        message_prefix: begin with a logical decoding message of this prefix, so that consumers of a replication slot
            know these deletes from others.
        progress: is told of every block that is read.

    Raises:
        NotAgedError: the day is too young, or before the first that is archived.
        IntegrityError: the file, its manifest and the record do not agree.
        FileChangedError: the file changed while it was read.
        RefusedError, UnreachableError, BusyError: as PostgreSQL or the lake says; nothing was deleted.
    """
    started, dataset = time.monotonic(), site.dataset
    proven, left = 0, 0
    outcome: Outcome = "purged"
    reason: str | None = None
    try:
        with site.postgres.transaction(
            f"{dataset.table}, {day}", isolation="READ COMMITTED", advice=ARCHIVE_ADVICE
        ) as connection:
            dataset.require_aged(day, one(connection, "SELECT pg_catalog.now()")[0])
            if not lock_day(connection, dataset, day):
                outcome = "locked"
            elif (reason := hold_on(connection, dataset, day)) is not None:
                outcome = "held"
            if outcome == "purged":
                if message_prefix:
                    _announce(connection, dataset, day, message_prefix)
                proven, left = _delete(connection, site, day, record, progress)
            else:
                left = count_day(connection, reflect(connection, dataset), day).rows
            if dry_run and outcome == "purged":
                outcome = "dry run"
                raise _RollBack
    except _RollBack:
        pass
    deleted = 0 if outcome == "dry run" else proven
    return PurgedDay(day, deleted, proven, left, outcome, reason, time.monotonic() - started)


def _announce(connection: Connection, dataset: Dataset, day: date, prefix: str) -> None:
    message = json.dumps({"table": str(dataset.table), "day": day.isoformat()})
    connection.execute("SELECT pg_catalog.pg_logical_emit_message(true, %s, %s)", (prefix, message))


def _delete(connection: Connection, site: Site, day: date, record: Record, progress: Progress) -> tuple[int, int]:
    dataset, lake = site.dataset, site.lake
    # First the lock on the shape: a column that is added after the read-back could not be compared.
    table = reflect(connection, dataset, "delete")
    path = dataset.path(day)
    file = lake.stat(path)
    _require_recorded(dataset, day, file, record)
    if not has_rows(connection, table, day):
        return 0, 0
    if file is None:
        return 0, _left(connection, table, day)
    manifest = Manifest.from_file(file, table=str(dataset.table))
    if manifest is None:
        raise IntegrityError(
            f"{path}: another tool wrote it, for it has no manifest. Nothing was deleted. Archive the day again, "
            f"which takes it over: event-archive run {day}, or materialize archive_csv."
        )
    readback = load(connection, table, lake, file, progress)
    manifest.require(file, readback.manifest)
    if readback.rows != record.rows:
        raise IntegrityError(
            f"{path}: it has {readback.rows} rows, the archive's record says {record.rows}. Nothing was deleted. "
            f"{_archive_again(day)}"
        )
    progress.begin("comparing and deleting")
    deleted = connection.execute(
        sql.SQL("DELETE FROM {} AS {} USING {} WHERE {} AND {}").format(
            table.identifier, TABLE_ALIAS, readback.current, table.within(day, day), readback.identical
        )
    ).rowcount
    current = readback.rows - readback.superseded
    if deleted > current:
        raise IntegrityError(
            f"{dataset.table}, {day}: {deleted} rows are identical to {current} current rows of {path}. Rolled back: "
            "nothing was deleted. Report it as a bug."
        )
    left = _left(connection, table, day, readback)
    # Somebody may have taken the file away during a long DELETE. After this look, only the commit is left.
    _require_recorded(dataset, day, lake.stat(path), record)
    return deleted, left


def _left(connection: Connection, table: Table, day: date, readback: Readback | None = None) -> int:
    left = count_day(connection, table, day).rows
    kept = 0
    if left and readback:
        query = sql.SQL("SELECT count(*) FROM {} AS {}, {} WHERE {} AND {}").format(
            table.identifier, TABLE_ALIAS, readback.current, table.within(day, day), readback.identical
        )
        kept = one(connection, query)[0]
    if kept:
        logger.warning(
            "%s, %s: %s although the file holds them: a trigger of the table keeps them from being deleted.",
            table.dataset.table,
            day,
            counted(kept, "row stays", "rows stay"),
        )
    if left > kept:
        logger.warning(
            "%s, %s: %s: the file does not hold them in their present form. The next run appends them.",
            table.dataset.table,
            day,
            counted(left - kept, "row stays", "rows stay"),
        )
    return left


def _require_recorded(dataset: Dataset, day: date, file: StoredFile | None, record: Record) -> None:
    """The gate: the file in the lake is the one that was recorded.

    Raises:
        IntegrityError: it is another one, or gone.
    """
    path, found = dataset.path(day), file.etag if file else None
    if found == record.etag:
        return
    if file is None:
        problem = f"{path} is gone from the lake; the day's latest archive recorded {record.rows} rows in it"
    elif record.etag is None:
        problem = f"{path} is in the lake; the day's latest archive found no rows and wrote no file"
    else:
        problem = f"{path} has ETag {found}; the day's latest archive recorded {record.etag}"
    raise IntegrityError(f"{dataset.table}, {day}: {problem}. Nothing was deleted. {_archive_again(day)}")


def _archive_again(day: date) -> str:
    return f"Archive the day again: event-archive run {day}, or materialize archive_csv, then purged_events."

"""Deletes the rows of one aged day from PostgreSQL. The stakes: what this module deletes is gone.

All in one transaction: see by the database's clock that the day is aged, lock the table's day, see that it is not held,
read the file back into a temporary table while the table is not locked, lock it and see that it was not altered, DELETE
what is identical to the file in key and every column, compare the counts, see that the DELETE did nothing else to the
table, that the table is still as it was, and that the file is still there, commit. It is READ COMMITTED, so that
PostgreSQL compares a row that was updated meanwhile again in its new form, and leaves it; and so that the look for a
hold, after the lock, sees every hold that was committed before it (docs/decisions/0006).

Not here: writing the file, how it is read back, when a purge is tried again.
"""

import json
import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from typing import Literal

from psycopg import sql

from event_archive.domain.dataset import Dataset, key_named, quoted
from event_archive.domain.manifest import Manifest
from event_archive.domain.progress import NO_PROGRESS, Progress
from event_archive.domain.record import Record
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError, RefusedError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.claim import claim
from event_archive.operations.loading import load
from event_archive.operations.readback import Readback
from event_archive.operations.site import Site
from event_archive.postgres.catalogue import dependents
from event_archive.postgres.catalogue.dependents import Changes
from event_archive.postgres.catalogue.server import is_on
from event_archive.postgres.session import Connection, one, own_search_path
from event_archive.table.advice import ARCHIVE_ADVICE
from event_archive.table.holds import hold_on
from event_archive.table.locks import lock_day
from event_archive.table.rows import count_day, glance_at_day
from event_archive.table.shape import Table, reflect, require_unchanged

logger = logging.getLogger(__name__)

_WHAT_TO_DO = "Let it do nothing where application_name is event_archive, or disable it."

Outcome = Literal["purged", "kept", "dry run", "locked", "held"]


@dataclass(frozen=True, slots=True)
class PurgedDay:
    """What a purge did.

    Attributes:
        day: the day.
        deleted: rows deleted; 0 in a dry run.
        proven: rows that were found in the file, identical in every column. A run that is not dry deletes them.
        left: rows of the day that stay, because the file does not hold them in their present form, or for a reason.
        outcome: ``locked`` where another command is working on the day; ``held`` where a person put a hold on it;
            ``kept`` where rows stay although the file holds them.
        reason: why it is held, or kept; in a dry run, why it would be kept.
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
        OtherSourceError: the files belong to another table or database.
        FileChangedError: the file changed while it was read.
        RefusedError: a trigger changed rows of the table that were to be deleted, or others; nothing was deleted.
        RefusedError, UnreachableError, BusyError: as PostgreSQL or the lake says; nothing was deleted.
    """
    started, dataset = time.monotonic(), site.dataset
    proven, left = 0, 0
    outcome: Outcome = "purged"
    reason: str | None = None
    try:
        with site.postgres.transaction(f"{dataset.table}, {day}", advice=ARCHIVE_ADVICE) as connection:
            dataset.require_aged(day, one(connection, "SELECT pg_catalog.now()")[0])
            if not lock_day(connection, dataset, day):
                outcome = "locked"
            elif (reason := hold_on(connection, dataset, day)) is not None:
                outcome = "held"
            if outcome == "purged":
                if message_prefix:
                    _announce(connection, dataset, day, message_prefix)
                proven, left, reason = _delete(connection, site, day, record, progress)
                outcome = "kept" if reason else "purged"
            else:
                left = count_day(connection, reflect(connection, dataset), day).rows
            if dry_run and outcome in ("purged", "kept"):
                outcome = "dry run"
                raise _RollBack
    except _RollBack:
        pass
    deleted = 0 if outcome == "dry run" else proven
    return PurgedDay(day, deleted, proven, left, outcome, reason, time.monotonic() - started)


def _announce(connection: Connection, dataset: Dataset, day: date, prefix: str) -> None:
    message = json.dumps({"table": str(dataset.table), "day": day.isoformat()})
    connection.execute("SELECT pg_catalog.pg_logical_emit_message(true, %s, %s)", (prefix, message))


def _delete(
    connection: Connection, site: Site, day: date, record: Record, progress: Progress
) -> tuple[int, int, str | None]:
    """Deletes the day's proven rows; returns how many, how many stay, and why some stay that the file holds."""
    dataset, lake = site.dataset, site.lake
    claimed = claim(site, connection)
    path = dataset.path(day)
    file = lake.stat(path)
    _require_recorded(dataset, day, file, record)
    table, filled = glance_at_day(connection, dataset, day, "delete")
    if not filled:
        return 0, 0, None
    if file is None:
        left = count_day(connection, table, day).rows
        _warn_of_left(table, day, left)
        return 0, left, None
    manifest = Manifest.from_file(file)
    if manifest is None:
        raise IntegrityError(
            f"{path}: another tool wrote it, for it has no manifest. Nothing was deleted. Archive the day again, "
            f"which takes it over: event-archive run {day}, or materialize archive_csv."
        )
    manifest.require_own(file, day, claimed)
    _require_key_known(table, day, manifest, path)
    readback = load(connection, table, lake, file, progress)
    manifest.require(file, readback.manifest)
    if readback.rows != record.rows:
        raise IntegrityError(
            f"{path}: it has {readback.rows} rows, the archive's record says {record.rows}. Nothing was deleted. "
            f"{_archive_again(day)}"
        )
    progress.begin("comparing and deleting")
    require_unchanged(connection, table, "delete")
    deleted = _delete_identical(connection, table, day, readback, path)
    # What a DELETE must fear may have come while it ran: ATTACH PARTITION and INHERIT wait for no DELETE.
    require_unchanged(connection, table, "delete")
    left, kept = _left(connection, table, day, readback)
    # Somebody may have taken the file away during a long DELETE. After this look, only the commit is left.
    _require_recorded(dataset, day, lake.stat(path), record)
    return deleted, left, kept


def _delete_identical(connection: Connection, table: Table, day: date, readback: Readback, path: str) -> int:
    """Deletes the rows that the file holds, sees that nothing else was done to the table, and returns how many."""
    before, tree = dependents.changes(connection, table.oid), dependents.tree(connection, table.oid)
    statement = sql.SQL("DELETE FROM {} USING {} WHERE {} AND {}").format(
        table.rows, readback.current, table.within(day, day), readback.identical
    )
    # Triggers, deferred ones too, find what they name. Without any, values keep the text that they have in the file.
    with own_search_path(connection) if dependents.delete_triggers(connection, table.oid) else nullcontext():
        deleted = connection.execute(statement).rowcount
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    current = readback.rows - readback.superseded
    if deleted > current:
        raise IntegrityError(
            f"{table.dataset.table}, {day}: {deleted} rows are identical to {current} current rows of {path}. Rolled "
            "back: nothing was deleted. Report it as a bug."
        )
    # TRUNCATE and DROP count no rows.
    if dependents.locks_out(connection, tree):
        raise RefusedError(
            f"{table.dataset.table}, {day}: a trigger on DELETE truncated, dropped, detached or altered the table or "
            f"a partition of it. Rolled back: nothing was deleted. {_WHAT_TO_DO}"
        )
    _require_only_deleted(connection, table, day, dependents.changes(connection, table.oid) - before, deleted)
    return deleted


def _require_only_deleted(connection: Connection, table: Table, day: date, changes: Changes, deleted: int) -> None:
    """Sees that the DELETE led to nothing else in the table, as a trigger may.

    Raises:
        RefusedError: it did, or nobody can tell.
    """
    tracked = is_on(connection, "track_counts")
    if tracked and changes == Changes(inserted=0, updated=0, deleted=deleted):
        return
    triggers = ", ".join(quoted(name) for name, _ in dependents.delete_triggers(connection, table.oid))
    if not tracked:
        if not triggers:
            return
        problem = f"track_counts is off, so that nobody can tell what its triggers on DELETE ({triggers}) change in it"
        what_to_do = "Turn track_counts on."
    else:
        problem = (
            f"deleting {counted(deleted, 'row', 'rows')} of the day led to {changes.inserted} inserted, "
            f"{changes.updated} updated and {changes.deleted} deleted in this table, or to the attempt: a trigger on "
            f"DELETE ({triggers or 'none is seen'}) does something else than to let rows go"
        )
        what_to_do = _WHAT_TO_DO
    raise RefusedError(f"{table.dataset.table}, {day}: {problem}. Rolled back: nothing was deleted. {what_to_do}")


def _left(connection: Connection, table: Table, day: date, readback: Readback) -> tuple[int, str | None]:
    """How many rows of the day stay, and why some do that the file holds."""
    left = count_day(connection, table, day).rows
    kept, why = 0, None
    if left:
        query = sql.SQL("SELECT count(*) FROM {}, {} WHERE {} AND {}").format(
            table.rows, readback.current, table.within(day, day), readback.identical
        )
        kept = one(connection, query)[0]
    if kept:
        triggers = ", ".join(quoted(name) for name, _ in dependents.delete_triggers(connection, table.oid))
        why = f"{counted(kept, 'row stays', 'rows stay')} although the file holds them: " + (
            f"a trigger of the table keeps them from being deleted ({triggers}), and will again"
            if triggers
            else "the DELETE did not find them. Report it as a bug"
        )
        logger.warning("%s, %s: %s.", table.dataset.table, day, why)
    if left > kept:
        _warn_of_left(table, day, left - kept)
    return left, why


def _warn_of_left(table: Table, day: date, left: int) -> None:
    logger.warning(
        "%s, %s: %s: the file does not hold them in their present form. The next run appends them.",
        table.dataset.table,
        day,
        counted(left, "row stays", "rows stay"),
    )


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


def _require_key_known(table: Table, day: date, manifest: Manifest, path: str) -> None:
    """Sees that the manifest names the key by which rows are compared.

    By another key a former form in the file may pass for the current one, and a restore would not know.

    Raises:
        IntegrityError: the table has got another key since the file was written.
    """
    if manifest.keys and not manifest.knows_key(table.key):
        known = ", ".join(map(key_named, manifest.keys))
        raise IntegrityError(
            f"{table.dataset.table}, {day}: the table's key is {key_named(table.key)}, {path} was archived under "
            f"{known}. Nothing was deleted. {_archive_again(day)}"
        )


def _archive_again(day: date) -> str:
    return f"Archive the day again: event-archive run {day}, or materialize archive_csv, then purged_events."

"""Purges one aged day from PostgreSQL. The stakes: what this module deletes is gone.

All in one transaction: see by the database's clock that the day is aged, lock the table's day, see that it is not held,
read the file back into a temporary table while the table is not locked, lock it and see that it was not altered, DELETE
what is identical to the file in key and every column, compare the counts, see that the DELETE did nothing else to the
table, that the table is still as it was, and that the file is still there, commit. It is READ COMMITTED, so that
PostgreSQL compares a row that was updated meanwhile again in its new form, and leaves it; and so that the look for a
hold, after the lock, sees every hold that was committed before it (docs/decisions/0006).

Where the dataset says so, partitions of the day are dropped in place of the DELETE, in the same transaction; and what
a purge leaves behind is cleared away after its commit: an empty partition, dead rows.

Not here: writing the file, how it is read back and proven (``proof``), when a purge is tried again.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal

from event_archive.domain.dataset import Dataset
from event_archive.domain.progress import NO_PROGRESS, Progress
from event_archive.domain.record import Record
from event_archive.errors import EventArchiveError, UnreachableError
from event_archive.operations.claim import claim
from event_archive.operations.deleting import delete_identical, rows_left, warn_of_left
from event_archive.operations.drop_plan import PartitionStaysError, PartitionWaitsError, Recorded, plan_drop
from event_archive.operations.dropping import drop_proven
from event_archive.operations.dropping_empty import drop_empty
from event_archive.operations.proof import prove, require_recorded
from event_archive.operations.site import Site
from event_archive.operations.vacuum import vacuum
from event_archive.postgres.catalogue.server import server_now
from event_archive.postgres.lost import Mark, has_committed, mark
from event_archive.postgres.session import Connection
from event_archive.table.holds import hold_on
from event_archive.table.locks import day_transaction, lock_day, same_schema
from event_archive.table.partitions import told
from event_archive.table.rows import count_day, glance_at_day
from event_archive.table.shape import reflect, require_unchanged
from event_archive.table.uniqueness import require_keys_once, texts_of_key

logger = logging.getLogger(__name__)

Outcome = Literal["purged", "kept", "dry run", "nothing to do", "locked", "held", "waiting"]
How = Literal["deleted", "dropped"]


@dataclass(frozen=True, slots=True)
class PurgedDay:
    """What a purge did.

    Attributes:
        day: the day.
        deleted: rows deleted, those of dropped partitions included; 0 in a dry run.
        proven: rows that were found in the file, identical in every column. A run that is not dry deletes them.
        left: rows of the day that stay, because the file does not hold them in their present form, or for a reason;
            in a dry run, those that would stay.
        outcome: ``nothing to do`` where the file holds none of the rows that stand in the table, and no partition was
            dropped; ``locked`` where another command is working on the day; ``held`` where a person put a hold on it;
            ``waiting`` where its partition is dropped later, and its rows stay until then; ``kept`` where rows stay
            although the file holds them.
        reason: why it is held, waits or is kept, in a dry run, too; or why its rows were deleted although partitions
            are to be dropped.
        seconds: how long the call took.
        how: whether rows were deleted or partitions dropped with them; in a dry run, which would have been. None where
            no row was proven.
        partitions: names of those that were dropped, of empty ones too, which may be of days before.
        others: other days of which they held rows, and how many rows of each stay, in other partitions.
        vacuum_seconds: how long a VACUUM after it took; None where there was none.
        dry_run: whether nothing would have been deleted in any case, also where the day is held, say.
    """

    day: date
    deleted: int
    proven: int
    left: int
    outcome: Outcome
    reason: str | None
    seconds: float
    how: How | None = None
    partitions: tuple[str, ...] = ()
    others: Mapping[date, int] = field(default_factory=dict)
    vacuum_seconds: float | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class _Purged:
    """What was done to rows: how many were proven and left, and why some stay that the file holds; which partitions
    and other days went, or why none did.
    """

    proven: int
    left: int
    partitions: tuple[str, ...] = ()
    others: Mapping[date, int] = field(default_factory=dict)
    why_not_dropped: str | None = None
    why_kept: str | None = None

    def after(self, before: "_Purged") -> "_Purged":
        """Both; what stays, and why, is as it is now."""
        return replace(
            self,
            proven=before.proven + self.proven,
            partitions=before.partitions + self.partitions,
            others={**before.others, **self.others},
        )


_in_doubt: dict[tuple[str, date], tuple[Mark, _Purged]] = {}
"""By dataset and day, a transaction of this process whose commit got no answer, and what it did if it committed."""


class _RollBack(Exception):  # noqa: N818 (no error: the end of a dry run)
    """Ends the transaction without a commit."""


def purge_day(
    site: Site,
    day: date,
    record: Record,
    *,
    dry_run: bool,
    recorded: Recorded | None = None,
    message_prefix: str | None = None,
    progress: Progress = NO_PROGRESS,
) -> PurgedDay:
    """Deletes those of the day's rows that the day's file holds, identical in every column, or drops their partition.

    Args:
        site: the dataset, with its database and its lake.
        day: must be aged by the database's clock.
        record: what the day's latest archive recorded of its file.
        dry_run: do everything, then roll back instead of committing.
        recorded: what is recorded of other days in its partition; None where their files' manifests count.
        message_prefix: begin with a logical decoding message of this prefix, so that consumers of a replication slot
            know these deletes from others.
        progress: is told of every block that is read.

    Raises:
        NotAgedError: the day is too young, or before the first that is archived.
        IntegrityError: the file, its manifest and the record do not agree.
        OtherSourceError: the files belong to another table or database.
        FileChangedError: the file changed while it was read.
        RefusedError: a trigger changed rows of the table that were to be deleted, or others; nothing was deleted.
        UnreachableError: likewise; but a commit that got no answer may have gone through. When this process purges the
            day again, what it did is counted.
        RefusedError, BusyError: as PostgreSQL or the lake says; nothing was deleted.
    """
    started, dataset = time.monotonic(), site.dataset
    done = _Purged(0, 0)
    outcome: Outcome = "purged"
    reason: str | None = None
    before, key = _Purged(0, 0), (dataset.label, day)
    marked: Mark | None = None
    is_stopped = False
    try:
        with day_transaction(site.postgres, dataset, day) as connection, same_schema(connection, dataset):
            dataset.require_aged(day, server_now(connection))
            if not lock_day(connection, dataset, day):
                outcome = "locked"
            elif (reason := hold_on(connection, dataset, day)) is not None:
                outcome = "held"
            else:
                try:
                    done = _purge(connection, site, day, record, recorded, message_prefix, progress)
                    reason = done.why_kept or done.why_not_dropped
                    outcome = "kept" if done.why_kept else "purged"
                except PartitionWaitsError as why:
                    outcome, reason = "waiting", str(why)
            in_doubt = _in_doubt.get(key)
            if in_doubt and has_committed(connection, in_doubt[0]):
                before = in_doubt[1]
            if outcome not in ("purged", "kept"):
                done = _Purged(0, count_day(connection, reflect(connection, dataset), day).rows)
            elif dry_run:
                outcome = "dry run"
                raise _RollBack
            elif done.proven or done.partitions:
                marked = mark(connection)
    except _RollBack:
        pass
    except UnreachableError:
        if marked:
            _in_doubt[key] = marked, done.after(before)
        raise
    except BaseException as error:
        # Of an interrupt amid the commit, PostgreSQL alone knows how that ended. What was deleted must be told.
        if isinstance(error, Exception) or not (marked and _has_gone_through(site, marked)):
            raise
        is_stopped = True
    _in_doubt.pop(key, None)
    if done.why_not_dropped:
        words = (
            "rows would be deleted, no partition dropped" if dry_run else "rows are deleted, no partition is dropped"
        )
        logger.warning("%s, %s: %s: %s", dataset.table, day, words, done.why_not_dropped)
    deleted = before.proven + (done.proven if outcome in ("purged", "kept") else 0)
    done = done.after(before)
    how: How | None = "dropped" if done.partitions else "deleted" if done.proven else None
    purged = PurgedDay(day, deleted, done.proven, done.left, outcome, reason, 0, how, done.partitions, done.others)
    if outcome in ("purged", "kept") and not is_stopped:
        purged = _cleared(site, purged)
    stays = purged.left if outcome == "dry run" else 0
    if outcome in ("purged", "dry run") and not (purged.proven or purged.partitions or stays):
        purged = replace(purged, outcome="nothing to do")
    return replace(purged, seconds=time.monotonic() - started, dry_run=dry_run)


def _cleared(site: Site, purged: PurgedDay) -> PurgedDay:
    """Clears away what a purge that has committed left behind. That it cannot is no failure of the day.

    An interrupt ends here: the command line looks whether it was told to stop, and in Dagster only records follow.
    """
    dataset, partitions, vacuum_seconds = site.dataset, purged.partitions, None
    try:
        if dataset.drop_empty_partitions:
            partitions += tuple(drop_empty(site, purged.day))
        if dataset.vacuum and purged.how == "deleted":
            vacuum_seconds = vacuum(site)
    except BaseException as error:
        # An interrupt is no Exception, whoever raises it. What has committed must be told all the same.
        if isinstance(error, Exception) and not isinstance(error, EventArchiveError):
            raise
        why = str(error) or "told to stop"
        logger.warning(
            "%s, %s: rows are deleted, but what is left behind is not cleared away: %s", dataset.table, purged.day, why
        )
    return replace(purged, partitions=partitions, vacuum_seconds=vacuum_seconds)


def _has_gone_through(site: Site, marked: Mark) -> bool:
    try:
        with site.postgres.transaction(str(site.dataset.table)) as connection:
            return has_committed(connection, marked)
    except EventArchiveError:
        return False


def _announce(connection: Connection, dataset: Dataset, day: date, prefix: str) -> None:
    message = json.dumps({"table": str(dataset.table), "day": day.isoformat()})
    connection.execute("SELECT pg_catalog.pg_logical_emit_message(true, %s, %s)", (prefix, message))


def _purge(
    connection: Connection,
    site: Site,
    day: date,
    record: Record,
    recorded: Recorded | None,
    message_prefix: str | None,
    progress: Progress,
) -> _Purged:
    dataset, lake = site.dataset, site.lake
    claimed = claim(site, connection)
    path = dataset.path(day)
    file = lake.stat(path)
    require_recorded(site, day, file, record)
    table, filled = glance_at_day(connection, dataset, day, "delete")
    if not filled:
        return _Purged(0, 0)
    if file is None:
        left = count_day(connection, table, day).rows
        warn_of_left(table, day, left)
        return _Purged(0, left)
    drop, why_not_dropped = None, None
    if dataset.purge == "drop":
        try:
            drop = plan_drop(connection, site, table, day, file, recorded)
        except PartitionStaysError as why:
            why_not_dropped = str(why)
    if message_prefix:
        _announce(connection, dataset, day, message_prefix)
    readback = prove(connection, table, lake, day, file, record, claimed, progress)
    if drop:
        try:
            dropped = drop_proven(connection, site, table, drop, record, readback, claimed, progress)
            return _Purged(dropped, 0, tuple(map(told, drop.partitions)), {of.day: of.left for of in drop.others})
        except PartitionStaysError as why:
            why_not_dropped = str(why)
    progress.begin("comparing and deleting")
    require_unchanged(connection, table, "delete")
    if readback.superseded or texts_of_key(connection, table):
        require_keys_once(connection, table, day, outcome="Nothing was deleted.")
    deleted = delete_identical(connection, table, day, readback, path)
    # What a DELETE must fear may have come while it ran: ATTACH PARTITION and INHERIT wait for no DELETE.
    require_unchanged(connection, table, "delete")
    left, why_kept = rows_left(connection, table, day, readback)
    # Somebody may have taken the file away during a long DELETE. After this look, only the commit is left.
    require_recorded(site, day, lake.stat(path), record)
    return _Purged(deleted, left, why_not_dropped=why_not_dropped, why_kept=why_kept)

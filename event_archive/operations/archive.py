"""Brings the file of an aged day up to date with the table. Not here: deleting rows, how files are written or read.

The order makes it safe: first the file is stat'ed, then the rows are read, then the file is committed on condition that
it is still the one that was stat'ed. So an older view of the table can never replace a newer file. A run that loses the
race starts again with a new stat and a new look at the table.

An append takes the day's lock before it reads the rows, which keeps purges of the day away. Otherwise a row that went
from A to B and back to A could be purged as A while B is being appended, and B would be the last form in the file. So
the rows are read by one statement in READ COMMITTED, whose snapshot is younger than the lock. A session that is lost
meanwhile takes the lock with it: so it is asked for a sign of life when all is sent, just before the file is committed.

While a file is read back, the table is not locked: its shape is read before, and looked at again after.
"""

import logging
import time
from dataclasses import dataclass, replace
from datetime import date
from functools import partial

from event_archive.domain.days import now_utc
from event_archive.domain.manifest import Manifest
from event_archive.domain.progress import NO_PROGRESS, Progress
from event_archive.domain.record import Record
from event_archive.errors import FileChangedError, LockedError, RefusedError, UnreachableError
from event_archive.lake.protocol import Lake, StoredFile, changed
from event_archive.operations.claim import claim, claim_to_export, require_replica
from event_archive.operations.comparable import require_known_key, require_others
from event_archive.operations.export import PacedExport
from event_archive.operations.foreign import require_takeable
from event_archive.operations.loading import load
from event_archive.operations.replica import FormerTimelineError
from event_archive.operations.site import Site
from event_archive.operations.unanswered import may_be_replaced
from event_archive.operations.writing import Order, Written, under_another_etag, write_first, write_late
from event_archive.postgres.catalogue.columns import Column
from event_archive.postgres.catalogue.server import server_now
from event_archive.postgres.session import Connection, Postgres
from event_archive.table.advice import ARCHIVE_ADVICE, export_advice
from event_archive.table.locks import day_transaction, lock_day
from event_archive.table.rows import glance_at_day
from event_archive.table.shape import reflect
from event_archive.table.uniqueness import require_keys_once

logger = logging.getLogger(__name__)

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ArchivedDay:
    """A day's file as it stands in the lake after ``archive_day``.

    Attributes:
        day: the day.
        path: from the lake's root.
        url: for people.
        etag: None where the day has neither rows nor a file.
        manifest: None where there is no file.
        rows_appended: rows that this call wrote, of ``manifest.rows``.
        columns: the table's.
        seconds: how long the call took.
    """

    day: date
    path: str
    url: str
    etag: str | None
    manifest: Manifest | None
    rows_appended: int
    columns: tuple[Column, ...]
    seconds: float

    @property
    def rows(self) -> int:
        """Rows in the file."""
        return self.manifest.rows if self.manifest else 0

    @property
    def record(self) -> Record:
        """The archive's record, for a purge in the same process; a materialization's metadata say the same."""
        return Record(self.etag, self.rows, self.manifest.bytes if self.manifest else 0, self.seconds)


class _NotYetError(Exception):
    """A replica has not replayed what made the table one that can be archived."""


def archive_day(
    site: Site, day: date, *, max_bytes_per_second: int | None = None, progress: Progress = NO_PROGRESS
) -> ArchivedDay:
    """Brings the day's file up to date with the table: writes a new file, appends to it, or leaves it unread.

    Args:
        site: the dataset, with its database and its lake. What a lagging replica lacks, the next run appends; where it
            has no row of the day, or may follow a former primary, the primary is asked.
        day: must be aged by this machine's clock, by the primary's, and by that of the server whose rows are read.
        max_bytes_per_second: read rows no faster than that. A slower read keeps its snapshot for longer.
        progress: is told of every piece.

    Raises:
        NotAgedError: the day is too young, or before the first that is archived.
        IntegrityError: the file contradicts its manifest.
        FileChangedError: three races for the file were lost.
        LockedError: the day's file is another tool's, and another command is working on the day.
        OtherSourceError: the files belong to another table or database; or the replica is no copy of the primary.
        RefusedError, UnreachableError, BusyError: as PostgreSQL or the lake says.
    """
    started = time.monotonic()
    dataset, lake = site.dataset, site.lake
    dataset.require_aged(day, now_utc())
    path = dataset.path(day)
    progress = PacedExport(progress, max_bytes_per_second) if max_bytes_per_second else progress
    for attempt in range(1, _ATTEMPTS + 1):
        file = lake.stat(path)
        try:
            written = _brought_up_to_date(site, day, file, progress)
            if not written.rows_appended:
                _require_still_there(lake, path, written.file)
            break
        except FileChangedError:
            if attempt == _ATTEMPTS:
                raise
            logger.info("%s: %s was written by another run meanwhile; starting again", dataset.table, path)
    return ArchivedDay(
        day=day,
        path=path,
        url=lake.url(path),
        etag=written.file.etag if written.file else None,
        manifest=written.manifest,
        rows_appended=written.rows_appended,
        columns=written.columns,
        seconds=time.monotonic() - started,
    )


def _require_still_there(lake: Lake, path: str, file: StoredFile | None) -> None:
    """Raises FileChangedError where what is recorded of a file that was left as it is, or of none, is out of date.

    Another run may have archived and purged the day since the file was looked for: then no row is left to be missing.
    """
    found = lake.stat(path)
    if (found.etag if found else None) != (file.etag if file else None):
        raise changed(path)


def _brought_up_to_date(site: Site, day: date, file: StoredFile | None, progress: Progress) -> Written:
    if file or site.export_postgres is None:
        return _in_transaction(site.postgres, site, day, file, progress)
    try:
        if (written := _in_transaction(site.export_postgres, site, day, None, progress)).file:
            return written
        # It lags, perhaps for good: the next run would ask it again as long as there is no file to append to.
    except FormerTimelineError as error:
        logger.warning("%s: %s The primary is read.", day, error)
    except _NotYetError:
        replica = site.export_postgres.variable
        logger.warning(
            "%s: the server in %s does not have %s as it can be archived, or not yet. The primary is read.",
            *(day, replica, site.dataset.table),
        )
    return _in_transaction(site.postgres, replace(site, export_postgres=None), day, None, progress)


def _in_transaction(source: Postgres, site: Site, day: date, file: StoredFile | None, progress: Progress) -> Written:
    written: list[Written] = []
    try:
        advice = ARCHIVE_ADVICE if source is site.postgres else export_advice(source.variable)
        with day_transaction(source, site.dataset, day, advice) as connection:
            written.append(_write(connection, site, day, file, progress))
    except UnreachableError:
        if not written:
            raise
        # The connection broke at the end: the file is committed, and there was nothing to commit in the database.
    return written[0]


def _write(connection: Connection, site: Site, day: date, file: StoredFile | None, progress: Progress) -> Written:
    dataset, lake = site.dataset, site.lake
    dataset.require_aged(day, server_now(connection))
    if file is None:
        try:
            table = reflect(connection, dataset)
        except RefusedError as error:
            if site.export_postgres is None:
                raise
            require_replica(site, connection)
            raise _NotYetError from error
        return write_first(connection, table, Order(site, day, claim_to_export(site, connection, day)), progress)
    order = Order(site, day, claim(site, connection))
    manifest = Manifest.from_file(file)
    if manifest:
        manifest.require_own(file, day, order.claim)
    free = lock_day(connection, dataset, day, shared=True)
    if not free:
        if manifest is None:
            raise LockedError(f"{dataset.table}: another command is working on {day}; the next run goes on.")
        logger.info("%s: another command is working on %s; its file stays as it is", dataset.table, day)
    if manifest and free and may_be_replaced(lake, file):
        file = under_another_etag(lake, file, manifest)
    table, late = glance_at_day(connection, dataset, day)
    if manifest and not (free and late):
        return Written(file, manifest, 0, table.columns)
    former_time = manifest.time_column if manifest else ""
    readback = load(connection, table, lake, file, progress, former_time=former_time)
    if manifest:
        manifest.require(file, readback.manifest)
        require_known_key(readback, manifest, order, file)
    else:
        require_takeable(connection, table, readback, day, file)
    if not late:
        return Written(file, readback.manifest, 0, table.columns)
    if readback.superseded:
        require_keys_once(connection, table, day, outcome="Nothing was written or deleted.")
    check = partial(require_others, connection, readback, manifest or readback.manifest, day, file)
    check(warns=False)
    return write_late(connection, table, order, file, manifest, readback, partial(check, warns=True), progress)

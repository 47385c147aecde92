"""Writes the rows of one aged day into the day's file. Not here: deleting them, how the file is read back.

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
from event_archive.domain.manifest import Manifest, keys_with
from event_archive.domain.progress import NO_PROGRESS, Progress
from event_archive.domain.record import Record
from event_archive.domain.source import Claim
from event_archive.errors import FileChangedError, IntegrityError, LockedError, RefusedError, UnreachableError
from event_archive.lake.protocol import Lake, StoredFile, changed
from event_archive.operations.claim import FormerTimelineError, claim, claim_to_export, require_replica
from event_archive.operations.export import Export, PacedExport, has_any, rows_of_day
from event_archive.operations.loading import load
from event_archive.operations.readback import Readback, types_hash
from event_archive.operations.site import Site
from event_archive.operations.unanswered import may_be_replaced, note_unanswered
from event_archive.operations.verbatim import WRITE_THE_TIME, load_verbatim, require_lasting, verbatim_rows
from event_archive.postgres.catalogue.relations import Column
from event_archive.postgres.catalogue.server import server_now
from event_archive.postgres.session import Connection, Postgres
from event_archive.table.advice import ARCHIVE_ADVICE, export_advice
from event_archive.table.locks import day_transaction, lock_day, require_same_schema
from event_archive.table.rows import glance_at_day, lock_rows
from event_archive.table.shape import Table, reflect, require_unchanged

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


@dataclass(frozen=True, slots=True)
class _Order:
    """Which day is written, and whose it is."""

    site: Site
    day: date
    claim: Claim


@dataclass(frozen=True, slots=True)
class _Written:
    file: StoredFile | None
    manifest: Manifest | None
    rows_appended: int
    columns: tuple[Column, ...]


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


def _brought_up_to_date(site: Site, day: date, file: StoredFile | None, progress: Progress) -> _Written:
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


def _in_transaction(source: Postgres, site: Site, day: date, file: StoredFile | None, progress: Progress) -> _Written:
    written: list[_Written] = []
    try:
        advice = ARCHIVE_ADVICE if source is site.postgres else export_advice(source.variable)
        with day_transaction(source, site.dataset, day, advice) as connection:
            written.append(_write(connection, site, day, file, progress))
    except UnreachableError:
        if not written:
            raise
        # The connection broke at the end: the file is committed, and there was nothing to commit in the database.
    return written[0]


def _write(connection: Connection, site: Site, day: date, file: StoredFile | None, progress: Progress) -> _Written:
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
        return _write_first(connection, table, _Order(site, day, claim_to_export(site, connection, day)), progress)
    order = _Order(site, day, claim(site, connection))
    manifest = Manifest.from_file(file)
    if manifest:
        manifest.require_own(file, day, order.claim)
    free = lock_day(connection, dataset, day, shared=True)
    if not free:
        if manifest is None:
            raise LockedError(f"{dataset.table}: another command is working on {day}; the next run goes on.")
        logger.info("%s: another command is working on %s; its file stays as it is", dataset.table, day)
    if manifest and free and may_be_replaced(lake, file):
        file = _under_another_etag(lake, file, manifest)
    table, late = glance_at_day(connection, dataset, day)
    if manifest and not (free and late):
        return _Written(file, manifest, 0, table.columns)
    readback = load(connection, table, lake, file, progress)
    if manifest:
        manifest.require(file, readback.manifest)
    elif missing_key := [name for name in table.key if name not in readback.columns]:
        raise IntegrityError(
            f"{file.path}: another tool wrote or copied it, for it has no manifest, and its header lacks the key: "
            f"{', '.join(missing_key)}. Nothing was written or deleted. Without the key its rows cannot be compared: "
            "add the key to the file, or move it elsewhere."
        )
    if not late:
        return _Written(file, readback.manifest, 0, table.columns)
    return _write_late(connection, table, order, file, manifest, readback, progress)


def _under_another_etag(lake: Lake, file: StoredFile, manifest: Manifest) -> StoredFile:
    # A commit that got no answer cannot succeed any more then: it could come when the rows that it appends have gone
    # back to what they were, and been purged as that.
    if not lake.appendable(file):
        return file
    with lake.write(file.path, replaces=file, append=True) as upload:
        return upload.commit(manifest.to_metadata())


def _write_first(connection: Connection, table: Table, order: _Order, progress: Progress) -> _Written:
    """A new file with a header and all rows of the day; none where there are no rows."""
    day = order.day
    lock_rows(connection, table, day)
    with order.site.lake.write(table.dataset.path(day), replaces=None) as upload:
        export = Export(upload, progress)
        rows = export.copy(connection, rows_of_day(connection, table, day, table.names), with_header=True)
        if not rows:
            return _Written(None, None, 0, table.columns)
        # Since it was asked, a standby may have been promoted: this server's rows may be its own.
        look = partial(claim_to_export, order.site, connection, day)
        types = types_hash(table, table.names)
        keys = keys_with(None, table.key)
        last_look = partial(require_same_schema, connection, table.dataset, table.schema_version)
        file, manifest = export.commit(
            look, last_look, order.claim.source, day, table.names, rows, types=types, keys=keys
        )
        return _Written(file, manifest, rows, table.columns)


def _write_late(
    connection: Connection,
    table: Table,
    order: _Order,
    file: StoredFile,
    manifest: Manifest | None,
    readback: Readback,
    progress: Progress,
) -> _Written:
    """Writes the rows that the file lacks behind those it has: as an append where possible, else the whole file anew.

    The whole file is written where the table has columns that the header lacks, and where the file's blocks or its
    line ends are not ours. Every row keeps its place in the file, and every value its text.

    A manifest that does not name the table's key is written even if no row is missing, since the purge is about to
    compare by that key.
    """
    lake = order.site.lake
    columns = readback.columns + tuple(name for name in table.names if name not in readback.columns)
    append = bool(manifest) and readback.takes_more_rows and columns == readback.columns and lake.appendable(file)
    missing = rows_of_day(connection, table, order.day, columns, unless=readback)
    keys = keys_with(manifest, table.key)
    same_keys = manifest is not None and manifest.keys == keys
    if not append:
        # Without a lock afterwards: the file is read once more.
        with connection.transaction(force_rollback=True):
            require_unchanged(connection, table, "archive")
            if same_keys and not has_any(connection, missing):
                return _Written(file, manifest, 0, table.columns)
        load_verbatim(connection, readback, lake, file, progress)
        if manifest is None:
            require_lasting(connection, readback, file, f"Nothing was written or deleted. {WRITE_THE_TIME}")
    require_unchanged(connection, table, "archive")
    lock_rows(connection, table, order.day)
    with lake.write(file.path, replaces=file, append=append) as upload:
        export = Export(upload, progress, readback.hashes if append else None)
        rows_kept = readback.rows
        if not append:
            rows_kept = export.copy(connection, verbatim_rows(readback, columns), with_header=True)
        rows_appended = export.copy(connection, missing)
        if append and same_keys and not rows_appended:
            return _Written(file, manifest, 0, table.columns)
        # Rows from before a column came or changed its type were not all written as these types.
        types = types_hash(table, columns)
        of_one_kind = manifest is not None and manifest.types == types
        try:
            new_file, new_manifest = export.commit(
                partial(claim, order.site, connection),
                partial(require_same_schema, connection, table.dataset, table.schema_version),
                order.claim.source,
                order.day,
                columns,
                rows_kept + rows_appended,
                types=types if of_one_kind else "",
                keys=keys,
            )
        except UnreachableError:
            note_unanswered(lake, file)
            raise
        return _Written(new_file, new_manifest, rows_appended, table.columns)

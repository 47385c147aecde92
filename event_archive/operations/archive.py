"""Writes the rows of one aged day into the day's file. Deletes nothing.

The order is what makes it safe: the file is stat'ed first, the rows are read after that, and the file is committed on
the condition that it is still the one that was stat'ed. So no older view of the table can ever write over a newer file.
A run that loses the race starts again with a new stat and a new look at the table.

An append keeps purges of its day away by the day's lock, taken before the rows are read: else a row that changed there
and back could be purged by the file's last form while an append of the form between is on its way, and end as that.
"""

import logging
import time
from dataclasses import dataclass
from datetime import date

from psycopg import sql

from event_archive.domain.dataset import Dataset
from event_archive.domain.days import now_utc
from event_archive.domain.manifest import Hashes, Manifest
from event_archive.domain.progress import NO_PROGRESS, PacedExport, Progress
from event_archive.errors import FileChangedError, IntegrityError, LockedError
from event_archive.lake.protocol import Lake, StoredFile, Upload
from event_archive.operations.readback import Readback, load, load_verbatim, types_hash
from event_archive.operations.site import Site
from event_archive.postgres.catalogue.relations import Column
from event_archive.postgres.session import Connection, Isolation, copy_out
from event_archive.table.locks import lock_day
from event_archive.table.rows import has_rows
from event_archive.table.shape import SOURCE, Table, reflect

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_HEAD_BYTES = 64 * 1024


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
        head: the first bytes of the file.
        seconds: how long the call took.
    """

    day: date
    path: str
    url: str
    etag: str | None
    manifest: Manifest | None
    rows_appended: int
    columns: tuple[Column, ...]
    head: bytes
    seconds: float

    @property
    def rows(self) -> int:
        """Records in the file."""
        return self.manifest.rows if self.manifest else 0


@dataclass(frozen=True, slots=True)
class _Written:
    file: StoredFile | None
    manifest: Manifest | None
    rows_appended: int
    columns: tuple[Column, ...]
    head: bytes


def archive_day(
    site: Site, day: date, *, max_bytes_per_second: int | None = None, progress: Progress = NO_PROGRESS
) -> ArchivedDay:
    """Brings the day's file up to date with the table: a new file, an append, or nothing at all.

    Args:
        site: the dataset in its place. What a lagging replica lacks, the next run appends.
        day: must be aged by this machine's clock.
        max_bytes_per_second: read rows no faster than that; a read that takes longer holds its snapshot longer.
        progress: told of every piece.

    Raises:
        NotAgedError: the day is too young, or before the first that is archived.
        IntegrityError: the file contradicts its manifest.
        FileChangedError: three races for the file were lost.
        LockedError: another run holds the day, whose file is another tool's.
        RefusedError, UnreachableError, BusyError: as PostgreSQL or the lake says.
    """
    started = time.monotonic()
    dataset, lake = site.dataset, site.lake
    dataset.require_aged(day, now_utc())
    path = dataset.path(day)
    progress = PacedExport(progress, max_bytes_per_second) if max_bytes_per_second else progress
    for attempt in range(1, _ATTEMPTS + 1):
        file = lake.stat(path)
        source = site.postgres if file or site.export_postgres is None else site.export_postgres
        try:
            # An append reads its rows in one statement, whose snapshot must be younger than the day's lock.
            isolation: Isolation = "READ COMMITTED" if file else "REPEATABLE READ"
            with source.transaction(f"{dataset.table}, {day}", isolation=isolation) as connection:
                written = _write(connection, dataset, day, lake, file, progress)
            break
        except FileChangedError:
            if attempt == _ATTEMPTS:
                raise
            logger.info("%s: %s was written by somebody else meanwhile; starting again", dataset.table, path)
    return ArchivedDay(
        day=day,
        path=path,
        url=lake.url(path),
        etag=written.file.etag if written.file else None,
        manifest=written.manifest,
        rows_appended=written.rows_appended,
        columns=written.columns,
        head=written.head,
        seconds=time.monotonic() - started,
    )


def _write(
    connection: Connection, dataset: Dataset, day: date, lake: Lake, file: StoredFile | None, progress: Progress
) -> _Written:
    table = reflect(connection, dataset)
    if file is None:
        return _write_first(connection, table, day, lake, progress)
    manifest = Manifest.from_file(file, table=str(dataset.table))
    free = lock_day(connection, dataset, day, shared=True)
    if not free:
        if manifest is None:
            raise LockedError(f"{dataset.table}, {day}: another run holds this day; the next run goes on.")
        logger.info("%s, %s: another run purges this day; its file is left as it stands", dataset.table, day)
    late = free and has_rows(connection, table, day)
    if manifest and not late:
        return _Written(file, manifest, 0, table.columns, _peek(lake, file))
    readback = load(connection, table, lake, file, progress)
    if manifest:
        manifest.require(file, readback.manifest)
    elif missing_key := [name for name in table.key if name not in readback.columns]:
        raise IntegrityError(
            f"{file.path}: it has no manifest, being another tool's, and its header lacks the key: "
            f"{', '.join(missing_key)}. Nothing was written or deleted. Its rows cannot be told apart: add the key to "
            "it, or move it elsewhere."
        )
    if not late:
        return _Written(file, readback.manifest, 0, table.columns, readback.head)
    return _write_late(connection, table, day, lake, file, manifest, readback, progress)


def _write_first(connection: Connection, table: Table, day: date, lake: Lake, progress: Progress) -> _Written:
    """A new file with a header and all rows of the day; none where there are no rows."""
    with lake.write(table.dataset.path(day), replaces=None) as upload:
        export = _Export(upload, progress, Hashes())
        rows = export.copy(connection, _rows_of_day(table, day, table.names), with_header=True)
        if not rows:
            return _Written(None, None, 0, table.columns, b"")
        file, manifest = export.commit(table, table.names, rows, types=types_hash(table, table.names))
        return _Written(file, manifest, rows, table.columns, bytes(export.head))


def _write_late(
    connection: Connection,
    table: Table,
    day: date,
    lake: Lake,
    file: StoredFile,
    manifest: Manifest | None,
    readback: Readback,
    progress: Progress,
) -> _Written:
    """The rows that the file lacks, behind those it has: as an append where that is possible, else as a whole.

    The whole file is written anew where the table has columns that the header lacks, and where the file's blocks or its
    line ends are not ours. Every row that was in it stays, in its place, every value as it was.
    """
    columns = readback.columns + tuple(name for name in table.names if name not in readback.columns)
    append = bool(manifest) and readback.takes_more_rows and columns == readback.columns and lake.appendable(file)
    missing = _rows_of_day(table, day, columns, unless=readback)
    if manifest and not append and not _any(connection, missing):
        return _Written(file, manifest, 0, table.columns, readback.head)
    with lake.write(file.path, replaces=file, append=append) as upload:
        export = _Export(upload, progress, readback.hashes.copy() if append else Hashes())
        rows_kept = readback.rows
        if not append:
            load_verbatim(connection, readback, lake, file, progress)
            rows_kept = export.copy(connection, readback.everything(columns), with_header=True)
        rows_appended = export.copy(connection, missing)
        if append and not rows_appended:
            return _Written(file, manifest, 0, table.columns, readback.head)
        head = readback.head if append else bytes(export.head)
        # What was rewritten, or written before a column changed its type, is of several kinds.
        types = types_hash(table, columns)
        of_one_kind = append and manifest is not None and manifest.types == types
        new_file, new_manifest = export.commit(
            table, columns, rows_kept + rows_appended, types=types if of_one_kind else ""
        )
        return _Written(new_file, new_manifest, rows_appended, table.columns, head)


class _Export:
    """Rows on their way from PostgreSQL into an upload, hashed as they pass."""

    def __init__(self, upload: Upload, progress: Progress, hashes: Hashes) -> None:
        self.upload = upload
        self.progress = progress
        self.hashes = hashes
        self.head = bytearray()

    def copy(self, connection: Connection, query: sql.Composable, *, with_header: bool = False) -> int:
        """Copies what a query returns, as CSV, and returns how many rows that were."""
        self.progress.begin("exporting")
        statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER {}, ENCODING 'UTF8')").format(
            query, sql.SQL("true" if with_header else "false")
        )
        return copy_out(connection, statement, self._take)

    def _take(self, piece: bytearray, rows: int) -> None:
        self.hashes.update(piece)
        self.upload.write(piece)
        if len(self.head) < _HEAD_BYTES:
            self.head += piece[:_HEAD_BYTES]
        self.progress.advance(rows, len(piece))

    def commit(self, table: Table, columns: tuple[str, ...], rows: int, *, types: str) -> tuple[StoredFile, Manifest]:
        """Makes the file appear, with its manifest."""
        manifest = self.hashes.manifest(str(table.dataset.table), columns, rows, types=types)
        return self.upload.commit(manifest.to_metadata()), manifest


def _rows_of_day(
    table: Table, day: date, columns: tuple[str, ...], *, unless: Readback | None = None
) -> sql.Composable:
    """The day's rows by time and key, in the order of ``columns``; without those that stand in the file already."""
    names = [
        sql.SQL("{}.{}").format(SOURCE, sql.Identifier(name)) if name in table.names else sql.SQL("NULL")
        for name in columns
    ]
    order = [table.time, *(sql.SQL("{}.{}").format(SOURCE, sql.Identifier(name)) for name in table.key)]
    condition = table.within(day, day)
    if unless:
        condition = sql.SQL("{} AND NOT EXISTS (SELECT FROM {} WHERE {})").format(
            condition, unless.current, unless.identical
        )
    return sql.SQL("SELECT {} FROM {} AS {} WHERE {} ORDER BY {}").format(
        sql.SQL(", ").join(names), table.identifier, SOURCE, condition, sql.SQL(", ").join(order)
    )


def _any(connection: Connection, query: sql.Composable) -> bool:
    return connection.execute(sql.SQL("{} LIMIT 1").format(query)).fetchone() is not None


def _peek(lake: Lake, file: StoredFile) -> bytes:
    """The first bytes of a file."""
    with lake.read(file) as blocks:
        return next(blocks, b"")[:_HEAD_BYTES]

"""Writes a day's file into the lake: the first one, or one with what the former lacks.

Not here: whether it is written (``archive``), how rows become CSV (``export``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial

from event_archive.domain.keys import keys_with
from event_archive.domain.manifest import Manifest
from event_archive.domain.progress import Progress
from event_archive.domain.source import Claim
from event_archive.errors import UnreachableError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.claim import claim, claim_to_export
from event_archive.operations.export import Export, has_any, rows_of_day
from event_archive.operations.readback import Readback, types_hash, types_hashes
from event_archive.operations.site import Site
from event_archive.operations.unanswered import note_unanswered
from event_archive.operations.verbatim import WRITE_THE_TIME, load_verbatim, require_lasting, verbatim_rows
from event_archive.postgres.catalogue.columns import Column
from event_archive.postgres.session import Connection
from event_archive.table.locks import require_same_schema
from event_archive.table.rows import lock_rows
from event_archive.table.shape import Table, require_unchanged


@dataclass(frozen=True, slots=True)
class Order:
    """Which day is written, and whose it is."""

    site: Site
    day: date
    claim: Claim


@dataclass(frozen=True, slots=True)
class Written:
    """What came of it.

    Attributes:
        file: as it stands in the lake; None where the day has neither rows nor a file.
        manifest: what the file says of itself.
        rows_appended: rows that were written, of those in the file.
        columns: the table's.
    """

    file: StoredFile | None
    manifest: Manifest | None
    rows_appended: int
    columns: tuple[Column, ...]


def under_another_etag(lake: Lake, file: StoredFile, manifest: Manifest) -> StoredFile:
    """The same file under another ETag, where it can be appended to; else as it is.

    A commit that got no answer cannot succeed any more then: it could come when the rows that it appends have gone back
    to what they were, and been purged as that.
    """
    if not lake.appendable(file):
        return file
    with lake.write(file.path, replaces=file, append=True) as upload:
        return upload.commit(manifest.to_metadata())


def write_first(connection: Connection, table: Table, order: Order, progress: Progress) -> Written:
    """A new file with a header and all rows of the day; none where there are no rows."""
    day = order.day
    lock_rows(connection, table, day)
    with order.site.lake.write(table.dataset.path(day), replaces=None) as upload:
        export = Export(upload, progress)
        rows = export.copy(connection, rows_of_day(connection, table, day, table.names), with_header=True)
        if not rows:
            return Written(None, None, 0, table.columns)
        # Since it was asked, a standby may have been promoted: this server's rows may be its own.
        look = partial(claim_to_export, order.site, connection, day)
        types = types_hash(table, table.names)
        keys = keys_with(None, table.key)
        last_look = partial(require_same_schema, connection, table.dataset, table.schema_version)
        file, manifest = export.commit(
            look, last_look, order.claim.source, table, day, table.names, rows, types=types, keys=keys
        )
        return Written(file, manifest, rows, table.columns)


def write_late(
    connection: Connection,
    table: Table,
    order: Order,
    file: StoredFile,
    manifest: Manifest | None,
    readback: Readback,
    check: Callable[[], None],
    progress: Progress,
) -> Written:
    """Writes the rows that the file lacks behind those it has: as an append where possible, else the whole file anew.

    The whole file is written where the table has columns that the header lacks, and where the file's blocks or its
    line ends are not ours. Every row keeps its place in the file, and every value its text.

    A manifest that does not name the table's key is written even if no row is missing, since the purge is about to
    compare by that key.

    Args:
        connection: in the transaction in which the file was read back.
        table: whose rows are appended.
        order: which day.
        file: the day's.
        manifest: the file's; None where another tool wrote it.
        readback: of the file.
        check: asked once the rows were read; what it raises is raised here, and the file stays as it is.
        progress: is told of every piece.
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
                return Written(file, manifest, 0, table.columns)
        load_verbatim(connection, readback, lake, file, progress)
        if manifest is None:
            require_lasting(
                connection, readback, file, outcome="Nothing was written or deleted.", advice=WRITE_THE_TIME
            )
    require_unchanged(connection, table, "archive")
    lock_rows(connection, table, order.day)
    with lake.write(file.path, replaces=file, append=append) as upload:
        export = Export(upload, progress, readback.hashes if append else None)
        rows_kept = readback.rows
        if not append:
            rows_kept = export.copy(connection, verbatim_rows(readback, columns), with_header=True)
        rows_appended = export.copy(connection, missing)
        if rows_appended:
            check()
        if append and same_keys and not rows_appended:
            return Written(file, manifest, 0, table.columns)
        # Rows from before a column came or changed its type were not all written as these types.
        types = manifest.types if manifest and manifest.types in types_hashes(table, columns) else ""
        try:
            new_file, new_manifest = export.commit(
                partial(claim, order.site, connection),
                partial(require_same_schema, connection, table.dataset, table.schema_version),
                order.claim.source,
                table,
                order.day,
                columns,
                rows_kept + rows_appended,
                types=types,
                keys=keys,
            )
        except UnreachableError:
            note_unanswered(lake, file)
            raise
        return Written(new_file, new_manifest, rows_appended, table.columns)

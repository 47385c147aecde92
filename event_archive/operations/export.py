"""A day's rows from PostgreSQL into an upload, as CSV: which rows, in which order, how fast. Not here: what for."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date

from psycopg import sql

from event_archive.domain.key_types import key_types_of
from event_archive.domain.keys import places_of
from event_archive.domain.manifest import Hashes, Key, Manifest
from event_archive.domain.progress import Phase, Progress
from event_archive.domain.source import Source
from event_archive.lake.protocol import StoredFile, Upload
from event_archive.operations.readback import ARCHIVED, Readback
from event_archive.postgres.copy import copy_out
from event_archive.postgres.session import Connection, one
from event_archive.table.shape import TABLE_ALIAS, Table


class Export:
    """Rows on their way from PostgreSQL into an upload, hashed as they pass: one phase of an operation.

    Args:
        upload: where they go.
        progress: is told of every piece.
        hashes: of what the file holds already, where this is an append.
    """

    def __init__(self, upload: Upload, progress: Progress, hashes: Hashes | None = None) -> None:
        self._upload = upload
        self._progress = progress
        self._hashes = hashes or Hashes()
        progress.begin("exporting")

    def copy(self, connection: Connection, query: sql.Composable, *, with_header: bool = False) -> int:
        """Copies what a query returns, as CSV, and returns how many rows that were."""
        statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER {}, ENCODING 'UTF8')").format(
            query, sql.SQL("true" if with_header else "false")
        )
        self._header_lines = int(with_header)
        return copy_out(connection, statement, self._take)

    def _take(self, piece: bytearray, lines: int) -> None:
        self._hashes.update(piece)
        self._upload.write(piece)
        self._progress.advance(lines - self._header_lines, len(piece))
        self._header_lines = 0

    def commit(
        self,
        look: Callable[[], object],
        last_look: Callable[[], object],
        source: Source,
        table: Table,
        day: date,
        columns: tuple[str, ...],
        rows: int,
        *,
        types: str,
        keys: tuple[Key, ...],
    ) -> tuple[StoredFile, Manifest]:
        """Makes the file appear, with its manifest.

        Args:
            look: when all has arrived, raises where the files have another owner by now.
            last_look: at the last instant, raises where the session was lost, and so the day's lock: rows may have been
                purged by the file as it was; or where the rows may have been another table's.
            source: whose rows they are.
            table: the same, as its rows were read and compared.
            day: of the rows.
            columns: of the header.
            rows: in the whole file.
            types: as ``types_hash`` tells them.
            keys: that tell the file's rows apart.
        """
        self._upload.settle()
        look()
        content = self._hashes.manifest(source.table, columns, rows)
        manifest = replace(
            content.of(source, day),
            types=types,
            keys=keys,
            key_places=places_of(keys, table.oid, table.numbers),
            key_types=key_types_of(keys, table.key_types),
        )
        return self._upload.commit(manifest.to_metadata(), last_look), manifest


class PacedExport:
    """A ``Progress`` that slows an export down: rows are exported no faster than so many bytes a second.

    Args:
        progress: is told the same.
        bytes_per_second: the pace.
    """

    def __init__(self, progress: Progress, bytes_per_second: int) -> None:
        self._progress = progress
        self._bytes_per_second = bytes_per_second
        self._exporting = False
        self._started = time.monotonic()
        self._bytes = 0

    def begin(self, phase: Phase, *, total_bytes: int | None = None) -> None:
        """Begins a phase; only an export is slowed down."""
        self._progress.begin(phase, total_bytes=total_bytes)
        self._exporting = phase == "exporting"
        self._started, self._bytes = time.monotonic(), 0

    def advance(self, rows: int, size_bytes: int) -> None:
        """Waits as long as the pace demands."""
        self._progress.advance(rows, size_bytes)
        if self._exporting:
            self._bytes += size_bytes
            time.sleep(max(0.0, self._started + self._bytes / self._bytes_per_second - time.monotonic()))


# Of a text that does not come back from UTF-8 the bytes are made such that PostgreSQL refuses them.
_COMES_BACK = """
pg_catalog.convert_from(
  CASE
    WHEN pg_catalog.convert_from({utf_8}, 'UTF8') COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) {row} THEN {utf_8}
    ELSE pg_catalog.decode('ff', 'hex')
  END,
  'UTF8'
) IS NOT NULL
"""
_WITH_TWO_CODES = ("EUC_", "MULE_")
"""How encodings begin of which two characters may be one in UTF-8: a key would become another row's in the file."""


def rows_of_day(
    connection: Connection,
    table: Table,
    day: date,
    columns: tuple[str, ...],
    *,
    unless: Readback | None = None,
) -> sql.Composable:
    """The day's rows by time and key, in the order of ``columns``; without those that stand in the file already.

    Where the file holds a former form of a row, of the same time, columns that the table does not have any more are
    taken over from that: a restore brings back the last form alone.

    The query fails, as for a text that is no UTF-8, where a row of the day does not come back from that as it was.
    """
    of_table = frozenset(table.names)
    names = [
        sql.SQL("{}.{}").format(TABLE_ALIAS if name in of_table else ARCHIVED, sql.Identifier(name)) for name in columns
    ]
    rows = table.rows
    if unless and not of_table.issuperset(columns):
        rows = sql.SQL("{} LEFT JOIN {}").format(rows, unless.former)
    order = [table.time, *(sql.SQL("{}.{}").format(TABLE_ALIAS, sql.Identifier(name)) for name in table.key)]
    condition = table.within(day, day)
    if unless:
        condition = sql.SQL("{} AND NOT EXISTS (SELECT FROM {} WHERE {})").format(
            condition, unless.current, unless.identical
        )
    if (connection.info.parameter_status("server_encoding") or "").startswith(_WITH_TWO_CODES):
        row = sql.SQL("({}.*)::pg_catalog.text").format(TABLE_ALIAS)
        utf_8 = sql.SQL("pg_catalog.convert_to({}, 'UTF8')").format(row)
        condition = sql.SQL("{} AND {}").format(condition, sql.SQL(_COMES_BACK).format(row=row, utf_8=utf_8))
    return sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {}").format(
        sql.SQL(", ").join(names), rows, condition, sql.SQL(", ").join(order)
    )


def has_any(connection: Connection, query: sql.Composable) -> bool:
    """Whether a query returns a row. None of it comes here: Python has no date for each of PostgreSQL's."""
    return bool(one(connection, sql.SQL("SELECT EXISTS ({})").format(query))[0])

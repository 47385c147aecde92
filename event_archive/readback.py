"""A day's CSV back into a temporary table, inside the caller's transaction.

The one mechanism behind append, purge, restore and verify. Here: loading, numbering the rows, and the conditions that a
row of the table stands in the file. Not here: what follows from it.

The file's rows are numbered in file order by ``line``. Of several rows with one key only the last counts: the others
get a negative number, which takes them out of every comparison and keeps them in place for a rewrite.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from event_archive.dataset import check_identifier
from event_archive.lake import Lake, StoredFile
from event_archive.manifest import Manifest, columns_hash, contradiction
from event_archive.postgres import Connection
from event_archive.table import SOURCE, Table

Progress = Callable[[str, int, int], None]
"""Called with what was done (``archived``, ``read back``), and to how many more rows (0: not known) and bytes."""


def no_progress(_what: str, _rows: int, _bytes: int) -> None:
    """Tells nobody."""


READBACK = sql.Identifier("pg_temp", "event_archive_readback")
"""The temporary table."""
ARCHIVED = sql.Identifier("archived_")
"""The alias of ``Readback.current``."""
_MAX_HEADER_BYTES = 1024 * 1024
_HEAD_BYTES = 64 * 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Readback:
    """A file as it was read, and how to hold the table against it.

    Attributes:
        table: the table it is held against.
        columns: the file's header.
        rows: records in the file, superseded ones included.
        superseded: records that a later one of the same key replaces.
        as_text: the values no longer all parse as the table's types, and were loaded as text.
        head: the first bytes of the file, 64 KiB at most.
        hashes: running SHA-256 and MD5 over the bytes read, to be copied by whoever appends.
        line: the column that numbers the rows.
    """

    table: Table
    columns: tuple[str, ...]
    rows: int
    superseded: int
    as_text: bool
    head: bytes
    hashes: "Hashes"
    line: sql.Identifier

    @property
    def current(self) -> sql.Composable:
        """The current rows of the file, as a FROM item: ``key_0`` …, and all of the table's columns as ``image``."""
        keys = [
            sql.SQL("{} AS {}").format(sql.Identifier(name), sql.Identifier(f"key_{place}"))
            for place, name in enumerate(self.table.key)
        ]
        image = sql.SQL(", ").join(map(sql.Identifier, self.table.names))
        return sql.SQL("(SELECT {}, ROW({}) AS image FROM {} WHERE {} > 0) AS {}").format(
            sql.SQL(", ").join(keys), image, READBACK, self.line, ARCHIVED
        )

    @property
    def same_key(self) -> sql.Composable:
        """The condition that ``SOURCE`` and a row of ``current`` have one key."""
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}.{}").format(self._source(name), ARCHIVED, sql.Identifier(f"key_{place}"))
            for place, name in enumerate(self.table.key)
        )

    @property
    def identical(self) -> sql.Composable:
        """The condition that ``SOURCE`` and a row of ``current`` have one key and agree in every column.

        ``*=`` compares the values' bytes and says "differs" of some that a round trip through text has repacked; the
        comparison of the text settles those.
        """
        return sql.SQL(
            "{same_key} AND (ROW({row}) OPERATOR(pg_catalog.*=) {archived}.image "
            "OR ROW({row})::text = {archived}.image::text)"
        ).format(
            same_key=self.same_key,
            row=sql.SQL(", ").join(self._source(name) for name in self.table.names),
            archived=ARCHIVED,
        )

    @property
    def manifest(self) -> Manifest:
        """What a manifest of exactly these bytes says."""
        return self.hashes.manifest(self.table, self.columns, self.rows)

    def everything(self, columns: Sequence[str]) -> sql.Composable:
        """All the file's rows, in file order, in the given columns: any of the file's and the table's."""
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        return sql.SQL("SELECT {} FROM {} ORDER BY abs({})").format(names, READBACK, self.line)

    def _source(self, name: str) -> sql.Composable:
        column = sql.SQL("{}.{}").format(SOURCE, sql.Identifier(name))
        if not self.as_text:
            return column
        # format() takes the type's output function, as COPY does; a cast to text does not (boolean, bpchar, inet …).
        return sql.SQL("(CASE WHEN {0} IS DISTINCT FROM NULL THEN format('%s', {0}) END COLLATE \"C\")").format(column)


class Hashes:
    """SHA-256 and MD5 over the same bytes. Azure wants the MD5; nothing rests on it."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.bytes = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes."""
        self.sha256.update(data)
        self.md5.update(data)
        self.bytes += len(data)

    def manifest(self, table: Table, columns: Sequence[str], rows: int) -> Manifest:
        """The manifest of a file of these bytes."""
        name = str(table.dataset.table)
        return Manifest(name, rows, self.bytes, self.sha256.hexdigest(), columns_hash(columns))

    def copy(self) -> "Hashes":
        """The same state, to go on from without disturbing this one."""
        twin = Hashes()
        twin.sha256, twin.md5, twin.bytes = self.sha256.copy(), self.md5.copy(), self.bytes
        return twin


def load(connection: Connection, table: Table, lake: Lake, file: StoredFile, progress: Progress) -> Readback:
    """Reads a file into the temporary table, which lasts until the transaction ends.

    Args:
        connection: in a transaction in which nothing was loaded yet.
        table: whose rows the file is to hold.
        lake: where the file lies.
        file: as stat'ed; any other version is refused.
        progress: told of every block.

    Raises:
        IntegrityError: not a CSV file with a header.
        FileChangedError, UnreachableError, RefusedError: as the lake says.
    """
    try:
        with connection.transaction():
            return _load(connection, table, lake, file, progress, as_text=False)
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        # The table's types have changed since, or the file is damaged: as text either can be told.
        typed_words = error.diag.message_primary or ""
    try:
        with connection.transaction():
            return _load(connection, table, lake, file, progress, as_text=True)
    except psycopg.DataError as error:
        where = (error.diag.context or "").partition("\n")[0]
        raise contradiction(
            file,
            f"it is not a CSV file of {table.dataset.table}: {error.diag.message_primary} ({typed_words}; {where})",
        ) from None


def _load(
    connection: Connection, table: Table, lake: Lake, file: StoredFile, progress: Progress, *, as_text: bool
) -> Readback:
    hashes = Hashes()
    with lake.read(file) as blocks:
        head, rest = _head(blocks, file)
        columns = header(head, file)
        line = _create(connection, table, columns, as_text=as_text)
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, HEADER true, ENCODING 'UTF8')").format(
            READBACK, names
        )
        with connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                hashes.update(head)
                copy.write(head.removeprefix(_BOM))
                progress("read back", 0, len(head))
                for block in rest:
                    hashes.update(block)
                    copy.write(block)
                    progress("read back", 0, len(block))
            rows = cursor.rowcount
    superseded = _index(connection, table, line)
    return Readback(table, columns, rows, superseded, as_text, head[:_HEAD_BYTES], hashes, line)


def _create(connection: Connection, table: Table, columns: Sequence[str], *, as_text: bool) -> sql.Identifier:
    """Creates the temporary table: the table's columns without its constraints, then those that only the file has."""
    names = [sql.SQL("NULL::text AS {}" if as_text else "{}").format(sql.Identifier(name)) for name in table.names]
    names += [sql.SQL("NULL::text AS {}").format(sql.Identifier(name)) for name in columns if name not in table.names]
    line = sql.Identifier(line_column([*table.names, *columns]))
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            READBACK, sql.SQL(", ").join(names), table.identifier
        )
    )
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD COLUMN {} bigint GENERATED BY DEFAULT AS IDENTITY (CACHE 1000)").format(
            READBACK, line
        )
    )
    return line


def _index(connection: Connection, table: Table, line: sql.Composable) -> int:
    """Indexes the current rows by key and says how many rows are superseded: mostly none, which the index proves."""
    key = sql.SQL(", ").join(map(sql.Identifier, table.key))
    index = sql.SQL("CREATE UNIQUE INDEX ON {} ({}) WHERE {} > 0").format(READBACK, key, line)
    superseded = 0
    try:
        with connection.transaction():
            connection.execute(index)
    except psycopg.errors.UniqueViolation:
        superseded = connection.execute(
            sql.SQL(
                "UPDATE {readback} SET {line} = -{line} WHERE {line} IN (SELECT {line} FROM (SELECT {line}, "
                "lead({line}) OVER (PARTITION BY {key} ORDER BY {line}) AS later_ FROM {readback} "
                "WHERE num_nulls({key}) = 0) AS numbered_ WHERE later_ IS NOT NULL)"
            ).format(readback=READBACK, line=line, key=key)
        ).rowcount
        connection.execute(index)
    connection.execute(sql.SQL("ANALYZE {}").format(READBACK))
    return superseded


def line_column(names: Sequence[str]) -> str:
    """A name for the numbering column that is none of ``names``."""
    line = "line_"
    while line in names:
        line += "_"
    return line


def _head(blocks: Iterator[bytes], file: StoredFile) -> tuple[bytes, Iterator[bytes]]:
    """The first blocks, until they hold the whole header record, and the blocks that follow."""
    head = b""
    for block in blocks:
        head += block
        if _header_end(head) or len(head) > _MAX_HEADER_BYTES:
            break
    if not head:
        raise contradiction(file, "it is empty, without even a header")
    return head, blocks


def _header_end(head: bytes) -> int:
    """Where the first record ends: after the first line end outside quotes; 0 where it does not."""
    end = head.find(b"\n")
    while end >= 0:
        if head.count(b'"', 0, end) % 2 == 0:
            return end + 1
        end = head.find(b"\n", end + 1)
    return 0


def header(head: bytes, file: StoredFile) -> tuple[str, ...]:
    """The column names in a file's first record.

    Args:
        head: the first bytes of the file.
        file: for messages.

    Raises:
        IntegrityError: not UTF-8, not one CSV record, or names that no table can have.
    """
    end = _header_end(head) or min(len(head), _MAX_HEADER_BYTES)
    try:
        records = list(csv.reader(io.StringIO(head[:end].removeprefix(_BOM).decode(), newline=""), strict=True))
        names = records[0]
        for name in names or [""]:
            check_identifier(name)
    except (UnicodeDecodeError, csv.Error, IndexError, ValueError) as error:
        raise contradiction(file, f"its first line is not the header of a CSV file ({error})") from None
    if len(set(names)) < len(names):
        raise contradiction(file, "its header names a column twice")
    return tuple(names)

"""A day's CSV back into a temporary table, inside the caller's transaction.

The one mechanism behind append, purge, restore and adopt; ``verify`` has a reader that is not PostgreSQL. Here:
loading, numbering the rows, and the conditions that a row of the table stands in the file. Not here: what follows.

The file's rows are numbered in file order by ``line``. Of several rows with one key only the last counts: the others
get a negative number, which takes them out of every comparison and keeps them in place for a rewrite.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import psycopg
from psycopg import sql

from event_archive.domain.contradiction import contradiction
from event_archive.domain.manifest import Hashes, Manifest, columns_hash
from event_archive.domain.progress import Progress
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.csv_format import BOM, header, read_head, takes_more_rows, without_end_marker
from event_archive.postgres.session import Connection
from event_archive.table.shape import SOURCE, Table

READBACK = sql.Identifier("pg_temp", "event_archive_readback")
"""The temporary table of a read-back."""
VERBATIM = sql.Identifier("pg_temp", "event_archive_verbatim")
"""The temporary table of ``load_verbatim``: text, numbered likewise."""
_END_MARKER_ENDS_BEFORE = 180000
_NOT_OF_THE_VALUES = ("08", "25", "40", "42501", "53", "55", "57", "58", "XX")
"""What the SQLSTATE begins with where a COPY, or what leads to it, fails for another reason than what it reads."""
ARCHIVED = sql.Identifier("archived_")
"""The alias of ``Readback.current``."""
_HEAD_BYTES = 64 * 1024
# libpq copies what it is given into a buffer that grows to the largest piece, and doubles on its way there.
_PIECE_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Readback:
    """A file as it was read, and how to hold the table against it.

    Attributes:
        table: the table it is held against.
        columns: the file's header.
        rows: records in the file, superseded ones included.
        superseded: records that a later one of the same key replaces.
        as_text: the columns loaded as text, because not all values parse as the table's types any more.
        takes_more_rows: whether rows may be appended to the file's bytes as they are.
        head: the first bytes of the file, 64 KiB at most.
        hashes: running SHA-256 over the bytes read, to be copied by whoever appends.
        line: the column that numbers the rows.
    """

    table: Table
    columns: tuple[str, ...]
    rows: int
    superseded: int
    as_text: frozenset[str]
    takes_more_rows: bool
    head: bytes
    hashes: Hashes
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
            "OR ROW({row})::text OPERATOR(pg_catalog.=) {archived}.image::text)"
        ).format(
            same_key=self.same_key,
            row=sql.SQL(", ").join(self._source(name) for name in self.table.names),
            archived=ARCHIVED,
        )

    @property
    def manifest(self) -> Manifest:
        """What a manifest of exactly these bytes says."""
        return self.hashes.manifest(str(self.table.dataset.table), self.columns, self.rows)

    def everything(self, columns: Sequence[str]) -> sql.Composable:
        """All the file's rows as ``load_verbatim`` read them, in file order; NULL in columns that the file lacks."""
        names = [
            sql.SQL("{}" if name in self.columns else "NULL AS {}").format(sql.Identifier(name)) for name in columns
        ]
        return sql.SQL("SELECT {} FROM {} ORDER BY {}").format(sql.SQL(", ").join(names), VERBATIM, self.line)

    def _source(self, name: str) -> sql.Composable:
        column = sql.SQL("{}.{}").format(SOURCE, sql.Identifier(name))
        if name not in self.as_text:
            return column
        # format() takes the type's output function, as COPY does; a cast to text does not (boolean, bpchar, inet …).
        return sql.SQL(
            "(CASE WHEN {0} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', {0}) END COLLATE \"C\")"
        ).format(column)


def types_hash(table: Table, columns: Sequence[str]) -> str:
    """What ``Manifest.types`` says of columns as they are in a table today.

    Empty where it lacks one of them, or where a type's name says too little, being that of a domain or the like.
    """
    types = {column.name: column.type for column in table.columns if column.built_in}
    return columns_hash([types[name] for name in columns]) if types.keys() >= set(columns) else ""


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
    values = frozenset(name for name in table.names if name not in table.key)
    words = ""
    # The table's types may have changed since: then as text what is not the key, and at the very last all of it.
    for as_text in (frozenset[str](), values, frozenset(table.names)):
        try:
            with connection.transaction():
                return _load(connection, table, lake, file, progress, as_text=as_text)
        except psycopg.Error as error:
            if (error.sqlstate or "08").startswith(_NOT_OF_THE_VALUES):
                raise
            where = (error.diag.context or "").partition("\n")[0]
            words = words or f"{error.diag.message_primary} ({where})"
    raise contradiction(file, f"it is not a CSV file of {table.dataset.table}: {words}")


def load_verbatim(connection: Connection, readback: Readback, lake: Lake, file: StoredFile, progress: Progress) -> None:
    """Reads a file once more, every value as the text that stands in it, for ``Readback.everything``.

    What is rewritten must come out as it was: a value that went through today's types may lose digits, keys or order.

    Raises:
        IntegrityError: it reads otherwise than before.
    """
    create = sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP").format(
        VERBATIM,
        sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in readback.columns),
    )
    connection.execute(create)
    _number(connection, VERBATIM, readback.line)
    with lake.read(file) as blocks:
        rows, hashes = _copy(connection, VERBATIM, readback.columns, blocks, file, progress)
    if (rows, hashes.sha256.digest()) != (readback.rows, readback.hashes.sha256.digest()):
        raise contradiction(file, "it read differently the second time")


def _load(
    connection: Connection, table: Table, lake: Lake, file: StoredFile, progress: Progress, *, as_text: frozenset[str]
) -> Readback:
    with lake.read(file) as blocks:
        first = read_head(blocks, file)
        columns = header(first, file)
        line = sql.Identifier(line_column([*table.names, *columns]))
        _create(connection, table, columns, line, as_text)
        rows, hashes = _copy(connection, READBACK, columns, chain([first], blocks), file, progress)
    superseded = _index(connection, table, line)
    return Readback(
        table=table,
        columns=columns,
        rows=rows,
        superseded=superseded,
        as_text=as_text,
        takes_more_rows=takes_more_rows(first, hashes.last_byte),
        head=first[:_HEAD_BYTES],
        hashes=hashes,
        line=line,
    )


def _copy(
    connection: Connection,
    into: sql.Identifier,
    columns: Sequence[str],
    blocks: Iterator[bytes],
    file: StoredFile,
    progress: Progress,
) -> tuple[int, Hashes]:
    """Copies a file's blocks into a temporary table; returns its number of rows and its hashes."""
    hashes = Hashes()
    progress.begin("reading back", total_bytes=file.size_bytes)
    if connection.info.server_version < _END_MARKER_ENDS_BEFORE:
        blocks = without_end_marker(blocks, file)
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, HEADER true, ENCODING 'UTF8')").format(into, names)
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for block in blocks:
                content = memoryview(block if hashes.bytes else block.removeprefix(BOM))
                for start in range(0, len(content), _PIECE_BYTES):
                    copy.write(content[start : start + _PIECE_BYTES])
                hashes.update(block)
                progress.advance(0, len(block))
        return cursor.rowcount, hashes


def _create(
    connection: Connection, table: Table, columns: Sequence[str], line: sql.Identifier, as_text: frozenset[str]
) -> None:
    """Creates the temporary table: the table's columns without its constraints, then those that only the file has."""
    names = [
        sql.SQL("NULL::text AS {}" if name in as_text else "{}").format(sql.Identifier(name)) for name in table.names
    ]
    names += [sql.SQL("NULL::text AS {}").format(sql.Identifier(name)) for name in columns if name not in table.names]
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            READBACK, sql.SQL(", ").join(names), table.identifier
        )
    )
    for name in table.names:
        if name not in columns:
            # What the file lacks is NULL, whatever default a domain has.
            connection.execute(
                sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET DEFAULT NULL").format(READBACK, sql.Identifier(name))
            )
    _number(connection, READBACK, line)


def _number(connection: Connection, table: sql.Identifier, line: sql.Identifier) -> None:
    """Adds the column that numbers the rows as they are loaded."""
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD COLUMN {} bigint GENERATED BY DEFAULT AS IDENTITY (CACHE 1000)").format(table, line)
    )


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
                "WHERE pg_catalog.num_nulls({key}) = 0) AS numbered_ WHERE later_ IS NOT NULL)"
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

"""A day's CSV into a temporary table, inside the caller's transaction: read, numbered, indexed by key.

Not here: how rows are compared with it (``readback``), a file's values as they are spelled (``verbatim``).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import psycopg
from psycopg import sql

from event_archive.domain.contradiction import no_csv_of_ours
from event_archive.domain.manifest import Hashes
from event_archive.domain.progress import Phase, Progress
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.csv_format import MovingWords, header, read_head, takes_more_rows, without_end_marker
from event_archive.operations.parsing import parse_keys
from event_archive.operations.readback import READBACK, Readback
from event_archive.postgres.copy import copy_in
from event_archive.postgres.errors import is_of_a_copy, without_values
from event_archive.postgres.pins import own_search_path
from event_archive.postgres.session import Connection, is_whole, listed, one
from event_archive.table.shape import Table

# From PostgreSQL 18 on, a line that is \. alone is data like any other.
_END_MARKER_HARMLESS_SINCE = 180000
_CONNECTION_LOST = "08"
_INTERNAL_ERROR = "XX000"
_NOT_THE_FILES_FAULT = (
    _CONNECTION_LOST,
    "25",  # invalid transaction state: read-only, cut off while idle
    "40",  # transaction rollback: deadlock, serialization
    "42501",  # insufficient privilege
    "53",  # insufficient resources: disk, memory, connections
    "54",  # program limit exceeded: the column that numbers the rows makes them too long, or one too many
    "55",  # object not in prerequisite state: a lock that is not available
    "57",  # operator intervention: cancelled, shutting down
    "58",  # system error: I/O
    "XX",  # internal error
)
"""What the SQLSTATE of an error begins with that says nothing against the file."""
_HAS_SUPERSEDED = """
SELECT EXISTS (SELECT FROM {readback} WHERE pg_catalog.num_nulls({key}) OPERATOR(pg_catalog.=) 0
               GROUP BY {key} HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 1)
"""
_SET_SUPERSEDED_APART = """
UPDATE {readback} SET {line} = OPERATOR(pg_catalog.-) {line} WHERE {line} OPERATOR(pg_catalog.=) ANY (
  SELECT {line} FROM (SELECT {line}, pg_catalog.lead({line}) OVER (PARTITION BY {key} ORDER BY {line}) AS later_
                      FROM {readback} WHERE pg_catalog.num_nulls({key}) OPERATOR(pg_catalog.=) 0) AS numbered_
  WHERE later_ IS NOT NULL)
"""


def load(
    connection: Connection,
    table: Table,
    lake: Lake,
    file: StoredFile,
    progress: Progress,
    *,
    former_time: str = "",
    into: sql.Identifier = READBACK,
) -> Readback:
    """Reads a file into a temporary table, which lasts until the transaction ends.

    Args:
        connection: in a transaction.
        table: whose rows the file is to hold.
        lake: where the file lies.
        file: as stat'ed; any other version is refused.
        progress: is told of every block; each attempt is a phase of its own.
        former_time: the table's time column as it was called when the file was written.
        into: the temporary table's name, in ``pg_temp``; there must be none of it yet.

    Raises:
        IntegrityError: it is no CSV file with a header.
        FileChangedError, UnreachableError, RefusedError: as the lake says.
    """
    values = frozenset(name for name in table.names if name not in table.key)
    # The table's types may have changed since. Then all columns but the key are read as text; if that fails too, all,
    # and those keys that parse are parsed afterwards.
    attempts = [frozenset[str](), values, frozenset(table.names)]
    words, unparsed, one_by_one = "", frozenset[str](), False
    while attempts:
        try:
            with connection.transaction():
                return _load(
                    connection,
                    table,
                    lake,
                    file,
                    progress,
                    former_time=former_time,
                    into=into,
                    as_text=attempts.pop(0),
                )
        except _NotParsedError as error:
            words = words or str(error)
            if one_by_one and not error.columns <= unparsed:
                attempts.append(unparsed | error.columns)
            unparsed |= error.columns
        except psycopg.errors.ProgramLimitExceeded:
            if one_by_one or not unparsed:
                raise
            # As texts, a row's values do not fit into one of PostgreSQL's: those columns alone that do not parse, one
            # that is not of the key among them, by which a restore sees it.
            unparsed |= frozenset() if unparsed & values else frozenset(sorted(values)[:1])
            attempts, one_by_one = [unparsed], True
    raise no_csv_of_ours(file, f"it is not a CSV file of {table.dataset.table}: {words}")


class _NotParsedError(Exception):
    """The COPY itself found fault with the file. What fails around it says nothing of the file.

    Attributes:
        columns: what it found fault with, if it says so: a column of the table; of the key, all.
    """

    def __init__(self, error: psycopg.Error, table: Table) -> None:
        line, column = _place(error.diag.context or "", table.names)
        place = f" (line {line}, column {column})" if column else f" (line {line})" if line else ""
        super().__init__(without_values(error) + place)
        self.columns = frozenset(table.key if column in table.key else [column] if column else [])


def _place(context: str, names: Iterable[str]) -> tuple[str, str]:
    """The line of a file, and the column if it is one of ``names``, that the context of a COPY's error is about.

    Args:
        context: in any language: ``COPY event_archive_readback, line 3, column id: "x"``.
        names: the table's columns.

    Returns:
        Both, empty where the context does not say.
    """
    column = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    of_a_copy = rf'^(?:COPY )?event_archive_[a-z0-9_]+[^\d:"]*(\d+)(?:[^\d:"]*? ({column})(?!\w))?'
    found = re.search(of_a_copy, context, re.MULTILINE)
    return (found[1], found[2] or "") if found else ("", "")


def _load(
    connection: Connection,
    table: Table,
    lake: Lake,
    file: StoredFile,
    progress: Progress,
    *,
    former_time: str,
    into: sql.Identifier,
    as_text: frozenset[str],
) -> Readback:
    with lake.read(file) as blocks:
        first = read_head(blocks, file)
        columns = header(first, file, table.names)
        if not set(columns).intersection(table.names):
            # Not named: where the header was cut off, its first line is a row.
            raise no_csv_of_ours(file, f"its first line names no column of {table.dataset.table}")
        line = sql.Identifier(line_column([*table.names, *columns]))
        # Event triggers and the checks of domains may call what they name without a schema. What an event trigger sets
        # must not change how the file is parsed.
        with own_search_path(connection):
            _create(connection, into, table, columns, line, as_text)
        with own_search_path(connection, to_read_values=True):
            words = MovingWords()
            content = words.watch(chain([first], blocks))
            try:
                rows, hashes = copy_file(connection, into, columns, content, file, progress, phase="reading back")
            except psycopg.Error as error:
                code, not_parsed = error.sqlstate or _CONNECTION_LOST, _NotParsedError(error, table)
                # An extension's type may refuse a value by an internal error, as hstore does before PostgreSQL 16.
                of_a_value = code == _INTERNAL_ERROR and not_parsed.columns and is_of_a_copy(error)
                if code.startswith(_NOT_THE_FILES_FAULT) and not of_a_value:
                    raise
                raise not_parsed from None
            unparsed = 0
            # Where a table is nothing but key, a restore must still see that values do not parse.
            if as_text > set(table.key):
                parse_keys(connection, into, table)
                unparsed = rows - one(connection, sql.SQL("SELECT pg_catalog.count(*) FROM {}").format(into))[0]
                as_text = as_text.difference(table.key)
    superseded = _index(connection, into, table, line)
    return Readback(
        table=table,
        relation=into,
        columns=columns,
        rows=rows,
        superseded=superseded,
        unparsed=unparsed,
        as_text=as_text,
        takes_more_rows=takes_more_rows(first, hashes.last_byte),
        may_say_today=words.found,
        hashes=hashes,
        line=line,
        former_time=former_time if former_time in columns and former_time != table.dataset.time_column else "",
    )


def count_keyless(connection: Connection, readback: Readback) -> int:
    """How many rows of a file lack a value of the table's key."""
    query = sql.SQL("SELECT pg_catalog.count(*) FROM {} WHERE NOT {}")
    return int(one(connection, query.format(readback.relation, is_whole(readback.table.key)))[0])


def copy_file(
    connection: Connection,
    into: sql.Identifier,
    columns: Sequence[str],
    blocks: Iterable[bytes],
    file: StoredFile,
    progress: Progress,
    *,
    phase: Phase,
) -> tuple[int, Hashes]:
    """Copies a file's blocks into a temporary table, as a phase of its own.

    Returns:
        The number of rows, and the hashes of the file.
    """
    hashes = Hashes()
    progress.begin(phase, total_bytes=file.size_bytes)

    def passing() -> Iterator[bytes]:
        for block in blocks:
            yield block
            hashes.update(block)
            progress.advance(0, len(block))

    content = passing()
    if connection.info.server_version < _END_MARKER_HARMLESS_SINCE:
        content = without_end_marker(content, file)
    names = listed(columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, HEADER true, ENCODING 'UTF8')").format(into, names)
    return copy_in(connection, statement, content), hashes


def _create(
    connection: Connection,
    into: sql.Identifier,
    table: Table,
    columns: Sequence[str],
    line: sql.Identifier,
    as_text: frozenset[str],
) -> None:
    """Creates the temporary table: the table's columns without constraints, then those that only the file has.

    From definitions, since to make it from the table would lock that for as long as the file is read.
    """
    text = sql.SQL("pg_catalog.text")
    definitions = [
        # A column that the file lacks reads as NULL, whatever default its domain has.
        sql.SQL("{} {} {}").format(
            sql.Identifier(column.name),
            text if column.name in as_text else column.definition,
            sql.SQL("" if column.name in columns else "DEFAULT NULL"),
        )
        for column in table.columns
    ]
    definitions += [sql.SQL("{} {}").format(sql.Identifier(name), text) for name in columns if name not in table.names]
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP").format(into, sql.SQL(", ").join(definitions))
    )
    number_rows(connection, into, line)


def number_rows(connection: Connection, table: sql.Identifier, line: sql.Identifier) -> None:
    """Adds the column that numbers the rows of a temporary table as they are loaded, and makes the table ready."""
    connection.execute(
        # A thousand numbers are taken from the sequence at a time, which costs less than one by one.
        sql.SQL("ALTER TABLE {} ADD COLUMN {} bigint GENERATED BY DEFAULT AS IDENTITY (CACHE 1000)").format(table, line)
    )
    # An event trigger may give every new table triggers, which would change what is loaded or copy it elsewhere.
    connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(table))


def _index(connection: Connection, into: sql.Identifier, table: Table, line: sql.Composable) -> int:
    """Indexes the current rows by key and returns how many rows are superseded: those are numbered negatively.

    Mostly none are. That is asked first: a unique index that cannot be made writes a key into PostgreSQL's log.
    """
    names = {"readback": into, "line": line, "key": listed(table.key)}
    superseded = 0
    with own_search_path(connection):
        if one(connection, sql.SQL(_HAS_SUPERSEDED).format(**names))[0]:
            superseded = connection.execute(sql.SQL(_SET_SUPERSEDED_APART).format(**names)).rowcount
        connection.execute(
            sql.SQL("CREATE UNIQUE INDEX ON {readback} ({key}) WHERE {line} OPERATOR(pg_catalog.>) 0").format(**names)
        )
    connection.execute(sql.SQL("ANALYZE {}").format(into))
    return superseded


def line_column(names: Sequence[str]) -> str:
    """A name for the numbering column that is none of ``names``."""
    line = "line_"
    while line in names:
        line += "_"
    return line

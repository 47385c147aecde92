"""A day's CSV as text, each value as it is spelled: to rewrite it, and to compare with what its type makes of it.

Not here: the read-back that rows are compared with; which differences lose something (``losses``).
"""

from collections.abc import Mapping, Sequence

import psycopg
from psycopg import sql

from event_archive.domain.contradiction import contradiction
from event_archive.domain.dataset import quoted
from event_archive.domain.progress import Progress
from event_archive.domain.wording import counted
from event_archive.errors import RefusedError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.csv_format import MOVING_WORDS
from event_archive.operations.loading import copy_file, number_rows
from event_archive.operations.readback import Readback
from event_archive.postgres.catalogue.columns import columns_of_time
from event_archive.postgres.pins import own_search_path
from event_archive.postgres.session import Connection, one

_COLUMNS_AT_ONCE = 800
_TEXTS_IN_A_ROW = 200
"""Which fit whatever they are: PostgreSQL takes 24 bytes out of a row no more, and a row has 8 kB."""
VERBATIM = sql.Identifier("pg_temp", "event_archive_verbatim")
"""The temporary table, or view, that holds the text, its rows numbered as those of the read-back."""

WRITE_THE_TIME = "Write the time itself into the file, or move the file elsewhere."

_WORD = f"'{'|'.join(word.decode() for word in MOVING_WORDS)}'"


def load_verbatim(connection: Connection, readback: Readback, lake: Lake, file: StoredFile, progress: Progress) -> None:
    """Reads a file once more, every value as the text that stands in it, into ``VERBATIM``.

    What is rewritten must come out as it was: a value that went through today's types may lose digits, keys or order.

    Where a row's values do not fit into one of PostgreSQL's as texts, some of its columns are read at a time.

    Raises:
        IntegrityError: it holds something else than when it was read back.
    """
    try:
        with connection.transaction():
            _load(connection, readback, lake, file, progress, VERBATIM, readback.columns)
        return
    except psycopg.errors.ProgramLimitExceeded:
        if len(readback.columns) <= _TEXTS_IN_A_ROW:
            raise
    names, tables = list[sql.Composable](), list[sql.Composable]()
    for first in range(0, len(readback.columns), _TEXTS_IN_A_ROW):
        part = sql.Identifier("pg_temp", f"event_archive_verbatim_{first}")
        texts = readback.columns[first : first + _TEXTS_IN_A_ROW]
        _load(connection, readback, lake, file, progress, part, texts)
        tables.append(sql.SQL("{} USING ({})").format(part, readback.line) if tables else part)
        names += [sql.SQL("{}.{}").format(part, sql.Identifier(name)) for name in texts]
    whole = sql.SQL("CREATE TEMPORARY VIEW {} AS SELECT {}, {} FROM {}").format(
        VERBATIM, readback.line, sql.SQL(", ").join(names), sql.SQL(" JOIN ").join(tables)
    )
    with own_search_path(connection):
        connection.execute(whole)


def _load(
    connection: Connection,
    readback: Readback,
    lake: Lake,
    file: StoredFile,
    progress: Progress,
    into: sql.Identifier,
    texts: Sequence[str],
) -> None:
    """Reads these columns as text; of the others, each takes a byte."""
    kinds = {True: sql.SQL("pg_catalog.text"), False: sql.SQL('pg_catalog."char"')}
    wanted = frozenset(texts)
    definitions = [sql.SQL("{} {}").format(sql.Identifier(of), kinds[of in wanted]) for of in readback.columns]
    create = sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP")
    with own_search_path(connection):
        connection.execute(create.format(into, sql.SQL(", ").join(definitions)))
        number_rows(connection, into, readback.line)
    with lake.read(file) as blocks:
        rows, hashes = copy_file(connection, into, readback.columns, blocks, file, progress, phase="reading as text")
    if (rows, hashes.sha256.digest()) != (readback.rows, readback.hashes.sha256.digest()):
        raise contradiction(file, "it changed between two readings")


def verbatim_rows(readback: Readback, columns: Sequence[str]) -> sql.Composable:
    """All the file's rows as ``load_verbatim`` read them, in file order; NULL in columns that the file lacks."""
    names = [
        sql.SQL("{}" if name in readback.columns else "NULL AS {}").format(sql.Identifier(name)) for name in columns
    ]
    return sql.SQL("SELECT {} FROM {} ORDER BY {}").format(sql.SQL(", ").join(names), VERBATIM, readback.line)


def count_current(
    connection: Connection,
    readback: Readback,
    counts: Mapping[str, sql.Composable],
    *,
    with_superseded: bool = False,
) -> dict[str, int]:
    """What these aggregates by column say of the current rows, as values and as text; those alone that are not 0.

    Args:
        connection: in the transaction in which ``load_verbatim`` has read the file.
        readback: of the file.
        counts: aggregates in which ``as_text`` and ``as_value`` name a column's two forms.
        with_superseded: whether rows count as well that a later one replaces.
    """
    found: dict[str, int] = {}
    # PostgreSQL joins rows of 1,664 columns at most, and each is there twice.
    for first in range(0, len(counts), _COLUMNS_AT_ONCE):
        some = list(counts)[first : first + _COLUMNS_AT_ONCE]
        # The numbers of superseded rows are negative in the read-back alone.
        query = sql.SQL(
            "SELECT {counts} FROM {readback} AS value_ JOIN {verbatim} AS file_ "
            "ON file_.{line} OPERATOR(pg_catalog.=) {number}"
        ).format(
            counts=sql.SQL(", ").join(counts[name] for name in some),
            readback=readback.relation,
            verbatim=VERBATIM,
            line=readback.line,
            number=sql.SQL("pg_catalog.abs(value_.{})" if with_superseded else "value_.{}").format(readback.line),
        )
        found |= dict(zip(some, one(connection, query), strict=True))
    return {name: count for name, count in found.items() if count}


def as_text(name: str) -> sql.Composable:
    """A column's value as it is spelled in the file."""
    return sql.SQL("file_.{}").format(sql.Identifier(name))


def as_value(name: str) -> sql.Composable:
    """A column's value as COPY prints it; in a collation by which the beginnings of texts can be told."""
    return sql.SQL("(pg_catalog.format('%s', value_.{}) COLLATE pg_catalog.\"C\")").format(sql.Identifier(name))


def _unquoted(text: sql.Composable) -> sql.Composable:
    """A text without backslashes and quotes, which arrays, ranges and rows take within a word."""
    return sql.SQL("pg_catalog.translate({}, pg_catalog.concat(pg_catalog.chr(92), '\"'), '')").format(text)


def named(counts: Mapping[str, int]) -> str:
    """Columns, and in how many rows of each, for a message."""
    return ", ".join(f"{quoted(name)} ({counted(rows, 'row', 'rows')})" for name, rows in counts.items())


def require_lasting(connection: Connection, readback: Readback, file: StoredFile, *, outcome: str, advice: str) -> None:
    """Refuses a file in which a time is ``today`` or the like: it equals a row of the table today, and none tomorrow.

    Args:
        connection: in the transaction in which ``load_verbatim`` has read the file.
        readback: of the file.
        file: the file.
        outcome: what was not done.
        advice: what to do.

    Raises:
        RefusedError: it says so in a column of times.
    """
    of_time = columns_of_time(connection, readback.table.oid)
    counts = {
        name: sql.SQL(
            "count(*) FILTER (WHERE {text} ~* {word} AND "
            "(SELECT count(*) FROM pg_catalog.regexp_matches({text}, {word}, 'gi')) > "
            "(SELECT count(*) FROM pg_catalog.regexp_matches({value}, {word}, 'gi')))"
        ).format(text=_unquoted(as_text(name)), value=_unquoted(as_value(name)), word=sql.SQL(_WORD))
        for name in readback.columns
        if name in of_time
    }
    if found := count_current(connection, readback, counts):
        raise RefusedError(
            f"{file.path}: it says now, today, tomorrow or yesterday in place of a time, which means another one each "
            f"day: {named(found)}.",
            outcome=outcome,
            advice=advice,
        )

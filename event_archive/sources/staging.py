"""Lines of a COPY in a temporary table of the session's own, from where a landing merges them. Not here: the merge."""

from collections.abc import Iterable, Iterator, Sequence

from psycopg import sql

from event_archive.errors import IntegrityError
from event_archive.postgres.copy import copy_in
from event_archive.postgres.pins import own_search_path
from event_archive.postgres.session import Connection, one
from event_archive.sources.copy_format import OPTIONS

_COPIED_AT_ONCE = 500
"""Lines that are joined to one piece of the COPY."""
_IS_MISSING = "SELECT pg_catalog.to_regclass(%s) IS NULL"
_MAKE = sql.SQL(
    "CREATE TEMPORARY TABLE {table} ({columns}) ON COMMIT DELETE ROWS; ALTER TABLE {table} DISABLE TRIGGER USER"
)


def stage(
    connection: Connection, name: str, columns: Iterable[tuple[str, str]], lines: Sequence[bytes]
) -> sql.Identifier:
    """Copies lines into a temporary table of this session, which is empty at the end of each transaction.

    Args:
        connection: in a transaction.
        name: of the table that they are for.
        columns: name and SQL type of each, in the order of a line.
        lines: as ``copy_format.line`` writes them.

    Returns:
        The temporary table.

    Raises:
        IntegrityError: PostgreSQL took another number of lines.
    """
    table = sql.Identifier("pg_temp", f"event_archive_landing_{name}"[:63])
    described = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in columns
    )
    if one(connection, _IS_MISSING, table.as_string())[0]:
        # Event triggers find what they name. They may give every new table triggers, which would change what is staged.
        with own_search_path(connection, to_read_values=True):
            connection.execute(_MAKE.format(table=table, columns=described))
    _empty(connection, table)
    copied = copy_in(
        connection, sql.SQL("COPY {} FROM STDIN WITH ({})").format(table, sql.SQL(OPTIONS)), _pieces(lines)
    )
    if copied != len(lines):
        raise IntegrityError(f"{name}: PostgreSQL took {copied} of {len(lines)} records. None was taken in.")
    return table


def _empty(connection: Connection, staged: sql.Identifier) -> None:
    """Empties a temporary table where another part of the transaction has filled it: the commit empties it by itself.

    A TRUNCATE writes to the catalogue, which a worker would do many times a second, for ever.
    """
    if one(connection, sql.SQL("SELECT EXISTS (SELECT FROM {})").format(staged))[0]:
        connection.execute(sql.SQL("TRUNCATE {}").format(staged))


def _pieces(lines: Sequence[bytes]) -> Iterator[bytes]:
    for start in range(0, len(lines), _COPIED_AT_ONCE):
        yield b"\n".join([*lines[start : start + _COPIED_AT_ONCE], b""])

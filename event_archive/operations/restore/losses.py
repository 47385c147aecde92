"""What today's types make of a file's values. Here: telling a value that lost something from one spelled otherwise.

A value that was written as ``1.23456`` still parses where its column has become ``numeric(10,2)``, as ``1.23``. What
PostgreSQL prints of it has then lost digits; what another tool wrote as ``2024-03-01T01:02:03Z`` has lost nothing.
"""

from psycopg import sql

from event_archive.domain.progress import Progress
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.readback import READBACK, Readback
from event_archive.operations.verbatim import VERBATIM, load_verbatim
from event_archive.postgres.session import Connection, one

_IS_JSON_SINCE = 160000
_NUMBER = "{file}::numeric = {value}::numeric"
_INSTANT = "{file}::timestamptz = {value}::timestamptz"
# A text that parses as one of these is kept in full, however it is spelled.
_ANY = "true"
_JSONB = "{file} IS JSON WITH UNIQUE KEYS"
_SAME = {
    "smallint": _NUMBER, "integer": _NUMBER, "bigint": _NUMBER, "numeric": _NUMBER, "real": _NUMBER,
    "double precision": _NUMBER, "date": _INSTANT, "timestamp without time zone": _INSTANT,
    "timestamp with time zone": _INSTANT, "boolean": _ANY, "bytea": _ANY, "uuid": _ANY, "jsonb": _JSONB,
}  # fmt: skip
_LOST = (
    "count(*) FILTER (WHERE CASE WHEN file_.{name} IS NULL OR pg_catalog.starts_with({value}, {file}) THEN false "
    "ELSE NOT ({same}) END)"
)


def losses(
    connection: Connection, readback: Readback, lake: Lake, file: StoredFile, progress: Progress
) -> dict[str, int]:
    """The columns in which current rows read as less than the file's text says, and in how many rows each.

    A value is whole where its text, as PostgreSQL prints it today, begins with the file's, or is another spelling of
    the same value.

    Args:
        connection: in the transaction of the read-back.
        readback: of the file; its table's columns are those to look at.
        lake: where the file lies, which is read once more.
        file: the same.
        progress: told of every block.

    Raises:
        IntegrityError, FileChangedError, UnreachableError, RefusedError: as ``load_verbatim``.
    """
    load_verbatim(connection, readback, lake, file, progress)
    columns = [column for column in readback.table.columns if column.name in readback.columns]
    counts = [
        sql.SQL(_LOST).format(
            name=sql.Identifier(column.name),
            value=_value(column.name),
            file=_text(column.name),
            same=sql.SQL(_same(column.plain_type, connection.info.server_version)).format(
                file=_text(column.name), value=_value(column.name)
            ),
        )
        for column in columns
    ]
    # Superseded rows have another sign there.
    found = one(
        connection,
        sql.SQL("SELECT {counts} FROM {readback} AS value_ JOIN {verbatim} AS file_ USING ({line})").format(
            counts=sql.SQL(", ").join(counts), readback=READBACK, verbatim=VERBATIM, line=readback.line
        ),
    )
    return {column.name: count for column, count in zip(columns, found, strict=True) if count}


def _same(plain_type: str, server_version: int) -> str:
    """The condition that two texts are one value of a type, where it has a rule of its own."""
    rule = _SAME.get(plain_type, "false")
    return "false" if rule == _JSONB and server_version < _IS_JSON_SINCE else rule


def _text(name: str) -> sql.Composable:
    return sql.SQL("file_.{}").format(sql.Identifier(name))


def _value(name: str) -> sql.Composable:
    """A value as COPY prints it."""
    return sql.SQL("pg_catalog.format('%s', value_.{})").format(sql.Identifier(name))

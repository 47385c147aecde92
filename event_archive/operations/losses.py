"""Values of a file that today's types would cut short. Not here: what is done about them, which rows come back.

A value that was written as ``1.23456`` still parses where its column has become ``numeric(10,2)``, but as ``1.23``: it
has lost digits. One that another tool wrote as ``2024-03-01T01:02:03Z`` is only spelled differently.
"""

from collections.abc import Collection

from psycopg import sql

from event_archive.operations.readback import Readback
from event_archive.operations.verbatim import as_text, as_value, count_current
from event_archive.postgres.catalogue.columns import Column
from event_archive.postgres.session import Connection

_IS_JSON_SINCE = 160000
_NUMBER = "{file}::numeric = {value}::numeric"
# As text, since there are dates later than any instant.
_TO_INSTANT = "CASE WHEN {0}::date < '294276-01-01' OR NOT isfinite({0}::date) THEN {0}::timestamptz::text ELSE {0} END"
_INSTANT = f"{_TO_INSTANT.format('{file}')} = {_TO_INSTANT.format('{value}')}"
# Whatever parses as one of these types is kept in full, however it is spelled.
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
    connection: Connection, readback: Readback, names: Collection[str], *, with_superseded: bool = False
) -> dict[str, int]:
    """Those columns whose values lose something as today's types, and in how many rows.

    A value loses nothing where PostgreSQL prints it as a text that begins with the file's, or as another spelling of
    the same value.

    Args:
        connection: in the transaction in which ``load_verbatim`` has read the file.
        readback: of the file.
        names: the columns to look at, as far as the table and the file have them.
        with_superseded: whether rows count that a later one replaces.
    """
    counts = {
        column.name: sql.SQL(_LOST).format(
            name=sql.Identifier(column.name),
            value=as_value(column.name),
            file=as_text(column.name),
            same=sql.SQL(_same(column.plain_type, connection.info.server_version)).format(
                file=as_text(column.name), value=as_value(column.name)
            ),
        )
        for column in readback.table.columns
        if column.name in names and column.name in readback.columns
    }
    return count_current(connection, readback, counts, with_superseded=with_superseded)


def comparable_text(column: Column) -> sql.Composable:
    """What is the same for two texts of a file that are one value of a column, however that is spelled: of times."""
    rule = _TO_INSTANT if _SAME.get(column.plain_type) == _INSTANT else "{0}"
    return sql.SQL(rule).format(sql.Identifier(column.name))


def _same(plain_type: str, server_version: int) -> str:
    """The condition that two texts are one value of a type, where it has a rule of its own."""
    rule = _SAME.get(plain_type, "false")
    return "false" if rule == _JSONB and server_version < _IS_JSON_SINCE else rule

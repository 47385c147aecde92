"""Which rows of a file are forms of one, by one key or by another. Not here: what is done where keys disagree."""

from collections.abc import Sequence

from psycopg import sql

from event_archive.domain.manifest import Key
from event_archive.operations.readback import READBACK, Readback
from event_archive.postgres.session import Connection, is_whole, listed, one


def differing(connection: Connection, readback: Readback, keys: Sequence[Key]) -> tuple[int, int, int]:
    """Counts the rows that the target's key takes for current and these keys do not, or the other way round.

    A row is replaced for certain where a later one agrees with it in the columns of all keys, NULLs included: whichever
    of the keys the table had then, they are one row. Values are compared by the default equality of their types.

    Returns:
        How many rows would be lost, how many former forms would come back, and of how many the keys disagree.
    """
    replaced = sql.SQL(" OR ").join(
        sql.SQL("{} AND {}").format(is_whole(key), _has_later(readback, key)) for key in keys
    )
    together = tuple(dict.fromkeys(name for key in keys for name in key))
    query = sql.SQL(
        "SELECT pg_catalog.count(*) FILTER (WHERE NOT replaced_ AND {line} < 0), "
        "pg_catalog.count(*) FILTER (WHERE replaced_ AND {line} > 0), "
        "pg_catalog.count(*) FILTER (WHERE replaced_ AND NOT certain_) "
        "FROM (SELECT {line}, {replaced} AS replaced_, {certain} AS certain_ FROM {readback}) AS row_"
    ).format(line=readback.line, replaced=replaced, certain=_has_later(readback, together), readback=READBACK)
    lost, former, undecided = one(connection, query)
    return lost, former, undecided


def _has_later(readback: Readback, names: Sequence[str]) -> sql.Composable:
    """The condition that a later row of the file has the same values in these columns, NULL being one."""
    return sql.SQL("lead({0}) OVER (PARTITION BY {1} ORDER BY pg_catalog.abs({0})) IS NOT NULL").format(
        readback.line, listed(names)
    )

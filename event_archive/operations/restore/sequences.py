"""Sequences behind the columns of the table that was filled: the next row must not get a value that stands there.

Not here: how the catalogue tells which there are.
"""

import logging

from psycopg import sql

from event_archive.domain.dataset import TableName, quoted
from event_archive.operations.readback import READBACK, Readback
from event_archive.postgres.catalogue.relations import index_begins_with
from event_archive.postgres.catalogue.sequences import Sequence, position_of, sequences_behind, set_next
from event_archive.postgres.session import Connection, one

logger = logging.getLogger(__name__)


def move_on(connection: Connection, readback: Readback) -> tuple[str, ...]:
    """Moves each sequence past the values that the table has, where this role may, and never back.

    Of a column without an index, and of a table in partitions, all of which would be locked, only the values of the
    file are looked at.

    Args:
        connection: in the transaction that filled the table. What a sequence is set to outlives a rollback.
        readback: of the file; its table is the one that was filled.

    Returns:
        The statements that somebody else has to run, since this role may not see or move a sequence.
    """
    return tuple(
        _told(sequence, readback)
        for sequence in sequences_behind(connection, readback.table.oid)
        if not _is_past(connection, sequence, _furthest_of(connection, sequence, readback))
    )


def _told(sequence: Sequence, readback: Readback) -> str:
    """Warns that a sequence is to be moved, and returns the statement."""
    statement = _statement(sequence, readback.table.identifier)
    logger.warning(
        "%s: sequence %s may give values that %s has already, and this role may not see or move it (SELECT and "
        "UPDATE).%s Let its owner run: %s",
        readback.table.dataset.table,
        TableName(sequence.schema, sequence.name),
        quoted(sequence.column),
        " Then the next INSERT fails on the key." if sequence.column in readback.table.key else "",
        statement,
    )
    return statement


def _furthest_of(connection: Connection, sequence: Sequence, readback: Readback) -> int | None:
    """The furthest value of the column; None where there is none, or values that are no numbers."""
    table = readback.table.dataset.table
    if not sequence.of_numbers:
        logger.warning(
            "%s: the default of %s uses sequence %s, but makes no numbers of it. See that the sequence stands past "
            "what was restored.",
            table,
            quoted(sequence.column),
            TableName(sequence.schema, sequence.name),
        )
        return None
    at_hand = not readback.table.is_partitioned and index_begins_with(connection, readback.table.oid, sequence.column)
    furthest: int | None = one(connection, _furthest(sequence, readback.table.identifier if at_hand else READBACK))[0]
    return furthest


def _is_past(connection: Connection, sequence: Sequence, furthest: int | None) -> bool:
    """Whether the sequence stands past a value, moved there where need be; False where the role may not."""
    if furthest is None:
        return True
    while sequence.readable:
        stands = position_of(connection, sequence)
        if (furthest - stands.next) * sequence.increment < 0:
            return True
        if not sequence.settable:
            return False
        steps = (furthest - stands.next) // sequence.increment + 1
        following = stands.next + steps * sequence.increment
        following = min(max(following, sequence.least), sequence.greatest)
        if set_next(connection, sequence, following, unless_moved_from=stands):
            logger.info("sequence %s is moved on", TableName(sequence.schema, sequence.name))
            return True
    return False


def _furthest(sequence: Sequence, source: sql.Composable) -> sql.Composed:
    """The query of the furthest value that is not the sequence's last one, which may stand for something else."""
    query = "SELECT pg_catalog.{}({column})::pg_catalog.int8 FROM {} WHERE {column} {} {}"
    ends = ("max", "<", sequence.greatest) if sequence.increment > 0 else ("min", ">", sequence.least)
    extreme, before, end = ends
    return sql.SQL(query).format(
        sql.SQL(extreme), source, sql.SQL(before), sql.Literal(end), column=sql.Identifier(sequence.column)
    )


def _statement(sequence: Sequence, table: sql.Composable) -> str:
    """What moves the sequence, whenever it is run, without a value of the table in it."""
    furthest_of = sql.SQL("greatest" if sequence.increment > 0 else "least")
    return (
        sql.SQL("SELECT pg_catalog.setval({}, {}(({}), last_value)) FROM {};")
        .format(
            sql.Literal(sequence.identifier.as_string(None)),
            furthest_of,
            _furthest(sequence, table),
            sequence.identifier,
        )
        .as_string(None)
    )

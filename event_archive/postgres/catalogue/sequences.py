"""Sequences behind a table's columns: which, how they count, where they stand. Not here: what is done about it."""

from dataclasses import dataclass

from psycopg import sql

from event_archive.postgres.session import Connection, one

# Owned (serial), internal (identity), or named by the column's default, which the text of a default need not show.
_BEHIND = """
SELECT a.attname, n.nspname, c.relname, s.seqrelid, s.seqincrement, s.seqmin, s.seqmax, t.typcategory = 'N',
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_sequence_privilege(c.oid, 'SELECT'),
       pg_catalog.has_sequence_privilege(c.oid, 'UPDATE')
FROM (SELECT refobjsubid AS attnum, objid AS sequence FROM pg_catalog.pg_depend
      WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND refobjid = %(oid)s AND refobjsubid > 0 AND deptype IN ('a', 'i')
      UNION
      SELECT adnum, refobjid FROM pg_catalog.pg_attrdef AS d JOIN pg_catalog.pg_depend ON objid = d.oid
      WHERE classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
        AND refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND adrelid = %(oid)s) AS behind_
JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = behind_.sequence
JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = %(oid)s AND a.attnum = behind_.attnum
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
WHERE NOT s.seqcycle ORDER BY a.attnum, n.nspname, c.relname
"""
_POSITION = "SELECT last_value + CASE WHEN is_called THEN {} ELSE 0 END, last_value, is_called FROM {}"
# Only where nobody took a value since: it must never go back.
_SET_NEXT = """
SELECT pg_catalog.setval({oid}::pg_catalog.oid::pg_catalog.regclass, {value}, false) FROM {sequence}
WHERE last_value = {last} AND is_called = {called}
"""


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence from which a column takes values, one that does not cycle.

    Attributes:
        column: the column.
        schema: of the sequence.
        name: of the sequence.
        oid: of the sequence.
        increment: negative where it counts down.
        least: the least value it may give.
        greatest: the greatest.
        of_numbers: whether the column's type is a number's, so that its values compare with the sequence's.
        readable: whether this role may see where it stands.
        settable: whether this role may move it.
    """

    column: str
    schema: str
    name: str
    oid: int
    increment: int
    least: int
    greatest: int
    of_numbers: bool
    readable: bool
    settable: bool

    @property
    def identifier(self) -> sql.Identifier:
        """The sequence's name for SQL."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a sequence stands.

    Attributes:
        next: the value that it gives next.
        last: ``last_value``.
        called: ``is_called``.
    """

    next: int
    last: int
    called: bool


def sequences_behind(connection: Connection, oid: int) -> list[Sequence]:
    """The sequences behind a table's columns, whether by identity, by ownership or by a default."""
    return [Sequence(*row) for row in connection.execute(_BEHIND, {"oid": oid}).fetchall()]


def position_of(connection: Connection, sequence: Sequence) -> Position:
    """Where a sequence stands at this moment; it must be readable."""
    return Position(*one(connection, sql.SQL(_POSITION).format(sql.Literal(sequence.increment), sequence.identifier)))


def set_next(connection: Connection, sequence: Sequence, value: int, *, unless_moved_from: Position) -> bool:
    """Lets a sequence give ``value`` next, at once and whatever becomes of the transaction; it must be settable.

    Returns:
        False where it stood elsewhere by then, and was left alone.
    """
    statement = sql.SQL(_SET_NEXT).format(
        sequence=sequence.identifier,
        oid=sql.Literal(sequence.oid),
        value=sql.Literal(value),
        last=sql.Literal(unless_moved_from.last),
        called=sql.Literal(unless_moved_from.called),
    )
    return connection.execute(statement).fetchone() is not None

"""The types that a key's values are written and read as. Not here: which types read the same (``domain.key_types``)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from event_archive.postgres.catalogue.columns import TYPES_OF_COLUMNS
from event_archive.postgres.session import Connection

# A domain's values are those of the type below it. Labels and attributes stand in the order in which they were added;
# one that was renamed keeps its place.
_VALUE_TYPES = """
, below_(name_, oid, typmod, collation_) AS (
  SELECT attname::text, atttypid, atttypmod, attcollation FROM pg_catalog.pg_attribute
  WHERE attrelid = %(oid)s AND attname = ANY (%(names)s::text[])
  UNION ALL SELECT name_, typbasetype, typtypmod, collation_ FROM below_ JOIN pg_catalog.pg_type USING (oid)
            WHERE typtype = 'd'),
parts_(name_, of_, number, part_) AS (
  SELECT name_, 0::pg_catalog.oid, e.oid::bigint, enumlabel::text
  FROM types_ JOIN pg_catalog.pg_enum AS e ON enumtypid = types_.oid
  UNION ALL SELECT name_, attrelid, attnum, pg_catalog.format(
    '%%s of %%s: %%s', attnum, relnatts, pg_catalog.format_type(atttypid, atttypmod))
  FROM types_ JOIN pg_catalog.pg_type AS t USING (oid) JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
  JOIN pg_catalog.pg_attribute ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
SELECT name_, pg_catalog.format_type(below_.oid, typmod)
    || coalesce((SELECT pg_catalog.format(' COLLATE %%I.%%I', n.nspname, collname)
                 FROM pg_catalog.pg_collation AS l JOIN pg_catalog.pg_namespace AS n ON n.oid = collnamespace
                 WHERE l.oid = collation_ AND NOT collisdeterministic), ''),
  ARRAY (SELECT part_ FROM parts_ WHERE parts_.name_ = below_.name_ ORDER BY of_ DESC, number)
FROM below_ JOIN pg_catalog.pg_type USING (oid) WHERE typtype <> 'd'
"""
_PLAIN_TYPE = """
SELECT typname FROM pg_catalog.pg_type WHERE oid = pg_catalog.to_regtype(%s)
AND typtype = 'b' AND typnamespace = 'pg_catalog'::pg_catalog.regnamespace
"""
_WORDS = re.compile(r"[a-z0-9 ]+(\([0-9]+(,-?[0-9]+)?\))?[a-z ]*(\[\])?")


@dataclass(frozen=True, slots=True)
class ValueType:
    """What a column's values are read as.

    Attributes:
        name: of the type, below all domains, with its modifiers, its schema where that is not ``pg_catalog``, and its
            collation where that takes different texts for equal: ``numeric(10,2)``.
        parts: what the definitions of the types that it is made of say of values: attributes of composite types, and
            behind them labels of enums, as they were added.
    """

    name: str
    parts: tuple[str, ...] = ()


def plain_type(connection: Connection, name: str) -> sql.Composable | None:
    """A type of PostgreSQL's own for SQL, without modifiers; None where it is another one's, or has a collation."""
    if not _WORDS.fullmatch(name):
        return None
    row = connection.execute(_PLAIN_TYPE, (name,)).fetchone()
    return sql.Identifier("pg_catalog", row[0]) if row else None


def value_types(connection: Connection, oid: int, names: Iterable[str]) -> dict[str, ValueType]:
    """The types of a table's columns, by the columns' names."""
    rows = connection.execute(TYPES_OF_COLUMNS + _VALUE_TYPES, {"oid": oid, "names": list(names)}).fetchall()
    return {name: ValueType(kind, tuple(parts)) for name, kind, parts in rows}

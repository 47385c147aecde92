"""One table by itself: what kind it is, its columns, key, indexes, comment. Not here: other tables, privileges."""

from dataclasses import dataclass

from event_archive.postgres.session import Connection, one

_RELATION = """
SELECT c.oid, c.relkind, c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent = c.oid)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
_COLUMNS = """
SELECT attname, pg_catalog.format_type(atttypid, atttypmod), pg_catalog.format_type(atttypid, NULL),
       NOT attnotnull, attgenerated <> '',
       t.typtype = 'b' AND t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_type AS t ON t.oid = atttypid
WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
# Of several keys the primary one; else the one of fewest columns, the first by name, so that it is always the same.
_KEY = """
SELECT ARRAY(SELECT a.attname::text
             FROM pg_catalog.unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k(attnum, place)
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.place)
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indimmediate AND NOT i.indisexclusion
  AND i.indpred IS NULL AND i.indexprs IS NULL
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = i.indrelid AND NOT a.attnotnull
                  AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS n
                  WHERE n.conrelid = i.indrelid AND n.contype = 'n' AND NOT n.convalidated
                  AND n.conkey[1] = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
ORDER BY i.indisprimary DESC, i.indnkeyatts, c.relname LIMIT 1
"""
_INDEX_BEGINS_WITH = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
               JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
               JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
               WHERE i.indrelid = %s AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree' AND a.attname = %s)
"""
_DEFAULT = """
SELECT pg_catalog.pg_get_expr(adbin, adrelid)
FROM pg_catalog.pg_attrdef JOIN pg_catalog.pg_attribute ON attrelid = adrelid AND attnum = adnum
WHERE adrelid = %s AND attname = %s
"""
_COMMENT = """
SELECT description FROM pg_catalog.pg_description
WHERE objoid = %s AND objsubid = 0 AND classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
"""


@dataclass(frozen=True, slots=True)
class Relation:
    """What bears a name: a table, a view, a sequence or the like.

    Attributes:
        oid: by which everything else is asked.
        kind: ``pg_class.relkind``: ``r`` for an ordinary table, ``p`` for a partitioned one.
        has_children: whether it is an ordinary table from which others inherit.
    """

    oid: int
    kind: str
    has_children: bool


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: as it is, unquoted.
        type: as ``format_type`` writes it, with its modifiers: ``timestamp(3) without time zone``.
        plain_type: the same without modifiers.
        nullable: whether it may hold NULL.
        generated: whether PostgreSQL computes it.
        built_in: whether the type is PostgreSQL's own, so that its name says all; a domain's or an enum's does not.
    """

    name: str
    type: str
    plain_type: str
    nullable: bool
    generated: bool = False
    built_in: bool = False


def relation(connection: Connection, schema: str, name: str) -> Relation | None:
    """What bears this name; None where nothing does."""
    row = connection.execute(_RELATION, (schema, name)).fetchone()
    return Relation(*row) if row else None


def columns(connection: Connection, oid: int) -> tuple[Column, ...]:
    """A table's columns, in its order."""
    return tuple(Column(*row) for row in connection.execute(_COLUMNS, (oid,)).fetchall())


def key(connection: Connection, oid: int) -> tuple[str, ...]:
    """The columns that tell one row from every other; empty where none do.

    Those of the primary key, else of a unique index that is valid, immediate and complete, on columns that hold no
    NULL.
    """
    row = connection.execute(_KEY, (oid,)).fetchone()
    return tuple(row[0]) if row else ()


def index_begins_with(connection: Connection, oid: int, column: str) -> bool:
    """Whether a valid, complete B-tree index begins with a column."""
    return bool(one(connection, _INDEX_BEGINS_WITH, oid, column)[0])


def default_of(connection: Connection, oid: int, column: str) -> str | None:
    """The expression of a column's default; None where it has none."""
    row = connection.execute(_DEFAULT, (oid, column)).fetchone()
    return row[0] if row else None


def comment_on(connection: Connection, oid: int) -> str | None:
    """A table's comment; None where it has none."""
    row = connection.execute(_COMMENT, (oid,)).fetchone()
    return row[0] if row else None


_ALIKE = """
SELECT nspname, relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p') AND pg_catalog.lower(relname) = pg_catalog.lower(%s)
  AND NOT pg_catalog.starts_with(nspname::text, 'pg_')
ORDER BY pg_catalog.lower(nspname) = pg_catalog.lower(%s) DESC, nspname, relname LIMIT 3
"""


def tables_named_alike(connection: Connection, schema: str, name: str) -> list[tuple[str, str]]:
    """Schema and name of tables that a name may mean where nothing bears it: at most three, the likeliest first.

    Those of the name in other upper and lower case, in that schema or in another.
    """
    rows = connection.execute(_ALIKE, (name, schema)).fetchall()
    return [(found, table) for found, table in rows]

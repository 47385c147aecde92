"""One table by itself: what kind it is, its key, indexes, comment. Not here: its columns, other tables, privileges."""

from dataclasses import dataclass

from event_archive.postgres.session import Connection, one

_RELATION = """
SELECT c.oid, c.relkind, c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent = c.oid),
       EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'timescaledb')
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
_SIZE = """
WITH RECURSIVE tree_(oid) AS (
  SELECT %s::pg_catalog.oid UNION SELECT inhrelid FROM pg_catalog.pg_inherits JOIN tree_ ON inhparent = tree_.oid)
SELECT coalesce(pg_catalog.sum(pg_catalog.pg_total_relation_size(oid)), 0)::bigint FROM tree_
"""
# Of several the primary key first; else that of fewest columns, the first by name, so that it is always the same.
# Strategy 3 of a B-tree's operator family is equality. An index is ordinary where each operator class is the one that
# the column's type has by default, and the collation the column's own: else rows may be equal by the type's equality
# that the index tells apart. A domain has the class of the type below it; varchar has none and takes that of text.
_UNIQUE_INDEXES = """
SELECT c.relname::text, of_.ordinary, of_.names, of_.operators
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am AS m ON m.oid = c.relam AND m.amname = 'btree'
CROSS JOIN LATERAL (
  SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.place) AS names,
         pg_catalog.array_agg(pg_catalog.format('%%I.%%s', n.nspname, e.oprname) ORDER BY k.place) AS operators,
         pg_catalog.bool_and(a.attnotnull) AS not_null,
         pg_catalog.bool_and(o.opcdefault AND k.collation_ = a.attcollation AND CASE
           WHEN base_.oid = 'pg_catalog.varchar'::pg_catalog.regtype
           THEN o.opcintype = 'pg_catalog.text'::pg_catalog.regtype
           ELSE o.opcintype = base_.oid OR NOT EXISTS (
             SELECT FROM pg_catalog.pg_opclass AS d
             WHERE d.opcmethod = o.opcmethod AND d.opcdefault AND d.opcintype = base_.oid) END) AS ordinary
  FROM ROWS FROM (pg_catalog.unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]),
                  pg_catalog.unnest((i.indclass::oid[])[0:i.indnkeyatts - 1]),
                  pg_catalog.unnest((i.indcollation::oid[])[0:i.indnkeyatts - 1]))
    WITH ORDINALITY AS k(attnum, class_, collation_, place)
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
  JOIN pg_catalog.pg_opclass AS o ON o.oid = k.class_
  JOIN pg_catalog.pg_amop AS s ON s.amopfamily = o.opcfamily AND s.amopstrategy = 3
    AND s.amoplefttype = o.opcintype AND s.amoprighttype = o.opcintype
  JOIN pg_catalog.pg_operator AS e ON e.oid = s.amopopr
  JOIN pg_catalog.pg_namespace AS n ON n.oid = e.oprnamespace
  CROSS JOIN LATERAL (
    WITH RECURSIVE below_(oid) AS (
      SELECT a.atttypid
      UNION ALL SELECT t.typbasetype FROM below_ JOIN pg_catalog.pg_type AS t USING (oid) WHERE t.typtype = 'd')
    SELECT below_.oid FROM below_ JOIN pg_catalog.pg_type AS t USING (oid) WHERE t.typtype <> 'd') AS base_
) AS of_
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL AND of_.not_null
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS n
                  WHERE n.conrelid = i.indrelid AND n.contype = 'n' AND NOT n.convalidated
                  AND n.conkey[1] = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
ORDER BY i.indisprimary DESC, i.indnkeyatts, c.relname
"""
_INDEX_BEGINS_WITH = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
               JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
               JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
               WHERE i.indrelid = %s AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree' AND a.attname = %s)
"""
_COMMENT = """
SELECT description FROM pg_catalog.pg_description
WHERE objoid = %s AND objsubid = 0 AND classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
"""
_ALIKE = """
SELECT nspname, relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p') AND pg_catalog.lower(relname) = pg_catalog.lower(%s)
  AND NOT pg_catalog.starts_with(nspname::text, 'pg_')
ORDER BY pg_catalog.lower(nspname) = pg_catalog.lower(%s) DESC, nspname, relname LIMIT 3
"""
# A column of a type of somebody's own would run that one's functions as this role.
_SCHEMAS_WITH = """
SELECT n.nspname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = %s AND NOT a.attisdropped
WHERE c.relname = %s AND c.relkind = 'r' AND c.relpersistence <> 't' AND NOT c.relrowsecurity
  AND a.atttypid = 'pg_catalog.text'::pg_catalog.regtype
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
"""


@dataclass(frozen=True, slots=True)
class Relation:
    """What bears a name: a table, a view, a sequence or the like.

    Attributes:
        oid: by which everything else is asked.
        kind: ``pg_class.relkind``: ``r`` for an ordinary table, ``p`` for a partitioned one.
        has_children: whether it is an ordinary table from which others inherit, as chunks do from a hypertable.
        has_timescaledb: whether its database has the extension.
    """

    oid: int
    kind: str
    has_children: bool
    has_timescaledb: bool


def relation(connection: Connection, schema: str, name: str) -> Relation | None:
    """What bears this name; None where nothing does."""
    row = connection.execute(_RELATION, (schema, name)).fetchone()
    return Relation(*row) if row else None


def schemas_with(connection: Connection, name: str, text_column: str) -> list[str]:
    """The schemas that have a table of a name which this role may read, not a temporary one, with such a column."""
    return [schema for (schema,) in connection.execute(_SCHEMAS_WITH, (text_column, name)).fetchall()]


def version_of_schema(connection: Connection, name: str) -> str:
    """Which version of the catalogue's rows bears a schema's name: whoever renames it, and back, leaves another."""
    query = "SELECT pg_catalog.concat(oid, ' ', xmin) FROM pg_catalog.pg_namespace WHERE nspname = %s"
    row = connection.execute(query, (name,)).fetchone()
    return str(row[0]) if row else ""


def size_bytes(connection: Connection, oid: int) -> int:
    """What a table takes on disk, with its partitions, indexes and long values; compressed chunks are not counted."""
    (found,) = one(connection, _SIZE, oid)
    return int(found)


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column of a key.

    Attributes:
        name: as it is, unquoted.
        equality: the operator by which the key's index compares it, with its schema, quoted for SQL:
            ``pg_catalog.=``.
    """

    name: str
    equality: str


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A unique index that is valid, immediate and complete, on columns that hold no NULL.

    Attributes:
        name: its own.
        is_ordinary: whether it has the operator class that is the default of each column's type, and its collation.
        columns: what it tells rows apart by.
    """

    name: str
    is_ordinary: bool
    columns: tuple[KeyColumn, ...]


def unique_indexes(connection: Connection, oid: int) -> list[UniqueIndex]:
    """The indexes that tell each row of a table from every other, the primary key's first."""
    return [
        UniqueIndex(name, ordinary, tuple(map(KeyColumn, names, operators)))
        for name, ordinary, names, operators in connection.execute(_UNIQUE_INDEXES, (oid,)).fetchall()
    ]


def index_begins_with(connection: Connection, oid: int, column: str) -> bool:
    """Whether a valid, complete B-tree index begins with a column."""
    return bool(one(connection, _INDEX_BEGINS_WITH, oid, column)[0])


def comment_on(connection: Connection, oid: int) -> str | None:
    """A table's comment; None where it has none."""
    row = connection.execute(_COMMENT, (oid,)).fetchone()
    return row[0] if row else None


def tables_named_alike(connection: Connection, schema: str, name: str) -> list[tuple[str, str]]:
    """Schema and name of tables that a name may mean where nothing bears it: at most three, the likeliest first.

    Those of the name in other upper and lower case, in that schema or in another.
    """
    rows = connection.execute(_ALIKE, (name, schema)).fetchall()
    return [(found, table) for found, table in rows]

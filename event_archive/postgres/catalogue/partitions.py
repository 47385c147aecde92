"""The partitions of a table: where they lie in time, who owns them, who waits for them.

Not here: the table as a whole (``relations``), what hangs on it (``dependents``).
"""

from dataclasses import dataclass
from datetime import date, datetime

from psycopg import sql

from event_archive.postgres.session import Connection, one

# A partition is bounded where it, or a parent of it, is one of a range of the time column alone, as the text of its
# bound shows. A bound that Python knows no date for counts as none; there are dates later than any instant. One that is
# being detached concurrently is no partition any more.
_BOUNDED = """
WITH RECURSIVE tree_(oid, parent, begins, ends) AS (
  SELECT %(oid)s::pg_catalog.oid, NULL::pg_catalog.oid, NULL::timestamptz, NULL::timestamptz
  UNION ALL
  SELECT i.inhrelid, i.inhparent,
         greatest(tree_.begins, bound_.begins::timestamptz), least(tree_.ends, bound_.ends::timestamptz)
  FROM tree_
  JOIN pg_catalog.pg_partitioned_table AS p ON p.partrelid = tree_.oid
  JOIN pg_catalog.pg_inherits AS i ON i.inhparent = tree_.oid AND NOT i.inhdetachpending
  JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
  LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = tree_.oid AND a.attname = %(time)s
    AND a.attnum = p.partattrs[0]
  CROSS JOIN LATERAL (
    SELECT pg_catalog.regexp_match(
      CASE WHEN a.attnum IS NOT NULL THEN pg_catalog.pg_get_expr(c.relpartbound, c.oid) END,
      '^FOR VALUES FROM [(](?:''([^'']*)''|MINVALUE)[)] TO [(](?:''([^'']*)''|MAXVALUE)[)]$') AS found
  ) AS text_
  CROSS JOIN LATERAL (SELECT pg_catalog.regexp_replace(text_.found[1], '^[0-9]{6}.*', 'infinity') AS begins,
                             pg_catalog.regexp_replace(text_.found[2], '^[0-9]{6}.*', 'infinity') AS ends) AS bound_
)
SELECT c.oid, pg_catalog.concat(c.xmin, ' ', n.xmin), n.nspname, c.relname, u.nspname, r.relname, c.relkind = 'r',
       pg_catalog.pg_has_role(c.relowner, 'USAGE'),
       CASE WHEN begins BETWEEN '0001-01-02' AND '9999-01-01' THEN begins::date END,
       (ends - interval '1 microsecond')::date
FROM tree_
JOIN pg_catalog.pg_class AS c ON c.oid = tree_.oid AND c.relkind <> 'p'
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS r ON r.oid = tree_.parent JOIN pg_catalog.pg_namespace AS u ON u.oid = r.relnamespace
WHERE ends BETWEEN '0001-01-02' AND '9999-01-01' AND ends > %(first)s::date
  AND coalesce(begins < %(last)s::date + 1, true) AND coalesce(begins < ends, true)
ORDER BY ends, c.oid
"""
# A DROP takes them along, without CASCADE. An identity's is its own, and nobody can part the two.
_OWNED_SEQUENCES = """
SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname)
FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_class AS c ON c.oid = d.objid AND c.relkind = 'S'
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'a'
  AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = %s ORDER BY 1
"""
# What a partition's own is, as a constraint or a rule of it, goes with it. A column of another table and a function may
# have the type of its rows, or of an array of them.
_DEPENDENT = """
WITH of_ AS (
  SELECT oid AS table_, 'pg_catalog.pg_class'::pg_catalog.regclass AS class_, oid AS object_
  FROM pg_catalog.pg_class WHERE oid = ANY (%(oids)s::pg_catalog.oid[])
  UNION ALL SELECT typrelid, 'pg_catalog.pg_type'::pg_catalog.regclass, pg_catalog.unnest(ARRAY[t.oid, typarray])
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_type AS t ON t.oid = reltype
  WHERE c.oid = ANY (%(oids)s::pg_catalog.oid[]))
SELECT n.nspname, c.relname, pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
FROM of_ JOIN pg_catalog.pg_depend AS d ON d.refclassid = class_ AND d.refobjid = object_
JOIN pg_catalog.pg_class AS c ON c.oid = table_ JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE d.deptype = 'n' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend AS own_ WHERE (own_.classid, own_.objid) = (d.classid, d.objid)
    AND (own_.refclassid, own_.refobjid) = (d.refclassid, d.refobjid) AND own_.deptype IN ('a', 'i'))
ORDER BY 1, 2, 3 LIMIT 1
"""
_ANY_LEFT = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = ANY (%s::pg_catalog.oid[]))"
_AWAITED = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_database AS d ON d.oid = l.database
               WHERE d.datname = pg_catalog.current_database() AND NOT l.granted
               AND l.relation = ANY (%s::pg_catalog.oid[]))
"""


@dataclass(frozen=True, slots=True)
class Partition:
    """A leaf of a partitioned table, or a chunk of a hypertable, that holds rows of a range of days.

    Attributes:
        oid: the catalogue's number for it.
        version: of its rows in the catalogue: after whoever renames it or its schema, and back, there is another.
        schema: its own.
        name: its own.
        parent_schema: of the table that it is a partition of, which need not be the whole.
        parent_name: likewise.
        is_table: whether it is an ordinary table; else a foreign one.
        is_owned: whether this role may drop it.
        first: the first day of which it may hold rows; None where it begins nowhere.
        last: the last one.
        chunk: for a chunk of a hypertable its range, half-open; else None.
    """

    oid: int
    version: str
    schema: str
    name: str
    parent_schema: str
    parent_name: str
    is_table: bool
    is_owned: bool
    first: date | None
    last: date
    chunk: tuple[datetime, datetime] | None = None

    @property
    def identifier(self) -> sql.Composable:
        """Its name for SQL."""
        return sql.Identifier(self.schema, self.name)

    @property
    def parent(self) -> sql.Composable:
        """The name of its parent for SQL."""
        return sql.Identifier(self.parent_schema, self.parent_name)


def bounded_partitions(connection: Connection, oid: int, time_column: str, first: date, last: date) -> list[Partition]:
    """The leaves of a partitioned table that end somewhere in time and may hold rows of these days, in their order.

    Args:
        connection: in a transaction.
        oid: the table's.
        time_column: of type timestamp, timestamptz or date.
        first: the first day.
        last: the last day.
    """
    values = {"oid": oid, "time": time_column, "first": first, "last": last}
    return [Partition(*row) for row in connection.execute(_BOUNDED, values).fetchall()]


def owned_sequences(connection: Connection, oid: int) -> list[str]:
    """The sequences that belong to a column of a partition and go with it, quoted for SQL."""
    return [name for (name,) in connection.execute(_OWNED_SEQUENCES, (oid,)).fetchall()]


def dependent(connection: Connection, oids: list[int]) -> tuple[str, str, str] | None:
    """Schema and name of one of these tables, and what depends on it, so that it cannot be dropped; None for none."""
    found: tuple[str, str, str] | None = connection.execute(_DEPENDENT, {"oids": oids}).fetchone()
    return found


def any_left(connection: Connection, oids: list[int]) -> bool:
    """Whether one of these tables is still there."""
    return bool(one(connection, _ANY_LEFT, oids)[0])


def is_awaited(connection: Connection, oids: list[int]) -> bool:
    """Whether another session waits for a lock on one of these tables."""
    return bool(one(connection, _AWAITED, oids)[0])

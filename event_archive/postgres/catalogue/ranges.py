"""Where in time a table's partitions lie, as their bounds say. Not here: chunks of hypertables (``timescale``).

Nothing is locked. Whoever divides a question by these beginnings must not rely on them: some may be missing here.
"""

from datetime import date

from event_archive.postgres.session import Connection

# A partition that is partitioned again by something else passes its own beginning on to those below it. MINVALUE and
# years that Python's dates lack are no beginning. With 0, pg_get_expr locks no table; a bound names no column.
# No backslash: what it means is a setting of the session (standard_conforming_strings).
_BEGINNINGS = """
WITH RECURSIVE tree_(oid, is_leaf, day) AS (
  SELECT %(oid)s::pg_catalog.oid, false, NULL::pg_catalog.date
  UNION ALL
  SELECT c.oid, c.relkind <> 'p', CASE WHEN a.attname IS NULL THEN tree_.day ELSE pg_catalog.substring(
    pg_catalog.pg_get_expr(c.relpartbound, 0),
    '^FOR VALUES FROM [(]''([0-9]{4}-[0-9]{2}-[0-9]{2})[ 0-9:.+-]*''')::pg_catalog.date END
  FROM tree_ JOIN pg_catalog.pg_inherits ON inhparent = tree_.oid JOIN pg_catalog.pg_class AS c ON c.oid = inhrelid
  LEFT JOIN pg_catalog.pg_partitioned_table AS p ON p.partrelid = tree_.oid AND p.partstrat = 'r'
  LEFT JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0] AND a.attname = %(column)s
)
SELECT day, pg_catalog.count(*) FROM tree_ WHERE is_leaf AND day IS NOT NULL GROUP BY day ORDER BY day
"""


def beginnings(connection: Connection, oid: int, column: str) -> list[tuple[date, int]]:
    """On which days the partitions of a table begin by their range of a column, and how many do on each, in order.

    Args:
        connection: in a session whose time zone decides what a day is.
        oid: of a partitioned table.
        column: of a type whose values begin with a date. Partitions by anything else are left out.
    """
    return connection.execute(_BEGINNINGS, {"oid": oid, "column": column}).fetchall()

"""What hangs on a table and its partitions, and what was done to their rows. Not here: the table itself."""

from dataclasses import dataclass
from typing import Any, LiteralString

from event_archive.postgres.session import Connection, one

_TREE = """
WITH RECURSIVE
  below_(oid) AS (SELECT %(oid)s::pg_catalog.oid
                  UNION SELECT inhrelid FROM pg_catalog.pg_inherits JOIN below_ ON inhparent = below_.oid),
  above_(oid) AS (SELECT %(oid)s::pg_catalog.oid
                  UNION SELECT inhparent FROM pg_catalog.pg_inherits JOIN above_ ON inhrelid = above_.oid)
"""
_SHARES_ROWS = "SELECT %(other)s IN (SELECT oid FROM below_ UNION SELECT oid FROM above_)"

# Not pg_partition_tree, which waits for the lock of every partition.
_WITH_PARTITIONS = """
WITH RECURSIVE tree_(oid) AS (SELECT %(oid)s::pg_catalog.oid
                              UNION SELECT inhrelid FROM pg_catalog.pg_inherits JOIN tree_ ON inhparent = tree_.oid)
"""
_WITH_PARENTS = """
WITH RECURSIVE tree_(oid) AS (SELECT %(oid)s::pg_catalog.oid
                              UNION SELECT inhparent FROM pg_catalog.pg_inherits JOIN tree_ ON inhrelid = tree_.oid)
"""
# PostgreSQL copies a partitioned table's references and triggers for each partition. A copy is left out only where its
# original is found too: it is not where the table itself is a partition of another.
# An index of the rows that refer at all serves as well, and of a partitioned referring table one of each partition: its
# columns have other numbers there. Of one row, BRIN tells the blocks that may hold it, which may be all.
_REFERENCES = """
SELECT f.conname, n.nspname, c.relname, f.confdeltype,
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(f.conkey) WITH ORDINALITY AS k(attnum, place)
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.attnum ORDER BY k.place),
       NOT EXISTS (
         WITH RECURSIVE copies_(oid) AS (SELECT f.oid UNION SELECT k.oid FROM pg_catalog.pg_constraint AS k
                                         JOIN copies_ ON k.conparentid = copies_.oid)
         SELECT FROM copies_ JOIN pg_catalog.pg_constraint AS k USING (oid)
         JOIN pg_catalog.pg_class AS r ON r.oid = k.conrelid
         WHERE r.relkind <> 'p' AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
           JOIN pg_catalog.pg_am AS m ON m.oid = x.relam
           WHERE i.indrelid = k.conrelid AND i.indisvalid AND m.amname <> 'brin' AND i.indkey[0] = ANY (k.conkey)
           AND (i.indpred IS NULL OR pg_catalog.pg_get_expr(i.indpred, i.indrelid) IN (
             SELECT pg_catalog.format('(%%I IS NOT NULL)', a.attname) FROM pg_catalog.pg_attribute AS a
             WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey))))),
       c.relkind = 'p', c.oid IN (SELECT oid FROM tree_)
FROM pg_catalog.pg_constraint AS f JOIN pg_catalog.pg_class AS c ON c.oid = f.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.confrelid IN (SELECT oid FROM tree_)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS p
                  WHERE p.oid = f.conparentid AND p.confrelid IN (SELECT oid FROM tree_))
ORDER BY f.conname, n.nspname, c.relname
"""
_DELETE_RULES = """
SELECT rulename FROM pg_catalog.pg_rewrite
WHERE ev_type = '4' AND ev_class = %s ORDER BY rulename
"""
# Those of a whole statement fire for the table that it names alone. A chunk's copies name no original. TimescaleDB's
# own triggers are left out: they keep its continuous aggregates right, as drop_chunks does.
_TRIGGERS = """
SELECT DISTINCT t.tgname, t.tgfoid::pg_catalog.regproc::text FROM pg_catalog.pg_trigger AS t
WHERE t.tgrelid IN (SELECT oid FROM tree_) AND NOT t.tgisinternal
  AND t.tgtype & %(event)s <> 0 AND t.tgenabled IN ('O', 'A')
  AND (t.tgtype & 1 <> 0 OR t.tgrelid = %(target)s)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS p
                  WHERE p.oid = t.tgparentid AND p.tgrelid IN (SELECT oid FROM tree_))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
                  WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = t.tgfoid
                  AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.extname = 'timescaledb')
ORDER BY t.tgname
"""
# An extension's own are left out, as TimescaleDB's and pgAudit's: every table of the database is made and dropped under
# them.
_EVENT_TRIGGERS = """
SELECT evtname::text, evtfoid::pg_catalog.regproc::text FROM pg_catalog.pg_event_trigger
WHERE evtevent = ANY (%s) AND evtenabled IN ('O', 'A') AND (evttags IS NULL OR evttags && %s)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                  WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = evtfoid AND d.deptype = 'e')
ORDER BY evtname
"""
# The triggers that make a foreign key hold are switched off with all others: ALTER TABLE … DISABLE TRIGGER ALL. A key
# that is NOT ENFORCED has none; PostgreSQL before 18 knows no such column.
_UNENFORCED = """
SELECT f.conname::text, pg_catalog.format('%%I.%%I', n.nspname, c.relname)
FROM pg_catalog.pg_constraint AS f JOIN pg_catalog.pg_class AS c ON c.oid = f.confrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.confrelid IN (SELECT oid FROM tree_) AND (
  pg_catalog.to_jsonb(f) ->> 'conenforced' = 'false'
  OR EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
             WHERE t.tgconstraint = f.oid AND t.tgrelid = f.confrelid AND t.tgenabled NOT IN ('O', 'A')))
ORDER BY f.conname, n.nspname, c.relname
"""
_INSERT, _DELETE = 4, 8
"""TRIGGER_TYPE_INSERT and TRIGGER_TYPE_DELETE."""
_CHANGES = """
SELECT coalesce(pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_inserted(oid)), 0)::int8,
       coalesce(pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_updated(oid)), 0)::int8,
       coalesce(pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_deleted(oid)), 0)::int8
FROM tree_
"""
# What is deferred follows from a row that was written.
_WRITTEN = """
SELECT pg_catalog.sum(n_tup_ins), pg_catalog.sum(n_tup_upd), pg_catalog.sum(n_tup_del)
FROM pg_catalog.pg_stat_xact_all_tables
"""
_TREE_OIDS = "SELECT oid FROM tree_"
# Its own locks last until a transaction ends, those on what it dropped too.
_LOCKS_OUT = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
               WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'relation' AND mode = 'AccessExclusiveLock'
               AND relation = ANY (%s::pg_catalog.oid[]))
"""
# One that publishes by way of the root names the root alone, which may lie above the table.
_PUBLISHED = """
, published_ AS MATERIALIZED (
  SELECT p.pubname, c.oid
  FROM pg_catalog.pg_publication AS p JOIN pg_catalog.pg_publication_tables AS t USING (pubname)
  JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schemaname
  JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.tablename
  WHERE p.pubdelete)
"""
_PUBLICATIONS = """
SELECT DISTINCT pubname FROM published_
WHERE oid IN (SELECT oid FROM below_ UNION SELECT oid FROM above_) ORDER BY pubname
"""
_WITHOUT_IDENTITY = """
SELECT pg_catalog.format('%%I.%%I', nspname, relname)
FROM pg_catalog.pg_class AS c JOIN tree_ USING (oid) JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
WHERE relkind = 'r' AND relreplident <> 'f' AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
  AND CASE relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
AND EXISTS (SELECT FROM published_ AS p
            WHERE p.oid IN (SELECT c.oid UNION SELECT relid FROM pg_catalog.pg_partition_ancestors(c.oid)))
ORDER BY 1
"""
_NOT_VACUUMED = """
SELECT pg_catalog.format('%%I.%%I', nspname, relname)
FROM pg_catalog.pg_class AS c JOIN tree_ USING (oid) JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
WHERE relkind = 'r' AND EXISTS (
  SELECT FROM pg_catalog.pg_class AS of_, pg_catalog.pg_options_to_table(of_.reloptions)
  WHERE of_.oid IN (c.oid, c.reltoastrelid) AND option_name = 'autovacuum_enabled' AND NOT option_value::boolean)
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key of another table that refers to this one.

    Attributes:
        constraint: its name.
        schema: of the referring table.
        table: the referring table.
        on_delete: ``pg_constraint.confdeltype``: ``a`` NO ACTION, ``r`` RESTRICT, ``c`` CASCADE, ``n`` SET NULL,
            ``d`` SET DEFAULT.
        columns: the referring ones.
        indexed: whether an index of the referring table, or of each of its partitions, begins with one of them.
        is_partitioned: whether the referring table is.
        is_own: whether it refers to itself, or a partition of it does.
    """

    constraint: str
    schema: str
    table: str
    on_delete: str
    columns: list[str]
    indexed: bool
    is_partitioned: bool
    is_own: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """How many rows of a table and its partitions a transaction has inserted, updated and deleted so far.

    With a pooler the transactions before it in the session may be counted too: take the difference of two.
    """

    inserted: int
    updated: int
    deleted: int

    def __sub__(self, before: "Changes") -> "Changes":
        """What came since ``before``."""
        return Changes(self.inserted - before.inserted, self.updated - before.updated, self.deleted - before.deleted)


def shares_rows(connection: Connection, oid: int, other: int) -> bool:
    """Whether two tables are one, or one is a partition, a child or a parent of the other, at any distance."""
    row = connection.execute(_TREE + _SHARES_ROWS, {"oid": oid, "other": other}).fetchone()
    return bool(row and row[0])


def references(connection: Connection, oid: int) -> list[Reference]:
    """The foreign keys that refer to a table or a partition of it, by name."""
    return [Reference(*row) for row in _of_tree(connection, _REFERENCES, oid)]


def ddl_triggers(connection: Connection) -> list[tuple[str, str]]:
    """The event triggers that a read-back fires, by name, and their functions.

    It makes a temporary table, adds a column, which rewrites it, and an index.
    """
    events = ["ddl_command_start", "ddl_command_end", "table_rewrite"]
    return connection.execute(_EVENT_TRIGGERS, (events, ["CREATE TABLE", "ALTER TABLE", "CREATE INDEX"])).fetchall()


def drop_triggers(connection: Connection) -> list[tuple[str, str]]:
    """The event triggers that dropping a table fires, by name, and their functions."""
    events = ["ddl_command_start", "ddl_command_end", "sql_drop"]
    return connection.execute(_EVENT_TRIGGERS, (events, ["DROP TABLE"])).fetchall()


def delete_rules(connection: Connection, oid: int) -> list[str]:
    """The rules on DELETE of a table, by name; a partition's do not fire where rows are deleted from the whole."""
    return [name for (name,) in connection.execute(_DELETE_RULES, (oid,)).fetchall()]


def delete_triggers(connection: Connection, oid: int) -> list[tuple[str, str]]:
    """The triggers that fire on DELETE from a table or a partition of it: name and function."""
    return [(name, function) for name, function in _of_tree(connection, _TRIGGERS, oid, event=_DELETE, target=oid)]


def insert_triggers(connection: Connection, oid: int) -> list[str]:
    """The triggers that fire on INSERT into a table or a partition of it, by name."""
    return [name for name, _ in _of_tree(connection, _TRIGGERS, oid, event=_INSERT, target=oid)]


def delete_triggers_of_partition(connection: Connection, oid: int, table: int) -> list[str]:
    """The triggers that fire where rows of a partition are deleted by way of a table above it, by name."""
    values = {"oid": oid, "event": _DELETE, "target": table}
    return [name for name, _ in connection.execute(_WITH_PARENTS + _TRIGGERS, values).fetchall()]


def unenforced_references(connection: Connection, oid: int) -> list[tuple[str, str]]:
    """The foreign keys that refer to a table or a partition of it, and are switched off with its triggers, by name.

    Returns:
        Of each its name, and what it refers to, which has the triggers, quoted for SQL.
    """
    return [(constraint, referenced) for constraint, referenced in _of_tree(connection, _UNENFORCED, oid)]


def changes(connection: Connection, oid: int) -> Changes:
    """What this transaction has done to a table and its partitions; all zero where ``track_counts`` is off."""
    return Changes(*_of_tree(connection, _CHANGES, oid)[0])


def fire_deferred_triggers(connection: Connection) -> None:
    """Fires the triggers that wait for the commit, and those that they defer in their turn, until none is left.

    Where ``track_counts`` is off, the latter may be left.
    """
    before: tuple[Any, ...] | None = None
    while before != (written := one(connection, _WRITTEN)):
        before = written
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


def tree(connection: Connection, oid: int) -> list[int]:
    """A table and its partitions."""
    return [found for (found,) in _of_tree(connection, _TREE_OIDS, oid)]


def locks_out(connection: Connection, oids: list[int]) -> bool:
    """Whether this transaction locks others out of one of these tables, as TRUNCATE, DROP and ALTER TABLE do."""
    return bool(one(connection, _LOCKS_OUT, oids)[0])


def publications_of_deletes(connection: Connection, oid: int) -> list[str]:
    """The publications that carry deletes of a table or a partition of it."""
    return [name for (name,) in connection.execute(_TREE + _PUBLISHED + _PUBLICATIONS, {"oid": oid}).fetchall()]


def without_replica_identity(connection: Connection, oid: int) -> list[str]:
    """Those of a table and its partitions that are published, and let nothing be deleted, quoted for SQL."""
    return [name for (name,) in _of_tree(connection, _PUBLISHED + _WITHOUT_IDENTITY, oid)]


def without_autovacuum(connection: Connection, oid: int) -> list[str]:
    """Those of a table and its partitions for which, or whose large values, autovacuum is off, quoted for SQL."""
    return [name for (name,) in _of_tree(connection, _NOT_VACUUMED, oid)]


def _of_tree(connection: Connection, query: LiteralString, oid: int, **values: int) -> list[tuple[Any, ...]]:
    return connection.execute(_WITH_PARTITIONS + query, {"oid": oid} | values).fetchall()

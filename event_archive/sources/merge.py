"""The statements that merge a batch, staged in a temporary table, into its target: inserts, updates, what is older.

All go through the batch in the order of its key. Here, too: how what was rejected is written down. Not here: staging,
transactions, counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from event_archive.domain.dataset import TableName

# A source may give a locator away twice, as a stream that was made anew gives an id: the bytes of both are kept.
_REJECT = """
INSERT INTO {table} (source, locator, reason, raw)
SELECT {source},
  CASE WHEN staged.raw IN (coalesce(former.raw, CASE place WHEN 1 THEN staged.raw END), '') THEN staged.locator
    ELSE staged.locator || '#' || pg_catalog.md5(staged.raw) END,
  staged.reason, staged.raw
FROM (
  SELECT locator, reason, raw, pg_catalog.row_number() OVER (PARTITION BY locator ORDER BY number) AS place
  FROM (SELECT DISTINCT ON (locator, raw) *, ctid AS number FROM {staged} ORDER BY locator, raw, ctid) AS distinct_
) AS staged LEFT JOIN {table} AS former ON former.source = {source} AND former.locator = staged.locator
ORDER BY staged.locator, place ON CONFLICT (source, locator) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Where records land.

    Attributes:
        table: the table.
        columns: name and SQL type of each column that a record fills, in the order of its line.
        key: the columns of its primary key.
        version: the column by which a newer record takes the place of the row of its key; None where the first stays.
        order: SQL by which versions are compared, with ``{}`` in place of the column; the column itself by default.
        document: the column whose JSON the computed ones are taken out of.
        computed: name and SQL expression of each column that PostgreSQL fills from the JSON, which is called
            ``document`` there and is ``jsonb``. Only where there is no version.
    """

    table: TableName
    columns: Sequence[tuple[str, str]]
    key: Sequence[str]
    version: str | None = None
    document: str | None = None
    computed: Sequence[tuple[str, sql.Composable]] = ()
    order: LiteralString = "{}"

    def compared(self, *of: str) -> sql.Composed:
        """What versions are compared by: of the staged records, or of the row that a name stands for."""
        return sql.SQL(self.order).format(sql.Identifier(*of, self.version or ""))


def _names(names: Iterable[str], prefix: str = "") -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL(prefix) + sql.Identifier(name) for name in names)


def insert_statement(target: Target, staged: sql.Identifier, *, watched: bool) -> sql.Composed:
    """Returns how many rows were inserted, how many of them under another key, and how many keys and forms there are.

    Args:
        target: where rows go.
        staged: the batch.
        watched: whether to look at the keys, which only a trigger changes.
    """
    forms: sql.Composable = sql.SQL("(SELECT pg_catalog.count(*) FROM batch)")
    if target.version:
        # Where no key comes twice, nothing has to be compared.
        forms = sql.SQL(
            "CASE WHEN (SELECT pg_catalog.count(*) FROM batch) = (SELECT pg_catalog.count(*) FROM {staged}) THEN "
            "(SELECT pg_catalog.count(*) FROM batch) ELSE "
            "(SELECT pg_catalog.count(*) FROM (SELECT DISTINCT {key}, {compared} FROM {staged}) AS forms_) END"
        ).format(key=_names(target.key), compared=target.compared(), staged=staged)
    renamed = sql.SQL(
        "(SELECT pg_catalog.count(*) FROM inserted) "
        "- (SELECT pg_catalog.count(*) FROM inserted JOIN batch USING ({key}))"
        if watched
        else "0"
    )
    return sql.SQL(
        """
        WITH batch AS MATERIALIZED ({batch}),
        inserted AS (
          INSERT INTO {table} ({columns}{computed}) SELECT {columns}{expressions} FROM {rows} ORDER BY {key}
          ON CONFLICT ({key}) DO NOTHING RETURNING {key}
        )
        SELECT (SELECT pg_catalog.count(*) FROM inserted), {renamed}, (SELECT pg_catalog.count(*) FROM batch), {forms}
        """
    ).format(
        batch=_batch(target, staged),
        renamed=renamed.format(key=_names(target.key)),
        forms=forms,
        rows=_with_document(target),
        computed=sql.SQL("").join(sql.SQL(", ") + sql.Identifier(name) for name, _ in target.computed),
        expressions=sql.SQL("").join(sql.SQL(", ") + expression for _, expression in target.computed),
        **_parts(target),
    )


def _with_document(target: Target) -> sql.Composable:
    """The batch, its JSON parsed once, whatever is taken out of it."""
    if target.document is None:
        return sql.SQL("batch")
    # OFFSET 0 keeps the planner from repeating the cast in each expression.
    return sql.SQL("(SELECT *, {}::pg_catalog.jsonb AS document FROM batch OFFSET 0) AS batch_").format(
        sql.Identifier(target.document)
    )


def update_statement(target: Target, staged: sql.Identifier) -> sql.Composed:
    """Lets the batch's records take the places of older rows.

    It follows the insert, since only an insert that does nothing on a conflict tells new rows from others: ``xmax``,
    which would, cannot be read from a partitioned table.
    """
    values = [name for name, _ in target.columns if name not in target.key]
    return sql.SQL(
        """
        INSERT INTO {table} AS target ({columns}) SELECT {columns} FROM ({batch}) AS batch ORDER BY {key}
        ON CONFLICT ({key}) DO UPDATE SET {assignments}
        WHERE {takes_the_place}
        """
    ).format(
        batch=_batch(target, staged),
        assignments=sql.SQL(", ").join(
            sql.SQL("{name} = excluded.{name}").format(name=sql.Identifier(name)) for name in values
        ),
        takes_the_place=_takes_the_place(target, "excluded"),
        **_parts(target),
    )


def newer_statement(target: Target, staged: sql.Identifier) -> sql.Composed:
    """Counts the batch's records that take the place of a row."""
    return sql.SQL(
        "SELECT pg_catalog.count(*) FROM ({batch}) AS batch JOIN {table} AS target USING ({key}) "
        "WHERE {takes_the_place}"
    ).format(batch=_batch(target, staged), takes_the_place=_takes_the_place(target, "batch"), **_parts(target))


def _takes_the_place(target: Target, record: str) -> sql.Composed:
    """The condition that a record is newer than its row, or as new and another."""
    values = [name for name, _ in target.columns if name not in target.key]
    return sql.SQL("{new} >= {old} AND ROW({former}) IS DISTINCT FROM ROW({latter})").format(
        new=target.compared(record),
        old=target.compared("target"),
        former=_names(values, "target."),
        latter=_names(values, f"{record}."),
    )


def _parts(target: Target) -> dict[str, sql.Composable]:
    return {
        "table": sql.Identifier(target.table.schema, target.table.name),
        "columns": _names(name for name, _ in target.columns),
        "key": _names(target.key),
    }


def _batch(target: Target, staged: sql.Identifier) -> sql.Composed:
    """One record of each key: the newest, of equally new ones the last; where the first stays, the first."""
    order: sql.Composable = sql.SQL("ctid")
    if target.version:
        order = sql.SQL("{} DESC, ctid DESC").format(target.compared())
    return sql.SQL("SELECT DISTINCT ON ({key}) {columns} FROM {staged} ORDER BY {key}, {order}").format(
        key=_names(target.key), columns=_names(name for name, _ in target.columns), staged=staged, order=order
    )


def triggers_statement(target: Target) -> sql.Composed:
    """Whether triggers fire when rows come into the table: what is inserted may be another row then, or none.

    And whether some fire before a row is updated, which may stay as it is then: those before an insert do, too.
    """
    table = sql.Identifier(target.table.schema, target.table.name)
    return sql.SQL(
        """
        SELECT coalesce(pg_catalog.bool_or(tgtype & 4 <> 0), false),
               coalesce(pg_catalog.bool_or(tgtype & 2 <> 0 AND tgtype & 20 <> 0), false)
        FROM pg_catalog.pg_trigger JOIN pg_catalog.pg_proc AS function_ ON function_.oid = tgfoid
        WHERE tgrelid IN (
          SELECT {table}::pg_catalog.regclass UNION SELECT relid FROM pg_catalog.pg_partition_tree({table})
        )
        AND NOT tgisinternal AND tgenabled <> 'D'
        AND NOT pg_catalog.starts_with(pronamespace::pg_catalog.regnamespace::text, '_timescaledb_')
        """
    ).format(table=sql.Literal(table.as_string()))


def present_statement(target: Target, staged: sql.Identifier) -> sql.Composed:
    """Counts the batch's keys that have a row."""
    return sql.SQL(
        "SELECT pg_catalog.count(*) FROM (SELECT DISTINCT {key} FROM {staged}) AS batch JOIN {table} USING ({key})"
    ).format(key=_names(target.key), staged=staged, table=sql.Identifier(target.table.schema, target.table.name))


def older_statement(target: Target, staged: sql.Identifier) -> sql.Composed:
    """Counts the batch's keys whose row is newer than the newest record of the batch."""
    return sql.SQL(
        "SELECT pg_catalog.count(*) FROM ({batch}) AS batch JOIN {table} AS target USING ({key}) WHERE {old} > {new}"
    ).format(
        batch=_batch(target, staged),
        key=_names(target.key),
        old=target.compared("target"),
        new=target.compared("batch"),
        table=sql.Identifier(target.table.schema, target.table.name),
    )


def reject_statement(table: TableName, source: str, staged: sql.Identifier) -> sql.Composed:
    """Writes down what was rejected, but for what is there already."""
    return sql.SQL(_REJECT).format(
        table=sql.Identifier(table.schema, table.name), source=sql.Literal(source), staged=staged
    )


def unkept_statement(table: TableName, source: str, staged: sql.Identifier) -> sql.Composed:
    """Counts what was rejected of which nothing is written down."""
    return sql.SQL(
        "SELECT pg_catalog.count(*) FROM {staged} AS staged WHERE NOT EXISTS (SELECT FROM {table} AS kept "
        "WHERE source = {source} "
        "AND kept.locator IN (staged.locator, staged.locator || '#' || pg_catalog.md5(staged.raw)))"
    ).format(table=sql.Identifier(table.schema, table.name), source=sql.Literal(source), staged=staged)

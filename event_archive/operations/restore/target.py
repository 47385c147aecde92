"""The table that a restore fills: its name, making it, adding columns to it. Not here: its rows."""

import logging
from dataclasses import replace

import psycopg
from psycopg import sql

from event_archive.domain.dataset import Dataset, TableName, quoted
from event_archive.errors import ConfigurationError, NoSuchTableError, RefusedError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.readback import Readback
from event_archive.postgres.catalogue.columns import Column
from event_archive.postgres.catalogue.dependents import shares_rows
from event_archive.postgres.catalogue.relations import comment_on, relation
from event_archive.postgres.catalogue.sequences import sequences_behind
from event_archive.postgres.catalogue.server import database_of
from event_archive.postgres.errors import Advice
from event_archive.postgres.pins import own_search_path
from event_archive.postgres.session import Connection, listed
from event_archive.table.locks import lock_table
from event_archive.table.shape import Table, glance, require_table

logger = logging.getLogger(__name__)

ADVICE = Advice(
    outcome="Nothing was restored.",
    again="restore the day again",
    lost="Restore the day again: rows that stand already are left as they are.",
    privileges=(
        "To restore, the role needs USAGE on the schema, TEMPORARY on the database, SELECT and INSERT on the table to "
        "fill, in place also SELECT on event_archive_hold where that exists, and, to make a new table, CREATE on the "
        "schema of a new table and SELECT on the source: GRANT them, or restore as another role."
    ),
    by_code={
        "23502": (
            "The table requires a value that the file does not hold. If the file lacks the column, give it a default. "
            "If the file has it, allow NULL (ALTER TABLE … ALTER COLUMN … DROP NOT NULL). Or use --table."
        ),
        "23503": "Rows of another table or day that these refer to are gone: put those back first, or use --table.",
        "23505": (
            "A row with such a value stands there, or two rows of the file have it. If one was inserted meanwhile "
            "under the same key, restore the day again; if a unique column beside the key has that value, restore into "
            "a table where it is not unique, as the default one (without --table), and compare the two."
        ),
        "23514": "A CHECK constraint forbids a row, or no partition takes it: create that partition, or use --table.",
    },
)

# The types that PostgreSQL takes for an identity.
_INTEGERS = {"smallint", "integer", "bigint"}


def target_named(dataset: Dataset, name: str | None = None, *, in_place: bool = False) -> TableName:
    """The table that a restore fills: the source itself, one named, or ``Event_restored`` beside ``Event``.

    Args:
        dataset: what was archived.
        name: ``schema.table``, or a table in the source's schema.
        in_place: the source itself.

    Raises:
        ConfigurationError: not a table's name, the source's without ``in_place``, or a name with it.
    """
    if in_place and name:
        raise ConfigurationError(f"The table {name} is named, and in place is asked for: give one of them, not both.")
    if in_place:
        return dataset.table
    if name is None:
        name = f"{quoted(dataset.table.schema)}.{quoted(dataset.table.name + '_restored')}"
    try:
        target = TableName.parse(name, schema=dataset.table.schema)
    except ValueError as error:
        raise ConfigurationError(f"{name!r} {error}. Name another table with --table.") from None
    if target == dataset.table:
        raise ConfigurationError(f"{target} is the source itself: restore into it with --in-place.")
    return target


def open_target(connection: Connection, dataset: Dataset, target: TableName) -> Table:
    """The target's shape, not locked while the file is read; where it does not exist, it is made like the source.

    A table that is made here has the source's columns and key and nothing else, and a comment by which it is known. A
    column of the key that the source numbers by a sequence has an identity of its own.

    Raises:
        NoSuchTableError: its schema is not there.
        RefusedError: it cannot be filled, or holds rows of the source.
    """
    if target != dataset.table:
        source = relation(connection, dataset.table.schema, dataset.table.name)
        present = relation(connection, target.schema, target.name)
        if source and present and shares_rows(connection, source.oid, present.oid):
            raise RefusedError(
                f"{target} is a partition, a child or a parent of {dataset.table}: its rows are the source's. Restore "
                "into another table with --table, or into the source with --in-place."
            )
        lock_table(connection, target)
        if relation(connection, target.schema, target.name) is None:
            source_shape, database = glance(connection, dataset, "look"), database_of(connection)
            try:
                with own_search_path(connection):
                    _create(connection, source_shape, target)
            except psycopg.errors.InvalidSchemaName:
                raise NoSuchTableError(
                    f"Schema {quoted(target.schema)} does not exist in database {quoted(database)}. "
                    "Nothing was restored. Create that schema, or name another table with --table."
                ) from None
    else:
        require_table(connection, target, dataset.setting("EVENT_TABLE"))
    return glance(connection, replace(dataset, table=target), "fill")


def _create(connection: Connection, source: Table, target: TableName) -> None:
    identifier = sql.Identifier(target.schema, target.name)
    key = listed(source.key)
    columns = (sql.SQL("{} {}").format(sql.Identifier(column.name), column.definition) for column in source.columns)
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(identifier, sql.SQL(", ").join(columns)))
    connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(identifier, key))
    for column, increment in _numbered(connection, source).items():
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} ADD GENERATED BY DEFAULT AS IDENTITY (INCREMENT BY {})").format(
                identifier, sql.Identifier(column), sql.Literal(increment)
            )
        )
    comment = sql.Literal(_comment(source.dataset))
    connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(identifier, comment))


def _numbered(connection: Connection, source: Table) -> dict[str, int]:
    """The columns of the key that may be an identity and take their values from a sequence, with its increment."""
    integers = {column.name for column in source.columns if column.plain_type in _INTEGERS}
    behind = sequences_behind(connection, source.oid)
    return {of.column: of.increment for of in behind if of.column in integers.intersection(source.key)}


def _comment(dataset: Dataset) -> str:
    return f"Made by event-archive to restore {dataset.table} into: a restore may add columns."


def widened(
    connection: Connection, dataset: Dataset, readback: Readback, file: StoredFile, time_column: str
) -> Readback:
    """Adds the columns that only the file has to a target that a restore made, as text.

    Columns that only the target has get their defaults.

    Args:
        connection: in the transaction of the restore.
        dataset: what was archived.
        readback: of the file, into the target's shape.
        file: the file.
        time_column: by which the file's rows belong to its day.

    Raises:
        RefusedError: the target lacks the time column, also that of rows which were archived by another one; or it
            lacks other columns of the file, and no restore made it.
    """
    table = readback.table
    target = table.dataset.table
    extra = [name for name in readback.columns if name not in table.names]
    named = ", ".join(map(quoted, extra))
    if time_column in extra and target == dataset.table:
        raise RefusedError(
            f"{file.path}: {target} has no column {quoted(time_column)} any more, which says when each row was. "
            "Nothing was restored: rows would get another time. Restore into another table: --table NAME."
        )
    if extra and target == dataset.table:
        logger.warning("%s: the table has no column %s any more; it is not restored", target, named)
    elif extra:
        present = relation(connection, target.schema, target.name)
        if present is None or comment_on(connection, present.oid) != _comment(dataset):
            raise RefusedError(
                f"{file.path}: {target} lacks columns of it: {named}. Nothing was restored. Add them to that table (as "
                "text, if nothing else), or restore into a new one: --table NAME."
            )
        for name in extra:
            logger.info("%s: column %s is added, as text", target, quoted(name))
            add = sql.SQL("ALTER TABLE {} ADD COLUMN {} pg_catalog.text")
            with own_search_path(connection):
                connection.execute(add.format(table.identifier, sql.Identifier(name)))
        table = replace(
            table, columns=table.columns + tuple(Column(name, "text", "text", nullable=True) for name in extra)
        )
    held = tuple(column for column in table.columns if column.name in readback.columns)
    return replace(readback, table=replace(table, columns=held))

"""The archived table's shape, and whether it may be archived. Not here: the catalogue's SQL, the table's rows."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import psycopg
from psycopg import sql

from event_archive.domain.dataset import Dataset, TableName, quoted
from event_archive.domain.days import ONE_DAY
from event_archive.errors import BusyError, NoSuchTableError, RefusedError, UnreachableError
from event_archive.postgres.catalogue import columns as of_columns
from event_archive.postgres.catalogue import dependents, relations, timescale
from event_archive.postgres.catalogue.columns import Column
from event_archive.postgres.catalogue.relations import KeyColumn, Relation
from event_archive.postgres.catalogue.server import database_of, role_of, setting
from event_archive.postgres.catalogue.value_types import ValueType, value_types
from event_archive.postgres.session import Connection, Postgres
from event_archive.postgres.statements import create_index
from event_archive.table.advice import ADOPT_ADVICE, LOOK_ADVICE
from event_archive.table.key import require_key

logger = logging.getLogger(__name__)

TABLE_ALIAS = sql.Identifier("src_")
"""The alias of the table that is archived, compared or filled. A column of that name would make it ambiguous."""

Purpose = Literal["archive", "delete", "adopt", "look", "fill"]
"""Why a table's shape is read: to archive its rows, to delete them, to make it the owner of the files (``adopt
--source``), to look at the shape, to fill it by a restore."""


@dataclass(frozen=True, slots=True)
class Table:
    """The shape of a table that may be archived.

    Attributes:
        dataset: whose table it is.
        oid: the catalogue's number for the table: another one of the same name has another.
        schema_version: of its schema's name: after whoever renames it, and back, there is another.
        is_partitioned: whether its rows lie in partitions or chunks. Else its own rows alone are meant everywhere.
        is_hypertable: whether it is one of TimescaleDB's.
        columns: in the table's order.
        key_columns: those that identify a row: of the primary key, else of a unique index.
        key_types: as what their values are read, by their names.
        time_type: ``timestamp``, ``timestamptz`` or ``date``, by PostgreSQL's full names; of a table to look at or
            fill any type, or an empty string.
        meanings: of values, by their types' definitions; ``ALTER TYPE`` waits for no lock on a table.
        time_indexed: whether a B-tree index begins with the time column. It makes no other shape.
    """

    dataset: Dataset
    oid: int
    schema_version: str
    is_partitioned: bool
    is_hypertable: bool
    columns: tuple[Column, ...]
    key_columns: tuple[KeyColumn, ...]
    key_types: dict[str, ValueType]
    time_type: str
    meanings: str
    time_indexed: bool = field(compare=False)

    @property
    def identifier(self) -> sql.Composable:
        """The table's name for SQL."""
        return sql.Identifier(self.dataset.table.schema, self.dataset.table.name)

    @property
    def rows(self) -> sql.Composable:
        """The table as ``TABLE_ALIAS``, for FROM and DELETE: never the rows of a table that inherits from it."""
        return sql.SQL("{} AS {}" if self.is_partitioned else "ONLY {} AS {}").format(self.identifier, TABLE_ALIAS)

    @property
    def key(self) -> tuple[str, ...]:
        """The names of the key's columns."""
        return tuple(column.name for column in self.key_columns)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @property
    def numbers(self) -> dict[str, int]:
        """The columns' numbers in the catalogue, by their names."""
        return {column.name: column.number for column in self.columns}

    @property
    def time(self) -> sql.Composable:
        """The time column of ``TABLE_ALIAS``."""
        return sql.SQL("{}.{}").format(TABLE_ALIAS, sql.Identifier(self.dataset.time_column))

    def instant(self, day: date) -> sql.Composable:
        """Midnight UTC at the start of a day, in the time column's type (the session's time zone is UTC)."""
        return sql.SQL("{}::{}").format(sql.Literal(day.isoformat()), sql.SQL(TIME_TYPES[self.time_type]))

    def within(self, first: date, last: date) -> sql.Composable:
        """The condition that a row of ``TABLE_ALIAS`` is of a day from ``first`` to ``last``, both included."""
        return sql.SQL("{0} OPERATOR(pg_catalog.>=) {1} AND {0} OPERATOR(pg_catalog.<) {2}").format(
            self.time, self.instant(first), self.instant(last + ONE_DAY)
        )

    def missing_index(self) -> str:
        """What makes the index that this table lacks on its time column, for people."""
        if any(of.is_virtual for of in self.columns if of.name == self.dataset.time_column):
            return "PostgreSQL cannot index a virtual column: make it STORED, or archive by a column that is stored."
        name, kind = self.dataset.table, {"is_partitioned": self.is_partitioned, "is_hypertable": self.is_hypertable}
        return create_index(name.schema, name.name, [self.dataset.time_column], **kind)


TIME_TYPES = {
    "timestamp without time zone": "pg_catalog.timestamp",
    "timestamp with time zone": "pg_catalog.timestamptz",
    "date": "pg_catalog.date",
}

_MOST_COLUMNS = 1600  # PostgreSQL's limit.
_DELETE_ACTIONS = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def reflect(connection: Connection, dataset: Dataset, purpose: Purpose = "archive") -> Table:
    """Reads the table's shape and locks it against changes until the transaction ends.

    Args:
        connection: in a transaction.
        dataset: names the table and its time column.
        purpose: ``delete`` and ``fill`` take the lock of a DELETE or INSERT, which needs that privilege, instead of a
            SELECT's. What makes deleting unsafe matters to ``archive`` and ``delete``, the time column to ``own`` too.

    Raises:
        RefusedError: no such table or time column, or a table that may not be archived (docs/guarantees.md, "What is
            not promised").
    """
    name = dataset.table
    named_by = "--table" if purpose == "fill" else dataset.setting("EVENT_TABLE")
    mode = sql.SQL("ROW EXCLUSIVE" if purpose in ("delete", "fill") else "ACCESS SHARE")
    # ONLY: the lock on a partition is that of the statement which reads or deletes its rows.
    lock = sql.SQL("LOCK TABLE ONLY {} IN {} MODE").format(sql.Identifier(name.schema, name.name), mode)
    try:
        with connection.transaction():
            connection.execute(lock)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.WrongObjectType):
        require_table(connection, name, named_by)
        raise
    found = require_table(connection, name, named_by)
    is_hypertable = found.has_timescaledb and timescale.is_hypertable(connection, name.schema, name.name)
    if is_hypertable and purpose in ("delete", "fill"):
        timescale.decompress_without_limit(connection)
    if found.has_children and not is_hypertable:
        raise RefusedError(
            f"{name} has inheritance children, whose rows would be archived and deleted with it. Archive the children "
            "one by one, or make it a partitioned table."
        )
    columns = of_columns.columns(connection, found.oid)
    if len(columns) >= _MOST_COLUMNS and purpose != "look":
        raise RefusedError(
            f"{name} has {len(columns)} columns. A file is read back into a temporary table with one column more, and "
            f"PostgreSQL's limit is {_MOST_COLUMNS}. Drop a column, or keep the rows in the table."
        )
    to_purge = purpose in ("archive", "delete")
    types = {column.name: column.plain_type for column in columns}
    time_type = _time_type(dataset, types) if to_purge or purpose == "adopt" else types.get(dataset.time_column, "")
    key = require_key(connection, name, found.oid)
    if to_purge:
        _require_deletable(connection, name, found.oid)
    return Table(
        dataset=dataset,
        oid=found.oid,
        schema_version=relations.version_of_schema(connection, name.schema),
        is_partitioned=found.kind == "p" or is_hypertable,
        is_hypertable=is_hypertable,
        columns=columns,
        key_columns=key,
        key_types=value_types(connection, found.oid, [of.name for of in key]),
        time_type=time_type,
        meanings="" if all(column.is_base for column in columns) else of_columns.meanings(connection, found.oid),
        time_indexed=relations.index_begins_with(connection, found.oid, dataset.time_column),
    )


def require_table(connection: Connection, name: TableName, named_by: str) -> Relation:
    """What bears a table's name. Takes no lock.

    Args:
        connection: in a transaction.
        name: the table's.
        named_by: the setting or option that names it, for messages.

    Raises:
        NoSuchTableError: nothing does, or no table.
    """
    found = relations.relation(connection, name.schema, name.name)
    if found is None:
        alike = [TableName(*other) for other in relations.tables_named_alike(connection, name.schema, name.name)]
        raise NoSuchTableError(
            f"{name} does not exist in database {quoted(database_of(connection))}.{_did_you_mean(map(str, alike))} "
            f"{named_by} names it as schema.table, taken literally, upper and lower case included."
        )
    if found.kind not in ("r", "p"):
        raise NoSuchTableError(
            f"{name} is not a table but a view or the like. {named_by} must name an ordinary or a partitioned one."
        )
    return found


def glance(connection: Connection, dataset: Dataset, purpose: Purpose = "archive") -> Table:
    """As ``reflect``, but without a lock afterwards: for whoever reads a file next, which may take long.

    ``require_unchanged`` locks the table and sees that its shape is still this one.
    """
    with connection.transaction(force_rollback=True):
        return reflect(connection, dataset, purpose)


def require_unchanged(connection: Connection, table: Table, purpose: Purpose) -> None:
    """Locks the table until the transaction ends, as ``reflect`` does, and sees that it is as it was.

    Raises:
        BusyError: its shape has changed.
        RefusedError: it may not be archived any more.
    """
    if reflect(connection, table.dataset, purpose) != table:
        raise BusyError(
            f"{table.dataset.table}: the table was altered while its rows and the file were compared. Nothing was "
            "written or deleted. Try again: the next run does."
        )


def current_shape(dataset: Dataset, postgres: Postgres, purpose: Purpose = "archive") -> Table:
    """The table's shape at this moment: as ``reflect``, but in a transaction of its own, without a lock afterwards.

    Raises:
        RefusedError, UnreachableError, BusyError: as PostgreSQL says.
    """
    advice = ADOPT_ADVICE if purpose == "adopt" else LOOK_ADVICE
    with postgres.transaction(str(dataset.table), advice=advice) as connection:
        return reflect(connection, dataset, purpose)


def shape_if_any(dataset: Dataset, postgres: Postgres) -> Table | None:
    """The table's shape for whoever verifies a file; None, with a warning, where it cannot be had."""
    try:
        return current_shape(dataset, postgres, "look")
    except (BusyError, RefusedError, UnreachableError) as error:
        logger.warning("Values are not looked at, only the files as a whole: %s", error)
        return None


def _require_deletable(connection: Connection, name: TableName, oid: int) -> None:
    if setting(connection, "session_replication_role") == "replica":
        raise RefusedError(
            f"In this session neither triggers nor foreign keys of {name} fire (session_replication_role is replica): "
            "rows that refer to deleted events would stay. Nothing was deleted. Set it to origin for role "
            f"{quoted(role_of(connection))}, or connect as another role."
        )
    for constraint, of in dependents.unenforced_references(connection, oid):
        raise RefusedError(
            f"Foreign key {quoted(constraint)}, which references {of}, does not fire: it is NOT ENFORCED, or triggers "
            f"are disabled. Referring rows would stay: enforce it, or ALTER TABLE {of} ENABLE TRIGGER ALL."
        )
    for reference in dependents.references(connection, oid):
        if reference.on_delete in _DELETE_ACTIONS:
            raise RefusedError(
                f"{name} is referenced by foreign key {quoted(reference.constraint)} of "
                f"{TableName(reference.schema, reference.table)} ON DELETE {_DELETE_ACTIONS[reference.on_delete]}: "
                "deleting events would change rows that no file holds. Make it NO ACTION."
            )
    for rule in dependents.delete_rules(connection, oid):
        raise RefusedError(
            f"{name} has a rule on DELETE, {quoted(rule)}: it would do something other than delete. Drop the "
            "rule; a trigger may do what it did."
        )


def _time_type(dataset: Dataset, types: dict[str, str]) -> str:
    found = types.get(dataset.time_column)
    if found is None:
        alike = [name for name in types if name.lower() == dataset.time_column.lower()]
        raise NoSuchTableError(
            f"{dataset.table} has no column {quoted(dataset.time_column)}.{_did_you_mean(map(quoted, alike))} "
            f"{dataset.setting('EVENT_TIME_COLUMN')} names the time column, taken literally; the table has "
            f"{', '.join(map(quoted, types))}."
        )
    if found not in TIME_TYPES:
        raise NoSuchTableError(
            f"Column {quoted(dataset.time_column)} of {dataset.table} is of type {found}; "
            f"{dataset.setting('EVENT_TIME_COLUMN')} must name a timestamp, timestamptz or date."
        )
    return found


def _did_you_mean(names: Iterable[str]) -> str:
    named = " or ".join(names)
    return f" Did you mean {named}?" if named else ""

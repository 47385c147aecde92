"""The columns that identify a row of a table. Not here: how keys are compared (``operations.readback``)."""

from event_archive.domain.dataset import TableName, quoted
from event_archive.errors import RefusedError
from event_archive.postgres.catalogue import relations
from event_archive.postgres.catalogue.relations import KeyColumn
from event_archive.postgres.session import Connection


def require_key(connection: Connection, name: TableName, oid: int) -> tuple[KeyColumn, ...]:
    """The columns of a table's key: of its primary key, else of a unique index that compares as the columns do.

    Args:
        connection: in a transaction.
        name: the table's, for messages.
        oid: the catalogue's number for it.

    Raises:
        RefusedError: it has none.
    """
    found = relations.unique_indexes(connection, oid)
    for index in found:
        if index.is_ordinary:
            return index.columns
    others = ", ".join(quoted(index.name) for index in found)
    why_not = f" ({others} compares with another operator class or collation than the columns')" if others else ""
    raise RefusedError(
        f"{name} has no key: neither an ordinary primary key nor a valid, immediate, complete unique index on NOT NULL "
        f"columns{why_not}. Without one, rows cannot be told apart: add a primary key."
    )


def key_of(connection: Connection, name: TableName) -> tuple[KeyColumn, ...]:
    """The columns of a table's key; none where there is no such table, or no key. Takes no lock."""
    found = relations.relation(connection, name.schema, name.name)
    indexes = relations.unique_indexes(connection, found.oid) if found else []
    return next((index.columns for index in indexes if index.is_ordinary), ())

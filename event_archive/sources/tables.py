"""The tables that sources need, made by the statements in ``sql/`` where they are missing. Not here: what is landed."""

from importlib.resources import files

from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive.postgres.catalogue.relations import relation
from event_archive.postgres.errors import Advice
from event_archive.postgres.session import Session

_LOCK = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('event_archive sources', 0))"


def make_missing(session: Session, *tables: TableName) -> list[TableName]:
    """Makes those tables that are not there, and returns them.

    Raises:
        RefusedError: the role may not; the message holds the statements, for somebody who may.
    """
    with session.transaction("tables of sources") as connection:
        missing = [table for table in tables if relation(connection, table.schema, table.name) is None]
    for table in missing:
        make(session, table, statement(table, f"{table.name}.sql"))
    return missing


def make(session: Session, table: TableName, statements: sql.Composed) -> None:
    """Makes a table, unless another process has made it since.

    Raises:
        RefusedError: as ``make_missing``.
    """
    advice = Advice(
        outcome="Nothing was taken in.",
        privileges=(
            f"{table} is missing, and this role may not make it. Let a role that may execute, then GRANT this one "
            f"SELECT, INSERT, UPDATE and DELETE on it:\n{statements.as_string()};"
        ),
    )
    with session.transaction(str(table), advice=advice) as connection:
        # Several processes start at once.
        connection.execute(_LOCK)
        if relation(connection, table.schema, table.name) is None:
            connection.execute("SET LOCAL search_path TO pg_catalog")
            connection.execute(statements)


def statement(table: TableName, file: str, **parts: sql.Composable) -> sql.Composed:
    """The statements of a file in ``sql/``, with the schema and other parts in their places."""
    text = files("event_archive.sources").joinpath("sql", file).read_text(encoding="utf-8")
    # The statements are this package's own.
    return sql.SQL(text.strip()).format(schema=sql.Identifier(table.schema), **parts)

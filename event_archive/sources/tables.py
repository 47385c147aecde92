"""The tables that sources need, made by the statements in ``sql/`` where they are missing, and the server that is new
enough for them. Not here: what is landed.
"""

from importlib.resources import files

from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive.errors import ConfigurationError
from event_archive.postgres.catalogue.relations import relation
from event_archive.postgres.errors import Advice
from event_archive.postgres.session import Session

_OLDEST_SERVER = 16
"""For log files: the first that has ``pg_input_is_valid``."""
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


def check_server(session: Session) -> None:
    """Looks whether the server is new enough for log files.

    Raises:
        ConfigurationError: it is older than that.
    """
    with session.transaction("the server's version") as connection:
        version = connection.info.server_version // 10_000
    if version < _OLDEST_SERVER:
        raise ConfigurationError(
            f"The server of PG_CONNECTION_STRING is PostgreSQL {version}; log files need {_OLDEST_SERVER} or newer. No "
            "file was loaded. Upgrade it, or name another server."
        )

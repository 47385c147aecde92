"""The tables that sources need, made by the statements in ``sql/`` where they are missing. Not here: what is landed."""

from collections.abc import Mapping
from importlib.resources import files

from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive.errors import ConfigurationError
from event_archive.postgres.catalogue.relations import relation
from event_archive.postgres.errors import Advice
from event_archive.postgres.pins import own_search_path
from event_archive.postgres.session import Connection, Session, one

_LOCK = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('event_archive sources', 0))"
_HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s)"


def make_missing(session: Session, *tables: TableName) -> list[TableName]:
    """Makes those tables that are not there, and returns them.

    Raises:
        ConfigurationError: there is no such schema.
        RefusedError: the role may not; the message holds the statements, for somebody who may.
    """
    with session.transaction("tables of sources") as connection:
        missing = [table for table in tables if relation(connection, table.schema, table.name) is None]
    wanted = {table: statement(table, f"{table.name}.sql") for table in missing}
    for table in missing:
        make(session, table, wanted)
        del wanted[table]
    return missing


def make(session: Session, table: TableName, wanted: Mapping[TableName, sql.Composed]) -> None:
    """Makes a table, unless another process has made it since.

    Args:
        session: where.
        table: what.
        wanted: the statements that make it, and those of tables that are to be made after it, so that a role that may
            make none is told all at once.

    Raises:
        ConfigurationError, RefusedError: as ``make_missing``.
    """
    are, them = ("is", "it") if len(wanted) == 1 else ("are", "them")
    advice = Advice(
        outcome="Nothing was taken in.",
        privileges=(
            f"{', '.join(map(str, wanted))} {are} missing, and this role may not make "
            f"{them}. Let a role that may execute, then GRANT this one SELECT, INSERT, UPDATE and "
            f"DELETE on {them}:\n" + "\n".join(f"{each.as_string()};" for each in wanted.values())
        ),
    )
    with session.transaction(str(table), advice=advice) as connection:
        # Several processes start at once.
        connection.execute(_LOCK)
        if relation(connection, table.schema, table.name) is None:
            require_schema(connection, table.schema)
            # Event triggers find what they name; what is PostgreSQL's own here is found first.
            with own_search_path(connection, to_read_values=True):
                connection.execute(wanted[table])


def require_schema(connection: Connection, schema: str) -> None:
    """Checks that the schema of INGEST_SCHEMA is there.

    Raises:
        ConfigurationError: it is not.
    """
    if not one(connection, _HAS_SCHEMA, schema)[0]:
        raise ConfigurationError(
            f"INGEST_SCHEMA ({schema!r}) names no schema of the database. Correct it, or let it be made: "
            f"{sql.SQL('CREATE SCHEMA {}').format(sql.Identifier(schema)).as_string()}."
        )


def statement(table: TableName, file: str, **parts: sql.Composable) -> sql.Composed:
    """The statements of a file in ``sql/``, with the schema and other parts in their places."""
    text = files("event_archive.sources").joinpath("sql", file).read_text(encoding="utf-8")
    # The statements are this package's own.
    return sql.SQL(text.strip()).format(schema=sql.Identifier(table.schema), **parts)

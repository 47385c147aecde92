"""Statements that messages give people to run. Not here: what this program runs itself."""

from collections.abc import Sequence

from psycopg import sql

from event_archive.postgres.catalogue.server import source_of_setting
from event_archive.postgres.session import Connection, listed, one

_BY_CHUNK = " WITH (timescaledb.transaction_per_chunk)"
_OF_PARTITIONS = (
    " It keeps writers waiting, as nothing is built CONCURRENTLY on a partitioned table, but takes over what its "
    "partitions have: build it CONCURRENTLY on each of them first."
)


def identifier(connection: Connection, *names: str) -> str:
    """A name, its schema first, in double quotes where PostgreSQL needs them, as of what is a word of its own."""
    return ".".join(str(one(connection, "SELECT pg_catalog.quote_ident(%s)", name)[0]) for name in names)


def holder(connection: Connection, source: str) -> str:
    """Whose a setting is, for ALTER, by its source as PostgreSQL tells it; empty where it is the server's."""
    found = one(connection, "SELECT SESSION_USER::text, pg_catalog.current_database()::text")
    role, database = (sql.Identifier(of).as_string(None) for of in found)
    whose = {
        "global": "ROLE ALL",
        "database": f"DATABASE {database}",
        "user": f"ROLE {role}",
        "database user": f"ROLE {role} IN DATABASE {database}",
    }
    return whose.get(source, "")


def turning_on(connection: Connection, setting: str) -> str:
    """Turns a Boolean setting on where it was turned off: for a role, a database, or the server."""
    source = source_of_setting(connection, setting)
    if source == "client":
        return f"Take {setting} out of the options of the connection string, or of PGOPTIONS."
    if whose := holder(connection, source):
        return f"ALTER {whose} SET {setting} = on;"
    return f"ALTER SYSTEM SET {setting} = on; SELECT pg_catalog.pg_reload_conf();"


def exempting(connection: Connection) -> str:
    """What to have a trigger do so that it leaves sessions like this one alone; a sentence without its full stop."""
    return f"Let it do nothing where application_name is {connection.info.parameter_status('application_name')}"


def create_index(
    schema: str, name: str, columns: Sequence[str], *, is_partitioned: bool = False, is_hypertable: bool = False
) -> str:
    """Creates an index, and keeps writers waiting no longer than that kind of table makes it.

    Args:
        schema: of the table.
        name: of the table.
        columns: the index's.
        is_partitioned: whether its rows lie in partitions or chunks.
        is_hypertable: whether it is one of TimescaleDB's.
    """
    statement = sql.SQL("CREATE INDEX {}ON {} ({}){};").format(
        sql.SQL("" if is_partitioned else "CONCURRENTLY "),
        sql.Identifier(schema, name),
        listed(columns),
        sql.SQL(_BY_CHUNK if is_hypertable else ""),
    )
    how = _OF_PARTITIONS if is_partitioned and not is_hypertable else ""
    return statement.as_string(None) + how

"""The settings of a session by which a value has one text everywhere, pinned until a transaction ends.

And what a transaction sets for itself: where functions of the database's owner find what they name, when triggers fire,
that a commit is on disk. Not here: the transaction (``session``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from sqlalchemy import Connection as EngineConnection

# With these, a value has the same text everywhere, whatever is set for the server, the database or the role. SET LOCAL,
# because a pooler may give the session to another client after the transaction.
_PINS: dict[str, str] = {
    # How values are written as text.
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "quote_all_identifiers": "off",
    # How text is parsed.
    "xmloption": "content",
    "array_nulls": "on",
    "timezone_abbreviations": "Default",
    # More than 0 leaves rows out where an index of rows by time is of GIN.
    "gin_fuzzy_search_limit": "0",
    # What a temporary table is made of: it is indexed and updated.
    "default_table_access_method": "heap",
    # Planning costs more than it saves.
    "jit": "off",
    # Makes a policy that hides rows from this role an error; with "on" their days would look done.
    "row_security": "off",
    # Not cut off while the lake works; 0 is never.
    "idle_in_transaction_session_timeout": "0",
}
# pg_temp last, or a temporary table left in a pooled session would hide one of the catalogue's.
_PIN_SEARCH_PATH = "SET LOCAL search_path TO pg_catalog, pg_temp"
# Errors alone would not say what PostgreSQL leaves undone, as a VACUUM or the wait for a standby.
_WARN = "SET LOCAL client_min_messages TO warning"
_PIN = "; ".join([*(f"SET LOCAL {name} TO '{value}'" for name, value in _PINS.items()), _PIN_SEARCH_PATH])
# What is PostgreSQL's own is written without its schema, as that is pinned: it must be read so, whatever comes first.
_OWN_PATH_TO_READ = """
SELECT pg_catalog.set_config('search_path',
  pg_catalog.concat_ws(', ', 'pg_catalog', nullif(pg_catalog.btrim(reset_val), ''), 'pg_temp'), true)
FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'search_path'
"""
_DURABLE = """
SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'
"""
_SETTINGS = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) ANY (%s)"
_TRANSACTION_TIMEOUT_SINCE = 170000
# A server looks for its client only once a statement has ended, unless it is told to. Until then the locks of a process
# that was killed stay, and the next run would take it for another. Servers on some systems refuse to be told.
_LOOK_FOR_CLIENT = """
SELECT pg_catalog.set_config('client_connection_check_interval', '5s', true)
WHERE pg_catalog.strpos(pg_catalog.version(), 'linux') OPERATOR(pg_catalog.>) 0
"""
_LOOK_FOR_CLIENT_SINCE = 140000


def pin(connection: EngineConnection) -> None:
    """Pins every setting, and the timeouts among the connection's execution options, until the transaction ends."""
    timeouts = cast(dict[str, str], connection.get_execution_options()["timeouts"])
    raw = cast(psycopg.Connection[Any], connection.connection.driver_connection)
    version = raw.info.server_version
    if version >= _TRANSACTION_TIMEOUT_SINCE:
        timeouts = timeouts | {"transaction_timeout": "0"}
    statements = [_PIN, _WARN, *(f"SET LOCAL {name} TO '{value}'" for name, value in timeouts.items())]
    if version >= _LOOK_FOR_CLIENT_SINCE:
        statements.append(_LOOK_FOR_CLIENT)
    connection.exec_driver_sql("; ".join(statements))


def commit_durably(connection: psycopg.Connection[Any]) -> None:
    """Lets the commit be on disk before anybody is told of it, whatever is set for the role or the server."""
    connection.execute(_DURABLE)


@contextmanager
def own_search_path(connection: psycopg.Connection[Any], *, to_read_values: bool = False) -> Iterator[None]:
    """Lets functions of the database's owner find what they name without a schema, as any other session would.

    Those are the functions of triggers, event triggers and domains. The block's own statements must name everything
    with its schema, operators and types included. After an error the transaction or savepoint has to be rolled back.

    What such a function sets, as a date style, ends with the block.

    Args:
        connection: in a transaction.
        to_read_values: texts become values in the block. Those that name something, as of type ``regconfig``, mean
            PostgreSQL's own where they name no schema.
    """
    connection.execute(_OWN_PATH_TO_READ if to_read_values else "SET LOCAL search_path TO DEFAULT")
    yield
    connection.execute(_PIN.encode())


def fire_at_once(connection: psycopg.Connection[Any]) -> None:
    """Lets triggers and constraints that wait for the commit fire after each statement instead, until the commit.

    Those that wait already fire now, and what they raise is raised here.
    """
    with own_search_path(connection):
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


def unpinned(connection: psycopg.Connection[Any]) -> list[str]:
    """The pinned settings that are not as they were pinned, since a function has set them."""
    present: dict[str, str] = dict(connection.execute(_SETTINGS, (list(_PINS),)).fetchall())
    return [name for name, value in _PINS.items() if present[name] != value]

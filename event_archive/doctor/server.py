"""The PostgreSQL server, the role's privileges, the replica. Not here: the table. Changes nothing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from ipaddress import ip_address

from psycopg import sql

from event_archive.config import services
from event_archive.config.sources import LOGS_OLDEST_SERVER
from event_archive.config.variables import value_of
from event_archive.doctor.findings import Finding, Patient
from event_archive.domain.dataset import TableName, quoted
from event_archive.domain.days import ONE_DAY, now_utc
from event_archive.errors import RefusedError
from event_archive.operations.replica import require_copy
from event_archive.postgres.catalogue.privileges import (
    may,
    may_make_temporary_tables,
    may_see_replicas,
    may_use_schema,
    schemas_of,
    types_of,
)
from event_archive.postgres.catalogue.relations import relation
from event_archive.postgres.catalogue.server import (
    clock,
    database_of,
    identity,
    is_standby,
    lag_behind,
    role_of,
    setting_of_new_sessions,
    source_of_setting,
    written_wal,
)
from event_archive.postgres.errors import Advice
from event_archive.postgres.session import Connection, Postgres, one
from event_archive.postgres.statements import holder, identifier
from event_archive.table.advice import ARCHIVE_ADVICE, export_advice
from event_archive.table.holds import HOLD_TABLE
from event_archive.table.shape import Table, reflect

SERVER = ("postgres", "postgres_tls", "postgres_primary", "privileges")
REPLICA = ("replica",)

OLDEST_SUPPORTED = 140000
"""As ``server_version_num`` says it."""
MOST_LAG_SECONDS = 60
"""A standby that is further behind serves exports that lack rows, which the next run then appends."""

# A person waits for the doctor: a busy server is a finding soon.
_LOCK_TIMEOUT_SECONDS = 5
_STREAMS = "Check that it still streams (pg_stat_wal_receiver)."
STATEMENT_TIMEOUT_SECONDS = 20


@contextmanager
def reading(database: Postgres, subject: str, advice: Advice = ARCHIVE_ADVICE) -> Iterator[Connection]:
    """A transaction that cannot write, and in which no statement takes long.

    Raises:
        UnreachableError, RefusedError, BusyError: as PostgreSQL says.
    """
    impatient = replace(database, lock_timeout_seconds=_LOCK_TIMEOUT_SECONDS)
    with impatient.transaction(
        subject, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS, advice=advice
    ) as connection:
        connection.execute("SET TRANSACTION READ ONLY")
        yield connection


def server(patient: Patient) -> Iterator[Finding]:
    """The primary and what the role may do there."""
    dataset, database = patient.settings.dataset, services.primary(patient.settings)
    with reading(database, "doctor") as connection:
        before = time.monotonic()
        there = clock(connection).timestamp()
        patient.read_clock("PostgreSQL", there, time.monotonic() - before)
        yield _version(connection, database.variable)
        yield _tls(connection, database.variable)
        yield _primary(connection, database.variable)
        yield _privileges(connection, dataset.table, waits=patient.settings.max_replica_lag is not None)


def _version(connection: Connection, variable: str) -> Finding:
    info = connection.info
    (version,) = one(connection, "SHOW server_version")
    server = f"PostgreSQL {version}, database {quoted(database_of(connection))} as {quoted(role_of(connection))}"
    if info.server_version < OLDEST_SUPPORTED:
        return Finding(
            "postgres", "warning", f"{server}: older than what is supported", "Upgrade to PostgreSQL 14 or newer."
        )
    if one(connection, "SHOW server_encoding") == ("SQL_ASCII",):
        return Finding(
            "postgres",
            "warning",
            f"{server}: its encoding is SQL_ASCII, which takes any bytes. A day with a text that is no UTF-8 will fail",
            "Move the table to a database whose encoding is UTF8, or see that every text is UTF-8.",
        )
    if (
        value_of("LOGS_URL")
        and variable == "PG_CONNECTION_STRING"
        and info.server_version < LOGS_OLDEST_SERVER * 10_000
    ):
        return Finding(
            "postgres",
            "warning",
            f"{server}: log files, of LOGS_URL, cannot be loaded",
            f"Upgrade to PostgreSQL {LOGS_OLDEST_SERVER} or newer.",
        )
    return Finding("postgres", "good", server)


def _tls(connection: Connection, variable: str) -> Finding:
    if connection.pgconn.ssl_in_use:
        return Finding("postgres_tls", "good", "the connection is encrypted")
    if _is_local(connection):
        return Finding(
            "postgres_tls",
            "good",
            "not encrypted, and to this machine itself: a pooler or a tunnel there has settings of its own",
        )
    return Finding(
        "postgres_tls",
        "warning",
        "events and the password's exchange cross the network unencrypted",
        f"Add sslmode=verify-full (or at least sslmode=require) to {variable}.",
    )


def _is_local(connection: Connection) -> bool:
    # No address: a Unix socket.
    address = connection.info.hostaddr
    return not address or ip_address(address).is_loopback


def _primary(connection: Connection, variable: str) -> Finding:
    if is_standby(connection):
        return Finding(
            "postgres_primary",
            "bad",
            "the server is a standby: nothing can be deleted there, and no day read back",
            f"Let {variable} name the primary; a standby may serve exports alone.",
        )
    if setting_of_new_sessions(connection, "default_transaction_read_only") == "on":
        return Finding(
            "postgres_primary",
            "bad",
            "transactions are read-only here (default_transaction_read_only)",
            _writable(connection, variable),
        )
    return Finding("postgres_primary", "good", "a primary that takes writes")


def _writable(connection: Connection, variable: str) -> str:
    """What lets this role write where default_transaction_read_only is on."""
    source = source_of_setting(connection, "default_transaction_read_only")
    if source == "client":
        return f"Take it out of the options of {variable}, or of PGOPTIONS."
    # That of a role goes before all others but that of the role in a database.
    whose = holder(connection, "database user" if source == "database user" else "user")
    off = "SET default_transaction_read_only = off;"
    # A session that is read-only, too, takes them, but not both in one request, as `psql -c` sends them.
    return f"One after the other: {off} ALTER {whose} {off}"


def _privileges(connection: Connection, name: TableName, *, waits: bool) -> Finding:
    user, database = one(connection, "SELECT current_user, pg_catalog.current_database()")
    hold = TableName(name.schema, HOLD_TABLE)
    of = partial(identifier, connection)
    types = types_of(connection, name.schema, name.name)
    named = schemas_of(connection, name.schema, name.name)
    schemas = dict.fromkeys([name.schema, *(schema for schema, _, _ in types), *named])
    wanted = {
        **{f"USAGE ON SCHEMA {of(schema)}": may_use_schema(connection, schema) for schema in schemas},
        **{f"USAGE ON TYPE {of(schema, of_it)}": granted for schema, of_it, granted in types},
        f"TEMPORARY ON DATABASE {of(database)}": may_make_temporary_tables(connection),
        f"SELECT ON {of(name.schema, name.name)}": may(connection, "SELECT", name.schema, name.name),
        f"DELETE ON {of(name.schema, name.name)}": may(connection, "DELETE", name.schema, name.name),
        f"SELECT ON {of(hold.schema, hold.name)}": may(connection, "SELECT", hold.schema, hold.name),
        # What a purge asks that waits for replicas (MAX_REPLICA_LAG).
        "pg_read_all_stats": not waits or is_standby(connection) or may_see_replicas(connection),
    }
    missing = [what for what, granted in wanted.items() if not granted]
    if missing:
        grants = "; ".join(f"GRANT {what} TO {of(user)}" for what in missing)
        return Finding("privileges", "bad", f"{quoted(user)} lacks {', '.join(missing)}", f"{grants};")
    if relation(connection, name.schema, name.name) is None:
        return Finding("privileges", "skipped", "not looked at, because of table")
    return Finding("privileges", "good", f"{quoted(user)} may select and delete, and make temporary tables")


def replica(patient: Patient) -> Iterator[Finding]:
    """The replica that a day's first export reads."""
    settings = patient.settings
    database = services.replica(settings)
    if database is None:
        yield Finding("replica", "good", "none configured: the primary serves every export")
        return
    primary = services.primary(settings)
    with reading(primary, "doctor") as connection:
        shape = reflect(connection, settings.dataset)
        written, original = written_wal(connection), identity(connection)
    with reading(database, database.variable, export_advice(database.variable)) as connection:
        require_copy(original, identity(connection), primary=primary.variable, replica=database.variable)
        try:
            copy = reflect(connection, settings.dataset)
        except RefusedError:
            yield Finding(
                "replica",
                "warning",
                "it does not have the table as it can be archived, or not yet: the primary serves exports",
                _STREAMS,
            )
            return
        _require_readable(connection, copy)
        yield _replica(connection, shape.columns == copy.columns, written, database.variable)


def _require_readable(connection: Connection, table: Table) -> None:
    """Plans a look at the aged rows, which PostgreSQL refuses a role that may not see them all."""
    dataset = table.dataset
    window = table.within(dataset.start, dataset.retention.last_aged_day(now_utc()) + ONE_DAY)
    connection.execute(sql.SQL("EXPLAIN SELECT * FROM {} WHERE {}").format(table.rows, window))


def _replica(connection: Connection, same_shape: bool, written: str | None, variable: str) -> Finding:
    if not same_shape:
        return Finding(
            "replica",
            "warning",
            "the table has other columns than on the primary, as before a change that is not replayed yet: what is "
            "exported meanwhile matches no row, and is appended anew",
            _STREAMS,
        )
    if not is_standby(connection):
        return Finding(
            "replica",
            "warning",
            f"{variable} names the primary itself",
            "Let it name a standby, or unset it: the primary serves exports then.",
        )
    lag = lag_behind(connection, written)
    if lag.bytes > 0 and lag.seconds > MOST_LAG_SECONDS:
        return Finding(
            "replica",
            "warning",
            f"the standby is {lag.bytes:,.0f} bytes and {lag.seconds:,.0f} s behind",
            f"{_STREAMS} What it lacks, the next run appends.",
        )
    return Finding("replica", "good", f"a standby, {max(lag.bytes, 0):,.0f} bytes behind")

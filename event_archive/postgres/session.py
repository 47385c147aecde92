"""PostgreSQL: sessions. Here: how to connect, what a transaction pins, COPY out.

Not here: what an error means (``postgres_errors.py``); the events, their table (``table.py``), their days.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, repeat
from typing import Any, Literal, LiteralString, cast

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.generators import fetch_many
from psycopg.pq import Conninfo, ConnStatus, ExecStatus, TransactionStatus
from sqlalchemy import Connection as EngineConnection
from sqlalchemy import Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from event_archive.errors import EventArchiveError, RefusedError, UnreachableError
from event_archive.identity import azure_credential, entra_codes
from event_archive.postgres.errors import ARCHIVE_ADVICE, Advice, refusal

Connection = psycopg.Connection[tuple[Any, ...]]
Isolation = Literal["READ COMMITTED", "REPEATABLE READ"]

# Whatever the server, the database or the role says: the same value has the same text, and the same text the same
# value. SET LOCAL, because a pooler may hand the session to somebody else after the transaction.
_PINS: dict[str, str] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
    "xmlbinary": "base64",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "jit": "off",
    # A policy that hides rows from this role is an error then; with "on" their days would look done.
    "row_security": "off",
    "idle_in_transaction_session_timeout": "0",
}
_TRANSACTION_TIMEOUT_SINCE = 170000
_CONNECT_ATTEMPTS = 3
_CANCEL_TIMEOUT_SECONDS = 5
# Of PostgreSQL, and of PgBouncer in front of it.
_STARTING_OR_FULL = (
    "starting up", "shutting down", "recovery mode", "accepting connections", "too many", "connection slots are",
    "no more connections", "cannot connect to server", "login has been failing",
)  # fmt: skip
_CONNECT_DEFAULTS = {
    "connect_timeout": 10,
    "application_name": "event_archive",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 120_000,
}
_PIECE_BYTES = 1024 * 1024
_AZURE_TOKEN_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"  # noqa: S105 (a scope, no secret)


@dataclass(frozen=True)
class Postgres:
    """One PostgreSQL database.

    Attributes:
        conninfo: libpq URL or key=value DSN. A secret.
        auth: ``azure`` takes an Entra ID access token as the password, for Azure Database for PostgreSQL.
        lock_timeout_seconds: how long a statement waits for somebody else's lock.
        variable: the setting that holds ``conninfo``, for messages.
    """

    conninfo: str = field(repr=False)
    auth: Literal["password", "azure"] = "password"
    lock_timeout_seconds: float = 30
    variable: str = "PG_CONNECTION_STRING"

    @contextmanager
    def transaction(
        self,
        subject: str,
        *,
        isolation: Isolation = "READ COMMITTED",
        statement_timeout_seconds: float = 0,
        advice: Advice = ARCHIVE_ADVICE,
    ) -> Iterator[Connection]:
        """A transaction on a connection of its own, every setting pinned; commits unless the block raises.

        Args:
            subject: what it is about, for messages: the table, the day.
            isolation: as PostgreSQL names it.
            statement_timeout_seconds: 0 for none.
            advice: how messages end.

        Raises:
            UnreachableError: no connection, or it broke. Only the connecting is tried again.
            BusyError: a lock or statement timeout, a deadlock.
            RefusedError: any other refusal, with PostgreSQL's own words.
        """
        timeouts = {
            "lock_timeout": f"{self.lock_timeout_seconds}s",
            "statement_timeout": f"{statement_timeout_seconds}s",
        }
        try:
            with _engine(self).connect() as connection:
                connection.execution_options(isolation_level=isolation, timeouts=timeouts)
                with connection.begin():
                    raw = cast(Connection, connection.connection.driver_connection)
                    try:
                        yield raw
                    except BaseException:
                        _abandon(connection, raw)
                        raise
        except psycopg.Error as error:
            raise refusal(error, subject, advice, hide=self._without_secrets) from error
        except DBAPIError as error:
            # At the begin and at the commit, which SQLAlchemy sends itself.
            if not isinstance(error.orig, psycopg.Error):
                raise
            raise refusal(error.orig, subject, advice, hide=self._without_secrets) from error.orig

    def _connect(self) -> Connection:
        given = conninfo_to_dict(self.conninfo)
        options: dict[str, Any] = {name: value for name, value in _CONNECT_DEFAULTS.items() if name not in given}
        if self.auth == "azure":
            options["password"] = _azure_token()
            if not _tls_is_chosen(given):
                # Whoever reads the token on the way is us until it expires.
                options["sslmode"] = "require"
        for attempt in range(1, _CONNECT_ATTEMPTS + 1):
            try:
                # A pooler in transaction mode knows no prepared statement from one transaction to the next.
                return psycopg.connect(self.conninfo, client_encoding="UTF8", prepare_threshold=None, **options)
            except psycopg.OperationalError as error:
                answered = any(text in str(error) for text in ("FATAL:", "no password supplied"))
                if answered or attempt == _CONNECT_ATTEMPTS:
                    # Not chained: libpq's words may repeat a part of the connection string.
                    raise self._not_connected(error, answered=answered) from None
            time.sleep(attempt)
        raise AssertionError("unreachable")

    def _not_connected(self, error: psycopg.Error, *, answered: bool) -> EventArchiveError:
        words = self._without_secrets(" ".join(str(error).split()))
        if answered and not any(text in words for text in _STARTING_OR_FULL):
            return RefusedError(
                f"PostgreSQL refuses the connection: {words}. "
                f"Check user, password and database in {self.variable}, and the server's access rules."
            )
        return UnreachableError(
            f"PostgreSQL cannot be reached: {words.rstrip('.?')}. "
            f"Check host and port in {self.variable}, and that the server is up and lets this machine in."
        )

    def _without_secrets(self, words: str) -> str:
        for name, value in conninfo_to_dict(self.conninfo).items():
            # A word of three letters would garble the message more than it hides.
            if name in ("password", "sslpassword", "passfile") and value and len(str(value)) > 3:
                words = words.replace(str(value), "***")
        return words


@cache
def _engine(postgres: Postgres) -> Engine:
    """One a database and process: an engine's first connection asks the server many things."""
    engine = create_engine("postgresql+psycopg://", creator=postgres._connect, poolclass=NullPool)  # noqa: SLF001
    event.listen(engine, "begin", _pin)
    return engine


def _pin(connection: EngineConnection) -> None:
    pins = _PINS | cast(dict[str, str], connection.get_execution_options()["timeouts"])
    raw = cast(Connection, connection.connection.driver_connection)
    if raw.info.server_version >= _TRANSACTION_TIMEOUT_SINCE:
        pins = pins | {"transaction_timeout": "0"}
    # Utility statements take no snapshot: that of a REPEATABLE READ transaction begins with its first query.
    connection.exec_driver_sql("; ".join(f"SET LOCAL {name} TO '{value}'" for name, value in pins.items()))


def _abandon(connection: EngineConnection, raw: Connection) -> None:
    """Gives up a session that takes no ROLLBACK any more: it broke, or a signal came in the middle of a statement."""
    if raw.info.transaction_status == TransactionStatus.ACTIVE:
        # Else the server would go on, and hold its locks, until it has something to say.
        with suppress(psycopg.Error):
            raw.cancel_safe(timeout=_CANCEL_TIMEOUT_SECONDS)
    if raw.info.transaction_status in (TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN):
        connection.invalidate()


def _azure_token() -> str:
    from azure.core.exceptions import AzureError

    try:
        return azure_credential().get_token(_AZURE_TOKEN_SCOPE).token
    except AzureError as error:
        codes = entra_codes(error)
        # Entra ID's own codes are a refusal; without one, nobody was reached who could refuse.
        kind = RefusedError if codes else UnreachableError
        # Not chained: what the endpoints answered may be repeated in it.
        raise kind(
            f"No Entra ID access token for PostgreSQL (PG_AUTH=azure) could be had ({codes or type(error).__name__}). "
            "Check the workload identity (the service account's client id, the pod's label, the federated credential), "
            "and that Entra ID can be reached."
        ) from None


def _tls_is_chosen(given: Mapping[str, object]) -> bool:
    """Whether the connection string, the environment or a service file says how safe a connection is to be."""
    if {"sslmode", "service"} & given.keys() or str(given.get("host", "")).startswith("/"):
        return True
    defaults = {option.keyword: option.val for option in Conninfo.get_defaults()}
    return defaults[b"sslmode"] != b"prefer"


def copy_out(connection: Connection, statement: sql.Composed, take: Callable[[bytearray, int], None]) -> int:
    """Runs a ``COPY … TO STDOUT`` and hands over what comes, in pieces of a MiB and a bit.

    PostgreSQL sends a message a row. What has arrived already is taken from libpq directly, since psycopg's own step
    from one message to the next costs twice what libpq's does; psycopg waits where nothing has arrived.

    Args:
        connection: in a transaction.
        statement: the COPY.
        take: called with each piece, which is then its own, and the number of messages in it.

    Returns:
        How many rows PostgreSQL says it copied.
    """
    pgconn = connection.pgconn
    arrived = pgconn.get_copy_data
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        piece, messages, end = bytearray(), 0, 0
        while end == 0 and (first := copy.read()):
            # Each with its length; 0 for nothing yet, -1 for the end. A loop over a map costs less than calls.
            for end, row in chain([(len(first), first)], map(arrived, repeat(1))):
                if end <= 0:
                    break
                piece += row
                messages += 1
                if len(piece) >= _PIECE_BYTES:
                    take(piece, messages)
                    piece, messages = bytearray(), 0
        if piece:
            take(piece, messages)
        if end == 0:
            # psycopg saw the end.
            return cursor.rowcount
        results = connection.wait(fetch_many(pgconn))
        failed = [result for result in results if result.status != ExecStatus.COMMAND_OK]
        if pgconn.status == ConnStatus.BAD or not results:
            # A result that libpq made itself has no SQLSTATE to tell this by.
            raise psycopg.OperationalError(pgconn.get_error_message() or "the connection is lost")
        if failed:
            raise psycopg.errors.error_from_result(failed[0], encoding="utf-8")
        return results[-1].command_tuples or 0


def one(connection: Connection, query: sql.Composed | LiteralString, *values: object) -> tuple[Any, ...]:
    """The one row that a query returns."""
    row = connection.execute(query, values or None).fetchone()
    if row is None:
        raise LookupError("a query that always returns a row returned none")
    return row

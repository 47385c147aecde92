"""A session with PostgreSQL: one transaction, in which every setting that could change a value's text is pinned.

Names are written with their schema all the same: the pin protects operators and types. Not here: how a connection is
made, what an error means, COPY, any table.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection as EngineConnection
from sqlalchemy import Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from event_archive.errors import SeveralServersError, UnreachableError
from event_archive.postgres.connecting import Auth, connect, without_secrets
from event_archive.postgres.errors import NO_ADVICE, Advice, refusal
from event_archive.postgres.pins import pin

Connection = psycopg.Connection[tuple[Any, ...]]

_WARN_ALONE = """
SELECT pg_catalog.set_config('client_min_messages', 'warning', false)
WHERE pg_catalog.current_setting('client_min_messages') OPERATOR(pg_catalog.=) 'error'
"""
_WAIT_FOR_STANDBY = "SyncRepWaitForLSN"
"""What tells of it, in any language; PostgreSQL goes on as if the standby had the transaction."""
# A proxy that balances load sends what changes nothing to a standby, and a function that may change something to the
# primary: of one server, both say the same.
_IS_STANDBY = "SELECT pg_catalog.current_setting('in_hot_standby')::pg_catalog.bool"
_IS_IN_RECOVERY = "SELECT pg_catalog.pg_is_in_recovery()"
_IS_STANDBY_SINCE = 140000
# A cancel is a connection of its own; where that takes longer, the server is out of reach and gives up by itself.
_CANCEL_TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Postgres:
    """One PostgreSQL database.

    Attributes:
        conninfo: libpq URL or key=value DSN. A secret.
        auth: ``azure`` takes an Entra ID access token as the password, for Azure Database for PostgreSQL.
        lock_timeout_seconds: how long a statement waits for a lock that another transaction has.
        variable: the setting that holds ``conninfo``, for messages.
        patient: whether to connect again where the server does not answer, or is full; else who asks hears of it within
            some seconds.
    """

    conninfo: str = field(repr=False)
    auth: Auth = "password"
    lock_timeout_seconds: float = 30
    variable: str = "PG_CONNECTION_STRING"
    patient: bool = True

    @contextmanager
    def transaction(
        self,
        subject: str,
        *,
        statement_timeout_seconds: float = 0,
        advice: Advice = NO_ADVICE,
    ) -> Iterator[Connection]:
        """A READ COMMITTED transaction on its own connection, every setting pinned; commits unless the block raises.

        Args:
            subject: what it is about, for messages: the table, the day.
            statement_timeout_seconds: 0 for none.
            advice: how messages end.

        Raises:
            UnreachableError: no connection, or it broke. Only the connecting is tried again.
            BusyError: a lock or statement timeout, a deadlock.
            RefusedError: any other refusal, with PostgreSQL's own words.
        """
        with (
            self.session(subject, advice=advice) as session,
            session.transaction(subject, statement_timeout_seconds=statement_timeout_seconds, advice=advice) as raw,
        ):
            yield raw

    @contextmanager
    def session(self, subject: str = "the database", *, advice: Advice = NO_ADVICE) -> Iterator["Session"]:
        """A connection for several transactions, one after another.

        Args:
            subject: as for ``transaction``.
            advice: as for ``transaction``.

        Raises:
            UnreachableError, BusyError, RefusedError: as ``transaction``.
        """
        # Statements that SQLAlchemy sends itself are refused like ours: it asks for the version at first.
        with self._told(subject, advice), _engine(self).connect() as connection:
            session = Session(self, connection)
            cast(Connection, connection.connection.driver_connection).add_notice_handler(session.hear)
            yield session

    @contextmanager
    def _told(self, subject: str, advice: Advice) -> Iterator[None]:
        """What PostgreSQL raises in this block is raised as the error that people see."""
        try:
            yield
        except psycopg.Error as error:
            raise refusal(error, subject, advice, hide=self._hide, variable=self.variable) from None
        except DBAPIError as error:
            if not isinstance(error.orig, psycopg.Error):
                raise
            raise refusal(error.orig, subject, advice, hide=self._hide, variable=self.variable) from None

    def execute_alone(self, statement: sql.Composed, subject: str, *, advice: Advice = NO_ADVICE) -> set[str]:
        """Executes a statement that no transaction may be around, as a VACUUM, on its own connection.

        Args:
            statement: which.
            subject: as for ``transaction``.
            advice: as for ``transaction``.

        Returns:
            The SQLSTATEs of what PostgreSQL warned of.

        Raises:
            UnreachableError, BusyError, RefusedError: as for ``transaction``.
        """
        warned = set[str]()
        with self._told(subject, advice), self._connect() as connection:
            connection.add_notice_handler(lambda notice: warned.add(notice.sqlstate or ""))
            connection.autocommit = True
            connection.execute(_WARN_ALONE)
            connection.execute(statement)
        return warned

    def _connect(self) -> Connection:
        return connect(self.conninfo, self.auth, variable=self.variable, patient=self.patient)

    def _hide(self, words: str) -> str:
        return without_secrets(words, self.conninfo)


@dataclass(frozen=True, slots=True)
class Session:
    """A connection to a database, for several transactions, one after another."""

    postgres: Postgres
    _connection: EngineConnection = field(repr=False)
    _wait_ended: threading.Event = field(default_factory=threading.Event, repr=False)
    _is_one_server: threading.Event = field(default_factory=threading.Event, repr=False)

    def hear(self, notice: psycopg.errors.Diagnostic) -> None:
        """Takes down that somebody has ended a commit's wait for a synchronous standby, which is no error."""
        if notice.source_function == _WAIT_FOR_STANDBY:
            self._wait_ended.set()

    @contextmanager
    def transaction(
        self, subject: str, *, statement_timeout_seconds: float = 0, advice: Advice = NO_ADVICE
    ) -> Iterator[Connection]:
        """As ``Postgres.transaction``, on this connection, which is of no use any more once it broke."""
        connection = self._connection
        self._wait_ended.clear()
        timeouts = {
            "lock_timeout": f"{self.postgres.lock_timeout_seconds}s",
            "statement_timeout": f"{statement_timeout_seconds}s",
        }
        with self.postgres._told(subject, advice):  # noqa: SLF001 (of this module)
            connection.execution_options(isolation_level="READ COMMITTED", timeouts=timeouts)
            with connection.begin():
                raw = cast(Connection, connection.connection.driver_connection)
                try:
                    self._require_one_server(raw, subject)
                    yield raw
                except BaseException:
                    _abandon(connection, raw)
                    raise
            if self._wait_ended.is_set():
                raise UnreachableError(
                    f"{subject}: somebody ended the wait for a synchronous standby. What was written is committed on "
                    "the primary alone, and a failover may lose it. See that the standby is there, then try again."
                )

    def _require_one_server(self, connection: Connection, subject: str) -> None:
        """Checks, once a session, that no proxy sends queries of one transaction to several servers.

        Raises:
            SeveralServersError: one does: a standby that lags knows nothing of what the primary has had since.
        """
        if self._is_one_server.is_set() or connection.info.server_version < _IS_STANDBY_SINCE:
            return
        if one(connection, _IS_STANDBY) != one(connection, _IS_IN_RECOVERY):
            raise SeveralServersError(
                f"{subject}: {self.postgres.variable} leads to a proxy that sends queries of one transaction to the "
                "primary and to a standby, which may lag.",
                outcome="Nothing was done.",
                advice="Name one server itself, or let the proxy send whole transactions to the primary (pgpool-II: "
                "disable_load_balance_on_write = 'transaction').",
            )
        self._is_one_server.set()


@cache
def _engine(postgres: Postgres) -> Engine:
    """One for each database in a process, since an engine's first connection asks the server many things."""
    engine = create_engine("postgresql+psycopg://", creator=postgres._connect, poolclass=NullPool)  # noqa: SLF001
    event.listen(engine, "begin", pin)
    return engine


def _abandon(connection: EngineConnection, raw: Connection) -> None:
    """Closes a session that cannot take a ROLLBACK: it broke, or a signal came in the middle of a statement."""
    if raw.info.transaction_status == TransactionStatus.ACTIVE:
        # Without a cancel the server would go on, and keep its locks, until it next sends something.
        with suppress(psycopg.Error):
            raw.cancel_safe(timeout=_CANCEL_TIMEOUT_SECONDS)
    if raw.info.transaction_status in (TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN):
        connection.invalidate()


def listed(names: Iterable[str]) -> sql.Composed:
    """Columns by their names, as a list in SQL."""
    return sql.SQL(", ").join(map(sql.Identifier, names))


def is_whole(names: Iterable[str]) -> sql.Composed:
    """The condition that none of these columns is NULL."""
    return sql.SQL("(pg_catalog.num_nulls({}) OPERATOR(pg_catalog.=) 0)").format(listed(names))


def one(connection: Connection, query: sql.Composed | LiteralString, *values: object) -> tuple[Any, ...]:
    """The one row that a query returns."""
    row = connection.execute(query, values or None).fetchone()
    if row is None:
        raise LookupError("a query that always returns a row returned none")
    return row

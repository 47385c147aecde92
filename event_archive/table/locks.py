"""The advisory locks: on a day of a table, and on a table that is made or widened. Not here: holds.

Each lasts until its transaction ends. Who takes the lock on a day, and how:

- a purge: exclusive; where it is taken, the purge does nothing;
- an append: shared with other appends; where it is taken, the append does nothing;
- a hold, a restore: exclusive; waits for it.

Where a connection broke, the server may go on with the statement for a while, and keep the lock. When this process does
the day again, it waits for that session, and does not take it for another command.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import psycopg

from event_archive.domain.dataset import Dataset, TableName
from event_archive.errors import BusyError, UnreachableError
from event_archive.postgres.catalogue.relations import version_of_schema
from event_archive.postgres.errors import Advice
from event_archive.postgres.lost import Backend, backend, lives
from event_archive.postgres.session import Connection, Postgres, one
from event_archive.table.advice import ARCHIVE_ADVICE

_LOCK = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))"
_LOCK_SHARED = "SELECT pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended(%s, 0))"
_TRY_LOCK = "SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))"
_TRY_LOCK_SHARED = "SELECT pg_catalog.pg_try_advisory_xact_lock_shared(pg_catalog.hashtextextended(%s, 0))"

_lost: dict[str, Backend] = {}
"""By the name of a day's lock, the last session of this process that may have had it when its connection broke."""


@contextmanager
def day_transaction(
    postgres: Postgres, dataset: Dataset, day: date, advice: Advice = ARCHIVE_ADVICE
) -> Iterator[Connection]:
    """A transaction that archives or purges a day, and may take its lock.

    Raises:
        UnreachableError, BusyError, RefusedError: as ``Postgres.transaction``.
    """
    session: Backend | None = None
    try:
        with postgres.transaction(f"{dataset.table}, {day}", advice=advice) as connection:
            session = backend(connection)
            yield connection
    except UnreachableError:
        if session:
            _lost[_name(dataset, day)] = session
        raise


def require_same_schema(connection: Connection, dataset: Dataset, version: str) -> None:
    """Checks that what was read by its name was the table: no lock keeps schemas from changing theirs, and back.

    Args:
        connection: in the transaction that read it.
        dataset: whose table.
        version: of its schema, as ``version_of_schema`` had it before.

    Raises:
        BusyError: the schema has been altered since.
    """
    if version_of_schema(connection, dataset.table.schema) != version:
        raise BusyError(
            f"{dataset.table}: its schema was altered while it was read. Nothing was written or deleted. Try again: "
            "the next run does."
        )


@contextmanager
def same_schema(connection: Connection, dataset: Dataset) -> Iterator[None]:
    """Sees at the end of the block what ``require_same_schema`` does."""
    version = version_of_schema(connection, dataset.table.schema)
    yield
    require_same_schema(connection, dataset, version)


def lock_day(connection: Connection, dataset: Dataset, day: date, *, wait: bool = False, shared: bool = False) -> bool:
    """Takes the lock on the table and the day, until the transaction ends.

    Args:
        connection: in a transaction.
        dataset: whose table.
        day: the day.
        wait: until it is free, as long as the lock timeout allows.
        shared: several may have it at once, but none beside an exclusive one.

    Returns:
        False where another command has it.

    Raises:
        BusyError: a session of this process has it whose connection broke, for longer than the lock timeout.
    """
    name = _name(dataset, day)
    if wait:
        connection.execute(_LOCK, (name,))
        return True
    if one(connection, _TRY_LOCK_SHARED if shared else _TRY_LOCK, name)[0]:
        return True
    if name not in _lost or not lives(connection, _lost[name]):
        return False
    try:
        connection.execute(_LOCK_SHARED if shared else _LOCK, (name,))
    except psycopg.errors.LockNotAvailable:
        raise BusyError(
            f"{dataset.table}, {day}: PostgreSQL still goes on with a session of this run whose connection broke, and "
            "which holds the day. Nothing was deleted that is not archived; the next run goes on."
        ) from None
    return True


def _name(dataset: Dataset, day: date) -> str:
    return f"event_archive {dataset.table} {day}"


def await_day(connection: Connection, dataset: Dataset, day: date, postgres: Postgres, *, outcome: str) -> None:
    """As ``lock_day`` that waits, for a command that a person gave.

    Args:
        connection: to ``postgres``, in a transaction.
        dataset: whose table.
        day: the day.
        postgres: says how long is waited.
        outcome: what follows where it is not free in time, for the message.

    Raises:
        BusyError: another command worked on the day for longer than the lock timeout.
    """
    try:
        lock_day(connection, dataset, day, wait=True)
    except psycopg.errors.LockNotAvailable:
        raise BusyError(
            f"{dataset.table}: another command has been working on {day} for longer than "
            f"{postgres.lock_timeout_seconds:g} s. {outcome}"
        ) from None


def lock_table(connection: Connection, name: TableName) -> None:
    """Waits until no other run makes this table or adds columns to it, and keeps others from it."""
    connection.execute(_LOCK, (f"event_archive {name}",))

"""A session whose connection broke: it may live on with its locks, and its commit may have gone through.

Not here: who waits for it, connecting again.
"""

from datetime import datetime

from event_archive.postgres.session import Connection, one

Backend = tuple[int, datetime]
"""The server's process of a session: its number, which another may get, and when it began."""

_BACKEND = "SELECT pid, backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()"
_LIVES = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = %s AND backend_start = %s)"
_NUMBER = "SELECT pg_catalog.txid_current()"
# A server that was restored, or was a replica, has never had a later one.
_STATUS = "SELECT CASE WHEN %s < pg_catalog.txid_current() THEN pg_catalog.txid_status(%s) END"


def backend(connection: Connection) -> Backend:
    """The one that serves a connection."""
    pid, start = one(connection, _BACKEND)
    return pid, start


def lives(connection: Connection, former: Backend) -> bool:
    """Whether one is there still; a transaction that has asked gets the same answer again."""
    return bool(one(connection, _LIVES, *former)[0])


def transaction_number(connection: Connection) -> int:
    """The number of a connection's transaction, by which another session can ask what became of it."""
    return int(one(connection, _NUMBER)[0])


def has_committed(connection: Connection, number: int) -> bool:
    """Whether a transaction has committed; not where it goes on, or nobody knows of it."""
    return bool(one(connection, _STATUS, number, number)[0] == "committed")

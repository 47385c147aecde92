"""A session whose connection broke: it may live on with its locks, and its commit may have gone through.

Not here: who waits for it, connecting again.
"""

from dataclasses import dataclass
from datetime import datetime

from event_archive.postgres.session import Connection, one

Backend = tuple[int, datetime]
"""The server's process of a session: its number, which another may get, and when it began."""

_BACKEND = "SELECT pid, backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()"
_LIVES = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = %s AND backend_start = %s)"
_MARK = """
SELECT pg_catalog.txid_current(),
       pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8),
       pg_catalog.pg_current_wal_insert_lsn()::text
"""
_HAS_REPLAYED = "SELECT coalesce(pg_catalog.pg_last_wal_replay_lsn() >= %s::pg_catalog.pg_lsn, false)"
_STATUS = "SELECT pg_catalog.txid_status(%s)"


def backend(connection: Connection) -> Backend:
    """The one that serves a connection."""
    pid, start = one(connection, _BACKEND)
    return pid, start


def lives(connection: Connection, former: Backend) -> bool:
    """Whether one is there still; a transaction that has asked gets the same answer again."""
    return bool(one(connection, _LIVES, *former)[0])


@dataclass(frozen=True, slots=True)
class Mark:
    """A transaction that is about to commit, by which another session can ask what became of it.

    Attributes:
        number: on another timeline that of another transaction, where this one never came there.
        timeline: the server's.
        written: where its WAL ended.
    """

    number: int
    timeline: str
    written: str


def mark(connection: Connection) -> Mark:
    """Of a connection's transaction, which has done all but commit."""
    return Mark(*one(connection, _MARK))


def has_committed(connection: Connection, former: Mark) -> bool:
    """Whether a transaction has committed; not where it goes on, or nobody knows of it."""
    now = mark(connection)
    # A server that was restored, or was a standby, may have begun its timeline without the transaction.
    came_here = now.timeline == former.timeline or one(connection, _HAS_REPLAYED, former.written)[0]
    if not came_here or former.number >= now.number:
        return False
    return bool(one(connection, _STATUS, former.number)[0] == "committed")

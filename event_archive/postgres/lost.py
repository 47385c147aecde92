"""A session whose connection broke: it may live on with its locks, and its commit may have gone through.

Not here: who waits for it, connecting again.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import psycopg

from event_archive.postgres.session import Connection, one

Backend = tuple[int, datetime]
"""The server's process of a session: its number, which another may get, and when it began."""

_BACKEND = "SELECT pid, backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()"
_LIVES = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = %s AND backend_start = %s)"
_MARK = """
SELECT pg_catalog.txid_current(),
       pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8),
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0'),
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0'),
       pg_catalog.pg_postmaster_start_time(),
       pg_catalog.clock_timestamp()
"""
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
        number: another transaction gets it, where a crash or a failover has undone all of this one.
        timeline: the server's, in hexadecimal digits.
        written: where its WAL ended, in bytes.
        replayed: where the WAL ended that the server has replayed, after a crash or as a standby; None: none.
        started: when it was.
        at: when the transaction was about to commit.
    """

    number: int
    timeline: str
    written: Decimal
    replayed: Decimal | None
    started: datetime
    at: datetime

    def may_be_known(self, now: "Mark") -> bool:
        """Whether a server that is as ``now`` says, has given the number to no other transaction.

        It has not where it went on without a break, where it was shut down in order, and where it replayed what the
        transaction had written. Two such events since, as a crash and a restart, cannot always be told from one.
        """
        is_same = now.timeline == self.timeline
        if is_same and (now.started, now.replayed) == (self.started, self.replayed):
            return True
        if now.replayed is None:
            return is_same
        is_next = int(now.timeline, 16) == int(self.timeline, 16) + 1 and now.started < self.at
        return (is_same or is_next) and now.replayed >= self.written


def mark(connection: Connection) -> Mark | None:
    """Of a connection's transaction, which has done all but commit; None where the role may not ask."""
    try:
        with connection.transaction():
            return Mark(*one(connection, _MARK))
    except psycopg.errors.InsufficientPrivilege:
        return None


def has_committed(connection: Connection, former: Mark) -> bool:
    """Whether a transaction has committed; not where it goes on, or nobody knows of it."""
    now = mark(connection)
    if now is None or not former.may_be_known(now) or former.number >= now.number:
        return False
    return bool(one(connection, _STATUS, former.number)[0] == "committed")

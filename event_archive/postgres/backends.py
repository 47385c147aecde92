"""Which of the server's processes serves a session, and whether it lives still.

One whose client is gone goes on with its statement, and keeps its locks. Not here: who waits for it.
"""

from datetime import datetime

from event_archive.postgres.session import Connection, one

Backend = tuple[int, datetime]
"""Its number, which another may get, and when it began."""

_BACKEND = "SELECT pid, backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()"
_LIVES = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = %s AND backend_start = %s)"


def backend(connection: Connection) -> Backend:
    """The one that serves a connection."""
    pid, start = one(connection, _BACKEND)
    return pid, start


def lives(connection: Connection, former: Backend) -> bool:
    """Whether one is there still; a transaction that has asked gets the same answer again."""
    return bool(one(connection, _LIVES, *former)[0])

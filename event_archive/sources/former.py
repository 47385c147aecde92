"""A session whose connection broke: it may live on for a while, with its locks, and its commit may have gone through.

Not here: connecting again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from event_archive.postgres.session import Connection, Session, one

_MOST_SECONDS = 30.0
_LOOK_SECONDS = 0.2
_BACKEND = "SELECT pid, backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()"
_LIVES = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = %s AND backend_start = %s)"
_NUMBER = "SELECT pg_catalog.txid_current()"
# A server that was restored, or was a replica, has never had a later one.
_STATUS = "SELECT CASE WHEN %s < pg_catalog.txid_current() THEN pg_catalog.txid_status(%s) END"


@dataclass(slots=True)
class Former:
    """What is not known of a run's session once its connection broke."""

    _backend: tuple[int, datetime] | None = None
    _number: int = 0
    _count: Callable[[], None] | None = None

    def note(self, connection: Connection, count: Callable[[], None]) -> None:
        """Takes down a transaction just before its commit, and what counts what it landed once it has committed."""
        self._number, self._count = one(connection, _NUMBER)[0], count

    def committed(self) -> None:
        """The transaction has committed: it is counted, once."""
        count, self._count = self._count, None
        if count is not None:
            count()

    def succeeded_by(self, session: Session, told_to_stop: Callable[[], bool]) -> None:
        """Goes on with another session: once the former one is gone with its locks, or half a minute has passed.

        What the former one committed, and nobody heard of, is counted.
        """
        if self._backend:
            until = time.monotonic() + _MOST_SECONDS
            while _lives(session, *self._backend) and time.monotonic() < until and not told_to_stop():
                time.sleep(_LOOK_SECONDS)
        with session.transaction("the session before") as connection:
            if self._count and one(connection, _STATUS, self._number, self._number)[0] == "committed":
                self.committed()
            self._count = None
            pid, start = one(connection, _BACKEND)
            self._backend = pid, start


def _lives(session: Session, pid: int, start: datetime) -> bool:
    with session.transaction("the session before") as connection:
        return bool(one(connection, _LIVES, pid, start)[0])

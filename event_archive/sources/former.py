"""A session whose connection broke: it may live on for a while, with its locks, and its commit may have gone through.

Not here: connecting again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from event_archive.postgres.lost import Backend, Mark, backend, has_committed, lives, mark
from event_archive.postgres.session import Connection, Session

_MOST_SECONDS = 30.0
_LOOK_SECONDS = 0.2


@dataclass(slots=True)
class Former:
    """What is not known of a run's session once its connection broke."""

    _backend: Backend | None = None
    _mark: Mark | None = None
    _count: Callable[[], None] | None = None

    def note(self, connection: Connection, count: Callable[[], None]) -> None:
        """Takes down a transaction just before its commit, and what counts what it landed once it has committed."""
        self._mark, self._count = mark(connection), count

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
            while _lives(session, self._backend) and time.monotonic() < until and not told_to_stop():
                time.sleep(_LOOK_SECONDS)
        with session.transaction("the session before") as connection:
            if self._count and self._mark and has_committed(connection, self._mark):
                self.committed()
            self._count = None
            self._backend = backend(connection)


def _lives(session: Session, former: Backend) -> bool:
    with session.transaction("the session before") as connection:
        return lives(connection, former)

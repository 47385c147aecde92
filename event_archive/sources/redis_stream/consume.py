"""A consumer of a stream, while Redis and PostgreSQL answer and while they are away.

Not here: the order in which entries are read and landed (``loop``), what it has done (``task``).
"""

import time

from event_archive.errors import BusyError, EventArchiveError, UnreachableError
from event_archive.sources.redis_stream.group import open_group
from event_archive.sources.redis_stream.loop import Loop
from event_archive.sources.redis_stream.task import Task, Totals
from event_archive.sources.runs import AWAY_SECONDS, RECONNECT_SECONDS, wait


class Consumer(Task):
    """A consumer of the stream."""

    def run(self) -> Totals:
        """Consumes until it is told to stop, or nothing is left.

        Raises:
            ConfigurationError: a setting is wrong, or Redis refuses.
            UnreachableError: Redis or PostgreSQL has not answered yet, for a minute; later both are waited for, but by
                one that is to drain the stream.
            RefusedError: PostgreSQL refuses.
            IntegrityError: the books do not balance.
        """
        self.totals.ended = "failed"
        try:
            while not self.is_stopped():
                try:
                    with open_group(self.settings) as group, self.settings.postgres.session() as session:
                        Loop(self, session, group).run()
                except (UnreachableError, BusyError) as error:
                    self._wait_after(error)
            self.totals.ended = "complete" if self._is_drained else "interrupted"
        finally:
            self.totals.seconds = time.monotonic() - self._began
        return self.totals

    def _wait_after(self, error: EventArchiveError) -> None:
        """Waits before both are connected to again; nothing is read, acknowledged or rejected meanwhile.

        Raises:
            EventArchiveError: the same, where nothing has worked yet, or somebody waits for the end.
        """
        waited = self._attempt == len(RECONNECT_SECONDS) or self.away_seconds > AWAY_SECONDS
        if waited and (self._drain or not self.has_worked):
            raise error
        self.went_away(error)
        wait(RECONNECT_SECONDS[min(self._attempt, len(RECONNECT_SECONDS) - 1)], self.is_stopped)
        self._attempt += 1

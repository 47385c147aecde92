"""The ingestion of an API: what a run is told, what it says at its end, and a database that goes away in its midst.

Not here: who fetches and who lands (``crew``).
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from event_archive.config.sources import ApiSettings
from event_archive.domain.dataset import Dataset
from event_archive.domain.days import Retention
from event_archive.errors import EventArchiveError, UnreachableError
from event_archive.sources.http_api.clock import Clock, SystemClock
from event_archive.sources.http_api.records import target
from event_archive.sources.landing import Counts
from event_archive.sources.merge import Target

_RECONNECT_SECONDS = (1, 2, 4, 8, 15, 30)
"""Between attempts to reach a database that went away; after that the run ends."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Totals:
    """What an ingestion did.

    Attributes:
        counts: what became of the events.
        pages: pages that arrived.
        seconds: how long it took.
        expected: how many events there are, where the API tells.
        watermark: events up to this time have arrived; None where none has.
        restarts: passes that began again, since the API did not know a cursor any more.
        ended: ``complete``, or why not: ``interrupted``, ``budget``, ``failed``.
        failures: why shards were not read to their end.
    """

    counts: Counts = field(default_factory=Counts)
    pages: int = 0
    seconds: float = 0.0
    expected: int | None = None
    watermark: datetime | None = None
    restarts: int = 0
    ended: str = "complete"
    failures: list[EventArchiveError] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.counts.taken / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Ingestion:
    """A run over an API.

    Attributes:
        settings: of the API and the database.
        datasets: what is archived; of the table that events land in, it says which of them are too old.
        told_to_stop: asked several times a second.
        clock: what waits and windows go by.
        progress: told now and then how far it is.
        totals: what it has done.
    """

    settings: ApiSettings
    datasets: Iterable[Dataset] = ()
    told_to_stop: Callable[[], bool] = lambda: False
    clock: Clock = field(default_factory=SystemClock)
    progress: Callable[[Totals], None] = lambda _totals: None
    totals: Totals = field(default_factory=Totals)

    def run(self) -> Totals:
        """Takes in all there is. What of it failed is in ``failures``, whatever is raised.

        Raises:
            UnreachableError: the database is away for longer than a run waits.
            RefusedError: the database refuses, or too many events were rejected.
            BusyError: others kept locks for too long.
            IntegrityError: the books do not balance.
        """
        from event_archive.sources.http_api.crew import Crew

        began = time.monotonic()
        attempt = 0
        try:
            while True:
                landed = self.totals.pages
                try:
                    with self.settings.postgres.session() as session:
                        Crew(self, session, began).work()
                    return self.totals
                except UnreachableError as away:
                    attempt = 0 if self.totals.pages > landed else attempt
                    if attempt == len(_RECONNECT_SECONDS) or self.told_to_stop():
                        raise
                    _log.warning("%s Nothing is fetched meanwhile.", away)
                    self._wait(_RECONNECT_SECONDS[attempt])
                    attempt += 1
        except EventArchiveError:
            self.totals.ended = "failed"
            raise
        finally:
            self.totals.seconds = time.monotonic() - began

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.told_to_stop():
            time.sleep(0.1)

    @property
    def retention(self) -> Retention | None:
        """How long the table keeps its rows; None where no dataset archives it."""
        return next((of.retention for of in self.datasets if of.table == self.target.table), None)

    @property
    def target(self) -> Target:
        """Where events land."""
        return target(self.settings.ingest_schema, self.settings.api_conflict)

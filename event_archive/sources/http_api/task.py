"""A run over an API: what it is told, and what it has done. Not here: who fetches and who lands (``crew``)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from event_archive.config.sources import ApiSettings
from event_archive.domain.dataset import Dataset
from event_archive.sources.http_api.clock import Clock, SystemClock
from event_archive.sources.http_api.records import target
from event_archive.sources.merge import Target
from event_archive.sources.runs import RunTotals


@dataclass(slots=True)
class Totals(RunTotals):
    """What an ingestion did; ``shared`` where another run has a part of it.

    Attributes:
        pages: pages that arrived.
        left: how many events are still to come, where the API tells, in the first pass over all of it.
        watermark: events up to this time have arrived; None where none has.
        restarts: passes that began again, since the API did not know a cursor any more, or deleted events before the
            page where the last run ended.
    """

    pages: int = 0
    left: int | None = None
    watermark: datetime | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Task:
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

    @property
    def target(self) -> Target:
        """Where events land."""
        return target(self.settings.ingest_schema, self.settings.api_conflict)

"""What a consumer of a stream is told, and what it has done. Not here: what it does."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from event_archive.config.sources import StreamSettings
from event_archive.domain.dataset import Dataset
from event_archive.errors import EventArchiveError, UnreachableError
from event_archive.sources.landing import Counts
from event_archive.sources.redis_stream.devices import Devices
from event_archive.sources.redis_stream.group import StreamAwayError
from event_archive.sources.redis_stream.metrics import Metrics
from event_archive.sources.redis_stream.records import Position
from event_archive.sources.runs import RunTotals

_PROGRESS_SECONDS = 300.0

_log = logging.getLogger(__name__)

Service = Literal["redis", "postgres"]


@dataclass(slots=True)
class Totals(RunTotals):
    """What a consumer did; ``complete`` only where it was to drain the stream.

    Attributes:
        batches: transactions.
        claimed: entries taken over from other consumers.
        reconnects: how often Redis or PostgreSQL was away and came back.
        groups_recreated: how often the consumer group was gone.
        pending: entries that the group has not acknowledged at the end, as those of a consumer that died; None where
            the end came otherwise than in order.
    """

    batches: int = 0
    claimed: int = 0
    reconnects: int = 0
    groups_recreated: int = 0
    pending: int | None = None


class Task:
    """A consumer of the stream.

    Attributes:
        settings: of the stream and the database.
        datasets: what is archived; of the table that positions land in, it says which of them are too old.
        totals: what it has done.
        metrics: the same, for Prometheus.
        devices: those that were heard of last.
        outlived: how often entries had been delivered before each was taken in alone, where that ended with Redis away.
        has_worked: whether Redis and PostgreSQL have both answered yet.
    """

    def __init__(
        self,
        settings: StreamSettings,
        datasets: Iterable[Dataset] = (),
        *,
        drain: bool = False,
        told_to_stop: Callable[[], bool] = lambda: False,
        metrics: Metrics | None = None,
        progress: Callable[[Totals], None] = lambda _totals: None,
    ) -> None:
        """Connects to nothing yet.

        Args:
            settings: of the stream and the database.
            datasets: what is archived.
            drain: ends once nothing is left to read.
            told_to_stop: asked at least once a second, but for the time that a batch takes.
            metrics: where it counts.
            progress: told every five minutes what has been done.
        """
        self.settings, self.datasets = settings, datasets
        self.totals = Totals()
        self.metrics = metrics or Metrics(settings.stream_key, settings.stream_group)
        self.metrics.away = {"redis": "nothing has been read yet."}
        self.outlived: dict[bytes, int] = {}
        self.devices = Devices(settings.stream_max_devices)
        self._drain, self._told_to_stop, self._progress = drain, told_to_stop, progress
        self._is_drained = False
        self._began = self._told = time.monotonic()
        self._away_since: dict[Service, float] = {}
        self._lost: set[Service] = set()
        self._attempt = 0
        self.has_worked = False

    def is_stopped(self) -> bool:
        """Whether nothing more is to be read; asked wherever the work goes on."""
        self.metrics.moved()
        return self._is_drained or self._told_to_stop()

    @property
    def away_seconds(self) -> float:
        """For how long Redis or PostgreSQL has been away."""
        now = time.monotonic()
        return now - min(self._away_since.values(), default=now)

    def found_nothing(self) -> None:
        """No entry waits to be read."""
        self._is_drained = self._drain

    def went_away(self, error: EventArchiveError) -> None:
        """Redis or PostgreSQL does not answer, or does not let it go on."""
        service: Service = "redis" if isinstance(error, StreamAwayError) else "postgres"
        if service not in self._away_since:
            _log.warning("%s Nothing is read meanwhile.", error)
            self._away_since[service] = time.monotonic()
        if isinstance(error, UnreachableError):
            self._lost.add(service)
            self.metrics.away = {**self.metrics.away, service: str(error)}

    def turned(self) -> None:
        """The loop has gone round: Redis and PostgreSQL answer."""
        now = time.monotonic()
        if not self.has_worked:
            _log.info("%s: %s consumes", self.settings.stream_key, self.settings.consumer)
        self.has_worked, self._attempt = True, 0
        for service, since in self._away_since.items():
            words = "answers again" if service in self._lost else "lets it go on"
            _log.info("%s %s, after %.0f s", service, words, now - since)
        for service in self._lost:
            self.totals.reconnects += 1
            self.metrics.reconnected(service)
        self._away_since.clear()
        self._lost.clear()
        self.metrics.away = {}
        if now - self._told > _PROGRESS_SECONDS:
            self._told = now
            self.totals.seconds = now - self._began
            self._progress(self.totals)

    def landed(self, counts: Counts, positions: Iterable[Position], seconds_batch: float, seconds_write: float) -> None:
        """A batch is committed and acknowledged.

        Args:
            counts: what became of its entries.
            positions: of its rows.
            seconds_batch: from reading it to its acknowledgement.
            seconds_write: of its transaction.
        """
        self.totals.batches += 1
        self.totals.counts.add(counts)
        self.devices.saw(positions)
        self.metrics.batch(counts, seconds_batch, seconds_write)
        self.metrics.devices(len(self.devices))

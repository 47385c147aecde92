"""What a consumer tells Prometheus of itself: the metrics' names and meaning, and whether its loop still goes round.

Here: counting. Not here: how anybody reads it (``server``), where lag and pending entries come from (``state``).
"""

import time
from collections.abc import Mapping
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from event_archive.sources.landing import Counts

_PREFIX = "event_archive_stream"
_LABELS = ("stream", "group")
_OUTCOMES = tuple(name for name in Counts.__slots__ if name != "taken")
_SERVICES = ("redis", "postgres")
_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one consumer, in a registry of their own. Every method may be called from any thread.

    Attributes:
        away: why nothing is read, by the service that does not answer or cannot serve.

    Args:
        stream: the stream's key, a label of each metric.
        group: the consumer group, likewise.
    """

    def __init__(self, stream: str, group: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._of_stream = {"stream": stream, "group": group}
        self._consumed = self._counter("entries_consumed", "Entries that were read and committed.")
        entries = self._counters("entries", "What became of the entries that were consumed.", "outcome")
        self._entries = {name: entries.labels(**self._of_stream, outcome=name) for name in _OUTCOMES}
        self._batch = self._histogram("batch_seconds", "From reading a batch to its acknowledgement.")
        self._write = self._histogram("write_seconds", "The transaction of a batch.")
        reconnects = self._counters("reconnects", "Connections that were lost and made again.", "service")
        self._reconnects = {name: reconnects.labels(**self._of_stream, service=name) for name in _SERVICES}
        self._groups_recreated = self._counter("groups_recreated", "Times that the group was gone and was made again.")
        self._devices = self._gauge("devices", "Devices that this process remembers.")
        self._lag_entries = self._gauge(
            "lag_entries", "Entries that the group has not read yet; NaN: Redis cannot say."
        )
        self._lag = self._gauge("lag_seconds", "Age of the oldest entry that the group has not read yet; 0: none.")
        self._pending = self._gauge("pending_entries", "Entries that the group has read and not acknowledged yet.")
        self._oldest = self._gauge("pending_oldest_seconds", "Age of the oldest entry not acknowledged yet; 0: none.")
        self._moved_at = time.monotonic()
        self.away: Mapping[str, str] = {}

    def batch(self, counts: Counts, seconds_batch: float, seconds_write: float) -> None:
        """A batch is committed, whether it could be acknowledged or not.

        Args:
            counts: what became of its entries.
            seconds_batch: from reading it until it was acknowledged.
            seconds_write: of its transaction.
        """
        self._consumed.inc(counts.taken)
        for outcome, counter in self._entries.items():
            counter.inc(getattr(counts, outcome))
        self._batch.observe(seconds_batch)
        self._write.observe(seconds_write)

    def reconnected(self, service: Literal["redis", "postgres"]) -> None:
        """A connection that was lost has been made again."""
        self._reconnects[service].inc()

    def group_recreated(self) -> None:
        """The consumer group was gone and has been made again."""
        self._groups_recreated.inc()

    def devices(self, number: int) -> None:
        """So many devices are remembered."""
        self._devices.set(number)

    def moved(self) -> None:
        """The loop goes round: called at each turn, one that read nothing or only waits for a service included."""
        self._moved_at = time.monotonic()

    @property
    def still_seconds(self) -> float:
        """How long ago the loop last went round."""
        return time.monotonic() - self._moved_at

    def state(
        self,
        lag_entries: float | None = None,
        lag_seconds: float | None = None,
        pending: float | None = None,
        oldest_pending_seconds: float | None = None,
    ) -> None:
        """The group as it is; None is not known. The server looks at each scrape: the loop need not call this."""
        gauges = (self._lag_entries, self._lag, self._pending, self._oldest)
        for gauge, value in zip(gauges, (lag_entries, lag_seconds, pending, oldest_pending_seconds), strict=True):
            gauge.set(float("nan") if value is None else value)

    def text(self) -> bytes:
        """All of it, in the text format of Prometheus."""
        return generate_latest(self._registry)

    def _counters(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, [*_LABELS, *labels], registry=self._registry)

    def _counter(self, name: str, text: str) -> Counter:
        return self._counters(name, text).labels(**self._of_stream)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", text, _LABELS, registry=self._registry).labels(**self._of_stream)

    def _histogram(self, name: str, text: str) -> Histogram:
        metric = Histogram(f"{_PREFIX}_{name}", text, _LABELS, registry=self._registry, buckets=_BUCKETS_SECONDS)
        return metric.labels(**self._of_stream)

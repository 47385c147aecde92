"""Which events of aged days are left out: those that have arrived before, and may be archived and purged by now.

Not here: which days are aged (``runs``).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from event_archive.domain.dataset import Dataset, TableName
from event_archive.postgres.session import Connection
from event_archive.sources.http_api.positions import Position
from event_archive.sources.http_api.watermarks import reached
from event_archive.sources.runs import NONE_AGED, AgedTimes, DayAgedError, aged_by_now

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class AgedEvents:
    """What is known of them in a run.

    Attributes:
        datasets: what is archived.
        table: where events land.
        times: which events are of aged days.
        arrived: from when to when events had arrived otherwise: in windows, where there are none any more, or by a
            chain of cursors, where there are windows now.
    """

    datasets: Iterable[Dataset]
    table: TableName
    times: AgedTimes = NONE_AGED
    arrived: tuple[tuple[datetime, datetime], ...] = ()

    def look(self, connection: Connection) -> None:
        """Looks which days are aged."""
        self.times = aged_by_now(connection, self.datasets, self.table)

    def check(self, connection: Connection) -> None:
        """Looks again; raises DayAgedError where another one is."""
        before = self.times
        self.look(connection)
        if self.times != before:
            raise DayAgedError

    def arrived_in_windows(self, windows: Sequence[Position]) -> None:
        """Events had arrived in some windows; those from before the first one were never asked for."""
        self.arrived = tuple((of.begins or _FIRST, of.watermark) for of in windows if of.passes and of.watermark)
        if until := reached(windows, ()):
            self.arrived += ((min(filter(None, (of.begins for of in windows)), default=_FIRST), until),)

    def arrived_by_chain(self, whole: Position) -> None:
        """Events had arrived by a chain of cursors; where they come in no order, it has no watermark, and all had."""
        # That of a first pass that is not at its end may yet be contradicted.
        self.arrived = ((_FIRST, whole.watermark or _LAST),) if whole.passes else ()

    def too_old(self, position: Position) -> Callable[[datetime], bool]:
        """Whether an event is left out, by its time; in a first pass over a shard only what had arrived otherwise."""
        aged, arrived = self.times, self.arrived
        if not (position.passes or arrived):
            return lambda _instant: False
        if position.passes:
            return lambda instant: instant in aged
        return lambda instant: instant in aged and any(since <= instant <= until for since, until in arrived)

"""In which order an API gives its events, as far as its pages show. Not here: what follows from it (``shards``)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, pairwise


@dataclass(slots=True)
class Order:
    """In which order a pass gives its events, as far as this process has seen it.

    Attributes:
        rising: an older event came before a newer one.
        falling: a newer one came before an older one.
        climbs: no page's newest event is older than that of the page before.
        strays: an event came after one that is newer by more than the overlap.
        returns: one came after one that is older by more than that.
        newest: of the last page that had any.
        highest: the newest of all.
        lowest: the oldest that was the newest of a page.
        first: the time of the first event.
        last_page: the times of the last page that had any event.
    """

    rising: bool = False
    falling: bool = False
    climbs: bool = True
    strays: bool = False
    returns: bool = False
    newest: datetime | None = None
    highest: datetime | None = None
    lowest: datetime | None = None
    first: datetime | None = None
    last_page: frozenset[datetime] = frozenset()

    def see(self, times: Sequence[datetime], overlap: timedelta) -> None:
        """Looks at a page. Of two pages the newest events are compared, since some may stand on both.

        An event whose time is that of none of the page before stands on this one alone, and is compared with those.
        """
        if not times:
            return
        newest, self.first = max(times), self.first or times[0]
        alone = {*times} - self.last_page if self.last_page else set()
        steps = [*pairwise(times), (self.newest or newest, newest)]
        self.rising = self.rising or any(one < other for one, other in steps)
        self.falling = (
            self.falling
            or any(one > other for one, other in steps)
            or any(one < steps[-1][0] - overlap for one in alone)
        )
        self.climbs = self.climbs and steps[-1][0] <= newest
        if self.falling and not self.strays:
            so_far = accumulate([self.highest or times[0], *times], max)
            self.strays = any(one < top - overlap for one, top in zip(times, so_far, strict=False))
        self.lowest = min(self.lowest or newest, newest)
        if self.falling and not self.returns:
            lows = accumulate(times, min)
            oldest_before = min(self.last_page, default=newest)
            self.returns = (
                newest > self.lowest + overlap
                or any(one > low + overlap for one, low in zip(times, lows, strict=True))
                or any(one > oldest_before + overlap for one in alone)
            )
        self.newest, self.highest = newest, max(self.highest or newest, newest)
        self.last_page = frozenset(times)

    @property
    def ascends(self) -> bool:
        """Whether it is from the oldest event to the newest."""
        return self.rising and not self.falling

    def has_ascended(self, overlap: timedelta) -> bool:
        """Whether it surely is so: events that become visible late may seem to be, where the newest come first."""
        return bool(self.ascends and self.first and self.highest and self.highest > self.first + overlap)

    @property
    def descends(self) -> bool:
        """Whether it is from the newest event to the oldest."""
        return self.falling and not self.rising

"""What a page does to the position of its shard. Not here: how positions are stored, how pages come."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

from event_archive.errors import RefusedError
from event_archive.sources.http_api.positions import Position, split
from event_archive.sources.http_api.walking import Fetched, Start

_SPLIT_ABOVE_PAGES, _PAGES_OF_A_PART, _MOST_PARTS = 20, 10, 8
_RESTARTS_WITHOUT_PROGRESS = 2
_FEWEST_TO_TELL_THE_ORDER = 3


@dataclass(slots=True)
class Shard:
    """A shard that this process reads.

    Attributes:
        position: as it was committed last.
        began: when the present pass began, by this machine's clock.
        filtered: whether the API can be asked for a window of time.
        overlap: how far behind a watermark events may still become visible.
        ascending: so far, the pass went from older events to newer ones.
        pages: of the present pass.
        enough: no further page of the pass is wanted.
        has_to_look_again: newer events may have arrived above the pass, which went from the newest to the oldest.
    """

    position: Position
    began: datetime
    filtered: bool
    overlap: timedelta
    ascending: bool = True
    pages: int = 0
    enough: bool = False
    has_to_look_again: bool = False
    _newest_at_first: datetime | None = None
    _furthest: int = 0
    _vain: int = 0

    @property
    def is_window(self) -> bool:
        """Whether it is a window of time."""
        return self.position.upper is not None

    def start(self) -> Start:
        """Where its pass begins."""
        return Start(self.position.cursor, self.position.lower, self.position.upper)

    def begin(self, now: datetime, since: datetime | None) -> None:
        """Begins a pass, or goes on with the one that the position's cursor is in the midst of.

        Args:
            now: this machine's clock.
            since: from when on events are wanted, where none has arrived.
        """
        self.began, self.pages, self.ascending = now, 0, True
        self.enough = self.has_to_look_again = False
        self._newest_at_first = None
        if self.position.cursor is not None or self.is_window:
            return
        watermark = self.position.watermark
        lower = (watermark - self.overlap if watermark else since) if self.filtered else None
        self.position = replace(self.position, lower=lower, ceiling=None)

    def restart(self, now: datetime, since: datetime | None, url: str) -> None:
        """Begins again, since the API does not know the cursor any more: at the watermark, else at the beginning.

        Raises:
            RefusedError: it got no further than before, twice.
        """
        self._vain = 0 if self.pages > self._furthest else self._vain + 1
        self._furthest = max(self._furthest, self.pages)
        if self._vain == _RESTARTS_WITHOUT_PROGRESS:
            raise RefusedError(
                f"{url} does not know its cursors any more before a pass is at its end, and begins again without "
                f"getting further than {self._furthest} pages. What arrived is kept. Raise API_PAGE_LIMIT, or ask for "
                "windows of time (API_SHARD, API_TIME_FILTER) where the API has them."
            )
        self.position = replace(self.position, cursor=None, expires=None)
        self.begin(now, since)

    def after(self, fetched: Fetched, times: Sequence[datetime], now: datetime) -> Position:
        """The position behind a page.

        Args:
            fetched: the page.
            times: of its events, in their order.
            now: this machine's clock.
        """
        before = replace(self.position, events=self.position.events + len(fetched.page.events))
        self.pages += 1
        if fetched.first and times:
            self._newest_at_first = max(times)
            if _is_descending(times) and not self.is_window:
                before = replace(before, ceiling=times[0])
        self.ascending = self.ascending and all(one <= other for one, other in pairwise(times))
        floor = before.watermark - self.overlap if before.watermark and before.ceiling else None
        reached = floor is not None and _is_descending(times) and times[-1] < floor
        if fetched.next is None or reached:
            self.enough = True
            return self._complete(before, fetched, times)
        expires_seconds = fetched.page.expires_seconds
        return replace(
            before,
            cursor=fetched.next,
            expires=None if expires_seconds is None else now + timedelta(seconds=expires_seconds),
            watermark=_latest(before.watermark, times) if self.ascending else before.watermark,
        )

    def _complete(self, before: Position, fetched: Fetched, times: Sequence[datetime]) -> Position:
        """The position at the end of a pass."""
        passes = before.passes + (not self.is_window or self._is_settled(before))
        self.has_to_look_again = before.ceiling is not None and self.pages > 1
        if self.ascending:
            # Where only newer events follow, the next pass goes on at the last page.
            goes_on = not self.filtered and not self.is_window
            cursor, watermark = fetched.asked_by if goes_on else None, _latest(before.watermark, times)
        else:
            newest = before.ceiling or self._newest_at_first
            cursor, watermark = None, _latest(before.watermark, [newest] if newest else [])
        return replace(before, cursor=cursor, expires=None, watermark=watermark, ceiling=None, passes=passes)

    def _is_settled(self, position: Position) -> bool:
        """Whether nothing becomes visible any more in a window, however late."""
        return position.upper is not None and self.began >= position.upper + self.overlap

    def parts(self, fetched: Fetched, times: Sequence[datetime]) -> list[Position]:
        """What a dense window is split into at its first page: the part that was read, and the rest; else nothing."""
        position = self.position
        if not (position.lower and position.upper and fetched.first and fetched.next and len(set(times)) > 1):
            return []
        newest_first = _is_descending(times)
        if not (self.ascending or newest_first):
            return []
        pages = (position.upper - position.lower) / abs(times[-1] - times[0])
        if fetched.page.total is not None:
            pages = fetched.page.total / len(fetched.page.events)
        if pages <= _SPLIT_ABOVE_PAGES:
            return []
        rest = split(position, times[-1], min(_MOST_PARTS, int(pages / _PAGES_OF_A_PART)), newest_first=newest_first)
        edge = times[-1] + timedelta(microseconds=1) if newest_first else times[-1]
        read = Position.window(edge, position.upper) if newest_first else Position.window(position.lower, edge)
        events = len(fetched.page.events)
        return [replace(read, passes=int(self._is_settled(read)), events=events, watermark=max(times)), *rest]


def _is_descending(times: Sequence[datetime]) -> bool:
    return len(set(times)) >= _FEWEST_TO_TELL_THE_ORDER and all(one >= other for one, other in pairwise(times))


def _latest(watermark: datetime | None, times: Sequence[datetime]) -> datetime | None:
    return max([*times, *([watermark] if watermark else [])], default=None)

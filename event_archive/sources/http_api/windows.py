"""The windows of time that an API is read in: which there are, and what a dense one is split into.

Not here: how far each was read (``positions``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice, pairwise

from event_archive.domain.days import iso
from event_archive.errors import ConfigurationError
from event_archive.sources.http_api.order import Order
from event_archive.sources.http_api.positions import Position
from event_archive.sources.http_api.walking import Fetched

_MOST_WINDOWS = 20_000
"""At once: each is a request, and a row of ``cursor_state``."""
_SPLIT_ABOVE_PAGES, _PAGES_OF_A_PART, _MOST_PARTS = 20, 10, 8


def new_windows(known: list[Position], start: datetime, now: datetime, length: timedelta) -> list[Position]:
    """The windows up to ``now`` that no position stands for yet.

    Args:
        known: the positions there are.
        start: of the first window.
        now: the last window holds it.
        length: of a window.

    Raises:
        ConfigurationError: they are too many.
    """
    new = list(islice(_windows(known, start, now, length), _MOST_WINDOWS + 1))
    if len(new) > _MOST_WINDOWS:
        raise ConfigurationError(
            f"API_SHARD makes more than {_MOST_WINDOWS} windows of {length} since {iso(new[0].lower or start)}: "
            "choose longer ones, or a later API_START."
        )
    return new


def _windows(known: list[Position], start: datetime, now: datetime, length: timedelta) -> Iterator[Position]:
    lower = max((of.upper for of in known if of.upper), default=start)
    while lower <= now:
        yield Position.window(lower, lower + length)
        lower += length


def parts(position: Position, order: Order, fetched: Fetched, times: Sequence[datetime]) -> list[Position]:
    """What a dense window is split into at its first page: the part that page is of, and the rest; else nothing.

    That part is read once more, since further pages may hold others of its events: order is by more than one page.

    Args:
        position: of the window, behind the page.
        order: of its events.
        fetched: the page.
        times: of the page's events, in their order.
    """
    events = len(fetched.page.events)
    is_known = position.events > events
    if is_known or not (position.lower and position.upper and fetched.first and fetched.next):
        return []
    # An API that does not heed the bounds would be split for ever.
    is_in_order = order.ascends or order.descends
    if not is_in_order or min(times) < position.lower or max(times) >= position.upper:
        return []
    pages = (position.upper - position.lower) / abs(times[-1] - times[0])
    if fetched.page.total is not None:
        pages = fetched.page.total / events
    if pages <= _SPLIT_ABOVE_PAGES:
        return []
    count = min(_MOST_PARTS, int(pages / _PAGES_OF_A_PART))
    if order.descends:
        edge = times[-1] + timedelta(microseconds=1)
        read, rest = Position.window(edge, position.upper), _split(position.lower, edge, count)
    else:
        read, rest = Position.window(position.lower, times[-1]), _split(times[-1], position.upper, count)
    return [replace(read, events=events), *rest]


def _split(lower: datetime, upper: datetime, count: int) -> list[Position]:
    """So many windows of one length, but for those that have none."""
    step = (upper - lower) / count
    edges = [lower + step * part for part in range(count)] + [upper]
    return [Position.window(first, last) for first, last in pairwise(edges) if first < last]

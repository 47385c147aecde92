"""When a pass over an API without a filter by time reads all, whatever earlier ones have read.

Not here: what a pass does to a position (``shards``).
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from event_archive.sources.http_api.positions import NEVER, Position

_ALL = datetime(1, 1, 1, tzinfo=UTC)
"""The lower bound of such a pass, for whoever goes on with it."""


def reading_all(position: Position) -> Position:
    """The position at the beginning of a pass that reads all."""
    return replace(position.without_cursor, lower=_ALL)


def reads_all(position: Position) -> bool:
    """Whether the pass does."""
    return position.lower == _ALL and position.upper is None


def reading_all_if_due(position: Position, every: timedelta | None, now: datetime) -> Position:
    """The position, at the beginning of a pass that reads all where that is due, or where no other can tell its end.

    Args:
        position: where the next pass begins or goes on, after the first one.
        every: how often all is read, by stretches of time since 1970; None for never.
        now: this machine's clock.
    """
    if position.began is None and every is not None:
        last = position.last_read_all or NEVER
        # One that began by a clock that was ahead is of another stretch, too.
        if (now - NEVER) // every != (last - NEVER) // every:
            return replace(reading_all(position), last_read_all=now.replace(microsecond=0))
    # What the pass before began with is not known: this one would end by time alone.
    is_unmarked = position.cursor is None and position.watermark is not None and not position.known
    return reading_all(position) if is_unmarked else position


def is_in_doubt(position: Position, now: datetime) -> bool:
    """Whether all is to be read, once a UTC day, since nothing new has come yet where the order puts new events.

    What a device or an import sent in another order may have been all that the pass met that came to the order.
    """
    doubted = position.doubted
    # Without a watermark it is in no order, and read whole each time.
    return position.watermark is not None and doubted is not None and doubted.date() != now.date()

"""Up to which time the events of a shard have arrived. Not here: what else a page does to its position (``shards``)."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from event_archive.sources.http_api.positions import NEVER, Position

UNKNOWN = NEVER
"""The beginning of a pass that somebody else began by a clock that was ahead. Another pass follows it."""


def moved_on(position: Position, times: Sequence[datetime]) -> datetime | None:
    """The watermark, moved on by the times of events, but not past the beginning of the pass.

    What became visible since then may be older than events that have been read.
    """
    watermark, began = position.watermark, position.began
    newest = max(times, default=None)
    if newest is None or began is None or began == UNKNOWN:
        return watermark
    reached = min(newest, began)
    return reached if watermark is None else max(watermark, reached)


def uncontradicted(position: Position, times: Sequence[datetime], overlap: timedelta) -> datetime | None:
    """The watermark of a pass over a window of time, behind events of these times.

    That of the pass before where this one only seemed to go from older events to newer ones.
    """
    watermark, lower = position.watermark, position.lower
    if watermark is None or not times or min(times) >= watermark - overlap:
        return watermark
    # The first pass over a window begins where the window does.
    is_first = lower is None or (position.upper is not None and lower == position.begins)
    return None if lower is None or is_first else min(watermark, lower + overlap)


def is_settled(position: Position, overlap: timedelta) -> bool:
    """Whether nothing becomes visible any more in a window, however late, behind the pass that is at its end."""
    upper, began = position.upper, position.began
    return upper is not None and began is not None and began >= upper + overlap


def reached(positions: Iterable[Position], read: Collection[str]) -> datetime | None:
    """The time up to which events have arrived: of windows, no further than the first that was not read to its end.

    Args:
        positions: of all shards.
        read: the names of those that were read to their end, though more may become visible.
    """
    watermark = None
    for of in sorted(positions, key=lambda of: (of.lower is not None, of.lower)):
        watermark = max(filter(None, (watermark, of.watermark)), default=None)
        if not of.passes and of.shard not in read:
            break
    return watermark

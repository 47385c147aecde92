"""When a pass over an API without a filter by time reads all, whatever earlier ones have read.

What the first pass met, a device or an import may have sent in another order than what follows. So an order is in doubt
until a pass by it has brought something new where it puts new events; until then all is read once a UTC day. Not here:
what a pass does to a position (``shards``).
"""

from dataclasses import dataclass, replace
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


@dataclass(slots=True)
class Evidence:
    """What a pass shows of the order that its API is taken to be in.

    Attributes:
        begun: when this process began the pass, or went on with it, by our clock.
        is_whole: it is the first one, or reads all: it comes to an order, and does not go by one.
        went_on: it began at the last page of the pass before, as where the oldest events come first.
        went_back: it goes back to what the pass before began with, as where the newest come first.
        began_anew: it began with something else than that one.
        went_by_order: it ended as it had begun.
        has_gained: it has brought an event that was not known, or a newer form of one.
    """

    begun: datetime
    is_whole: bool
    went_on: bool
    went_back: bool
    began_anew: bool = False
    went_by_order: bool = False
    has_gained: bool = False

    @classmethod
    def of(cls, position: Position, begun: datetime) -> "Evidence":
        """Of a pass that begins, or is gone on with, at a position."""
        resumed, is_later = position.cursor is not None, position.passes > 0
        # Only a pass from the beginning says what it began with.
        went_on = resumed and is_later and not position.top
        went_back = bool(position.top if resumed else position.known)
        return cls(begun, reads_all(position) or not is_later, went_on, went_back)

    def ends(self, cursor: str | None) -> None:
        """The pass is at its end; with the cursor of its last page where the next one is to go on at that."""
        self.went_by_order = cursor is not None if self.went_on else cursor is None and self.went_back

    def doubted(self, before: Position) -> datetime | None:
        """Since when the order is in doubt, behind the pass: since that, if it has come to the order."""
        is_kept = not before.doubted if self.is_whole else self.went_by_order
        # By our clock, as it is compared with: that of the API may be of another day.
        return before.doubted if is_kept else self.begun.replace(microsecond=0)

    def proves(self, position: Position, *, at_end: bool) -> bool:
        """Whether the pass is the first to bring something new where the order puts new events.

        Newest first, that is before what the pass before began with.
        """
        is_by_order = self.went_by_order if at_end else self.went_on or self.went_back
        is_new = self.has_gained and (self.went_on or self.began_anew)
        return position.doubted is not None and is_by_order and is_new and not self.is_whole

    def leaves_in_doubt(self, position: Position, now: datetime) -> bool:
        """Whether all is to be read behind the pass."""
        doubted = position.doubted
        is_due = doubted is not None and doubted.date() != now.date()
        # Without a watermark it is in no order, and read whole each time.
        return is_due and position.watermark is not None and not self.is_whole

"""Whether a pass is where an earlier one has been: at the page that it goes on at, or where it may end.

An API that deletes events before that page moves it.

Not here: what a pass does where it is not (``shards``).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from psycopg import sql

from event_archive.postgres.session import Connection, Session, one
from event_archive.sources.http_api.pages import Page
from event_archive.sources.http_api.records import SOURCE, Raw, Reader, locator
from event_archive.sources.landing import Batch, in_transaction, rejected_table
from event_archive.sources.merge import Target

_ARRIVED = """
SELECT EXISTS (SELECT FROM {} WHERE id = %s AND timestamp >= %s)
       OR EXISTS (SELECT FROM {} WHERE source = %s AND locator = %s)
"""
_MOST_OF_TOP = 8


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class First:
    """The first of some events: one that cannot be a row is passed over, where another follows.

    An API may give the like of it again and again.

    Attributes:
        raw: the event.
        id: None where it has none that could be a row's.
        time: None where it has none, or all were passed over.
    """

    raw: Raw
    id: str | None
    time: datetime | None

    @classmethod
    def of(
        cls,
        events: Sequence[Raw],
        reader: Reader,
        now: datetime,
        too_old: Callable[[datetime], bool] = lambda _time: False,
    ) -> "First | None":
        """That of these events; None where there are none.

        Args:
            events: a page's.
            reader: of the API's events.
            now: this machine's clock.
            too_old: whether an event of a time is passed over, too: where it is left out, nobody knows it.
        """
        for raw in events:
            times = reader.read([raw], Batch(), now=now, too_old=lambda _time: False)
            if times and not too_old(times[0]):
                return cls(raw, reader.id_of(raw), times[0])
        return cls(events[0], reader.id_of(events[0]), None) if events else None

    @property
    def place(self) -> str:
        """Hashes of its id with its time, and of itself: by another field for the id, only the second stays."""
        itself = bytes(self.raw)
        return _hash(itself if self.id is None else f"{self.id} {self.time}".encode()) + _hash(itself)

    def is_at(self, place: str | None) -> bool:
        """Whether it is the event of a place. As places once were, they have the hash of an id alone."""
        if place is None:
            return False
        own = self.place
        if len(place) < len(own):
            return place == _hash(bytes(self.raw) if self.id is None else self.id.encode())
        return place[:16] == own[:16] or place[16:] == own[16:]


@dataclass(frozen=True, slots=True)
class Trace:
    """What a page is known by later, and what of earlier pages it shows.

    Attributes:
        events: of the page.
        reader: of the API's events.
        now: this machine's clock.
    """

    events: Sequence[Raw]
    reader: Reader
    now: datetime

    @property
    def place(self) -> str | None:
        """The place of its first event; None where it has none."""
        first = First.of(self.events, self.reader, self.now)
        return first.place if first else None

    @property
    def top(self) -> tuple[str, ...]:
        """The places of its first events: one may be deleted, or moved."""
        return tuple(of.place for of in islice(self._rows(), _MOST_OF_TOP))

    def shows(self, places: Sequence[str]) -> bool:
        """Whether an event of these places is on it."""
        return _are_among(self._rows(), places)

    def begins_with(self, places: Sequence[str]) -> bool:
        """Whether its first event is of one of these places."""
        return _are_among(islice(self._rows(), 1), places)

    def _rows(self) -> Iterator[First]:
        found = (First.of([raw], self.reader, self.now) for raw in self.events)
        return (of for of in found if of and of.time)


def _are_among(events: Iterable[First], places: Sequence[str]) -> bool:
    """Whether any of some events is of one of these places."""
    halves = {half for place in places for half in (place[:16], place[16:])}
    return any(own[:16] in halves or own[16:] in halves for own in (of.place for of in events))


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What arrived before, as a row or a rejected record. In an order that stays, so did all that comes before it.

    Every method raises UnreachableError, BusyError and RefusedError as ``in_transaction``.

    Attributes:
        session: with the database.
        target: where events land.
        reader: of the API's events.
    """

    session: Session
    target: Target
    reader: Reader

    def begin(self, page: Page, place: str | None, now: datetime, too_old: Callable[[datetime], bool]) -> bool:
        """Whether a page begins where another one did that was read, or with an event that arrived before.

        Args:
            page: any.
            place: of the event that the other page began with, where that is known.
            now: this machine's clock.
            too_old: whether an event of a time is left out.
        """
        first = First.of(page.events, self.reader, now)
        if first is None or first.is_at(place):
            return first is not None
        known = First.of(page.events, self.reader, now, too_old)
        return known is not None and self.have(known)

    def have(self, event: First) -> bool:
        """Whether an event arrived before. One that has a later time now was moved to behind others by the API."""
        names = (sql.Identifier(of.schema, of.name) for of in (self.target.table, rejected_table(self.target)))
        query, raw = sql.SQL(_ARRIVED).format(*names), bytes(event.raw)

        def look(connection: Connection) -> bool:
            return bool(one(connection, query, event.id, event.time, SOURCE, locator(raw))[0])

        return in_transaction(self.session, self.target, look)

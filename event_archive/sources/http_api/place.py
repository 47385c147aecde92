"""Whether the page that a pass goes on at is still one that was read: an API that deletes events before it moves it.

Not here: what a pass does where it is not (``shards``).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

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


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class First:
    """The first event of a page: one that cannot be a row is passed over, where another follows.

    An API may give the like of it again and again.

    Attributes:
        raw: the event.
        id_field: the field that its id was looked for in.
        id: None where it has none that could be a row's.
        time: None where it has none.
    """

    raw: Raw
    id_field: str
    id: str | None
    time: datetime | None

    @classmethod
    def of(
        cls, page: Page, reader: Reader, now: datetime, too_old: Callable[[datetime], bool] = lambda _time: False
    ) -> "First | None":
        """That of a page; None where it has no event.

        Args:
            page: of any events.
            reader: of the API's events.
            now: this machine's clock.
            too_old: whether an event of a time is passed over, too: where it is left out, nobody knows it.
        """
        for raw in page.events:
            times = reader.read([raw], Batch(), now=now, too_old=lambda _time: False)
            if times and not too_old(times[0]):
                return cls(raw, reader.id_field, reader.id_of(raw), times[0])
        if not page.events:
            return None
        return cls(page.events[0], reader.id_field, reader.id_of(page.events[0]), None)

    @property
    def place(self) -> str:
        """A hash of what it is known by, behind one of the field that its id was looked for in."""
        known_by = bytes(self.raw) if self.id is None else self.id.encode()
        return _hash(self.id_field.encode()) + _hash(known_by)

    def may_be(self, place: str | None) -> bool:
        """Whether it is the event of a place; of one whose id was looked for in another field, nobody can tell."""
        return place is not None and (place == self.place or not place.startswith(_hash(self.id_field.encode())))

    def has_arrived(self, session: Session, target: Target) -> bool:
        """Whether it has arrived before, as a row or a rejected record: in an order that stays, so have all before it.

        One that has a later time now was moved to behind others by the API.

        Args:
            session: with the database.
            target: where events land.

        Raises:
            UnreachableError, BusyError, RefusedError: as ``in_transaction``.
        """
        names = (sql.Identifier(of.schema, of.name) for of in (target.table, rejected_table(target)))
        query = sql.SQL(_ARRIVED).format(*names)

        def look(connection: Connection) -> bool:
            return bool(one(connection, query, self.id, self.time, SOURCE, locator(bytes(self.raw)))[0])

        return in_transaction(session, target, look)

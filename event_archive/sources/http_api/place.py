"""Whether the page that a pass goes on at is still one that was read: it moves where an API deletes events before it.

Not here: what a pass does where it is not (``shards``).
"""

from collections.abc import Callable
from datetime import datetime

from psycopg import sql

from event_archive.postgres.session import Session, one
from event_archive.sources.http_api.pages import Page
from event_archive.sources.http_api.records import SOURCE, Reader, locator
from event_archive.sources.landing import Batch, rejected_table
from event_archive.sources.merge import Target

_ARRIVED = "SELECT EXISTS (SELECT FROM {} WHERE id = %s) OR EXISTS (SELECT FROM {} WHERE source = %s AND locator = %s)"


def begins_with_known(
    session: Session, target: Target, reader: Reader, page: Page, *, now: datetime, too_old: Callable[[datetime], bool]
) -> bool:
    """Whether the first event of a page has arrived before: in an order that stays, so have all before it.

    One that cannot be a row is passed over, where another follows: an API may give the like of it again and again.

    Args:
        session: with the database.
        target: where events land.
        reader: of the API's events.
        page: of any events.
        now: this machine's clock.
        too_old: whether an event of a time counts as one that arrived.

    Raises:
        UnreachableError, BusyError, RefusedError: as ``Postgres.transaction``.
    """
    if not page.events:
        return False
    first = page.events[0]
    for raw in page.events:
        if times := reader.read([raw], Batch(), now=now, too_old=lambda _time: False):
            if too_old(times[0]):
                return True
            first = raw
            break
    names = (sql.Identifier(of.schema, of.name) for of in (target.table, rejected_table(target)))
    with session.transaction(str(target.table)) as connection:
        query = sql.SQL(_ARRIVED).format(*names)
        return bool(one(connection, query, reader.id_of(first), SOURCE, locator(bytes(first)))[0])

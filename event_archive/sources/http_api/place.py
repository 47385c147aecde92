"""Whether the page that a pass goes on at is still one that was read: it moves where an API deletes events before it.

Not here: what a pass does where it is not (``shards``).
"""

from psycopg import sql

from event_archive.postgres.session import Session, one
from event_archive.sources.http_api.pages import Page
from event_archive.sources.http_api.records import SOURCE, Reader, locator
from event_archive.sources.landing import rejected_table
from event_archive.sources.merge import Target

_AS_ROW = "SELECT EXISTS (SELECT FROM {} WHERE id = ANY (%s))"
_AS_REJECTED = "SELECT EXISTS (SELECT FROM {} WHERE source = %s AND locator = ANY (%s))"


def has_known(session: Session, target: Target, reader: Reader, page: Page) -> bool:
    """Whether an event of a page has arrived before, as a row or as a rejected record.

    Args:
        session: with the database.
        target: where events land.
        reader: of the API's events.
        page: of any events.

    Raises:
        UnreachableError, BusyError, RefusedError: as ``Postgres.transaction``.
    """
    rows, rejected = (sql.Identifier(of.schema, of.name) for of in (target.table, rejected_table(target)))
    with session.transaction(str(target.table)) as connection:
        if one(connection, sql.SQL(_AS_ROW).format(rows), reader.ids(page.events))[0]:
            return True
        locators = [locator(bytes(raw)) for raw in page.events]
        return bool(one(connection, sql.SQL(_AS_REJECTED).format(rejected), SOURCE, locators)[0])

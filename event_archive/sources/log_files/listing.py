"""Files that are there, written down: all of them once a day, between that those behind the last key.

Watermarks lose what turns up late, before them. So there is an overlap, and a full pass; and where a full pass finds
new files before the overlap, since keys of this bucket do not grow with time, the next pass is a full one too. Not
here: how a store lists.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice

from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive.postgres.session import Session
from event_archive.sources.log_files.ledger import Ledger
from event_archive.sources.log_files.stores import Found, Store

OVERLAP = 1000
"""Known files before the last key that are listed again."""
_AT_ONCE = 1000
_LONGEST_KEY_BYTES = 2400
"""Of what an index of PostgreSQL can hold, 2,704 bytes, the bucket, the ETag and an entry's number need a part."""

_log = logging.getLogger(__name__)


def list_files(store: Store, ledger: Ledger, listings: "Listings", told_to_stop: Callable[[], bool]) -> bool:
    """Writes down files that are new or have changed; False where it was stopped before the end.

    Raises:
        RefusedError, StoreAwayError: as ``Store.list``.
    """
    last_key, is_due, first_pass_at = listings.read()
    start = ledger.key_before(last_key, OVERLAP) if last_key else None
    full = is_due or start is None or not store.lists_after
    newest, again = last_key, False
    for files in _some(filter(_can_be_kept, store.list(None if full else start))):
        new, changing = ledger.discover(files)
        behind = first_pass_at and start is not None and store.lists_after and any(_before(key, start) for key in new)
        again = again or changing or bool(behind)
        newest = max([of.key for of in files] + ([newest] if newest else []), key=str.encode)
        if told_to_stop():
            return False
    if newest is None:
        # A misspelt prefix is as empty as one that nobody has written to yet.
        place = store.bucket if store.bucket == "file://" else f"{store.bucket}/"
        _log.warning("%s%s: there is no file, and never was one. Check LOGS_URL.", place, store.prefix)
    is_first = full and first_pass_at is None
    listings.save(newest, full=full, again=again, known_since=ledger.newest() if is_first else None)
    return True


def _can_be_kept(file: Found) -> bool:
    """Whether PostgreSQL can hold the key."""
    if "\0" in file.key:
        _log.warning("%r: Its key holds a NUL. It is left out.", file.key)
    elif len(file.key.encode()) > _LONGEST_KEY_BYTES:
        _log.warning("%s: Its key is longer than %d bytes. It is left out.", file.key, _LONGEST_KEY_BYTES)
    else:
        return True
    return False


def _some(files: Iterator[Found]) -> Iterator[list[Found]]:
    while some := list(islice(files, _AT_ONCE)):
        yield some


def _before(key: str, other: str) -> bool:
    """By bytes, as stores and the database order keys."""
    return key.encode() < other.encode()


class Listings:
    """``log_listing``: how far a prefix was listed."""

    def __init__(self, session: Session, table: TableName, bucket: str, prefix: str) -> None:
        """Takes the table, and whose row it is about."""
        self._session, self._table = session, table
        self._values = {"bucket": bucket, "prefix": prefix}

    def read(self) -> tuple[str | None, bool, datetime | None]:
        """The last key that was listed, whether a full pass is due, and when the first one came to its end."""
        query = sql.SQL(
            # What lies ahead was written by a clock that was wrong.
            "SELECT last_key, coalesce(full_pass_at NOT BETWEEN pg_catalog.now() - interval '1 day' AND "
            "pg_catalog.now() + interval '1 minute', true), first_pass_at "
            "FROM {} WHERE bucket = %(bucket)s AND prefix = %(prefix)s"
        ).format(self._name)
        with self._session.transaction(str(self._table)) as connection:
            row = connection.execute(query, self._values).fetchone()
        return (row[0], row[1], row[2]) if row else (None, True, None)

    def save(self, last_key: str | None, *, full: bool, again: bool, known_since: datetime | None) -> None:
        """Writes down that a pass came to its end; a place that never had a file has not been passed over.

        Args:
            last_key: the last key that there was.
            full: all files were listed.
            again: the next pass has to list all files.
            known_since: when the newest file of the first full pass was listed, which is no later than its end, even if
                the database's clock was set back meanwhile.
        """
        query = sql.SQL(
            "INSERT INTO {} AS listing (bucket, prefix, last_key, full_pass_at, first_pass_at) VALUES "
            "(%(bucket)s, %(prefix)s, %(key)s, CASE WHEN %(full)s AND NOT %(again)s THEN pg_catalog.now() END, "
            "CASE WHEN %(full)s AND %(key)s::text IS NOT NULL THEN GREATEST(pg_catalog.now(), %(known_since)s) END) "
            "ON CONFLICT (bucket, prefix) DO UPDATE SET last_key = GREATEST(excluded.last_key, listing.last_key), "
            "full_pass_at = CASE WHEN %(again)s THEN NULL WHEN %(full)s THEN pg_catalog.now() "
            "ELSE listing.full_pass_at END, "
            "first_pass_at = coalesce(listing.first_pass_at, excluded.first_pass_at), updated_at = pg_catalog.now()"
        ).format(self._name)
        values = self._values | {"key": last_key, "full": full, "again": again, "known_since": known_since}
        with self._session.transaction(str(self._table)) as connection:
            connection.execute(query, values)

    @property
    def _name(self) -> sql.Identifier:
        return sql.Identifier(self._table.schema, self._table.name)

"""Records that could not be rows: listed, told about, and tried again. Not here: why a record is rejected.

Their bytes stay in the database: what is told of one names its fields and their kinds, never a value.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, LiteralString

from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive.errors import ConfigurationError
from event_archive.postgres.catalogue.relations import relation
from event_archive.postgres.pins import own_search_path
from event_archive.postgres.session import Connection, Session
from event_archive.sources.landing import Batch, Counts, in_transaction, land_in
from event_archive.sources.merge import Target

_AT_ONCE, _BYTES_AT_ONCE = 1000, 8 * 1024 * 1024
_LIST = """
SELECT id, source, locator, reason, pg_catalog.octet_length(raw), rejected_at
FROM {} WHERE source = coalesce(%(source)s, source) ORDER BY id DESC LIMIT %(most)s
"""
_BY_REASON = """
SELECT source, reason, pg_catalog.count(*) FROM {} WHERE source = coalesce(%(source)s, source)
GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
"""
_ONE = "SELECT id, source, locator, reason, pg_catalog.octet_length(raw), rejected_at, raw FROM {} WHERE id = %s"
# One record at least.
_SOME = """
SELECT id, locator, raw FROM (
  SELECT id, locator, raw,
    pg_catalog.sum(pg_catalog.octet_length(raw)) OVER (ORDER BY id) - pg_catalog.octet_length(raw) AS bytes_before
  FROM (SELECT id, locator, raw FROM {} WHERE source = %s AND id > %s AND id <= %s ORDER BY id LIMIT %s) AS next
) AS sized WHERE bytes_before < %s ORDER BY id
"""
_DELETE = "DELETE FROM {} WHERE id OPERATOR(pg_catalog.=) ANY (%s) RETURNING id, locator"
_STILL = "SELECT locator FROM {} WHERE source = %s AND locator = ANY (%s)"


_ANOTHERS_LOCATOR = re.compile("#[0-9a-f]{32}$")
_Row = tuple[int, str, bytes]
"""Number, locator and bytes of a rejected record."""


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record that could not be a row.

    Attributes:
        id: its number.
        source: where it came from: ``api``, ``logs``, ``stream``.
        locator: where it was found there.
        reason: why it is no row.
        size_bytes: how long it is.
        at: when it was rejected, UTC.
    """

    id: int
    source: str
    locator: str
    reason: str
    size_bytes: int
    at: datetime


def _keeps_no_books(_connection: Connection, _locators: Sequence[str]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Replay:
    """How a source tries its rejected records again.

    Attributes:
        source: whose they are.
        target: where they land.
        read: reads some records, each a locator and its bytes, in the transaction that lands them; returns what lands,
            and the indexes of the records in it. What it rejects stays where it is.
        landed: told the locators of records that are rows by now, in that transaction.
    """

    source: str
    target: Target
    read: Callable[[Connection, Sequence[tuple[str, bytes]]], tuple[Batch, list[int]]]
    landed: Callable[[Connection, Sequence[str]], None] = _keeps_no_books


@dataclass(frozen=True, slots=True)
class RejectedRecords:
    """The rejected records of a database.

    Attributes:
        session: with the database.
        table: where they are.
    """

    session: Session
    table: TableName

    def newest(self, source: str | None, most: int) -> list[RejectedRecord]:
        """Those of a source, or of all, the newest first."""
        return [RejectedRecord(*row) for row in self._rows(_LIST, {"source": source, "most": most})]

    def by_reason(self, source: str | None) -> list[tuple[str, str, int]]:
        """How many there are of each source and reason, the most frequent first."""
        return [(name, reason, number) for name, reason, number in self._rows(_BY_REASON, {"source": source})]

    def explained(self, number: int) -> tuple[RejectedRecord, str]:
        """One of them, and what it looks like, without a value of it.

        Raises:
            ConfigurationError: there is no such record.
        """
        rows = self._rows(_ONE, (number,))
        if not rows:
            raise ConfigurationError(f"There is no rejected record {number} in {self.table}.")
        *told, raw = rows[0]
        return RejectedRecord(*told), _look(bytes(raw))

    def replay(self, of: Replay) -> Counts:
        """Tries the records of a source again; those that are rows by now land, and are rejected no more."""
        newest = self.newest(of.source, 1)
        # Those that PostgreSQL refuses again come back, with numbers of their own.
        counts, last, end = Counts(), 0, newest[0].id if newest else 0
        while rows := self._rows(_SOME, (of.source, last, end, _AT_ONCE, _BYTES_AT_ONCE)):
            last = rows[-1][0]
            counts.add(in_transaction(self.session, of.target, partial(self._replay, of, rows)))
        return counts

    def _replay(self, of: Replay, rows: Sequence[_Row], connection: Connection) -> Counts:
        batch, landing = _read(of, connection, rows)
        if not landing:
            return Counts()
        numbers = [rows[index][0] for index in landing]
        with own_search_path(connection):
            taken: dict[int, str] = dict(connection.execute(self._sql(_DELETE), (numbers,)).fetchall())
        if len(taken) < len(numbers):
            # Another replay took the others just now.
            batch, _ = _read(of, connection, [row for row in rows if row[0] in taken])
        counts = land_in(connection, of.target, of.source, batch)
        locators = {*taken.values()}
        still = {locator for (locator,) in connection.execute(self._sql(_STILL), (of.source, [*locators])).fetchall()}
        of.landed(connection, sorted(map(first_locator, locators - still)))
        return counts

    def _rows(self, query: LiteralString, values: Sequence[object] | Mapping[str, object]) -> list[tuple[Any, ...]]:
        with self.session.transaction(str(self.table)) as connection:
            if relation(connection, self.table.schema, self.table.name) is None:
                return []
            return connection.execute(self._sql(query), values).fetchall()

    def _sql(self, query: LiteralString) -> sql.Composed:
        return sql.SQL(query).format(sql.Identifier(self.table.schema, self.table.name))


def _read(of: Replay, connection: Connection, rows: Sequence[_Row]) -> tuple[Batch, list[int]]:
    return of.read(connection, [(first_locator(locator), bytes(raw)) for _, locator, raw in rows])


def first_locator(locator: str) -> str:
    """The source's locator of a rejected record, also where other bytes were rejected under it before."""
    return _ANOTHERS_LOCATOR.sub("", locator)


def _look(raw: bytes) -> str:
    """Which fields a record has, and of which kinds; where it is none, how it begins by kind."""
    try:
        if not raw:
            return "None of its bytes is kept."
        value = json.loads(raw.decode(errors="replace"))
    except (ValueError, RecursionError):
        return "It is no JSON."
    if not isinstance(value, dict):
        return f"It is {_kind(value)}."
    # Half a surrogate pair cannot be written anywhere.
    names = {name: name[:63].encode(errors="replace").decode() for name in list(value)[:50]}
    fields = ", ".join(f"{shown} ({_kind(value[name])})" for name, shown in names.items())
    return f"Its fields: {fields}." if fields else "It is an object without fields."


def _kind(value: object) -> str:
    """What JSON calls a value."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return kinds[type(value)]

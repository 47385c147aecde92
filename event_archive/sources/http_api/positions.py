"""How far each shard of an API was read, in ``cursor_state``: read, claimed, and written with the rows it stands for.

A shard is the whole of an API, or a window of time. Not here: what moves a position, which windows there are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive.domain.days import iso
from event_archive.postgres.session import Connection, Session

_OF_SOURCE = sql.SQL('source = %s COLLATE pg_catalog."C"')
_OF_SHARD = sql.SQL('{} AND shard = %s COLLATE pg_catalog."C"').format(_OF_SOURCE)
_READ = """
SELECT shard, cursor_value, cursor_expires_at, lower_bound, upper_bound, watermark, ceiling, pass_began,
       passes, events_ingested
FROM {} WHERE {} ORDER BY lower_bound, shard
"""
# Not by ON CONFLICT: a table of a former version has an index that may have been made under another order of texts.
_SAVE = """
UPDATE {} SET cursor_value = %s, cursor_expires_at = %s, lower_bound = %s, upper_bound = %s, watermark = %s,
  ceiling = %s, pass_began = %s, passes = %s, events_ingested = %s, updated_at = pg_catalog.clock_timestamp()
WHERE {}
"""
_SAVE_FIRST = """
INSERT INTO {} (cursor_value, cursor_expires_at, lower_bound, upper_bound, watermark, ceiling, pass_began, passes,
                events_ingested, source, shard)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_REMOVE = "DELETE FROM {} WHERE {}"
_LOCK_ALL = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))"
# A pooler answers for the session with a number of its own. It may give another server's session to each transaction: a
# lock of such a one would outlast the run, and nobody could let it go.
_LOCK = """
SELECT CASE pg_catalog.pg_backend_pid() WHEN %(pid)s
       THEN pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended(%(lock)s, 0))
       ELSE pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended(%(lock)s, 0)) END
"""
_UNLOCK = """
SELECT pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended(%(lock)s, 0))
WHERE pg_catalog.pg_backend_pid() = %(pid)s
"""
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_MORE = re.compile(
    "(?:(?P<place>(?:[0-9a-f]{16}){1,2})(?: |(?=[@?!]|$)))?"
    "(?:(?P<known>(?:[0-9a-f]{32},?)*)/(?P<top>(?:[0-9a-f]{32},?)*))?"
    "(?:@(?P<read_all>[0-9]{1,11}))?(?:[?](?P<doubted>[0-9]{1,11})|(?P<proven>!))?"
)
"""A place is of an event's id and time, and of the event; once it was of the id alone."""


class TakenError(Exception):
    """Another process reads the same shard, and has moved its position."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a shard was read.

    Attributes:
        shard: its name; empty for the whole of an API.
        cursor: of the next page; None at the beginning of a pass.
        place: of the event that the page at the cursor began with, where that was read before: hashes.
        known: of events that the last pass from the beginning began with, until this pass has seen one of them.
        top: of events that this pass began with, where that is from the beginning.
        last_read_all: when the last pass began that was to read all, whatever the order; None where none was.
        doubted: when the last pass began that read all, as long as none since has brought anything by the order seen;
            ``NEVER`` where nobody knows, and None once one has. Likewise since a pass that came to another order.
        expires: until when the cursor holds, where that was told.
        lower: the start of its window, inclusive; None where it has none.
        upper: the end of its window, exclusive.
        watermark: events up to this time have arrived, but for those that become visible late; None where they come in
            no order, without a filter.
        ceiling: the time of the newest event at the start of a pass that is not known to go from older ones to newer.
        began: when the pass began that the cursor is in the midst of, by the API's clock where this machine's is ahead.
        passes: how often it was read from its beginning to its end.
        events: how many events of it were taken in.
    """

    shard: str = ""
    cursor: str | None = None
    expires: datetime | None = None
    lower: datetime | None = None
    upper: datetime | None = None
    watermark: datetime | None = None
    ceiling: datetime | None = None
    began: datetime | None = None
    passes: int = 0
    events: int = 0
    place: str | None = None
    known: tuple[str, ...] = ()
    top: tuple[str, ...] = ()
    last_read_all: datetime | None = None
    doubted: datetime | None = NEVER

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> "Position":
        """As a row of the table tells it."""
        position = cls(*row)
        cursor, line_end, more = (position.cursor or "").rpartition("\n")
        found = _MORE.fullmatch(more) if line_end else None
        if found is None or not more:
            return position
        known, top = (tuple(filter(None, (found[name] or "").split(","))) for name in ("known", "top"))
        read_all, doubted = (
            datetime.fromtimestamp(int(found[name]), UTC) if found[name] else None for name in ("read_all", "doubted")
        )
        if doubted is None and not found["proven"]:
            doubted = NEVER
        return replace(
            position,
            cursor=cursor or None,
            place=found["place"],
            known=known,
            top=top,
            last_read_all=read_all,
            doubted=doubted,
        )

    @property
    def stored_cursor(self) -> str | None:
        """The cursor, and what is known of the order on a line of its own."""
        place = self.place if self.cursor is not None else None
        marks = f"{','.join(self.known)}/{','.join(self.top)}" if self.known or self.top else None
        more = " ".join(filter(None, (place, marks)))
        if self.last_read_all:
            more += f"@{int(self.last_read_all.timestamp())}"
        if self.doubted != NEVER:
            more += f"?{int(self.doubted.timestamp())}" if self.doubted else "!"
        # A cursor of several lines may end with one that looks like ours.
        more = more or ("/" if "\n" in (self.cursor or "") else "")
        return f"{self.cursor or ''}\n{more}" if more else self.cursor

    @property
    def without_cursor(self) -> "Position":
        """The same, at the beginning of a pass: no page is gone on at."""
        left = replace(self, cursor=None, expires=None, place=None, top=())
        if self.cursor is not None and self.passes and not self.top:
            # It went on at a last page: of what comes from the beginning on, nobody knows the order.
            return replace(left, known=(), doubted=NEVER)
        # Where the pass has come to what the one before began with, all is read that it began with itself.
        return replace(left, known=self.known or self.top)

    @property
    def begins(self) -> datetime | None:
        """When its window begins, whose name says so: ``lower`` moves on where a later pass asks for less."""
        return datetime.fromisoformat(self.shard.partition("/")[0]) if self.shard else None

    @classmethod
    def window(cls, lower: datetime, upper: datetime) -> "Position":
        """The beginning of a window."""
        return cls(f"{iso(lower)}/{iso(upper)}", lower=lower, upper=upper)


@dataclass(frozen=True, slots=True)
class Positions:
    """The positions of one API.

    Attributes:
        table: where they stand.
        source: the API's address.
    """

    table: TableName
    source: str

    def read(self, connection: Connection) -> list[Position]:
        """All of them, the oldest window first; no other process plans windows until the transaction ends."""
        connection.execute(_LOCK_ALL, (f"event_archive {self.table.schema} {self.source} windows",))
        rows = connection.execute(sql.SQL(_READ).format(self._name, _OF_SOURCE), (self.source,)).fetchall()
        return [Position.of_row(row) for row in rows]

    def move(self, connection: Connection, before: Position, after: Position | None) -> None:
        """Writes where a shard has come to, from where this process left it, in the transaction of its rows.

        Nobody else moves it until the transaction ends.

        Args:
            connection: in that transaction.
            before: where this process left it.
            after: where it is; None where there are others in its place.

        Raises:
            TakenError: another process has it too, and has moved it.
        """
        connection.execute(_LOCK_ALL, (f"{self._lock(before)} position",))
        if self._find(connection, before) != before:
            raise TakenError
        if after is not None:
            self.save(connection, after)
            return
        connection.execute(sql.SQL(_REMOVE).format(self._name, _OF_SHARD), (self.source, before.shard))

    def save(self, connection: Connection, position: Position) -> None:
        """Writes a position that nobody has taken yet."""
        values = (
            position.stored_cursor,
            position.expires,
            position.lower,
            position.upper,
            position.watermark,
            position.ceiling,
            position.began,
            position.passes,
            position.events,
            self.source,
            position.shard,
        )
        if not connection.execute(sql.SQL(_SAVE).format(self._name, _OF_SHARD), values).rowcount:
            connection.execute(sql.SQL(_SAVE_FIRST).format(self._name), values)

    def claim(self, session: Session, position: Position) -> Position | None:
        """Takes a shard until it is released or the session ends, and returns its position.

        None where another process has it, or has read it to its end, or has split it.

        Behind a pooler two processes may have it: the first to land a page keeps it (``move``).
        """
        with session.transaction(str(self.table)) as connection:
            claim = self._claim(connection, position)
            row = connection.execute(_LOCK, claim).fetchone()
            if not (row and row[0]):
                return None
            found = self._find(connection, position)
            if position.upper and (found is None or found.passes):
                connection.execute(_UNLOCK, claim)
                return None
            return found or position

    def release(self, session: Session, position: Position) -> None:
        """Lets other processes have a shard."""
        with session.transaction(str(self.table)) as connection:
            connection.execute(_UNLOCK, self._claim(connection, position))

    def _find(self, connection: Connection, position: Position) -> Position | None:
        """Where a shard stands; the whole of an API that nobody has read yet stands at its beginning."""
        query = sql.SQL(_READ).format(self._name, _OF_SHARD)
        row = connection.execute(query, (self.source, position.shard)).fetchone()
        return Position.of_row(row) if row else None if position.shard else Position()

    def _claim(self, connection: Connection, position: Position) -> dict[str, str | int]:
        """What ``_LOCK`` and ``_UNLOCK`` ask for."""
        return {"lock": self._lock(position), "pid": connection.info.backend_pid}

    def _lock(self, position: Position) -> str:
        return f"event_archive {self.table.schema} {self.source} {position.shard}"

    @property
    def _name(self) -> sql.Identifier:
        return sql.Identifier(self.table.schema, self.table.name)


def resumed(position: Position, now: datetime) -> Position:
    """The same position, at the beginning of a pass where its cursor has expired."""
    if position.cursor and position.expires and position.expires <= now:
        return position.without_cursor
    return position

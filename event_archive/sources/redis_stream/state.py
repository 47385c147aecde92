"""The stream and the table as anybody sees them from outside: what waits, what is under way, what has landed.

Read by the metrics of a consumer, by ``ingest stream --status`` and by Dagster's sensor, so none of it may be dear. Not
here: whether what was acknowledged has landed (``books``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, cast

from psycopg import sql
from redis import Redis, ResponseError

from event_archive.config.sources import StreamSettings
from event_archive.domain.dataset import TableName
from event_archive.errors import BusyError, RefusedError
from event_archive.postgres.catalogue.partitions import bounded_partitions
from event_archive.postgres.catalogue.relations import Relation, relation
from event_archive.postgres.catalogue.timescale import chunks
from event_archive.postgres.session import Connection, Session, one
from event_archive.sources.redis_stream.group import looking
from event_archive.sources.tables import require_schema

TIME_COLUMN = "ts"
# Statistics first, since they know of rows that no VACUUM has seen yet; after a crash of the server only the latter do.
_ESTIMATE = """
WITH RECURSIVE tree_(oid) AS (
  SELECT %s::pg_catalog.oid
  UNION ALL SELECT i.inhrelid FROM tree_ JOIN pg_catalog.pg_inherits AS i ON i.inhparent = tree_.oid
)
SELECT coalesce(pg_catalog.sum(coalesce(
  nullif(pg_catalog.pg_stat_get_live_tuples(c.oid), 0), greatest(c.reltuples, 0)::bigint)), 0)::bigint
FROM tree_ JOIN pg_catalog.pg_class AS c USING (oid) WHERE c.relkind <> 'p'
"""
_LAST = "SELECT ts FROM ONLY {} ORDER BY ts DESC LIMIT 1"
_STATEMENT_SECONDS = 10
BEFORE_ALL = b"0-0"
"""The id of no entry: what a stream says that never had one."""
_HIGHEST = b"18446744073709551615-18446744073709551615"
_NO_SUCH_KEY = "no such key"


@dataclass(frozen=True, slots=True)
class GroupState:
    """A consumer group and its stream.

    Attributes:
        length: entries in the stream.
        last: the id of the newest entry that the stream ever had, or ``BEFORE_ALL``.
        consumers: names that the group knows, of processes that are gone too.
        lag_entries: entries that the group has not read yet; None where Redis cannot say, as after XDEL.
        lag_seconds: age of the oldest of them, by the clock of Redis; 0 for none.
        pending: entries that were read and are not acknowledged.
        oldest_pending_seconds: age of the oldest of them, since it was added; 0 for none.
        settled: the end of the range of ids, for XREVRANGE, of which every entry was read and acknowledged.
        exists: whether the group is there: it is made by the first consumer.
    """

    length: int
    last: bytes
    consumers: int
    lag_entries: int | None
    lag_seconds: float
    pending: int
    oldest_pending_seconds: float
    settled: bytes
    exists: bool = True

    @property
    def is_past_some(self) -> bool:
        """Whether the group was ever given an entry, as far as its last one tells, or was made to begin behind some."""
        return self.exists and self.settled != BEFORE_ALL

    @property
    def settled_told(self) -> str:
        """Which of the entries that were acknowledged ``settled`` leaves out, for messages."""
        return ", before the oldest that is not acknowledged yet" if self.pending else ""


@dataclass(frozen=True, slots=True)
class TableState:
    """The table that positions land in.

    Attributes:
        rows: by PostgreSQL's statistics: counting a large table takes minutes.
        last: the latest time of a row, UTC; None where there is none, or nobody can tell within seconds.
    """

    rows: int
    last: datetime | None


def look_at_group(settings: StreamSettings) -> GroupState:
    """Looks at a consumer group, on a connection of its own.

    Raises:
        StreamAwayError: Redis cannot be reached, or cannot serve for a while.
        ConfigurationError: REDIS_URL is wrong, or Redis refuses.
    """
    with looking(settings) as client:
        return group_state(client, settings.stream_key, settings.stream_group)


def group_state(client: Redis, stream: str, group: str) -> GroupState:
    """Looks at a consumer group; one that is not there has read nothing of its stream.

    The ``lag`` of Redis is None after XDEL and XTRIM, and 1 for nothing on Redis 7.0: so the next entry is looked for.
    It counts entries, too, that were trimmed before anybody read them: then all that are left are unread.

    Args:
        client: connected, with answers as bytes.
        stream: its key.
        group: its name.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    seconds, microseconds = client.time()
    now = seconds + microseconds / 1e6
    length, last, found = _stream_and_group(client, stream, group)
    last_read: bytes = found.get("last-delivered-id", BEFORE_ALL)
    unread = _first(client, stream, b"(" + last_read) if last_read != _HIGHEST else None
    lag = found.get("lag") if found else length
    pending: dict[str, Any] = client.xpending(stream, group) if found else {"pending": 0, "min": None}
    oldest: bytes | None = pending["min"]
    return GroupState(
        length=length,
        last=last,
        consumers=found.get("consumers", 0),
        lag_entries=0 if unread is None else max(1, min(lag, length)) if lag is not None else None,
        lag_seconds=_age(unread, now),
        pending=pending["pending"],
        oldest_pending_seconds=_age(oldest, now),
        settled=b"(" + oldest if oldest else last_read,
        exists=bool(found),
    )


def _stream_and_group(client: Redis, stream: str, group: str) -> tuple[int, bytes, dict[str, Any]]:
    """Length and last id of the stream, and what Redis knows of the group; 0 and nothing where they are not there."""
    try:
        about: dict[str, Any] = client.xinfo_stream(stream)
        groups = client.xinfo_groups(stream)
    except ResponseError as error:
        if _NO_SUCH_KEY not in str(error):
            raise
        return 0, BEFORE_ALL, {}
    return about["length"], about["last-generated-id"], next((of for of in groups if of["name"] == group.encode()), {})


def _first(client: Redis, stream: str, first: bytes) -> bytes | None:
    """The id of the first entry from an id on."""
    entries = cast(list[tuple[bytes, Any]], client.xrange(stream, min=first, count=1))
    return entries[0][0] if entries else None


def _age(entry: bytes | None, now: float) -> float:
    """How many seconds ago an entry was added, as its id has it."""
    return max(0.0, now - int(entry.partition(b"-")[0]) / 1000) if entry else 0.0


def id_order(of: str) -> tuple[int, int]:
    """By what ids of entries are ordered: two numbers."""
    milliseconds, _, number = of.partition("-")
    return int(milliseconds), int(number)


def table_state(session: Session, table: TableName) -> TableState | None:
    """Looks at the table; None where it is not there.

    Raises:
        ConfigurationError: nor is its schema.
        UnreachableError, BusyError, RefusedError: as ``Postgres.transaction``.
    """
    with session.transaction(str(table), statement_timeout_seconds=_STATEMENT_SECONDS) as connection:
        found = relation(connection, table.schema, table.name)
        if found is None:
            require_schema(connection, table.schema)
            return None
        (rows,) = one(connection, _ESTIMATE, found.oid)
        leaves = _leaves(connection, found, table)
    try:
        with session.transaction(str(table), statement_timeout_seconds=_STATEMENT_SECONDS) as connection:
            return TableState(rows, _last(connection, leaves))
    except (BusyError, RefusedError):
        # As where a role may read the table, but none of its partitions by itself.
        return TableState(rows, None)


def _leaves(connection: Connection, found: Relation, table: TableName) -> list[sql.Composable]:
    """The tables that hold the rows, those of the latest days first."""
    days = date(1, 1, 2), date(9998, 12, 31)
    leaves = bounded_partitions(connection, found.oid, TIME_COLUMN, *days)
    if found.has_children and found.has_timescaledb:
        leaves = chunks(connection, table.schema, table.name, TIME_COLUMN, *days)
    return [leaf.identifier for leaf in reversed(leaves)] or [sql.Identifier(table.schema, table.name)]


def _last(connection: Connection, leaves: Sequence[sql.Composable]) -> datetime | None:
    """The latest time in the first of some tables that has a row."""
    found = (connection.execute(sql.SQL(_LAST).format(leaf)).fetchone() for leaf in leaves)
    return next((row[0] for row in found if row), None)

"""The daily partitions of ``positions``: made ahead, and where a record comes for a day that has none.

Not here: the table itself; how partitions are dropped (``operations``).
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta

import psycopg
from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive.domain.days import ONE_DAY, day_range, midnight, now_utc
from event_archive.errors import RefusedError
from event_archive.postgres.errors import Advice, without_values
from event_archive.postgres.pins import own_search_path
from event_archive.postgres.session import Connection, Session

# By name, as they are made here; else by what others' cover of the day, of whatever length they are. A default
# partition takes all, and would have to be searched and locked for each new one.
_MISSING = """
SELECT day_
FROM pg_catalog.unnest(%(days)s::date[]) AS day_,
     pg_catalog.pg_partitioned_table AS p
JOIN pg_catalog.pg_class AS c ON c.oid = partrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
JOIN pg_catalog.pg_attribute AS a ON attrelid = partrelid AND attnum = partattrs[0] AND attname = 'ts'
WHERE nspname = %(schema)s AND relname = %(name)s AND partstrat = 'r' AND partnatts = 1 AND partdefid = 0
  AND CASE WHEN EXISTS (
    SELECT FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class AS l ON l.oid = inhrelid
    WHERE inhparent = partrelid AND NOT inhdetachpending
      AND l.relname = %(name)s || pg_catalog.to_char(day_, '_YYYY_MM_DD')
  ) THEN false ELSE coalesce((
    SELECT pg_catalog.sum(least(ends_, day_ + interval '1 day') - greatest(begins_, day_::timestamptz))
    FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class AS l ON l.oid = inhrelid
    CROSS JOIN LATERAL (
      SELECT pg_catalog.regexp_match(pg_catalog.pg_get_expr(relpartbound, l.oid),
        '^FOR VALUES FROM [(](?:''([^'']*)''|MINVALUE)[)] TO [(](?:''([^'']*)''|MAXVALUE)[)]$') AS found_
    ) AS text_
    CROSS JOIN LATERAL (
      SELECT coalesce(found_[1], '-infinity')::timestamptz AS begins_,
             coalesce(found_[2], 'infinity')::timestamptz AS ends_
    ) AS bounds_
    WHERE inhparent = partrelid AND NOT inhdetachpending AND begins_ < day_ + interval '1 day' AND ends_ > day_
  ) < interval '24 hours', true) END
ORDER BY day_
"""
_LOCK = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('event_archive partitions ' || %s, 0))"
# Not PARTITION OF, which waits for every open insert. An identity is the table's own, and is had by its partitions.
_MAKE = (
    "CREATE TABLE {name} (LIKE {table} INCLUDING ALL EXCLUDING IDENTITY); "
    "ALTER TABLE {table} ATTACH PARTITION {name} {bounds}"
)
_BOUNDS = "FOR VALUES FROM ({}) TO ({})"
_OTHERS = (psycopg.errors.DuplicateTable, psycopg.errors.UniqueViolation, psycopg.errors.InvalidObjectDefinition)
"""Somebody else makes partitions, too: of this name, or of a range that holds the day."""
_MOST_AT_ONCE = 50
"""In one transaction, which keeps some locks of each."""
_MOST_TOLD = 10
"""Whose statements are in a message."""

_TRUSTED_SECONDS = 60.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Partitions:
    """The partitions of a table, by day (UTC). Of any other table, a hypertable among them, nothing is made.

    Attributes:
        table: the partitioned one.
        clock: seconds that only ever grow.
    """

    table: TableName
    clock: Callable[[], float] = time.monotonic
    _trusted_until: dict[date, float] = field(default_factory=dict, init=False)

    def ahead(self, session: Session, days: int) -> list[date]:
        """Makes those of today and of so many days to come, and returns the days that had none.

        Raises:
            BusyError, RefusedError, UnreachableError: as ``make``.
        """
        today = now_utc().date()
        return self.make(session, day_range(today, today + timedelta(days=days)))

    def make(
        self, session: Session, days: Iterable[date], before: Callable[[Connection], None] = lambda _connection: None
    ) -> list[date]:
        """Makes those that are missing, and returns their days. To be called before each landing.

        A partition that was there a minute ago is not looked for. Where it was dropped since, the landing is busy, not
        wrong: it succeeds once that minute is over.

        Args:
            session: with the database.
            days: on which rows are to land.
            before: called before any is made; what it raises is raised here.

        Raises:
            BusyError: others kept locks for too long.
            RefusedError: the role may not, or others' tables are in the way; the message says what to do.
            UnreachableError: the connection broke.
        """
        now = self.clock()
        days = [day for day in days if self._trusted_until.get(day, now) <= now]
        if not days:
            return []
        with session.transaction(str(self.table)) as connection:
            missing = self._missing(connection, days)
        made: list[date] = []
        for start in range(0, len(missing), _MOST_AT_ONCE):
            some = missing[start : start + _MOST_AT_ONCE]
            with session.transaction(str(self.table), advice=self._advice(some)) as connection:
                # One of several processes makes it, and the others find it made.
                connection.execute(_LOCK, (str(self.table),))
                before(connection)
                made += [day for day in self._missing(connection, some) if self._make(connection, day)]
        for day in made:
            _log.info("%s: made the partition of %s", self.table, day)
        self._trusted_until |= dict.fromkeys(days, now + _TRUSTED_SECONDS)
        return made

    def _missing(self, connection: Connection, days: Iterable[date]) -> list[date]:
        values = {"days": list(days), "schema": self.table.schema, "name": self.table.name}
        return [day for (day,) in connection.execute(_MISSING, values).fetchall()]

    def _make(self, connection: Connection, day: date) -> bool:
        """Makes one, unless somebody else has just done so."""
        try:
            with connection.transaction(), own_search_path(connection):
                connection.execute(self._statements(day))
        except _OTHERS as error:
            if not self._missing(connection, [day]):
                return False
            raise RefusedError(
                f"{self.table}: the partition of {day} cannot be made. PostgreSQL says: {without_values(error)}. "
                "Rename or attach the table that is in the way, so that all of the day has a partition."
            ) from None
        return True

    def _statements(self, day: date) -> sql.Composed:
        bounds = sql.SQL(_BOUNDS).format(*(midnight(of).isoformat(" ") for of in (day, day + ONE_DAY)))
        return sql.SQL(_MAKE).format(
            table=sql.Identifier(self.table.schema, self.table.name),
            name=sql.Identifier(self.table.schema, f"{self.table.name}_{day:%Y_%m_%d}"),
            bounds=bounds,
        )

    def _advice(self, days: list[date]) -> Advice:
        statements = "\n".join(f"{self._statements(day).as_string()};" for day in days[:_MOST_TOLD])
        return Advice(
            outcome="Nothing was taken in.",
            again="it is tried again",
            privileges="Partitions are made by the table's owner, who needs CREATE on its schema: make this role a "
            "member of the owner, or let the owner make partitions ahead, as by\n"
            f"{statements}",
        )

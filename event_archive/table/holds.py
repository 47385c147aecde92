"""Holds, by which people keep a day from being purged: putting, releasing and reading them.

Not here: the lock on a day, what a purge does about a hold. Holds stand in a table beside the archived one, one row a
day, so that the purge reads them in its own transaction.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import LiteralString

from psycopg import sql

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import day_range
from event_archive.errors import ConfigurationError, OtherSourceError, RefusedError
from event_archive.postgres.catalogue.privileges import grantees
from event_archive.postgres.catalogue.relations import relation, schemas_with
from event_archive.postgres.errors import Advice
from event_archive.postgres.pins import commit_durably, own_search_path
from event_archive.postgres.session import Connection, Postgres, one
from event_archive.table.locks import await_day, lock_table, same_schema
from event_archive.table.shape import require_table

HOLD_TABLE = "event_archive_hold"
MOST_DAYS = 1_000
"""That one command holds. Each takes a lock, and the server has room for a few thousand."""

_CREATE = """
CREATE TABLE {} (
  table_name text COLLATE pg_catalog."C" NOT NULL,
  day date NOT NULL,
  reason text NOT NULL,
  held_since timestamptz NOT NULL DEFAULT pg_catalog.now(),
  held_by text NOT NULL DEFAULT current_user,
  PRIMARY KEY (table_name, day)
)
"""
# Holds are few, and no index is asked for them: one that is damaged, as one of texts may be since an upgrade of the C
# library, would not find some. Hence || '' and + 0, and tableoid, which no index holds.
_HOLD = """
INSERT INTO {0} (table_name, day, reason)
SELECT {1}, new_::date, {2} FROM pg_catalog.generate_series({3}::date, {4}::date, '1 day') AS new_
WHERE NOT EXISTS (SELECT FROM {0} WHERE table_name || '' = {1} AND day + 0 = new_::date) ON CONFLICT DO NOTHING
"""
_OTHER_HOLD = """
SELECT day, reason FROM {} WHERE table_name || '' = {} AND day + 0 BETWEEN {} AND {} AND reason <> {}
ORDER BY day LIMIT 1
"""
_HELD = "SELECT count(*) FROM {} WHERE table_name || '' = {} AND day + 0 BETWEEN {} AND {} AND tableoid <> 0"
_OF_NO_TABLE = """
SELECT table_name FROM {} WHERE pg_catalog.to_regclass(table_name) IS NULL ORDER BY table_name LIMIT 1
"""
# Of a table that is not there any more, what another one's days are held for.
_FORGET = """
DELETE FROM {} AS former_ WHERE table_name || '' = {} AND pg_catalog.to_regclass(table_name) IS NULL AND EXISTS (
  SELECT FROM {} AS own_ WHERE own_.table_name || '' = {} AND own_.day = former_.day AND own_.reason = former_.reason)
"""
# Consecutive days with one reason that were held on one day are shown as one hold.
_HOLDS = """
SELECT min(day), max(day), reason, min(held_since), held_by
FROM (SELECT *, day - row_number() OVER (PARTITION BY reason, held_by, held_since::date ORDER BY day)::int AS island
      FROM {} WHERE table_name || '' = {}) AS days
GROUP BY island, reason, held_by, held_since::date ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Hold:
    """Days, both ends included, that are not purged.

    Attributes:
        first: the first day.
        last: the last day.
        reason: as somebody gave it.
        since: when, UTC; of several commands of that day, the first.
        by: the database role that put it.
    """

    first: date
    last: date
    reason: str
    since: datetime
    by: str


def hold_on(connection: Connection, dataset: Dataset, day: date) -> str | None:
    """The reason why a day is held; None where it is not. Ask under the day's lock, or a hold may come too late."""
    if not _exist(connection, dataset):
        return None
    query = _about(dataset, "SELECT reason FROM {} WHERE table_name || '' = {} AND day + 0 = {}", day)
    row = connection.execute(query).fetchone()
    return str(row[0]) if row else None


def held_days(connection: Connection, dataset: Dataset) -> set[date]:
    """The days that are held at this moment."""
    if not _exist(connection, dataset):
        return set()
    query = _about(dataset, "SELECT day FROM {} WHERE table_name || '' = {} AND tableoid <> 0")
    return {day for (day,) in connection.execute(query).fetchall()}


def hold(dataset: Dataset, first: date, last: date, reason: str, postgres: Postgres) -> None:
    """Holds each day from ``first`` to ``last``, or none; creates the table for holds where there is none.

    It waits for a command that is working on a day, so that a day is never held and purged at once.

    Raises:
        ConfigurationError: more than ``MOST_DAYS`` days.
        NoSuchTableError: the table is not there.
        BusyError: another command worked on a day for longer than the lock timeout.
        RefusedError: a day is held for another reason, or as PostgreSQL says.
        UnreachableError: as PostgreSQL says.
    """
    if (days := (last - first).days + 1) > MOST_DAYS:
        raise ConfigurationError(
            f"{dataset.label}: {first} to {last} are {days:,} days; at most {MOST_DAYS:,} are held at once. No day was "
            "held: give the command for one part after another."
        )
    with _changing(dataset, postgres) as connection:
        commit_durably(connection)
        require_table(connection, dataset.table, dataset.setting("EVENT_TABLE"))
        if not _exist(connection, dataset):
            lock_table(connection, TableName(dataset.table.schema, HOLD_TABLE))
            if not _exist(connection, dataset):
                _create(connection, dataset)
        for day in day_range(first, last):
            outcome = "No day was held by this command: give it again."
            await_day(connection, dataset, day, postgres, outcome=outcome)
        other = connection.execute(_about(dataset, _OTHER_HOLD, first, last, reason)).fetchone()
        if other:
            raise RefusedError(
                f"{dataset.table}: {other[0]} is held already: {other[1]}. So it is not purged. No day was held by "
                "this command: hold the days around it, or release it first."
            )
        connection.execute(_about(dataset, _HOLD, reason, first, last))
        if one(connection, _about(dataset, _HELD, first, last))[0] != days:
            raise _altered(dataset)


def _create(connection: Connection, dataset: Dataset) -> None:
    events = relation(connection, dataset.table.schema, dataset.table.name)
    # A role that purges has to see the holds.
    roles = grantees(connection, events.oid, "DELETE") if events else ()
    # Event triggers find what they name.
    with own_search_path(connection, to_read_values=True):
        connection.execute(sql.SQL(_CREATE).format(_table(dataset)))
        for role in roles:
            grantee = sql.Identifier(role) if role else sql.SQL("PUBLIC")
            connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(_table(dataset), grantee))


def release(dataset: Dataset, first: date, last: date, postgres: Postgres) -> int:
    """Releases each day from ``first`` to ``last`` and returns how many of them were held.

    Raises:
        RefusedError, UnreachableError, BusyError: as PostgreSQL says.
    """
    with _changing(dataset, postgres) as connection:
        released = 0
        if _exist(connection, dataset):
            query = _about(
                dataset, "DELETE FROM {} WHERE table_name || '' = {} AND day + 0 BETWEEN {} AND {}", first, last
            )
            released = connection.execute(query).rowcount
            if one(connection, _about(dataset, _HELD, first, last))[0]:
                raise _altered(dataset)
        if not released:
            require_table(connection, dataset.table, dataset.setting("EVENT_TABLE"))
        return released


@contextmanager
def _changing(dataset: Dataset, postgres: Postgres) -> Iterator[Connection]:
    """A transaction that changes holds of the table that bears the name, at its end as at its begin."""
    about = f"{dataset.table}, holds"
    with postgres.transaction(about, advice=_advice(dataset)) as connection, same_schema(connection, dataset):
        yield connection


def _altered(dataset: Dataset) -> RefusedError:
    return RefusedError(
        f"{dataset.table}: a trigger, rule or policy on {TableName(dataset.table.schema, HOLD_TABLE)} changes what is "
        "written there. Nothing was held or released: remove it."
    )


def holds(dataset: Dataset, postgres: Postgres) -> list[Hold]:
    """The holds on a table, oldest day first.

    Raises:
        RefusedError, UnreachableError, BusyError: as PostgreSQL says.
    """
    with postgres.transaction(f"{dataset.table}, holds", advice=_advice(dataset)) as connection:
        rows = connection.execute(_about(dataset, _HOLDS)).fetchall() if _exist(connection, dataset) else []
        if not rows:
            require_table(connection, dataset.table, dataset.setting("EVENT_TABLE"))
        return [Hold(*row) for row in rows]


def keep_holds(connection: Connection, dataset: Dataset, former: TableName) -> int:
    """Holds the days that are held for a table that this one was before; returns how many were not held yet.

    Under the former name they are not held any longer, where no table has it.

    They stand in the schema of that name, or, where the schema was renamed with its tables, in this table's.
    """
    return sum(_keep_from(schema, connection, dataset, former) for schema in {former.schema, dataset.table.schema})


def _keep_from(schema: str, connection: Connection, dataset: Dataset, former: TableName) -> int:
    if relation(connection, schema, HOLD_TABLE) is None:
        return 0
    old = sql.Identifier(schema, HOLD_TABLE)
    held = sql.SQL("FROM {} WHERE table_name || '' = {}").format(old, sql.Literal(str(former)))
    if connection.execute(sql.SQL("SELECT {} LIMIT 1").format(held)).fetchone() is None:
        return 0
    if not _exist(connection, dataset):
        _create(connection, dataset)
    own = sql.Literal(str(dataset.table))
    kept = connection.execute(
        sql.SQL(
            "INSERT INTO {} (table_name, day, reason, held_since, held_by) "
            "SELECT {}, day, reason, held_since, held_by {} "
            "AND day + 0 NOT IN (SELECT day FROM {} WHERE table_name || '' = {}) ON CONFLICT DO NOTHING"
        ).format(_table(dataset), own, held, _table(dataset), own)
    ).rowcount
    connection.execute(
        sql.SQL(_FORGET).format(old, sql.Literal(str(former)), _table(dataset), sql.Literal(str(dataset.table)))
    )
    return kept


def require_no_former_name(connection: Connection, dataset: Dataset) -> None:
    """Checks that no day is held for a table that is not there: it may be this one, which was renamed or moved.

    Holds lie in the schema that the table had. One that this role may not look into is passed over, but for its own.

    Raises:
        OtherSourceError: there is one.
    """
    for schema in sorted({dataset.table.schema, *schemas_with(connection, HOLD_TABLE, "table_name")}):
        if relation(connection, schema, HOLD_TABLE) is None:
            continue
        row = connection.execute(sql.SQL(_OF_NO_TABLE).format(sql.Identifier(schema, HOLD_TABLE))).fetchone()
        if row:
            held, setting = TableName(schema, HOLD_TABLE), dataset.setting("EVENT_FILE_PREFIX")
            raise OtherSourceError(
                f"{dataset.table}: days are held for {row[0]}, which is not there, and no file named "
                f"{dataset.file_prefix} was its. Nothing was written or deleted. If it is the same table, which was "
                f"renamed, set {setting} to the former one, and accept it once: {dataset.adopt_source}. If it is "
                f"the same and has no file yet, hold its days under this name too, and DELETE those rows FROM {held}; "
                "if it is another table, DELETE them."
            )


def _advice(dataset: Dataset) -> Advice:
    return Advice(
        outcome="Nothing is held or released by this.",
        again="give the command again",
        lost="Give the command again.",
        privileges=(
            "To put and release holds, the role needs USAGE on the schema and SELECT, INSERT and DELETE on "
            f"{TableName(dataset.table.schema, HOLD_TABLE)}, and CREATE on the schema for the very first hold, which "
            "makes that table: GRANT them, or connect as another role."
        ),
    )


def _about(dataset: Dataset, query: LiteralString, *values: object) -> sql.Composed:
    """A query about this table's holds, with literals: beside parameters psycopg takes a ``%`` in a name for one."""
    return sql.SQL(query).format(_table(dataset), *map(sql.Literal, (str(dataset.table), *values)))


def _table(dataset: Dataset) -> sql.Composable:
    return sql.Identifier(dataset.table.schema, HOLD_TABLE)


def _exist(connection: Connection, dataset: Dataset) -> bool:
    return relation(connection, dataset.table.schema, HOLD_TABLE) is not None

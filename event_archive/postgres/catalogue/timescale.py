"""TimescaleDB's own catalogue, by the views that it documents. Not here: what is the same for every table.

The views are there where ``Relation.has_timescaledb`` says so. Chunks inherit from their hypertable (``pg_inherits``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from psycopg import sql

from event_archive.postgres.catalogue.partitions import Partition
from event_archive.postgres.session import Connection, one

_IS_HYPERTABLE = """
SELECT EXISTS (SELECT FROM timescaledb_information.hypertables WHERE hypertable_schema = %s AND hypertable_name = %s)
"""
_NO_CHUNKS = """
SELECT schema_, name_, EXISTS (SELECT FROM timescaledb_information.hypertables
                               WHERE hypertable_schema = schema_ AND hypertable_name = name_)
FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[])) AS of_(schema_, name_)
WHERE (schema_, name_) NOT IN (SELECT chunk_schema::text, chunk_name::text FROM timescaledb_information.chunks)
"""
_BEGINNINGS = """
SELECT (range_start AT TIME ZONE 'UTC')::pg_catalog.date AS day, pg_catalog.count(*)
FROM timescaledb_information.chunks
WHERE hypertable_schema = %s AND hypertable_name = %s AND primary_dimension = %s
  AND range_start BETWEEN '0001-01-02' AND '9999-12-31'
GROUP BY day ORDER BY day
"""
_CHUNKS = """
SELECT c.oid, pg_catalog.concat(c.xmin, ' ', n.xmin), n.nspname, c.relname, hypertable_schema, hypertable_name,
       c.relkind = 'r', pg_catalog.pg_has_role(c.relowner, 'USAGE'),
       range_start::pg_catalog.date, (range_end - interval '1 microsecond')::pg_catalog.date, range_start, range_end
FROM timescaledb_information.chunks
JOIN pg_catalog.pg_namespace AS n ON n.nspname = chunk_schema
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = chunk_name
WHERE hypertable_schema = %s AND hypertable_name = %s AND primary_dimension = %s
  AND range_start >= '0001-01-02' AND range_end <= '9999-01-01'
  AND range_end > %s::pg_catalog.date AND range_start < %s::pg_catalog.date + 1
ORDER BY range_end, c.oid
"""
_HAS_COMPRESSED = """
SELECT EXISTS (SELECT FROM timescaledb_information.chunks
               WHERE hypertable_schema = %s AND hypertable_name = %s AND is_compressed
               AND (primary_dimension <> %s
                    OR range_end > %s::pg_catalog.date AND range_start < %s::pg_catalog.date + 1))
"""
_EXTENSION_SCHEMA = """
SELECT nspname FROM pg_catalog.pg_extension JOIN pg_catalog.pg_namespace AS n ON n.oid = extnamespace
WHERE extname = 'timescaledb'
"""
# It takes only an instant of the hypertable's own type.
_DROP_CHUNKS = """
SELECT pg_catalog.parse_ident(chunk_) FROM {drop_chunks}(%s::pg_catalog.oid::pg_catalog.regclass,
  newer_than => %s::timestamptz::{type}, older_than => %s::timestamptz::{type}) AS chunk_
"""
# A policy has its ages in the IntervalStyle of whoever made it.
_RETENTION_POLICIES = """
SELECT job_id, coalesce(config ->> 'drop_after', config ->> 'drop_created_before')::pg_catalog.interval::text,
       coalesce(pg_catalog.now() - (config ->> 'drop_after')::pg_catalog.interval >= %s, true)
FROM timescaledb_information.jobs
WHERE proc_name = 'policy_retention' AND scheduled AND hypertable_schema = %s AND hypertable_name = %s ORDER BY job_id
"""
# Which of its two names the jobs have for a continuous aggregate differs between versions.
_REFRESHES = """
SELECT view_schema, view_name, (j.config ->> 'start_offset')::pg_catalog.interval::text
FROM timescaledb_information.continuous_aggregates AS a JOIN timescaledb_information.jobs AS j
  ON (j.hypertable_schema, j.hypertable_name) IN (
    (a.view_schema, a.view_name), (a.materialization_hypertable_schema, a.materialization_hypertable_name))
WHERE j.proc_name = 'policy_refresh_continuous_aggregate' AND j.scheduled
  AND a.hypertable_schema = %s AND a.hypertable_name = %s
  AND coalesce(pg_catalog.now() - (j.config ->> 'start_offset')::pg_catalog.interval < %s, true)
ORDER BY view_schema, view_name
"""
# For this transaction alone, as everything else that is set.
_DECOMPRESS_ALL = "SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction TO 0"


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """A job that drops the chunks of a hypertable by their age.

    Attributes:
        job: its number.
        after: the age, as the policy has it.
        too_early: whether it drops chunks whose rows lie after the instant that was asked for, or nobody can tell.
    """

    job: int
    after: str
    too_early: bool


@dataclass(frozen=True, slots=True)
class Refresh:
    """A job that computes a continuous aggregate of a hypertable again.

    Attributes:
        schema: the aggregate's.
        name: the aggregate's.
        start_offset: how far back it goes; None for all that there is.
    """

    schema: str
    name: str
    start_offset: str | None


def is_hypertable(connection: Connection, schema: str, name: str) -> bool:
    """Whether a table is a hypertable."""
    return bool(one(connection, _IS_HYPERTABLE, schema, name)[0])


def hypertables_among(connection: Connection, tables: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bool]:
    """Those of some tables, each a schema and a name, that are no chunks, and whether each is a hypertable."""
    schemas, names = [schema for schema, _ in tables], [name for _, name in tables]
    found = connection.execute(_NO_CHUNKS, (schemas, names)).fetchall()
    return {(schema, name): is_one for schema, name, is_one in found}


def beginnings(connection: Connection, schema: str, name: str, column: str) -> list[tuple[date, int]]:
    """On which days (UTC) the chunks of a hypertable begin by their range of a column, and how many do on each."""
    return connection.execute(_BEGINNINGS, (schema, name, column)).fetchall()


def chunks(connection: Connection, schema: str, name: str, column: str, first: date, last: date) -> list[Partition]:
    """The chunks of a hypertable that may hold rows of these days, in their order. Takes no lock.

    Args:
        connection: in a transaction, whose time zone is UTC.
        schema: the hypertable's.
        name: the hypertable's.
        column: by which its chunks must be divided first.
        first: the first day.
        last: the last day.
    """
    rows = connection.execute(_CHUNKS, (schema, name, column, first, last)).fetchall()
    return [replace(Partition(*row), chunk=(start, end)) for *row, start, end in rows]


def has_compressed_chunk(connection: Connection, schema: str, name: str, column: str, day: date) -> bool:
    """Whether a chunk of a hypertable that may hold rows of a day is compressed, at least in part.

    Args:
        connection: in a transaction, whose time zone is UTC.
        schema: the hypertable's.
        name: the hypertable's.
        column: the time column; chunks that are divided first by another one may hold rows of any day.
        day: the day.
    """
    return bool(one(connection, _HAS_COMPRESSED, schema, name, column, day, day)[0])


def extension_schema(connection: Connection) -> str | None:
    """The schema of TimescaleDB's functions; None where the database has no TimescaleDB."""
    row = connection.execute(_EXTENSION_SCHEMA).fetchone()
    return row[0] if row else None


def drop_chunks(connection: Connection, oid: int, type_: str, start: datetime, end: datetime) -> list[tuple[str, str]]:
    """Drops the chunks of a hypertable that lie within a range, with whatever is in them.

    Args:
        connection: in a transaction, whose time zone is UTC.
        oid: the hypertable's.
        type_: of the column that divides it, for SQL.
        start: of the range.
        end: of the range, exclusive.

    Returns:
        Schema and name of each. A frozen one stays and is none of them.
    """
    (schema,) = one(connection, _EXTENSION_SCHEMA)
    query = sql.SQL(_DROP_CHUNKS).format(drop_chunks=sql.Identifier(schema, "drop_chunks"), type=sql.SQL(type_))
    return [(schema, name) for ((schema, name),) in connection.execute(query, (oid, start, end)).fetchall()]


def retention_policies(connection: Connection, schema: str, name: str, aged_before: datetime) -> list[RetentionPolicy]:
    """The jobs that drop chunks of a hypertable, whether or not their rows were archived."""
    rows = connection.execute(_RETENTION_POLICIES, (aged_before, schema, name)).fetchall()
    return [RetentionPolicy(*row) for row in rows]


def refreshes_behind(connection: Connection, schema: str, name: str, aged_before: datetime) -> list[Refresh]:
    """The jobs that compute continuous aggregates of a hypertable again for times before an instant."""
    return [Refresh(*row) for row in connection.execute(_REFRESHES, (schema, name, aged_before)).fetchall()]


def decompress_without_limit(connection: Connection) -> None:
    """Lets statements of this transaction change as many rows of compressed chunks as they have to."""
    connection.execute(_DECOMPRESS_ALL)

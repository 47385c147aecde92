"""TimescaleDB's own catalogue, by the views that it documents. Not here: what is the same for every table.

The views are there where ``Relation.has_timescaledb`` says so. Chunks inherit from their hypertable (``pg_inherits``).
"""

from dataclasses import dataclass
from datetime import date, datetime

from event_archive.postgres.session import Connection, one

_IS_HYPERTABLE = """
SELECT EXISTS (SELECT FROM timescaledb_information.hypertables WHERE hypertable_schema = %s AND hypertable_name = %s)
"""
_BEGINNINGS = """
SELECT (range_start AT TIME ZONE 'UTC')::pg_catalog.date AS day, pg_catalog.count(*)
FROM timescaledb_information.chunks
WHERE hypertable_schema = %s AND hypertable_name = %s AND primary_dimension = %s
  AND range_start BETWEEN '0001-01-02' AND '9999-12-31'
GROUP BY day ORDER BY day
"""
_RETENTION_POLICIES = """
SELECT job_id, coalesce(config ->> 'drop_after', config ->> 'drop_created_before'),
       coalesce(pg_catalog.now() - (config ->> 'drop_after')::pg_catalog.interval >= %s, true)
FROM timescaledb_information.jobs
WHERE proc_name = 'policy_retention' AND scheduled AND hypertable_schema = %s AND hypertable_name = %s ORDER BY job_id
"""
# Which of its two names the jobs have for a continuous aggregate differs between versions.
_REFRESHES = """
SELECT view_schema, view_name, j.config ->> 'start_offset'
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


def beginnings(connection: Connection, schema: str, name: str, column: str) -> list[tuple[date, int]]:
    """On which days (UTC) the chunks of a hypertable begin by their range of a column, and how many do on each."""
    return connection.execute(_BEGINNINGS, (schema, name, column)).fetchall()


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

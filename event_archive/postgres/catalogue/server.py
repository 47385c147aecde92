"""The server: who it is, settings, standby or primary, how far replicas are behind. Not here: tables."""

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, LiteralString, cast

import psycopg

from event_archive.postgres.session import Connection, one

# A role that may not see other sessions' statistics sees a row for each replica, with NULL in its columns.
# A consumer of a logical slot, maybe of another database, confirms when it likes; pg_receivewal replays nothing.
_REPLICATION = """
SELECT pg_catalog.count(*) FILTER (WHERE state IS NULL),
       coalesce(pg_catalog.max(pg_catalog.pg_wal_lsn_diff(
         pg_catalog.pg_current_wal_lsn(), coalesce(replay_lsn, write_lsn, sent_lsn))), 0)
FROM pg_catalog.pg_stat_replication AS replica
WHERE (state IS NULL OR state IN ('streaming', 'catchup')) AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_replication_slots AS slot WHERE slot.active_pid = replica.pid AND slot_type = 'logical')
"""
_WRITTEN = """
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_lsn()::text END
"""
_REPLAY = """
SELECT pg_catalog.pg_wal_lsn_diff(%s, pg_catalog.pg_last_wal_replay_lsn())::float8,
       extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8
"""

_SYSTEM = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"
_IDENTITY = """
SELECT pg_catalog.current_database()::text, pg_catalog.pg_is_in_recovery(),
       pg_catalog.pg_postmaster_start_time()::text
"""
# The first eight hexadecimal digits of a WAL file's name are its timeline; the control file knows a new one only from
# the first checkpoint on. On a standby the receiver knows it at once, but tells privileged roles alone.
_TIMELINE = "SELECT pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)"
_RECEIVED = "SELECT pg_catalog.max(received_tli) FROM pg_catalog.pg_stat_wal_receiver"
_REPLAYED = "SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()"
_POSITION = "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), '0/0')::bigint"
# What is set for all roles in a database goes before what is set for all roles.
_ZONES = """
SELECT (pg_catalog.array_agg(option_value ORDER BY setdatabase DESC) FILTER (WHERE setrole = 0))[1],
       coalesce(pg_catalog.bool_or(setrole <> 0), false)
FROM pg_catalog.pg_db_role_setting CROSS JOIN LATERAL pg_catalog.pg_options_to_table(setconfig)
WHERE pg_catalog.lower(option_name) = 'timezone'
  AND setrole IN (0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = SESSION_USER))
  AND setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
"""
_IS_UTC = """
SELECT pg_catalog.bool_and(pg_catalog.timezone(%s, noon_) OPERATOR(pg_catalog.=) pg_catalog.timezone('UTC', noon_))
FROM pg_catalog.unnest('{2024-01-01 12:00,2024-07-01 12:00}'::pg_catalog.timestamp[]) AS noon_
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which database this is.

    Attributes:
        system: the system identifier: made by initdb, shared by standbys and by copies of the files; empty where the
            server does not tell.
        database: its name.
        timeline: a promotion or a restore from a backup begins a new one. A standby may know of it late.
        is_standby: whether it replays another server's WAL.
        started: when the server process began.
        position: how much WAL it has had on its disk since initdb, in bytes, which no crash takes back; 0 of a standby,
            and where the server does not tell.
    """

    system: str
    database: str
    timeline: int
    is_standby: bool
    started: str
    position: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a standby is behind.

    Attributes:
        bytes: of WAL that it has not replayed yet; negative where it is ahead of what it is compared with.
        seconds: since the last transaction it replayed was committed.
    """

    bytes: float
    seconds: float


def identity(connection: Connection) -> Identity:
    """Which database this is."""
    system, (database, is_standby, started) = _told(connection, _SYSTEM) or "", one(connection, _IDENTITY)
    if is_standby:
        timeline = max(_told(connection, _RECEIVED) or 0, _told(connection, _REPLAYED) or 0)
    else:
        timeline = int(one(connection, _TIMELINE)[0], 16)
    position = 0 if is_standby else _told(connection, _POSITION) or 0
    return Identity(str(system), database, timeline, is_standby, started, position)


def _told(connection: Connection, query: LiteralString) -> Any:
    """The one value that a query asks for; None where this role may not ask, or the server does not know of it."""
    try:
        with connection.transaction():
            return one(connection, query)[0]
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction, psycopg.errors.FeatureNotSupported):
        return None


def setting_of_new_sessions(connection: Connection, name: str) -> str:
    """What a setting is for this role and database where a session does not set it itself."""
    value: str = one(connection, "SELECT reset_val FROM pg_catalog.pg_settings WHERE name = %s", name)[0]
    return value


def zone_of_others(connection: Connection) -> str:
    """The time zone in which others' sessions begin here; empty where one of this role's own hides the server's."""
    of_database, is_own = one(connection, _ZONES)
    is_own = (
        is_own or os.environ.get("PGTZ") or "timezone" in connection.info.get_parameters().get("options", "").lower()
    )
    return str(of_database or ("" if is_own else setting_of_new_sessions(connection, "TimeZone")))


def is_utc(connection: Connection, zone: str) -> bool:
    """Whether a time zone is UTC under some name, summer and winter; one that the server does not know is not."""
    try:
        with connection.transaction():
            return bool(one(connection, _IS_UTC, zone)[0])
    except psycopg.errors.InvalidParameterValue:
        return False


def setting(connection: Connection, name: str) -> str:
    """What a setting is in this session."""
    value: str = one(connection, "SELECT pg_catalog.current_setting(%s)", name)[0]
    return value


def is_on(connection: Connection, setting: str) -> bool:
    """Whether a Boolean setting is on."""
    return bool(one(connection, "SELECT pg_catalog.current_setting(%s)::boolean", setting)[0])


def source_of_setting(connection: Connection, name: str) -> str:
    """Where a setting has its value from, as ``pg_settings`` has it: ``database``, ``user``, ``database user`` …"""
    source: str = one(connection, "SELECT source FROM pg_catalog.pg_settings WHERE name = %s", name)[0]
    return source


def role_of(connection: Connection) -> str:
    """The role whose privileges count, as the server knows it: a pooler may know a client by another name."""
    return str(one(connection, "SELECT CURRENT_USER::text")[0])


def database_of(connection: Connection) -> str:
    """The database, as the server knows it: a pooler may have another name for it."""
    return str(one(connection, "SELECT pg_catalog.current_database()::text")[0])


def is_standby(connection: Connection) -> bool:
    """Whether the server replays another one's WAL."""
    return bool(one(connection, "SELECT pg_catalog.pg_is_in_recovery()")[0])


def written_wal(connection: Connection) -> str | None:
    """How far a primary has written its WAL; None on a standby."""
    position: str | None = one(connection, _WRITTEN)[0]
    return position


def lag_behind(connection: Connection, position: str | None) -> Lag:
    """How far this standby is behind a position of its primary's WAL; by 0 where that is not known."""
    size_bytes, seconds = one(connection, _REPLAY, position)
    return Lag(size_bytes or 0.0, seconds or 0.0)


def largest_replica_lag_bytes(connection: Connection) -> int | None:
    """How much WAL the slowest streaming replica of this primary has to replay; None where the role may not see it."""
    hidden, behind = one(connection, _REPLICATION)
    return None if hidden else int(behind)


def server_now(connection: Connection) -> datetime:
    """The present by the server's clock: when the transaction began."""
    return cast(datetime, one(connection, "SELECT pg_catalog.now()")[0])


def clock(connection: Connection) -> datetime:
    """The present by the server's clock: at this moment, however long ago the transaction began."""
    return cast(datetime, one(connection, "SELECT pg_catalog.clock_timestamp()")[0])


def earlier_now(connection: Connection) -> datetime:
    """The present, by the server's clock or this machine's, whichever is behind: the other one may be ahead."""
    return min(server_now(connection), datetime.now(UTC))

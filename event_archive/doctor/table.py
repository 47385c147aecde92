"""The archived table by itself: its shape, its index, its time zone. Not here: what depends on it. Only reads."""

import re
from collections.abc import Iterator

from event_archive.config import services
from event_archive.doctor import dependents
from event_archive.doctor.findings import Finding, Patient
from event_archive.doctor.hypertable import hypertable
from event_archive.doctor.partitions import partitions
from event_archive.doctor.server import reading
from event_archive.domain.dataset import quoted
from event_archive.postgres.catalogue.columns import default_of
from event_archive.postgres.catalogue.server import database_of, is_utc, zone_of_others
from event_archive.postgres.session import Connection
from event_archive.postgres.statements import identifier
from event_archive.table.shape import Table, reflect
from event_archive.table.uniqueness import outdated_order

TABLE = (
    "table", "time_index", "time_zone", "hypertable", "triggers", "foreign_keys", "row_security", "replication",
    "autovacuum", "partitions",
)  # fmt: skip

_NOW = r"(?:now\(\)|CURRENT_TIMESTAMP(?:\(\d\))?|(?:transaction|statement|clock)_timestamp\(\))"
_IN_A_ZONE = re.compile(
    rf"\(?{_NOW} AT TIME ZONE '(?:(?P<zone>[^']+)'::text|00:00:00'::interval)\)?"
    rf"|timezone\('(?P<named>[^']+)'::text, {_NOW}\)"
)
"""This instant in one time zone, whatever the session's is; as PostgreSQL prints it."""
_HERE = re.compile(rf"{_NOW}|LOCALTIMESTAMP(?:\(\d\))?|CURRENT_DATE")
"""This instant in the session's."""
_AROUND = re.compile(r"NULL|date_trunc\('\w+'::text, |::(timestamp(\(\d\))? without time zone|date)|'[^']*'|[-+(), ]")
"""What neither tells the time nor knows the session's zone: constants, and what is done to such an instant."""


def table(patient: Patient) -> Iterator[Finding]:
    """The table's shape and surroundings."""
    settings = patient.settings
    name = settings.dataset.table
    with reading(services.primary(settings), str(name)) as connection:
        shape = reflect(connection, settings.dataset)
        oid = shape.oid
        yield _shape(connection, shape)
        yield _time_index(shape)
        yield _time_zone(connection, shape, oid)
        yield hypertable(connection, shape)
        yield dependents.triggers(connection, shape)
        yield dependents.foreign_keys(connection, shape, settings.entry.after)
        yield dependents.row_security(connection, oid, name)
        setting = settings.dataset.setting("LOGICAL_MESSAGE_PREFIX")
        yield dependents.replication(connection, shape, settings.logical_message_prefix, setting)
        yield dependents.autovacuum(connection, shape)
        yield partitions(connection, shape)


def _shape(connection: Connection, shape: Table) -> Finding:
    dataset = shape.dataset
    if outdated := outdated_order(connection, shape):
        which = ", ".join(f"{of.name} (version {of.made}, {of.here} by now)" for of in outdated)
        return Finding(
            "table",
            "warning",
            f"{dataset.table}: the order of texts may have changed since the index of its key was made, by {which}: "
            "such an index finds some keys no more, and takes in others twice",
            # Those of all tables, and not refreshed where that fails: once it is, nobody warns any more.
            "Look for keys that stand twice as docs/howto/failed-day.md says, then: REINDEX DATABASE CONCURRENTLY "
            f"{identifier(connection, database_of(connection))}; once that has succeeded: "
            + " ".join(of.refresh for of in outdated),
        )
    key = ", ".join(map(quoted, shape.key))
    kind = "timestamp, taken as UTC" if shape.time_type.startswith("timestamp without") else shape.time_type
    return Finding("table", "good", f"{dataset.table}: key ({key}), time {quoted(dataset.time_column)} ({kind})")


def _time_index(shape: Table) -> Finding:
    column = quoted(shape.dataset.time_column)
    if shape.time_indexed:
        return Finding("time_index", "good", f"a B-tree index begins with {column}")
    return Finding(
        "time_index",
        "warning",
        f"no B-tree index begins with {column}: only a pass over all aged rows finds the days that have some, and "
        "without an index of another kind, or partitions by time, each step of a day reads the whole table",
        shape.missing_index(),
    )


def _time_zone(connection: Connection, shape: Table, oid: int) -> Finding:
    """A default such as ``now()`` depends on the writer's time zone, where the column has none, or names another."""
    zone = zone_of_others(connection)
    default = default_of(connection, oid, shape.dataset.time_column) or ""
    named = sorted({found["zone"] or found["named"] or "UTC" for found in _IN_A_ZONE.finditer(default)})
    # What is left of it may be local time of the session.
    zones = named if not _AROUND.sub("", _IN_A_ZONE.sub("", default)) else [zone]
    if shape.time_type == "timestamp with time zone" or all(is_utc(connection, of) for of in zones):
        found = f"{zone} by default; " if zone else ""
        return Finding("time_zone", "good", f"{found}the pipeline itself always uses UTC")
    if zones == named:
        return Finding(
            "time_zone",
            "warning",
            f"the default of {quoted(shape.dataset.time_column)}, {default}, is local time of {', '.join(named)}; it "
            "is archived as if it were UTC",
            "Let the default be now() AT TIME ZONE 'UTC', and check what writers set.",
        )
    is_ = "is" if zone and not _AROUND.sub("", _HERE.sub("", default)) else "may be"
    begin = f"sessions begin in {zone}" if zone else "this role's time zone hides in which one writers' sessions begin"
    return Finding(
        "time_zone",
        "warning",
        f"{begin}, so that the default of {quoted(shape.dataset.time_column)}, {default}, {is_} "
        "local time where the writer does not say otherwise; it is archived as if it were UTC",
        "Check that writers set the time in UTC, or make the column timestamptz.",
    )

"""What about the archived table makes a purge fail, or slow, or change more than its rows. Only reads."""

from collections.abc import Iterator

from psycopg import sql

from event_archive.config import services
from event_archive.doctor.findings import Finding, Patient
from event_archive.doctor.server import reading
from event_archive.domain.dataset import TableName, quoted
from event_archive.domain.wording import counted
from event_archive.errors import BusyError
from event_archive.nightly.backlog import orphans_told
from event_archive.postgres.catalogue.dependents import (
    delete_triggers,
    publications_of_deletes,
    references,
    without_autovacuum,
    without_replica_identity,
)
from event_archive.postgres.catalogue.privileges import row_security
from event_archive.postgres.catalogue.relations import default_of, relation
from event_archive.postgres.catalogue.server import is_on, setting_of_new_sessions
from event_archive.postgres.session import Connection
from event_archive.table.holds import holds
from event_archive.table.rows import count_orphans
from event_archive.table.shape import Table, reflect

TABLE = (
    "table", "time_index", "time_zone", "triggers", "foreign_keys", "row_security", "replication", "autovacuum",
)  # fmt: skip
ROWS = ("orphans", "holds")

_UTC = {"UTC", "Etc/UTC", "UCT", "Etc/UCT", "GMT", "Etc/GMT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal"}


def table(patient: Patient) -> Iterator[Finding]:
    """The table's shape and surroundings."""
    settings = patient.settings
    name = settings.dataset.table
    with reading(services.primary(settings), str(name)) as connection:
        shape = reflect(connection, settings.dataset)
        found = relation(connection, name.schema, name.name)
        # It is locked, so that it is still there.
        oid = found.oid if found else 0
        yield _shape(shape)
        yield _time_index(shape)
        yield _time_zone(connection, shape, oid)
        yield _triggers(connection, oid)
        yield _foreign_keys(connection, oid)
        yield _row_security(connection, oid, name)
        yield _replication(connection, oid, settings.logical_message_prefix)
        yield _autovacuum(connection, oid)


def rows(patient: Patient) -> Iterator[Finding]:
    """Rows that no night purges: those of no day, and those of held days."""
    dataset, primary = patient.settings.dataset, services.primary(patient.settings)
    try:
        with reading(primary, str(dataset.table)) as connection:
            orphans = count_orphans(connection, reflect(connection, dataset))
    except BusyError as error:
        yield Finding("orphans", "warning", f"rows of no day could not be counted in time: {error}")
    else:
        if orphans:
            yield Finding("orphans", "warning", orphans_told(dataset, orphans))
        else:
            yield Finding("orphans", "good", "every row is of a day")
    held = holds(dataset, primary)
    days = sum((hold.last - hold.first).days + 1 for hold in held)
    yield Finding("holds", "good", counted(days, "day is held", "days are held") if days else "no day is held")


def _shape(shape: Table) -> Finding:
    dataset = shape.dataset
    key = ", ".join(map(quoted, shape.key))
    kind = "timestamp, taken as UTC" if shape.time_type.startswith("timestamp without") else shape.time_type
    return Finding("table", "good", f"{dataset.table}: key ({key}), time {quoted(dataset.time_column)} ({kind})")


def _time_index(shape: Table) -> Finding:
    if shape.time_indexed:
        return Finding("time_index", "good", f"an index begins with {quoted(shape.dataset.time_column)}")
    return Finding(
        "time_index",
        "warning",
        f"no index begins with {quoted(shape.dataset.time_column)}: each day is found by reading the whole table",
        f"{shape.missing_index()};",
    )


def _time_zone(connection: Connection, shape: Table, oid: int) -> Finding:
    """A default such as ``now()`` depends on the writer's time zone, where the column has none."""
    zone = setting_of_new_sessions(connection, "TimeZone")
    default = default_of(connection, oid, shape.dataset.time_column)
    if zone in _UTC or default is None or shape.time_type == "timestamp with time zone":
        return Finding("time_zone", "good", f"{zone} by default; the pipeline itself always uses UTC")
    return Finding(
        "time_zone",
        "warning",
        f"sessions begin in {zone}, so that the default of {quoted(shape.dataset.time_column)}, {default}, is local "
        "time where the writer does not say otherwise; it is archived as if it were UTC",
        "See that writers set the time in UTC, or make the column timestamptz.",
    )


def _triggers(connection: Connection, oid: int) -> Finding:
    found = delete_triggers(connection, oid)
    if not found:
        return Finding("triggers", "good", "none fires on DELETE")
    named = ", ".join(f"{quoted(name)} ({function})" for name, function in found)
    return Finding(
        "triggers",
        "warning",
        f"fires on DELETE: {named}. It may change other rows, which no file holds",
        "See what it does. Let it do nothing where application_name is event_archive, or disable it.",
    )


def _foreign_keys(connection: Connection, oid: int) -> Finding:
    found = references(connection, oid)
    if not found:
        return Finding("foreign_keys", "good", "none refers to the table")
    named, remedies = [], ["Remove or archive referring rows before their events' day is aged."]
    for reference in found:
        referring = TableName(reference.schema, reference.table)
        unserved = "" if reference.indexed else ", which no index serves"
        named.append(f"{quoted(reference.constraint)} of {referring}{unserved}")
        if not reference.indexed:
            index = sql.SQL("CREATE INDEX CONCURRENTLY ON {} ({});").format(
                sql.Identifier(referring.schema, referring.name),
                sql.SQL(", ").join(map(sql.Identifier, reference.columns)),
            )
            remedies.append(index.as_string(None))
    return Finding(
        "foreign_keys",
        "warning",
        f"refers to the table: {'; '.join(named)}. A day with a row still referred to is not purged"
        + (", and without an index each deleted row costs a scan" if len(remedies) > 1 else ""),
        " ".join(remedies),
    )


def _row_security(connection: Connection, oid: int, name: TableName) -> Finding:
    security = row_security(connection, oid)
    if security.applies:
        return Finding(
            "row_security",
            "bad",
            f"policies of {name} may hide rows from {quoted(connection.info.user)}: their days would look done",
            "Connect as a role with BYPASSRLS, or as the table's owner.",
        )
    return Finding("row_security", "good", "does not apply to this role" if security.enabled else "not enabled")


def _replication(connection: Connection, oid: int, prefix: str | None) -> Finding:
    published = ", ".join(map(quoted, publications_of_deletes(connection, oid)))
    if not published:
        return Finding("replication", "good", "no publication carries deletes of the table")
    if without := ", ".join(without_replica_identity(connection, oid)):
        return Finding(
            "replication",
            "bad",
            f"{published} publishes deletes, and {without} has no replica identity: PostgreSQL refuses every delete",
            f"ALTER TABLE {without} REPLICA IDENTITY FULL; or USING INDEX with a unique one.",
        )
    if prefix is not None:
        return Finding("replication", "good", f"{published} publishes deletes, announced by LOGICAL_MESSAGE_PREFIX")
    return Finding(
        "replication",
        "warning",
        f"{published} publishes deletes: subscribers delete what is purged",
        "Set LOGICAL_MESSAGE_PREFIX for consumers to tell purges from other deletes, or publish no deletes "
        "(ALTER PUBLICATION … SET (publish = 'insert, update')).",
    )


def _autovacuum(connection: Connection, oid: int) -> Finding:
    if not (is_on(connection, "autovacuum") and is_on(connection, "track_counts")):
        return Finding(
            "autovacuum",
            "warning",
            "off on this server: the space of deleted rows is never used again",
            "ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET track_counts = on; SELECT pg_catalog.pg_reload_conf();",
        )
    if without := without_autovacuum(connection, oid):
        return Finding(
            "autovacuum",
            "warning",
            f"off for {', '.join(without)}: the space of deleted rows is never used again",
            " ".join(f"ALTER TABLE {name} RESET (autovacuum_enabled);" for name in without),
        )
    return Finding("autovacuum", "good", "on")

"""What hangs on the archived table and may make a purge fail, or slow, or change other rows. Only reads."""

from collections.abc import Sequence

from psycopg import sql

from event_archive.doctor.findings import Finding
from event_archive.domain.dataset import TableName, quoted
from event_archive.postgres.catalogue import dependents as catalogue
from event_archive.postgres.catalogue import privileges
from event_archive.postgres.catalogue.server import is_on
from event_archive.postgres.session import Connection


def triggers(connection: Connection, oid: int) -> Finding:
    """Triggers that fire on DELETE, and event triggers that a read-back fires."""
    found = []
    if named := _named(catalogue.delete_triggers(connection, oid)):
        found.append(f"fires on DELETE: {named}. It may change other rows, which no file holds, or keep these")
    if named := _named(catalogue.ddl_triggers(connection)):
        found.append(f"fires where a file is read back into a temporary table: {named}. It may refuse that")
    if not found:
        return Finding("triggers", "good", "none fires on DELETE, or where a file is read back")
    return Finding(
        "triggers",
        "warning",
        "; ".join(found),
        "Check what it does. Let it do nothing where application_name is event_archive, or disable it.",
    )


def _named(triggers: list[tuple[str, str]]) -> str:
    return ", ".join(f"{quoted(name)} ({function})" for name, function in triggers)


def foreign_keys(connection: Connection, oid: int, after: Sequence[str]) -> Finding:
    """Foreign keys of other tables, and whether an index serves each; ``after`` are the datasets purged first."""
    found = catalogue.references(connection, oid)
    if not found:
        return Finding("foreign_keys", "good", "none refers to the table")
    remedy = (
        "Remove referring rows before their events' day is aged, or archive them first: name their dataset in `after`."
    )
    if after:
        remedy = f"Check that what is purged first ({', '.join(after)}) are the referring tables."
    named, remedies = [], [remedy]
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


def row_security(connection: Connection, oid: int, name: TableName) -> Finding:
    """Whether policies hide rows from this role."""
    security = privileges.row_security(connection, oid)
    if security.applies:
        return Finding(
            "row_security",
            "bad",
            f"policies of {name} may hide rows from {quoted(connection.info.user)}: their days would look done",
            "Connect as a role with BYPASSRLS, or as the table's owner.",
        )
    return Finding("row_security", "good", "does not apply to this role" if security.enabled else "not enabled")


def replication(connection: Connection, oid: int, prefix: str | None, setting: str) -> Finding:
    """Publications that carry the deletes to others; ``setting`` is what the prefix is set by."""
    published = ", ".join(map(quoted, catalogue.publications_of_deletes(connection, oid)))
    if not published:
        return Finding("replication", "good", "no publication carries deletes of the table")
    if without := ", ".join(catalogue.without_replica_identity(connection, oid)):
        return Finding(
            "replication",
            "bad",
            f"{published} publishes deletes, and {without} has no replica identity: PostgreSQL refuses every delete",
            f"ALTER TABLE {without} REPLICA IDENTITY FULL; or USING INDEX with a unique one.",
        )
    if prefix is not None:
        return Finding("replication", "good", f"{published} publishes deletes, announced by {setting}")
    return Finding(
        "replication",
        "warning",
        f"{published} publishes deletes: subscribers delete what is purged",
        f"Set {setting} for consumers to tell purges from other deletes, or publish no deletes "
        "(ALTER PUBLICATION … SET (publish = 'insert, update')).",
    )


def autovacuum(connection: Connection, oid: int) -> Finding:
    """Whether the space of deleted rows is used again."""
    if not (is_on(connection, "autovacuum") and is_on(connection, "track_counts")):
        return Finding(
            "autovacuum",
            "warning",
            "off on this server: the space of deleted rows is never used again",
            "ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET track_counts = on; SELECT pg_catalog.pg_reload_conf();",
        )
    if without := catalogue.without_autovacuum(connection, oid):
        return Finding(
            "autovacuum",
            "warning",
            f"off for {', '.join(without)}: the space of deleted rows is never used again",
            " ".join(f"ALTER TABLE {name} RESET (autovacuum_enabled);" for name in without),
        )
    return Finding("autovacuum", "good", "on")

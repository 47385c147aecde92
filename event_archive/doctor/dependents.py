"""What hangs on the archived table and may make a purge fail, or slow, or change other rows. Only reads."""

from collections.abc import Sequence
from datetime import date

import psycopg
from psycopg import sql

from event_archive.doctor.findings import Finding
from event_archive.domain.dataset import TableName, quoted
from event_archive.domain.days import now_utc
from event_archive.postgres.catalogue import dependents as catalogue
from event_archive.postgres.catalogue import privileges, timescale
from event_archive.postgres.catalogue.relations import relation
from event_archive.postgres.catalogue.server import is_on, role_of
from event_archive.postgres.errors import without_values
from event_archive.postgres.session import Connection
from event_archive.postgres.statements import create_index, exempting, turning_on
from event_archive.table.advice import FILTERED
from event_archive.table.partitions import is_compressed
from event_archive.table.rows import first_day_with_rows
from event_archive.table.shape import Table
from event_archive.table.windows import letting_go, windows


def triggers(connection: Connection, shape: Table) -> Finding:
    """Triggers that fire on DELETE, and event triggers that a read-back fires."""
    found = []
    if named := in_words(catalogue.delete_triggers(connection, shape.oid)):
        if not is_on(connection, "track_counts"):
            return Finding(
                "triggers",
                "bad",
                f"fires on DELETE: {named}. track_counts is off, so that nobody can tell what it changes in the table, "
                "and no day is purged",
                "Turn track_counts on, or disable the trigger.",
            )
        if day := _compressed_day(connection, shape):
            return Finding(
                "triggers",
                "bad",
                f"fires on DELETE: {named}. A chunk of {day} is compressed, so that nobody can tell what the trigger "
                "changes in it, and such a day is not purged",
                "Decompress the chunks of days that are aged (decompress_chunk), or disable the trigger.",
            )
        found.append(f"fires on DELETE: {named}. It may change other rows, which no file holds, or keep these")
    if named := in_words(catalogue.ddl_triggers(connection)):
        found.append(f"fires where a file is read back into a temporary table: {named}. It may refuse that")
    if not found:
        return Finding("triggers", "good", "none fires on DELETE, or where a file is read back")
    return Finding(
        "triggers",
        "warning",
        "; ".join(found),
        f"Check what it does. {exempting(connection)}, or disable it.",
    )


def _compressed_day(connection: Connection, shape: Table) -> date | None:
    """The first aged day that has rows, where a chunk of it is compressed."""
    if not shape.is_hypertable:
        return None
    dataset = shape.dataset
    try:
        day = first_day_with_rows(connection, shape, dataset.start, dataset.retention.last_aged_day(now_utc()))
    except psycopg.errors.QueryCanceled:
        return None
    return day if day and is_compressed(connection, shape, day) else None


def in_words(triggers: list[tuple[str, str]]) -> str:
    """Triggers and their functions, for messages."""
    return ", ".join(f"{quoted(name)} ({function})" for name, function in triggers)


def foreign_keys(connection: Connection, shape: Table, after: Sequence[str]) -> Finding:
    """Foreign keys of other tables, and whether an index serves each; ``after`` are the datasets purged first."""
    found = catalogue.references(connection, shape.oid)
    hypertables = {(of.schema, of.table): False for of in found}
    name = shape.dataset.table
    if (table := relation(connection, name.schema, name.name)) and table.has_timescaledb:
        hypertables = timescale.hypertables_among(connection, list(hypertables))
        # Each chunk has a copy of its hypertable's.
        found = [of for of in found if (of.schema, of.table) in hypertables]
    if not found:
        return Finding("foreign_keys", "good", "none refers to the table")
    remedy = (
        "Remove referring rows before their events' day is aged, or archive them first: name their dataset in `after`."
    )
    if after:
        remedy = f"Check that what is purged first ({', '.join(after)}) are the referring tables."
    named, remedies = [], [remedy] if any(not reference.is_own for reference in found) else []
    if any(reference.is_own for reference in found):
        # Younger rows are in no file yet: nobody is told to remove them.
        remedies.append(
            "Drop the table's foreign key to itself: a row is not purged before the younger ones that refer to it."
        )
    for reference in found:
        referring = TableName(reference.schema, reference.table)
        unserved = "" if reference.indexed else ", which no index serves"
        named.append(f"{quoted(reference.constraint)} of {referring}{unserved}")
        if not reference.indexed:
            is_hypertable = hypertables[reference.schema, reference.table]
            remedies.append(
                create_index(
                    reference.schema,
                    reference.table,
                    reference.columns,
                    is_partitioned=reference.is_partitioned or is_hypertable,
                    is_hypertable=is_hypertable,
                )
            )
    return Finding(
        "foreign_keys",
        "warning",
        f"refers to the table: {'; '.join(named)}. A day with a row still referred to is not purged"
        + (", and without an index each deleted row costs a scan" if not all(of.indexed for of in found) else ""),
        " ".join(remedies),
    )


def row_security(connection: Connection, oid: int, name: TableName) -> Finding:
    """Whether policies hide rows from this role."""
    security = privileges.row_security(connection, oid)
    if security.applies:
        return Finding(
            "row_security",
            "bad",
            f"policies of {name} may hide rows from {quoted(role_of(connection))}, whose runs are refused: days would "
            "look done",
            "Connect as a role with BYPASSRLS, or as the table's owner where row security is not forced on it.",
        )
    return Finding("row_security", "good", "does not apply to this role" if security.enabled else "not enabled")


def replication(connection: Connection, shape: Table, prefix: str | None, setting: str) -> Finding:
    """Publications that carry the deletes to others; ``setting`` is what the prefix is set by."""
    oid = shape.oid
    published = ", ".join(map(quoted, catalogue.publications_of_deletes(connection, oid)))
    if not published:
        return Finding("replication", "good", "no publication carries deletes of the table")
    if without := catalogue.without_replica_identity(connection, oid):
        have = f"{', '.join(without)} {'has' if len(without) == 1 else 'have'}"
        return Finding(
            "replication",
            "bad",
            f"{published} publishes deletes, and {have} no replica identity: PostgreSQL refuses every delete",
            " ".join(f"ALTER TABLE {name} REPLICA IDENTITY FULL;" for name in without)
            + " Or USING INDEX with a unique one.",
        )
    if refused := _refused(connection, shape):
        return Finding("replication", "bad", f"{published} publishes deletes. PostgreSQL says: {refused}", FILTERED)
    if prefix is not None:
        return Finding("replication", "good", f"{published} publishes deletes, announced by {setting}")
    return Finding(
        "replication",
        "warning",
        f"{published} publishes deletes: subscribers delete what is purged",
        f"Set {setting} for consumers to tell purges from other deletes, or publish no deletes "
        "(ALTER PUBLICATION … SET (publish = 'insert, update')).",
    )


def _refused(connection: Connection, shape: Table) -> str | None:
    """What PostgreSQL says where a filter or the columns of a publication keep aged rows from being deleted."""
    last_aged = shape.dataset.retention.last_aged_day(now_utc())
    for first, last in windows(connection, shape, shape.dataset.start, last_aged):
        # EXPLAIN begins the DELETE, which looks at the publications of each partition, and does nothing of it.
        query = sql.SQL("EXPLAIN DELETE FROM {} WHERE {}").format(shape.rows, shape.within(first, last))
        try:
            with letting_go(connection):
                connection.execute(query)
        except psycopg.errors.InvalidColumnReference as error:
            return without_values(error)
        except psycopg.Error:
            # Of a privilege, a standby, a lock, other checks tell.
            return None
    return None


def autovacuum(connection: Connection, shape: Table) -> Finding:
    """Whether the space of deleted rows is used again."""
    dataset, user = shape.dataset, quoted(role_of(connection))
    is_vacuumed = dataset.vacuum and not shape.is_partitioned
    may_not = is_vacuumed and not privileges.may_vacuum(connection, shape.oid)
    space = "the space of deleted rows is never used again"
    if is_vacuumed and not may_not:
        space = f"nothing but a purge ({dataset.setting('EVENT_VACUUM')}) vacuums the table"
    if off := [setting for setting in ("autovacuum", "track_counts") if not is_on(connection, setting)]:
        return Finding(
            "autovacuum",
            "warning",
            f"{' and '.join(off)} off: {space}",
            " ".join(turning_on(connection, setting) for setting in off),
        )
    if without := catalogue.without_autovacuum(connection, shape.oid):
        return Finding(
            "autovacuum",
            "warning",
            f"off for {', '.join(without)}: {space}",
            " ".join(f"ALTER TABLE {name} RESET (autovacuum_enabled, toast.autovacuum_enabled);" for name in without),
        )
    if may_not:
        return Finding(
            "autovacuum",
            "warning",
            f"{user} may not vacuum {dataset.table}, as {dataset.setting('EVENT_VACUUM')} asks for",
            f"Give it {privileges.to_vacuum(connection)}, or unset that.",
        )
    return Finding("autovacuum", "good", "on")

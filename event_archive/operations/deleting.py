"""The DELETE of a day's rows, and the look at what else it did. Not here: proof, locks and commit (``purge``).

Where triggers fire, rows are compared before the first one does: what a trigger sets, if only for a while, as how
values are written, must not change what is found identical. The DELETE then takes the versions that were compared.
"""

import logging
from contextlib import nullcontext
from datetime import date

from psycopg import sql

from event_archive.domain.dataset import quoted
from event_archive.domain.wording import counted
from event_archive.errors import BusyError, IntegrityError, RefusedError
from event_archive.operations.readback import Readback
from event_archive.postgres.catalogue import dependents
from event_archive.postgres.catalogue.dependents import Changes
from event_archive.postgres.catalogue.server import is_on
from event_archive.postgres.pins import own_search_path, unpinned
from event_archive.postgres.session import Connection, one
from event_archive.postgres.statements import exempting
from event_archive.table.partitions import is_compressed
from event_archive.table.rows import count_day
from event_archive.table.shape import TABLE_ALIAS, Table
from event_archive.table.uniqueness import MEND_INDEX

logger = logging.getLogger(__name__)

_VERSIONS = sql.Identifier("pg_temp", "event_archive_versions")
"""The temporary table of the versions of rows that were found identical."""


def delete_identical(connection: Connection, table: Table, day: date, readback: Readback, path: str) -> int:
    """Deletes the rows that the file holds, sees that nothing else was done to the table, and returns how many.

    Args:
        connection: in the transaction of the purge, which has locked the table.
        table: its shape.
        day: the day.
        readback: of its file.
        path: of the file, for messages.

    Raises:
        IntegrityError, RefusedError: something else was done than to delete them. The transaction must be rolled back.
        BusyError: the table got a trigger meanwhile; likewise.
    """
    before, tree = dependents.changes(connection, table.oid), dependents.tree(connection, table.oid)
    has_triggers = bool(dependents.delete_triggers(connection, table.oid))
    if has_triggers:
        _require_versions(connection, table, day)
        statement = _compared_before(connection, table, day, readback)
    else:
        statement = sql.SQL("DELETE FROM {} USING {} WHERE {} AND {}").format(
            table.rows, readback.current, table.within(day, day), readback.identical
        )
    # Triggers, deferred ones too, find what they name. Without any, values keep the text that they have in the file.
    with own_search_path(connection) if has_triggers else nullcontext():
        deleted = connection.execute(statement).rowcount
        dependents.fire_deferred_triggers(connection)
        changed = unpinned(connection)
    # A partition was not locked before the DELETE, nor is one that is attached. Now none of its own can come.
    if not has_triggers and dependents.delete_triggers(connection, table.oid):
        raise BusyError(
            f"{table.dataset.table}, {day}: the table got a trigger on DELETE while its rows and the file were "
            "compared. Rolled back: nothing was deleted. Try again: the next run does."
        )
    if changed:
        raise RefusedError(
            f"{table.dataset.table}, {day}: a trigger on DELETE set {', '.join(changed)} while rows and file were "
            "compared, and different values may have had the same text. Rolled back: nothing was deleted. Let its "
            f"function set that for itself alone: ALTER FUNCTION … SET {changed[0]} TO …."
        )
    current = readback.rows - readback.superseded
    if deleted > current:
        raise IntegrityError(
            f"{table.dataset.table}, {day}: {deleted} rows are identical to {current} current rows of {path}: some "
            "have one key, which a unique index should have prevented: it is damaged.",
            outcome="Rolled back: nothing was deleted.",
            advice=MEND_INDEX,
        )
    # TRUNCATE and DROP count no rows.
    if dependents.locks_out(connection, tree):
        raise RefusedError(
            f"{table.dataset.table}, {day}: a trigger on DELETE truncated, dropped, detached or altered the table or "
            f"a partition of it. Rolled back: nothing was deleted. {exempting(connection)}, or disable it."
        )
    _require_only_deleted(connection, table, day, dependents.changes(connection, table.oid) - before, deleted)
    return deleted


def _require_versions(connection: Connection, table: Table, day: date) -> None:
    """Checks that every row of the day has a version to go by, as one of a compressed chunk has not.

    Raises:
        RefusedError: the day's chunk is compressed.
    """
    if is_compressed(connection, table, day):
        triggers = _triggers(connection, table)
        raise RefusedError(
            f"{table.dataset.table}, {day}: chunks of it are compressed, and a DELETE writes anew what it "
            f"decompresses: nobody can tell that from what its triggers on DELETE ({triggers}) change in it. "
            "Nothing was deleted. Decompress the day's chunks (decompress_chunk), or disable the triggers."
        )


def _triggers(connection: Connection, table: Table) -> str:
    return ", ".join(quoted(name) for name, _ in dependents.delete_triggers(connection, table.oid))


def _compared_before(connection: Connection, table: Table, day: date, readback: Readback) -> sql.Composed:
    """The DELETE of the rows that are identical at this moment; a row that is updated since stays."""
    with own_search_path(connection):
        connection.execute(
            sql.SQL(
                "CREATE TEMPORARY TABLE {0} (table_ pg_catalog.oid, place_ pg_catalog.tid, writer_ pg_catalog.xid) "
                "ON COMMIT DROP; ALTER TABLE {0} DISABLE TRIGGER USER"
            ).format(_VERSIONS)
        )
    connection.execute(
        sql.SQL("INSERT INTO {} SELECT {src}.tableoid, {src}.ctid, {src}.xmin FROM {}, {} WHERE {} AND {}").format(
            _VERSIONS,
            table.rows,
            readback.current,
            table.within(day, day),
            readback.identical,
            src=TABLE_ALIAS,
        )
    )
    connection.execute(sql.SQL("ANALYZE {}").format(_VERSIONS))
    return sql.SQL(
        "DELETE FROM {} USING {} AS proven_ WHERE {} AND {src}.tableoid OPERATOR(pg_catalog.=) proven_.table_ "
        "AND {src}.ctid OPERATOR(pg_catalog.=) proven_.place_ AND {src}.xmin OPERATOR(pg_catalog.=) proven_.writer_"
    ).format(table.rows, _VERSIONS, table.within(day, day), src=TABLE_ALIAS)


def _require_only_deleted(connection: Connection, table: Table, day: date, changes: Changes, deleted: int) -> None:
    """Checks that the DELETE led to nothing else in the table, as a trigger may.

    Raises:
        RefusedError: it did, or nobody can tell.
    """
    tracked = is_on(connection, "track_counts")
    if tracked and changes == Changes(inserted=0, updated=0, deleted=deleted):
        return
    triggers = _triggers(connection, table)
    # To decompress rows is to insert them; and a batch of them may be deleted as one.
    if not triggers and (not tracked or is_compressed(connection, table, day)):
        return
    if not tracked:
        problem = f"track_counts is off, so that nobody can tell what its triggers on DELETE ({triggers}) change in it"
        what_to_do = "Turn track_counts on."
    else:
        problem = (
            f"deleting {counted(deleted, 'row', 'rows')} of the day led to {changes.inserted} inserted, "
            f"{changes.updated} updated and {changes.deleted} deleted in this table, or to the attempt: a trigger on "
            f"DELETE ({triggers or 'none is seen'}) does something else than to let rows go"
        )
        what_to_do = f"{exempting(connection)}, or disable it."
    raise RefusedError(f"{table.dataset.table}, {day}: {problem}. Rolled back: nothing was deleted. {what_to_do}")


def rows_left(connection: Connection, table: Table, day: date, readback: Readback) -> tuple[int, str | None]:
    """Counts the rows of the day that a DELETE has left, and warns of them; says why some stay that the file holds."""
    left = count_day(connection, table, day).rows
    kept, why = 0, None
    if left:
        # By the rows of the day: an index of the key that is damaged would not find those that the DELETE did not find.
        query = sql.SQL(
            "SELECT count(*) FROM (SELECT * FROM {rows} WHERE {window} OFFSET 0) AS {row}, {current} WHERE {identical}"
        ).format(
            rows=table.rows,
            window=table.within(day, day),
            row=TABLE_ALIAS,
            current=readback.current,
            identical=readback.identical,
        )
        kept = one(connection, query)[0]
    if kept:
        triggers = _triggers(connection, table)
        why = f"{counted(kept, 'row stays', 'rows stay')} although the file holds them: " + (
            f"a trigger of the table keeps them from being deleted ({triggers}), and will again, "
            "or they were written anew meanwhile"
            if triggers
            else "they were written anew meanwhile, and the next run deletes them; if it does not, an index is "
            "damaged: REINDEX the table"
        )
        logger.warning("%s, %s: %s.", table.dataset.table, day, why)
    if left > kept:
        warn_of_left(table, day, left - kept)
    return left, why


def warn_of_left(table: Table, day: date, left: int) -> None:
    """Warns of rows that stay because the file does not hold them."""
    logger.warning(
        "%s, %s: %s: the file does not hold them in their present form. The next run appends them.",
        table.dataset.table,
        day,
        counted(left, "row stays", "rows stay"),
    )

"""What a file and a target must be for a restore to lose nothing. Not here: keys, what types would lose."""

from datetime import date

from psycopg import sql

from event_archive.domain.dataset import Dataset, key_named, quoted
from event_archive.domain.days import now_utc
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError, RefusedError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.loading import count_keyless
from event_archive.operations.readback import READBACK, Readback
from event_archive.operations.restore.losses import TABLE_OF_YOUR_OWN
from event_archive.postgres.catalogue import dependents
from event_archive.postgres.catalogue.dependents import Changes
from event_archive.postgres.catalogue.server import is_on
from event_archive.postgres.session import Connection, one
from event_archive.postgres.statements import exempting
from event_archive.table.shape import TABLE_ALIAS, TIME_TYPES, Table


def require_parsed(connection: Connection, readback: Readback, file: StoredFile) -> None:
    """Refuses a file that does not fit the target by its values or its key. The target itself is not looked at.

    Raises:
        RefusedError: values do not parse as the target's types, or rows have no key.
    """
    target = readback.table.dataset.table
    if readback.as_text:
        raise RefusedError(f"{file.path}: its values do not all parse as the types of {target}. {TABLE_OF_YOUR_OWN}")
    lacking = [quoted(name) for name in readback.table.key if name not in readback.columns]
    if lacking:
        raise RefusedError(
            f"{file.path}: it lacks {', '.join(lacking)}, which the key of {target} needs. Nothing was restored. "
            "Restore it into a table of your own making, with a key that the file has: --table NAME."
        )
    if keyless := count_keyless(connection, readback):
        have = counted(keyless, "row of it lacks", "rows of it lack")
        raise RefusedError(
            f"{file.path}: {have} a value of the key of {target}, {key_named(readback.table.key)}. "
            "Restore it into a table of your own making, with a key that all rows have: --table NAME; or load it into "
            "a table without a key, by \\copy."
        )


def require_of_the_day(
    connection: Connection, dataset: Dataset, day: date, readback: Readback, file: StoredFile
) -> None:
    """Refuses rows that would go back into the source as those of other days, whose files may hold newer forms of them.

    Nor would a hold on the file's day keep them.

    Raises:
        RefusedError: by the column that says so today, rows of the file are not of its day, or of none, as where they
            were archived by another one.
    """
    table = readback.table
    if table.dataset.table != dataset.table or table.time_type not in TIME_TYPES:
        return
    query = sql.SQL(
        "SELECT pg_catalog.count(*) FILTER (WHERE ({0}) IS NULL), pg_catalog.count(*) FILTER (WHERE NOT ({0})) "
        "FROM {1} AS {2} WHERE {3} OPERATOR(pg_catalog.>) 0"
    ).format(table.within(day, day), READBACK, TABLE_ALIAS, readback.line)
    timeless, others = one(connection, query)
    if timeless:
        raise RefusedError(
            f"{file.path}: {counted(timeless, 'row of it has', 'rows of it have')} no {quoted(dataset.time_column)}, "
            "by which rows are archived, as where that was renamed, or is another column by now. Nothing was restored: "
            f"no night would purge them from {dataset.table} again. Restore into another table: --table NAME."
        )
    if others:
        raise RefusedError(
            f"{file.path}: {counted(others, 'row of it is', 'rows of it are')} not of {day} by "
            f"{quoted(dataset.time_column)}. Nothing was restored: another day's file may hold a newer form of what "
            f"would go back into {dataset.table}. Restore into another table: --table NAME."
        )


def require_no_other_rows(
    connection: Connection, dataset: Dataset, day: date, readback: Readback, file: StoredFile
) -> None:
    """Refuses a target in which rows with other values stand under keys of the file.

    What stands in the source may be a row's last form, of which no file knows yet: nobody is told to remove it.

    Raises:
        IntegrityError: there are such rows.
    """
    target = readback.table.dataset.table
    query = sql.SQL("SELECT count(*) FROM {}, {} WHERE {} AND NOT ({})").format(
        readback.table.rows, readback.current, readback.same_key, readback.identical
    )
    if differing := one(connection, query)[0]:
        rows = counted(differing, "row with other values stands", "rows with other values stand")
        can_be_run = target == dataset.table and dataset.is_aged(day, now_utc())
        again = dataset.command(f"run {day}")
        archive_first = f"Where it was changed since, archive the day again, which keeps its new form: {again}. "
        raise IntegrityError(
            f"{file.path}: {rows} in {target} under a key ({', '.join(map(quoted, readback.table.key))}) of the file. "
            "Nothing of this day was restored; a row that stands is never changed. "
            f"{archive_first if can_be_run else ''}Where a row was moved to another day after it was "
            "archived, both days' files hold it. Restore this day into another table with --table, and compare the two."
        )


def require_only_inserted(
    connection: Connection, table: Table, changes: Changes, restored: int, *, truncated: bool
) -> None:
    """Checks that the INSERT led to nothing else in the target, as a trigger may.

    Args:
        connection: in the transaction of the restore.
        table: the target.
        changes: in it, and in its partitions, since before the INSERT.
        restored: rows inserted.
        truncated: whether it locked others out of one of them, as TRUNCATE and DROP do, which count no rows.

    Raises:
        RefusedError: it did, or nobody can tell.
    """
    triggers = ", ".join(map(quoted, dependents.insert_triggers(connection, table.oid)))
    if truncated:
        problem = f"a trigger on INSERT ({triggers}) truncated, dropped, detached or altered the table or a part of it"
    elif is_on(connection, "track_counts"):
        # Where TimescaleDB decompresses rows that stand, it inserts them anew.
        added = 0 if table.is_hypertable else changes.inserted - restored
        if not (added or changes.updated or changes.deleted):
            return
        problem = (
            f"restoring {counted(restored, 'row', 'rows')} led to {added} inserted beside them, {changes.updated} "
            f"updated and {changes.deleted} deleted in this table, or to the attempt: a trigger on INSERT "
            f"({triggers or 'none is seen'}) does something else than to let rows in"
        )
    elif triggers:
        problem = f"track_counts is off, so that nobody can tell what its triggers on INSERT ({triggers}) change in it"
    else:
        return
    raise RefusedError(
        f"{table.dataset.table}: {problem}. Rolled back: nothing of this day was restored. "
        f"{exempting(connection)}, or restore into another table: --table NAME."
    )

"""What a file and a target must be for a restore to lose nothing. Not here: the restore, what types would lose."""

import logging
from collections.abc import Mapping, Sequence

from psycopg import sql

from event_archive.domain.dataset import Dataset, TableName, quoted
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError, RefusedError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.readback import READBACK, Readback
from event_archive.postgres.session import Connection, one
from event_archive.table.shape import key_of

logger = logging.getLogger(__name__)

_TABLE_OF_YOUR_OWN = "Restore it into a table of your own making, with text for the columns in question: --table NAME."


def require_parsed(connection: Connection, readback: Readback, file: StoredFile) -> None:
    """Refuses a file that does not fit the target by its values or its key. The target itself is not looked at.

    Raises:
        RefusedError: values do not parse as the target's types, or rows have no key.
    """
    target = readback.table.dataset.table
    if readback.as_text:
        raise RefusedError(f"{file.path}: its values do not all parse as the types of {target}. {_TABLE_OF_YOUR_OWN}")
    lacking = [quoted(name) for name in readback.table.key if name not in readback.columns]
    if lacking:
        raise RefusedError(
            f"{file.path}: it lacks {', '.join(lacking)}, which the key of {target} needs. Nothing was restored. "
            "Restore it into another table: --table NAME."
        )
    keyless = one(
        connection,
        sql.SQL("SELECT count(*) FROM {} WHERE pg_catalog.num_nulls({}) > 0").format(
            READBACK, sql.SQL(", ").join(map(sql.Identifier, readback.table.key))
        ),
    )[0]
    if keyless:
        named = ", ".join(map(quoted, readback.table.key))
        raise RefusedError(
            f"{file.path}: {counted(keyless, 'row of it has', 'rows of it have')} no {named}, the key of {target}. "
            "Restore it into a table of your own making, with a key that all rows have: --table NAME."
        )


def require_no_other_rows(connection: Connection, readback: Readback, file: StoredFile) -> None:
    """Refuses a target in which rows with other values stand under keys of the file.

    Raises:
        IntegrityError: there are such rows.
    """
    target = readback.table.dataset.table
    differing = one(
        connection,
        sql.SQL("SELECT count(*) FROM {}, {} WHERE {} AND NOT ({})").format(
            readback.table.rows, readback.current, readback.same_key, readback.identical
        ),
    )[0]
    if differing:
        rows = counted(differing, "row with other values stands", "rows with other values stand")
        raise IntegrityError(
            f"{file.path}: {rows} in {target} under a key ({', '.join(map(quoted, readback.table.key))}) of the file. "
            "Nothing of this day was restored; a row that stands is never changed. Where a row was moved to another "
            "day after it was archived, both days' files hold it. Restore this day into another table with --table, "
            "and compare the two, or remove those rows."
        )


def require_one_row_a_key(connection: Connection, dataset: Dataset, readback: Readback, file: StoredFile) -> None:
    """Refuses a target whose key would merge rows that the source's key tells apart, or tell apart forms of one row.

    Raises:
        IntegrityError: there are such rows in the file.
    """
    key = [column.name for column in key_of(connection, dataset.table)]
    names = [name for name in key if name in readback.columns]
    same = _same_key(readback, names)
    if readback.superseded and names:
        _require_none_merged(connection, dataset, readback, file, names, same)
    if names and names == key and not set(readback.table.key) <= set(names):
        _require_none_split(connection, dataset, readback, file, names, same)


def _same_key(readback: Readback, names: Sequence[str]) -> sql.Composable:
    # A column that is no key of the target, or was read as text, is compared as its plain type is.
    equality = {
        column.name: column.equality for column in readback.table.key_columns if column.name not in readback.as_text
    }
    return sql.SQL(" AND ").join(
        sql.SQL("later_.{0} OPERATOR({1}) earlier_.{0}").format(
            sql.Identifier(name), sql.SQL(equality.get(name, "pg_catalog.="))
        )
        for name in names
    )


def _require_none_split(
    connection: Connection,
    dataset: Dataset,
    readback: Readback,
    file: StoredFile,
    names: Sequence[str],
    same: sql.Composable,
) -> None:
    old = one(
        connection,
        sql.SQL(
            "SELECT count(*) FROM {readback} AS earlier_ WHERE {line} > 0 AND EXISTS (SELECT FROM {readback} AS later_ "
            "WHERE later_.{line} > earlier_.{line} AND {same})"
        ).format(readback=READBACK, line=readback.line, same=same),
    )[0]
    if old:
        table = readback.table
        raise IntegrityError(
            f"{file.path}: {counted(old, 'row', 'rows')} of it would come back to {table.dataset.table} beside a later "
            f"form, whose key is ({', '.join(map(quoted, table.key))}): by the key of {dataset.table}, "
            f"({', '.join(map(quoted, names))}), the later one replaces it. Restore into a table with that key: "
            "--table NAME."
        )


def _require_none_merged(
    connection: Connection,
    dataset: Dataset,
    readback: Readback,
    file: StoredFile,
    names: Sequence[str],
    same: sql.Composable,
) -> None:
    key = sql.SQL(", ").join(map(sql.Identifier, names))
    lost = one(
        connection,
        sql.SQL(
            "SELECT count(*) FROM {readback} AS earlier_ WHERE {line} < 0 AND pg_catalog.num_nulls({key}) = 0 "
            "AND NOT EXISTS (SELECT FROM {readback} AS later_ WHERE later_.{line} > 0 AND {same})"
        ).format(readback=READBACK, line=readback.line, key=key, same=same),
    )[0]
    if lost:
        table = readback.table
        raise IntegrityError(
            f"{file.path}: {counted(lost, 'row', 'rows')} of it would be lost in {table.dataset.table}, whose key is "
            f"({', '.join(map(quoted, table.key))}): {dataset.table} tells them apart by "
            f"({', '.join(map(quoted, names))}). Restore into a table with that key: --table NAME."
        )


def report_losses(target: TableName, lost: Mapping[str, int], file: StoredFile, *, by_us: bool) -> None:
    """Refuses a file whose values today's types would cut short; of another tool's file it only warns.

    Args:
        target: the table that is filled.
        lost: in how many rows each column would lose something; empty where nothing is lost.
        file: the file.
        by_us: whether this pipeline wrote it.

    Raises:
        RefusedError: values that this pipeline archived would lose something.
    """
    if not lost:
        return
    columns = ", ".join(f"{quoted(name)} ({counted(rows, 'row', 'rows')})" for name, rows in lost.items())
    found = f"{file.path}: values of it would lose something as the types of {target}: {columns}"
    if by_us:
        raise RefusedError(f"{found}. Nothing of this day was restored. {_TABLE_OF_YOUR_OWN}")
    logger.warning("%s. They are restored as they read", found)

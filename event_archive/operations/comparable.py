"""Whether a file's rows can be told from the table's, so that none becomes a second one: refused where nobody can tell.

Not here: what is done once they can (``archive``), whether a restore can tell its forms apart (``restore.keys``).
"""

import logging
from collections.abc import Sequence
from datetime import date

from psycopg import sql

from event_archive.domain.dataset import key_named
from event_archive.domain.keys import names_now, numbers_in
from event_archive.domain.manifest import Key, Manifest
from event_archive.domain.progress import Progress
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.digests import differ, digest
from event_archive.operations.export import rows_of_day
from event_archive.operations.readback import ARCHIVED, Readback
from event_archive.operations.verbatim import VERBATIM, load_verbatim
from event_archive.operations.writing import Order
from event_archive.postgres.session import Connection, is_whole, one
from event_archive.table.advice import tell_forms_apart
from event_archive.table.shape import Table, require_unchanged

logger = logging.getLogger(__name__)

_OUTCOME = "Nothing was written or deleted."
_LATE = sql.Identifier("late_")
_NEW = """({rows}) AS {late}
WHERE NOT EXISTS (SELECT FROM {file} AS {archived} WHERE {present} OPERATOR(pg_catalog.=) {late_present})"""
_FOUND = """
SELECT pg_catalog.count(*) FROM (SELECT {late_values} AS values_ FROM {rows}) AS of_row_
JOIN (SELECT {values} AS values_ FROM {file} AS {archived} WHERE {are_known}) AS known_
ON known_.values_ OPERATOR(pg_catalog.=) of_row_.values_
"""
_COUNTS = """
SELECT pg_catalog.count(*) FILTER (WHERE known_.keyless_), pg_catalog.count(*) FILTER (WHERE known_.keyed_)
FROM (SELECT {late_values} AS values_ FROM {rows}) AS of_row_ JOIN (
  SELECT {values} AS values_,
         pg_catalog.bool_or(NOT {has_key}) AS keyless_, pg_catalog.bool_or({has_key}) AS keyed_
  FROM {file} AS {archived} WHERE {are_known} GROUP BY 1
) AS known_ ON known_.values_ OPERATOR(pg_catalog.=) of_row_.values_
"""


def require_known_key(
    connection: Connection,
    readback: Readback,
    manifest: Manifest,
    order: Order,
    file: StoredFile,
    progress: Progress,
) -> None:
    """Refuses a file of ours whose rows lack the table's key, where rows of the table may stand in it already.

    They would be appended once more, and no restore could tell them from second rows.

    Raises:
        IntegrityError: the file has no key in common with the table, or rows of the table have a former key of rows in
            it, or may be rows of it where no key tells.
    """
    table, day = readback.table, order.day
    of_table, present = frozenset(table.names), set(table.key)
    missing = ", ".join(readback.lacks_of_key)
    unparsed = (
        f"the key of {counted(readback.unparsed, 'row', 'rows')} in it does not parse as {table.dataset.table} has it"
    )
    now = names_now(numbers_in(manifest, order.claim.source, table.oid), table.numbers)
    by_now = [(key, tuple(now.get(name, name) for name in key)) for key in manifest.keys]
    renamed = [(key, names) for key, names in by_now if names != key and of_table.issuperset(names)]
    former = [(key, names) for key, names in by_now if set(key) != present]
    is_compared = any(of_table.issuperset(names) and set(names) != present for _, names in former)
    if missing and (renamed or not is_compared):
        raise _without_key(table, day, file, missing, manifest.keys, renamed)
    if readback.unparsed and is_compared:
        raise _doubt(table, day, f"{file.path}: {unparsed}, and rows of the table may have a former one of such rows")
    # Where these are others, the file calls them by the names of the present key. What is gone has left the name.
    meant = tuple(now.get(name) or name for name in table.key)
    # Likewise where a column of the present key had another name.
    is_other = meant != table.key or not present.isdisjoint(other for name, other in now.items() if other != name)
    if readback.unparsed and not is_other:
        logger.warning(
            "%s: %s: where such a row stands in the table by now under another key, it is appended once more, and no "
            "restore can tell that from a second row",
            file.path,
            unparsed,
        )
    if not (is_other or former):
        return
    # The file may be read once more before the table is: until then nobody waits.
    with connection.transaction(force_rollback=True):
        if is_other:
            # A row whose key does not parse stands in no read-back.
            load_verbatim(connection, readback, order.site.lake, file, progress)
        require_unchanged(connection, table, "archive")
        # Where PostgreSQL takes all rows but a few for known, it would compare each with each.
        connection.execute("SET LOCAL enable_nestloop TO off")
        if is_other:
            _require_none_of(connection, readback, day, file, by_now, meant)
        new = sql.SQL("SELECT pg_catalog.count(*) FROM {}").format(_new(connection, readback, day))
        if not (former and one(connection, new)[0]):
            return
        for key, names in former:
            if of_table.issuperset(names) and not (names == key and set(key) > present):
                _require_others(connection, readback, day, file, key, names)
        if not any(of_table.issuperset(names) for _, names in former):
            _require_unlike(connection, readback, day, file, [key for key, _ in former])


def _require_none_of(
    connection: Connection, readback: Readback, day: date, file: StoredFile, keys: Sequence[tuple[Key, Key]], meant: Key
) -> None:
    """Refuses rows to append that have a key of rows in the file, where that calls other columns by the key's names.

    Args:
        connection: in a transaction, in which ``load_verbatim`` has read the file.
        readback: of the file.
        day: of both.
        file: the file.
        keys: of the file, and what their columns are called by now.
        meant: what the file calls by the names of the present key. Rows with the same values under both, or none
            there, are known by the present key, in the table and in the file.

    Raises:
        IntegrityError: there are such rows.
    """
    table = readback.table
    rows = sql.SQL("({}) AS {}").format(rows_of_day(connection, table, day, table.names, unless=readback), _LATE)
    is_moved = meant != table.key
    if is_moved:
        rows = sql.SQL("{} WHERE {} AND {}").format(rows, is_whole(meant), differ(_LATE, meant, table.key))
    renamed = [(key, names) for key, names in keys if set(names) == set(table.key) != set(key)]
    in_doubt = [] if is_moved or readback.lacks_of_key else [differ(ARCHIVED, *of) for of in renamed]
    of_file = [(VERBATIM, key, names) for key, names in keys if set(names) <= set(table.names)]
    for relation, key, names in (*of_file, (readback.relation, table.key, table.key)):
        query = sql.SQL(_FOUND).format(
            late_values=digest(_LATE, names),
            rows=rows,
            values=digest(ARCHIVED, key),
            file=relation,
            archived=ARCHIVED,
            are_known=sql.SQL(" AND ").join([is_whole(key), *in_doubt]),
        )
        if one(connection, query)[0]:
            former, by_now = (table.key, meant) if is_moved else (renamed or keys)[0]
            called = f"what it calls {key_named(former)} is called {key_named(by_now)} by now"
            raise _doubt(table, day, f"{file.path}: {called}, and {_in_both(key, names)}")


def _require_others(
    connection: Connection, readback: Readback, day: date, file: StoredFile, key: Key, names: Key
) -> None:
    """Refuses rows to append that have a former key of rows in the file; only warns of such with another present key.

    The columns of ``key``, the former one, are called ``names`` by now.

    Raises:
        IntegrityError: the rows in the file lack a value of the present key, or rows to append would one of the former.
    """
    table = readback.table
    rows = _new(connection, readback, day, names)
    without_key, in_doubt = _count(connection, readback, rows, key, names, is_whole(key))
    if without_key:
        raise _doubt(table, day, f"{_lacking(table, file)}, and rows of the table have their {key_named(names)}")
    if in_doubt and names != key:
        raise _doubt(table, day, f"{file.path}: {_in_both(key, names)}, and another {key_named(table.key)}")
    if in_doubt:
        logger.warning(
            "%s: %s the former key, %s, of one in it, and another %s: whether that is the same row, nobody can "
            "tell, and a restore of this day is refused. %s",
            file.path,
            counted(in_doubt, "row to append has", "rows to append have"),
            key_named(names),
            key_named(table.key),
            tell_forms_apart(table.dataset, day),
        )


def _require_unlike(
    connection: Connection, readback: Readback, day: date, file: StoredFile, former: Sequence[Key]
) -> None:
    """Refuses rows to append that equal rows of the file without the present key, where the former key is gone.

    Raises:
        IntegrityError: there are such rows.
    """
    table, time = readback.table, readback.table.dataset.time_column
    present = set(table.key)
    time_in_file = time if time in readback.columns else readback.former_time
    if not time_in_file or not present.issubset(readback.columns):
        return
    of_some = present.union(*former) - present.intersection(*former)
    left_out = of_some | {time, readback.former_time}
    alike = tuple(name for name in readback.columns if name in table.names and name not in left_out)
    names = (*alike, time)
    rows, keyless = _new(connection, readback, day, names), sql.SQL("NOT {}").format(is_whole(table.key))
    if _count(connection, readback, rows, (*alike, time_in_file), names, keyless)[0]:
        raise _doubt(table, day, f"{_lacking(table, file)}, and rows of the table are like them")


def _without_key(
    table: Table, day: date, file: StoredFile, missing: str, keys: Sequence[Key], renamed: Sequence[tuple[Key, Key]]
) -> IntegrityError:
    if renamed:
        key, names = renamed[0]
        archived_under = f"{key_named(key)}, which is called {key_named(names)} by now."
        if_so, if_not = "Name it so", ""
    else:
        setting = table.dataset.setting("EVENT_FILE_PREFIX")
        known = ", ".join(map(key_named, keys)) or "a key that it does not name"
        archived_under = (
            f"{known}, which the table does not have any more. Nobody can tell which of its rows stand in the table."
        )
        if_so = "If the column was renamed, name it so"
        if_not = f" If it is another key, begin anew under another {setting}: the files here stay what they are."
    return IntegrityError(
        f"{file.path}: its header lacks {missing}, of the key of {table.dataset.table}; it was archived under "
        f"{archived_under}",
        outcome=_OUTCOME,
        advice=f"{if_so} in the file's first line, keep its metadata, and accept the file as it stands: "
        f"{table.dataset.command(f'adopt {day}')}.{if_not}",
    )


def _in_both(key: Key, names: Key) -> str:
    return f"rows of the table have in {key_named(names)} what rows of it have in {key_named(key)}"


def _lacking(table: Table, file: StoredFile) -> str:
    return f"{file.path}: rows in it lack a value of the key of {table.dataset.table}, {key_named(table.key)}"


def _doubt(table: Table, day: date, problem: str) -> IntegrityError:
    adopt = table.dataset.command(f"adopt {day} --present-key")
    return IntegrityError(
        f"{problem}. Nobody can tell whether they are the same rows.",
        outcome=_OUTCOME,
        advice="If the table still holds every row and every column of the file, move the file elsewhere: the next run "
        "writes the day anew. If not, write the key's values into the file (where its column was renamed, the new name "
        f"into the first line), and accept it by the present key alone: {adopt}.",
    )


def _new(connection: Connection, readback: Readback, day: date, names: Key = ()) -> sql.Composable:
    """Rows that the file lacks, with a present key that none in it has: these columns and the key's, for FROM."""
    table = readback.table
    return sql.SQL(_NEW).format(
        rows=rows_of_day(connection, table, day, tuple(dict.fromkeys((*names, *table.key))), unless=readback),
        late=_LATE,
        file=readback.relation,
        archived=ARCHIVED,
        present=digest(ARCHIVED, table.key),
        late_present=digest(_LATE, table.key),
    )


def _count(
    connection: Connection,
    readback: Readback,
    rows: sql.Composable,
    in_file: Key,
    names: Key,
    are_known: sql.Composable,
) -> tuple[int, int]:
    """How many rows of the table have the values of one in the file, as text: a former key may have no index any more.

    Args:
        connection: in a transaction.
        readback: of the file.
        rows: of the table, for FROM.
        in_file: the columns of the values in the file.
        names: those of the table.
        are_known: the condition that a row of the file has such values.

    Returns:
        Of those whose values a row without a present key has; and of those whose values one with a present key has.
    """
    # Not whether there is one: to find the first alone, PostgreSQL would not prepare a hash.
    query = sql.SQL(_COUNTS).format(
        rows=rows,
        archived=ARCHIVED,
        file=readback.relation,
        values=digest(ARCHIVED, in_file),
        late_values=digest(_LATE, names),
        are_known=are_known,
        has_key=is_whole(readback.table.key),
    )
    without_key, with_key = one(connection, query)
    return without_key, with_key

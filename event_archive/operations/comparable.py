"""Whether a file's rows can be told from the table's, so that none becomes a second one: refused where nobody can tell.

Not here: what is done once they can (``archive``), whether a restore can tell its forms apart (``restore.keys``).
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import chain

from psycopg import sql

from event_archive.domain.dataset import key_named
from event_archive.domain.manifest import Key, Manifest
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.export import rows_of_day
from event_archive.operations.loading import count_keyless
from event_archive.operations.readback import ARCHIVED, Readback
from event_archive.postgres.session import Connection, listed, one
from event_archive.table.advice import tell_forms_apart
from event_archive.table.shape import Table, require_unchanged

logger = logging.getLogger(__name__)

_OUTCOME = "Nothing was written or deleted."
_LATE = sql.Identifier("late_")
_NEW = """(
  SELECT * FROM ({rows}) AS {late}
  WHERE NOT EXISTS (SELECT FROM {file} AS {archived} WHERE {present} OPERATOR(pg_catalog.=) {late_present})
) AS {late}"""
"""Rows that the file lacks, with a present key that none in it has."""
_COUNTS = """
SELECT pg_catalog.count(*) FILTER (WHERE known_.keyless_), pg_catalog.count(*) FILTER (WHERE known_.keyed_)
FROM {new} CROSS JOIN LATERAL (VALUES {late_values}) AS of_row_ (values_)
JOIN (
  SELECT {values} AS values_,
         pg_catalog.bool_or(pg_catalog.num_nulls({key}) OPERATOR(pg_catalog.>) 0) AS keyless_,
         pg_catalog.bool_or(pg_catalog.num_nulls({key}) OPERATOR(pg_catalog.=) 0) AS keyed_
  FROM {file} AS {archived} WHERE {are_known} GROUP BY 1
) AS known_ ON known_.values_ OPERATOR(pg_catalog.=) of_row_.values_
"""


def require_known_key(
    connection: Connection, table: Table, readback: Readback, manifest: Manifest, day: date, file: StoredFile
) -> None:
    """Refuses a file of ours whose rows lack the table's key, where rows of the table may stand in it already.

    They would be appended once more, and no restore could tell them from second rows.

    Raises:
        IntegrityError: the file has no key in common with the table, or rows to append have a former key of such rows,
            or may be rows of it where no key tells.
    """
    adopt = table.dataset.command(f"adopt {day}")
    missing, of_table = _missing_key(table, readback), frozenset(table.names)
    unparsed = (
        f"the key of {counted(readback.unparsed, 'row', 'rows')} in it does not parse as {table.dataset.table} has it"
    )
    former = [key for key in manifest.keys if set(key) != set(table.key) and of_table.issuperset(key)]
    if missing and not former:
        known = ", ".join(map(key_named, manifest.keys)) or "a key that it does not name"
        setting = table.dataset.setting("EVENT_FILE_PREFIX")
        raise IntegrityError(
            f"{file.path}: its header lacks {missing}, of the key of {table.dataset.table}; it was archived under "
            f"{known}, which the table does not have any more. Nobody can tell which of its rows stand in the table.",
            outcome=_OUTCOME,
            advice="If the column was renamed, name it so in the file's first line, keep its metadata, and accept the "
            f"file as it stands: {adopt}. If it is another key, begin anew under another {setting}: "
            "the files here stay what they are.",
        )
    if readback.unparsed and former:
        raise _doubt(table, day, f"{file.path}: {unparsed}, and rows of the table may have a former one of such rows")
    if readback.unparsed:
        logger.warning(
            "%s: %s: where such a row stands in the table by now under another key, it is appended once more, and no "
            "restore can tell that from a second row",
            file.path,
            unparsed,
        )
    if all(set(key) == set(table.key) and not [*_moved(key, readback)] for key in manifest.keys):
        return
    # The file may be read once more before the table is: until then nobody waits.
    with connection.transaction(force_rollback=True):
        require_unchanged(connection, table, "archive")
        # Where PostgreSQL takes all rows but a few for known, it would compare each with each.
        connection.execute("SET LOCAL enable_nestloop TO off")
        if not one(connection, sql.SQL("SELECT pg_catalog.count(*) FROM {}").format(_new(connection, readback, day)))[
            0
        ]:
            return
        for key in former:
            if not set(key) > set(table.key):
                _require_others(connection, readback, day, file, key)
        _require_unlike(connection, readback, manifest, day, file)


def _require_others(connection: Connection, readback: Readback, day: date, file: StoredFile, key: Key) -> None:
    """Refuses rows to append that have a former key of rows in the file; only warns of such with another present key.

    Raises:
        IntegrityError: the rows in the file lack a value of the present key.
    """
    table = readback.table
    whole = sql.SQL("pg_catalog.num_nulls({}) OPERATOR(pg_catalog.=) 0").format(listed(key))
    without_key, in_doubt = _count_late(connection, readback, day, key, [key], whole)
    if without_key:
        raise _doubt(table, day, f"{_lacking(table, file)}, and rows of the table have their {key_named(key)}")
    if in_doubt:
        logger.warning(
            "%s: %s the former key, %s, of one in it, and another %s: whether that is the same row, nobody can "
            "tell, and a restore of this day is refused. %s",
            file.path,
            counted(in_doubt, "row to append has", "rows to append have"),
            key_named(key),
            key_named(table.key),
            tell_forms_apart(table.dataset, day),
        )


def _require_unlike(
    connection: Connection, readback: Readback, manifest: Manifest, day: date, file: StoredFile
) -> None:
    """Refuses rows to append that may be rows of the file where no key tells.

    A key does not tell where its column is gone, or its name is another column's by now.

    Raises:
        IntegrityError: there are such rows.
    """
    table, time = readback.table, readback.table.dataset.time_column
    names, header, present = set(table.names), set(readback.columns), set(table.key)
    times = (time,) if time in header else ()
    for key in manifest.keys:
        moved = [(*names_now, *times) for names_now in _moved(key, readback)]
        if moved and any(_count_late(connection, readback, day, (*key, *times), moved, sql.SQL("true"))):
            now = "rows of the table have it in another column"
            raise _doubt(table, day, f"{file.path}: rows in it have a value of {key_named(key)}, and {now}")
    former = [key for key in manifest.keys if set(key) != present]
    time_in_file = time if time in header else readback.former_time
    if not former or not time_in_file or not present <= header or any(names.issuperset(key) for key in former):
        return
    of_some = present.union(*former) - present.intersection(*former)
    alike = tuple(name for name in readback.columns if name in names - of_some - {time, readback.former_time})
    keyless = sql.SQL("pg_catalog.num_nulls({}) OPERATOR(pg_catalog.>) 0").format(listed(table.key))
    if _count_late(connection, readback, day, (*alike, time_in_file), [(*alike, time)], keyless)[0]:
        raise _doubt(table, day, f"{_lacking(table, file)}, and rows of the table are like them")


def _moved(key: Key, readback: Readback) -> Iterator[Key]:
    """The columns that may hold by now what a key's did: one that the file lacks, in the place of a younger one.

    A column that was renamed keeps its place in the table. One that took its name comes behind it, and so does one that
    was merely added behind all.
    """
    names = readback.table.names
    if set(key) <= set(names) and set(key) <= set(readback.columns):
        for taken in key:
            for renamed in names[: names.index(taken)]:
                if renamed not in readback.columns:
                    yield tuple(renamed if name == taken else name for name in key)


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


def require_takeable(connection: Connection, table: Table, readback: Readback, day: date, file: StoredFile) -> None:
    """Refuses a file of another tool whose rows cannot be compared, or not be restored into the table.

    Raises:
        IntegrityError: it lacks the key, in a row at least, or has values that do not parse.
    """
    foreign = f"{file.path}: another tool wrote or copied it, for it has no manifest"
    if missing := _missing_key(table, readback):
        raise IntegrityError(
            f"{foreign}, and its header lacks the key: {missing}.",
            outcome=_OUTCOME,
            advice="Without the key its rows cannot be compared: add the key to the file, or move it elsewhere.",
        )
    if keyless := count_keyless(connection, readback):
        have = counted(keyless, "row of it lacks", "rows of it lack")
        raise IntegrityError(
            f"{foreign}, and {have} a value of the key, {key_named(table.key)}.",
            outcome=_OUTCOME,
            advice="Without the key rows cannot be compared: write it into the file, or move that elsewhere.",
        )
    if readback.as_text:
        raise IntegrityError(
            f"{foreign}, and its values do not all parse as the types of {table.dataset.table}.",
            outcome=_OUTCOME,
            advice="A restore would need a table with text for those columns: put the right file there, move this one "
            f"elsewhere, or accept it as it stands: {table.dataset.command(f'adopt {day}')}.",
        )


def _missing_key(table: Table, readback: Readback) -> str:
    """The columns of the table's key that the file's header lacks, for people."""
    return ", ".join(name for name in table.key if name not in readback.columns)


def _new(connection: Connection, readback: Readback, day: date, names: Key = ()) -> sql.Composable:
    """``_NEW`` with these columns and the key's, as a FROM item."""
    table = readback.table
    return sql.SQL(_NEW).format(
        rows=rows_of_day(connection, table, day, tuple(dict.fromkeys((*names, *table.key))), unless=readback),
        late=_LATE,
        file=readback.relation,
        archived=ARCHIVED,
        present=_digest(ARCHIVED, table.key),
        late_present=_digest(_LATE, table.key),
    )


def _count_late(
    connection: Connection,
    readback: Readback,
    day: date,
    in_file: Key,
    of_row: Sequence[Key],
    are_known: sql.Composable,
) -> tuple[int, int]:
    """How many rows that the file lacks have the values of one in it, and a present key that none in it has.

    Values are compared as text: a former key may have no index any more.

    Args:
        connection: in a transaction.
        readback: of the file.
        day: whose rows.
        in_file: the columns of the values in the file.
        of_row: those of the table that are compared with them, each by itself.
        are_known: the condition that a row of the file has such values.

    Returns:
        Of those whose values a row without a present key has; and of those whose values one with another has.
    """
    # Not whether there is one: to find the first alone, PostgreSQL would not prepare a hash.
    query = sql.SQL(_COUNTS).format(
        new=_new(connection, readback, day, tuple(chain(*of_row))),
        archived=ARCHIVED,
        file=readback.relation,
        values=_digest(ARCHIVED, in_file),
        late_values=sql.SQL(", ").join(sql.SQL("({})").format(_digest(_LATE, names)) for names in of_row),
        are_known=are_known,
        key=listed(readback.table.key),
    )
    without_key, in_doubt = one(connection, query)
    return without_key, in_doubt


def _digest(alias: sql.Identifier, names: Key) -> sql.Composable:
    """What stands for the values of columns where they are compared as text: a hash of 64 bits.

    A file's value may have been read as text, or into char(26): as COPY writes it, but for blanks at its end.
    """
    written = "CASE WHEN {0} IS DISTINCT FROM NULL THEN pg_catalog.rtrim(pg_catalog.format('%s', {0})) END"
    columns = (sql.SQL(written).format(sql.SQL("{}.{}").format(alias, sql.Identifier(name))) for name in names)
    row = sql.SQL(", ").join(columns)
    return sql.SQL('pg_catalog.hashtextextended(ROW({})::pg_catalog.text COLLATE pg_catalog."C", 0)').format(row)

"""Whether a file's rows can be told from the table's, so that none becomes a second one: refused where nobody can tell.

Not here: what is done once they can (``archive``), whether a restore can tell its forms apart (``restore.keys``).
"""

import logging
from datetime import date

from psycopg import sql

from event_archive.domain.dataset import key_named
from event_archive.domain.manifest import Key, Manifest
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.export import rows_of_day
from event_archive.operations.loading import count_keyless
from event_archive.operations.readback import ARCHIVED, Readback
from event_archive.postgres.session import Connection, one
from event_archive.table.shape import Table, require_unchanged

logger = logging.getLogger(__name__)

_OUTCOME = "Nothing was written or deleted."
_LATE = sql.Identifier("late_")
_COUNTS = """
SELECT pg_catalog.count(*) FILTER (WHERE known_.keyless_), pg_catalog.count(*) FILTER (WHERE known_.keyed_)
FROM ({rows}) AS {late}
JOIN (
  SELECT {former} AS former_,
         pg_catalog.bool_or(pg_catalog.num_nulls({columns_of_present}) OPERATOR(pg_catalog.>) 0) AS keyless_,
         pg_catalog.bool_or(pg_catalog.num_nulls({columns_of_present}) OPERATOR(pg_catalog.=) 0) AS keyed_
  FROM {file} AS {archived} WHERE pg_catalog.num_nulls({columns_of_former}) OPERATOR(pg_catalog.=) 0 GROUP BY 1
) AS known_ ON known_.former_ OPERATOR(pg_catalog.=) {late_former}
WHERE NOT EXISTS (SELECT FROM {file} AS {archived} WHERE {present} OPERATOR(pg_catalog.=) {late_present})
"""


def require_known_key(
    connection: Connection, table: Table, readback: Readback, manifest: Manifest, day: date, file: StoredFile
) -> None:
    """Refuses a file of ours whose rows lack the table's key, where rows of the table may stand in it already.

    They would be appended once more, and no restore could tell them from second rows.

    Raises:
        IntegrityError: the file has no key in common with the table, or rows to append have a former key of such rows.
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
    if not former:
        return
    # The file may be read once more before the table is: until then nobody waits.
    with connection.transaction(force_rollback=True):
        require_unchanged(connection, table, "archive")
        # Where PostgreSQL takes all rows but a few for known, it would compare each with each.
        connection.execute("SET LOCAL enable_nestloop TO off")
        for key in former:
            if not set(key) > set(table.key):
                _require_others(connection, readback, day, file, key)


def _require_others(connection: Connection, readback: Readback, day: date, file: StoredFile, key: Key) -> None:
    """Refuses rows to append that have a former key of rows in the file; only warns of such with another present key.

    Raises:
        IntegrityError: the rows in the file lack a value of the present key.
    """
    table = readback.table
    without_key, in_doubt = _count_late(connection, readback, day, key)
    if without_key:
        lack = f"rows in it lack a value of the key of {table.dataset.table}, {key_named(table.key)}"
        raise _doubt(table, day, f"{file.path}: {lack}, and rows of the table have their {key_named(key)}")
    if in_doubt:
        logger.warning(
            "%s: %s the former key, %s, of one in it, and another %s: whether that is the same row, nobody can "
            "tell. A restore of this day is refused: load it into a table without a key, by \\copy, and choose",
            file.path,
            counted(in_doubt, "row to append has", "rows to append have"),
            key_named(key),
            key_named(table.key),
        )


def _doubt(table: Table, day: date, problem: str) -> IntegrityError:
    adopt = table.dataset.command(f"adopt {day}")
    return IntegrityError(
        f"{problem}. Nobody can tell whether they are the same rows.",
        outcome=_OUTCOME,
        advice="If the table still holds every row and every column of the file, move the file elsewhere: the next run "
        f"writes the day anew. If not, write the key's values into the file, and accept it as it stands: {adopt}.",
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


def _count_late(connection: Connection, readback: Readback, day: date, former: Key) -> tuple[int, int]:
    """How many rows that the file lacks have the former key of one in it, and a present key that none in it has.

    Keys are compared as text: the former one may have no index any more.

    Returns:
        Of those whose former key a row without a present key has; and of those whose former key one with another has.
    """
    table = readback.table
    # Not whether there is one: to find the first alone, PostgreSQL would not prepare a hash.
    query = sql.SQL(_COUNTS).format(
        rows=rows_of_day(connection, table, day, tuple(dict.fromkeys((*former, *table.key))), unless=readback),
        late=_LATE,
        archived=ARCHIVED,
        file=readback.relation,
        former=_as_text(ARCHIVED, former),
        present=_as_text(ARCHIVED, table.key),
        late_former=_as_text(_LATE, former),
        late_present=_as_text(_LATE, table.key),
        columns_of_former=sql.SQL(", ").join(map(sql.Identifier, former)),
        columns_of_present=sql.SQL(", ").join(map(sql.Identifier, table.key)),
    )
    without_key, in_doubt = one(connection, query)
    return without_key, in_doubt


def _as_text(alias: sql.Identifier, key: Key) -> sql.Composable:
    columns = sql.SQL(", ").join(sql.SQL("{}.{}").format(alias, sql.Identifier(name)) for name in key)
    return sql.SQL("ROW({})::pg_catalog.text").format(columns)

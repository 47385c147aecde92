"""Whether a file's rows can be told from the table's, so that none becomes a second one: refused where a person must.

Not here: what is done once they can (``archive``), whether a restore can tell its forms apart (``restore.keys``).
"""

import logging
from collections.abc import Mapping
from datetime import date

from psycopg import sql

from event_archive.domain.dataset import key_named, keys_named
from event_archive.domain.key_types import retyped
from event_archive.domain.keys import moved, names_now
from event_archive.domain.manifest import Manifest
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.export import rows_of_day
from event_archive.operations.readback import ARCHIVED, Readback
from event_archive.operations.writing import Order
from event_archive.postgres.session import Connection, is_whole, one
from event_archive.table.advice import tell_forms_apart
from event_archive.table.shape import TABLE_ALIAS, Table, require_unchanged

logger = logging.getLogger(__name__)

_OUTCOME = "Nothing was written or deleted."
_COUNT = """
SELECT pg_catalog.count(*) FROM ({rows}) AS {source}
WHERE NOT EXISTS (SELECT FROM {file} AS {archived} WHERE {same_key})
AND EXISTS (SELECT FROM {file} AS {archived} WHERE {beside})
"""


def require_known_key(readback: Readback, manifest: Manifest, order: Order, file: StoredFile) -> None:
    """Refuses a file of ours that was archived under another key, unless the present one is that and more.

    By another key, or the same as of types by which its values read otherwise, rows of the table might be appended once
    more, or take the place of others, and no restore could tell: a person must say what the file's values are. Where
    the key got columns, ``require_others`` looks.

    Raises:
        IntegrityError: the key is another one, or of other columns or types, or rows of the file may have a former one
            that does not parse.
    """
    table, day = readback.table, order.day
    now = names_now(manifest, order.claim.source, table.oid, table.numbers)
    widened = [key for key in manifest.keys if set(key) < set(table.key)]
    if moved(table.key, now) or not manifest.takes_key(table.key) or (readback.lacks_of_key and not widened):
        raise _another_key(table, day, file, manifest, now)
    if others := retyped(manifest, table.key_types, now):
        adopt = table.dataset.command(f"adopt {day} --present-key")
        raise _doubt(
            *(table, day, f"{file.path}: of the key of {table.dataset.table}, {others}"),
            "If the key's values in the file, as the present type reads them, are those that their rows got in the "
            f"table, accept the file as it stands: {adopt}. ",
        )
    if readback.unparsed:
        rows = counted(readback.unparsed, "row", "rows")
        unparsed = f"{file.path}: the key of {rows} in it does not parse as {table.dataset.table} has it"
        if widened:
            raise _doubt(table, day, f"{unparsed}, and rows of the table may have a former one of such rows")
        logger.warning(
            "%s: where such a row stands in the table by now under another key, it is appended once more, and no "
            "restore can tell that from a second row",
            unparsed,
        )


def _another_key(
    table: Table, day: date, file: StoredFile, manifest: Manifest, now: Mapping[str, str]
) -> IntegrityError:
    adopt = table.dataset.command(f"adopt {day}")
    accept = (
        "into the file's first line (if another column there has it already, rename that one), keep its metadata, and "
        f"accept the file as it stands: {adopt}."
    )
    for key in manifest.keys:
        names = tuple(now.get(name, name) for name in key)
        if names != key and set(names) <= set(table.key):
            return IntegrityError(
                f"{file.path}: it was archived under {key_named(key)}, which is now called {key_named(names)}.",
                outcome=_OUTCOME,
                advice=f"Write that name {accept}",
            )
    keys = f"under {keys_named(manifest.keys)}" if manifest.keys else "under a key that is not noted"
    others = moved(table.key, now) or (manifest.knows_key(table.key) and "that lacks columns of the others")
    problem = (
        f"{file.path}: it was archived {keys}, and the key of {table.dataset.table} is now {key_named(table.key)}"
        f"{f', but {others}' if others else ''}"
    )
    is_known = all(name in now for key in manifest.keys for name in key)
    if_renamed = "" if manifest.keys and is_known else f"If the key's column was renamed, write its new name {accept} "
    return _doubt(table, day, problem, if_renamed)


def require_others(
    connection: Connection, readback: Readback, manifest: Manifest, day: date, file: StoredFile, *, warns: bool
) -> None:
    """Refuses rows to append that have a former key of rows in the file; only warns of such with another present key.

    To be asked before these rows are read, and once they were: some may come while the file is read once more.

    Raises:
        IntegrityError: the rows in the file lack a value of the present key.
    """
    table = readback.table
    for key in manifest.keys:
        if not set(key) < set(table.key):
            continue
        same_former, has_key = readback.equal_parts(key), is_whole(table.key)
        if _count(connection, readback, day, sql.SQL("{} AND NOT {}").format(same_former, has_key)):
            lack = f"rows in it lack a value of the key of {table.dataset.table}, {key_named(table.key)}"
            raise _doubt(table, day, f"{file.path}: {lack}, and rows of the table have their {key_named(key)}")
        doubt = sql.SQL("{} AND {}").format(same_former, has_key)
        if warns and (in_doubt := _count(connection, readback, day, doubt)):
            logger.warning(
                "%s: %s the former key, %s, of one in it, and another %s: whether that is the same row, nobody can "
                "tell, and a restore of this day is refused. %s",
                file.path,
                counted(in_doubt, "row to append has", "rows to append have"),
                key_named(key),
                key_named(table.key),
                tell_forms_apart(table.dataset, day),
            )


def _count(connection: Connection, readback: Readback, day: date, beside: sql.Composable) -> int:
    """How many rows to append have no key of the file's, while rows of it meet a condition."""
    query = sql.SQL(_COUNT).format(
        rows=rows_of_day(connection, readback.table, day, readback.table.key, unless=readback),
        source=TABLE_ALIAS,
        file=readback.relation,
        archived=ARCHIVED,
        same_key=readback.equal_keys(readback.table.key),
        beside=beside,
    )
    with connection.transaction(force_rollback=True):
        require_unchanged(connection, readback.table, "archive")
        # Where PostgreSQL takes all rows but a few for known, it would compare each with each.
        connection.execute("SET LOCAL enable_nestloop TO off")
        return int(one(connection, query)[0])


def _doubt(table: Table, day: date, problem: str, if_renamed: str = "") -> IntegrityError:
    adopt = table.dataset.command(f"adopt {day} --present-key")
    return IntegrityError(
        f"{problem}. Nobody can tell which of its rows stand in the table.",
        outcome=_OUTCOME,
        advice=f"{if_renamed}If the table still holds every row and every column of the file, move the file elsewhere: "
        "the next run writes the day anew. If not, write the key's values into the file, where it does not have them "
        "(for rows that are purged, values that no other row has or will get), keep its metadata, and accept it by the "
        f"present key alone: {adopt}. Or begin anew under another "
        f"{table.dataset.setting('EVENT_FILE_PREFIX')}: the files here stay what they are.",
    )

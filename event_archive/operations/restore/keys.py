"""Whether the target's key, types and locale keep those rows of a file that were current when it was archived.

A coarser key merges rows, a finer one brings former forms back. Not here: whether values fit the target (``checks``).
"""

import logging
from datetime import date

from psycopg import sql

from event_archive.domain.dataset import Dataset, key_named, keys_named
from event_archive.domain.key_types import retyped
from event_archive.domain.keys import moved, names_now
from event_archive.domain.manifest import Manifest
from event_archive.domain.source import Source
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.forms import differing
from event_archive.operations.readback import ARCHIVED, READBACK, Readback
from event_archive.postgres.catalogue.columns import columns
from event_archive.postgres.catalogue.relations import relation
from event_archive.postgres.session import Connection, is_whole, listed, one
from event_archive.table.advice import tell_forms_apart
from event_archive.table.key import key_of

logger = logging.getLogger(__name__)


def require_same_current_rows(
    connection: Connection, dataset: Dataset, day: date, readback: Readback, file: StoredFile, manifest: Manifest | None
) -> None:
    """Refuses a target whose key keeps other rows of the file than the keys under which they were archived.

    A coarser key would merge rows, a finer one would bring former forms back. A file that does not name its keys is
    judged by the source's present key, where there is a source.

    Raises:
        IntegrityError: there are such rows in the file.
    """
    recorded = manifest.keys if manifest else ()
    present = tuple(column.name for column in key_of(connection, dataset.table))
    held = tuple(name for name in present if name in readback.columns)
    keys = recorded or ((held,) if held else ())
    if all(set(key) == set(readback.table.key) for key in keys):
        return
    lost, former, undecided = differing(connection, readback, keys)
    target, own = readback.table.dataset.table, key_named(readback.table.key)
    named = key_named(keys[0]) if recorded else f"{key_named(keys[0])}, the present key of {dataset.table}"
    if undecided:
        raise IntegrityError(
            f"{file.path}: it was archived under several keys, {keys_named(keys)}. By one of them "
            f"later rows replace {counted(undecided, 'row', 'rows')} of it, by another they do not: nobody can tell. "
            f"Nothing of this day was restored. {tell_forms_apart(dataset, day)}."
        )
    if lost:
        raise IntegrityError(
            f"{file.path}: {counted(lost, 'row', 'rows')} of it would be lost in {target}, whose key is {own}: its "
            f"rows are told apart by {named}. Nothing of this day was restored. Restore into a table with that key: "
            "--table NAME."
        )
    # Rows that agree in a part of a key need not be forms of one row.
    if former and (recorded or held == present):
        raise IntegrityError(
            f"{file.path}: {counted(former, 'row', 'rows')} of it would come back to {target} beside a later form, "
            f"whose key is {own}: that one replaces it by {named}. Nothing of this day was restored. Restore into a "
            "table with that key: --table NAME."
        )


def require_none_under_a_former_key(
    connection: Connection, dataset: Dataset, day: date, readback: Readback, file: StoredFile, manifest: Manifest
) -> None:
    """Refuses a target in which rows of the file may stand under another key of the target's than in the file.

    So it is where the table's key got a column whose value was changed since, in rows that were held, or moved to
    another day.

    Raises:
        IntegrityError: rows to restore have the key of rows that stand there, by a key under which they were archived.
    """
    table = readback.table
    for key in manifest.keys:
        if set(key) == set(table.key):
            continue
        # INTERSECT compares by the default equality of the types, wherever that is found.
        query = sql.SQL(
            "SELECT pg_catalog.count(*) FROM (SELECT {key} FROM {readback} AS {archived} WHERE {whole} "
            "AND NOT EXISTS (SELECT FROM {rows} WHERE {same_key}) INTERSECT SELECT {key} FROM {rows}) AS key_"
        ).format(
            key=listed(key),
            readback=READBACK,
            archived=ARCHIVED,
            whole=is_whole(key),
            rows=table.rows,
            same_key=readback.equal_keys(table.key),
        )
        if standing := one(connection, query)[0]:
            raise IntegrityError(
                f"{file.path}: {counted(standing, 'row of it has', 'rows of it have')} the {key_named(key)} of "
                f"{'a row' if standing == 1 else 'rows'} in {table.dataset.table}, but another "
                f"{key_named(table.key)}. It was archived under {keys_named(manifest.keys)}: whether these are the "
                "same rows, nobody can tell. Nothing of this day was restored. Restore it into another table with "
                f"--table, and compare the two; or, if they are not, accept the file by {dataset.table}'s present key "
                f"alone: {dataset.command(f'adopt {day} --present-key')}."
            )


def require_no_other_key(
    connection: Connection, dataset: Dataset, day: date, readback: Readback, file: StoredFile, manifest: Manifest,
    here: Source,
) -> None:  # fmt: skip
    """Refuses to put rows back into the source where that has another key; warns where names of its key are others'.

    A key is another one, too, where the types of its columns read its values otherwise.

    They may stand there under the other key, and no night purges them until a person has said what the key is.

    Args:
        connection: in the transaction of the restore.
        dataset: what was archived.
        day: which day.
        readback: of the file.
        file: the file.
        manifest: its manifest.
        here: the source, in this database.

    Raises:
        IntegrityError: the target is the source, and has another key, or another column has a name of it.
    """
    source = relation(connection, dataset.table.schema, dataset.table.name)
    if source is None:
        return
    numbers = {column.name: column.number for column in columns(connection, source.oid)}
    now = names_now(manifest, here, source.oid, numbers)
    others = moved([name for name in now if name in numbers], now)
    in_place = readback.table.oid == source.oid
    other_key = others or retyped(manifest, readback.table.key_types, now)
    if in_place and (other_key or not manifest.takes_key(readback.table.key)):
        raise IntegrityError(
            f"{file.path}: it was archived under {keys_named(manifest.keys)}, and the key of "
            f"{dataset.table} is now {key_named(readback.table.key)}{other_key and f', but {other_key}'}. Its rows may "
            "stand there under another key. Nothing of this day was restored. Restore into another table; or, if the "
            "present key tells its rows apart, adopt it by that alone first: "
            f"{dataset.command(f'adopt {day} --present-key')}."
        )
    if others:
        logger.warning(
            "%s: %s, and %s has another column of that name: values are restored under the names in the file",
            file.path,
            others,
            dataset.table,
        )

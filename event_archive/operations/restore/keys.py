"""Whether the target's key, types and locale keep those rows of a file that were current when it was archived.

A coarser key merges rows, a finer one brings former forms back. Not here: whether values fit the target (``checks``).
"""

import logging
from dataclasses import replace
from datetime import date

import psycopg
from psycopg import sql

from event_archive.domain.dataset import Dataset, key_named, keys_named, quoted
from event_archive.domain.key_types import retyped
from event_archive.domain.keys import moved, names_now
from event_archive.domain.manifest import Manifest
from event_archive.domain.source import Source
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.forms import differing
from event_archive.operations.readback import ARCHIVED, READBACK, Readback, types_hashes
from event_archive.operations.restore.losses import TABLE_OF_YOUR_OWN
from event_archive.operations.verbatim import VERBATIM
from event_archive.postgres.catalogue.columns import columns
from event_archive.postgres.catalogue.relations import relation
from event_archive.postgres.pins import own_search_path
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


def require_no_form_by_types(
    connection: Connection, dataset: Dataset, readback: Readback, file: StoredFile, manifest: Manifest | None
) -> None:
    """Refuses a target whose types tell forms of one row apart that the source's types do not, as text does of citext.

    Where nobody knows whether the file was written as the source's present types, it only warns.

    Args:
        connection: in the transaction in which ``losses`` has read the file.
        dataset: what was archived.
        readback: of the file.
        file: the file.
        manifest: its manifest.

    Raises:
        IntegrityError: a former form would come back.
    """
    source = relation(connection, dataset.table.schema, dataset.table.name)
    types = {column.name: column for column in columns(connection, source.oid)} if source else {}
    keys = manifest.keys if manifest and manifest.keys else (readback.table.key,)
    names = {name for key in keys for name in key}
    here = {column.name: column.type_and_collation for column in readback.table.columns}
    if not names <= types.keys() & here.keys() or all(types[n].type_and_collation == here[n] for n in names):
        return
    replaced = [
        sql.SQL("{2} AND pg_catalog.lead({0}) OVER (PARTITION BY {1} ORDER BY {0}) IS NOT NULL").format(
            readback.line,
            sql.SQL(", ").join(sql.SQL("{}::{}").format(sql.Identifier(n), types[n].definition) for n in key),
            is_whole(key),
        )
        for key in keys
    ]
    # The join leaves out what is superseded by the target's types, too.
    query = sql.SQL(
        "SELECT pg_catalog.count(*) FROM {readback} AS value_ JOIN (SELECT {line}, {replaced} AS replaced_ "
        "FROM {verbatim}) AS file_ ON file_.{line} OPERATOR(pg_catalog.=) value_.{line} WHERE file_.replaced_"
    ).format(readback=READBACK, line=readback.line, replaced=sql.SQL(" AND ").join(replaced), verbatim=VERBATIM)
    try:
        with connection.transaction(), own_search_path(connection, to_read_values=True):
            former = one(connection, query)[0]
    except (psycopg.DataError, psycopg.IntegrityError):
        return  # It was not written as these types.
    if not former:
        return
    target = readback.table.dataset.table
    found = (
        f"{file.path}: a later row replaces {counted(former, 'row', 'rows')} of it by the types of the key in "
        f"{dataset.table}, but not by those in {target}"
    )
    as_source = types_hashes(replace(readback.table, columns=tuple(types.values())), readback.columns)
    if manifest and manifest.types and manifest.types in as_source:
        raise IntegrityError(
            f"{found}: a former form would come back. Nothing of this day was restored. Restore into a table whose key "
            "is of the source's types: --table NAME."
        )
    logger.warning("%s. Both are restored, for nobody can tell whether they were one row: choose", found)


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


def warn_of_letters(
    connection: Connection, readback: Readback, file: StoredFile, manifest: Manifest, here: Source
) -> None:
    """Warns of keys that this database's locale may tell apart otherwise than that of the archive did.

    Args:
        connection: in the transaction of the restore.
        readback: of the file.
        file: the file.
        manifest: its manifest.
        here: the source, in this database.
    """
    table, source = readback.table, manifest.source
    keys = [of.name for of in table.columns if of.ignores_case and of.name in table.key]
    if not keys:
        return
    present, former = types_hashes(table, readback.columns)
    is_known = bool(source.system and source.database)
    is_of_here = is_known and (source.system, source.database) == (here.system, here.database)
    # Types that are not known, or are a former version's, say nothing of the locale.
    if (manifest.types and manifest.types == present) or (manifest.types in ("", former) and is_of_here):
        return
    # Of ASCII, it is I alone that a locale may lower-case differently.
    may_differ = sql.SQL(
        '{}::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.~) '
        "CASE pg_catalog.lower('I' COLLATE pg_catalog.\"default\") WHEN 'i' THEN '[^\\x01-\\x7f]' "
        "ELSE '[^\\x01-\\x7f]|[iI]' END"
    )
    query = sql.SQL("SELECT pg_catalog.count(*) FROM {} WHERE {}").format(
        READBACK, sql.SQL(" OR ").join(may_differ.format(sql.Identifier(name)) for name in keys)
    )
    rows = one(connection, query)[0]
    if rows > 1:
        logger.warning(
            "%s: %s rows of it have characters in %s, which ignores case, that another locale may lower-case "
            "differently, and may have been archived under another: what was one row may be two here, or two rows one",
            file.path,
            f"{rows:,}",
            ", ".join(map(quoted, keys)),
        )


def require_none_merged(readback: Readback, merged: int, file: StoredFile) -> None:
    """Refuses a file of which the target's types would make one row of two.

    Args:
        readback: of the file.
        merged: how many rows a later one replaces by those types alone.
        file: the file.

    Raises:
        IntegrityError: there are such rows.
    """
    if merged:
        target, key = readback.table.dataset.table, ", ".join(map(quoted, readback.table.key))
        raise IntegrityError(
            f"{file.path}: {counted(merged, 'row', 'rows')} of it may be lost in {target}: by the types of its key "
            f"({key}) a later row replaces each, but the file spells their keys otherwise. Nobody can tell whether "
            f"they were one row. Nothing of this day was restored. {TABLE_OF_YOUR_OWN}"
        )

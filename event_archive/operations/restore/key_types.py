"""Whether the types of the target's key, and its locale, keep those rows of a file that were current when archived.

Coarser types merge rows, finer ones bring former forms back. Not here: the columns of the key (``keys``), whether
values fit the types (``operations.losses``).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import psycopg
from psycopg import sql

from event_archive.domain.dataset import Dataset, quoted
from event_archive.domain.key_types import types_in
from event_archive.domain.manifest import Key, Manifest
from event_archive.domain.source import Source
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.losses import comparable_text
from event_archive.operations.readback import READBACK, Readback, types_hashes
from event_archive.operations.restore.losses import TABLE_OF_YOUR_OWN
from event_archive.operations.verbatim import VERBATIM
from event_archive.postgres.catalogue.columns import columns
from event_archive.postgres.catalogue.relations import relation
from event_archive.postgres.catalogue.value_types import plain_type
from event_archive.postgres.pins import own_search_path
from event_archive.postgres.session import Connection, is_whole, one

logger = logging.getLogger(__name__)


def require_same_rows_by_types(
    connection: Connection, dataset: Dataset, readback: Readback, file: StoredFile, manifest: Manifest | None
) -> None:
    """Refuses a target whose types keep other rows of the file than those by which they were archived.

    Where it is not known which those were, the file's spelling tells which rows may be merged, and the source's present
    types which forms may come back.

    Args:
        connection: in the transaction in which ``load_verbatim`` has read the file.
        dataset: what was archived.
        readback: of the file.
        file: the file.
        manifest: its manifest.

    Raises:
        IntegrityError: a row may be lost, or a former form would come back.
    """
    noted = types_in(manifest)
    # What a definition says of values, the type's name does not.
    archived_as = {name: plain_type(connection, kind) for name, (kind, definition) in noted.items() if not definition}
    known = {name: kind for name, kind in archived_as.items() if kind}
    _require_none_merged(connection, readback, file, known)
    keys = manifest.keys if manifest and manifest.keys else (readback.table.key,)
    names = {name for key in keys for name in key}
    if names <= known.keys():
        if former := _former_forms(connection, readback, keys, known):
            kinds = ", ".join(f"{quoted(name)} {kind}" for name, (kind, _) in noted.items())
            raise _refused(_found(readback, file, former, f"the types it was archived under ({kinds})"), "these types")
        return
    _require_no_form_by_the_sources_types(connection, dataset, readback, file, manifest, keys)


def _require_none_merged(
    connection: Connection, readback: Readback, file: StoredFile, known: Mapping[str, sql.Composable]
) -> None:
    """Refuses a file of which the target's types would make one row of two: of ``01`` and ``1``, as integers."""
    if not readback.superseded:
        return
    merged = _merged(connection, readback, known)
    if merged is None:
        known = {}
        merged = _merged(connection, readback, known)
    if merged:
        told = "not by those that it was archived under"
        spelled = "the file spells their keys otherwise. Nobody can tell whether they were one row"
        target, key = readback.table.dataset.table, ", ".join(map(quoted, readback.table.key))
        raise IntegrityError(
            f"{file.path}: {counted(merged, 'row', 'rows')} of it may be lost in {target}: by the types of its key "
            f"({key}) a later row replaces each, but {told if known.keys() >= set(readback.table.key) else spelled}. "
            f"Nothing of this day was restored. {TABLE_OF_YOUR_OWN}"
        )


def _merged(connection: Connection, readback: Readback, known: Mapping[str, sql.Composable]) -> int | None:
    """How many rows a later one replaces by the target's types, but not by these, or as the two are spelled."""
    spelled = {of.name: comparable_text(of) for of in readback.table.columns}
    key = [_as(name, known) if name in known else spelled[name] for name in readback.table.key]
    query = sql.SQL(
        "SELECT pg_catalog.count(*) FROM {readback} AS value_ JOIN (SELECT {line}, pg_catalog.lead({line}) "
        "OVER (PARTITION BY {key} ORDER BY {line}) AS later_ FROM {verbatim}) AS file_ "
        "ON file_.{line} OPERATOR(pg_catalog.=) (OPERATOR(pg_catalog.-) value_.{line}) WHERE file_.later_ IS NULL"
    ).format(readback=READBACK, verbatim=VERBATIM, line=readback.line, key=sql.SQL(", ").join(key))
    return _count(connection, query)


def _require_no_form_by_the_sources_types(
    connection: Connection,
    dataset: Dataset,
    readback: Readback,
    file: StoredFile,
    manifest: Manifest | None,
    keys: Sequence[Key],
) -> None:
    """Refuses a target whose types tell forms of one row apart that the source's types do not, as text does of citext.

    Where nobody knows whether the file was written as the source's present types, it only warns.
    """
    source = relation(connection, dataset.table.schema, dataset.table.name)
    types = {column.name: column for column in columns(connection, source.oid)} if source else {}
    names = {name for key in keys for name in key}
    here = {column.name: column.type_and_collation for column in readback.table.columns}
    if not names <= types.keys() & here.keys() or all(types[n].type_and_collation == here[n] for n in names):
        return
    former = _former_forms(connection, readback, keys, {name: types[name].definition for name in names})
    if not former:
        return
    as_source = types_hashes(replace(readback.table, columns=tuple(types.values())), readback.columns)
    found = _found(readback, file, former, f"the types of the key in {dataset.table}")
    if manifest and manifest.types and manifest.types in as_source:
        raise _refused(found, "the source's types")
    logger.warning("%s. Both are restored, for nobody can tell whether they were one row: choose", found)


def _former_forms(
    connection: Connection, readback: Readback, keys: Iterable[Key], types: Mapping[str, sql.Composable]
) -> int:
    """How many rows later ones replace by each key, as of these types, but not by the target's."""
    replaced = [
        sql.SQL("{2} AND pg_catalog.lead({0}) OVER (PARTITION BY {1} ORDER BY {0}) IS NOT NULL").format(
            readback.line, sql.SQL(", ").join(_as(name, types) for name in key), is_whole(key)
        )
        for key in keys
    ]
    # The join leaves out what is superseded by the target's types, too.
    query = sql.SQL(
        "SELECT pg_catalog.count(*) FROM {readback} AS value_ JOIN (SELECT {line}, {replaced} AS replaced_ "
        "FROM {verbatim}) AS file_ ON file_.{line} OPERATOR(pg_catalog.=) value_.{line} WHERE file_.replaced_"
    ).format(readback=READBACK, line=readback.line, replaced=sql.SQL(" AND ").join(replaced), verbatim=VERBATIM)
    return _count(connection, query, reads=True) or 0


def _as(name: str, types: Mapping[str, sql.Composable]) -> sql.Composable:
    return sql.SQL("{}::{}").format(sql.Identifier(name), types[name])


def _count(connection: Connection, query: sql.Composed, *, reads: bool = False) -> int | None:
    """None where texts of the file are none of these types': it was not written as them.

    Args:
        connection: in a transaction.
        query: counts rows.
        reads: whether texts become values of types that may be anybody's.
    """
    try:
        with connection.transaction(), own_search_path(connection, to_read_values=True) if reads else nullcontext():
            return int(one(connection, query)[0])
    except (psycopg.DataError, psycopg.IntegrityError):
        return None


def _found(readback: Readback, file: StoredFile, former: int, by: str) -> str:
    return (
        f"{file.path}: a later row replaces {counted(former, 'row', 'rows')} of it by {by}, but not by those in "
        f"{readback.table.dataset.table}"
    )


def _refused(found: str, types: str) -> IntegrityError:
    return IntegrityError(
        f"{found}: a former form would come back. Nothing of this day was restored. Restore into a table whose key is "
        f"of {types}: --table NAME."
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

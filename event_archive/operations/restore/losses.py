"""Values of a file that today's types would change: cut short, or give a time zone. Not here: which rows come back.

A value that was written as ``1.23456`` still parses where its column has become ``numeric(10,2)``, but as ``1.23``: it
has lost digits. One that another tool wrote as ``2024-03-01T01:02:03Z`` is only spelled differently.
"""

import logging
from collections.abc import Mapping

from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive.domain.progress import Progress
from event_archive.errors import RefusedError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.readback import READBACK, Readback
from event_archive.operations.verbatim import VERBATIM, as_text, as_value, count_current, load_verbatim, named
from event_archive.postgres.session import Connection, one

logger = logging.getLogger(__name__)

TABLE_OF_YOUR_OWN = "Restore it into a table of your own making, with text for the columns in question: --table NAME."

_IS_JSON_SINCE = 160000
_NUMBER = "{file}::numeric = {value}::numeric"
# As text, since there are dates later than any instant.
_TO_INSTANT = "CASE WHEN {0}::date < '294276-01-01' OR NOT isfinite({0}::date) THEN {0}::timestamptz::text ELSE {0} END"
_INSTANT = f"{_TO_INSTANT.format('{file}')} = {_TO_INSTANT.format('{value}')}"
# Whatever parses as one of these types is kept in full, however it is spelled.
_ANY = "true"
_JSONB = "{file} IS JSON WITH UNIQUE KEYS"
_SAME = {
    "smallint": _NUMBER, "integer": _NUMBER, "bigint": _NUMBER, "numeric": _NUMBER, "real": _NUMBER,
    "double precision": _NUMBER, "date": _INSTANT, "timestamp without time zone": _INSTANT,
    "timestamp with time zone": _INSTANT, "boolean": _ANY, "bytea": _ANY, "uuid": _ANY, "jsonb": _JSONB,
}  # fmt: skip
# Behind a time of day, AM and PM aside. BC is none, nor is the end of a date.
_HAS_ZONE = "{file} ~ ':[0-9.]+ *([AaPp][Mm] *)?([-+][0-9]|[Zz]($|[^A-Za-z])|[A-Za-z]{{3}})'"
_HAS_NONE = f"{{file}} ~ '[0-9]' AND NOT ({_HAS_ZONE})"
_ZONE_CHANGED = {
    "timestamp with time zone": _HAS_NONE, "time with time zone": _HAS_NONE, "date": _HAS_ZONE,
    "timestamp without time zone": _HAS_ZONE,
}  # fmt: skip
_LOST = (
    "count(*) FILTER (WHERE CASE WHEN file_.{name} IS NULL OR pg_catalog.starts_with({value}, {file}) THEN false "
    "ELSE NOT ({same}) END)"
)


def losses(
    connection: Connection, readback: Readback, lake: Lake, file: StoredFile, progress: Progress
) -> dict[str, int]:
    """The columns whose values lose something as today's types, and in how many current rows.

    A value loses nothing where PostgreSQL prints it as a text that begins with the file's, or as another spelling of
    the same value.

    Args:
        connection: in the transaction of the read-back.
        readback: of the file; its table's columns are those to look at.
        lake: where the file lies; it is read once more.
        file: the file.
        progress: is told of every block.

    Raises:
        IntegrityError, FileChangedError, UnreachableError, RefusedError: as ``load_verbatim``.
    """
    load_verbatim(connection, readback, lake, file, progress)
    counts = {
        column.name: sql.SQL(_LOST).format(
            name=sql.Identifier(column.name),
            value=as_value(column.name),
            file=as_text(column.name),
            same=sql.SQL(_same(column.plain_type, connection.info.server_version)).format(
                file=as_text(column.name), value=as_value(column.name)
            ),
        )
        for column in readback.table.columns
        if column.name in readback.columns
    }
    return count_current(connection, readback, counts)


def zones_changed(connection: Connection, readback: Readback) -> dict[str, int]:
    """The columns whose times have a time zone in the file and none as today's types, or the other way round.

    PostgreSQL drops a time zone without a word, and takes a time without one as UTC here. Where somebody converted the
    column by another zone, that is another time.

    Args:
        connection: in the transaction in which ``losses`` has read the file.
        readback: of the file.

    Returns:
        In how many current rows.
    """
    counts = {
        column.name: sql.SQL("count(*) FILTER (WHERE {})").format(
            sql.SQL(_ZONE_CHANGED[column.plain_type]).format(file=as_text(column.name))
        )
        for column in readback.table.columns
        if column.name in readback.columns and column.plain_type in _ZONE_CHANGED
    }
    return count_current(connection, readback, counts)


def merged(connection: Connection, readback: Readback) -> int:
    """Counts the rows that a later one replaces by the types of the key, but not as the two are spelled in the file.

    So ``01`` and ``1``, where their column has become an integer.

    Args:
        connection: in the transaction in which ``losses`` has read the file.
        readback: of the file.
    """
    if not readback.superseded:
        return 0
    key = [
        sql.SQL(_TO_INSTANT if _SAME.get(column.plain_type) == _INSTANT else "{0}").format(sql.Identifier(column.name))
        for column in readback.table.columns
        if column.name in readback.table.key
    ]
    query = sql.SQL(
        "SELECT count(*) FROM {readback} AS value_ JOIN (SELECT {line}, lead({line}) OVER (PARTITION BY {key} "
        "ORDER BY {line}) AS later_ FROM {verbatim}) AS file_ ON file_.{line} = -value_.{line} "
        "WHERE file_.later_ IS NULL"
    ).format(readback=READBACK, verbatim=VERBATIM, line=readback.line, key=sql.SQL(", ").join(key))
    count: int = one(connection, query)[0]
    return count


def _same(plain_type: str, server_version: int) -> str:
    """The condition that two texts are one value of a type, where it has a rule of its own."""
    rule = _SAME.get(plain_type, "false")
    return "false" if rule == _JSONB and server_version < _IS_JSON_SINCE else rule


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
    found = f"{file.path}: values of it would lose something as the types of {target}: {named(lost)}"
    if by_us:
        raise RefusedError(f"{found}. Nothing of this day was restored. {TABLE_OF_YOUR_OWN}")
    logger.warning("%s. They are restored as they read", found)


def warn_of_zones(target: TableName, changed: Mapping[str, int], file: StoredFile) -> None:
    """Warns of times that have got or lost a time zone since, in how many rows of each column."""
    if changed:
        logger.warning(
            "%s: times of it have a time zone and those of %s have none, or the other way round: %s. They are restored "
            "as times of UTC. Where the column was converted by another zone they are off: correct them, or restore "
            "into a table of your own making, with text for that column: --table NAME",
            file.path,
            target,
            named(changed),
        )

"""What a restore says of values that today's types cut short, or give a time zone. Not here: which rows come back."""

import logging
from collections.abc import Mapping

from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive.errors import RefusedError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.readback import Readback
from event_archive.operations.verbatim import as_text, count_current, named
from event_archive.postgres.session import Connection

logger = logging.getLogger(__name__)

TABLE_OF_YOUR_OWN = "Restore it into a table of your own making, with text for the columns in question: --table NAME."

# Behind a time of day, AM and PM aside. BC is none, nor is the end of a date.
_HAS_ZONE = "{file} ~ ':[0-9.]+ *([AaPp][Mm] *)?([-+][0-9]|[Zz]($|[^A-Za-z])|[A-Za-z]{{3}})'"
_HAS_NONE = f"{{file}} ~ '[0-9]' AND NOT ({_HAS_ZONE})"
_ZONE_CHANGED = {
    "timestamp with time zone": _HAS_NONE, "time with time zone": _HAS_NONE, "date": _HAS_ZONE,
    "timestamp without time zone": _HAS_ZONE,
}  # fmt: skip


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

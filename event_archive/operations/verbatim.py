"""A day's CSV as text, every value as it is spelled: for what is rewritten, and to see what today's types would lose.

Not here: the read-back that rows are compared with.
"""

from collections.abc import Sequence

from psycopg import sql

from event_archive.domain.contradiction import contradiction
from event_archive.domain.progress import Progress
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.loading import copy_file, number_rows
from event_archive.operations.readback import Readback
from event_archive.postgres.session import Connection, own_search_path

VERBATIM = sql.Identifier("pg_temp", "event_archive_verbatim")
"""The temporary table that holds the text, its rows numbered as those of ``READBACK``."""


def load_verbatim(connection: Connection, readback: Readback, lake: Lake, file: StoredFile, progress: Progress) -> None:
    """Reads a file once more, every value as the text that stands in it, into ``VERBATIM``.

    What is rewritten must come out as it was: a value that went through today's types may lose digits, keys or order.

    Raises:
        IntegrityError: it holds something else than when it was read back.
    """
    create = sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP").format(
        VERBATIM,
        sql.SQL(", ").join(sql.SQL("{} pg_catalog.text").format(sql.Identifier(name)) for name in readback.columns),
    )
    with own_search_path(connection):
        connection.execute(create)
        number_rows(connection, VERBATIM, readback.line)
    with lake.read(file) as blocks:
        rows, hashes = copy_file(
            connection, VERBATIM, readback.columns, blocks, file, progress, phase="reading as text"
        )
    if (rows, hashes.sha256.digest()) != (readback.rows, readback.hashes.sha256.digest()):
        raise contradiction(file, "it changed between two readings")


def verbatim_rows(readback: Readback, columns: Sequence[str]) -> sql.Composable:
    """All the file's rows as ``load_verbatim`` read them, in file order; NULL in columns that the file lacks."""
    names = [
        sql.SQL("{}" if name in readback.columns else "NULL AS {}").format(sql.Identifier(name)) for name in columns
    ]
    return sql.SQL("SELECT {} FROM {} ORDER BY {}").format(sql.SQL(", ").join(names), VERBATIM, readback.line)

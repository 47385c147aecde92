"""The proof that a day's file may be deleted by: it is the one that was recorded, it is ours, and it reads as it says.

Not here: the comparison with the table's rows (``readback``), what is deleted.
"""

from datetime import date

from psycopg import sql

from event_archive.domain.dataset import Dataset, key_named, keys_named
from event_archive.domain.key_types import retyped
from event_archive.domain.keys import moved, names_now
from event_archive.domain.manifest import Manifest
from event_archive.domain.progress import Progress
from event_archive.domain.record import Record
from event_archive.domain.source import Claim, Source
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError, RefusedError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.loading import load
from event_archive.operations.readback import READBACK, Readback
from event_archive.operations.site import Site
from event_archive.operations.unanswered import may_be_replaced
from event_archive.operations.verbatim import WRITE_THE_TIME, load_verbatim, require_lasting
from event_archive.postgres.catalogue.columns import columns_of_time
from event_archive.postgres.session import Connection
from event_archive.table.shape import Table


def prove(
    connection: Connection,
    table: Table,
    lake: Lake,
    day: date,
    file: StoredFile,
    record: Record,
    claimed: Claim,
    progress: Progress,
    *,
    into: sql.Identifier = READBACK,
) -> Readback:
    """Reads a day's file back, and sees that it is what its manifest and the archive's record say.

    Args:
        connection: in a transaction, which has the day's lock.
        table: whose rows the file holds. It is not locked.
        lake: where the file lies.
        day: whose file.
        file: as stat'ed, and as recorded.
        record: what the day's latest archive recorded of it.
        claimed: whose the files are.
        progress: is told of every block.
        into: the temporary table.

    Raises:
        IntegrityError: it is not, or says ``today`` or the like in place of a time.
        FileChangedError, RefusedError, UnreachableError: as the lake says.
    """
    manifest = Manifest.from_file(file)
    if manifest is None:
        raise IntegrityError(
            f"{file.path}: another tool wrote or copied it, for it has no manifest.",
            outcome="Nothing was deleted.",
            advice="Archive the day again, which takes it over: "
            f"{table.dataset.command(f'run {day}')}, or materialize archive_csv.",
        )
    manifest.require_own(file, day, claimed)
    _require_key_known(table, day, manifest, file.path, claimed.source)
    readback = load(connection, table, lake, file, progress, into=into)
    manifest.require(file, readback.manifest)
    if readback.rows != record.rows:
        raise IntegrityError(
            f"{file.path}: it has {counted(readback.rows, 'row', 'rows')}, the archive's record says {record.rows}.",
            outcome="Nothing was deleted.",
            advice=_archive_again(table.dataset, day),
        )
    # What was written as a time is one for ever; a text that has become one since may not be.
    if readback.may_say_today and not readback.is_as_written(manifest):
        _require_lasting(connection, readback, lake, file, progress)
    return readback


def _require_lasting(
    connection: Connection, readback: Readback, lake: Lake, file: StoredFile, progress: Progress
) -> None:
    # The rows' own time was one when they were archived.
    of_time = columns_of_time(connection, readback.table.oid) - {readback.table.dataset.time_column}
    if not of_time.intersection(readback.columns):
        return
    with connection.transaction(force_rollback=True):
        load_verbatim(connection, readback, lake, file, progress)
        try:
            require_lasting(connection, readback, file, outcome="Nothing was deleted.", advice=WRITE_THE_TIME)
        except RefusedError as error:
            raise IntegrityError(error.problem, outcome=error.outcome, advice=error.advice) from None


def _require_key_known(table: Table, day: date, manifest: Manifest, path: str, source: Source) -> None:
    """Checks that the manifest names the key by which rows are compared.

    By another key a former form in the file may pass for the current one, and a restore would not know.

    Raises:
        IntegrityError: the table has got another key since the file was written.
    """
    now = names_now(manifest, source, table.oid, table.numbers)
    others = moved(table.key, now) or retyped(manifest, table.key_types, now)
    if others or (manifest.keys and not manifest.knows_key(table.key)):
        raise IntegrityError(
            f"{table.dataset.table}, {day}: the table's key is {key_named(table.key)}, {path} was archived under "
            f"{keys_named(manifest.keys)}{others and f', and {others}'}.",
            outcome="Nothing was deleted.",
            advice=_archive_again(table.dataset, day),
        )


def require_recorded(site: Site, day: date, file: StoredFile | None, record: Record) -> None:
    """The gate: the file in the lake is the one that was recorded, and stays that.

    Raises:
        IntegrityError: it is another one, or gone, or a commit that got no answer may still replace it.
    """
    dataset = site.dataset
    path, found = dataset.path(day), file.etag if file else None
    if found == record.etag and not (file and may_be_replaced(site.lake, file)):
        return
    advice = _archive_again(dataset, day)
    if file is None:
        rows = counted(record.rows, "row", "rows")
        if place := record.elsewhere(site.lake.url(path)):
            # The folder, the prefix or the lake has changed since.
            problem = f"{path} is not in the lake; the day's latest archive recorded {rows} in {place}"
        else:
            problem = f"{path} is gone from the lake; the day's latest archive recorded {rows} in it"
            # An archive would record that there is none, and nobody would miss it any more.
            advice = f"Bring it back (soft delete, versions, a backup). If it is lost: {advice[0].lower()}{advice[1:]}"
    elif record.etag is None:
        problem = f"{path} is in the lake; the day's latest archive found no rows and wrote no file"
    elif found == record.etag:
        problem = f"a commit of this process, which was to append to {path}, got no answer, and may still come"
    else:
        problem = f"{path} has ETag {found}; the day's latest archive recorded {record.etag}"
    raise IntegrityError(f"{dataset.table}, {day}: {problem}.", outcome="Nothing was deleted.", advice=advice)


def _archive_again(dataset: Dataset, day: date) -> str:
    again = dataset.command(f"run {day}")
    return f"Archive the day again: {again}, or materialize archive_csv, then purged_events."

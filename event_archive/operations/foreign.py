"""Whether another tool's file, at a day's place, can be taken over. Not here: how it is read and appended to."""

from datetime import date

from event_archive.domain.dataset import key_named
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.loading import count_keyless
from event_archive.operations.readback import Readback
from event_archive.postgres.session import Connection
from event_archive.table.shape import Table

_OUTCOME = "Nothing was written or deleted."


def require_takeable(connection: Connection, table: Table, readback: Readback, day: date, file: StoredFile) -> None:
    """Refuses a file of another tool whose rows cannot be compared, or not be restored into the table.

    Raises:
        IntegrityError: it lacks the key, in a row at least, or has values that do not parse.
    """
    foreign = f"{file.path}: another tool wrote or copied it, for it has no manifest"
    if missing := ", ".join(readback.lacks_of_key):
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

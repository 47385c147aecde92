"""The landing: one transaction that holds a batch of records, those that were rejected, and the position behind them.

COPY into the session's own temporary table, a merge into the target in the order of its key, so that two landings never
wait for each other in a ring. Not here: the temporary tables, the merge's statements, how records are read or checked,
what a position is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import sleep
from typing import TypeVar

import psycopg

from event_archive.domain.dataset import TableName
from event_archive.errors import BusyError, IntegrityError
from event_archive.postgres.errors import Advice, without_values
from event_archive.postgres.pins import fire_at_once, own_search_path
from event_archive.postgres.session import Connection, Session, one
from event_archive.postgres.statements import exempting
from event_archive.sources import merge
from event_archive.sources.copy_format import line
from event_archive.sources.merge import Target
from event_archive.sources.staging import stage

_ATTEMPTS = 5
_OF_A_ROW = (
    psycopg.DataError, psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex,
    psycopg.errors.RaiseException, psycopg.errors.AssertFailure,
    psycopg.errors.NoDataFound, psycopg.errors.TooManyRows,
)  # fmt: skip
"""What PostgreSQL, or a trigger, raises of a row's values: the rest of its batch goes on."""


class _MissingError(IntegrityError):
    """Records became neither rows nor rejected; a purge that committed meanwhile does the same, and only once."""


R = TypeVar("R")
_REJECTED_COLUMNS = (("locator", "text"), ("reason", "text"), ("raw", "bytea"))


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that cannot be a row.

    Attributes:
        locator: where in the source it was found; the same at every reading.
        reason: why, without any of its values.
        raw: its bytes as they came.
    """

    locator: str
    reason: str
    raw: bytes


@dataclass(slots=True)
class Batch:
    """What one transaction lands.

    Attributes:
        lines: rows, as ``copy_format.line`` writes them.
        origins: from the line of an index on, what tells the locator and the bytes of the record that a line was made
            of, should PostgreSQL refuse it.
        rejected: what cannot be a row.
        too_old: how many records were left out, since their day is archived already.
        lost: records that the source itself no longer has, whose bytes nobody knows.
    """

    lines: list[bytes] = field(default_factory=list)
    origins: list[tuple[int, Callable[[int], tuple[str, bytes]]]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    too_old: int = 0
    lost: list[Rejected] = field(default_factory=list)

    def origin(self, index: int) -> tuple[str, bytes]:
        """Locator and bytes of the record that a line was made of."""
        return next(tell for first, tell in reversed(self.origins) if first <= index)(index)


@dataclass(slots=True)
class Counts:
    """The books: what was taken in, and what became of it.

    Attributes:
        taken: records taken in.
        new: rows that were not there.
        known: records that were there already, as a row or as a rejected record.
        superseded: records of whose key there was another form; the newer one is the row.
        rejected: records that cannot be rows.
        too_old: records whose day is archived already.
        lost: records that the source no longer has.
    """

    taken: int = 0
    new: int = 0
    known: int = 0
    superseded: int = 0
    rejected: int = 0
    too_old: int = 0
    lost: int = 0

    def add(self, other: "Counts") -> None:
        """Adds the counts of another landing."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def balance(self) -> int:
        """Records of which nobody knows what became; 0 where the books balance."""
        return 2 * self.taken - sum(self.as_dict().values())


def in_transaction(
    session: Session, target: Target, work: Callable[[Connection], R], *, pause: Callable[[float], None] = sleep
) -> R:
    """Does work once, in one transaction: most lands a batch by ``land_in``, with the position behind it.

    Args:
        session: with the database.
        target: where rows go.
        work: done again from its beginning after a deadlock, a failed serialization, or where others had what it needs.
        pause: waits some seconds between two attempts.

    Returns:
        What the work returns.

    Raises:
        UnreachableError: the connection broke. Whether the batch was committed, only the stored position tells.
        BusyError: others had what it needs at each of five attempts.
        IntegrityError: the books do not balance; nothing was committed.
        RefusedError: as PostgreSQL says.
    """
    advice = Advice(
        outcome="The batch was not taken in.",
        again="the next run takes it in",
        lost="The next run goes on where the last commit ended.",
        privileges=f"The role needs SELECT, INSERT and UPDATE on {target.table} and on the tables beside it, DELETE on "
        "rejected_records to read those again, and TEMPORARY on the database: GRANT them, or connect as another role.",
    )
    for attempt in count(1):
        try:
            with session.transaction(str(target.table), advice=advice) as connection:
                return work(connection)
        except (BusyError, _MissingError):
            if attempt == _ATTEMPTS:
                raise
        pause(0.1 * 2**attempt)
    raise AssertionError("unreachable")


def land_in(connection: Connection, target: Target, source: str, batch: Batch) -> Counts:
    """Lands a batch inside of somebody's transaction, which may land several.

    Args:
        connection: in the transaction.
        target: where rows go.
        source: whose records they are, for ``rejected_records``.
        batch: what to land.

    Returns:
        What became of the batch.

    Raises:
        IntegrityError: the books do not balance; the transaction has to be rolled back.
    """
    fire_at_once(connection)
    counts = Counts(
        taken=len(batch.lines) + len(batch.rejected) + batch.too_old + len(batch.lost), too_old=batch.too_old
    )
    refused = _land_lines(connection, target, batch, range(len(batch.lines)), counts)
    counts.rejected = _reject(connection, target, source, [*batch.rejected, *refused])
    counts.lost = _reject(connection, target, source, batch.lost)
    counts.known += len(batch.rejected) + len(refused) + len(batch.lost) - counts.rejected - counts.lost
    if counts.balance:
        raise IntegrityError(
            f"{target.table}: the books of a batch do not balance: {counts.as_dict()}. It was not taken in."
        )
    return counts


def _land_lines(connection: Connection, target: Target, batch: Batch, indexes: range, counts: Counts) -> list[Rejected]:
    """Merges some lines, but for those that PostgreSQL refuses, which are found by halving and returned."""
    if not indexes:
        return []
    try:
        with connection.transaction():
            _merge(connection, target, batch.lines[indexes.start : indexes.stop], counts)
            return []
    except psycopg.DatabaseError as error:
        # A SQLSTATE of nobody's is one that a trigger made up.
        if not isinstance(error, _OF_A_ROW) and type(error) is not psycopg.DatabaseError:
            raise
        if error.diag.source_function == "ExecFindPartition":
            raise BusyError(
                f"{target.table} has no partition for some records. They were not taken in; they are tried again. If "
                "that goes on, create the partition."
            ) from None
        if len(indexes) == 1:
            if _has_come_again(connection, target, batch.lines[indexes.start], counts):
                return []
            locator, raw = batch.origin(indexes.start)
            return [Rejected(locator, f"PostgreSQL refuses it: {without_values(error)}", raw)]
    middle = (indexes.start + indexes.stop) // 2
    return [
        refused
        for half in (range(indexes.start, middle), range(middle, indexes.stop))
        for refused in _land_lines(connection, target, batch, half, counts)
    ]


def _has_come_again(connection: Connection, target: Target, line_: bytes, counts: Counts) -> bool:
    """Whether a line that PostgreSQL refuses would change nothing; then it is counted as known, or as superseded.

    What refuses it, a constraint or a trigger, may have come after its row, and is asked before the row is looked for.
    """
    try:
        with connection.transaction():
            staged = stage(connection, target.table.name, target.columns, [line_])
            with own_search_path(connection):
                present = one(connection, merge.present_statement(target, staged))[0]
                newer = present and target.version and one(connection, merge.newer_statement(target, staged))[0]
                older = present and target.version and one(connection, merge.older_statement(target, staged))[0]
    except _OF_A_ROW:
        return False
    if present and not newer:
        counts.known, counts.superseded = counts.known + (not older), counts.superseded + bool(older)
    return bool(present and not newer)


def _merge(connection: Connection, target: Target, lines: Sequence[bytes], counts: Counts) -> None:
    staged = stage(connection, target.table.name, target.columns, lines)
    may_change, may_keep = one(connection, merge.triggers_statement(target))
    with own_search_path(connection):
        inserted, renamed, distinct, forms = one(connection, merge.insert_statement(target, staged, watched=may_change))
        updated = 0
        if target.version and inserted < distinct:
            to_update = one(connection, merge.newer_statement(target, staged))[0] if may_keep else 0
            updated = connection.execute(merge.update_statement(target, staged)).rowcount
            if updated < to_update:
                raise _MissingError(
                    f"{target.table}: {to_update - updated} of {distinct} records are newer than their rows, and a "
                    f"trigger keeps those as they are. The batch was not taken in. {exempting(connection)}."
                )
    superseded = updated + forms - distinct
    missing = renamed
    if may_change or inserted < distinct:
        missing = max(missing, distinct - one(connection, merge.present_statement(target, staged))[0])
    if missing:
        raise _MissingError(
            f"{target.table}: {missing} of {distinct} records that were inserted have no row: a trigger keeps them "
            f"out, or gives them another key. The batch was not taken in. {exempting(connection)}."
        )
    if target.version and inserted + updated < distinct:
        superseded += one(connection, merge.older_statement(target, staged))[0]
    counts.new += inserted
    counts.superseded += superseded
    counts.known += len(lines) - inserted - superseded


def rejected_table(target: Target) -> TableName:
    """Where the records of a target go that cannot be rows."""
    return TableName(target.table.schema, "rejected_records")


def _reject(connection: Connection, target: Target, source: str, rejected: Sequence[Rejected]) -> int:
    """Writes what was rejected; returns how much of it was not written before."""
    if not rejected:
        return 0
    table = rejected_table(target)
    rows = [line((of.locator.encode(), of.reason.encode(), b"\\x" + of.raw.hex().encode())) for of in rejected]
    staged = stage(connection, table.name, _REJECTED_COLUMNS, rows)
    insert = merge.reject_statement(table, source, staged)
    with own_search_path(connection):
        written = connection.execute(insert).rowcount
        if written < len(rejected):
            # Another process may just have committed other bytes under the same locator, which only now can be seen.
            written += connection.execute(insert).rowcount
    if missing := one(connection, merge.unkept_statement(table, source, staged))[0]:
        raise _MissingError(
            f"{table}: {missing} of {len(rejected)} records that were rejected have no row: a trigger keeps them out. "
            f"The batch was not taken in. {exempting(connection)}."
        )
    return written

"""COPY out of PostgreSQL and into it, at the speed of libpq. Not here: what is copied, and in which format."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Any

import psycopg
from psycopg import sql
from psycopg.generators import fetch_many
from psycopg.pq import ExecStatus

from event_archive.postgres.session import Connection

# Large enough that the calls a piece costs do not count, small enough that memory stays flat.
_PIECE_OUT_BYTES = 1024 * 1024
# libpq copies what it is given into a buffer that grows to the largest piece, and doubles on its way there.
_PIECE_IN_BYTES = 512 * 1024


def copy_out(connection: Connection, statement: sql.Composed, take: Callable[[bytearray, int], None]) -> int:
    """Runs a ``COPY … TO STDOUT`` and hands over what comes, in pieces of a MiB and a bit.

    PostgreSQL sends a message a row. What has arrived already is taken from libpq directly, since psycopg's own step
    from one message to the next costs twice what libpq's does; psycopg waits where nothing has arrived.

    Args:
        connection: in a transaction.
        statement: the COPY.
        take: called with each piece, which is then its own, and the number of messages in it.

    Returns:
        How many rows PostgreSQL says it copied.
    """
    pgconn = connection.pgconn
    arrived = pgconn.get_copy_data
    with connection.cursor() as cursor, _copying(cursor, statement) as copy:
        piece, messages, end = bytearray(), 0, 0
        while end == 0 and (first := copy.read()):
            # Each with its length; 0 for nothing yet, -1 for the end. A loop over a map costs less than calls.
            for end, row in chain([(len(first), first)], map(arrived, repeat(1))):
                if end <= 0:
                    break
                piece += row
                messages += 1
                if len(piece) >= _PIECE_OUT_BYTES:
                    take(piece, messages)
                    piece, messages = bytearray(), 0
        if piece:
            take(piece, messages)
        if end == 0:
            # psycopg saw the end.
            return cursor.rowcount
        results = connection.wait(fetch_many(pgconn))
        failed = [result for result in results if result.status != ExecStatus.COMMAND_OK]
        if failed:
            raise psycopg.errors.error_from_result(failed[0], encoding="utf-8")
        return results[-1].command_tuples or 0


def copy_in(connection: Connection, statement: sql.Composed, blocks: Iterable[bytes | memoryview]) -> int:
    """Runs a ``COPY … FROM STDIN`` on blocks of any size, each taken when the one before it has been sent.

    Args:
        connection: in a transaction.
        statement: the COPY.
        blocks: what is copied.

    Returns:
        How many rows PostgreSQL says it copied.
    """
    with connection.cursor() as cursor:
        with _copying(cursor, statement) as copy:
            for block in blocks:
                content = memoryview(block)
                for start in range(0, len(content), _PIECE_IN_BYTES):
                    copy.write(content[start : start + _PIECE_IN_BYTES])
        return cursor.rowcount


@contextmanager
def _copying(cursor: psycopg.Cursor[Any], statement: sql.Composed) -> Iterator[psycopg.Copy]:
    """``cursor.copy``, but for a pooler whose server goes away: there psycopg sees two results, and awaits one."""
    failure: BaseException | None = None
    try:
        with cursor.copy(statement) as copy:
            try:
                yield copy
            except BaseException as error:
                failure = error
                raise
    except (ValueError, psycopg.ProgrammingError) as error:
        if error is failure or getattr(error, "sqlstate", None):
            raise
        if failure is not None:
            raise failure  # noqa: B904 (it has a cause of its own)
        raise psycopg.OperationalError("the COPY broke off; a pooler's server may have gone away") from None

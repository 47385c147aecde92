"""Rows on their way out of PostgreSQL: all of them, in order, and no end that looks like one but is none."""

import os
import socket
from collections.abc import Iterable

import psycopg
import pytest
from psycopg import sql

from event_archive.errors import RefusedError, UnreachableError
from event_archive.postgres.copy import copy_in, copy_out
from event_archive.postgres.session import Postgres
from event_archive_tests.fixtures.postgres import Database


def copied(database: Database, query: str, *, options: str = "") -> tuple[bytes, list[int], int]:
    """What came, the rows in each piece, and the rows that PostgreSQL counted."""
    pieces: list[tuple[bytes, int]] = []
    with Postgres(database.dsn).transaction("the test") as connection:
        statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv{})").format(
            sql.SQL(query),
            sql.SQL(options),
        )
        rows = copy_out(connection, statement, lambda piece, rows: pieces.append((bytes(piece), rows)))
        # The session is free again.
        assert connection.execute("SELECT 1").fetchone() == (1,)
    return b"".join(content for content, _ in pieces), [count for _, count in pieces], rows


def test_all_rows_come_in_order_in_pieces_of_a_mebibyte(each_database: Database):
    content, counts, rows = copied(each_database, "SELECT n, repeat('x', 90) FROM generate_series(1, 50000) AS n")
    lines = content.decode().splitlines()
    assert [line.partition(",")[0] for line in lines] == [str(n) for n in range(1, 50001)]
    assert rows == sum(counts) == 50000
    assert len(counts) == len(content) // 1024**2 + 1 == 5


def test_the_header_is_a_message_and_no_row(each_database: Database):
    content, counts, rows = copied(each_database, "SELECT 1 AS one", options=", HEADER true")
    assert (content, counts, rows) == (b"one\n1\n", [2], 1)


def test_no_row_is_nothing_at_all(each_database: Database):
    assert copied(each_database, "SELECT 1 WHERE false") == (b"", [], 0)


@pytest.mark.parametrize("width", [7_000, 9_000, 100_000])
def test_pieces_stay_small_however_wide_the_rows(database: Database, width: int):
    """A row of more than 8 kB mostly arrives alone."""
    largest = 0

    def take(piece: bytearray, _rows: int) -> None:
        nonlocal largest
        largest = max(largest, len(piece))

    with Postgres(database.dsn).transaction("the test") as connection:
        query = sql.SQL("COPY (SELECT repeat('x', {}) FROM generate_series(1, {})) TO STDOUT")
        rows = 20_000_000 // width
        assert copy_out(connection, query.format(sql.Literal(width), sql.Literal(rows)), take) == rows
    assert largest <= 1024**2 + width + 1


def test_a_row_larger_than_any_buffer(each_database: Database):
    content, counts, rows = copied(each_database, "SELECT repeat('x', 5000000) UNION ALL SELECT 'y'")
    assert (len(content), content[-3:], counts, rows) == (5_000_003, b"\ny\n", [1, 1], 2)


@pytest.mark.parametrize("at", [1, 2, 30_000])
def test_an_error_after_some_rows_is_an_error(each_database: Database, at: int):
    with pytest.raises(RefusedError, match="division by zero"):
        copied(each_database, f"SELECT 1 / (n - {at}), repeat('x', 90) FROM generate_series(1, 40000) AS n")


def test_a_server_that_goes_away_in_the_middle_is_an_error(database: Database):
    taken = 0

    def take(_piece: bytearray, rows: int) -> None:
        nonlocal taken
        taken += rows
        with psycopg.connect(database.dsn) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY (%'")

    statement = sql.SQL("COPY (SELECT repeat('x', 90) FROM generate_series(1, 2000000)) TO STDOUT").format()
    with (
        pytest.raises(UnreachableError, match="terminat|closed|lost"),
        Postgres(database.dsn).transaction("the test") as connection,
    ):
        copy_out(connection, statement, take)
    assert 0 < taken < 2_000_000


def test_a_line_that_is_cut_in_the_middle_is_an_unreachable_service(database: Database):
    statement = sql.SQL("COPY (SELECT repeat('x', 90) FROM generate_series(1, 2000000)) TO STDOUT").format()
    with (
        pytest.raises(UnreachableError),
        Postgres(database.dsn).transaction("the test") as connection,
        socket.socket(fileno=os.dup(connection.fileno())) as line,
    ):
        copy_out(connection, statement, lambda *_: line.shutdown(socket.SHUT_RDWR))


def test_whoever_takes_may_refuse_and_the_session_survives(database: Database):
    def refuse(_piece: bytearray, _rows: int) -> None:
        raise LookupError("no more")

    with Postgres(database.dsn).transaction("the test") as connection:
        statement = sql.SQL("COPY (SELECT repeat('x', 90) FROM generate_series(1, 2000000)) TO STDOUT").format()
        with pytest.raises(LookupError), connection.transaction():
            copy_out(connection, statement, refuse)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_of_a_pooler_whose_server_goes_away_a_copy_has_two_results(database: Database, monkeypatch: pytest.MonkeyPatch):
    """psycopg unpacks one: what it raises is no error of the program, nor of whoever hands over what is copied."""

    def two_results(*_: object) -> None:
        raise ValueError("too many values to unpack (expected 1)")

    def copy(rows: Iterable[bytes]) -> int:
        with Postgres(database.dsn).transaction("the test") as connection:
            connection.execute("CREATE TEMPORARY TABLE t (n int) ON COMMIT DROP")
            return copy_in(connection, sql.Composed([sql.SQL("COPY pg_temp.t FROM STDIN (FORMAT csv)")]), rows)

    with pytest.raises(ZeroDivisionError):
        copy(b"%d\n" % (1 // n) for n in (1, 0))
    assert copy([b"1\n"]) == 1
    monkeypatch.setattr("psycopg._copy.copy_end", two_results)
    with pytest.raises(UnreachableError, match="the COPY broke off"):
        copy([b"1\n"])

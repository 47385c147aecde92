"""Sessions that a pooler, a restart or a silent host ends, and servers that are full for a while."""

import os
import socket

import psycopg
import pytest

from event_archive.errors import RefusedError, UnreachableError
from event_archive.postgres import connecting
from event_archive.postgres.connecting import connect as connected
from event_archive.postgres.errors import NO_ADVICE, refusal
from event_archive.postgres.session import Postgres, Session
from event_archive.sources import runs
from event_archive.sources.former import Former
from event_archive.sources.redis_stream import consume, task
from event_archive_tests.fixtures.connecting import connect
from event_archive_tests.fixtures.fake_time import FakeTime
from event_archive_tests.fixtures.refusing import refusing
from event_archive_tests.fixtures.valkey import Stream


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The clock of whoever connects."""
    made = FakeTime()
    for module in (connecting, consume, runs, task):
        monkeypatch.setattr(module, "time", made)
    return made


def test_an_ingestion_waits_about_a_minute_for_a_server_that_is_full(clock: FakeTime):
    with refusing("53300", "zu viele") as server, pytest.raises(UnreachableError, match="no connection left"):
        runs.work_connected(Postgres(server.dsn), _nothing, done=lambda: 0, told_to_stop=lambda: False)
    assert 60 < clock.now < 100


def test_a_stream_is_drained_until_the_database_has_been_full_for_about_a_minute(clock: FakeTime, stream: Stream):
    with refusing("53300", "zu viele") as server, pytest.raises(UnreachableError, match="no connection left"):
        stream.run(pg_connection_string=server.dsn)
    assert 60 < clock.now < 100


def _nothing(_session: Session, _former: Former) -> None:
    pass


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("08P01", "transaction blocks not allowed in statement pooling mode"),
        ("53200", "недостаточно памяти"),
    ],
)
def test_what_is_the_same_tomorrow_is_a_refusal_in_the_middle_of_a_session_too(
    waits: list[float], code: str, words: str
):
    with refusing(code, words, lets_in=True) as server:
        error = connect(server.dsn)
    assert isinstance(error, RefusedError)
    assert not error.transient
    assert f"{words} [SQLSTATE {code}]" in str(error)
    assert ("A pooler in statement mode knows no transaction" in str(error)) == (code == "08P01")
    assert waits == []


@pytest.mark.parametrize("words", ["query_wait_timeout", "server conn crashed?", "invalid server parameter"])
def test_a_pooler_without_a_server_is_out_of_reach(waits: list[float], words: str):
    with refusing("08P01", words, lets_in=True) as server:
        error = connect(server.dsn)
    assert isinstance(error, UnreachableError)
    assert f"{words} [SQLSTATE 08P01]. The pooler is full, or PostgreSQL is away." in str(error)
    assert waits == []


@pytest.mark.parametrize("words", ["query timeout", "idle transaction timeout", "transaction timeout"])
def test_a_pooler_that_ends_what_takes_long_is_told_by_its_setting(waits: list[float], words: str):
    with refusing("08P01", words, lets_in=True) as server:
        error = connect(server.dsn)
    # What became of the statement, a COMMIT maybe, nobody knows.
    assert isinstance(error, UnreachableError)
    assert "raise its query_timeout, idle_transaction_timeout and transaction_timeout" in str(error)
    assert waits == []


def test_a_pooler_that_breaks_off_for_another_reason_is_out_of_reach(waits: list[float]):
    with refusing("08P01", "database removed", lets_in=True) as server:
        assert isinstance(connect(server.dsn), UnreachableError)
    assert waits == []


def test_a_session_in_which_one_statement_has_two_results_is_broken():
    """As psycopg says it behind a pooler in session mode whose server goes away."""
    strange = psycopg.InternalError("received 2 results from command 'BEGIN'")
    assert isinstance(refusal(strange, "public.t", NO_ADVICE, hide=str, variable="PG"), UnreachableError)


def test_the_words_of_an_internal_error_are_not_repeated(waits: list[float]):
    with refusing("XX000", "invalid memory alloc request for nobody-may-see", lets_in=True) as server:
        error = connect(server.dsn)
    assert "PostgreSQL says: internal error in auth_failed (auth.c) [SQLSTATE XX000]" in str(error)


def test_a_session_that_a_restart_ends_is_out_of_reach(waits: list[float]):
    with refusing("57P01", "закрытие подключения по команде администратора", lets_in=True) as server:
        assert isinstance(connect(server.dsn), UnreachableError)


def test_a_host_that_is_gone_is_noticed_within_two_minutes():
    with (
        refusing("57P01", "", lets_in=True) as server,
        connected(server.dsn, "password", variable="PG_CONNECTION_STRING") as connection,
        socket.socket(fileno=os.dup(connection.fileno())) as line,
    ):
        assert connection.info.get_parameters()["connect_timeout"] == "10"
        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
        idle_seconds, interval_seconds, count = (
            line.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle_seconds + interval_seconds * count <= 120

"""Connections that are refused: told apart by what the server's code says, whatever language its words are in."""

import os
import socket
import socketserver
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from event_archive.errors import ConfigurationError, EventArchiveError, RefusedError, UnreachableError
from event_archive.postgres import connecting
from event_archive.postgres.connecting import connect as connected
from event_archive.postgres.connecting import without_secrets
from event_archive.postgres.errors import NO_ADVICE, refusal
from event_archive.postgres.session import Postgres, Session
from event_archive.sources import runs
from event_archive.sources.former import Former
from event_archive.sources.redis_stream import consume, task
from event_archive_tests.fixtures.entra import make_certificate
from event_archive_tests.fixtures.fake_time import FakeTime
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.postgres import Database, Server, password_role
from event_archive_tests.fixtures.refusing import refusing
from event_archive_tests.fixtures.servers import serving
from event_archive_tests.fixtures.valkey import Stream


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, none of which is made."""
    found: list[float] = []
    monkeypatch.setattr("event_archive.postgres.connecting.time.sleep", found.append)
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The clock of whoever connects."""
    made = FakeTime()
    for module in (connecting, consume, runs, task):
        monkeypatch.setattr(module, "time", made)
    return made


def connect(dsn: str) -> EventArchiveError:
    with pytest.raises(EventArchiveError) as raised, Postgres(dsn).transaction("it"):
        pass
    assert "nobody-may-see" not in str(raised.value)
    # PostgreSQL's own words would stand in a traceback.
    assert raised.value.__suppress_context__
    assert raised.value.__cause__ is None
    return raised.value


REFUSALS = [
    ("28P01", 'пользователь "someone" не прошёл проверку подлинности (по паролю)'),
    ("28000", "keine pg_hba.conf-Eintrag für Host »127.0.0.1«, Datenbank »events«"),
    ("3D000", 'база данных "events" не существует'),
    ("42501", "keine Berechtigung für Datenbank »events«"),
    ("53200", "Speicher aufgebraucht"),
    ("55000", "Datenbank »events« akzeptiert gegenwärtig keine Verbindungen"),
]
PASSING = [
    ("53300", "tut mir leid, schon zu viele Verbindungen", "It has no connection left: end some, or raise"),
    ("57P01", "закрытие подключения по команде администратора", "It is starting up or shutting down"),
    ("57P03", "система баз данных запускается", "It is starting up or shutting down"),
    ("57P03", "das Datenbanksystem fährt herunter", "It is starting up or shutting down"),
]


@pytest.mark.parametrize("options", ["-c foo=1", "-c statement_timeout=abc", "-c max_connections=1"])
def test_a_setting_that_is_none_accuses_nobodys_password(server_18: Server, options: str):
    error = connect(make_conninfo(server_18.dsn("postgres"), options=options))
    assert isinstance(error, RefusedError)
    assert str(error).startswith("PostgreSQL refuses a setting: ")
    assert "Check options in PG_CONNECTION_STRING" in str(error)


@pytest.mark.parametrize(("code", "words"), REFUSALS)
def test_a_refusal_in_another_language_is_told_by_its_code_and_not_tried_again(
    waits: list[float], code: str, words: str
):
    with refusing(code, words, severity="ВАЖНО") as server:
        error = connect(server.dsn)
    assert isinstance(error, RefusedError)
    assert not error.transient
    assert str(error).startswith("PostgreSQL refuses the connection: ")
    assert f"{words} [SQLSTATE {code}]. Check user, password and database in PG_CONNECTION_STRING" in str(error)
    assert waits == []


@pytest.mark.parametrize(("code", "words", "advice"), PASSING)
def test_a_server_that_is_full_or_starting_in_another_language_is_tried_again(
    waits: list[float], code: str, words: str, advice: str
):
    with refusing(code, words, severity="FATAL") as server:
        error = connect(server.dsn)
    assert isinstance(error, UnreachableError)
    assert f"{words} [SQLSTATE {code}]. {advice}" in str(error)
    assert waits == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("08P01", "no more connections allowed (max_client_conn)"),
        ("08P01", "password authentication failed"),
        ("08P01", "server login has been failing, cached error: connect failed (server_login_retry)"),
        ("58000", "could not get connection from the pool - AllServersDown"),
        ("XX000", "Tenant or user not found"),
    ],
)
def test_what_a_pooler_says_of_everything_alike_is_tried_again_and_then_a_refusal(
    waits: list[float], code: str, words: str
):
    with refusing(code, words) as server:
        error = connect(server.dsn)
    assert isinstance(error, RefusedError)
    assert "A pooler says so where it is full, too" in str(error)
    assert waits == [1, 2, 3, 4, 5]


def test_an_option_that_a_pooler_does_not_pass_on_accuses_nobodys_password(waits: list[float]):
    with refusing("08P01", "unsupported startup parameter in options: search_path") as server:
        error = connect(server.dsn)
    assert isinstance(error, RefusedError)
    assert "Check options in PG_CONNECTION_STRING, PGOPTIONS" in str(error)
    assert "password" not in str(error)
    assert waits == []


@pytest.mark.slow
@pytest.mark.parametrize(("code", "words"), [("08P01", "нет базы"), ("57P03", "система баз данных запускается")])
def test_who_answers_once_and_then_no_more_is_out_of_reach_or_a_pooler_that_was_refused(
    waits: list[float], code: str, words: str
):
    with refusing(code, words, severity="ВАЖНО", answers=1) as server:
        error = connect(server.dsn + "?connect_timeout=2")
    assert isinstance(error, UnreachableError)
    assert f"{words}. It answered, and then no more. Check user, password and database in PG_CONN" in str(error)
    assert waits == [1, 2]


def test_a_server_that_is_full_and_then_not_is_not_said_to_refuse(waits: list[float]):
    with refusing("53300", "слишком много подключений", answers=1, then="break off") as server:
        error = connect(server.dsn + "?connect_timeout=2")
    assert isinstance(error, UnreachableError)
    assert "password" not in str(error)


@contextmanager
def with_certificate(pem: Path) -> Iterator[int]:
    """A server that offers TLS with a certificate, and says no more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(8)
            self.request.sendall(b"S")
            with suppress(OSError), context.wrap_socket(self.request, server_side=True) as secure:
                secure.recv(8192)

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        yield port


@pytest.mark.parametrize(
    ("trusted", "host", "words"),
    [
        ("another.pem", "127.0.0.1", "certificate verify failed"),
        ("missing.pem", "127.0.0.1", "does not exist"),
        ("server.pem", "db.example.com", "does not match host name"),
    ],
)
def test_a_certificate_that_is_not_trusted_is_no_outage(
    waits: list[float], tmp_path: Path, trusted: str, host: str, words: str
):
    pem, _ = make_certificate(tmp_path / "server.pem"), make_certificate(tmp_path / "another.pem")
    verifying = f"sslmode=verify-full sslrootcert={tmp_path / trusted}"
    with with_certificate(pem) as port:
        error = connect(f"host={host} hostaddr=127.0.0.1 port={port} dbname=d user=u {verifying}")
    assert isinstance(error, RefusedError)
    assert str(error).startswith("No TLS connection to PostgreSQL can be made: ")
    assert words in str(error)
    assert "Check sslmode, sslrootcert, sslcert and sslkey in PG_CONNECTION_STRING" in str(error)
    assert waits == []


@pytest.mark.parametrize(
    "settings",
    ["sslmode=require sslrootcert=system", "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2"],
)
def test_what_libpq_refuses_of_tls_before_it_connects_is_no_outage(waits: list[float], settings: str):
    error = connect(f"host=127.0.0.1 dbname=d user=u {settings}")
    assert isinstance(error, RefusedError)
    assert str(error).startswith("No TLS connection to PostgreSQL can be made: ")
    assert waits == []


@pytest.mark.parametrize("host", ["/tmp/certificates-that-are-nowhere", "certificates.invalid"])
def test_a_host_of_any_name_that_is_away_is_an_outage(waits: list[float], host: str):
    error = connect(f"host={host} dbname=d user=u")
    assert isinstance(error, UnreachableError)
    assert "PostgreSQL cannot be reached: " in str(error)
    assert waits == [1, 2]


@pytest.mark.parametrize("mode", ["prefer", "allow"])
def test_a_key_that_is_missing_is_named_where_the_server_lets_nobody_in_without_tls(
    waits: list[float], tmp_path: Path, mode: str
):
    pem = make_certificate(tmp_path / "client.pem")
    with refusing("28000", "kein Eintrag in pg_hba.conf, keine Verschlüsselung", offers_tls=True) as server:
        error = connect(f"{server.dsn}?sslmode={mode}&sslcert={pem}&sslkey={tmp_path}/missing.key")
    assert isinstance(error, RefusedError)
    assert str(error).startswith("No TLS connection to PostgreSQL can be made: ")
    assert "missing.key" in str(error)
    assert "[SQLSTATE 28000]. Check sslmode, sslrootcert, sslcert and sslkey in PG_CONNECTION_STRING" in str(error)
    assert waits == []


def test_names_that_a_server_repeats_say_nothing_of_tls(waits: list[float], monkeypatch: pytest.MonkeyPatch):
    said = (
        'connection failed: connection to server at "h", port 1 failed: FATAL:  no entry for user "certificate_app"\n'
        'connection to server at "h", port 1 failed: FATAL:  no entry for user "certificate_app", no encryption\n'
    )

    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise psycopg.OperationalError(said)

    monkeypatch.setattr(connecting, "_code", lambda *_: "28000")
    monkeypatch.setattr(psycopg, "connect", refuse)
    assert str(connect("host=h dbname=d user=certificate_app")).startswith("PostgreSQL refuses the connection: ")
    assert waits == []


def test_a_server_without_tls_is_no_outage(waits: list[float]):
    with refusing("57P03", "is starting up") as server:
        error = connect(f"{server.dsn}?sslmode=require")
    assert isinstance(error, RefusedError)
    assert "server does not support SSL, but SSL was required. Check sslmode" in str(error)
    assert waits == []


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


def test_a_server_that_breaks_off_without_a_code_is_out_of_reach(waits: list[float]):
    with refusing("", "") as server:
        error = connect(server.dsn + "?connect_timeout=2")
    assert isinstance(error, UnreachableError)
    assert waits == [1, 2]


def test_of_several_hosts_the_last_one_that_was_tried_says_why(waits: list[float]):
    with refusing("57P03", "система баз данных запускается") as starting, refusing("3D000", "нет базы") as other:
        error = connect(f"host=127.0.0.1,127.0.0.1 port={starting.port},{other.port} user=u dbname=d password=x")
    assert isinstance(error, RefusedError)
    assert "[SQLSTATE 3D000]" in str(error)
    assert waits == []


def test_a_real_server_refuses_with_its_code(local_installation: Installation, command: Commands, waits: list[float]):
    database = local_installation.database
    with password_role(database, "another") as role:
        dsn = database.server.dsn(database.name, role)
        wrong = command("run", PG_CONNECTION_STRING=f"{dsn} password=nobody-may-see")
        missing = command("run", PG_CONNECTION_STRING=dsn)
    nowhere = command("run", PG_CONNECTION_STRING=database.server.dsn("nowhere"))
    assert [done.code for done in (wrong, missing, nowhere)] == [1, 1, 1]
    assert "[SQLSTATE 28P01]" in wrong.error
    assert "no password supplied. Check user, password" in missing.error
    assert "[SQLSTATE 3D000]" in nowhere.error
    assert waits == []


@pytest.mark.parametrize("option", ["require_auth=md5", "channel_binding=require"])
def test_an_authentication_that_is_not_the_one_asked_for_is_no_outage(
    database: Database, waits: list[float], option: str
):
    with password_role(database, "another") as role:
        error = connect(f"{database.server.dsn(database.name, role)} password=another {option}")
    assert isinstance(error, RefusedError)
    assert "Check require_auth, requirepeer and channel_binding in PG_CONNECTION_STRING" in str(error)
    assert waits == []


def test_a_server_that_is_no_standby_answers(database: Database, waits: list[float]):
    error = connect(f"{database.dsn} target_session_attrs=standby")
    assert isinstance(error, UnreachableError)
    assert "It answers. Check host, port and target_session_attrs in PG_CONNECTION_STRING" in str(error)
    assert waits == [1, 2]


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


@pytest.mark.parametrize("option", ["sslmode=no-verify", "service=nope", "target_session_attrs=master"])
@pytest.mark.parametrize("variable", ["PG_CONNECTION_STRING", "EXPORT_PG_CONNECTION_STRING"])
@pytest.mark.parametrize("arguments", [["run"], ["days"], ["doctor"]], ids=" ".join)
def test_an_option_that_libpq_refuses_is_a_wrong_setting(
    local_installation: Installation,
    command: Commands,
    waits: list[float],
    option: str,
    variable: str,
    arguments: list[str],
):
    done = command(*arguments, **{variable: f"{local_installation.variables['PG_CONNECTION_STRING']} {option}"})
    assert done.code == 2
    assert f"{variable} holds (a secret, not shown): libpq refuses an option" in done.said
    assert waits == []


def test_an_option_of_the_environment_that_libpq_refuses_is_a_wrong_setting(
    local_installation: Installation, command: Commands
):
    done = command("run", PGSSLMODE="no-verify")
    assert done.code == 2
    assert "invalid sslmode value" in done.error
    assert ConfigurationError.transient is False


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


@pytest.mark.parametrize("name", ["password", "sslpassword", "passfile"])
def test_no_secret_of_a_connection_string_is_repeated(name: str):
    words = without_secrets("it is nobody-may-see, and no other", f"host=h {name}=nobody-may-see")
    assert words == "it is ***, and no other"

"""Connections that are refused: told apart by what the server's code says, whatever language its words are in."""

import pytest
from psycopg.conninfo import make_conninfo

from event_archive.errors import ConfigurationError, RefusedError, UnreachableError
from event_archive.postgres.connecting import without_secrets
from event_archive_tests.fixtures.connecting import connect
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.postgres import Database, Server, password_role
from event_archive_tests.fixtures.refusing import refusing

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


@pytest.mark.parametrize("name", ["password", "sslpassword", "passfile"])
def test_no_secret_of_a_connection_string_is_repeated(name: str):
    words = without_secrets("it is nobody-may-see, and no other", f"host=h {name}=nobody-may-see")
    assert words == "it is ***, and no other"

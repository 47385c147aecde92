"""Connections that TLS keeps from coming about: certificates, keys, servers without it."""

import socketserver
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from event_archive.errors import RefusedError, UnreachableError
from event_archive.postgres import connecting
from event_archive_tests.fixtures.connecting import connect
from event_archive_tests.fixtures.entra import make_certificate
from event_archive_tests.fixtures.refusing import refusing
from event_archive_tests.fixtures.servers import serving


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

"""Entra ID for the lake and for PostgreSQL, with a token endpoint of this machine's own in Azure's place."""

import socket
import socketserver
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from event_archive.errors import RefusedError, UnreachableError
from event_archive.identity import azure_credential
from event_archive.operations.marker import marker_path
from event_archive.postgres.connecting import tls_is_chosen
from event_archive.postgres.session import Postgres
from event_archive_tests import azurite
from event_archive_tests.fixtures.entra import POSTGRES, STORAGE, TokenEndpoint, make_certificate, token_endpoint
from event_archive_tests.fixtures.installation import Installation, run_cli
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.postgres import Database, password_role
from event_archive_tests.fixtures.servers import serving

pytestmark = pytest.mark.slow


@pytest.fixture
def endpoint(clean: pytest.MonkeyPatch) -> Iterator[TokenEndpoint]:
    with token_endpoint() as found:
        for name, value in found.variables.items():
            clean.setenv(name, value)
        azure_credential.cache_clear()
        yield found
    azure_credential.cache_clear()


def connect(database: Database, role: str) -> None:
    with Postgres(database.server.dsn(database.name, role), auth="azure").transaction("the test"):
        pass


def test_one_token_serves_many_connections_and_is_renewed_before_it_expires(
    database: Database, endpoint: TokenEndpoint
):
    # A token is renewed when it has five minutes left: this one within five seconds.
    endpoint.lives_seconds = 305
    with password_role(database, endpoint.password) as role:
        for _ in range(3):
            connect(database, role)
        assert endpoint.asked == [POSTGRES]

        endpoint.password = "token-2"
        database.execute(f"ALTER ROLE {role} PASSWORD 'token-2'")
        deadline = time.monotonic() + 60
        while len(endpoint.asked) == 1:
            assert time.monotonic() < deadline, "the token was never renewed"
            # Refused with the first token, as long as the credential has it in hand.
            with suppress(RefusedError):
                connect(database, role)
        connect(database, role)
    assert endpoint.asked == [POSTGRES, POSTGRES]


def test_without_a_token_it_says_what_to_check(database: Database, clean: pytest.MonkeyPatch, endpoint: TokenEndpoint):
    clean.setenv("IDENTITY_HEADER", "another machine's")
    clean.setenv("AZURE_TOKEN_CREDENTIALS", "managedidentitycredential")
    with pytest.raises(UnreachableError, match="No Entra ID access token for PostgreSQL") as unreachable:
        connect(database, "postgres")
    assert endpoint.password not in str(unreachable.value)


def test_a_token_that_cannot_be_renewed_is_out_of_reach_and_not_a_bug(database: Database, clean: pytest.MonkeyPatch):
    clean.setenv("AZURE_TOKEN_CREDENTIALS", "managedidentitycredential")
    with token_endpoint() as endpoint:
        for name, value in endpoint.variables.items():
            clean.setenv(name, value)
        azure_credential.cache_clear()
        endpoint.lives_seconds = 1
        connect(database, "postgres")
    try:
        # The credential that has worked before asks its endpoint without the chain's care.
        with pytest.raises(UnreachableError, match="and that Entra ID can be reached"):
            connect(database, "postgres")
    finally:
        azure_credential.cache_clear()


def test_a_token_that_the_server_refuses_is_told_as_one(database: Database, endpoint: TokenEndpoint):
    with password_role(database, "another token") as role, pytest.raises(RefusedError) as refused:
        connect(database, role)
    assert "knows this identity of Entra ID under the user's name" in str(refused.value)
    assert "Check user, password" not in str(refused.value)
    assert endpoint.password not in str(refused.value)


def test_an_endpoint_that_never_answers_makes_nobody_wait_for_long(
    database: Database, clean: pytest.MonkeyPatch, silent_port: int
):
    clean.setattr("event_archive.identity.READ_TIMEOUT_SECONDS", 0.1)
    clean.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{silent_port}/token")
    clean.setenv("IDENTITY_HEADER", "any")
    clean.setenv("AZURE_TOKEN_CREDENTIALS", "managedidentitycredential")
    azure_credential.cache_clear()
    began = time.monotonic()
    try:
        with pytest.raises(UnreachableError, match="and that Entra ID can be reached"):
            connect(database, "postgres")
    finally:
        azure_credential.cache_clear()
    assert time.monotonic() - began < 30


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port at which connections are taken, and nobody says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield int(silent.getsockname()[1])


def test_tls_as_the_environment_wants_it_is_left_alone(clean: pytest.MonkeyPatch):
    assert not tls_is_chosen({"host": "db"})
    assert tls_is_chosen({"host": "/run/postgresql"})
    assert tls_is_chosen({"host": "db", "sslmode": "disable"})
    clean.setenv("PGSSLMODE", "verify-full")
    assert tls_is_chosen({"host": "db"})


def test_a_token_is_sent_over_tls_alone(endpoint: TokenEndpoint, tls_refusing_port: int):
    postgres = Postgres(f"postgresql://someone@127.0.0.1:{tls_refusing_port}/events", auth="azure")
    refused = pytest.raises(RefusedError, match="server does not support SSL, but SSL was required")
    with refused, postgres.transaction("the test"):
        pass


@pytest.fixture
def tls_refusing_port() -> Iterator[int]:
    """A server that answers every request for TLS with a no."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(8)
            self.request.sendall(b"N")

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        yield port


def test_a_night_runs_with_identities_alone(database: Database, endpoint: TokenEndpoint, tmp_path: Path):
    certificate = make_certificate(tmp_path / "certificate.pem")
    with azurite.running(certificate) as blobs, password_role(database, endpoint.password) as role:
        assert blobs.account_url.startswith("https://")
        variables = endpoint.variables | {
            "PG_CONNECTION_STRING": database.server.dsn(database.name, role),
            "PG_AUTH": "azure",
            "AZURE_STORAGE_ACCOUNT_URL": blobs.account_url,
            "REQUESTS_CA_BUNDLE": str(certificate),
        }
        installation = Installation(database, None, variables=variables)  # type: ignore[arg-type]
        installation.add(7)
        done = run_cli("run", **variables)
        assert (done.code, done.stderr) == (0, "")
        assert done.days[DAY.isoformat()]["deleted"] == 7
        assert run_cli("verify", **variables).code == 0
        with ContainerClient(
            blobs.account_url, "archive", credential=blobs.account_key, connection_verify=str(certificate)
        ) as container:
            names = [blob.name for blob in container.list_blobs()]
            assert names == [marker_path(installation.dataset), installation.dataset.path(DAY)]
    # A token a process and service, however many connections there were.
    assert Counter(endpoint.asked) == {POSTGRES: 2, STORAGE: 2}
    assert endpoint.password not in done.said

"""Certificates that are not trusted, of whatever the product talks to by TLS: no outage, but told with what to do."""

import socketserver
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from event_archive.certificates import OPENSSL_BUNDLE, REQUESTS_BUNDLES, require_bundle
from event_archive.errors import ConfigurationError
from event_archive_tests.fixtures.entra import make_certificate
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY, NO_CSV
from event_archive_tests.fixtures.servers import serving
from event_archive_tests.fixtures.webhook import Webhook


@dataclass
class SelfSigned:
    """A server whose certificate nobody trusts.

    Attributes:
        certificate: its own.
        address: host and port.
        connections: that were begun.
    """

    certificate: Path
    address: str = ""
    connections: list[object] = field(default_factory=list)

    @property
    def account(self) -> str:
        """The connection string of an Azure account there."""
        return f"AccountName=a;AccountKey=bm9ib2R5LW1heS1zZWU=;BlobEndpoint=https://{self.address}/a"


@pytest.fixture(autouse=True)
def _no_authorities_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*REQUESTS_BUNDLES, OPENSSL_BUNDLE, "AWS_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def self_signed(tmp_path: Path) -> Iterator[SelfSigned]:
    server = SelfSigned(make_certificate(tmp_path / "certificate.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            server.connections.append(self.client_address)
            with suppress(OSError), context.wrap_socket(self.request, server_side=True) as secure:
                secure.recv(8192)

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        server.address = f"127.0.0.1:{port}"
        yield server


TALKING = {
    "the lake": (["run"], {"AZURE_STORAGE_CONNECTION_STRING": "{account}", "ARCHIVE_LOCAL_PATH": ""}, "REQUESTS_CA_"),
    "S3": (
        ["ingest", "logs"],
        {
            "LOGS_URL": "s3://logs",
            "AWS_ENDPOINT": "https://{address}",
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
        },
        "AWS_CA_BUNDLE",
    ),
    "log files in Azure": (
        ["ingest", "logs"],
        {"LOGS_URL": "az://logs", "AZURE_STORAGE_CONNECTION_STRING": "{account}"},
        "REQUESTS_CA_BUNDLE",
    ),
    "the API": (["ingest", "api"], {"API_BASE_URL": "https://{address}", "API_KEY": "k"}, "SSL_CERT_FILE"),
    "Redis": (["ingest", "stream", "--drain"], {"REDIS_URL": "rediss://{address}", "HTTP_PORT": "0"}, "ssl_ca_certs"),
}


@pytest.mark.parametrize("what", TALKING)
def test_a_certificate_that_is_not_trusted_is_no_outage(
    local_installation: Installation, command: Commands, self_signed: SelfSigned, what: str
):
    local_installation.add(1)
    arguments, variables, names_authorities = TALKING[what]
    there = {"account": self_signed.account, "address": self_signed.address}
    done = command(*arguments, **{name: value.format(**there) for name, value in variables.items()})
    assert done.code == (2 if what == "Redis" else 1)
    assert "the certificate of what answers is not trusted (self-signed certificate). Check " in done.said
    assert names_authorities in done.said
    # Nothing is tried again: a run asks the lake for what failed before, and for the day.
    assert len(self_signed.connections) == (2 if what == "the lake" else 1)


@pytest.mark.parametrize("what", [what for what in TALKING if what != "Redis"])
def test_a_certificate_of_another_host_is_no_outage(
    local_installation: Installation, command: Commands, self_signed: SelfSigned, what: str, tmp_path: Path
):
    local_installation.add(1)
    self_signed.address = self_signed.address.replace("127.0.0.1", "localhost")
    arguments, variables, _ = TALKING[what]
    there = {"account": self_signed.account, "address": self_signed.address}
    given = {name: value.format(**there) for name, value in variables.items()}
    trusted = dict.fromkeys(("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "SSL_CERT_FILE"), str(self_signed.certificate))
    done = command(*arguments, **given, **trusted)
    assert done.code == 1
    assert "the certificate of what answers is not trusted (Hostname mismatch). Check " in done.said


def test_a_webhook_and_a_pushgateway_are_told_likewise(
    local_installation: Installation, command: Commands, self_signed: SelfSigned
):
    local_installation.put(NO_CSV, day=DAY)
    local_installation.add(1)
    url = f"https://{self_signed.address}"
    done = command("run", ALERT_WEBHOOK_URL=f"{url}/nobody-may-see", METRICS_PUSHGATEWAY=url)
    for variable in ("ALERT_WEBHOOK_URL", "METRICS_PUSHGATEWAY"):
        assert f"{variable}: the certificate of what answers is not trusted (self-signed certificate)" in done.said
    assert len(self_signed.connections) == 2
    assert "nobody-may-see" not in done.said


@pytest.mark.parametrize("content", [None, "no certificate"])
@pytest.mark.parametrize(
    ("what", "variable"),
    [
        ("the lake", "REQUESTS_CA_BUNDLE"),
        ("the lake", "CURL_CA_BUNDLE"),
        ("log files in Azure", "REQUESTS_CA_BUNDLE"),
        ("S3", "AWS_CA_BUNDLE"),
        ("S3", "REQUESTS_CA_BUNDLE"),
        ("the API", "SSL_CERT_FILE"),
    ],
)
def test_authorities_that_cannot_be_read_are_a_wrong_setting(
    local_installation: Installation,
    command: Commands,
    self_signed: SelfSigned,
    what: str,
    variable: str,
    content: str | None,
    tmp_path: Path,
):
    bundle = tmp_path / "authorities.pem"
    if content is not None:
        bundle.write_text(content)
    arguments, variables, _ = TALKING[what]
    there = {"account": self_signed.account, "address": self_signed.address}
    given = {name: value.format(**there) for name, value in variables.items()} | {variable: str(bundle)}
    for words in (arguments, ["doctor"]) if what == "the lake" else (arguments,):
        done = command(*words, **given)
        assert done.code == 2
        kind = "file" if what in ("S3", "the API") else "file or folder"
        assert f"{variable} names no {kind} of certificates that can be read" in done.said
    assert self_signed.connections == []


def test_a_folder_of_authorities_is_none_where_the_library_takes_no_folder(
    local_installation: Installation, command: Commands, self_signed: SelfSigned, tmp_path: Path
):
    local_installation.add(1)
    arguments, variables, _ = TALKING["S3"]
    given = {name: value.format(address=self_signed.address) for name, value in variables.items()}
    done = command(*arguments, **given, AWS_CA_BUNDLE=str(tmp_path))
    assert (done.code, self_signed.connections) == (2, [])
    assert "AWS_CA_BUNDLE names no file of certificates" in done.said


@pytest.mark.parametrize("parameter", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_what_redis_is_to_be_told_by_and_cannot_be_read_is_a_wrong_setting(
    local_installation: Installation,
    command: Commands,
    self_signed: SelfSigned,
    parameter: str,
    content: str | None,
    tmp_path: Path,
):
    local_installation.add(1)
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    url = f"rediss://{self_signed.address}?{parameter}={file}"
    done = command("ingest", "stream", "--drain", REDIS_URL=url, HTTP_PORT="0")
    assert (done.code, self_signed.connections) == (2, [])
    assert f"REDIS_URL: what its parameters name ({parameter}) holds no certificates" in done.said


def test_a_variable_of_authorities_that_is_empty_counts_as_absent(
    local_installation: Installation, command: Commands, self_signed: SelfSigned
):
    local_installation.add(1)
    arguments, variables, _ = TALKING["S3"]
    given = {name: value.format(address=self_signed.address) for name, value in variables.items()}
    for empty in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        done = command(*arguments, **given, **{empty: ""})
        assert (done.code, "not trusted (self-signed certificate)" in done.said) == (1, True)


def test_without_tls_no_authorities_are_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nothing"))
    require_bundle("http://127.0.0.1:10000/account")
    with pytest.raises(ConfigurationError, match="REQUESTS_CA_BUNDLE names no file or folder"):
        require_bundle("https://account.blob.core.windows.net")


def test_a_webhook_whose_authorities_cannot_be_read_ends_no_run(
    local_installation: Installation, command: Commands, webhook: Webhook
):
    local_installation.put(NO_CSV, day=DAY)
    local_installation.add(1)
    secure = webhook.url.replace("http:", "https:")
    done = command("run", ALERT_WEBHOOK_URL=secure, REQUESTS_CA_BUNDLE="/nonexistent/authorities.pem")
    assert "the failure could not be announced: REQUESTS_CA_BUNDLE names no file or folder of certificates" in done.said
    assert (done.days[DAY.isoformat()]["outcome"], done.code) == ("failed", 1)

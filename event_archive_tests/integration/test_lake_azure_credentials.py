"""Keys, signatures and identities that the Blob service refuses: told, and never shown."""

import base64
import logging
import secrets
import socket
import traceback

import pytest
from azure.core.credentials import AccessToken, AzureNamedKeyCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.storage.blob import ContainerClient

from event_archive.errors import ConfigurationError, RefusedError, UnreachableError
from event_archive.lake.azure.container import AzureLake
from event_archive_tests.azurite import Azurite
from event_archive_tests.fixtures.blobs import lake_at, put, sas_connection_string
from event_archive_tests.fixtures.lakes import PATH, SMALL_BLOCK_BYTES, read


def everything_said(error: BaseException) -> str:
    """All that any handler could show of an error: its traceback, and what hangs behind it though not displayed."""
    said = "".join(traceback.format_exception(error))
    behind: BaseException | None = error
    while behind is not None:
        said += repr(behind) + str(behind) + repr(vars(behind))
        behind = behind.__cause__ or behind.__context__
    return said


def signature_of(connection_string: str) -> str:
    return connection_string.split("sig=")[1].split("&")[0]


# Refusals, and secrets


def test_a_wrong_key_is_refused_and_not_shown(
    azurite: Azurite, container_client: ContainerClient, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    wrong = base64.b64encode(secrets.token_bytes(32)).decode()
    with lake_at(Azurite(azurite.account_name, wrong, azurite.account_url), container_client.container_name) as lake:
        for attempt in (lambda: lake.stat(PATH), lambda: put(lake, b"x"), lambda: list(lake.list("events"))):
            with pytest.raises(RefusedError, match=r"403.*key") as raised:
                attempt()
            assert wrong not in everything_said(raised.value)
    assert wrong not in caplog.text


def test_a_key_that_is_not_base64_is_refused_and_not_shown(azurite: Azurite, container: str):
    with (
        lake_at(Azurite(azurite.account_name, "n0tBase64", azurite.account_url), container) as lake,
        pytest.raises(RefusedError, match="account key is complete") as raised,
    ):
        lake.stat(PATH)
    assert "n0tBase64" not in everything_said(raised.value)


def test_a_signature_for_the_container_suffices_and_is_not_shown(
    azurite: Azurite, container_client: ContainerClient, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    connection_string = sas_connection_string(azurite, container_client.container_name, "rcwl")
    signature = signature_of(connection_string)
    with AzureLake.from_connection_string(
        connection_string, container_client.container_name, block_bytes=SMALL_BLOCK_BYTES
    ) as lake:
        file = put(lake, b"1\n" * SMALL_BLOCK_BYTES)
        file = put(lake, b"2\n", file, append=True)
        assert read(lake, file) == b"1\n" * SMALL_BLOCK_BYTES + b"2\n"
        assert [found.path for found in lake.list("events")] == [PATH]
        assert lake.url(PATH) == f"{azurite.account_url}/{container_client.container_name}/{PATH}"
    assert "/events/" in caplog.text
    assert signature not in caplog.text


def test_a_signature_that_may_not_write_is_refused_and_not_shown(azurite: Azurite, container_client: ContainerClient):
    connection_string = sas_connection_string(azurite, container_client.container_name, "rl")
    with AzureLake.from_connection_string(connection_string, container_client.container_name) as lake:
        assert lake.stat(PATH) is None
        with pytest.raises(
            RefusedError, match=rf"{PATH} in .*{container_client.container_name}.*403 Authoriz.*rcwl"
        ) as raised:
            put(lake, b"x")
    assert signature_of(connection_string) not in everything_said(raised.value)


def test_a_signature_is_not_shown_where_no_service_is(azurite: Azurite, container: str):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/{azurite.account_name}"
        service = Azurite(azurite.account_name, azurite.account_key, url)
        connection_string = sas_connection_string(service, container, "rcwl")
        with AzureLake.from_connection_string(connection_string, container, retry_seconds=0.1) as lake:
            for attempt in (lambda: lake.stat(PATH), lambda: put(lake, b"x"), lambda: list(lake.list("events"))):
                with pytest.raises(UnreachableError) as raised:
                    attempt()
                assert "sig=" not in everything_said(raised.value)


@pytest.mark.parametrize(
    "connection_string",
    [
        "",
        "s3cret",
        "AccountName=x",
        "AccountName=x;AccountKey",
        "AccountKey=s3cret",
        "DefaultEndpointsProtocol=https;AccountName=x;EndpointSuffix=core.windows.net",
        "BlobEndpoint=https://x.blob.core.windows.net",
        "BlobEndpoint=http://[s3cret;SharedAccessSignature=sig=s3cret",
        "https://x.blob.core.windows.net/?sig=s3cret",
    ],
)
def test_a_malformed_connection_string_is_said_so_and_not_shown(connection_string: str):
    with pytest.raises(ConfigurationError, match="connection string is malformed") as raised:
        AzureLake.from_connection_string(connection_string, "archive")
    assert "s3cret" not in everything_said(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x.blob.core.windows.net",
        "https://",
        "https://x.blob.core.windows.net/?sig=s3cret",
        "https://x:s3cret@x.blob.core.windows.net",
    ],
)
def test_a_malformed_account_url_is_said_so_and_not_shown(url: str):
    with pytest.raises(ConfigurationError, match="like https://ACCOUNT") as raised:
        AzureLake.from_account_url(url, "archive")
    assert "s3cret" not in everything_said(raised.value)


def test_an_account_url_with_a_credential_is_a_lake(azurite: Azurite, container: str):
    credential = AzureNamedKeyCredential(azurite.account_name, azurite.account_key)
    with AzureLake.from_account_url(azurite.account_url, container, credential) as lake:
        assert read(lake, put(lake, b"x")) == b"x"


def test_an_account_url_alone_means_the_environments_identity():
    with AzureLake.from_account_url("https://account.blob.core.windows.net", "archive") as lake:
        assert lake.url(PATH) == f"https://account.blob.core.windows.net/archive/{PATH}"


def test_an_identity_that_gets_no_token_is_refused():
    class NoIdentity:
        def get_token(self, *scopes: str, **options: object) -> AccessToken:
            raise ClientAuthenticationError("AADSTS700016: application s3cret not found")

    with (
        AzureLake.from_account_url("https://account.blob.core.windows.net", "archive", NoIdentity()) as lake,
        pytest.raises(RefusedError, match=r"AADSTS700016.*Entra ID identity") as raised,
    ):
        lake.stat(PATH)
    assert "s3cret" not in everything_said(raised.value)

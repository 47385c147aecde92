"""The SDK's client of a container, by key, signature or identity. Not here: requests."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from azure.storage.blob import ContainerClient

from event_archive.certificates import require_bundle
from event_archive.errors import ConfigurationError
from event_archive.identity import azure_credential
from event_archive.lake.azure.errors import keep_signatures_out_of_logs
from event_archive.lake.azure.retry import BoundedRetry

if TYPE_CHECKING:
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential, TokenCredential

_HEADERS = {"Cache-Control": "no-cache"}
"""A cache on the way may keep answers to signed addresses (RFC 9111, section 3.5): none counts that is not new."""


def client_from_connection_string(connection_string: str, container: str, *, retry_seconds: float) -> ContainerClient:
    """A client by account key or shared access signature.

    Raises:
        ConfigurationError: the connection string is malformed or holds neither, and is not repeated; or the variable
            of the certificates to trust is wrong.
    """
    keep_signatures_out_of_logs()
    client = None
    if _has_credential(connection_string):
        try:
            client = ContainerClient.from_connection_string(
                connection_string, container, retry_policy=BoundedRetry(retry_seconds), base_headers=_HEADERS
            )
        except (ValueError, AttributeError, TypeError):
            client = None
    # Raised outside of the handler, whose exception may show the string.
    if client is None:
        raise ConfigurationError(
            "The Azure storage connection string is malformed. Expected AccountName and AccountKey, or "
            "BlobEndpoint and SharedAccessSignature, as NAME=VALUE joined by semicolons. Copy it from the portal."
        )
    require_bundle(client.url)
    return client


def client_from_account_url(
    account_url: str,
    container: str,
    credential: "TokenCredential | AzureNamedKeyCredential | AzureSasCredential | None",
    *,
    retry_seconds: float,
) -> ContainerClient:
    """A client by an identity; None for ``DefaultAzureCredential``.

    Raises:
        ConfigurationError: not an address of an account, or the variable of the certificates to trust is wrong.
    """
    keep_signatures_out_of_logs()
    parts = urlsplit(account_url)
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.query or parts.username:
        raise ConfigurationError(
            "The Azure storage account URL must be like https://ACCOUNT.blob.core.windows.net, without a "
            "signature; a shared access signature goes into the connection string."
        )
    require_bundle(account_url)
    try:
        return ContainerClient(
            account_url,
            container,
            credential=credential or azure_credential(),
            retry_policy=BoundedRetry(retry_seconds),
            base_headers=_HEADERS,
        )
    except ValueError as error:
        # Of an address without a signature, so that the text may be shown.
        raise ConfigurationError(f"{account_url} cannot be used with this credential: {error}") from error


def _has_credential(connection_string: str) -> bool:
    """Whether it holds what signs requests: the SDK also takes one that does not, and then asks without a name."""
    names = {part.split("=", 1)[0].strip().upper() for part in connection_string.split(";")}
    return bool(names & {"ACCOUNTKEY", "SHAREDACCESSSIGNATURE", "USEDEVELOPMENTSTORAGE"}) or "sig=" in connection_string

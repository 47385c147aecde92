"""Log files in a container of Azure Blob Storage. Not here: other stores, how requests are signed or tried again."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from azure.core import MatchConditions

from event_archive.certificates import UNTRUSTED
from event_archive.config.sources import LogsSettings
from event_archive.errors import ConfigurationError, RefusedError, UnreachableError
from event_archive.lake.azure import errors
from event_archive.lake.azure.client import client_from_account_url, client_from_connection_string
from event_archive.lake.azure.errors import Subject, or_none
from event_archive.lake.protocol import changed
from event_archive.sources.log_files.stores import FileError, Found, StoreAwayError, resumed

T = TypeVar("T")
_RETRY_SECONDS = 60.0
_OF_ALL_FILES = (UNTRUSTED, "could be signed", "AuthenticationFailed", "InvalidAuthenticationInfo")
"""Words of refusals for which no single file can be blamed."""
_RANGE_BYTES = 4 * 1024 * 1024


class Container:
    """A container's prefix."""

    is_file = False
    lists_after = False

    def __init__(self, name: str, prefix: str, settings: LogsSettings) -> None:
        """Connects to nothing.

        Args:
            name: of the container.
            prefix: what names of blobs begin with.
            settings: the account.

        Raises:
            ConfigurationError: no account is named.
        """
        self.bucket, self.prefix = f"az://{name}", prefix
        secret, url = settings.azure_storage_connection_string, settings.azure_storage_account_url
        if secret is not None:
            client = client_from_connection_string(secret.get_secret_value(), name, retry_seconds=_RETRY_SECONDS)
        elif url is not None:
            client = client_from_account_url(url, name, None, retry_seconds=_RETRY_SECONDS)
        else:
            raise ConfigurationError(
                f"LOGS_URL is {self.bucket}: AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCOUNT_URL must name "
                "the account."
            )
        self._client = client
        self._place = f"{self.bucket} of the account {client.account_name}"

    def list(self, after: str | None = None) -> Iterator[Found]:  # noqa: ARG002
        """As ``Store.list``; the folders of a hierarchical namespace are left out."""
        subject = self._subject()
        blobs = iter(self._client.list_blobs(name_starts_with=self.prefix or None, include=["metadata"]))
        while (blob := _ask(subject, lambda: next(blobs, None))) is not None:
            if not (blob.metadata or {}).get("hdi_isfolder"):
                yield _found(blob)

    def find(self, key: str) -> Found | None:
        """As ``Store.find``."""
        blob = self._client.get_blob_client(key)
        properties = _ask(self._subject(key), or_none(blob.get_blob_properties))
        return None if properties is None else _found(properties)

    def open(self, file: Found) -> AbstractContextManager[Iterator[bytes]]:
        """As ``Store.open``."""
        return resumed(lambda offset: self._read(file, offset), file)

    def _subject(self, key: str = "") -> Subject:
        return Subject(self._place, key, "read")

    def _read(self, file: Found, offset: int) -> Iterator[bytes]:
        blob, subject = self._client.get_blob_client(file.key), self._subject(file.key)

        def fetch(start: int) -> bytes:
            return blob.download_blob(
                start,
                min(_RANGE_BYTES, file.size - start),
                etag=file.etag,
                match_condition=MatchConditions.IfNotModified,
                # As it is stored: what is gzipped is told by its bytes.
                decompress=False,
            ).readall()

        while offset < file.size:
            at = offset
            piece = _ask(subject, or_none(lambda at=at: fetch(at)))  # type: ignore[misc]
            if piece is None:
                raise changed(subject, "BlobNotFound")
            offset += len(piece)
            yield piece


def _ask(subject: Subject, call: Callable[[], T]) -> T:
    """What a call of the SDK returns, or what its failure means."""
    try:
        return errors.ask(subject, call)
    except UnreachableError as error:
        raise StoreAwayError(str(error)) from None
    except RefusedError as error:
        if not subject.path or any(words in str(error).removeprefix(str(subject)) for words in _OF_ALL_FILES):
            raise
        # Whoever tells of it names the file.
        words = str(error).removeprefix(f"{subject}: ")
        raise FileError(words[0].upper() + words[1:]) from None


def _found(blob: Any) -> Found:
    return Found(blob.name, blob.etag.strip('"'), blob.size, blob.last_modified)

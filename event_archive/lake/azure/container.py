"""A container as a lake: the protocol's methods, by the Blob API and block blobs alone.

Not here: making a client (``client``), how content travels (``download``, ``upload``), what is retried (``retry``),
what refusals mean (``errors``). The DFS API is not used, since blocks cannot be appended to what it wrote.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self

from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobBlock, BlobClient, BlobProperties, ContainerClient, StorageErrorCode

from event_archive.errors import RefusedError
from event_archive.lake.azure.client import client_from_account_url, client_from_connection_string
from event_archive.lake.azure.download import Ranges, streamed
from event_archive.lake.azure.errors import Subject, ask, code_of, or_none
from event_archive.lake.azure.upload import BlockUpload, are_ours, committed_blocks, quoted_etag
from event_archive.lake.names import check_path
from event_archive.lake.protocol import StoredFile, changed

if TYPE_CHECKING:
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential, TokenCredential

BLOCK_BYTES = 8 * 1024 * 1024
"""What is sent in one request. Azure takes 50,000 blocks a file, which makes 400 GB; three of them are in memory."""
RANGE_BYTES = 4 * 1024 * 1024
"""What is read in one request. The SDK has an answer in memory twice while it joins it, so this is half a block."""
RETRY_SECONDS = 60.0
"""How long a request is repeated in all, before the day is left to the next run."""

_FOLDER_MARK = "hdi_isfolder"


class AzureLake:
    """A ``Lake`` in one container. Made by ``from_connection_string`` or ``from_account_url``; ``close`` it in the end.

    The container is created by the first write that finds none, where that is permitted. Reading from a container that
    does not exist finds no files.

    Attributes:
        container: the SDK's client of it.

    Args:
        container: client of the container, with a ``BoundedRetry`` of the same wait.
        block_bytes: a block is sent when so much is written; ranges are read in this size, 4 MiB at most.
        retry_seconds: how long a request is repeated in all.
    """

    def __init__(
        self,
        container: ContainerClient,
        *,
        block_bytes: int = BLOCK_BYTES,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.container = container
        self._block_bytes = block_bytes
        self._retry_seconds = retry_seconds
        self._container_is_there = False
        self._where = f"{container.primary_endpoint.split('?')[0]}"

    @classmethod
    def from_connection_string(
        cls,
        connection_string: str,
        container: str,
        *,
        block_bytes: int = BLOCK_BYTES,
        retry_seconds: float = RETRY_SECONDS,
    ) -> Self:
        """A lake by account key or shared access signature (one for the container is enough).

        Raises:
            ConfigurationError: the connection string is malformed or holds neither. It is not repeated.
        """
        client = client_from_connection_string(connection_string, container, retry_seconds=retry_seconds)
        return cls(client, block_bytes=block_bytes, retry_seconds=retry_seconds)

    @classmethod
    def from_account_url(
        cls,
        account_url: str,
        container: str,
        credential: "TokenCredential | AzureNamedKeyCredential | AzureSasCredential | None" = None,
        *,
        block_bytes: int = BLOCK_BYTES,
        retry_seconds: float = RETRY_SECONDS,
    ) -> Self:
        """A lake by an identity.

        Args:
            account_url: ``https://ACCOUNT.blob.core.windows.net``.
            container: its name.
            credential: None for ``DefaultAzureCredential``: workload identity, managed identity, ``az login``.
            block_bytes: as for the class.
            retry_seconds: as for the class.

        Raises:
            ConfigurationError: not such an address.
        """
        client = client_from_account_url(account_url, container, credential, retry_seconds=retry_seconds)
        return cls(client, block_bytes=block_bytes, retry_seconds=retry_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self.container.close()

    def url(self, path: str) -> str:
        """Where a person finds the file: its address without any signature."""
        return self._blob(path).url.split("?")[0]

    def stat(self, path: str) -> StoredFile | None:
        """The file as it stands, or None where there is none."""
        blob, subject = self._blob(path), self._subject(path)

        def found() -> BlobProperties | None:
            try:
                return blob.get_blob_properties()
            except ResourceNotFoundError as failure:
                self._container_is_there |= code_of(failure) == StorageErrorCode.BLOB_NOT_FOUND
                return None

        properties = ask(subject, found)
        if properties is None:
            return None
        if _is_folder(properties):
            raise RefusedError(f"{subject} is a folder. Move it away.")
        return _stored(path, properties)

    def appendable(self, file: StoredFile) -> bool:
        """Whether the file consists of blocks of ours, and of few enough.

        Where somebody commits meanwhile, the answer is about another version; a commit that relies on it then fails.
        """
        return self._blocks_of_ours(file) is not None

    def list(self, folder: str) -> Iterator[StoredFile]:
        """The files directly in a folder, by path."""
        prefix = f"{folder}/" if folder else ""
        if folder:
            check_path(folder)

        def found() -> list[StoredFile]:
            entries = self.container.walk_blobs(name_starts_with=prefix or None, include=["metadata"], delimiter="/")
            files = [entry for entry in entries if isinstance(entry, BlobProperties) and not _is_folder(entry)]
            return [_stored(file.name, file) for file in files]

        files = ask(self._subject(folder), or_none(found))
        return iter(sorted(files or (), key=lambda file: file.path))

    @contextmanager
    def read(self, file: StoredFile) -> Iterator[Iterator[bytes]]:
        """Streams this version by ranges, the next ones on their way while the consumer has one in hand."""
        with streamed(
            Ranges(self._blob(file.path), file, self._subject(file.path), retry_seconds=self._retry_seconds),
            range_bytes=min(self._block_bytes, RANGE_BYTES),
        ) as blocks:
            yield blocks

    def head(self, file: StoredFile, size_bytes: int) -> bytes:
        """The first bytes of this version, in one request."""
        ranges = Ranges(self._blob(file.path), file, self._subject(file.path), retry_seconds=self._retry_seconds)
        return ranges.fetch(0, min(size_bytes, file.size_bytes))

    @contextmanager
    def write(self, path: str, *, replaces: StoredFile | None, append: bool = False) -> Iterator[BlockUpload]:
        """Stages blocks that nobody sees before the commit; Azure discards those never committed after a week."""
        blob, subject = self._blob(path), self._subject(path)
        committed: list[str] = []
        if append:
            blocks = self._blocks_of_ours(replaces) if replaces else None
            if blocks is None:
                raise changed(subject, "other blocks")
            committed = [block.id for block in blocks]
        if replaces is None:
            self._create_container()
        with BlockUpload(
            blob, path, subject, replaces=replaces, committed=committed, block_bytes=self._block_bytes
        ) as upload:
            yield upload

    def _blocks_of_ours(self, file: StoredFile) -> Sequence[BlobBlock] | None:
        blocks = committed_blocks(self._blob(file.path), self._subject(file.path))
        return blocks if blocks is not None and are_ours(blocks, file.size_bytes) else None

    def _create_container(self) -> None:
        if self._container_is_there:
            return

        def create() -> None:
            try:
                self.container.create_container()
            except (ResourceExistsError, ClientAuthenticationError):
                return
            except HttpResponseError as failure:
                # Forbidden: for an identity that may only use it. What is missing then shows when a block is staged.
                if failure.status_code != 403:
                    raise

        ask(Subject(self._where), create)
        self._container_is_there = True

    def _blob(self, path: str) -> BlobClient:
        check_path(path)
        return self.container.get_blob_client(path)

    def _subject(self, path: str) -> Subject:
        return Subject(self._where, path)


def _is_folder(properties: BlobProperties) -> bool:
    """With a hierarchical namespace, folders show as empty blobs that are marked so."""
    return str((properties.metadata or {}).get(_FOLDER_MARK, "")).lower() == "true"


def _stored(path: str, properties: BlobProperties) -> StoredFile:
    return StoredFile(
        path=path,
        size_bytes=properties.size,
        etag=quoted_etag(properties.etag),
        metadata=MappingProxyType({name.lower(): value for name, value in (properties.metadata or {}).items()}),
        modified=properties.last_modified,
    )

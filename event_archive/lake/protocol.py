"""The protocol that a lake keeps. Not here: days, files' names, what a file holds.

A write is atomic and conditional: it makes a new file, replaces the file that was stat'ed, or appends to it. Readers
see the file before or the file after, never a torn one.

A new kind: a package here, ``config/environment.py``, ``config/services.py``, ``doctor/lakes.py``; held to
this protocol by ``test_lake_contract.py``.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from event_archive.errors import FileChangedError

CONTENT_TYPE = "text/csv; charset=utf-8"
"""Set on every file, for those who download it: nearly all are CSV. The few others are read by this program alone."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as it stands in the lake.

    Attributes:
        path: from the lake's root, parts joined by ``/``.
        size_bytes: length of the content.
        etag: opaque; another one after every change of content or metadata.
        metadata: the writer's own; names are lower-case identifiers, values printable ASCII.
        modified: when it was last written, UTC.
    """

    path: str
    size_bytes: int
    etag: str
    metadata: Mapping[str, str]
    modified: datetime


class Upload(Protocol):
    """Content on its way into a lake; nobody sees it before ``commit``."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes, which the caller must not change afterwards.

        Raises:
            UnreachableError, RefusedError: as for ``Lake``; the upload is then lost.
        """
        ...

    def settle(self) -> None:
        """Waits until all that was written has arrived, still unseen: ``commit`` then has one short step left.

        Raises:
            UnreachableError, RefusedError: as for ``Lake``; the upload is then lost.
        """
        ...

    def commit(self, metadata: Mapping[str, str], look: Callable[[], object] | None = None) -> StoredFile:
        """Makes the file appear, under the upload's condition; settles it first.

        Args:
            metadata: replaces the file's metadata.
            look: is called when all is waited for; what it raises is raised here, and the file does not appear.

        Raises:
            FileChangedError: the condition no longer holds.
            UnreachableError, RefusedError: as for ``Lake``.
        """
        ...


class Lake(Protocol):
    """A place for files.

    Every method raises ``UnreachableError`` where the store does not answer within its bounded retries, and
    ``RefusedError`` where it answers with a refusal (credentials, permission, missing container, archive tier,
    immutability). Messages name the path, or the lake alone where it does not answer, and what to do. They hold no
    secret.
    """

    def url(self, path: str) -> str:
        """Where a person finds the file: without any signature."""
        ...

    def stat(self, path: str) -> StoredFile | None:
        """The file as it stands, or None where there is none."""
        ...

    def appendable(self, file: StoredFile) -> bool:
        """Whether content can be appended to the file: it was staged by this package. A request of its own."""
        ...

    def read(self, file: StoredFile) -> AbstractContextManager[Iterator[bytes]]:
        """Streams the content of exactly this version in blocks of a few MiB; leaving early ends the transfer.

        Raises:
            FileChangedError: the file was replaced, appended to or deleted since ``file`` was stat'ed.
        """
        ...

    def head(self, file: StoredFile, size_bytes: int) -> bytes:
        """The first bytes of exactly this version, at most ``size_bytes``, in one request.

        Raises:
            FileChangedError: the file was replaced, appended to or deleted since ``file`` was stat'ed.
        """
        ...

    def write(self, path: str, *, replaces: StoredFile | None, append: bool = False) -> AbstractContextManager[Upload]:
        """Stages content. Leaving the context without a commit leaves the lake as it was.

        Args:
            path: where the file is to appear.
            replaces: the file as it stood; None where there was none. Anything else there fails the commit.
            append: the new content follows that of ``replaces`` instead of replacing it.

        Raises:
            FileChangedError: ``replaces`` is not ``appendable``, or not any more.
        """
        ...

    def list(self, folder: str) -> Iterator[StoredFile]:
        """The files directly in a folder, by path; none where the folder does not exist.

        One whose metadata cannot be read has none here; ``stat`` says why.
        """
        ...


def changed(subject: object, code: str = "") -> FileChangedError:
    """Somebody else was faster with a file that was looked up before; ``code`` is the service's own, if it has one."""
    said = f" ({code})" if code else ""
    return FileChangedError(
        f"{subject} is not the file that it was: somebody else wrote or removed it{said}.",
        advice="Run it again.",
    )

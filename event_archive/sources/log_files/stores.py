"""Where log files are: what a store lists and reads, in one protocol. Not here: any kind of store."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from event_archive.errors import EventArchiveError, FileChangedError, UnreachableError

CHUNK_BYTES = 512 * 1024
_AWAY_SECONDS = 30.0
"""How long a file is gone on with whose reading broke off, while no byte comes."""
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 8.0


class FileError(EventArchiveError):
    """Something is wrong with one file: it fails, and the rest goes on."""


class StoreAwayError(UnreachableError):
    """The store did not answer, or broke off: not the database."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file as the store has it.

    Attributes:
        key: its name, the prefix included.
        etag: of its version.
        size: in bytes.
        modified: when it was written by the store's clock, UTC.
    """

    key: str
    etag: str
    size: int
    modified: datetime


class Store(Protocol):
    """A place of log files. Files are never written.

    Attributes:
        bucket: the place, as ``s3://bucket``, ``az://container``, ``file://``.
        prefix: what the keys of the files begin with.
        is_file: whether the prefix is the key of the only file.
        lists_after: whether ``list`` asks the store for the keys after one alone.
    """

    bucket: str
    prefix: str
    is_file: bool
    lists_after: bool

    def list(self, after: str | None = None) -> Iterator[Found]:
        """All files whose keys begin with the prefix, by their keys' bytes where ``lists_after``.

        Args:
            after: files of this key and of keys before it may be left out.

        Raises:
            RefusedError: the bucket is not there, or may not be listed.
            StoreAwayError: the store is away.
        """
        ...

    def find(self, key: str) -> Found | None:
        """One file, as it is at this moment; None where there is none.

        Raises:
            FileError, StoreAwayError: as ``open``.
        """
        ...

    def open(self, file: Found) -> AbstractContextManager[Iterator[bytes]]:
        """The bytes of a file's version, in pieces of any size.

        Raises:
            FileChangedError: the file is another by now, or gone. It may come in the midst of the pieces.
            FileError: this file cannot be read, and why.
            StoreAwayError: the store is away, for longer than it is waited for.
        """
        ...


def changed(key: str) -> FileChangedError:
    """What is raised where a file is not the one that was listed."""
    return FileChangedError(f"{key} is not the file that was listed: it was written, or removed, since.")


@contextmanager
def resumed(read_from: Callable[[int], Iterator[bytes]], file: Found) -> Iterator[Iterator[bytes]]:
    """A file's bytes, gone on with where reading breaks off, until none has come for half a minute.

    Args:
        read_from: reads from a byte on; raises StoreAwayError where it breaks off.
        file: how large it is.
    """

    def pieces() -> Iterator[bytes]:
        offset, last, wait = 0, time.monotonic(), _FIRST_WAIT_SECONDS
        while offset < file.size:
            try:
                for piece in read_from(offset):
                    offset, wait = offset + len(piece), _FIRST_WAIT_SECONDS
                    yield piece
                    # Whoever takes the pieces may take longer than the store leaves a connection open.
                    last = time.monotonic()
                if offset < file.size:
                    raise StoreAwayError(f"{file.key}: {offset} of {file.size} bytes came.")
            except StoreAwayError:
                if time.monotonic() - last >= _AWAY_SECONDS:
                    raise
                time.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT_SECONDS)
        if offset > file.size:
            raise FileChangedError(f"{file.key} holds more bytes than it was listed with.")

    yield pieces()

"""Content on its way into a folder: a hidden file beside the place where the commit makes it appear.

Not here: reading (``versions``), the form of a sidecar.
"""

import fcntl
import io
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from event_archive.errors import IntegrityError
from event_archive.lake.local.errors import lake_error, translated
from event_archive.lake.local.sidecar import make_folder, read_sidecar, sync_folder, write_sidecar
from event_archive.lake.local.versions import READ_BYTES, etag_at, etag_of, metadata_of, open_version, stored
from event_archive.lake.names import check_metadata
from event_archive.lake.protocol import StoredFile, changed

# A MiB a write: what comes from PostgreSQL arrives in pieces of that size.
_BUFFER_BYTES = 1024 * 1024


class LocalUpload:
    """Content in a staged file, which is locked while its writer lives."""

    def __init__(self, target: Path, path: str, replaces: StoredFile | None) -> None:
        self._target = target
        self._path = path
        self._replaces = replaces
        self._committed = False
        self._staged = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        make_folder(target.parent)
        with _locked(target.parent):
            _remove_dead(target)
            self._content = io.BufferedWriter(io.FileIO(self._staged, "x"), _BUFFER_BYTES)
            # The kernel releases it however this process ends, so that a dead writer's file is known by it.
            fcntl.flock(self._content, fcntl.LOCK_EX)

    def begin_with(self, file: StoredFile) -> None:
        """Begins with the content of the file that is appended to."""
        with translated(self._path), open_version(self._target, file) as old:
            _copy(old, self._content)
            if os.fstat(self._content.fileno()).st_size != file.size_bytes:
                raise changed(self._path)
            if not _holds_the_same(old, self._staged):
                raise IntegrityError(
                    f"{self._path}: a copy of it, to which rows were to be appended, holds other bytes than the file. "
                    "Nothing was written. Look at the disk and its file system, and whether somebody edits the file."
                )

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes."""
        try:
            self._content.write(data)
        except OSError as error:
            raise lake_error(error, self._path) from error

    def settle(self) -> None:
        """Waits until all that was written has reached the disk."""
        with translated(self._path):
            self._content.flush()
            # The kernel's own stamps advance by some milliseconds, so that two versions could have the same.
            os.utime(self._content.fileno(), ns=(time.time_ns(), time.time_ns()))
            os.fsync(self._content.fileno())

    def commit(self, metadata: Mapping[str, str], look: Callable[[], object] | None = None) -> StoredFile:
        """Makes the file appear."""
        check_metadata(metadata)
        if self._committed:
            raise ValueError(f"{self._path} is already committed")
        self.settle()
        with translated(self._path):
            status = os.fstat(self._content.fileno())
            # Whoever writes to the folder is waited for, however long that stands still.
            with _locked(self._target.parent):
                if look:
                    look()
                self._appear(etag_of(status), metadata)
        self._committed = True
        return stored(self._path, status, metadata)

    def close(self) -> None:
        """Removes the staged file; what is committed has another name by then."""
        # The raw file, so that the rest of the buffer is not written, which may fail on a full disk.
        self._content.raw.close()
        with suppress(OSError):
            self._staged.unlink(missing_ok=True)

    def _appear(self, etag: str, metadata: Mapping[str, str]) -> None:
        present = etag_at(self._target)
        if present != (self._replaces.etag if self._replaces else None):
            raise changed(self._path)
        before = read_sidecar(self._target)
        # What stat says of it: it may have been copied here, under another ETag.
        kept = {} if present is None else {present: metadata_of(present, before)}
        write_sidecar(self._target, kept | {etag: dict(metadata)})
        if self._replaces is None:
            try:
                os.link(self._staged, self._target)
            except FileExistsError:
                # Put there by a program that does not know our lock: the sidecar must not describe that file.
                write_sidecar(self._target, before)
                raise changed(self._path) from None
        else:
            self._staged.replace(self._target)
        sync_folder(self._target.parent)
        if kept:
            write_sidecar(self._target, {etag: dict(metadata)})


def settle(target: Path, etag: str) -> None:
    """Lets the sidecar describe no other version than the one that stands there, as it may after a crash.

    Rows are about to be deleted that a former version lacks: put back, it must contradict its metadata. Nothing is done
    where nobody can write, nor while somebody does, who sees to it.
    """
    with suppress(OSError):
        if len(read_sidecar(target)) < 2:
            return
        with _locked(target.parent, fcntl.LOCK_EX | fcntl.LOCK_NB):
            versions = read_sidecar(target)
            if etag in versions and etag_at(target) == etag:
                write_sidecar(target, {etag: versions[etag]})


def _holds_the_same(old: io.FileIO, copied: Path) -> bool:
    """Whether a copy is one: it takes the place of the old file, and a file system may get it wrong."""
    old.seek(0)
    with io.FileIO(copied) as new:
        while (block := old.read(READ_BYTES)) == new.read(READ_BYTES):
            if not block:
                return True
    return False


def _copy(old: io.FileIO, new: io.BufferedIOBase) -> None:
    """Copies a whole file, by the file system itself where it can: at once where it shares blocks."""
    try:
        while os.copy_file_range(old.fileno(), new.fileno(), 1 << 30):
            pass
    except (AttributeError, OSError):
        # Both stand where the file system gave up.
        while block := old.read(READ_BYTES):
            new.write(block)
        new.flush()


def _remove_dead(target: Path) -> None:
    """Removes what writers of this file left behind when they died. The folder's lock is held."""
    staged = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp")
    for path in target.parent.iterdir():
        if staged.fullmatch(path.name):
            with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


@contextmanager
def _locked(folder: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, how)
        yield

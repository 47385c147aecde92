"""A folder as the lake, for trials and tests. Here: atomic, conditional files on POSIX. Not here: object stores.

Beside each file lies a hidden sidecar with its metadata, and in each folder a hidden lock. The sidecar is written
before the file it describes appears, and keeps the entry of the file that stands there: a crash between the two leaves
either version with its right metadata.
"""

import errno
import fcntl
import io
import os
import re
import secrets
import stat as stat_modes
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from event_archive.errors import FileChangedError, RefusedError, UnreachableError
from event_archive.lake.local.sidecar import read_sidecar, sync_folder, write_sidecar
from event_archive.lake.names import check_metadata, check_path
from event_archive.lake.protocol import StoredFile

_READ_BYTES = 4 * 1024 * 1024
_BUFFER_BYTES = 1024 * 1024
_TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN}


class LocalLake:
    """A ``Lake`` in a folder, which needs to exist only once something is written.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(root)

    def url(self, path: str) -> str:
        """Where a person finds the file: a ``file://`` address."""
        return self._target(path).absolute().as_uri()

    def stat(self, path: str) -> StoredFile | None:
        """The file as it stands, or None where there is none.

        A file that was edited or put there by hand has the metadata last written for its path.
        """
        target = self._target(path)
        with _translated(path):
            return _stat(target, path)

    def appendable(self, file: StoredFile) -> bool:
        """Whether the file has a sidecar: a foreign one has none."""
        with _translated(file.path):
            return bool(read_sidecar(self._target(file.path)))

    @contextmanager
    def read(self, file: StoredFile) -> Iterator[Iterator[bytes]]:
        """Streams this version, also while another one takes its place."""
        with _translated(file.path):
            content = _open_version(self._target(file.path), file)
        with content:
            yield _blocks(content, file)

    def head(self, file: StoredFile, size_bytes: int) -> bytes:
        """The first bytes of this version."""
        with _translated(file.path), _open_version(self._target(file.path), file) as content:
            return content.read(size_bytes)

    @contextmanager
    def write(self, path: str, *, replaces: StoredFile | None, append: bool = False) -> Iterator["_LocalUpload"]:
        """Stages content in a hidden file beside the place where it is to appear."""
        if append and not (replaces and self.appendable(replaces)):
            raise _changed(path)
        with _translated(path):
            upload = _LocalUpload(self._target(path), path, replaces)
        try:
            if append and replaces:
                upload.begin_with(replaces)
            yield upload
        finally:
            upload.close()

    def list(self, folder: str) -> Iterator[StoredFile]:
        """The files directly in a folder, by path."""
        directory = self._target(folder) if folder else self._root
        prefix = f"{folder}/" if folder else ""
        with _translated(folder), suppress(FileNotFoundError), os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
            found = [_stat(directory / name, prefix + name) for name in names]
            return iter([file for file in found if file])
        return iter(())

    def _target(self, path: str) -> Path:
        check_path(path)
        return self._root.joinpath(*path.split("/"))


class _LocalUpload:
    """Content in a staged file, which is locked while its writer lives."""

    def __init__(self, target: Path, path: str, replaces: StoredFile | None) -> None:
        self._target = target
        self._path = path
        self._replaces = replaces
        self._committed = False
        self._staged = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent):
            _remove_dead(target)
            self._content = io.BufferedWriter(io.FileIO(self._staged, "x"), _BUFFER_BYTES)
            # Released however this process ends: what tells a living writer's file from a dead one's.
            fcntl.flock(self._content, fcntl.LOCK_EX)

    def begin_with(self, file: StoredFile) -> None:
        """Begins with the content of the file that is appended to."""
        with _translated(self._path), _open_version(self._target, file) as old:
            _copy(old, self._content)
            if os.fstat(self._content.fileno()).st_size != file.size_bytes:
                raise _changed(self._path)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes."""
        try:
            self._content.write(data)
        except OSError as error:
            raise _lake_error(error, self._path) from error

    def commit(self, metadata: Mapping[str, str]) -> StoredFile:
        """Makes the file appear."""
        check_metadata(metadata)
        if self._committed:
            raise ValueError(f"{self._path} is already committed")
        with _translated(self._path):
            self._content.flush()
            # Kernels stamp files by ticks of some milliseconds; no two versions shall bear one stamp.
            os.utime(self._content.fileno(), ns=(time.time_ns(), time.time_ns()))
            os.fsync(self._content.fileno())
            status = os.fstat(self._content.fileno())
            with _locked(self._target.parent):
                self._appear(_etag(status), metadata)
        self._committed = True
        return _stored(self._path, status, metadata)

    def close(self) -> None:
        """Removes the staged file; what is committed has another name by then."""
        # The raw file: nobody wants the rest of the buffer, or to hear that the disk is too full for it.
        self._content.raw.close()
        with suppress(OSError):
            self._staged.unlink(missing_ok=True)

    def _appear(self, etag: str, metadata: Mapping[str, str]) -> None:
        present = _etag_at(self._target)
        if present != (self._replaces.etag if self._replaces else None):
            raise _changed(self._path)
        before = read_sidecar(self._target)
        kept = {present: before[present]} if present is not None and present in before else {}
        write_sidecar(self._target, kept | {etag: dict(metadata)})
        if self._replaces is None:
            try:
                os.link(self._staged, self._target)
            except FileExistsError:
                # By somebody who does not know our lock; the sidecar shall not speak for that file.
                write_sidecar(self._target, before)
                raise _changed(self._path) from None
        else:
            self._staged.replace(self._target)
        sync_folder(self._target.parent)


def _stored(path: str, status: os.stat_result, metadata: Mapping[str, str]) -> StoredFile:
    return StoredFile(
        path=path,
        size_bytes=status.st_size,
        etag=_etag(status),
        metadata=MappingProxyType(dict(metadata)),
        modified=datetime.fromtimestamp(status.st_mtime, UTC),
    )


def _etag(status: os.stat_result) -> str:
    # All three survive link and rename, and an edit in place changes the first.
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'


def _etag_at(target: Path) -> str | None:
    try:
        return _etag(target.stat())
    except FileNotFoundError:
        return None


def _stat(target: Path, path: str) -> StoredFile | None:
    while True:
        try:
            status = target.stat()
        except FileNotFoundError:
            return None
        if not stat_modes.S_ISREG(status.st_mode):
            raise RefusedError(f"{path}: {target} is not a regular file. Move it away.")
        versions = read_sidecar(target)
        # A commit between the two reads would give one version the other's metadata.
        if _etag_at(target) == _etag(status):
            newest = next(reversed(versions.values()), {})
            metadata = versions.get(_etag(status), newest)
            return _stored(path, status, metadata)


def _open_version(target: Path, file: StoredFile) -> io.FileIO:
    try:
        content = io.FileIO(target)
    except FileNotFoundError:
        raise _changed(file.path) from None
    if _etag(os.fstat(content.fileno())) != file.etag:
        content.close()
        raise _changed(file.path)
    return content


def _blocks(content: io.FileIO, file: StoredFile) -> Iterator[bytes]:
    read_bytes = 0
    while True:
        with _translated(file.path):
            block = content.read(_READ_BYTES)
        if not block:
            break
        read_bytes += len(block)
        yield block
    if read_bytes != file.size_bytes or _etag(os.fstat(content.fileno())) != file.etag:
        raise _changed(file.path)


def _copy(old: io.FileIO, new: io.BufferedIOBase) -> None:
    """Copies a whole file, by the file system itself where it can: at once where it shares blocks."""
    try:
        while os.copy_file_range(old.fileno(), new.fileno(), 1 << 30):
            pass
    except (AttributeError, OSError):
        old.seek(0)
        new.seek(0)
        while block := old.read(_READ_BYTES):
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
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _changed(path: str) -> FileChangedError:
    return FileChangedError(f"{path} is not the file that it was: somebody else wrote or removed it. Stat it again.")


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """Turns what the file system says into the lake's errors."""
    try:
        yield
    except OSError as error:
        raise _lake_error(error, path) from error


def _lake_error(error: OSError, path: str) -> RefusedError | UnreachableError:
    what = f"{path}: {error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    if error.errno in _TRANSIENT:
        return UnreachableError(f"{what}. See whether the file system is mounted.")
    return RefusedError(f"{what}. See to the folder's permissions and free space.")

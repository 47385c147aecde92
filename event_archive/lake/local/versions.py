"""Versions of a file in a folder: which one stands there, and its content. Not here: writing.

A version is known by its ETag, which is made of what the file system knows of it.
"""

import errno
import io
import os
import stat as stat_modes
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from event_archive.errors import RefusedError
from event_archive.lake.local.errors import translated
from event_archive.lake.local.sidecar import read_sidecar, sync_folder
from event_archive.lake.protocol import StoredFile, changed

READ_BYTES = 4 * 1024 * 1024
"""What is read at a time: as much as a range of Azure's lake, so that both take the same memory."""


def stored(path: str, status: os.stat_result, metadata: Mapping[str, str]) -> StoredFile:
    """A version as a lake describes it."""
    return StoredFile(
        path=path,
        size_bytes=status.st_size,
        etag=etag_of(status),
        metadata=MappingProxyType(dict(metadata)),
        modified=datetime.fromtimestamp(status.st_mtime, UTC),
    )


def etag_of(status: os.stat_result) -> str:
    """A version's ETag."""
    # All three survive link and rename, and an edit in place changes the first.
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'


def etag_at(target: Path) -> str | None:
    """The ETag of what stands at a place; None where nothing does."""
    try:
        return etag_of(target.stat())
    except FileNotFoundError:
        return None


def stat_version(target: Path, path: str) -> StoredFile | None:
    """The version that stands at a place, with its metadata; None where there is no file.

    Raises:
        RefusedError: something else stands there.
    """
    while True:
        try:
            status = target.stat()
        except FileNotFoundError:
            if target.is_symlink():
                raise RefusedError(f"{path}: {target} is a link to nothing. Move it away.") from None
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise RefusedError(f"{path}: {target} is a link that leads back to itself. Move it away.") from None
            raise
        if not stat_modes.S_ISREG(status.st_mode):
            raise RefusedError(f"{path}: {target} is not a regular file. Move it away.")
        versions = read_sidecar(target)
        # A commit between the two reads would give one version the other's metadata.
        if etag_at(target) == etag_of(status):
            return stored(path, status, metadata_of(etag_of(status), versions))


def metadata_of(etag: str, versions: dict[str, dict[str, str]]) -> dict[str, str]:
    """A version's metadata; of one that was edited or put there by hand, those that were written last for its path.

    After a crash those of two versions are described, of which the newer may never have come to stand: then the newest
    of its size, as where the folder was copied since.
    """
    size = etag.split("-")[1]
    of_its_size = [known for of, known in versions.items() if f"-{size}-" in of]
    return versions.get(etag, [{}, *versions.values(), *of_its_size][-1])


def listed_version(target: Path, path: str) -> StoredFile | None:
    """As ``stat_version``, but without metadata where they cannot be read: one file must not hide all others."""
    try:
        return stat_version(target, path)
    except (RefusedError, PermissionError):
        try:
            return stored(path, target.stat(), {})
        except OSError:
            # A link that leads nowhere: the length of the link itself is nobody's.
            return replace(stored(path, target.lstat(), {}), size_bytes=0)


def open_version(target: Path, file: StoredFile) -> io.FileIO:
    """Opens exactly this version.

    Raises:
        FileChangedError: another one stands there, or none.
    """
    try:
        content = io.FileIO(target)
    except FileNotFoundError:
        raise changed(file.path) from None
    if etag_of(os.fstat(content.fileno())) != file.etag:
        content.close()
        raise changed(file.path)
    return content


def sync_version(content: io.FileIO, target: Path, root: Path) -> None:
    """Makes an open version, its name and the folders above it outlive a power failure, as their writer does.

    Args:
        content: the version.
        target: where it stands.
        root: the lake's folder.
    """
    folders = [target.parent, *target.parent.parents]
    try:
        os.fsync(content.fileno())
        for folder in folders[: folders.index(root) + 2]:
            sync_folder(folder)
    except OSError as error:
        # So of a file system, or of a folder above the lake, in which nobody could write a file either.
        if error.errno not in (errno.EINVAL, errno.EROFS, errno.EACCES):
            raise


def blocks_of(content: io.FileIO, file: StoredFile) -> Iterator[bytes]:
    """The content of an open version, in blocks.

    Raises:
        FileChangedError: at the end, where it was edited in place meanwhile.
    """
    read_bytes = 0
    while True:
        with translated(file.path):
            block = content.read(READ_BYTES)
        if not block:
            break
        read_bytes += len(block)
        yield block
    if read_bytes != file.size_bytes or etag_of(os.fstat(content.fileno())) != file.etag:
        raise changed(file.path)

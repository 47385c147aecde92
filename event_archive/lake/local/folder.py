"""A folder as a lake: the protocol's methods. Not here: how content is written (``upload``), versions, sidecars.

Beside each file lies a hidden sidecar with its metadata, and in each folder a hidden lock. The sidecar is written
before the file that it describes appears, and keeps the entry of the file before until then: a crash between the two
leaves either version with its own metadata.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from event_archive.lake.local.errors import translated
from event_archive.lake.local.sidecar import read_sidecar
from event_archive.lake.local.upload import LocalUpload, settle
from event_archive.lake.local.versions import blocks_of, listed_version, open_version, stat_version, sync_version
from event_archive.lake.names import check_path
from event_archive.lake.protocol import StoredFile, changed
from event_archive.paths import is_folder


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

        A file that was edited, or put there by hand, has the metadata that were written last for its path.
        """
        target = self._target(path)
        with translated(path):
            return stat_version(target, path)

    def appendable(self, file: StoredFile) -> bool:
        """Whether the file has a sidecar: a foreign one has none, but where a crash left one with no metadata of it."""
        with translated(file.path):
            return bool(read_sidecar(self._target(file.path)))

    @contextmanager
    def read(self, file: StoredFile) -> Iterator[Iterator[bytes]]:
        """Streams this version, also while another one takes its place.

        What is read outlives a power failure: its writer may have died before it saw to that.
        """
        target = self._target(file.path)
        with translated(file.path):
            content = open_version(target, file)
        with content:
            with translated(file.path):
                sync_version(content, target, self._root)
                settle(target, file.etag)
            yield blocks_of(content, file)

    def head(self, file: StoredFile, size_bytes: int) -> bytes:
        """The first bytes of this version."""
        with translated(file.path), open_version(self._target(file.path), file) as content:
            return content.read(size_bytes)

    @contextmanager
    def write(self, path: str, *, replaces: StoredFile | None, append: bool = False) -> Iterator[LocalUpload]:
        """Stages content in a hidden file beside the place where it is to appear."""
        if append and not (replaces and self.appendable(replaces)):
            raise changed(path)
        with translated(path):
            upload = LocalUpload(self._target(path), path, replaces)
        try:
            if append and replaces:
                upload.begin_with(replaces)
            yield upload
        finally:
            upload.close()

    def list(self, folder: str) -> Iterator[StoredFile]:
        """The files directly in a folder, by path; links that lead nowhere too, of which ``stat`` says so."""
        directory = self._target(folder) if folder else self._root
        prefix = f"{folder}/" if folder else ""
        with translated(folder), suppress(FileNotFoundError), os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_listed(entry))
            found = [listed_version(directory / name, prefix + name) for name in names]
            return iter([file for file in found if file])
        return iter(())

    def _target(self, path: str) -> Path:
        check_path(path)
        return self._root.joinpath(*path.split("/"))


def _is_listed(entry: "os.DirEntry[str]") -> bool:
    # Looked at in this way, a link that leads back to itself raises nothing.
    return entry.is_file(follow_symlinks=False) or (entry.is_symlink() and not is_folder(Path(entry.path)))

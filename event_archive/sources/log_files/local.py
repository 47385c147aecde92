"""Log files in a folder, or a single one. Not here: other stores."""

import errno
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from event_archive.errors import RefusedError
from event_archive.paths import is_file
from event_archive.sources.log_files.stores import CHUNK_BYTES, FileError, Found, StoreAwayError, changed

_TOUCHED_JUST_NOW_SECONDS = 0.05
"""Kernels count a file's times in ticks: within one, a second change would not show."""
_AWAY = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH)
"""What a folder of another machine answers while that is away."""

_log = logging.getLogger(__name__)


class Folder:
    """A folder of this machine; keys are absolute paths, so that a file is the same one by whatever way it is named."""

    bucket = "file://"
    lists_after = False

    def __init__(self, path: Path) -> None:
        """Takes the path of a folder, or of one file."""
        self.is_file = is_file(path)
        # Files are listed by their own names, in folders that are no links: by a link's where it leads elsewhere.
        real, parent = Path(os.path.realpath(path)), Path(os.path.realpath(path.parent))
        self._path = parent if self.is_file else real
        if self.is_file:
            self._path = real if self._is_looked_at(real) else parent / path.name
        self.prefix = str(self._path) if self.is_file else f"{str(self._path).rstrip('/')}/"

    def listed(self, path: Path) -> Path:
        """The path by which a file is listed here: its own, where a link leads to one of this folder."""
        real = Path(os.path.realpath(path))
        return real if self._is_looked_at(real) else path

    def list(self, after: str | None = None) -> Iterator[Found]:  # noqa: ARG002
        """As ``Store.list``; hidden files, and what is no regular file or may not be looked at, are left out.

        So are links to files that are listed themselves, and to folders.
        """
        if self.is_file:
            yield from filter(None, [self._seen(str(self._path))])
            return
        try:
            # It may be a mount that is away.
            next(self._path.iterdir(), None)
        except OSError as error:
            raise RefusedError(
                f"{self._path}: {error.strerror}. LOGS_URL must name a folder that can be read."
            ) from None
        for folder, folders, names in os.walk(self._path, onerror=_leave_out):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for below in (Path(folder, name) for name in folders):
                if below.is_symlink() and not self._is_looked_at(Path(os.path.realpath(below))):
                    _log.warning("%s: It is a link to a folder elsewhere, or a hidden one. It is left out.", below)
            for name in sorted(names):
                key = f"{folder.rstrip('/')}/{name}"
                if not (name.startswith(".") or self._is_link_within(key)) and (found := self._seen(key)):
                    yield found

    def _is_link_within(self, key: str) -> bool:
        """Whether a key is that of a link to a file of this folder, which is listed by its own name."""
        if not Path(key).is_symlink():
            return False
        path = Path(os.path.realpath(key))
        return is_file(path) and self._is_looked_at(path)

    def _is_looked_at(self, path: Path) -> bool:
        """Whether a file or folder, which is no link, lies in this folder, and no part of its path is hidden."""
        if not path.is_relative_to(self._path):
            return False
        return not any(part.startswith(".") for part in path.relative_to(self._path).parts)

    def _seen(self, key: str) -> Found | None:
        try:
            key.encode()
            return self.find(key)
        except UnicodeEncodeError:
            _log.warning("%r: Its name is no UTF-8. It is left out.", os.fsencode(key))
        except FileError as error:
            _log.warning("%s: %s It is left out.", key, error)
        return None

    def find(self, key: str) -> Found | None:
        """As ``Store.find``."""
        path = Path(key)
        try:
            state = path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            kind = StoreAwayError if error.errno in _AWAY else FileError
            raise kind(f"{error.strerror}." if kind is FileError else f"{key}: {error.strerror}.") from None
        if not stat.S_ISREG(state.st_mode):
            return None
        try:
            modified = datetime.fromtimestamp(state.st_mtime, UTC)
        except (OverflowError, ValueError):
            raise FileError("Its time of modification is no date of the calendar.") from None
        return Found(key, _etag(state), state.st_size, modified)

    @contextmanager
    def open(self, file: Found) -> Iterator[Iterator[bytes]]:
        """As ``Store.open``; looks at the file again once it is read."""
        try:
            with open(file.key, "rb", buffering=0, opener=_open_at_once) as content:
                _check(file, os.fstat(content.fileno()))

                def pieces() -> Iterator[bytes]:
                    while piece := content.read(CHUNK_BYTES):
                        yield piece
                    age = time.time() - file.modified.timestamp()
                    if 0 <= age < _TOUCHED_JUST_NOW_SECONDS:
                        time.sleep(_TOUCHED_JUST_NOW_SECONDS)
                    _check(file, os.fstat(content.fileno()))
                    current = self.find(file.key)
                    if current is None or current.etag != file.etag:
                        raise changed(file.key)

                yield pieces()
        except FileNotFoundError:
            raise changed(file.key) from None
        except PermissionError as error:
            raise FileError(f"{error.strerror}. Let this user read it.") from None
        except OSError as error:
            raise StoreAwayError(f"{file.key}: {error.strerror}.") from None


def _open_at_once(path: str, flags: int) -> int:
    """Opens what is a pipe without waiting for its writer, too."""
    return os.open(path, flags | os.O_NONBLOCK)


def _leave_out(error: OSError) -> None:
    if error.errno in _AWAY:
        raise StoreAwayError(f"{error.filename}: {error.strerror}.")
    _log.warning("%s: %s. It is left out.", error.filename, error.strerror)


def _etag(state: os.stat_result) -> str:
    return f"{state.st_mtime_ns}-{state.st_size}"


def _check(file: Found, state: os.stat_result) -> None:
    if _etag(state) != file.etag:
        raise changed(file.key)

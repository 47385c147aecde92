"""What the file system's refusals mean: the lake's errors made of the operating system's. Not here: files."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from event_archive.errors import RefusedError, UnreachableError

_TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN}


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turns what the file system says into the lake's errors."""
    try:
        yield
    except OSError as error:
        raise lake_error(error, path) from error


def lake_error(error: OSError, path: str) -> RefusedError | UnreachableError:
    """The lake's error for one of the file system's."""
    if error.errno in _TRANSIENT:
        # Where the file system is away, the file that was looked for says nothing.
        where = Path(error.filename).parent if error.filename else path
        return UnreachableError(f"{where}: {error.strerror}. Check that the file system is mounted.")
    what = f"{path}: {error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    return RefusedError(f"{what}. Check ARCHIVE_LOCAL_PATH, the folder's permissions and free space.")

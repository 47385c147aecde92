"""Standard output that no reader and no locale can break. Not here: what is written."""

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def unbreakable() -> None:
    """Makes standard output go on where nobody reads it any more (``| head``), or where it was closed from the start.

    A run that deletes rows must not end in its midst because of that. What the encoding lacks is written as an escape.
    """
    given = sys.stdout
    if given is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (as long as the process)
    elif isinstance(given, io.TextIOWrapper) and given is sys.__stdout__:
        raw = io.BufferedWriter(_Unread(given.fileno(), "wb", closefd=False))
        sys.stdout = io.TextIOWrapper(raw, given.encoding, "backslashreplace", line_buffering=True)


class _Unread(io.FileIO):
    def write(self, data: "ReadableBuffer", /) -> int:
        """Says that all was written where there is no reader any more."""
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes

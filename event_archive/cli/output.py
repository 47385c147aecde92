"""Standard output and error that nothing can break, and the JSON line of a command that could not begin.

Not here: what else is written (``observability``).
"""

import errno
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from event_archive.config.variables import output_is_json

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def show_error_line(message: str) -> None:
    """Says why a command ended early, as a JSON line, where standard output holds those."""
    from event_archive.observability.json_lines import write_line

    if output_is_json():
        write_line("failed", error=message)


def show_stopped_line() -> None:
    """Says that a command was stopped, as a JSON line, unless its totals said so."""
    from event_archive.observability import json_lines

    if output_is_json() and json_lines.last_outcome() != "stopped":
        json_lines.write_line("stopped")


def make_unbreakable() -> None:
    """Makes both go on where nobody reads them any more (``| head``), or where they were closed from the start.

    A run that deletes rows must not end in its midst because of that. What the encoding lacks is written as an escape.
    """
    if sys.stdout is sys.__stdout__:
        sys.stdout = _unbreakable(sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _unbreakable(sys.stderr)


def unwritten() -> str:
    """Why something that somebody may want to read could not be written; empty where all was."""
    sys.stdout.flush()
    return _Stubborn.failure


def _unbreakable(given: TextIO | None) -> TextIO:
    if given is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    # No buffer between the two: one whose write a signal's exception ends would write the same line again.
    raw = cast(BinaryIO, _Stubborn(given.fileno(), "wb", closefd=False))
    return io.TextIOWrapper(raw, given.encoding, "backslashreplace", line_buffering=True)


class _Stubborn(io.FileIO):
    failure = ""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Writes all, and says so in any case."""
        left = memoryview(data).cast("B")
        size_bytes = left.nbytes
        try:
            while left:
                left = left[super().write(left) :]
        except OSError as error:
            if error.errno != errno.EPIPE:
                _Stubborn.failure = error.strerror or type(error).__name__
        return size_bytes

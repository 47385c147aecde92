"""The progress of an operation: its phases, and who is told of them. Not here: how it is shown."""

import time
from typing import Literal, Protocol

Phase = Literal[
    "counting", "exporting", "reading back", "reading as text", "comparing and deleting", "restoring", "verifying",
    "adopting",
]  # fmt: skip


class Progress(Protocol):
    """Is told of an operation's phases, and of what has gone by in each."""

    def begin(self, phase: Phase, *, total_bytes: int | None = None) -> None:
        """A phase begins, and counts from nothing, also where one of the same name was before it.

        Args:
            phase: its name.
            total_bytes: how many bytes will go by in it; None where nobody knows.
        """
        ...

    def advance(self, rows: int, size_bytes: int) -> None:
        """So many more rows (0 where they are not counted) and bytes have gone by in this phase."""
        ...


class NoProgress:
    """A ``Progress`` for operations that nobody watches."""

    def begin(self, phase: Phase, *, total_bytes: int | None = None) -> None:
        """Does nothing."""

    def advance(self, rows: int, size_bytes: int) -> None:
        """Does nothing."""


NO_PROGRESS = NoProgress()


class PacedExport:
    """A ``Progress`` that slows an export down: rows are exported no faster than so many bytes a second.

    Args:
        progress: is told the same.
        bytes_per_second: the pace.
    """

    def __init__(self, progress: Progress, bytes_per_second: int) -> None:
        self._progress = progress
        self._bytes_per_second = bytes_per_second
        self._exporting = False
        self._started = time.monotonic()
        self._bytes = 0

    def begin(self, phase: Phase, *, total_bytes: int | None = None) -> None:
        """Begins a phase; only an export is slowed down."""
        self._progress.begin(phase, total_bytes=total_bytes)
        self._exporting = phase == "exporting"
        self._started, self._bytes = time.monotonic(), 0

    def advance(self, rows: int, size_bytes: int) -> None:
        """Waits as long as the pace demands."""
        self._progress.advance(rows, size_bytes)
        if self._exporting:
            self._bytes += size_bytes
            time.sleep(max(0.0, self._started + self._bytes / self._bytes_per_second - time.monotonic()))

"""How far an operation has come. Here: the protocol that tells of it, and its phases. Not here: how it is shown."""

import time
from typing import Literal, Protocol

Phase = Literal[
    "counting", "exporting", "reading back", "reading as text", "comparing and deleting", "restoring", "verifying",
    "adopting",
]  # fmt: skip


class Progress(Protocol):
    """Told of an operation's phases, and of what has gone by in each."""

    def begin(self, phase: Phase, *, total_bytes: int | None = None) -> None:
        """A phase begins; what went by before does not count for it.

        Args:
            phase: its name.
            total_bytes: how many bytes will go by; None where nobody knows.
        """
        ...

    def advance(self, rows: int, size_bytes: int) -> None:
        """So many more rows (0 where they are not counted) and bytes have gone by."""
        ...


class NoProgress:
    """A ``Progress`` that tells nobody."""

    def begin(self, phase: Phase, *, total_bytes: int | None = None) -> None:
        """Tells nobody."""

    def advance(self, rows: int, size_bytes: int) -> None:
        """Tells nobody."""


NO_PROGRESS = NoProgress()


class PacedExport:
    """A ``Progress`` that slows an export down: rows are exported no faster than so many bytes a second.

    Args:
        progress: is told of everything.
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

"""The progress of an operation: its phases, and who is told of them. Not here: how it is shown."""

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

"""Time as requests need it: read, and waited for until somebody stops. Not here: how long to wait."""

import time
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Protocol


class Clock(Protocol):
    """Seconds that pass."""

    def seconds(self) -> float:
        """Seconds since some moment; they never go back."""

    def now(self) -> datetime:
        """The date and time, UTC."""

    def wait(self, seconds: float, stop: Event) -> bool:
        """Waits; returns at once where ``stop`` is set, and whether it is."""


class SystemClock:
    """This machine's clock."""

    def __init__(self) -> None:
        self._began, self._date = time.monotonic(), datetime.now(UTC)

    def seconds(self) -> float:
        """As the protocol says."""
        return time.monotonic() - self._began

    def now(self) -> datetime:
        """As the protocol says."""
        return self._date + timedelta(seconds=self.seconds())

    def wait(self, seconds: float, stop: Event) -> bool:
        """As the protocol says."""
        return stop.wait(max(0.0, seconds))

"""What time it is for the API and for a client that is tested against it. Not here: what is counted by it."""

import threading
import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds since 1970."""


class FakeClock:
    """A clock that moves only when somebody sleeps on it; several threads may.

    Two that sleep at once wake at their own times, as on a real clock: the clock goes to the later one.
    """

    def __init__(self, now: float = 1_760_000_000.0) -> None:
        self._now = now
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            return self._now

    def sleep(self, seconds: float) -> None:
        """Returns at once, when it is that much later."""
        self.advance_to(self() + seconds)

    def advance_to(self, when: float) -> None:
        """Makes it that time, unless it is later already."""
        with self._lock:
            self._now = max(self._now, when)


def scaled(factor: float) -> Clock:
    """A clock that runs that many times as fast as the machine's, from the moment of the call."""
    start = time.time()
    began = time.monotonic()
    return lambda: start + (time.monotonic() - began) * factor

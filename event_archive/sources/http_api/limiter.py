"""One limiter for all workers: how many requests may be on their way, and when the next one may begin.

The bucket of tokens is kept in step with what the API says, which is believed over our own count: somebody else may
draw on the same quota. Not here: how headers are read, requests.
"""

import logging
import random
from threading import Condition, Event

from event_archive.errors import BusyError
from event_archive.sources.http_api.clock import Clock
from event_archive.sources.http_api.headers import Quota

LONGEST_WAIT_SECONDS = 15 * 60
"""An API that wants a longer pause is asked again by the next run."""

_MOST, _FEWEST = 10, 2
_REFUSALS_UNTIL_FEWEST = 3
_SUCCESSES_UNTIL_ONE_MORE = 50
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 64.0
_JITTER = 0.1
_LOOK_AGAIN_SECONDS = 0.5
_ROUNDED_SECONDS, _SLACK = 1.0, 0.05
"""A reset in whole seconds may be rounded down: so much later, but no more than this share of the window."""


class Limiter:
    """Shared by all workers. Each request begins with ``acquire`` and ends with ``release``."""

    def __init__(self, clock: Clock, stop: Event, *, concurrency: int, dice: random.Random | None = None) -> None:
        """Begins without knowing any limit.

        Args:
            clock: passes the seconds.
            stop: ends every wait.
            concurrency: requests on their way at once, to begin with.
            dice: jitter.
        """
        self.concurrency = concurrency
        self.waited_seconds = 0.0
        self._clock, self._stop = clock, stop
        self._dice = dice or random.Random()
        self._changed = Condition()
        self._under_way = 0
        self._tokens: int | None = None
        self._limit: int | None = None
        self._reset_at = 0.0
        self._window_seconds = self._paused_until = 0.0
        self._refusals = self._successes = 0

    def acquire(self) -> bool:
        """Waits until a request may begin; returns False where it may not any more, since somebody stops."""
        with self._changed:
            while not self._stop.is_set():
                if self._under_way >= self.concurrency:
                    self._changed.wait(_LOOK_AGAIN_SECONDS)
                    continue
                wait = self._wait_seconds()
                if wait <= 0:
                    self._under_way += 1
                    if self._tokens is not None:
                        self._tokens -= 1
                    return True
                self.waited_seconds += min(wait, _LOOK_AGAIN_SECONDS)
                # Outside of the lock, by the clock that was given.
                self._changed.release()
                try:
                    self._clock.wait(min(wait, _LOOK_AGAIN_SECONDS), self._stop)
                finally:
                    self._changed.acquire()
            return False

    def _wait_seconds(self) -> float:
        now = self._clock.seconds()
        if self._tokens is not None and now >= self._reset_at:
            # The window is over, and the next response says what this one holds.
            self._tokens = self._limit
        if now < self._paused_until:
            return self._paused_until - now
        if self._tokens is not None and self._tokens <= 0:
            return self._reset_at - now
        return 0

    def release(self, told: Quota | None = None) -> None:
        """A request ended.

        Args:
            told: what its response says of the limit; None where there was no response.
        """
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()
            if told is None or told.remaining is None:
                return
            self._limit = told.limit or self._limit or max(1, told.remaining + 1)
            # Those on their way may or may not be counted in it: taken as not, the next response corrects it.
            self._tokens = told.remaining - self._under_way
            if told.reset_seconds is not None:
                self._window_seconds = max(self._window_seconds, told.reset_seconds)
                slack = min(_ROUNDED_SECONDS, _SLACK * self._window_seconds)
                self._reset_at = self._clock.seconds() + told.reset_seconds + slack
            elif self._clock.seconds() >= self._reset_at:
                self._reset_at = self._clock.seconds() + 1

    def succeeded(self) -> None:
        """A page arrived: after fifty of them one more request may be on its way."""
        with self._changed:
            self._refusals = 0
            self._successes += 1
            if self._successes % _SUCCESSES_UNTIL_ONE_MORE == 0:
                self.concurrency = min(_MOST, self.concurrency + 1)

    def refused(self, seconds: float | None) -> None:
        """The API says that it was too much: every worker waits.

        Args:
            seconds: as long as it says; None where it does not say, and each time in a row is twice as long then.

        Raises:
            BusyError: it wants a longer pause than a run waits.
        """
        with self._changed:
            self._refusals += 1
            self._successes = 0
            if self._refusals >= _REFUSALS_UNTIL_FEWEST:
                self.concurrency = min(self.concurrency, _FEWEST)
            if seconds is None:
                seconds = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (self._refusals - 1))
            if seconds > LONGEST_WAIT_SECONDS:
                raise BusyError(
                    f"The API wants no request for {seconds:.0f} s, which is longer than a run waits "
                    f"({LONGEST_WAIT_SECONDS} s). What arrived is kept; the next run goes on."
                )
            pause = seconds * (1 + self._dice.uniform(0, _JITTER))
            self._paused_until = max(self._paused_until, self._clock.seconds() + pause)
            logging.getLogger(__name__).info("the API's limit is reached: every worker waits %.1f s", pause)

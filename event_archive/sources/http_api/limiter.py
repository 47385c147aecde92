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

_KEPT = "What arrived is kept; the next run goes on."
LONGEST_WAIT_SECONDS = 15 * 60
"""An API that wants a longer pause is asked again by the next run."""

MOST_AT_ONCE, _FEWEST_AT_ONCE = 10, 2
"""Requests on their way, however well or badly the API does."""
_REFUSALS_UNTIL_FEWEST = 3
_SUCCESSES_UNTIL_ONE_MORE = 50
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 64.0
_JITTER = 0.1
_LOOK_AGAIN_SECONDS = 0.5
_ROUNDED_SECONDS, _SLACK = 1.0, 0.05
"""A reset in whole seconds may be rounded down: so much later, but no more than this share of the window."""
_SAME_WINDOW_SECONDS = 2.0
"""Resets that are no further apart are one, rounded."""

_log = logging.getLogger(__name__)


class Limiter:
    """Shared by all workers. Each request begins with ``acquire`` and ends with ``release``.

    At the beginning of a window one request goes alone, and its response says what the window holds: others may have
    drawn on it already.
    """

    def __init__(self, clock: Clock, stop: Event, *, concurrency: int, dice: random.Random | None = None) -> None:
        """Begins without knowing any limit.

        Args:
            clock: passes the seconds.
            stop: ends every wait.
            concurrency: requests on their way at once, to begin with.
            dice: jitter.
        """
        self.concurrency = concurrency
        self._clock, self._stop = clock, stop
        self._dice = dice or random.Random()
        self._changed = Condition()
        self._under_way = 0
        # Between these two lies what the window holds still: requests on their way may or may not be counted in what
        # responses say, which arrive in any order. None where there is no limit.
        self._fewest: int | None = None
        self._most = 0
        self._is_known = False
        self._reset_at = self._window_seconds = self._paused_until = 0.0
        self._refusals = self._pauses = self._successes = 0
        self._paused_seconds = 0.0
        self._told_forms: set[str] = set()

    def acquire(self) -> bool:
        """Waits until a request may begin; returns False where it may not any more, since somebody stops.

        Raises:
            BusyError: that would take longer than a run waits.
        """
        with self._changed:
            while not self._stop.is_set():
                if self._fewest is not None and self._clock.seconds() >= self._reset_at:
                    self._is_known = False
                if self._under_way >= (self.concurrency if self._is_known else 1) or self._will_be_told_more():
                    self._changed.wait(_LOOK_AGAIN_SECONDS)
                    continue
                wait = self._wait_seconds()
                if wait <= 0:
                    self._under_way += 1
                    if self._fewest is not None:
                        self._fewest, self._most = self._fewest - 1, self._most - 1
                    return True
                if wait > LONGEST_WAIT_SECONDS:
                    raise _too_long(wait)
                # Outside of the lock, by the clock that was given.
                self._changed.release()
                try:
                    self._clock.wait(min(wait, _LOOK_AGAIN_SECONDS), self._stop)
                finally:
                    self._changed.acquire()
            return False

    def _will_be_told_more(self) -> bool:
        """Whether a request on its way will tell if the window holds more, and when it ends."""
        return self._fewest is not None and self._fewest <= 0 < self._under_way

    def _wait_seconds(self) -> float:
        now = self._clock.seconds()
        if now < self._paused_until:
            return self._paused_until - now
        if self._is_known and self._fewest is not None and self._fewest <= 0:
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
                # An error's response may lack what others say.
                self._is_known = self._is_known or self._fewest is None
                return
            self._tell_once(told)
            reset_at = self._reset(told)
            is_new = self._fewest is None or not self._is_known or reset_at > self._reset_at + _SAME_WINDOW_SECONDS
            self._most = told.remaining if is_new else min(self._most, told.remaining)
            self._fewest = min(self._most, told.remaining - self._under_way)
            self._reset_at, self._is_known = reset_at, True

    def _tell_once(self, told: Quota) -> None:
        """Logs how a limit is read, for who has to find out why a run waits."""
        if told.reset_form in self._told_forms:
            return
        self._told_forms.add(told.reset_form)
        left = f"{told.remaining} of {told.limit}" if told.limit is not None else f"{told.remaining}"
        until = "until when is not told"
        if told.reset_seconds is not None:
            until = f"for {told.reset_seconds:.0f} s; that is told in {told.reset_form}"
        _log.info("the API's limit: %s requests are left, %s", left, until)

    def _reset(self, told: Quota) -> float:
        """When the window is over for which a response says how much is left."""
        now = self._clock.seconds()
        if told.reset_seconds is None:
            return max(self._reset_at, now + 1)
        self._window_seconds = max(self._window_seconds, told.reset_seconds)
        return now + told.reset_seconds + min(_ROUNDED_SECONDS, _SLACK * self._window_seconds)

    def succeeded(self) -> None:
        """A page arrived: after fifty of them one more request may be on its way."""
        with self._changed:
            self._refusals = self._pauses = 0
            self._paused_seconds = 0.0
            self._successes += 1
            if self._successes % _SUCCESSES_UNTIL_ONE_MORE == 0:
                self.concurrency = min(MOST_AT_ONCE, self.concurrency + 1)

    def refused(self, seconds: float | None) -> None:
        """The API says that it was too much: every worker waits.

        Args:
            seconds: as long as it says; None where it does not say, and each pause in a row is twice as long then.

        Raises:
            BusyError: it wants a longer pause than a run waits, or one pause after another.
        """
        with self._changed:
            self._refusals += 1
            self._successes = 0
            if self._refusals >= _REFUSALS_UNTIL_FEWEST:
                self.concurrency = min(self.concurrency, _FEWEST_AT_ONCE)
            now = self._clock.seconds()
            if seconds is not None and seconds < _FIRST_PAUSE_SECONDS and self._refusals > 1:
                # At once, it says again: that was in vain before.
                seconds = None
            if seconds is None:
                if now < self._paused_until:
                    # Of a request that began before the others were told to wait.
                    return
                seconds = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**self._pauses)
                self._pauses += 1
            if seconds > LONGEST_WAIT_SECONDS:
                raise _too_long(seconds)
            pause_until = now + seconds * (1 + self._dice.uniform(0, _JITTER))
            self._paused_seconds += max(0.0, pause_until - max(now, self._paused_until))
            if self._paused_seconds > LONGEST_WAIT_SECONDS * (1 + _JITTER):
                raise BusyError(
                    f"The API refuses one request after another: it has been asked, or is to be, for "
                    f"{self._paused_seconds:.0f} s in vain, longer than a run waits ({LONGEST_WAIT_SECONDS} s). {_KEPT}"
                )
            self._paused_until = max(self._paused_until, pause_until)
            _log.info("the API's limit is reached: every worker waits %.1f s", self._paused_until - now)


def _too_long(seconds: float) -> BusyError:
    return BusyError(
        f"The API wants no request for {seconds:.0f} s, which is longer than a run waits ({LONGEST_WAIT_SECONDS} s). "
        + _KEPT
    )

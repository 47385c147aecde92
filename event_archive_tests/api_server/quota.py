"""How many requests are allowed, and how an answer tells so. Not here: which requests count."""

import datetime as dt
import math
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from typing import Literal

from event_archive_tests.api_server.clock import Clock

# A time near 2e9 in binary fractions is right to some 2e-7.
_TOLERANCE_SECONDS = 1e-6

LimitHeaders = Literal["x-delta", "x-epoch", "x-ms", "x-iso", "ietf", "ietf-split", "none"]


@dataclass(frozen=True)
class Standing:
    """Where a client stands after a request.

    Attributes:
        allowed: whether the request was.
        limit: requests in a window.
        window_seconds: its length.
        remaining: requests left in it.
        reset_at: when there are more again, in seconds since 1970.
        now: when the request came, likewise.
    """

    allowed: bool
    limit: int
    window_seconds: float
    remaining: int
    reset_at: float
    now: float

    @property
    def reset_seconds(self) -> int:
        """Whole seconds until then, never too few."""
        return max(0, math.ceil(self.reset_at - self.now - _TOLERANCE_SECONDS))


class Quota:
    """So many requests in so many seconds.

    A fixed window begins with the first request after the window before it. A sliding one holds at any time.
    A request that is refused does not count.
    """

    def __init__(self, limit: int, window_seconds: float, clock: Clock, *, sliding: bool = False) -> None:
        self._limit = limit
        self._window_seconds = window_seconds
        self._clock = clock
        self._sliding = sliding
        self._times: deque[float] = deque()
        self._began = -math.inf

    def take(self, foreign: int = 0) -> Standing:
        """Asks for one request, after that many of somebody else's."""
        now = self._clock()
        self._forget(now - self._window_seconds + _TOLERANCE_SECONDS)
        for _ in range(min(foreign, self._limit - len(self._times))):
            self._count(now)
        allowed = len(self._times) < self._limit
        if allowed:
            self._count(now)
        first = self._times[0] if self._sliding and self._times else self._began
        remaining = self._limit - len(self._times)
        return Standing(allowed, self._limit, self._window_seconds, remaining, first + self._window_seconds, now)

    def _forget(self, until: float) -> None:
        if self._sliding:
            while self._times and self._times[0] <= until:
                self._times.popleft()
        elif self._began <= until:
            self._times.clear()

    def _count(self, now: float) -> None:
        if not self._times:
            self._began = now
        self._times.append(now)


def limit_headers(standing: Standing, style: LimitHeaders) -> dict[str, str]:
    """The headers of an answer, in one of the styles that APIs have."""
    reset = standing.reset_seconds
    numbers = {"Limit": str(standing.limit), "Remaining": str(standing.remaining)}
    match style:
        case "none":
            return {}
        case "ietf":
            return {
                "RateLimit-Policy": f'"default";q={standing.limit};w={math.ceil(standing.window_seconds)}',
                "RateLimit": f'"default";r={standing.remaining};t={reset}',
            }
        case "ietf-split":
            return {f"RateLimit-{name}": value for name, value in (numbers | {"Reset": str(reset)}).items()}
        case "x-delta":
            written = str(reset)
        case "x-epoch":
            written = str(math.ceil(standing.reset_at))
        case "x-ms":
            written = str(math.ceil(standing.reset_at * 1000))
        case "x-iso":
            written = dt.datetime.fromtimestamp(math.ceil(standing.reset_at), dt.UTC).isoformat()
    return {f"X-RateLimit-{name}": value for name, value in (numbers | {"Reset": written}).items()}


def retry_after(standing: Standing, style: str) -> dict[str, str]:
    """The header of a refusal: ``seconds``, ``date``, ``absent``, or whatever else the style says, as it stands."""
    match style:
        case "absent":
            return {}
        case "seconds":
            return {"Retry-After": str(standing.reset_seconds)}
        case "date":
            return {"Retry-After": formatdate(math.ceil(standing.reset_at), usegmt=True)}
        case _:
            return {"Retry-After": style}

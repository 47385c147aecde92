"""An API and its ingestion that take turns, so that the same seed gives the same life. Not here: what happens in it."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from event_archive.sources.http_api.walking import Ended
from event_archive_tests.api_server.events import Events
from event_archive_tests.fixtures.ingestion import WaitingClock


class Turns:
    """A buffer whose two sides take turns, in place of that of the ingestion: workers wait while pages are landed."""

    pages = 1

    def __init__(self, _most_bytes: int) -> None:
        self._items: list[Any] = []
        self._turn, self._changed, self._closed = 0, threading.Condition(), False

    def put(self, item: tuple[Any, Any], _size_bytes: int = 0) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()
            if len(self._items) >= self.pages and not isinstance(item[1], Ended):
                turn = self._turn
                self._changed.wait_for(lambda: self._closed or self._turn > turn)

    def take(self, _most_bytes: int, _wait_seconds: float) -> list[Any]:
        with self._changed:
            self._turn += 1
            self._changed.notify_all()
            while not self._is_full() and any(of.name.startswith("fetch ") for of in threading.enumerate()):
                self._changed.wait(0.002)
            taken, self._items = self._items, []
            return taken

    def _is_full(self) -> bool:
        return len(self._items) >= self.pages or (bool(self._items) and isinstance(self._items[-1][1], Ended))

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Minutes(WaitingClock):
    """A clock whose waits end with a minute, so that no random pause shows."""

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        return super().wait(60 * (seconds // 60 + 1), stop)


class Told(Events):
    """Events in the API's own order, whatever it is, and what happens at each request for some."""

    def __init__(self, at_request: Callable[[], None]) -> None:
        super().__init__(0)
        self.at_request = at_request
        self.held: dict[int, tuple[int, bytes]] = {}

    def between(self, since: int | None, until: int | None) -> Sequence[int]:
        self.at_request()
        return sorted(
            place
            for place, (time, _) in self.held.items()
            if (since is None or time >= since) and (until is None or time < until)
        )

    def texts(self, numbers: Sequence[int]) -> list[bytes]:
        return [self.held[number][1] for number in numbers]

"""What lies between the workers that fetch and the one that lands: a bounded queue. Not here: what is in it."""

from collections import deque
from threading import Condition
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Buffer(Generic[Item]):
    """A queue that holds up whoever fills it, once it holds enough.

    Args:
        most_bytes: what it holds before ``put`` waits. One item more may be in it.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._changed = Condition()
        self._closed = False

    def put(self, item: Item, size_bytes: int = 0) -> None:
        """Adds an item, as soon as there is room for it; into a closed one nothing goes."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not size_bytes or self._bytes < self._most_bytes)
            if not self._closed:
                self._items.append((item, size_bytes))
                self._bytes += size_bytes
                self._changed.notify_all()

    def take(self, most_bytes: int, wait_seconds: float) -> list[Item]:
        """The items that wait, in their order, up to a size but at least one; none where none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items), wait_seconds)
            taken: list[Item] = []
            taken_bytes = 0
            while self._items and (not taken or taken_bytes + self._items[0][1] <= most_bytes):
                item, size_bytes = self._items.popleft()
                taken.append(item)
                taken_bytes += size_bytes
            self._bytes -= taken_bytes
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Lets go of everybody who waits, and of what is in it."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

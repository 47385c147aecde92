"""A proxy that can be shut and opened again. Here: the listener and the threads. Not here: what goes through."""

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

POLL_SECONDS = 0.02
PIECE_BYTES = 64 * 1024


class Proxy(ABC):
    """Up until ``shut``, and up again by ``open``. A thread serves each connection."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.open()

    @abstractmethod
    def _listen(self) -> socket.socket:
        """A socket that listens, at the same address each time."""

    @abstractmethod
    def _serve(self, client: socket.socket) -> None:
        """Passes on what comes over a connection, until it or the proxy ends."""

    def open(self) -> None:
        """Accepts connections."""
        self._listener = self._listen()
        self._listener.settimeout(POLL_SECONDS)
        self._start(self._accept, self._listener)

    def shut(self) -> None:
        """Refuses connections; those that stand go on."""
        if self._listener:
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        """Ends every connection and thread."""
        self.shut()
        self._ended.set()
        while self._threads:
            self._threads.pop().join()

    def _start(self, work: Callable[[socket.socket], None], on: socket.socket) -> None:
        thread = threading.Thread(target=work, args=[on], name=type(self).__name__)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self._start(self._serve, client)


AnyProxy = TypeVar("AnyProxy", bound=Proxy)


@contextmanager
def closed_after(proxy: AnyProxy) -> Iterator[AnyProxy]:
    """The proxy, closed with all its threads in the end."""
    try:
        yield proxy
    finally:
        proxy.close()

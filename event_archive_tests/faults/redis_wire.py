"""Redis over a line that breaks on demand: a proxy on a Unix socket before a server's, which looks into no reply."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from event_archive_tests.fixtures.valkey import StreamServer

_PIECE_BYTES = 64 * 1024
_POLL_SECONDS = 0.02


@dataclass
class Cut:
    """The line breaks in the reply to a command.

    Attributes:
        command: which.
        nth: the how many-th of them.
        sent: how many bytes of the reply still get through; None where the command itself does not.
        met: set when it happens.
    """

    command: bytes
    nth: int = 1
    sent: int | None = 0
    met: threading.Event = field(default_factory=threading.Event)


class RedisWire:
    """The proxy. ``url`` leads through it; it is up until ``shut``, and up again by ``open``."""

    def __init__(self, server: StreamServer) -> None:
        self._server = server
        self._path = server.folder / "wire"
        self._cuts: list[Cut] = []
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.open()

    @property
    def url(self) -> str:
        return f"unix://{self._path}"

    def open(self) -> None:
        """Accepts connections."""
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen()
        self._listener.settimeout(_POLL_SECONDS)
        self._start(self._accept, self._listener)

    def shut(self) -> None:
        """Refuses connections; those that stand go on."""
        if self._listener:
            self._listener.close()
            self._listener = None

    def cut(self, command: bytes, nth: int = 1, sent: int | None = 0) -> Cut:
        """Makes the line break once."""
        cut = Cut(command, nth, sent)
        self._cuts.append(cut)
        return cut

    def close(self) -> None:
        """Ends every connection and thread."""
        self.shut()
        self._ended.set()
        while self._threads:
            self._threads.pop().join()

    def _start(self, work: Callable[[socket.socket], None], on: socket.socket) -> None:
        thread = threading.Thread(target=work, args=[on], name="redis wire")
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

    def _serve(self, client: socket.socket) -> None:
        """One command at a time, as the consumer sends them."""
        with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server, suppress(OSError):
            server.connect(str(self._server.socket))
            cut: Cut | None = None
            while not self._ended.is_set():
                ready, _, _ = select.select([client, server], [], [], _POLL_SECONDS)
                for source in ready:
                    piece = source.recv(_PIECE_BYTES)
                    if not piece:
                        return
                    if source is client:
                        cut = self._cut_for(piece)
                        if cut is None or cut.sent is not None:
                            server.sendall(piece)
                            continue
                    if cut is None:
                        client.sendall(piece)
                    else:
                        client.sendall(piece[: cut.sent or 0])
                        cut.met.set()
                        return

    def _cut_for(self, piece: bytes) -> Cut | None:
        for cut in self._cuts:
            if cut.command in piece:
                cut.nth -= 1
                if not cut.nth:
                    self._cuts.remove(cut)
                    return cut
        return None


@contextmanager
def redis_wire(server: StreamServer) -> Iterator[RedisWire]:
    """A proxy before a running server, closed with all its threads in the end."""
    proxy = RedisWire(server)
    try:
        yield proxy
    finally:
        proxy.close()

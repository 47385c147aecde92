"""Redis over a line that breaks on demand: a proxy on a Unix socket before a server's, which looks into no reply."""

import select
import socket
import threading
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field

from event_archive_tests.faults.proxy import PIECE_BYTES, POLL_SECONDS, Proxy, closed_after
from event_archive_tests.fixtures.valkey import StreamServer


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


class RedisWire(Proxy):
    """The proxy. ``url`` leads through it; it is up until ``shut``, and up again by ``open``."""

    def __init__(self, server: StreamServer) -> None:
        self._server = server
        self._path = server.folder / "wire"
        self._cuts: list[Cut] = []
        super().__init__()

    @property
    def url(self) -> str:
        return f"unix://{self._path}"

    def _listen(self) -> socket.socket:
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self._path))
        listener.listen()
        return listener

    def cut(self, command: bytes, nth: int = 1, sent: int | None = 0) -> Cut:
        """Makes the line break once."""
        cut = Cut(command, nth, sent)
        self._cuts.append(cut)
        return cut

    def _serve(self, client: socket.socket) -> None:
        """One command at a time, as the consumer sends them."""
        with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server, suppress(OSError):
            server.connect(str(self._server.socket))
            cut: Cut | None = None
            while not self._ended.is_set():
                ready, _, _ = select.select([client, server], [], [], POLL_SECONDS)
                for source in ready:
                    piece = source.recv(PIECE_BYTES)
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


def redis_wire(server: StreamServer) -> AbstractContextManager[RedisWire]:
    """A proxy before a running server, closed with all its threads in the end."""
    return closed_after(RedisWire(server))

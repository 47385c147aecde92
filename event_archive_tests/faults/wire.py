"""PostgreSQL over a line that breaks on demand. Here: a loopback proxy that knows where one message ends.

It speaks TCP to the client, as production does, and the test server's Unix socket behind it; without TLS.
"""

import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Literal

import psycopg

from event_archive_tests.faults.proxy import PIECE_BYTES, POLL_SECONDS, Proxy, closed_after
from event_archive_tests.fixtures.ports import free_port
from event_archive_tests.fixtures.postgres import Server

Sender = Literal["client", "server"]
Matches = Callable[[bytes, bytes], bool]

_RESET = struct.pack("ii", 1, 0)


def any_message(_kind: bytes, _body: bytes) -> bool:
    """Every message."""
    return True


def statement(text: str) -> Matches:
    """A client's message that carries a statement which has ``text`` in it."""
    return lambda kind, body: kind in (b"Q", b"P") and text.encode() in body


def commit(kind: bytes, body: bytes) -> bool:
    """The client's COMMIT; not the word in another statement."""
    return kind == b"Q" and body.startswith(b"COMMIT")


def progress(kind: bytes, _body: bytes) -> bool:
    """The server's messages that begin or end something, and rows of a COPY.

    Its greeting is settings by the dozen, and the catalog's answers have a message for each row.
    """
    return kind in b"CTdGHcZ"


def copy_data(kind: bytes, _body: bytes) -> bool:
    """A piece of a COPY: a row on its way out, a block on its way in."""
    return kind == b"d"


def done(command: str) -> Matches:
    """The server's answer that a command, like ``DELETE`` or ``COMMIT``, is done."""
    return lambda kind, body: kind == b"C" and body.startswith(command.encode())


@dataclass
class Trouble:
    """What happens to one message.

    Attributes:
        sender: whose message.
        matches: which messages count, by kind and body.
        nth: the how many-th of those, over all connections.
        seconds: how long the line stalls before the message, which then goes on; None to cut the line there.
        sent: how much of the message still gets through before the cut: a number of bytes, or -1 for all of it.
        reset: cut by a reset, as a firewall does, instead of an orderly end.
        met: set when it happens.
    """

    sender: Sender
    matches: Matches = any_message
    nth: int = 1
    seconds: float | None = None
    sent: int = 0
    reset: bool = False
    met: threading.Event = field(default_factory=threading.Event)


class Wire(Proxy):
    """The proxy. ``dsn`` leads through it; it is up until ``shut``, and up again by ``open``."""

    def __init__(self, server: Server) -> None:
        self.seen: dict[Sender, int] = {"client": 0, "server": 0}
        self._behind = str(server.socket_dir / ".s.PGSQL.5432")
        self._troubles: list[Trouble] = []
        self._lock = threading.Lock()
        self._port = free_port()
        super().__init__()

    def dsn(self, database: str, *, connect_timeout: int = 10) -> str:
        """A connection string that leads through the proxy."""
        return psycopg.conninfo.make_conninfo(
            host="127.0.0.1",
            port=self._port,
            user="postgres",
            dbname=database,
            sslmode="disable",
            gssencmode="disable",
            connect_timeout=connect_timeout,
        )

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen()
        return listener

    def expect(self, trouble: Trouble) -> Trouble:
        """Makes a trouble happen, once."""
        with self._lock:
            self._troubles.append(trouble)
        return trouble

    def calm(self) -> None:
        """Nothing happens any more."""
        with self._lock:
            self._troubles.clear()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server, suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.connect(self._behind)
            unread: dict[Sender, bytearray] = {"client": bytearray(), "server": bytearray()}
            greeted = False
            while not self._ended.is_set():
                ready, _, _ = select.select([client, server], [], [], POLL_SECONDS)
                for source in ready:
                    sender: Sender = "client" if source is client else "server"
                    piece = source.recv(PIECE_BYTES)
                    if not piece:
                        return
                    unread[sender] += piece
                    while (size := _message_bytes(unread[sender], typed=greeted or sender == "server")) is not None:
                        message = bytes(unread[sender][:size])
                        del unread[sender][:size]
                        greeted = greeted or sender == "client"
                        if not self._pass_on(message, sender, client, server):
                            return

    def _pass_on(self, message: bytes, sender: Sender, client: socket.socket, server: socket.socket) -> bool:
        to = server if sender == "client" else client
        trouble = self._trouble_for(message, sender)
        if trouble is None:
            to.sendall(message)
            return True
        trouble.met.set()
        if trouble.seconds is not None:
            self._ended.wait(trouble.seconds)
            to.sendall(message)
            return True
        to.sendall(message if trouble.sent < 0 else message[: trouble.sent])
        if trouble.reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        return False

    def _trouble_for(self, message: bytes, sender: Sender) -> Trouble | None:
        with self._lock:
            self.seen[sender] += 1
            for trouble in self._troubles:
                if trouble.sender == sender and trouble.matches(message[:1], message[5:]):
                    trouble.nth -= 1
                    if not trouble.nth:
                        self._troubles.remove(trouble)
                        return trouble
        return None


def _message_bytes(unread: bytearray, *, typed: bool) -> int | None:
    """How long the first message is; None where it has not come whole. A client's first has no letter in front."""
    letter = 1 if typed else 0
    if len(unread) < letter + 4:
        return None
    size: int = letter + struct.unpack_from("!i", unread, letter)[0]
    return size if len(unread) >= size else None


def wire(server: Server) -> AbstractContextManager[Wire]:
    """A proxy before a running server, closed with all its threads in the end."""
    return closed_after(Wire(server))


def alone(server: Server, database: str, *, within_seconds: float = 10) -> None:
    """Waits until the server has noticed that the others' connections to a database broke.

    Until then a session that nobody listens to may hold the day's lock, and a plain run would say so and do nothing.
    """
    until = time.monotonic() + within_seconds
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        while connection.execute("SELECT FROM pg_stat_activity WHERE datname = %s", [database]).fetchone():
            assert time.monotonic() < until, "a session stays although its client is gone"
            time.sleep(POLL_SECONDS)

"""A Blob service that misbehaves on demand. Here: a proxy before Azurite that loses, cuts and refuses answers."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from event_archive_tests.azurite import Azurite


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    Attributes:
        matches: whether it happens to a request, by its method and address.
        status: answered in place of Azurite's answer, to a request that Azurite never sees; None to pass it on.
        headers: of that answer.
        content: of that answer.
        sent_fraction: how much of Azurite's answer is sent before the connection breaks: 0 for none, headers included.
        held_seconds: how long the connection stalls before it breaks.
        altered: what becomes of the request's body on its way.
        dropped: headers of Azurite's answer that are left out, in small letters.
        delay_seconds: how long the request waits before it goes on to Azurite, or is answered.
        again: it happens to every request that matches, until it is taken off the list.
    """

    matches: Callable[[str, str], bool]
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    sent_fraction: float = 1.0
    held_seconds: float = 0.0
    altered: Callable[[bytes], bytes] = bytes
    dropped: tuple[str, ...] = ()
    delay_seconds: float = 0.0
    again: bool = False


@dataclass
class FaultyAzurite:
    """Azurite seen through the proxy.

    Attributes:
        service: as Azurite, at the proxy's address.
        faults: those still to happen, each to the first request that it matches, or to all.
        seen: method and address of each request.
        caches: whether answers to GET and HEAD are ``kept``, and given again to whoever takes them.
    """

    service: Azurite
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    caches: bool = False
    kept: dict[tuple[str, str, str], tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_for(self, method: str, address: str) -> Fault | None:
        """Takes the fault that is to happen to this request off the list."""
        with self._lock:
            self.seen.append((method, address))
            for fault in self.faults:
                if fault.matches(method, address):
                    if not fault.again:
                        self.faults.remove(fault)
                    return fault
        return None


def request(method: str, part: str = "") -> Callable[[str, str], bool]:
    """Matches a method and a part of the address, like ``comp=blocklist``."""
    return lambda seen_method, address: seen_method == method and part in address


class _Server(ThreadingHTTPServer):
    """Waits for its threads when it is closed, having hung up on clients that keep their connections."""

    daemon_threads = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, client = super().get_request()
        self._connections.append(connection)
        return connection, client

    def hang_up(self) -> None:
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def faulty(azurite: Azurite) -> Iterator[FaultyAzurite]:
    """A proxy before a running Azurite"""
    behind = urlsplit(azurite.account_url)
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body in two packets would wait for each other's acknowledgement.
        wbufsize = -1
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:
                self.close_connection = True

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.fault_for(self.command, self.path)
            if fault and fault.delay_seconds:
                ended.wait(fault.delay_seconds)
            if fault and fault.status:
                self._send(fault.status, fault.headers, fault.content)
                return
            key = (self.command, self.path, self.headers.get("x-ms-range", ""))
            if key in proxy.kept and self.headers.get("Cache-Control") != "no-cache":
                self._send(*proxy.kept[key])
                return
            body = fault.altered(body) if fault else body
            with closing(HTTPConnection(behind.hostname or "", behind.port)) as connection:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            for name in ("connection", *(fault.dropped if fault else ())):
                headers.pop(name, None)
            if headers.pop("transfer-encoding", None):
                headers["content-length"] = str(len(content))
            if proxy.caches and self.command in ("GET", "HEAD"):
                proxy.kept[key] = answer.status, headers, content
            if fault and fault.sent_fraction < 1:
                self.close_connection = True
                if not fault.sent_fraction:
                    return
                content = content[: int(len(content) * fault.sent_fraction)]
            self._send(answer.status, headers, content)
            if fault and fault.held_seconds:
                self.wfile.flush()
                ended.wait(fault.held_seconds)

        do_GET = do_PUT = do_HEAD = do_DELETE = _pass_on  # noqa: N815

        def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "content-length" not in headers and self.command != "HEAD":
                self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with _Server(("127.0.0.1", 0), Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}{behind.path}"
        proxy = FaultyAzurite(Azurite(azurite.account_name, azurite.account_key, address))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            ended.set()
            server.shutdown()
            thread.join()
            server.hang_up()

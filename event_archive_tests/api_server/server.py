"""The API on two ports of the loopback: events on one, its switches on the other. Not here: who uses them.

The second port is also the other host to which a redirect leads: whatever is asked of it is remembered, with its key.
"""

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from event_archive_tests.api_server.api import Answer, Api, Request
from event_archive_tests.api_server.delivery import deliver
from event_archive_tests.api_server.switches import Switches
from event_archive_tests.fixtures.ports import free_port

_POLL_SECONDS = 0.02


class _Server(ThreadingHTTPServer):
    """Waits for its threads when it is closed, having hung up on clients that keep their connections."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(_POLL_SECONDS,))
        self._thread.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, client = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.append(connection)
        return connection, client

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tells of it, unless a client went away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def end(self) -> None:
        """Returns when nobody is connected any more and nobody can connect."""
        self.shutdown()
        self._thread.join()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class Server:
    """An API that listens; its ports stay the same while it is shut."""

    def __init__(self, api: Api, port: int = 0) -> None:
        self._api = api
        self._ended = threading.Event()
        self._events: _Server | None = _Server(port or free_port(), _events_handler(api, self._ended))
        self.port = self._events.server_port
        self._elsewhere: list[dict[str, Any]] = []
        self._admin = _Server(0, _admin_handler(self))
        self.admin_port = self._admin.server_port

    def shut(self) -> None:
        """Hangs up on everybody and refuses connections."""
        if self._events:
            self._ended.set()
            self._events.end()
            self._events = None

    def open(self) -> None:
        """Listens again."""
        if not self._events:
            self._ended.clear()
            self._events = _Server(self.port, _events_handler(self._api, self._ended))

    def end(self) -> None:
        """Ends all of it."""
        self.shut()
        self._admin.end()

    def administer(self, path: str, body: bytes) -> object:
        """What a request to the other port does, and what it tells."""
        api = self._api
        address = urlsplit(path)
        match address.path:
            case "/admin/switches":
                api.switch(Switches.model_validate_json(body))
            case "/admin/add":
                api.add(json.loads(body))
            case "/admin/events":
                return api.events.all()
            case "/admin/requests":
                at_least = int(dict(parse_qsl(address.query)).get("at_least", 0))
                with api.answered:
                    api.answered.wait_for(lambda: len(api.served) >= at_least, timeout=60)
                    return [asdict(request) for request in api.served]
            case "/admin/elsewhere":
                return self._elsewhere
            case "/admin/shut":
                self.shut()
            case "/admin/open":
                self.open()
        return None

    def note_elsewhere(self, path: str, headers: dict[str, str]) -> None:
        """Remembers a request that was meant for another host."""
        self._elsewhere.append({"path": path, "headers": headers})


@contextmanager
def serving(api: Api, port: int = 0) -> Iterator[Server]:
    """A server in threads of this process; ended when the context is left."""
    server = Server(api, port)
    try:
        yield server
    finally:
        server.end()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def lower_headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def log_message(self, *_: object) -> None:
        pass


def _events_handler(api: Api, ended: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            headers = self.lower_headers()
            request = Request(
                f"http://{headers['host']}{address.path}", address.path, dict(parse_qsl(address.query)), headers
            )
            with api.under_way() as at_once:
                ended.wait(api.switches.latency_ms / 1000)
                delivered = deliver(self.connection, api.answer(request, at_once), ended)
            self.close_connection = self.close_connection or not delivered

    return Handler


def _admin_handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not self.path.startswith("/admin/"):
                server.note_elsewhere(self.path, self.lower_headers())
            told = json.dumps(server.administer(self.path, body)).encode()
            deliver(self.connection, Answer(200, told, {"Content-Type": "application/json"}), threading.Event())

        do_GET = do_POST = _respond  # noqa: N815

    return Handler

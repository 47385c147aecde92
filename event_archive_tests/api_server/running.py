"""An API as a test sees it, in threads of the test or as a process of its own. Not here: what it does."""

import datetime as dt
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

from event_archive_tests.api_server.api import Api, Served
from event_archive_tests.api_server.clock import Clock
from event_archive_tests.api_server.events import START, Events
from event_archive_tests.api_server.server import serving
from event_archive_tests.api_server.switches import Switches


class ApiServer:
    """A running API.

    Attributes:
        url: what ``API_BASE_URL`` would hold.
        elsewhere_url: another host, for a redirect to lead to.
        key: what ``API_KEY`` would hold.
        switches: as they were last set.
    """

    def __init__(self, port: int, admin_port: int, key: str, switches: Switches) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.elsewhere_url = f"http://127.0.0.1:{admin_port}"
        self.key = key
        self.switches = switches
        self._admin_port = admin_port

    def set(self, **changes: Any) -> None:
        """Sets switches and leaves the others as they are; each count of :class:`Switches` begins anew."""
        kept = {name: getattr(self.switches, name) for name in self.switches.model_fields_set}
        self.switches = Switches(**(kept | changes))
        self._ask("switches", self.switches.model_dump_json())

    def add(self, texts: Iterable[str]) -> None:
        """Adds events as JSON texts; one whose id is known takes the place of that one."""
        self._ask("add", json.dumps(list(texts)))

    @property
    def events(self) -> dict[str, str]:
        """Each event's JSON by its id."""
        return dict(self._ask("events"))

    @property
    def requests(self) -> list[Served]:
        """The requests for events, in the order in which they came."""
        return self.wait_for_requests(0)

    def wait_for_requests(self, at_least: int) -> list[Served]:
        """As :attr:`requests`, once there are that many, or after a minute."""
        return [Served(**request) for request in self._ask(f"requests?at_least={at_least}")]

    @property
    def elsewhere(self) -> list[dict[str, Any]]:
        """What was asked of the other host: each ``path`` with its ``headers``."""
        return list(self._ask("elsewhere"))

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Nobody is connected, and connections are refused, until the context is left."""
        self._ask("shut")
        try:
            yield
        finally:
            self._ask("open")

    def _ask(self, path: str, body: str | None = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self._admin_port, timeout=120)
        try:
            connection.request("POST", f"/admin/{path}", body, {"Connection": "close"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def in_thread(events: Events, clock: Clock = time.time, **switches: Any) -> Iterator[ApiServer]:
    """An API in threads of this process, which starts at once and can share a clock with the test."""
    key = secrets.token_hex(16)
    set_to = Switches(**switches)
    with serving(Api(events, key, set_to, clock)) as server:
        yield ApiServer(server.port, server.admin_port, key, set_to)


@contextmanager
def in_process(
    count: int,
    *,
    start: dt.datetime = START,
    step_ms: int = 1000,
    rendered: bool = False,
    time_scale: float = 1,
    **switches: Any,
) -> Iterator[ApiServer]:
    """An API as a process of its own, which takes no CPU from the test's; it ends when the test's process does.

    Args:
        count: events made up.
        start: the time of the first.
        step_ms: between two.
        rendered: every full page of a thousand is written down before the first is served.
        time_scale: how many times as fast the API's clock runs.
        switches: to begin with.

    Raises:
        RuntimeError: it did not start.
    """
    key = secrets.token_hex(16)
    set_to = Switches(**switches)
    options = {
        "--events": str(count),
        "--start": start.isoformat(),
        "--step-ms": str(step_ms),
        "--time-scale": str(time_scale),
        "--key": key,
        "--switches": set_to.model_dump_json(),
    }
    command = [sys.executable, "-m", f"{__package__}", *(word for option in options.items() for word in option)]
    command += ["--rendered"] if rendered else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ports = process.stdout.readline().split()
            if not ports:
                raise RuntimeError(f"the API ended with {process.wait()}")
            yield ApiServer(int(ports[0]), int(ports[1]), key, set_to)
        finally:
            process.kill()

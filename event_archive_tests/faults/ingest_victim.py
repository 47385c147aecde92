"""A process with a source imported that forks children which take in all there is, and are killed on the way.

Started by ``test_ingest_api``, and used by ``log_victim``; takes a JSON object a line on standard input and answers
with the child's wait status.
The points where a child dies are put into functions from here: the product has no seam for it.
"""

import functools
import json
import os
import random
import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from event_archive.config.sources import ApiSettings
from event_archive.sources import landing
from event_archive.sources.http_api import fetching
from event_archive.sources.http_api.ingest import Ingestion
from event_archive.sources.http_api.positions import Positions


def before(function: Callable[..., Any], come: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        come()
        return function(*args, **kwargs)

    return wrapper


def after(function: Callable[..., Any], come: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        come()
        return result

    return wrapper


Point = tuple[object, str, Callable[[Callable[..., Any], Callable[[], None]], Callable[..., Any]]]


def die_at(point: Point, nth: int) -> None:
    """Makes this process kill itself when it comes to a point, before or after a function, for the nth time."""
    seen, lock = 0, threading.Lock()

    def come() -> None:
        nonlocal seen
        with lock:
            seen += 1
            if seen == nth:
                os.kill(os.getpid(), signal.SIGKILL)

    owner, name, wrap = point
    setattr(owner, name, wrap(getattr(owner, name), come))


POINTS: dict[str, Point] = {
    "request": (fetching.Fetcher, "_ask", before),
    "page": (fetching, "read_page", after),
    "copy in": (psycopg.Copy, "write", after),
    "merged": (landing, "_merge", after),
    "rejected": (landing, "_reject", after),
    "position": (Positions, "save", after),
    "before the commit": (psycopg.Connection, "commit", before),
    "after the commit": (psycopg.Connection, "commit", after),
}
"""Where a child can be made to die."""


def run(order: dict[str, Any]) -> int:
    """Takes in all there is; 0 where it went well."""
    os.environ.update(order["variables"])
    if order.get("point"):
        die_at(POINTS[order["point"]], order["nth"])
    totals = Ingestion(ApiSettings.load()).run()
    for failure in totals.failures:
        print(failure, file=sys.stderr)
    return 1 if totals.failures else 0


def carry_out(order: dict[str, Any], run: Callable[[dict[str, Any]], int]) -> list[int]:
    """Forks the children of an order, kills each at some instant where the order says so; their wait statuses."""
    children = []
    for _ in range(order.get("processes", 1)):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = run(order)
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    if order.get("most_seconds"):
        for child in children:
            watch = os.pidfd_open(child)
            select.select([watch], [], [], random.uniform(0, order["most_seconds"]))
            os.close(watch)
            os.kill(child, signal.SIGKILL)
    return [os.waitpid(child, 0)[1] for child in children]


def serve(run: Callable[[dict[str, Any]], int]) -> None:
    """Carries out orders until standard input ends."""
    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line), run)), flush=True)


if __name__ == "__main__":
    serve(run)

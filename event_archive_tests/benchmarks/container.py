"""``make bench-container``: a night in a container of the specification's size, by the kernel's own control groups.

The limits hold for ``event-archive run`` alone, as in its pod; PostgreSQL and the lake are elsewhere. Where control
groups cannot be made, the CPU that was measured is divided by the quota instead.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from event_archive_tests.benchmarks import server as servers
from event_archive_tests.benchmarks import sink_process
from event_archive_tests.benchmarks.data import DAY, Data
from event_archive_tests.benchmarks.measure import measured

CPUS = 0.3
MEMORY_BYTES = 512 * 1024**2
_GROUPS = Path("/sys/fs/cgroup")
_PERIOD_MICROSECONDS = 100_000
_MIB = 1024**2


@dataclass(frozen=True)
class Group:
    """A control group, or none.

    Attributes:
        folders: that a process is put into by writing its id into ``cgroup.procs``; empty without control groups.
        peak_file: the most memory that the group had, page cache included.
    """

    folders: tuple[Path, ...] = ()
    peak_file: Path | None = None

    def within(self, command: list[str]) -> list[str]:
        """The command, which puts itself into the group first."""
        if not self.folders:
            return command
        joins = " && ".join(f'echo $$ > "{folder}/cgroup.procs"' for folder in self.folders)
        return ["/bin/sh", "-c", f'{joins} && exec "$@"', "sh", *command]

    def peak_mib(self) -> str:
        """For the table."""
        return f"{int(self.peak_file.read_text()) / _MIB:.0f}" if self.peak_file else "?"


@contextmanager
def group() -> Iterator[Group]:
    """A new control group of the container's size; removed afterwards."""
    quota = int(CPUS * _PERIOD_MICROSECONDS)
    name = f"event-archive-bench-{os.getpid()}"
    with ExitStack() as stack:
        try:
            if (_GROUPS / "cgroup.controllers").exists():
                one = _made(_GROUPS / name, stack)
                (one / "cpu.max").write_text(f"{quota} {_PERIOD_MICROSECONDS}")
                (one / "memory.max").write_text(str(MEMORY_BYTES))
                yield Group((one,), one / "memory.peak")
                return
            cpu, memory = (_made(_GROUPS / kind / name, stack) for kind in ("cpu", "memory"))
            (cpu / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
            (cpu / "cpu.cfs_quota_us").write_text(str(quota))
            (memory / "memory.limit_in_bytes").write_text(str(MEMORY_BYTES))
        except OSError as error:
            print(f"no control groups here ({error.strerror}): wall times are CPU divided by {CPUS}", file=sys.stderr)
            yield Group()
            return
        yield Group((cpu, memory), memory / "memory.max_usage_in_bytes")


def _made(folder: Path, stack: ExitStack) -> Path:
    folder.mkdir()

    def remove() -> None:
        with suppress(OSError):
            folder.rmdir()

    stack.callback(remove)
    return folder


def main() -> None:
    """Measures a start, a night with nothing to do, and a night with one large day."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the day that is archived and purged")
    rows = parser.parse_args().rows
    night = [sys.executable, "-m", "event_archive.cli", "run"]
    print(f"Limits: {CPUS} CPU, {MEMORY_BYTES // _MIB} MiB. PostgreSQL and the sink have none.\n")
    print("| what | wall s | CPU s | peak RSS MiB | peak of the group MiB |\n| --- | --- | --- | --- | --- |")
    with servers.running() as server, sink_process.running(keep=True) as sink:
        database = Data("narrow", rows).make(server)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "PG"))} | {
            "PG_CONNECTION_STRING": server.dsn(database),
            "AZURE_STORAGE_CONNECTION_STRING": sink.connection_string,
            "LOG_FORMAT": "json",
        }
        for what, command in (
            ("`event-archive --help`", [*night[:-1], "--help"]),
            (f"a night with {rows:,} rows", [*night, DAY.isoformat()]),
            ("the same day again, nothing to do", [*night, DAY.isoformat()]),
        ):
            with group() as limited:
                cost = measured(limited.within(command), environment, server)
                wall = cost.wall_seconds if limited.folders else cost.cpu_seconds / CPUS
                rss = cost.peak_rss_bytes / _MIB
                print(
                    f"| {what} | {wall:.1f} | {cost.cpu_seconds:.1f} | {rss:.0f} | {limited.peak_mib()} |", flush=True
                )


if __name__ == "__main__":
    main()

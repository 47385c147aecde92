"""Fixtures of the fault suite, and the tally at its end."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO, Any

import pytest

from event_archive.lake.azure.container import AzureLake
from event_archive_tests.azurite import Azurite
from event_archive_tests.faults.tally import faults_survived
from event_archive_tests.fixtures.installation import clean_environment
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database, Server, new_database

ROOT = Path(__file__).parents[2]


@dataclass
class Zygote:
    """The process that forks victims, on one database and one container."""

    process: subprocess.Popen[str]
    pipeline: Pipeline
    variables: dict[str, str]
    orders: int = 0

    def run(self, day: date, **order: Any) -> int:
        """The wait status of a child that ran a day, and was perhaps killed."""
        stdin, stdout = _pipes(self.process)
        self.orders += 1
        stdin.write(json.dumps({"number": self.orders, "day": day.isoformat()} | order) + "\n")
        stdin.flush()
        for line in stdout:
            answer: dict[str, int] = json.loads(line)
            # An earlier one is that of a test which ran out of time.
            if answer["number"] == self.orders:
                return answer["status"]
        raise AssertionError("the process that forks victims has ended")


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


@pytest.fixture(scope="session")
def _session_database(server_18: Server) -> Iterator[Database]:
    yield from new_database(server_18)


@pytest.fixture(scope="session")
def zygote(_session_database: Database, azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """One database, one container and one Dagster instance for all kills: each takes a day of its own."""
    # In memory where there is such a folder: SQLite waits for the disk several times a run.
    with tempfile.TemporaryDirectory(
        prefix="ea-dagster", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as home:
        yield from _zygote(_session_database, azurite, Path(home))


def _zygote(database: Database, azurite: Azurite, home: Path) -> Iterator[Zygote]:
    (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    variables = {
        "PG_CONNECTION_STRING": database.dsn,
        "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
        "AZURE_STORAGE_CONTAINER": "kills",
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "event_archive_tests.faults.victim"]
    with (
        AzureLake.from_connection_string(azurite.connection_string, "kills") as lake,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(**variables)
        ) as process,
    ):
        yield Zygote(process, Pipeline(database, lake), variables)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share a worker, and with it what takes long to start; those that share nothing do not."""
    for item in items:
        if item.path.stem != "test_signals":
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands its tally to whoever prints it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["survived"] = dict(faults_survived)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Adds up what the workers survived."""
    # A node that crashed has no output.
    faults_survived.update(getattr(node, "workeroutput", {}).get("survived", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much was survived."""
    if faults_survived:
        terminalreporter.section("survived")
        for kind, count in sorted(faults_survived.items()):
            terminalreporter.line(f"{count:5} {kind}")
        terminalreporter.line(f"{sum(faults_survived.values()):5} in all")

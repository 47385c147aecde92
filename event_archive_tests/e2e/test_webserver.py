"""Dagster's own processes on the repository's files: a day re-materialized from the running webserver."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil
import pytest

from event_archive_tests.fixtures.installation import ASSETS, REPOSITORY, Installation, clean_environment
from event_archive_tests.fixtures.pipeline import DAY

KEY = DAY.isoformat()
START_SECONDS = 90
RUN_SECONDS = 90
POLL_SECONDS = 0.1

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_RUN = """
query Run($id: ID!) {
  runOrError(runId: $id) {
    ... on Run {
      status
      assetMaterializations {
        assetKey { path } partition metadataEntries { label ... on IntMetadataEntry { intValue } }
      }
    }
  }
}
"""
_LOADED = """
query Loaded {
  repositoriesOrError {
    __typename
    ... on RepositoryConnection { nodes { name location { name } schedules { name scheduleState { status } } } }
  }
}
"""


@dataclass
class Webserver:
    """A running ``dagster dev``."""

    address: str
    log: Path

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        data: dict[str, Any] = found["data"]
        return data

    def run(self, job: str, assets: tuple[str, ...]) -> dict[str, dict[str, int]]:
        """Launches a run of the day's partition as the UI does, waits for its end, and returns what it recorded."""
        selector = {
            "repositoryLocationName": "event_archive",
            "repositoryName": "__repository__",
            "pipelineName": job,
            "assetSelection": [{"path": [asset]} for asset in assets],
        }
        tags = [{"key": "dagster/partition", "value": KEY}]
        params = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
        launched = self.ask(_LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        until = time.monotonic() + RUN_SECONDS
        while time.monotonic() < until:
            run = self.ask(_RUN, id=launched["run"]["runId"])["runOrError"]
            if run["status"] in ("SUCCESS", "FAILURE", "CANCELED"):
                assert run["status"] == "SUCCESS", self.log.read_text()
                assert {found["partition"] for found in run["assetMaterializations"]} == {KEY}
                return {
                    found["assetKey"]["path"][0]: {
                        entry["label"]: entry["intValue"] for entry in found["metadataEntries"] if "intValue" in entry
                    }
                    for found in run["assetMaterializations"]
                }
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"the run did not end:\n{self.log.read_text()}")


@pytest.fixture
def webserver(azure_installation: Installation, tmp_path: Path) -> Iterator[Webserver]:
    """``dagster dev`` from the repository's root on the repository's files: webserver, daemon and code server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    log = tmp_path / "dagster.log"
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    environment = clean_environment(**azure_installation.variables, DAGSTER_HOME=str(home))
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        group = [psutil.Process(process.pid)]
        try:
            server = Webserver(f"http://127.0.0.1:{port}", log)
            _await_answer(server, process)
            group += group[0].children(recursive=True)
            yield server
            group = [group[0], *group[0].children(recursive=True)]
            # Not SIGINT: a shell that starts a test run in the background makes its processes ignore that one.
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
        finally:
            # Dagster leaves its code servers to notice by themselves, within a minute, that nobody calls any more.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(group, timeout=10)
    assert not alive


def _await_answer(server: Webserver, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, server.log.read_text()
        with suppress(URLError, ConnectionError), urlopen(f"{server.address}/server_info", timeout=5) as answer:
            assert answer.status == 200
            return
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"it did not start:\n{server.log.read_text()}")


def test_a_day_is_rematerialized_from_the_running_webserver(webserver: Webserver, azure_installation: Installation):
    (repository,) = webserver.ask(_LOADED)["repositoriesOrError"]["nodes"]
    assert repository["location"]["name"] == "event_archive"
    assert [(s["name"], s["scheduleState"]["status"]) for s in repository["schedules"]] == [
        ("archive_daily", "RUNNING")
    ]

    azure_installation.add(10)
    rows = azure_installation.everything()
    found = webserver.run("archive_job", ASSETS)
    assert set(found) == set(ASSETS)
    assert (found["archive_csv"]["rows_appended"], found["purged_events"]["deleted"]) == (10, 10)
    assert azure_installation.archived(DAY) == rows
    content = azure_installation.content()

    azure_installation.add(1, prefix="late")
    found = webserver.run("__ASSET_JOB", ("archive_csv",))
    assert (found["archive_csv"]["dagster/row_count"], found["archive_csv"]["rows_appended"]) == (11, 1)
    assert azure_installation.count() == 1
    assert azure_installation.content().startswith(content)

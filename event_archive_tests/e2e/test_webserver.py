"""Dagster's own processes on the repository's files: a day re-materialized from the running webserver."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

from event_archive_tests.fixtures.graphql import Webserver
from event_archive_tests.fixtures.installation import ASSETS, REPOSITORY, Installation, clean_environment
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.ports import free_port

pytestmark = pytest.mark.slow

KEY = DAY.isoformat()
START_SECONDS = 90
RUN_SECONDS = 90
POLL_SECONDS = 0.1

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
class Dev(Webserver):
    """A running ``dagster dev``."""

    log: Path

    def run(self, job: str, assets: tuple[str, ...]) -> dict[str, dict[str, int]]:
        """Launches a run of the day's partition, waits for its end, and returns what it recorded."""
        run_id = self.launch(job, assets, KEY)
        until = time.monotonic() + RUN_SECONDS
        while time.monotonic() < until:
            run = self.ask(_RUN, id=run_id)["runOrError"]
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
def webserver(azure_installation: Installation, tmp_path: Path) -> Iterator[Dev]:
    """``dagster dev`` from the repository's root on the repository's files: webserver, daemon and code server."""
    port = free_port()
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
            server = Dev(f"http://127.0.0.1:{port}", log)
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


def _await_answer(server: Dev, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, server.log.read_text()
        with suppress(URLError, ConnectionError), urlopen(f"{server.address}/server_info", timeout=5) as answer:
            assert answer.status == 200
            return
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"it did not start:\n{server.log.read_text()}")


def test_a_day_is_rematerialized_from_the_running_webserver(webserver: Dev, azure_installation: Installation):
    (repository,) = webserver.ask(_LOADED)["repositoriesOrError"]["nodes"]
    assert repository["location"]["name"] == "event_archive"
    assert {s["name"]: s["scheduleState"]["status"] for s in repository["schedules"]} == dict.fromkeys(
        ("archive_daily", "check_daily", "prune_weekly"), "RUNNING"
    )

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

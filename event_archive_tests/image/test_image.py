"""The Dockerfile's steps, done in a folder; then the container's commands, as a user who may write /tmp alone.

Slow, for it installs the runtime with pip as the image's build does: ``make image-steps``.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from event_archive_tests.azurite import Azurite
from event_archive_tests.deploy import chart
from event_archive_tests.deploy.manifests import ROOT, manifest, pod_of
from event_archive_tests.fixtures.installation import Finished, clean_environment
from event_archive_tests.fixtures.ports import free_port
from event_archive_tests.fixtures.postgres import AddEvents, Database
from event_archive_tests.image.dockerfile import Stage, build_context, files, parse, replay, stand_in

DAY = "2021-03-04"

# The first test waits for the build.
pytestmark = pytest.mark.timeout(1800)


@dataclass(frozen=True)
class Container:
    """The image, and a folder that its /tmp is."""

    stage: Stage
    tmp: Path

    def start(self, command: list[str], **variables: str) -> "subprocess.Popen[str]":
        """Starts a command as a container would: the image's environment, user and working directory."""
        environment = clean_environment(**self.stage.environment, **variables)
        environment |= {"HOME": str(self.tmp), "TMPDIR": str(self.tmp)}
        del environment["PYTHONPATH"]
        return subprocess.Popen(
            [*as_user(self.stage.user), *command],
            cwd=self.stage.path("."),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: list[str], **variables: str) -> Finished:
        with self.start(command, **variables) as process:
            stdout, stderr = process.communicate(timeout=120)
        return Finished(process.returncode, stdout, stderr)


def as_user(user: str) -> list[str]:
    """What makes a command another user's, who reads everything and owns nothing; nothing where we are not root."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return []
    uid, gid = user.split(":")
    reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *reading]


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="ea-image") as name:
        folder = Path(name)
        folder.chmod(0o755)
        build_context(ROOT, folder / "context")
        instructions = parse((ROOT / "Dockerfile").read_text())
        built = replay(instructions, folder / "context", folder, stand_in(instructions, folder / "python"))
        shutil.rmtree(folder / "stage-build")
        shutil.rmtree(folder / "context")
        _set_writable(built.root, writable=False)
        yield built
        _set_writable(built.root, writable=True)


def _set_writable(root: Path, *, writable: bool) -> None:
    """Takes everybody's right to write, or gives it back; for who is not root."""
    subprocess.run(["chmod", "-R", "u+w" if writable else "a-w", str(root)], check=True)


@pytest.fixture
def container(stage: Stage) -> Iterator[Container]:
    before = list(files(stage.root))
    with tempfile.TemporaryDirectory(prefix="ea-tmp") as tmp:
        Path(tmp).chmod(0o1777)
        yield Container(stage, Path(tmp))
    assert list(files(stage.root)) == before, "something was written outside /tmp"


def test_the_image_holds_the_runtime_and_nothing_that_builds_or_tests(stage: Stage):
    assert {path.name for path in stage.root.iterdir()} == {"opt"}
    assert {path.name for path in stage.path("/opt").iterdir()} == {"event-archive"}
    (packages,) = stage.path("/opt/event-archive/lib").glob("python3.*/site-packages")
    installed = {path.name for path in packages.iterdir()}
    assert "event_archive" in installed
    assert not {"pip", "setuptools", "hatchling", "pytest", "event_archive_tests", "dagster_k8s"} & installed
    assert list(packages.rglob("__pycache__")), "bytecode is compiled when the image is built"


def test_nobody_can_write_into_the_image(container: Container):
    done = container.run(["sh", "-c", "touch written"])
    assert done.code != 0
    assert "Permission denied" in done.said


def test_the_command_line_answers(container: Container):
    done = container.run(["event-archive", "--help"])
    assert done.code == 0, done.said
    assert "Usage" in done.stdout


@pytest.mark.parametrize("given", ["the image's own command", "the chart's arguments"])
def test_the_code_server_comes_up_and_the_health_check_says_so(container: Container, given: str):
    port = str(free_port())
    (server,) = pod_of(chart.code_server(chart.values_of()))["containers"]
    command = container.stage.command if given == "the image's own command" else server["args"]
    check = (
        container.stage.healthcheck
        if given == "the image's own command"
        else server["readinessProbe"]["exec"]["command"]
    )
    assert command.count("4000") == check.count("4000") == 1
    with container.start([word.replace("4000", port) for word in command]) as process:
        try:
            while container.run([word.replace("4000", port) for word in check]).code:
                assert process.poll() is None, process.communicate()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def test_a_check_of_a_port_without_a_server_fails(container: Container):
    check = [word.replace("4000", str(free_port())) for word in container.stage.healthcheck]
    assert container.run(check).code == 1


def test_the_cronjobs_arguments_archive_and_purge_a_day(
    container: Container, database: Database, add_events: AddEvents, azurite: Azurite
):
    add_events(DAY, 3)
    (job,) = pod_of(manifest("cronjob.yaml", "CronJob"))["containers"]
    variables = {
        "PG_CONNECTION_STRING": database.dsn,
        "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
        "AZURE_STORAGE_CONTAINER": "image",
    }
    done = container.run(job["args"], **variables)
    assert done.code == 0, done.said
    assert done.days[DAY]["deleted"] == 3
    assert database.execute('SELECT count(*) FROM "Event"') == [(0,)]


def test_a_run_pod_needs_no_writable_dagster_home_and_no_run_launcher(
    container: Container, database: Database, add_events: AddEvents, azurite: Azurite
):
    """The chart's dagster.yaml, mounted read-only; Dagster's records in PostgreSQL; no dagster-k8s in the image."""
    add_events(DAY, 3)
    values = chart.values_of()
    rendered = chart.dagster_yaml(values)
    for part in ("run_storage", "event_log_storage", "schedule_storage"):
        records = rendered[part]["config"]["postgres_db"]
        records |= {
            "hostname": "",
            "username": "postgres",
            "db_name": database.name,
            "params": {"host": str(database.server.socket_dir)},
        }
    # The logs' container is not at hand; nothing of it is read here.
    rendered["compute_logs"] = {
        "module": "dagster.core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
    with tempfile.TemporaryDirectory(prefix="ea-home") as name:
        home = Path(name)
        (home / "dagster.yaml").write_text(yaml.safe_dump(rendered))
        home.chmod(0o555)
        done = container.run(
            ["event-archive", "run"],
            DAGSTER_HOME=name,
            DAGSTER_PG_PASSWORD="unused",
            PG_CONNECTION_STRING=database.dsn,
            AZURE_STORAGE_CONNECTION_STRING=azurite.connection_string,
            AZURE_STORAGE_CONTAINER="image-run",
        )
        assert done.code == 0, done.said
        assert done.days[DAY]["deleted"] == 3
        assert [path.name for path in home.iterdir()] == ["dagster.yaml"]
        home.chmod(0o755)
    recorded = "SELECT DISTINCT asset_key FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION' ORDER BY 1"
    assert database.execute(recorded) == [('["aged_events"]',), ('["archive_csv"]',), ('["purged_events"]',)]

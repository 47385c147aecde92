"""Where a measurement takes place: the server, the lakes, a fresh database for each run. Not here: what is measured."""

import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from azure.storage.blob import ContainerClient

from event_archive.config.environment import InstanceSettings, Settings
from event_archive.config.sources import ApiSettings, LogsSettings
from event_archive_tests import azurite
from event_archive_tests.api_server.running import in_process
from event_archive_tests.benchmarks import server as servers
from event_archive_tests.benchmarks import sink_process
from event_archive_tests.benchmarks.catalogue import CONTENDERS, OURS, PSQL, RESTORED, Command, Job, Scene
from event_archive_tests.benchmarks.data import DAY, Data
from event_archive_tests.benchmarks.log_files import LogFiles
from event_archive_tests.benchmarks.measure import Cost, measured
from event_archive_tests.benchmarks.server import Server

LakeName = Literal["file", "folder", "sink", "keeping sink", "slow sink", "Azurite", "API", "S3"]
SLOW_SECONDS = 0.05

_DATABASE = "measured"
_REPOSITORY = Path(__file__).parents[2]
_NOT_OURS = ("DAGSTER_", "PG", "AZURE_", "AWS_", "COVERAGE_")
_CONTRACT = {
    name.upper()
    for settings in (Settings, InstanceSettings, ApiSettings, LogsSettings)
    for name in settings.model_fields
}

_LANDED = {
    "events": "SELECT count(data), count(DISTINCT id) FROM ingested_events",
    "array": "SELECT count(raw_data), count(DISTINCT id) FROM logs",
    "lines": "SELECT count(raw_data), count(DISTINCT id) FROM logs",
    "files": "SELECT count(*), count(DISTINCT key) FROM processed_files",
}
"""How many there are where they land, and how many different ones."""


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        contender: who.
        job: does what.
        lake: where to or from; ``file`` is a file that needs no lake, ``folder`` a folder of this machine as the lake;
            ``API`` and ``S3`` are no lakes, but where events and log files are.
        data: with which rows.
        command: where it is not the contender's own for the job.
        prepare: done to the database first.
        label: what is done, where the job's name does not say it.
    """

    contender: str
    job: Job
    lake: LakeName
    data: Data
    command: Command | None = None
    prepare: str | None = None
    label: str = ""


@dataclass
class Stage:
    """All that runs while measurements are taken."""

    server: Server
    folder: Path
    _open: ExitStack
    _lakes: dict[LakeName, str] = field(default_factory=dict)
    _files: set[str] = field(default_factory=set)
    _log_files: LogFiles = field(init=False)

    def __post_init__(self) -> None:
        """Nothing runs for log files yet."""
        self._log_files = LogFiles(self.folder, self._open)

    def measure(self, case: Case) -> Cost:
        """Runs a case once, on a fresh copy of its data, and sees that it did its job.

        Raises:
            RuntimeError: it did not.
        """
        command = case.command or CONTENDERS[case.contender][case.job]
        needs_file = case.job in ("purge", "restore", "verify")
        if needs_file:
            self._archived(case)
        self.server.clone(case.data.make(self.server), _DATABASE)
        if case.job == "restore":
            self.server.execute(_DATABASE, f'CREATE TABLE {RESTORED} (LIKE "Event" INCLUDING ALL)')
        if case.prepare:
            self.server.execute(_DATABASE, case.prepare)
        kept = case.data.name if needs_file else None
        with self.place(case, kept) as variables:
            cost = measured(command(self._scene(case)), self.environment() | variables, self.server)
        self._check(case)
        return cost

    def environment(self) -> dict[str, str]:
        """What every contender is told, besides its lake."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in _CONTRACT and not name.startswith(_NOT_OURS)
        }
        return inherited | {
            "PYTHONPATH": str(_REPOSITORY),
            "LOG_FORMAT": "json",
            "PG_CONNECTION_STRING": self.server.dsn(_DATABASE),
            "PGHOST": str(self.server.socket_dir),
            "PGDATABASE": _DATABASE,
        }

    def place(self, case: Case, kept: str | None) -> AbstractContextManager[dict[str, str]]:
        """The variables of where a case's rows go, or come from."""
        if case.lake == "API":
            return self.api(case.data.rows)
        if case.lake == "S3":
            return nullcontext(self._log_files.place(case.data))
        return self.container(case.lake, kept=kept)

    @contextmanager
    def container(self, lake: LakeName, *, kept: str | None = None) -> Iterator[dict[str, str]]:
        """The variables of a container: an empty one that is removed afterwards, or one that holds a day's file."""
        if lake == "file":
            yield {}
            return
        if lake == "folder":
            with TemporaryDirectory(dir=self.folder) as folder:
                yield {"ARCHIVE_LOCAL_PATH": folder}
            return
        connection_string = self._connection_string(lake)
        name = kept.replace("_", "-") if kept else f"run-{uuid.uuid4().hex}"
        variables = {"AZURE_STORAGE_CONNECTION_STRING": connection_string, "AZURE_STORAGE_CONTAINER": name}
        with ContainerClient.from_connection_string(connection_string, name) as container:
            if not (kept and container.exists()):
                container.create_container()
            yield variables
            if not kept:
                container.delete_container()

    @contextmanager
    def api(self, events: int) -> Iterator[dict[str, str]]:
        """The variables of an API in a process of its own, which takes next to nothing to serve its events."""
        with in_process(events, rendered=True) as api:
            yield {"API_BASE_URL": api.url, "API_KEY": api.key}

    def _archived(self, case: Case) -> None:
        """Sees that the day's file is where a job that begins with one looks for it."""
        at = f"{case.data.name} in {case.lake}"
        if at in self._files:
            return
        self.server.clone(case.data.make(self.server), _DATABASE)
        contender = PSQL if case.lake == "file" else OURS
        with self.container(case.lake, kept=case.data.name) as variables:
            command = CONTENDERS[contender]["export"](self._scene(case))
            measured(command, self.environment() | variables, self.server)
        self._files.add(at)

    def _scene(self, case: Case) -> Scene:
        dsn = self.server.dsn(_DATABASE)
        return Scene(self.server.bin_dir / "psql", dsn, self.folder / f"{case.data.name}.csv")

    def _check(self, case: Case) -> None:
        if case.job == "ingest":
            ((landed, different),) = self.server.execute(_DATABASE, _LANDED[case.data.kind])
            if not landed == different == case.data.rows:
                raise RuntimeError(f"{case}: {landed} events of {different} ids landed, not {case.data.rows}")
            return
        count = f"SELECT count(*) FROM {{}} WHERE created_at::date {'>=' if case.data.days > 1 else '='} '{DAY}'"
        ((left,),) = self.server.execute(_DATABASE, count.format('"Event"'))
        wanted = 0 if case.job in ("purge", "both") else case.data.rows
        if left != wanted:
            raise RuntimeError(f"{case}: {left} rows are in the table, not {wanted}")
        if case.job == "restore":
            ((restored,),) = self.server.execute(_DATABASE, count.format(RESTORED))
            if restored != case.data.rows:
                raise RuntimeError(f"{case}: {restored} rows were restored, not {case.data.rows}")

    def _connection_string(self, lake: LakeName) -> str:
        if lake not in self._lakes:
            if lake == "Azurite":
                service = self._open.enter_context(azurite.running())
                self._lakes[lake] = service.connection_string
            else:
                delay = SLOW_SECONDS if lake == "slow sink" else 0
                sink = sink_process.running(keep=lake == "keeping sink", delay_seconds=delay)
                self._lakes[lake] = self._open.enter_context(sink).connection_string
        return self._lakes[lake]


@contextmanager
def opened() -> Iterator[Stage]:
    """A stage, with all that it starts ended when the context is left."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="ea-bench")))
        yield Stage(stack.enter_context(servers.running()), folder, stack)

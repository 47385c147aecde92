"""Who is measured: for each contender, the command that does each job. Not here: what it costs.

A command is a process of its own, told where to work by the environment (see ``Stage``) and by its arguments.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from event_archive_tests.azurite import node
from event_archive_tests.benchmarks import contenders
from event_archive_tests.benchmarks.data import DAY

Job = Literal["export", "purge", "both", "restore", "verify", "ingest", "nothing"]
"""``nothing`` leaves every row where it is: starting, listing days, evaluating the schedule."""

NODE_FOLDER = Path(__file__).parent / "contenders" / "node"
RESTORED = '"Event_restored"'
_WINDOW = f"created_at >= '{DAY}' AND created_at < '{DAY + timedelta(days=1)}'"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a command may name in its arguments; all else it is told by the environment.

    Attributes:
        psql: the client's program.
        dsn: the database.
        file: the day's CSV: where an export that needs no lake writes it, and where a restore finds it.
    """

    psql: Path
    dsn: str
    file: Path


Command = Callable[[Scene], list[str]]


def _psql(*commands: str) -> Command:
    def command(scene: Scene) -> list[str]:
        options = [option for text in commands for option in ("-c", text.replace("FILE", f"'{scene.file}'"))]
        return [str(scene.psql), "-X", "-q", "-v", "ON_ERROR_STOP=1", *options, scene.dsn]

    return command


def cli(*arguments: str) -> Command:
    """This project's command line."""
    return lambda _: [str(Path(sys.executable).parent / "event-archive"), *arguments]


def module(name: str, *arguments: str) -> Command:
    """A program of the folder ``contenders``."""
    return lambda _: [sys.executable, "-m", f"{contenders.__name__}.{name}", *arguments]


def _node(job: Job) -> Command:
    return lambda _: [str(node()), str(NODE_FOLDER / "archive.mjs"), job, str(DAY)]


_COPY_OUT = f'\\copy (SELECT * FROM "Event" WHERE {_WINDOW}) TO FILE (FORMAT csv, HEADER)'
_DELETE = f'DELETE FROM "Event" WHERE {_WINDOW}'

OURS = "event-archive"
PSQL = "psql \\copy"
PYTHON = "SQLAlchemy + csv"
NODE = "Node: pg + fast-csv"
PANDAS = "pandas"
BARE = "bare requests and SQL"
DLT = "dlt: rest_api"
REQUESTS = "requests + executemany"
DLT_FILES = "dlt: filesystem, from a folder"
BOTO3 = "boto3 + json + executemany"

CONTENDERS: Mapping[str, Mapping[Job, Command]] = {
    OURS: {
        "export": module("verbs", "archive", str(DAY)),
        "purge": module("verbs", "purge", str(DAY)),
        "both": cli("run", str(DAY)),
        "restore": cli("restore", str(DAY)),
        "verify": cli("verify", str(DAY)),
    },
    PSQL: {
        "export": _psql(_COPY_OUT),
        "purge": _psql(_DELETE),
        "both": _psql(_COPY_OUT, _DELETE),
        "restore": _psql(f"\\copy {RESTORED} FROM FILE (FORMAT csv, HEADER)"),
    },
    PYTHON: {job: module("plain_python", job, str(DAY)) for job in ("export", "both")},
    NODE: {job: _node(job) for job in ("export", "both")},
    PANDAS: {job: module("pandas_chunks", job, str(DAY)) for job in ("export", "both")},
}

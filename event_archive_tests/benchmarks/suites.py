"""What is measured: the cases of each section. Not here: how, and what the figures should be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from event_archive_tests.benchmarks.catalogue import (
    BARE,
    BOTO3,
    CONTENDERS,
    DLT,
    DLT_FILES,
    IOREDIS,
    NODE,
    OURS,
    PANDAS,
    PSQL,
    PYTHON,
    REDIS_PY,
    REQUESTS,
    cli,
    module,
)
from event_archive_tests.benchmarks.data import DAY, Data
from event_archive_tests.benchmarks.stage import Case
from event_archive_tests.benchmarks.streaming import RATE

OF_A_STREAM = ("consume", "follow")
"""Jobs that need one."""

SCHEDULE_DAYS = 1000
_ROWS_A_SMALL_DAY = 10


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        rows: that the contenders move.
        wide_rows: of 10 KB.
        scale: rows of one day, from few to many.
        days: small days in one run.
        schedule_rows: in the table that the schedule looks at.
        events: of an API, that this project takes in.
        compared_events: of an API, that every contender takes in.
        positions: of a stream, that this project consumes.
        compared_positions: of a stream, that every contender consumes.
        seconds: of a stream that brings a position a millisecond.
        entries: of a log file, which are some 600 bytes each.
        files: small log files that are listed.
    """

    rows: int = 1_000_000
    wide_rows: int = 20_000
    scale: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    days: int = 365
    schedule_rows: int = 2_000_000
    events: int = 1_000_000
    compared_events: int = 100_000
    positions: int = 1_000_000
    compared_positions: int = 200_000
    seconds: int = 30
    entries: int = 330_000
    files: int = 20_000

    @property
    def narrow(self) -> Data:
        """What the contenders are measured with."""
        return Data("narrow", self.rows)


ONE_ROW = Data("narrow", 1)
"""What is left of a run is its process's start."""


def _contenders(sizes: Sizes) -> list[Case]:
    data = sizes.narrow
    return [
        Case(PSQL, "export", "file", data),
        Case(OURS, "export", "sink", data),
        Case(OURS, "export", "slow sink", data),
        *(Case(contender, "export", "sink", data) for contender in (PYTHON, NODE, PANDAS)),
        Case(PSQL, "both", "file", data),
        *(Case(contender, "both", "keeping sink", data) for contender in (OURS, NODE)),
        Case(OURS, "both", "folder", data),
        *(Case(contender, "both", "Azurite", data) for contender in (OURS, PYTHON, NODE, PANDAS)),
        Case(PSQL, "purge", "file", data),
        Case(OURS, "purge", "keeping sink", data),
        Case(PSQL, "restore", "file", data),
        Case(OURS, "restore", "keeping sink", data),
        Case(OURS, "verify", "keeping sink", data),
    ]


def _start(sizes: Sizes) -> list[Case]:
    return [
        Case(OURS, "nothing", "file", ONE_ROW, cli("--help"), label="--help"),
        Case(OURS, "nothing", "keeping sink", ONE_ROW, cli("days"), label="days"),
        *(
            Case(OURS, job, "sink" if job == "export" else "keeping sink", ONE_ROW)
            for job in CONTENDERS[OURS]
            if job not in OF_A_STREAM
        ),
    ]


def _tables(sizes: Sizes) -> list[Case]:
    return [
        case
        for data in (Data("wide", sizes.wide_rows), Data("bloated", sizes.rows // 4))
        for case in (
            Case(PSQL, "export", "file", data),
            Case(OURS, "export", "sink", data),
            Case(PSQL, "both", "file", data),
            Case(OURS, "both", "keeping sink", data),
        )
    ]


def _scale(sizes: Sizes) -> list[Case]:
    return [
        case
        for rows in sizes.scale
        for case in (
            Case(PSQL, "both", "file", Data("narrow", rows)),
            Case(OURS, "both", "keeping sink", Data("narrow", rows)),
        )
    ]


def _days(sizes: Sizes) -> list[Case]:
    return [
        case
        for days in (1, sizes.days)
        for data in (Data("narrow", days * _ROWS_A_SMALL_DAY, days),)
        for case in (
            Case(OURS, "both", "keeping sink", data, cli("run")),
            Case(BARE, "both", "keeping sink", data, module("bare_days", str(DAY), str(days))),
        )
    ]


def _schedule(sizes: Sizes) -> list[Case]:
    data, to_do = Data("thin", sizes.schedule_rows, SCHEDULE_DAYS), module("verbs", "to_do")
    without = 'DROP INDEX "Event_created_at_idx"'
    return [
        Case(OURS, "nothing", "keeping sink", data, to_do, label="with an index"),
        Case(OURS, "nothing", "keeping sink", data, to_do, prepare=without, label="without an index"),
    ]


def _ingest_api(sizes: Sizes) -> list[Case]:
    compared = Data("events", sizes.compared_events)
    ours = cli("ingest", "api")
    cases = [
        Case(OURS, "ingest", "API", Data("events", sizes.events), ours),
        Case(OURS, "ingest", "API", compared, ours),
        Case(REQUESTS, "ingest", "API", compared, module("requests_executemany")),
    ]
    # Among what the benchmarks alone install, so that the tests run without it.
    return cases + [Case(DLT, "ingest", "API", compared, module("dlt_rest_api"))] * bool(find_spec("dlt"))


def _ingest_stream(sizes: Sizes) -> list[Case]:
    everyone = (OURS, REDIS_PY, IOREDIS)
    return [
        Case(OURS, "consume", "stream", Data("positions", sizes.positions)),
        *(Case(of, "consume", "stream", Data("positions", sizes.compared_positions)) for of in everyone),
        *(Case(of, "follow", "stream", Data("positions", sizes.seconds * RATE)) for of in everyone),
    ]


def _ingest_logs(sizes: Sizes) -> list[Case]:
    ours = cli("ingest", "logs")
    cases = [Case(OURS, "ingest", "S3", Data("lines", 1), ours)]
    for data in (Data("array", sizes.entries), Data("lines", sizes.entries)):
        cases += [
            Case(OURS, "ingest", "S3", data, ours),
            Case(BOTO3, "ingest", "S3", data, module("boto3_executemany")),
            *[Case(DLT_FILES, "ingest", "S3", data, module("dlt_filesystem"))] * bool(find_spec("dlt")),
        ]
    return [*cases, Case(OURS, "ingest", "S3", Data("files", sizes.files), cli("ingest", "logs", "--limit", "20"))]


SECTIONS: Mapping[str, Callable[[Sizes], list[Case]]] = {
    "contenders": _contenders,
    "start": _start,
    "tables": _tables,
    "scale": _scale,
    "days": _days,
    "schedule": _schedule,
    "ingest-api": _ingest_api,
    "ingest-stream": _ingest_stream,
    "ingest-logs": _ingest_logs,
}

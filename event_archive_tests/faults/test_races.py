"""Many hands on one day at once: other runs, the application that writes, a replica behind, somebody in the lake."""

import multiprocessing
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg.types.json import Jsonb

from event_archive.errors import FileChangedError, IntegrityError
from event_archive.lake.local.folder import LocalLake
from event_archive.lake.protocol import Lake, StoredFile, Upload
from event_archive.postgres.session import Postgres
from event_archive_tests.azurite import Azurite
from event_archive_tests.faults.rounds import ORDERLY, run_rounds
from event_archive_tests.faults.tally import survived
from event_archive_tests.faults.union import (
    assert_good,
    assert_nothing_lost,
    assert_one_run_puts_it_right,
    by_key,
    in_file,
    in_table,
)
from event_archive_tests.faults.wire import alone
from event_archive_tests.fixtures.installation import Installation, clean_environment
from event_archive_tests.fixtures.lakes import remove
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Server

ROWS = 600
NEXT_DAY = DAY + timedelta(days=1)
PROCESS_SECONDS = 90


# Runs beside runs


@dataclass
class Crowd:
    """Processes that archive and purge at once."""

    pipeline: Pipeline
    where: dict[str, str]
    folder: Path

    def run(self, processes: int, meanwhile: Callable[[], None], *, days: list[date], most: int = 300) -> Counter[str]:
        """Lets them run from one moment on, until ``meanwhile`` is done and each has gone round once more."""
        arguments = (self.pipeline.database.dsn, self.where, self.pipeline.dataset, days, self.folder, most)
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = [pool.submit(run_rounds, *arguments) for _ in range(processes)]
            try:
                until = time.monotonic() + PROCESS_SECONDS
                while len(list(self.folder.glob("ready-*"))) < processes:
                    assert time.monotonic() < until, "not all processes start"
                    time.sleep(0.02)
                (self.folder / "starts").touch()
                meanwhile()
            finally:
                (self.folder / "ends").touch()
                (self.folder / "starts").touch()
            ended = sum((future.result(PROCESS_SECONDS) for future in futures), Counter[str]())
        assert set(ended) <= ORDERLY, ended
        assert ended["purged"]
        return ended


@pytest.fixture(params=["local", "azure"])
def crowd(request: pytest.FixtureRequest, tmp_path: Path, azurite: Azurite, container: str) -> Crowd:
    lake = request.getfixturevalue(f"{request.param}_lake")
    where = {"connection_string": azurite.connection_string, "container": container}
    if isinstance(lake, LocalLake):
        where = {"root": str(lake._root)}
    folder = tmp_path / "crowd"
    folder.mkdir()
    return Crowd(Pipeline(request.getfixturevalue("database"), lake), where, folder)


@pytest.mark.parametrize("processes", [2, 6])
def test_runs_of_one_day_at_once_write_and_delete_each_row_once(crowd: Crowd, processes: int):
    pipeline = crowd.pipeline
    pipeline.add(ROWS)
    before = in_table(pipeline)

    def late_rows() -> None:
        for n in range(12):
            with psycopg.connect(pipeline.database.dsn) as connection:
                connection.execute("SET TimeZone TO 'UTC'; SET DateStyle TO 'ISO'")
                cursor = connection.execute(
                    'INSERT INTO "Event" (event_id, event_type, created_at, payload) '
                    "SELECT format('late %s %s', %s::int, n), 'late', %s::timestamp + n * interval '1 s', '{}' "
                    "FROM generate_series(1, 20) AS n "
                    "RETURNING id::text, event_id, event_type, created_at::text, processed_at::text, payload".replace(
                        "'late %s %s'", "'late %%s %%s'"
                    ),
                    [n, DAY],
                )
                before.extend(cursor.fetchall())
            time.sleep(0.15)

    ended = crowd.run(processes, late_rows, days=[DAY])
    assert_one_run_puts_it_right(pipeline, before)
    for _ in range(ended.total()):
        survived(f"races: {processes} runs of one day at once")


@pytest.mark.parametrize("processes", [2, 6])
def test_command_lines_of_one_day_at_once_write_and_delete_each_row_once(
    azure_installation: Installation, home: Path, processes: int
):
    """Two share Dagster's records, six have none: then each gate knows its own run alone."""
    azure_installation.add(ROWS)
    before = in_table(azure_installation)
    variables = azure_installation.variables | ({"DAGSTER_HOME": str(home)} if processes == 2 else {})
    runs = [started_run(variables) for _ in range(processes)]
    codes = [finished_run(run) for run in runs]
    assert 0 in codes
    assert set(codes) <= {0, 1}
    assert_nothing_lost(azure_installation, before)
    assert azure_installation.cli("run", DAY.isoformat()).code == 0
    assert_one_run_puts_it_right(azure_installation, before)
    survived(f"races: {processes} command lines of one day at once")


def test_a_command_line_beside_a_run_of_dagster_writes_and_deletes_each_row_once(
    azure_installation: Installation, instance: dg.DagsterInstance, home: Path
):
    azure_installation.add(ROWS)
    before = in_table(azure_installation)
    run = started_run(azure_installation.variables | {"DAGSTER_HOME": str(home)})
    try:
        while run.poll() is None:
            azure_installation.materialize(instance, DAY.isoformat())
            assert_nothing_lost(azure_installation, before)
    finally:
        code = finished_run(run)
    assert code in (0, 1)
    assert azure_installation.materialize(instance, DAY.isoformat()).success
    assert_one_run_puts_it_right(azure_installation, before)
    survived("races: a command line beside runs of Dagster")


def started_run(variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "event_archive.cli", "run", DAY.isoformat()],
        env=clean_environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def finished_run(run: "subprocess.Popen[bytes]") -> int:
    try:
        return run.wait(PROCESS_SECONDS)
    finally:
        run.kill()
        run.wait()


# Runs beside the application


@dataclass
class Writer:
    """The application: inserts, updates, moves, deletes and inserts again under keys that it has used before.

    Attributes:
        kept: the last version that it wrote of each key which it did not itself delete after that.
    """

    dsn: str
    random: random.Random
    kept: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)

    _RETURNING = " RETURNING id::text, event_id, event_type, created_at::text, processed_at::text, payload"
    _KEYS = 40
    _LAST_KEY = 41

    @property
    def has_done_all(self) -> bool:
        """Whether each kind of change met a row several times: a purge often leaves none to change."""
        return all(self.done[kind] > 3 for kind in ("insert", "update", "back", "move", "delete"))

    def write(self, statements: int, pause_seconds: float) -> None:
        """Writes so often, and then until it has done all; ten times as often at most."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("SET TimeZone TO 'UTC'; SET DateStyle TO 'ISO'")
            for version in range(10 * statements):
                if version >= statements and self.has_done_all:
                    return
                self._one(connection, version)
                time.sleep(pause_seconds)

    def leave_one(self, day: date) -> None:
        """Writes a row of a day to which it may have moved none that stayed."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute("SET TimeZone TO 'UTC'; SET DateStyle TO 'ISO'")
            row = connection.execute(
                'INSERT INTO "Event" (id, event_id, event_type, created_at, payload) VALUES (%s, %s, %s, %s, %s)'
                + self._RETURNING,
                [self._LAST_KEY, "last", "t", day, Jsonb({})],
            ).fetchone()
        assert row
        self.kept[self._LAST_KEY] = row

    def _one(self, connection: psycopg.Connection[tuple[Any, ...]], version: int) -> None:
        key = self.random.randint(1, self._KEYS)
        kind = self.random.choice(["insert", "insert", "update", "update", "back", "move", "delete"])
        text = self.random.choice(['a "quoted", one', "two\nlines", "", "ü", "\\N", "\\."])
        if kind == "insert":
            cursor = connection.execute(
                'INSERT INTO "Event" (id, event_id, event_type, created_at, payload) VALUES (%s, %s, %s, %s, %s) '
                "ON CONFLICT (id) DO NOTHING" + self._RETURNING,
                [key, f"key {key}", text, DAY, Jsonb({"version": version})],
            )
        elif kind == "update":
            cursor = connection.execute(
                'UPDATE "Event" SET event_type = %s, payload = %s WHERE id = %s' + self._RETURNING,
                [text, Jsonb({"version": version}), key],
            )
        elif kind == "back":
            # To a form that it may have had before: what A-to-B-to-A means.
            cursor = connection.execute(
                "UPDATE \"Event\" SET event_type = 'A', payload = '{}', processed_at = NULL WHERE id = %s"
                + self._RETURNING,
                [key],
            )
        elif kind == "move":
            cursor = connection.execute(
                'UPDATE "Event" SET created_at = %s WHERE id = %s' + self._RETURNING,
                [self.random.choice([DAY, NEXT_DAY]), key],
            )
        else:
            cursor = connection.execute('DELETE FROM "Event" WHERE id = %s' + self._RETURNING, [key])
        row = cursor.fetchone()
        if row is None:
            return
        self.done[kind] += 1
        if kind == "delete":
            self.kept.pop(key, None)
        else:
            self.kept[key] = row


@pytest.mark.parametrize("processes", [1, 3])
def test_rows_that_change_while_they_are_archived_and_purged_are_never_lost(crowd: Crowd, processes: int):
    """What the writer left is, in its last form, the current row of its key: in the table or in a file."""
    pipeline = crowd.pipeline
    writer = Writer(pipeline.database.dsn, random.Random(processes))
    ended = crowd.run(processes, lambda: writer.write(500, 0.004), days=[DAY, NEXT_DAY])
    assert writer.has_done_all, writer.done
    writer.leave_one(NEXT_DAY)
    alone(pipeline.database.server, pipeline.database.name)
    for turn in ("before", "after"):
        files = [by_key(in_file(pipeline, day)) for day in (DAY, NEXT_DAY)]
        table = by_key(in_table(pipeline, DAY) + in_table(pipeline, NEXT_DAY))
        for key, row in writer.kept.items():
            places = [table] if str(key) in table else files
            assert row in [place.get(str(key)) for place in places], (turn, key)
        if turn == "before":
            pipeline.run(DAY)
            pipeline.run(NEXT_DAY)
    assert pipeline.count() == 0
    for day in (DAY, NEXT_DAY):
        assert_good(pipeline, day)
    for _ in range(writer.done.total()):
        survived("races: a row written while its day is archived and purged")
    for _ in range(ended.total()):
        survived("races: runs while the day is written to")


# A replica behind


def test_an_export_from_a_stale_replica_deletes_nothing_that_it_did_not_see(pipeline: Pipeline, standby: Server):
    """Replay is paused: since then rows came, changed, went, and came again under their keys."""
    pipeline.add(ROWS)
    with psycopg.connect(standby.dsn(pipeline.database.name), autocommit=True) as replica:
        until = time.monotonic() + 20
        while replica.execute('SELECT count(*) FROM "Event"').fetchone() != (ROWS,):
            assert time.monotonic() < until, "the standby does not follow"
            time.sleep(0.05)
        assert replica.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        replica.execute("SELECT pg_wal_replay_pause()")
        while replica.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() != ("paused",):
            assert time.monotonic() < until, "replay does not pause"
            time.sleep(0.05)

        pipeline.database.execute(
            """
            UPDATE "Event" SET payload = '{"changed": true}' WHERE id % 10 = 1;
            DELETE FROM "Event" WHERE id % 10 = 2;
            INSERT INTO "Event" (id, event_id, event_type, created_at, payload)
            SELECT n, 'again ' || n, 'again', '2024-03-01 12:00', '{}'
            FROM generate_series(12, 600, 20) AS n
            """
        )
        pipeline.add(25, prefix="late")
        before = in_table(pipeline)

        export = Postgres(standby.dsn(pipeline.database.name))
        assert pipeline.archive(export_postgres=export).rows == ROWS
        purged = pipeline.purge()
        same = sum(1 for n in range(1, ROWS + 1) if n % 10 not in (1, 2))
        assert (purged.deleted, purged.left) == (same, len(before) - same)
        assert_union(pipeline, before)
        # The next night: an append reads the primary, however stale the replica still is.
        pipeline.archive(export_postgres=export)
        assert (pipeline.purge().deleted, pipeline.count()) == (len(before) - same, 0)
    assert_union(pipeline, before)
    assert_good(pipeline)
    survived("races: an export from a stale replica")


def assert_union(pipeline: Pipeline, before: list[tuple[Any, ...]]) -> None:
    """Each row in its last form. The file may hold more: rows that the replica still had."""
    union = by_key(in_file(pipeline)) | by_key(in_table(pipeline))
    assert {row[0]: union[row[0]] for row in before} == by_key(before)


# Somebody in the lake


@dataclass
class Meddled:
    """A lake in which something happens to the file at one moment of a purge: a ``Lake``.

    Attributes:
        lake: the true one.
        meddle: what happens, once.
        moment: "stat 1" (after the first stat), "read 1" (with the first block), "end 1" (after the last block), ...
    """

    lake: Lake
    meddle: Callable[[], None]
    moment: str
    seen: Counter[str] = field(default_factory=Counter)

    def url(self, path: str) -> str:
        return self.lake.url(path)

    def list(self, folder: str) -> Iterator[StoredFile]:
        return self.lake.list(folder)

    def stat(self, path: str) -> StoredFile | None:
        file = self.lake.stat(path)
        self._now("stat")
        return file

    def appendable(self, file: StoredFile) -> bool:
        return self.lake.appendable(file)

    def head(self, file: StoredFile, size_bytes: int) -> bytes:
        return self.lake.head(file, size_bytes)

    @contextmanager
    def read(self, file: StoredFile) -> Iterator[Iterator[bytes]]:
        def blocks() -> Iterator[bytes]:
            for block in content:
                self._now("read")
                yield block
            self._now("end")

        with self.lake.read(file) as content:
            yield blocks()

    def write(self, path: str, *, replaces: StoredFile | None, append: bool = False) -> AbstractContextManager[Upload]:
        return self.lake.write(path, replaces=replaces, append=append)

    def _now(self, what: str) -> None:
        self.seen[what] += 1
        if f"{what} {self.seen[what]}" == self.moment:
            self.meddle()


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "replaced by the same": lambda content: content,
    "replaced": lambda content: content.replace(b"order.created", b"order.deleted"),
    "truncated": lambda content: content[: len(content) // 2],
    "edited in one byte": lambda content: content[:-3] + b"x" + content[-2:],
    "deleted": lambda _content: None,
}


@pytest.mark.parametrize("moment", ["stat 1", "read 1", "end 1", "during the DELETE"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_changes_under_a_purge_deletes_nothing(
    database: Any, lake: Lake, container: str, azurite: Azurite, damage: str, moment: str
):
    """With the manifest that it had. A last look at the file follows the DELETE: from there on it is the commit's."""
    pipeline = Pipeline(database, lake)
    pipeline.add(ROWS)
    before = in_table(pipeline)
    archived = pipeline.archive()
    content = pipeline.content()
    file = lake.stat(archived.path)
    assert file is not None

    def meddle() -> None:
        changed = DAMAGES[damage](content)
        if changed is not None:
            pipeline.put(changed, metadata=dict(file.metadata))
        else:
            remove(lake, archived.path)

    during_delete = moment == "during the DELETE"
    meddled = Meddled(lake, meddle, "none" if during_delete else moment)
    purge = Pipeline(database, meddled, records=pipeline.records).purge
    if during_delete:
        with psycopg.connect(database.dsn) as other:
            # The DELETE waits for this row, and the file is changed meanwhile.
            other.execute('SELECT FROM "Event" WHERE id = 7 FOR UPDATE')

            def meddle_and_let_go() -> None:
                meddle()
                other.rollback()

            meddler = threading.Timer(0.4, meddle_and_let_go)
            meddler.start()
            with pytest.raises((IntegrityError, FileChangedError)):
                purge()
            meddler.join()
    else:
        with pytest.raises((IntegrityError, FileChangedError)):
            purge()
    assert in_table(pipeline) == before
    pipeline.put(content, metadata=dict(file.metadata))
    assert_one_run_puts_it_right(pipeline, before)
    survived("races: the file changed under a purge")

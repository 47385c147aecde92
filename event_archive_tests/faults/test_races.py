"""Many hands on one day at once: other runs, and the application that writes."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg.types.json import Jsonb

from event_archive.lake.local.folder import LocalLake
from event_archive_tests.azurite import Azurite
from event_archive_tests.faults.crowds import PROCESS_SECONDS, ROWS, Crowd
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
from event_archive_tests.fixtures.pipeline import DAY, Pipeline

NEXT_DAY = DAY + timedelta(days=1)


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

"""Partitions dropped in place of their rows, raced by writers and DDL; no row is ever lost."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.manifest import Hashes
from event_archive.errors import EventArchiveError
from event_archive.lake.protocol import Lake
from event_archive.operations import drop_plan, dropping, proof
from event_archive.operations.verify import verify_day
from event_archive.table import rows
from event_archive_tests.azurite import Azurite
from event_archive_tests.faults.crowds import Crowd
from event_archive_tests.faults.tally import survived
from event_archive_tests.faults.test_ddl import PARTITIONED, Where, in_file, once, rows_in
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database

NEXT_DAY = DAY + timedelta(days=1)


# DDL and single writes at every step


@dataclass(frozen=True)
class Change:
    """What somebody does at one step of a purge.

    Attributes:
        statement: of another session.
        throws_away: it throws away rows itself.
    """

    statement: str
    throws_away: bool = False


CHANGES = {
    "insert": Change("INSERT INTO t VALUES (5000, '2024-03-01 08:30', 'late')"),
    "insert of another day": Change("INSERT INTO t VALUES (5000, '2024-03-02 08:30', 'late')"),
    "update": Change("UPDATE t SET note = 'changed' WHERE id = 7"),
    "delete and insert again": Change(
        "DELETE FROM t WHERE id = 7; INSERT INTO t VALUES (7, '2024-03-01 08:00', 'changed')"
    ),
    "attach": Change("ALTER TABLE t ATTACH PARTITION spare FOR VALUES FROM ('2024-03-03') TO ('2024-03-04')"),
    "attach what cascades": Change(
        "ALTER TABLE t ATTACH PARTITION spare FOR VALUES FROM ('2024-03-01 12:00') TO ('2024-03-02')"
    ),
    "detach": Change("ALTER TABLE t DETACH PARTITION morning"),
    "detach and attach another": Change(
        """ALTER TABLE t DETACH PARTITION morning; ALTER TABLE morning RENAME TO away;
        CREATE TABLE morning PARTITION OF t FOR VALUES FROM ('2024-03-01 06:00') TO ('2024-03-01 12:00');
        INSERT INTO morning SELECT 6000 + n, '2024-03-01 08:00', 'new' FROM generate_series(1, 9) AS n"""
    ),
    "rename the partition": Change("ALTER TABLE morning RENAME TO away"),
    "add a column": Change("ALTER TABLE t ADD COLUMN more text DEFAULT 'more'"),
    "change a type": Change("ALTER TABLE t ALTER COLUMN note TYPE varchar"),
    "create an index": Change("CREATE INDEX ON t (note)"),
    "create a trigger": Change(
        """CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER audited AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION f()"""
    ),
    "create a view": Change("CREATE VIEW v AS SELECT * FROM morning"),
    "create a publication": Change("CREATE PUBLICATION p FOR TABLE t"),
    "refer to it": Change(
        """CREATE TABLE child (id int, at timestamp, FOREIGN KEY (id, at) REFERENCES t);
        INSERT INTO child VALUES (7, '2024-03-01 08:00')"""
    ),
    "vacuum full": Change("VACUUM FULL morning"),
    "truncate": Change("TRUNCATE morning", throws_away=True),
    "drop": Change("DROP TABLE morning", throws_away=True),
}
STEPS: dict[str, Where] = {
    "before the shape": (rows, "reflect", False),
    "before the plan": (drop_plan, "partitions_of", False),
    "after the rows are counted": (drop_plan, "partition_rows_by_day", True),
    "before the file is read back": (proof, "load", False),
    "while the file is read back": (Hashes, "update", True),
    "after the file is read back": (proof, "load", True),
    "before writers are kept out": (dropping, "keep_writers_out", False),
    "after writers are kept out": (dropping, "keep_writers_out", True),
    "before the comparison": (dropping, "_count_proven", False),
    "after the comparison": (dropping, "_count_proven", True),
    "before the drop": (dropping, "drop_locked", False),
    "before the lock": (dropping, "_drop_at_once", False),
    "after the drop": (dropping, "_drop_at_once", True),
}
TABLES = ["t", "morning", "away", "spare"]
_EVERY = 3


def versions(of: Pipeline) -> dict[int, object]:
    """The note of each row of the table."""
    with suppress(psycopg.errors.UndefinedTable):
        return dict(of.database.execute("SELECT id, note FROM t"))  # type: ignore[arg-type]
    return {}


# Each change at four or five of the steps, each step with six or seven changes: all pairs took eight minutes.
PAIRS = [
    (kind, step) for first, kind in enumerate(CHANGES) for n, step in enumerate(STEPS) if (first + n) % _EVERY == 0
]


@pytest.mark.parametrize(("kind", "step"), PAIRS)
def test_nothing_at_any_step_of_a_drop_loses_a_row(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, kind: str, step: str
):
    change = CHANGES[kind]
    pipeline.database.execute(PARTITIONED)
    pipeline.database.execute("CREATE TABLE next PARTITION OF t FOR VALUES FROM ('2024-03-02') TO ('2024-03-03')")
    monkeypatch.setattr(dropping, "_PATIENCE", 0)
    of = pipeline.of(table=TableName("public", "t"), time_column="at", file_prefix="t", purge="drop")
    of.archive()
    all_rows, others, thrown_away = rows_in(of, *TABLES), rows_in(of, "invoices"), set[int]()
    changed = False

    def act() -> None:
        nonlocal changed
        # Who waits for our locks gives up soon, as a careful migration does.
        with suppress(psycopg.errors.LockNotAvailable), psycopg.connect(of.database.dsn, autocommit=True) as other:
            other.execute("SET lock_timeout = '100ms'")
            before = {id_ for (id_,) in other.execute("SELECT id FROM morning")} if change.throws_away else set()
            if change.statement.startswith("VACUUM"):
                other.execute(change.statement.encode())
            else:
                with other.transaction():
                    other.execute(change.statement.encode())
            changed = True
            survived(f"drops: {kind}")
            thrown_away.update(before)

    done = once(monkeypatch, STEPS[step], act)
    # A cascade, or what waits for us in a circle, ends the day.
    with suppress(EventArchiveError):
        of.purge()
    monkeypatch.undo()
    all_rows |= rows_in(of, *TABLES)
    if not done.is_set():
        # Something before has kept the partition: nothing in this step's place.
        raise AssertionError(f"the purge never came {step}")

    def assert_nothing_lost() -> None:
        assert rows_in(of, *TABLES) | set(in_file(of)) | thrown_away >= all_rows
        assert rows_in(of, "invoices") == others
        if changed and kind in ("update", "delete and insert again"):
            last = {int(row["id"]): row["note"] for row in of.records_of_file()}
            assert "changed" in (versions(of).get(7), last.get(7))

    assert_nothing_lost()
    # Whatever it was: the next night either does the rest or says why not, and loses nothing either.
    with suppress(EventArchiveError):
        of.archive()
        of.purge()
    assert_nothing_lost()
    assert verify_day(of.dataset, DAY, table=None, lake=of.lake).problems == ()


# Writers beside runs


@pytest.fixture
def dropping_crowd(database: Database, local_lake: Lake, tmp_path: Path, azurite: Azurite) -> Crowd:
    """One partition of two days, and a default one."""
    database.execute(
        """CREATE TABLE t (id int, at timestamp NOT NULL, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE INDEX ON t (at)"""
    )
    folder = tmp_path / "crowd"
    folder.mkdir()
    of = Pipeline(database, local_lake).of(
        table=TableName("public", "t"), time_column="at", file_prefix="t", purge="drop"
    )
    return Crowd(of, {"root": str(local_lake._root)}, folder)  # type: ignore[attr-defined]


MAKE = "CREATE TABLE IF NOT EXISTS two PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-03')"


def write(
    dsn: str,
    ids: range,
    kept: dict[int, str],
    failures: list[Exception],
    dropped: threading.Event,
    pause: threading.Barrier,
) -> None:
    """An application that makes a partition which is not there, and knows of no other failure."""
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for place, id_ in enumerate(ids):
                if place % 60 == 59:
                    # Late rows all the time would let no partition be proven.
                    pause.wait(60)
                    until = time.monotonic() + 10
                    while connection.execute("SELECT FROM t LIMIT 1").rowcount and time.monotonic() < until:
                        time.sleep(0.05)
                    pause.wait(60)
                at = f"2024-03-0{1 + id_ % 2} 0{id_ % 9}:00"
                for version in ("first", "second") if id_ % 5 == 0 else ("first",):
                    while True:
                        try:
                            if version == "first":
                                connection.execute("INSERT INTO t VALUES (%s, %s, %s)", (id_, at, version))
                                kept[id_] = version
                            else:
                                done = connection.execute("UPDATE t SET note = %s WHERE id = %s", (version, id_))
                                kept[id_] = version if done.rowcount else kept[id_]
                            break
                        except psycopg.errors.CheckViolation:
                            dropped.set()
                            with suppress(psycopg.errors.DuplicateTable, psycopg.errors.UniqueViolation):
                                connection.execute(MAKE)
    except Exception as error:  # noqa: BLE001
        failures.append(error)
        pause.abort()


@pytest.mark.parametrize("processes", [1, 3])
def test_writers_beside_runs_that_drop_lose_nothing_and_never_fail(dropping_crowd: Crowd, processes: int):
    of = dropping_crowd.pipeline
    kept: dict[int, str] = {}
    failures: list[Exception] = []
    dropped, pause = threading.Event(), threading.Barrier(3)

    def writers() -> None:
        threads = [
            threading.Thread(
                target=write, args=(of.database.dsn, range(first, 1500, 3), kept, failures, dropped, pause)
            )
            for first in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    of.database.execute(MAKE)
    ended = dropping_crowd.run(processes, writers, days=[DAY, NEXT_DAY])
    assert failures == []
    assert dropped.is_set(), "no partition was dropped"
    for turn in ("before", "after"):
        table: dict[Any, Any] = dict(of.database.execute("SELECT id, note FROM t"))  # type: ignore[arg-type]
        last = {
            int(row["id"]): row["note"]
            for day in (DAY, NEXT_DAY)
            if of.lake.stat(of.dataset.path(day))
            for row in of.records_of_file(day)
        }
        assert {**last, **table} == kept, turn
        if turn == "before":
            of.archive(NEXT_DAY)
            of.run(DAY)
            of.run(NEXT_DAY)
    assert of.count() == 0
    for _ in range(ended.total()):
        survived("drops: runs while the partition is written to")

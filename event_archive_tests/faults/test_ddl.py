"""DDL of every kind comes at every step of an archive, an append and a purge: no row is lost, here or elsewhere."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.manifest import Hashes
from event_archive.errors import EventArchiveError
from event_archive.operations import archive, loading, proof, purge, writing
from event_archive.operations.export import Export
from event_archive.operations.verify import verify_day
from event_archive.table import rows
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.pipeline import DAY, Pipeline

ROWS, LATE, SPARE = 300, 20, 40

PLAIN = f"""
CREATE TABLE t (id int PRIMARY KEY, at timestamp NOT NULL, note text);
CREATE TABLE spare (id int PRIMARY KEY, at timestamp NOT NULL, note text);
INSERT INTO t SELECT n, '2024-03-01 08:00', repeat('x', 100) FROM generate_series(1, {ROWS}) AS n;
INSERT INTO spare SELECT * FROM t WHERE id <= {SPARE};
"""
PARTITIONED = f"""
CREATE TABLE t (id int, at timestamp NOT NULL, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE morning PARTITION OF t FOR VALUES FROM ('2024-03-01 06:00') TO ('2024-03-01 12:00');
CREATE TABLE spare (id int, at timestamp NOT NULL, note text, PRIMARY KEY (id, at));
CREATE TABLE invoices (id int PRIMARY KEY, event int, at timestamp,
  FOREIGN KEY (event, at) REFERENCES spare ON DELETE CASCADE);
INSERT INTO t SELECT n, '2024-03-01 08:00', repeat('x', 100) FROM generate_series(1, {ROWS}) AS n;
INSERT INTO spare SELECT 10000 + n, '2024-03-01 18:00', 'spare' FROM generate_series(1, {SPARE}) AS n;
INSERT INTO invoices SELECT n, 10000 + n, '2024-03-01 18:00' FROM generate_series(1, {SPARE}) AS n;
"""
NOON = "FOR VALUES FROM ('2024-03-01 12:00') TO ('2024-03-02')"


@dataclass(frozen=True)
class Change:
    """DDL, and the tables in which the rows of ``t`` and ``spare`` stand unless it throws them away itself."""

    tables: str
    ddl: str
    throws_away: bool = False


CHANGES = {
    "attach": Change(PARTITIONED, f"ALTER TABLE t ATTACH PARTITION spare {NOON}"),
    "detach": Change(PARTITIONED, "ALTER TABLE t DETACH PARTITION morning"),
    "inherit": Change(PLAIN, "ALTER TABLE spare INHERIT t"),
    "add a column": Change(PLAIN, "ALTER TABLE t ADD COLUMN more text DEFAULT 'more'"),
    "add a column to partitions": Change(PARTITIONED, "ALTER TABLE t ADD COLUMN more text DEFAULT 'more'"),
    "change a type": Change(PLAIN, "ALTER TABLE t ALTER COLUMN id TYPE bigint"),
    "create an index": Change(PLAIN, "CREATE INDEX ON t (note)"),
    "create an index on partitions": Change(PARTITIONED, "CREATE INDEX ON t (note)"),
    "drop the key": Change(PLAIN, "ALTER TABLE t DROP CONSTRAINT t_pkey"),
    "rename": Change(PLAIN, "ALTER TABLE t RENAME TO renamed; CREATE VIEW t AS SELECT * FROM renamed"),
    "truncate": Change(PLAIN, "TRUNCATE t", throws_away=True),
    "truncate a partition": Change(PARTITIONED, "TRUNCATE morning", throws_away=True),
    "drop": Change(PLAIN, "DROP TABLE t", throws_away=True),
    "drop a partition": Change(PARTITIONED, "DROP TABLE morning", throws_away=True),
}

Where = tuple[Any, str, bool]
"""An owner, the name of its function, and whether the DDL comes after it instead of before."""

EXPORT: dict[str, Where] = {
    "before the shape": (archive, "reflect", False),
    "after the shape": (archive, "reflect", True),
    "while rows are exported": (Hashes, "update", True),
    "before the file is committed": (Export, "commit", False),
    "after the file is committed": (Export, "commit", True),
}
APPEND: dict[str, Where] = {
    "before the file is read back": (archive, "load", False),
    "while the file is read back": (Hashes, "update", True),
    "after the file is read back": (archive, "load", True),
    "after the second look": (writing, "require_unchanged", True),
    "before rows are appended": (Export, "commit", False),
}
PURGE: dict[str, Where] = {
    "before the shape": (rows, "reflect", False),
    "before the file is read back": (proof, "load", False),
    "while the file is read back": (Hashes, "update", True),
    "before the index": (loading, "_index", False),
    "after the file is read back": (proof, "load", True),
    "before the delete": (purge, "delete_identical", False),
    "after the delete": (purge, "delete_identical", True),
    "before the commit": (purge, "rows_left", True),
}
STEPS = [("export", *step) for step in EXPORT.items()]
STEPS += [("append", *step) for step in APPEND.items()]
STEPS += [("purge", *step) for step in PURGE.items()]


def rows_in(of: Pipeline, *tables: str) -> set[int]:
    """The ids that stand in tables, as far as those exist."""
    found: set[int] = set()
    for table in tables:
        with suppress(psycopg.errors.UndefinedTable):
            found |= {id_ for (id_,) in of.database.execute(f"SELECT id FROM {table}") if isinstance(id_, int)}
    return found


def in_file(of: Pipeline) -> list[int]:
    return [int(row["id"]) for row in of.records_of_file()] if of.lake.stat(of.dataset.path(DAY)) else []


def once(monkeypatch: pytest.MonkeyPatch, where: Where, action: Callable[[], None]) -> threading.Event:
    """Does something the first time that a function is called; says whether it was."""
    owner, name, after = where
    original, done = getattr(owner, name), threading.Event()

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not after and not done.is_set():
            done.set()
            action()
        result = original(*args, **kwargs)
        if after and not done.is_set():
            done.set()
            action()
        return result

    monkeypatch.setattr(owner, name, wrapper)
    return done


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize(("verb", "step", "where"), STEPS, ids=[f"{verb} {step}" for verb, step, _ in STEPS])
def test_ddl_at_any_step_loses_no_row(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, kind: str, verb: str, step: str, where: Where
):
    change = CHANGES[kind]
    pipeline.database.execute(change.tables)
    of = pipeline.of(table=TableName("public", "t"), time_column="at", file_prefix="t")
    if verb != "export":
        of.archive()
    if verb == "append":
        of.database.execute(
            f"INSERT INTO t SELECT {ROWS} + n, '2024-03-01 09:00', 'late' FROM generate_series(1, {LATE}) AS n"
        )
    tables = ["t", "renamed", "morning", "spare"]
    all_rows, others = rows_in(of, *tables), rows_in(of, "invoices")
    thrown_away: set[int] = set()

    def alter() -> None:
        # Who waits for our locks gives up soon, as a careful migration does.
        with suppress(psycopg.errors.LockNotAvailable):
            before = rows_in(of, "t")
            of.database.execute(f"SET lock_timeout = '100ms'; {change.ddl}")
            survived(f"ddl: {kind}")
            thrown_away.update(before if change.throws_away else ())

    done = once(monkeypatch, where, alter)
    with suppress(EventArchiveError):
        of.purge() if verb == "purge" else of.archive()
    assert done.is_set(), f"{verb} never came {step}"
    monkeypatch.undo()

    assert rows_in(of, *tables) | set(in_file(of)) | thrown_away >= all_rows
    assert rows_in(of, "invoices") == others
    assert rows_in(of, "spare") >= {id_ for id_ in all_rows if id_ > 10000}
    # Whatever it was: the next night either does the rest or says why not, and loses nothing either.
    with suppress(EventArchiveError):
        of.archive()
        of.purge()
    assert rows_in(of, *tables) | set(in_file(of)) | thrown_away >= all_rows
    assert rows_in(of, "invoices") == others
    if in_file(of):
        assert verify_day(of.dataset, DAY, table=None, lake=of.lake).problems == ()

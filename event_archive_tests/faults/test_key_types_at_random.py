"""A key's type that is changed at random, there and back: no row is lost, is another's, or comes back twice.

Each life has a number; ``KEY_TYPES="$(seq 100 300)"`` in the environment lives others.
"""

import csv
import io
import os
import random
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import ONE_DAY
from event_archive.errors import IntegrityError, RefusedError
from event_archive.lake.local.folder import LocalLake
from event_archive.operations.adopt import adopt_day
from event_archive.operations.restore.day import restore_day
from event_archive.table.holds import hold, release
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_table
from event_archive_tests.fixtures.postgres import Database

LIVES = os.environ.get("KEY_TYPES", "").split() or [str(number) for number in range(share_of(60))]
DAYS = (DAY, DAY + ONE_DAY)
STEPS = 80
TABLE = "CREATE TABLE t (k text PRIMARY KEY, id int NOT NULL, at timestamp NOT NULL, v int NOT NULL)"
CODES = ["1", "01", "1.0", "1.00", "1.04", "1.1", "1.10", "1.14", "2", "2.5", "2.50", "02.5", "3", "3.01", "3.014"]
SCALES = {"int": 0, "bigint": 0, "numeric(9,1)": 1, "numeric(9,2)": 2, "numeric(9,3)": 3, "numeric": 9}
TYPES = [*SCALES, "text", "char(6)", "varchar(5)", "varchar(9)"]


def _cast(text: str, kind: str) -> str:
    return f"{text}{'::numeric' if kind in SCALES else ''}::{kind}"


def read(kind: str, text: str) -> object:
    """What a type makes of a text."""
    if kind in SCALES:
        return Decimal(text.strip()).quantize(Decimal(1).scaleb(-SCALES[kind]), ROUND_HALF_UP)
    return text.rstrip() if kind.startswith("char") else text


@dataclass
class Life:
    """One table. A row of the application keeps its ``id`` and its day, and is never deleted by it.

    Attributes:
        kind: the type of the key.
        values: what the application made of each row's ``v`` last.
        retyped: the days that were not archived since the type was changed.
        spelled: the key of each row when its day was archived last, or when it came.
    """

    pipeline: Pipeline
    dice: random.Random
    kind: str = "text"
    values: dict[int, int] = field(default_factory=dict)
    retyped: set[date] = field(default_factory=set)
    spelled: dict[int, str] = field(default_factory=dict)

    def live(self) -> None:
        """Changes rows and the type, archives and purges days, and restores them in place and elsewhere."""
        steps = [self.insert] * 5 + [self.update] * 4 + [self.retype] * 3 + [self.night] * 4 + [self.archive] * 2
        steps += [self.hold, self.release, self.accept, self.put_back, self.fill_another]
        for _ in range(STEPS):
            with suppress(IntegrityError, RefusedError):
                self.dice.choice(steps)()
            self.nothing_is_lost()

    def insert(self) -> None:
        """A row whose key no other one has or had, as the present type reads them."""
        code = self.dice.choice(CODES)
        had = {read(self.kind, text) for day in DAYS for text, _, _ in self.lines(day)}
        with suppress(psycopg.errors.UniqueViolation):
            # A key that is another one's by a type before or after this one would be given again.
            as_number = (
                {read("numeric", text) for day in DAYS for text, _, _ in self.lines(day)} if self.retyped else ()
            )
            if read(self.kind, code) not in had and read("numeric", code) not in as_number:
                row, day = len(self.values) + 1, self.day()
                key = _cast(f"'{code}'::text", self.kind)
                self.execute(f"INSERT INTO t VALUES ({key}, {row}, '{day}', 0)")
                self.values[row], self.spelled[row] = 0, code

    def update(self) -> None:
        for (row,) in self.execute("SELECT id FROM t ORDER BY random() LIMIT 1"):
            self.values[row] += 1
            self.execute(f"UPDATE t SET v = {self.values[row]} WHERE id = {row}")

    def retype(self) -> None:
        """To a type and back between two nights, it may have changed values, which nobody can see: then it stays."""
        kind = self.dice.choice(TYPES)
        key = _cast("k::text", kind)
        with suppress(psycopg.errors.UniqueViolation, psycopg.errors.DataError):
            by_then = self.execute(f"SELECT at::date, id, ({key})::text FROM t")
            had = {(read(kind, text), row) for day in DAYS for text, row, _ in self.lines(day)}
            if all(
                read(kind, text) == read(kind, self.spelled[row])
                and not any(key == read(kind, text) and other != row for key, other in had)
                for day, row, text in by_then
                if day in self.retyped
            ):
                self.execute(f"ALTER TABLE t ALTER k TYPE {kind} USING {key}")
                self.kind, self.retyped = kind, set(DAYS)

    def night(self) -> None:
        self.pipeline.purge(self.archive())

    def archive(self) -> date:
        day = self.day()
        self.pipeline.archive(day)
        self.retyped.discard(day)
        self.spelled |= dict(self.execute(f"SELECT id, k::text FROM t WHERE at = '{day}'"))
        return day

    def hold(self) -> None:
        day = self.day()
        hold(self.pipeline.dataset, day, day, "a case", self.pipeline.postgres)

    def release(self) -> None:
        day = self.day()
        release(self.pipeline.dataset, day, day, self.pipeline.postgres)

    def accept(self) -> None:
        """Accepts a file whose values read as what the rows have in the table, and no two rows' as one."""
        day = self.day()
        reading = {row: read(self.kind, text) for text, row, _ in self.lines(day)}
        here = {
            row: read(self.kind, text) for text, row in self.execute(f"SELECT k::text, id FROM t WHERE at = '{day}'")
        }
        together = reading | here
        forms = [(row, read(self.kind, text)) for text, row, _ in self.lines(day)]
        if len(set(together.values())) == len(together) and all(together[row] == of for row, of in forms):
            adopt_day(self.pipeline.site, day, present_key=True)

    def put_back(self) -> None:
        restore_day(self.pipeline.site, self.day(), TableName("public", "t"))

    def fill_another(self) -> None:
        """Each row of the file comes back once, as it was last archived."""
        self.execute("DROP TABLE IF EXISTS another")
        day = self.day()
        restore_day(self.pipeline.site, day, TableName("public", "another"))
        assert dict(self.execute("SELECT id, v FROM another")) == {row: v for _, row, v in self.lines(day)}
        assert self.execute("SELECT count(*) - count(DISTINCT id) FROM another") == [(0,)]

    def nothing_is_lost(self) -> None:
        """Every row stands in the table once, or its day's file ends with it as it was."""
        stand = self.execute("SELECT id, v FROM t")
        here: dict[int, int] = dict(stand)
        assert len(here) == len(stand)
        archived = {row: v for day in DAYS for _, row, v in self.lines(day)}
        assert self.values == {row: here.get(row, archived.get(row)) for row in self.values}

    def lines(self, day: date) -> list[tuple[str, int, int]]:
        """The keys, rows and values of a day's file, in its order."""
        if self.pipeline.lake.stat(self.pipeline.dataset.path(day)) is None:
            return []
        rows = csv.DictReader(io.StringIO(self.pipeline.content(day).decode()))
        return [(row["k"], int(row["id"]), int(row["v"])) for row in rows]

    def execute(self, statement: str) -> list[Any]:
        return self.pipeline.database.execute(statement)

    def day(self) -> date:
        return self.dice.choice(DAYS)


@pytest.mark.parametrize("life", LIVES)
def test_no_row_is_lost_or_taken_for_another_whatever_the_keys_type_becomes(
    database: Database, local_lake: LocalLake, life: str
):
    Life(of_table(Pipeline(database, local_lake), TABLE), random.Random(life)).live()
    survived("lives: types of a key at random")

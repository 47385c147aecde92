"""Keys that get columns and lose them at random: no restore puts a row beside another form of it.

Each life has a number; ``KEYS="$(seq 100 300)"`` in the environment lives others.
"""

import os
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import ONE_DAY
from event_archive.domain.manifest import Manifest
from event_archive.errors import IntegrityError, RefusedError
from event_archive.lake.local.folder import LocalLake
from event_archive.operations.restore.day import restore_day
from event_archive.table.holds import hold, release
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_table
from event_archive_tests.fixtures.postgres import Database

LIVES = os.environ.get("KEYS", "").split() or [str(number) for number in range(share_of(60))]
DAYS = (DAY, DAY + ONE_DAY, DAY + 2 * ONE_DAY)
STEPS = 60
TABLE = "CREATE TABLE t (id int PRIMARY KEY, at timestamp NOT NULL, tenant int NOT NULL DEFAULT 0, value int DEFAULT 0)"

Row = dict[str, Any]


@dataclass
class Life:
    """One table. A row of the application keeps its ``id``, whatever else changes in it.

    Attributes:
        key: the columns of the primary key.
        rows: how many there have been.
    """

    pipeline: Pipeline
    dice: random.Random
    key: tuple[str, ...] = ("id",)
    rows: int = 0

    def live(self) -> None:
        """Changes rows and their key, archives and purges days, and restores them in place and elsewhere."""
        steps = [self.insert] * 4 + [self.update] * 7 + [self.widen] * 2 + [self.night] * 3 + [self.archive] * 2
        steps += [self.delete, self.narrow, self.hold, self.release]
        steps += [self.put_back, self.put_back, self.fill_another, self.fill_another]
        for _ in range(STEPS):
            with suppress(IntegrityError, RefusedError, psycopg.errors.UniqueViolation):
                self.dice.choice(steps)()

    def insert(self) -> None:
        self.rows += 1
        self.execute(f"INSERT INTO t VALUES ({self.rows}, '{self.day()} {self.dice.randrange(24)}:00')")

    def update(self) -> None:
        row, hour, tenant = self.row(), self.dice.randrange(24), self.dice.randrange(3)
        new = self.dice.choice(
            ["value = value + 1", f"at = at::date + time '{hour}:00'", f"at = '{self.day()}'", f"tenant = {tenant}"]
        )
        self.execute(f"UPDATE t SET {new} WHERE id = {row}")

    def delete(self) -> None:
        self.execute(f"DELETE FROM t WHERE id = {self.row()}")

    def widen(self) -> None:
        new = self.dice.choice(["at", "tenant"])
        self.has_key((*self.key, new) if new not in self.key else self.key)

    def narrow(self) -> None:
        counts = self.execute("SELECT count(*) FROM t GROUP BY id ORDER BY 1 DESC LIMIT 1")
        if counts in ([], [(1,)]):
            self.has_key(("id",))

    def has_key(self, key: tuple[str, ...]) -> None:
        self.execute(f"ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY ({', '.join(key)})")
        self.key = key

    def night(self) -> None:
        self.pipeline.run(self.day())

    def archive(self) -> None:
        self.pipeline.archive(self.day())

    def hold(self) -> None:
        day = self.day()
        hold(self.pipeline.dataset, day, day, "a case", self.pipeline.postgres)

    def release(self) -> None:
        day = self.day()
        release(self.pipeline.dataset, day, day, self.pipeline.postgres)

    def put_back(self) -> None:
        self.restore(self.day(), "t")

    def fill_another(self) -> None:
        self.execute("DROP TABLE IF EXISTS another")
        for day in self.dice.choice([DAYS, DAYS[::-1]]):
            with suppress(IntegrityError, RefusedError):
                self.restore(day, "another")

    def restore(self, day: date, target: str) -> None:
        """Into a table in which no row comes to stand beside another form of it, by any key that the file names."""
        before = self.standing(target)
        restore_day(self.pipeline.site, day, TableName("public", target))
        file = self.pipeline.lake.stat(self.pipeline.dataset.path(day))
        manifest = Manifest.from_file(file) if file else None
        assert manifest
        after = self.standing(target)
        came = [row for row in after if row not in before]
        for one, two in [(one, two) for one in came for two in after if one["id"] == two["id"] and one != two]:
            assert not any(all(one[name] == two[name] for name in key) for key in manifest.keys), (one, two)

    def standing(self, table: str) -> list[Row]:
        if self.execute(f"SELECT to_regclass('{table}')") == [(None,)]:
            return []
        return [row for (row,) in self.execute(f"SELECT to_json(t) FROM {table} AS t")]

    def execute(self, statement: str) -> list[Any]:
        return self.pipeline.database.execute(statement)

    def day(self) -> date:
        return self.dice.choice(DAYS)

    def row(self) -> int:
        return int(self.dice.choice([row for (row,) in self.execute("SELECT id FROM t")] or [0]))


@pytest.mark.parametrize("life", LIVES)
def test_no_restore_puts_a_row_beside_another_form_of_it_whatever_the_key_becomes(
    database: Database, local_lake: LocalLake, life: str
):
    Life(of_table(Pipeline(database, local_lake), TABLE), random.Random(life)).live()
    survived("lives: keys at random")

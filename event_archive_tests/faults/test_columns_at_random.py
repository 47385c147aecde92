"""Columns that come, go and change their names at random: whatever a row held when it went comes back.

Each life has a number; ``COLUMNS="$(seq 100 300)"`` in the environment lives others.
"""

import os
import random
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest

from event_archive.domain.days import ONE_DAY
from event_archive.errors import IntegrityError, RefusedError
from event_archive.operations.claim import adopt_source
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_table, rows_of
from event_archive_tests.fixtures.restoring import restoring

LIVES = os.environ.get("COLUMNS", "").split() or [str(number) for number in range(share_of(40))]
DAYS = (DAY, DAY + ONE_DAY)
STEPS = 40
TABLE = "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at date NOT NULL, c0 text, c1 text)"

Row = dict[str, object]


@dataclass
class Life:
    """One table.

    Attributes:
        columns: what they are called at present.
        last_column: how many there have been.
        time: what the time column is called.
        held: by the row's id, what a restore has to bring, by the name that each column had last.
    """

    pipeline: Pipeline
    dice: random.Random
    columns: list[str] = field(default_factory=lambda: ["c0", "c1"])
    last_column: int = 1
    time: str = "at"
    held: dict[int, Row] = field(default_factory=dict)

    def live(self) -> None:
        """Changes the table, puts days back into it, and archives and purges what stands there, in any order."""
        steps = [self.insert, self.update, self.add, self.drop, self.rename, self.put_back, self.night, self.night]
        steps += [self.rename_time] * self.dice.choice([0, 1, 2])
        for _ in range(STEPS):
            self.dice.choice(steps)()
            for number, row in self.standing("t").items():
                self.held.setdefault(number, {}).update(row)
        self.night()
        assert rows_of(self.pipeline, "t") == 0

    def standing(self, table: str) -> dict[int, Row]:
        rows: list[Any] = self.pipeline.database.execute(f"SELECT id, to_json(t) FROM {table} AS t")
        return {number: {name: value for name, value in row.items() if name[0] == "c"} for number, row in rows}

    def insert(self) -> None:
        values = f"('{self.day()}', '{self.word()}')"
        self.execute(f"INSERT INTO t ({self.time}, {self.dice.choice(self.columns)}) VALUES {values}, {values}")

    def update(self) -> None:
        self.execute(
            f"UPDATE t SET {self.dice.choice(self.columns)} = '{self.word()}' WHERE {self.time} = '{self.day()}'"
        )

    def add(self) -> None:
        self.columns.append(self.new_name())
        default = self.dice.choice(["", f"DEFAULT '{self.word()}'", f"NOT NULL DEFAULT '{self.word()}'"])
        self.execute(f"ALTER TABLE t ADD {self.columns[-1]} text {default}")

    def drop(self) -> None:
        if len(self.columns) > 1:
            self.execute(f"ALTER TABLE t DROP {self.gone(self.dice.choice(self.columns))}")

    def rename(self) -> None:
        former = self.gone(self.dice.choice(self.columns))
        self.columns.append(self.new_name())
        self.execute(f"ALTER TABLE t RENAME {former} TO {self.columns[-1]}")

    def rename_time(self) -> None:
        """The dataset follows, as docs/howto/tables.md says."""
        former, self.time = self.time, f"at{self.last_column}"
        if former != self.time:
            self.execute(f"ALTER TABLE t RENAME {former} TO {self.time}")
            self.pipeline = self.pipeline.of(time_column=self.time)
            adopt_source(self.pipeline.site)

    def put_back(self) -> None:
        # Without a file, or where rows stand there that were changed, it is refused.
        with suppress(IntegrityError, RefusedError):
            restoring(self.pipeline)(in_place=True, day=self.day())
            survived("restores in place, whatever became of the columns")

    def night(self) -> None:
        for day in DAYS:
            self.pipeline.run(day)

    def gone(self, column: str) -> str:
        """A column that goes: the rows that stand in the table do not hold it any more, under this name."""
        self.columns.remove(column)
        for number in self.standing("t"):
            del self.held[number][column]
        return column

    def new_name(self) -> str:
        self.last_column += 1
        return f"c{self.last_column}"

    def day(self) -> date:
        return self.dice.choice(DAYS)

    def word(self) -> str:
        return f"{self.dice.getrandbits(32):x}"

    def execute(self, statement: str) -> None:
        self.pipeline.database.execute(statement)


@pytest.mark.parametrize("life", LIVES)
def test_a_restore_brings_what_each_row_held_whatever_became_of_the_columns(pipeline: Pipeline, life: str):
    of = of_table(pipeline, TABLE)
    lived = Life(of, random.Random(life))
    lived.live()
    for day in DAYS:
        with suppress(RefusedError):
            restoring(lived.pipeline)("back", day=day)
    back = lived.standing("back") if lived.held else {}
    assert {number: {name: back[number].get(name) for name in row} for number, row in lived.held.items()} == lived.held
    survived("lives: columns at random")

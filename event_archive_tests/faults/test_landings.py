"""Landings at random: no record is lost, doubled or changed, whatever the table and its triggers make of it.

A table of random shape, with constraints and triggers that come and go, takes random batches, some at the same time.
After each, every record is looked for, as a row or as a rejected record. Each history has a number, so that the same
one happens again; ``LANDINGS="$(seq 100 600)"`` in the environment makes others. Not here: where records come from.
"""

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
import pytest

from event_archive.errors import EventArchiveError
from event_archive.postgres.session import Session
from event_archive.sources.landing import Batch, Counts, Rejected
from event_archive.sources.merge import Target
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.landing import IGNORE, UPDATE, Row, batch, land, nothing, opened
from event_archive_tests.fixtures.postgres import Database

HISTORIES = os.environ.get("LANDINGS", "").split() or [str(number) for number in range(share_of(30))]
BATCHES = 25
MARK = "wvqx"
"""Part of every key, and of no message."""

TABLE = """CREATE TABLE measurements (id text PRIMARY KEY, at timestamptz NOT NULL, n numeric(4) CHECK (n <> 13),
  data jsonb)"""
DIVIDED = (
    "",
    """PARTITION BY HASH (id);
    CREATE TABLE even PARTITION OF measurements FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE odd PARTITION OF measurements FOR VALUES WITH (MODULUS 2, REMAINDER 1)""",
)
SURROUNDINGS = """
CREATE TABLE kind (n numeric PRIMARY KEY); INSERT INTO kind SELECT generate_series(0, 17);
CREATE TABLE seen (id text);
CREATE FUNCTION sees() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NULL; END $$;
CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RETURN CASE WHEN NEW.n % 7 <> 0 THEN NEW END; END $$;
CREATE FUNCTION raises() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN IF NEW.n % 5 = 0 THEN RAISE EXCEPTION 'not %', NEW.n; END IF; RETURN NEW; END $$;
CREATE FUNCTION renames() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN IF NEW.n = 8 THEN NEW.id := upper(NEW.id); END IF; RETURN NEW; END $$;
CREATE FUNCTION removes() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN IF NEW.n = 9 THEN DELETE FROM measurements WHERE id = NEW.id; END IF; RETURN NULL; END $$;
"""
CHANGES = {
    "sees": "CREATE TRIGGER sees AFTER INSERT OR UPDATE ON measurements FOR EACH ROW EXECUTE FUNCTION sees()",
    "drops": "CREATE TRIGGER drops BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION drops()",
    "keeps": "CREATE TRIGGER keeps BEFORE UPDATE ON measurements FOR EACH ROW EXECUTE FUNCTION drops()",
    "raises": "CREATE TRIGGER raises BEFORE INSERT OR UPDATE ON measurements FOR EACH ROW EXECUTE FUNCTION raises()",
    "later": "CREATE CONSTRAINT TRIGGER later AFTER INSERT OR UPDATE ON measurements DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION raises()",
    "renames": "CREATE TRIGGER renames BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION renames()",
    "removes": "CREATE CONSTRAINT TRIGGER removes AFTER INSERT OR UPDATE ON measurements DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION removes()",
    "kind": "ALTER TABLE measurements ADD CONSTRAINT kind FOREIGN KEY (n) REFERENCES kind "
    "DEFERRABLE INITIALLY DEFERRED",
}
UNDO = "; ".join(f"DROP TRIGGER IF EXISTS {name} ON measurements" for name in CHANGES)
UNDO += "; ALTER TABLE measurements DROP CONSTRAINT IF EXISTS kind"


@dataclass(frozen=True)
class Picture:
    """All rows by their keys, and all that is rejected, by locator and bytes."""

    rows: dict[str, tuple[str, str]]
    rejected: set[tuple[str, bytes]]


@dataclass
class History:
    """A table, and what lands in it."""

    dice: random.Random
    database: Database
    target: Target

    def picture(self) -> Picture:
        rows = self.database.execute(
            "SELECT id, to_char(at AT TIME ZONE 'UTC', 'HH24'), n::text, data ->> 'n' FROM measurements"
        )
        assert len({key for key, *_ in rows}) == len(rows), "a key twice"
        assert all(n == of for _, _, n, of in rows), "a row of two records"
        rejected = self.database.execute("SELECT locator, raw FROM rejected_records")
        return Picture(
            {str(key): (str(hour), str(n)) for key, hour, n, _ in rows},
            {(str(locator), bytes(raw)) for locator, raw in rejected},  # type: ignore[call-overload]
        )

    def records(self) -> list[Row]:
        return [
            (
                f"{MARK}{self.dice.randrange(12)}",
                f"{self.dice.randrange(24):02}",
                self.dice.choice([*map(str, range(20)), "12345", "x", "NaN"]),
            )
            for _ in range(self.dice.randint(1, 16))
        ]

    def batch(self, records: list[Row], number: str) -> Batch:
        odd = [f"odd {self.dice.randrange(9)}" for _ in range(self.dice.randrange(3))]
        made = batch(*records)
        made.origins = [(0, lambda index: (f"{number} {index}", json.dumps(records[index]).encode()))]
        made.rejected = [Rejected(text, "it is odd", f"{text} {self.dice.randrange(2)}".encode()) for text in odd]
        return made

    def change(self) -> None:
        """Constraints and triggers come or go, or somebody deletes rows."""
        if self.dice.random() < 0.3:
            self.database.execute("DELETE FROM measurements WHERE n % 2 = 0")
        if self.dice.random() < 0.4:
            self.database.execute(UNDO)
        elif self.dice.random() < 0.5:
            try:
                self.database.execute(CHANGES[self.dice.choice(list(CHANGES))])
            except psycopg.Error as error:
                print("not that:", type(error).__name__)

    def one(self, session: Session, number: str) -> None:
        """One batch, alone: all of it or nothing."""
        records, before = self.records(), self.picture()
        made = self.batch(records, number)
        words = ""
        try:
            counts: Counts | None = land(session, self.target, "test", made, nothing, pause=lambda _: None)
        except EventArchiveError as refused:
            counts, words = None, str(refused)
            print("refused:", words)
        after = self.picture()
        if counts is None:
            assert MARK not in words.lower(), "a value is told"
            assert after == before
            return
        print(counts)
        self.found(records, number, after)
        assert all((of.locator, of.raw) in after.rejected or is_renamed(of, after) for of in made.rejected)
        assert before.rows.keys() <= after.rows.keys(), "a row went"
        assert before.rejected <= after.rejected
        for key, (hour, n) in after.rows.items():
            former = before.rows.get(key)
            if former != (hour, n):
                assert (key, hour, n) in records
                assert former is None or (self.target.version and former[0] <= hour)
        self.balanced(counts, records, made, before, after)

    def found(self, records: list[Row], number: str, after: Picture) -> None:
        """Each record is a row, or older than one, or rejected."""
        for index, (key, hour, n) in enumerate(records):
            row = after.rows.get(key)
            is_row = row is not None and (self.target.version is None or row[0] >= hour)
            is_rejected = (f"{number} {index}", json.dumps([key, hour, n]).encode()) in after.rejected
            assert is_row or is_rejected, (key, hour, n)

    def balanced(self, counts: Counts, records: list[Row], made: Batch, before: Picture, after: Picture) -> None:
        assert counts.taken == len(records) + len(made.rejected)
        assert counts.new == len(after.rows) - len(before.rows)
        assert counts.rejected == len(after.rejected) - len(before.rejected)
        assert counts.balance == 0

    def two(self, sessions: tuple[Session, Session], number: str) -> None:
        """Two batches at once, of which each may meet the other's rows."""
        records = [self.records(), self.records()]
        batches = [self.batch(of, f"{number}.{which}") for which, of in enumerate(records)]

        def work(which: int) -> bool:
            try:
                land(sessions[which], self.target, "test", batches[which], nothing, pause=lambda _: None)
            except EventArchiveError as error:
                print("refused:", error)
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            landed = list(pool.map(work, range(2)))
        after = self.picture()
        for which, is_landed in enumerate(landed):
            if is_landed:
                self.found(records[which], f"{number}.{which}", after)


def is_renamed(rejected: Rejected, after: Picture) -> bool:
    """Of one locator and other bytes the locator gets a hash."""
    return any(at.startswith(f"{rejected.locator}#") and raw == rejected.raw for at, raw in after.rejected)


@pytest.mark.parametrize("history", HISTORIES)
def test_landings_at_random_lose_and_double_no_record(database: Database, history: str):
    dice = random.Random(history)
    database.execute(f"{SURROUNDINGS} {TABLE} {dice.choice(DIVIDED)}")
    of = History(dice, database, dice.choice([IGNORE, UPDATE]))
    with opened(database) as session, opened(database) as other:
        for number in range(BATCHES):
            of.change()
            if dice.random() < 0.3:
                of.two((session, other), f"batch {number}")
            else:
                of.one(session, f"batch {number}")
    survived("landings at random")

"""A life of a table at random: its commands, and what others do to table and files, also in the midst of a command.

After each step all that went is looked for in the files. Not here: what befalls a table (``random_table``).
"""

import random
from collections import Counter
from datetime import date, timedelta
from typing import Any

import psycopg

from event_archive.domain.dataset import TableName
from event_archive.domain.days import Retention, now_utc
from event_archive.errors import EventArchiveError
from event_archive.lake.protocol import Lake
from event_archive.operations.adopt import adopt_day
from event_archive.operations.restore.day import restore_day
from event_archive.operations.verify import verify_day
from event_archive.table.holds import HOLD_TABLE, hold, release
from event_archive_tests.faults.random_table import MARK, TABLE, RandomTable, Row, literal, named
from event_archive_tests.faults.watched import Picture, Watched, parsed
from event_archive_tests.fixtures.lakes import remove
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database

STEPS = 40


NEIGHBOURS = """SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
AND NOT relispartition AND oid <> %s::regclass AND relname NOT IN (%s, 'restored', 'audit') ORDER BY relname"""


class Life:
    """A table, its files, and what is known of them."""

    def __init__(self, database: Database, lake: Lake, other: psycopg.Connection[Any], seed: str) -> None:
        self.dice, self.lake, self.other = random.Random(seed), lake, other
        retention = Retention(months=0, days=30)
        last_aged = retention.last_aged_day(now_utc())
        self.days = [last_aged + timedelta(days=n) for n in (-31, -1, 0, 1)]
        self.table = RandomTable(self.dice, other, self.days)
        self.watched = Watched(lake, self.instant, "")
        self.of = Pipeline(database, self.watched).of(
            table=TABLE,
            time_column=self.table.at,
            file_prefix="t",
            retention=retention,
            purge="drop" if self.table.span and self.dice.random() < 0.6 else "delete",
            drop_empty_partitions=self.dice.random() < 0.3,
        )
        self.files: dict[date, list[Row]] = {}
        self.foreign: dict[date, tuple[bytes, dict[str, str]] | None] = {}
        self.held, self.went, self.outcome, self.verb = set[date](), 0, "", ""
        self.table.create()
        self.known = self.picture()

    # What is

    def picture(self) -> Picture:
        rows = self.copied(f"SELECT {named(self.table.at)}::date AS day, t.* FROM {TABLE} AS t")
        others = self.other.execute(NEIGHBOURS.encode(), (str(TABLE), HOLD_TABLE)).fetchall()
        return Picture(
            Counter((str(row[0][1]), row[1:]) for row in rows),
            {name: Counter(self.copied(f"SELECT * FROM {name}")) for (name,) in others},
            len(self.copied("SELECT * FROM audit")),
            self.table.triggers(),
        )

    def copied(self, query: str) -> list[Row]:
        with self.other.cursor().copy(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)".encode()) as copy:
            return parsed(b"".join(copy).decode())

    def content(self, day: date) -> tuple[bytes, dict[str, str]] | None:
        file = self.lake.stat(self.of.dataset.path(day))
        if file is None:
            return None
        with self.lake.read(file) as blocks:
            return b"".join(blocks), dict(file.metadata)

    def file(self, day: date) -> list[Row]:
        found = self.content(day)
        return parsed(found[0].decode()) if found else []

    def ranks(self, rows: list[Row]) -> dict[int, int]:
        """Numbers the keys of a file's rows, equal ones alike; without those that are no keys any more."""
        keys = [(name, kind) for name, kind, is_key in self.table.columns() if is_key]
        valid = " AND ".join(f"pg_input_is_valid(v{n}, {literal(kind)})" for n, (_, kind) in enumerate(keys))
        order = ", ".join(f"CASE WHEN {valid} THEN v{n}::{kind} END" for n, (_, kind) in enumerate(keys))
        query = f"""SELECT n, dense_rank() OVER (ORDER BY {order})
        FROM unnest({", ".join(["%s::text[]"] * len(keys))}) WITH ORDINALITY
        AS u({", ".join(f"v{n}" for n in range(len(keys)))}, n) WHERE {valid}"""
        texts = [[dict(row).get(name) for row in rows] for name, _ in keys]
        return {n - 1: rank for n, rank in self.other.execute(query.encode(), texts)}

    def current(self, rows: list[Row]) -> list[Row]:
        """The last row of each key."""
        return [rows[n] for n in {rank: n for n, rank in sorted(self.ranks(rows).items())}.values()]

    # What must be

    def audit(self, *, may_go: bool = False, may_come: date | None = None) -> None:
        """Sees that since the last picture nothing went but what the files hold, and no file lost a row.

        Nor came anything, but out of the file of a day of which it ``may_come``.
        """
        before = self.known
        now = self.known = self.picture()
        assert now.neighbours == before.neighbours, "rows of another table"
        came, gone = now.table - before.table, before.table - now.table
        assert may_come or not came, f"came: {came}"
        assert may_go or not gone, f"went: {gone}"
        if now.triggers == before.triggers:
            told = gone.total() if now.triggers & {"each", "all_"} else 0
            assert now.audited - before.audited == told, "what a trigger was told"
        for day in self.days:
            olds, self.files[day] = self.files.get(day, []), self.file(day)
            for old, new in zip(olds, self.files[day], strict=False):
                assert {name: text for name, text in new if text is not None or name in dict(old)} == dict(old), day
            assert len(self.files[day]) >= len(olds), f"rows of the file of {day}"
        for day in {date.fromisoformat(day) for day, _ in gone}:
            assert self.of.dataset.is_aged(day, now_utc()), day
            assert day not in self.held, day
            last = [dict(row) for row in self.current(self.files[day])]
            for (of, row), times in gone.items():
                if of == str(day):
                    assert times == 1, row
                    assert any(all(file.get(name) == text for name, text in row) for file in last), f"{row} in {last}"
        rows = [dict(row) for row in self.files[may_come]] if may_come else []
        for (_, row), times in came.items():
            assert times == 1, row
            assert any(all(file.get(name, text) == text for name, text in row) for file in rows), f"{row} in {rows}"
        self.went += gone.total()

    # What others do

    def instant(self) -> None:
        """Something happens in the midst of a command, or nothing."""
        if self.verb and self.dice.random() < 0.15:
            self.audit()
            self.others_do()

    def others_do(self) -> None:
        table, rows = self.table, [row for day in self.days for row in self.files.get(day, [])]
        doing = self.dice.choice(["insert"] * 4 + ["change"] * 5 + ["ddl"] * 3 + ["again"] * 2 + ["meddle"])
        if doing == "again":
            statement = table.again(self.dice.choice(rows)) if rows else "-- no row to come again"
        elif doing == "meddle":
            # A restore reads a file once, and then nobody knows which it was; a purge looks at it once more at its end.
            is_late = self.verb == "purge" and self.watched.moment == "stat"
            statement = "-- nothing" if is_late or "restore" in self.verb else f"-- {self.meddle()}"
        else:
            statement = getattr(table, doing)()
        if self.verb and "ADD ATTRIBUTE" in statement:
            # A row that was just compared reads otherwise from then on, with a NULL more: that is no loss.
            statement = "-- nothing"
        try:
            table.do(statement)
        except psycopg.Error as error:
            print("    not that:", type(error).__name__)
        self.known = self.picture()

    def meddle(self) -> str:
        """Somebody copies a file to another day, takes its manifest, or puts the right one back."""
        day, other = self.dice.sample(self.days, 2)
        found = self.content(day)
        if day in self.foreign:
            self.put_back(day)
            return f"the file of {day} is put back"
        if found is None:
            return "no file"
        if self.dice.random() < 0.5:
            self.put(day, found[0], {})
            return f"the file of {day} loses its manifest"
        if other in self.foreign:
            return "no file"
        self.foreign[other] = self.content(other)
        self.put(other, found[0], self.dice.choice([found[1], {}]))
        return f"the file of {day} is copied to {other}"

    def put(self, day: date, content: bytes, metadata: dict[str, str]) -> None:
        path = self.of.dataset.path(day)
        with self.lake.write(path, replaces=self.lake.stat(path)) as upload:
            upload.write(content)
            upload.commit(metadata)
        self.files[day] = self.file(day)

    def put_back(self, day: date) -> None:
        former = self.foreign.pop(day)
        if former:
            self.put(day, *former)
        else:
            remove(self.lake, self.of.dataset.path(day))
            self.files[day] = []

    # Commands

    def command(self, verb: str, day: date, *, alone: bool = False) -> EventArchiveError | None:
        """Does one command, with what others do meanwhile; why it refused, where it did."""
        print(verb, day)
        self.verb, self.went, self.outcome = "" if alone else verb, 0, ""
        refusal = None
        try:
            getattr(self, verb)(day)
        except EventArchiveError as error:
            print("    refused:", error)
            refusal, words = error, str(error)
            assert MARK not in words.lower(), "a value is told"
            assert any(name in words for name in (str(TABLE), self.of.dataset.path(day), "public.restored")), words
        self.verb = ""
        self.audit(may_come=day if verb == "restore_in_place" and not refusal else None)
        return refusal

    def archive(self, day: date) -> None:
        self.of.archive(day)

    def purge(self, day: date) -> None:
        if day not in self.of.records:
            return
        self.verb = self.verb and "purge"
        purged = self.of.purge(day)
        self.audit(may_go=True)
        assert purged.deleted == self.went
        self.outcome = purged.outcome
        print("   ", purged.outcome, purged.deleted, purged.left, purged.how, purged.reason)

    def run(self, day: date) -> None:
        self.archive(day)
        self.purge(day)

    def dry_run(self, day: date) -> None:
        self.archive(day)
        self.of.purge(day, dry_run=True)

    def hold(self, day: date) -> None:
        hold(self.of.dataset, day, day, "a case", self.of.postgres)
        self.held.add(day)

    def release(self, day: date) -> None:
        release(self.of.dataset, day, day, self.of.postgres)
        self.held.discard(day)

    def verify(self, day: date) -> None:
        self.verb = ""
        found = self.content(day)
        verified = verify_day(self.of.dataset, day, table=None, lake=self.of.lake)
        assert not verified.problems or not found or not found[1] or day in self.foreign, verified.problems

    def adopt(self, day: date) -> None:
        adopt_day(self.of.site, day)

    def restore(self, day: date) -> None:
        """Into a new table: each current row of the file, once."""
        try:
            restore_day(self.of.site, day, TableName("public", "restored"))
            self.verb = ""
            rows = self.file(day)
            names = [name for name, _ in rows[0]] if rows else []
            found = self.copied(f"SELECT {', '.join(map(named, names))} FROM restored")
            if not self.table.key_changed:
                assert Counter(found) == Counter(self.current(rows))
            assert not Counter(found) - Counter(rows)
        finally:
            self.other.execute("DROP TABLE IF EXISTS restored")

    def restore_in_place(self, day: date) -> None:
        restore_day(self.of.site, day, TABLE)

    def live(self) -> None:
        verbs = ["archive", "purge", "hold", "release", "verify", "restore", "restore_in_place", "dry_run", "adopt"]
        verbs += ["run", "run", "run", "archive", "purge", "release"]
        for _ in range(STEPS):
            if self.dice.random() < 0.5:
                self.others_do()
                self.audit()
            else:
                filled = {of for of, _ in self.known.table}
                # Rather a day of which there is something than any.
                full = [day for day in self.days if self.files.get(day) or str(day) in filled]
                self.command(self.dice.choice(verbs), self.dice.choice([*full * 4, *self.days]))

    def nights(self) -> None:
        """Nobody disturbs them: nothing aged stays."""
        for day in list(self.foreign):
            self.put_back(day)
        for day in self.days[:-1]:
            self.command("release", day, alone=True)
            if self.content(day):
                self.command("adopt", day, alone=True)
        for day in self.days[:-1] * 2:
            refusal = self.command("run", day, alone=True)
            left = [row for of, row in self.known.table if of == str(day)]
            # A file whose rows lack the table's key, since that got a column or another name, is a person's to mend.
            keyless = any(words in str(refusal) for words in ("lacks the key", "Nobody can tell", "is now called"))
            stays = keyless or self.outcome == "waiting"
            stays = stays or bool(self.known.triggers & {"keep", "style"})
            assert stays or not left, f"{day}: {refusal}: {left}"

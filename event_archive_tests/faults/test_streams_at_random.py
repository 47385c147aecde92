"""Lives of a stream at random: what was purged does not come back, and each record is its row's, or a newer one's.

A life is a stream to which records of a few devices and times are added, and workers that stand still in the midst of a
batch, or die there, while others work, days come of age, nights archive and purge them, and the group is lost. Each has
a number, so that the same is lived again; ``STREAMS="$(seq 100 600)"`` in the environment lives others.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import pytest

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import Retention, midnight
from event_archive.lake.protocol import Lake
from event_archive.sources.redis_stream import loop
from event_archive.sources.redis_stream.ahead import InHand
from event_archive.sources.redis_stream.group import Group
from event_archive.sources.redis_stream.loop import Loop
from event_archive.sources.runs import AgedTimes
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, position

LIVES = os.environ.get("STREAMS", "").split() or [str(number) for number in range(share_of(6))]
TURNS = 12
DAYS = [date(2024, 3, day) for day in range(1, 8)]
LAST = 5
"""So many days come of age at most."""

Key = tuple[object, object]
"""Device and time."""


class KilledError(BaseException):
    """The process ends."""


def number(entry: object) -> tuple[int, ...]:
    """An entry's id as it is compared."""
    return tuple(map(int, str(entry).split("-")))


@dataclass
class Life:
    """A stream, its table, and what is known of them."""

    stream: Stream
    lake: Lake
    dice: random.Random
    aged: int = 1
    depth: int = 0
    workers: int = 0
    gone: set[Key] = field(default_factory=set)
    added: dict[str, tuple[Key, date]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dataset = Dataset(
            *(TableName("public", "positions"), "ts", "folder", "positions", Retention.parse("1 year"), DAYS[0]),
            purge=self.dice.choice(["drop", "delete"]),
            drop_empty_partitions=self.dice.random() < 0.5,
        )
        self.archive = Pipeline(self.stream.database, self.lake, self.dataset)

    def aged_times(self, *_: object) -> AgedTimes:
        return AgedTimes(midnight(DAYS[0]), midnight(DAYS[self.aged]))

    def rows(self, day: date | None = None) -> dict[Key, str]:
        """The entry of each row that stands, of a day or of all."""
        first, end = (day or DAYS[0], (day or DAYS[-1]) + timedelta(days=1))
        query = "SELECT device_id, ts, stream_id FROM positions WHERE ts >= %s AND ts < %s"
        found = self.stream.database.execute(query, midnight(first), midnight(end))
        return {(device, ts): str(entry) for device, ts, entry in found}

    # What happens

    def add(self) -> None:
        for _ in range(self.dice.randint(1, 4)):
            day = self.dice.choice(DAYS[self.aged - 1 : self.aged + 2])
            of = self.dice.randint(0, 2)
            (entry,) = self.stream.add(position(of, timestamp=f"{day}T0{of}:00:00Z", latitude=len(self.added) % 90))
            time = datetime(day.year, day.month, day.day, of, tzinfo=UTC)
            self.added[entry.decode()] = (f"device-{of}", time), day
            print("  " * self.depth, "add", entry, day, of)

    def age(self) -> None:
        self.aged = min(self.aged + 1, LAST)
        print("  " * self.depth, "aged until", DAYS[self.aged])

    def night(self) -> None:
        """Once the first pass is over."""
        database = self.stream.database
        [(exists,)] = database.execute("SELECT to_regclass('stream_groups') IS NOT NULL")
        if not exists or (True,) not in database.execute("SELECT first_pass_at IS NOT NULL FROM stream_groups"):
            return
        for day in DAYS[: self.aged]:
            rows = self.rows(day)
            if rows:
                purged = self.archive.run(day)
                print("  " * self.depth, "night", day, purged.outcome, purged.deleted)
                self.gone |= rows.keys() - self.rows(day).keys()

    def lose_group(self) -> None:
        if self.dice.random() < 0.2:
            self.stream.server.redis.xgroup_destroy(KEY, GROUP)

    def run(self) -> None:
        self.workers += 1
        name, asked = self.dice.choice(["a", "b", f"c{self.workers}"]), 0

        def told_to_stop() -> bool:
            nonlocal asked
            asked += 1
            return self.stream.is_drained() or asked > 40

        consumer = self.stream.consumer(
            datasets=[self.dataset],
            told_to_stop=told_to_stop,
            stream_consumer=name,
            stream_batch=self.dice.choice([1, 2, 50]),
            stream_claim_idle="1 second",
        )
        try:
            consumer.run()
        except KilledError:
            print("  " * self.depth, "killed", name)

    def stand_still(self) -> None:
        """Meanwhile something happens, or nothing; or the worker dies."""
        if self.depth >= 2 or self.dice.random() > 0.3:
            return
        self.depth += 1
        try:
            for _ in range(self.dice.randint(1, 3)):
                self.dice.choice([self.add, self.run, self.run, self.age, self.night, self.lose_group])()
        finally:
            self.depth -= 1
        self.check()
        if self.dice.random() < 0.15:
            raise KilledError

    # What must be

    def check(self) -> None:
        rows = self.rows()
        assert not rows.keys() & self.gone, "what was purged came back"
        for day in DAYS:
            last: dict[Key, tuple[int, ...]] = {}
            for key, entry in self.filed(day):
                assert last.get(key, ()) < number(entry), "an older record behind a newer one"
                last[key] = number(entry)

    def filed(self, day: date) -> list[tuple[Key, str]]:
        if self.lake.stat(self.dataset.path(day)) is None:
            return []
        records = self.archive.records_of_file(day)
        return [((of["device_id"], datetime.fromisoformat(of["ts"])), of["stream_id"]) for of in records]

    def live(self) -> None:
        for _ in range(TURNS):
            self.add()
            self.run()
            self.check()
            if self.dice.random() < 0.5:
                self.age()
            if self.dice.random() < 0.6:
                self.night()
        self.depth = 2
        for _ in range(2):
            self.stream.run(datasets=[self.dataset], stream_consumer="end", stream_claim_idle="1 second")
        self.check()
        rows = self.rows()
        for entry, (key, day) in self.added.items():
            assert day < DAYS[self.aged] or number(rows[key]) >= number(entry), (entry, key)


@pytest.mark.parametrize("life", LIVES)
def test_a_life_of_a_stream_at_random_loses_no_record_and_brings_none_back(
    stream: Stream, local_lake: Lake, monkeypatch: pytest.MonkeyPatch, life: str
):
    lived = Life(stream, local_lake, random.Random(life))
    monkeypatch.setattr(loop, "aged_times", lived.aged_times)
    monkeypatch.setattr(loop, "aged_by_now", lived.aged_times)
    land, acknowledge = Loop._land, Group.acknowledge

    def slowly_landed(of: Loop, batch: InHand) -> None:
        lived.stand_still()
        land(of, batch)

    def slowly_acknowledged(of: Group, ids: Sequence[bytes]) -> None:
        lived.stand_still()
        acknowledge(of, ids)
        lived.stand_still()

    monkeypatch.setattr(Loop, "_land", slowly_landed)
    monkeypatch.setattr(Group, "acknowledge", slowly_acknowledged)
    lived.live()
    survived("lives: streams at random")

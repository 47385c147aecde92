"""Lives of log files at random: table and files hold the entries of the versions that were loaded, each once.

A life is a folder, a bucket or a container of files that are written, grow, are replaced, damaged, renamed, removed and
put back, also while a run reads them, and runs of one worker or two that end early, while days come of age and are
archived and purged. Each has a number, so that the same is lived again; ``LOG_FILES="$(seq 100 600)"`` in the
environment lives others. Not here: stores that fail.
"""

import gzip
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from event_archive.lake.protocol import Lake
from event_archive.sources.log_files import ingest
from event_archive.sources.log_files.rows import id_prefix
from event_archive_tests.faults.ageing import Ageing
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.log_files import Logs, ndjson
from event_archive_tests.fixtures.places import Place

LIVES = os.environ.get("LOG_FILES", "").split() or [str(number) for number in range(share_of(8))]
RUNS = 10
START = datetime(2024, 3, 1, tzinfo=UTC)
NAMES = ("a.log", "b.log", "old/2024-02-28.log", "c.gz", "d")


@dataclass(frozen=True)
class Version:
    """What a file holds: entries by number, a broken line, or damage."""

    entries: tuple[int, ...]
    content: bytes
    broken: bytes = b""
    is_damaged: bool = False


class KilledError(Exception):
    """The process ends."""


class Life:
    """A folder, a table, and what must stand there."""

    def __init__(self, logs: Logs, place: Place, lake: Lake, seed: str) -> None:
        self.dice, self.logs, self.place = random.Random(seed), logs, place
        self.now = START + timedelta(days=5)
        self.ageing = Ageing(logs.database, lake, "logs", self.dice.choice([1, 3]), lambda: self.now)
        self.times: list[datetime] = []
        self.versions: dict[tuple[str, str], Version] = {}
        self.present: dict[str, str] = {}
        self.removed: list[tuple[str, Version, str]] = []
        self.of_first_pass, self.is_listed = set[str](), False
        self.loaded: dict[str, str] = {}
        self.stands: dict[tuple[str, str], set[int]] = {}
        self.boundaries: list[datetime] = []

    # What others do to the files

    def entry(self) -> int:
        self.times.append(self.now - timedelta(hours=self.dice.choice([0, 0, 5, 20, 40, 60, 90])))
        return len(self.times) - 1

    def text(self, number: int) -> dict[str, object]:
        return {"level": 30, "time": self.times[number].isoformat(), "msg": f"entry {number}", "number": number}

    def version(self, entries: Iterable[int]) -> Version:
        """The bytes of some entries, in one of the forms that files have."""
        numbers = tuple(entries)
        texts = [self.text(number) for number in numbers]
        pick = self.dice.choice(["lines", "lines", "broken", "gzip", "members", "array", "cut gzip", "cut array"])
        lines, array, middle = ndjson(*texts), json.dumps(texts).encode(), len(texts) // 2
        match pick:
            case "lines":
                return Version(numbers, lines)
            case "broken":
                # As of a file that is just written to.
                last = json.dumps(self.text(0) if numbers else {})[:-5].encode()
                return Version(numbers, lines + last, last)
            case "gzip":
                return Version(numbers, gzip.compress(lines))
            case "members":
                return Version(numbers, gzip.compress(ndjson(*texts[:middle])) + gzip.compress(ndjson(*texts[middle:])))
            case "array":
                return Version(numbers, array)
            case "cut gzip":
                return Version(numbers, gzip.compress(lines)[:-6], is_damaged=True)
        return Version(numbers, array[:-1], is_damaged=True)

    def write(self, name: str, version: Version, former: str | None = None) -> None:
        """A version with a time of its own; or as it was, by its former ETag."""
        key, etag = self.place.key(name), self.place.write(name, version.content, former)
        self.present[key], self.versions[key, etag] = etag, version

    def some(self) -> list[int]:
        return [self.entry() for _ in range(self.dice.randint(0, 6))]

    def change(self) -> None:
        """Something happens to a file."""
        name = self.dice.choice(NAMES)
        key = self.place.key(name)
        current = self.versions.get((key, self.present.get(key, "")))
        former = current.entries if current else ()
        doing = self.dice.choice(["grow"] * 4 + ["replace", "truncate", "remove", "put back", "rename"])
        print("   ", doing, name)
        if doing == "put back" and self.removed:
            self.write(*self.dice.choice(self.removed))
        elif doing in ("remove", "rename") and current:
            self.removed.append((name, current, self.present.pop(key)))
            self.place.remove(name)
            if doing == "rename":
                self.write(self.dice.choice([other for other in NAMES if other != name]), current)
        elif doing == "replace":
            self.write(name, self.version(self.some()))
        elif doing == "truncate":
            self.write(name, self.version(former[: len(former) // 2]))
        else:
            self.write(name, self.version([*former, *self.some()]))

    # Runs

    def run(self, *, quiet: bool = False) -> None:
        workers = 2 if self.dice.random() < 0.3 else 1
        ends_at = None if quiet or workers == 2 or self.dice.random() < 0.6 else self.dice.randint(1, 25)
        is_killed, meddles = self.dice.random() < 0.5, not quiet and workers == 1 and self.dice.random() < 0.5
        self.logs.wait_no_more()
        anew = not quiet and self.dice.random() < 0.1 and self.is_listed
        if not self.is_listed:
            self.of_first_pass |= self.present.keys()
        limit = None if quiet or self.dice.random() < 0.8 else 2
        before, asked, self.boundaries = dict(self.present), 0, [self.ageing.young_from]

        def told_to_stop() -> bool:
            nonlocal asked
            asked += 1
            if meddles and self.dice.random() < 0.2:
                self.meddle()
            if ends_at is None or asked < ends_at:
                return False
            if is_killed:
                raise KilledError
            return True

        def work(asked_for: Callable[[], bool]) -> str:
            try:
                return self.logs.run(
                    datasets=self.ageing,
                    told_to_stop=asked_for,
                    limit=limit,
                    anew=anew,
                    logs_max_attempts=100,
                    **self.place.variables,
                ).ended
            except KilledError:
                return "killed"

        if workers == 1:
            ended = [work(told_to_stop)]
        else:
            with ThreadPoolExecutor(2) as pool:
                ended = list(pool.map(work, [lambda: False] * 2))
        print(self.now, ended, ends_at, self.boundaries)
        self.look()
        # Of two, one may find none that waits while the other gives one back, and ends at its limit.
        if "complete" in ended and "limit" not in ended and self.present == before:
            for key, etag in before.items():
                assert self.versions[key, etag].is_damaged or self.loaded.get(key) == etag, key

    def meddle(self) -> None:
        """In the midst of a run: a file changes, or a day comes of age and is archived."""
        if self.dice.random() < 0.5:
            self.change()
            return
        self.now += timedelta(days=1)
        self.boundaries.append(self.ageing.young_from)
        for day in self.ageing.aged_days():
            self.ageing.archive(day)

    def look(self) -> None:
        """Which versions have been loaded since, and whether their entries are what stands."""
        database = self.logs.database
        [(exists,)] = database.execute("SELECT to_regclass('log_listing') IS NOT NULL")
        if exists:
            listed = database.execute("SELECT first_pass_at IS NOT NULL FROM log_listing")
            self.is_listed = bool(listed and listed[0][0])
        if exists:
            loaded = database.execute("SELECT key, loaded_etag FROM processed_files WHERE loaded_etag IS NOT NULL")
            for key, etag in loaded:
                if self.loaded.get(str(key)) != etag:
                    self.load(str(key), str(etag))
            self.check()

    def load(self, key: str, etag: str) -> None:
        """What docs/howto/logs.md says of a version that is loaded, by the first of the run's boundaries that fits."""
        found = self.found()
        is_first = key in self.of_first_pass and key not in self.loaded
        for young_from in self.boundaries:
            stands = {
                (of, version): {n for n in numbers if of != key or self.times[n] < young_from}
                for (of, version), numbers in self.stands.items()
            }
            new = {n for n in self.versions[key, etag].entries if is_first or self.times[n] >= young_from}
            stands[key, etag] = stands.get((key, etag), set()) | new
            if all(numbers == found.get(of, set()) for of, numbers in stands.items() if of[0] == key):
                break
        self.stands, self.loaded[key] = stands, etag

    def found(self) -> dict[tuple[str, str], set[int]]:
        """The entries that stand, in the table or in files, by file and version."""
        of = {id_prefix(self.place.bucket, *version): version for version in self.versions}
        rows = self.logs.database.execute("SELECT id, raw_data FROM logs")
        texts = {str(key): data for key, data in rows}
        filed = self.ageing.filed()
        assert len({row["id"] for row in filed}) == len(filed), "twice in the files"
        assert not self.ageing.gone & texts.keys(), "what was purged came back"
        assert self.ageing.gone <= {row["id"] for row in filed}, "purged, and in no file"
        texts |= {row["id"]: json.loads(row["raw_data"]) for row in filed}
        found: dict[tuple[str, str], set[int]] = {}
        for key, data in texts.items():
            assert isinstance(data, dict)
            number = data["number"]
            assert data == self.text(number)
            numbers = found.setdefault(of[key.partition(".")[0]], set())
            assert number not in numbers, "an entry twice"
            numbers.add(number)
        return found

    def check(self) -> None:
        found = self.found()
        for version in found.keys() | self.stands.keys():
            assert found.get(version, set()) == self.stands.get(version, set()), version
        rejected = self.logs.database.execute("SELECT raw FROM rejected_records")
        broken = [self.versions[version].broken for version in self.loaded.items()]
        assert Counter(bytes(raw) for (raw,) in rejected) == Counter(filter(None, broken))  # type: ignore[call-overload]

    def nights(self) -> None:
        for day in self.ageing.aged_days():
            (self.ageing.night if self.dice.random() < 0.8 else self.ageing.archive)(day)
        self.check()

    def live(self) -> None:
        for _ in range(RUNS):
            self.now += timedelta(hours=self.dice.choice([0, 1, 6, 20]))
            for _ in range(self.dice.randint(0, 5)):
                self.change()
            self.run()
            if self.is_listed and self.dice.random() < 0.6:
                self.nights()
        self.run(quiet=True)


@pytest.mark.parametrize("life", LIVES)
def test_a_life_of_log_files_at_random_loses_and_doubles_no_entry(
    logs: Logs, place: Place, local_lake: Lake, monkeypatch: pytest.MonkeyPatch, life: str
):
    monkeypatch.setattr(ingest, "AGES_SECONDS", 0)
    lived = Life(logs, place, local_lake, life)
    lived.live()
    survived("lives: log files at random")

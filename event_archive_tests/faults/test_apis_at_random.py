"""Lives of APIs at random: each event that is promised stands once, whatever the API, the settings and the days do.

A life is an API of some order, pages and manners, and runs over it with settings that change, while events arrive,
late ones too, requests fail, runs end early, and days come of age and are archived and purged. Each has a number, so
that the same is lived again; ``APIS="$(seq 100 600)"`` in the environment lives others. Not here: what
docs/howto/api.md does not promise.
"""

import json
import os
import random
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from event_archive.domain.days import ONE_DAY, midnight
from event_archive.lake.protocol import Lake
from event_archive.sources.http_api import limiter, windows, workers
from event_archive.sources.http_api.ingest import Ingestion
from event_archive.sources.http_api.task import Totals
from event_archive_tests.api_server.clock import FakeClock
from event_archive_tests.api_server.switches import Fault, cursor_expired, status
from event_archive_tests.faults.ageing import Ageing
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.faults.turns import Minutes, Told, Turns
from event_archive_tests.fixtures.api import ServeApi
from event_archive_tests.fixtures.ingestion import Ingesting
from event_archive_tests.fixtures.postgres import Database

# In the last two purged events came back: where a window was given up whose later pass had been stopped, and where a
# pass over one was gone on with whose first page had seemed to ascend.
LIVES = os.environ.get("APIS", "").split() or [*map(str, range(share_of(20))), "120", "859"]
RUNS = 10
START = datetime(2024, 3, 1, tzinfo=UTC)
BACKLOG = timedelta(days=5)
ORDERS = ("came", "time", "kind", "kind, newest first")
WINDOWS = ("12 hours", "2 days", "30 days")


class KilledError(Exception):
    """The process ends."""


class Life:
    """An API, what it has shown, and what is known of it."""

    def __init__(self, database: Database, lake: Lake, serve_api: ServeApi, seed: str) -> None:
        self.dice = random.Random(seed)
        pick = self.dice.choice
        self.order, self.newest_first = pick(ORDERS), pick([True, False])
        self.is_filtered, self.overlap = self.dice.random() < 0.7, timedelta(minutes=pick([1, 10, 60]))
        self.may_refuse = not (self.order.startswith("kind") and self.is_filtered)
        self.late = self.overlap * pick([0, 0.3, 0.99])
        self.clock = FakeClock((START + BACKLOG).timestamp())
        self.ahead = timedelta(seconds=pick([0, 0, -1800, 1800]))
        # Lives that are named above keep a right clock: a wrong one would change what they found.
        self.clocks = random.Random(f"{seed} clocks") if int(seed) % 4 in (1, 2) else None
        # Devices that were offline send what they kept: only by a filter of time is that too late.
        is_sent_later = self.order == "came" and not self.is_filtered
        self.devices = random.Random(f"{seed} devices") if is_sent_later else None
        self.sent = self.devices.choice([0, 0.05, 0.3]) if self.devices else 0
        # Nothing has come but what a device kept: until something else has, all is read once a day alone.
        self.is_alone = self.devices is not None and self.devices.random() < 0.5
        self.pagination = pick(["cursor", "cursor", "page", "offset", "link"])
        self.events = Told(lambda: None)
        self.times: dict[str, datetime] = {}
        self.texts: dict[str, bytes] = {}
        has_duplicates = self.pagination != "link" and pick([False, False, True])
        api = serve_api(
            self.events,
            self.clock,
            order="newest" if self.newest_first else "oldest",
            pagination=self.pagination,
            envelope=pick(["flat", "pagination", "nested"]),
            time_filter=self.is_filtered,
            max_limit=pick([4, 15, 5000]),
            more_until_empty=not has_duplicates and pick([True, False]),
            with_total=pick([True, False]),
            cursor_seconds=pick([600, 10**6]) if self.may_refuse else 10**6,
            clock_error_seconds=self.ahead.total_seconds(),
            duplicates_at_borders=int(has_duplicates),
        )
        self.ingesting = Ingesting(database, api, self.clock)
        self.ageing = Ageing(database, lake, "ingested_events", pick([1, 2, 4]), self._now)
        self.mode = pick(self.modes())
        self.due, self.too_old, self.is_first = set[str](), 0, True
        self.began: dict[bool, set[str] | None] = {True: None, False: None}
        self.reached = START
        print({name: told for name, told in vars(self).items() if isinstance(told, bool | str | timedelta)})
        print(api.switches.model_dump(exclude_defaults=True))
        self.backlog()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)

    # What the API has

    def backlog(self) -> None:
        """What there is before the first run; of several kinds, each, so that their order shows."""
        seconds = int(BACKLOG.total_seconds())
        first: list[tuple[int, int | None]] = [
            (self.dice.randrange(seconds), None) for _ in range(self.dice.randint(20, 60))
        ]
        first += [(hours * 3600 + kind, kind) for kind in range(3) for hours in (1, 110)]
        if self.devices and self.is_alone:
            self.send(self.devices.choice([1, 3, 12, 30]))
            return
        for second, kind in sorted(first, key=lambda of: of[0]):
            self.arrive(START + timedelta(seconds=second), kind)

    def arrive(self, seen: datetime, kind: int | None = None) -> None:
        """An event becomes visible."""
        number, kind = len(self.times), self.dice.randrange(3) if kind is None else kind
        moment = seen - timedelta(seconds=int(self.dice.uniform(0, self.late.total_seconds())))
        text = {"id": f"e{number}", "type": f"k{kind}", "timestamp": moment.isoformat(), "n": number}
        if self.dice.random() < 0.05:
            text |= self.dice.choice([{"timestamp": None}, {"n": "a\0"}])
        body, time = json.dumps(text).encode(), int(moment.timestamp()) * 1_000_000
        self.times[f"e{number}"], self.texts[f"e{number}"] = moment, body
        place = {"came": 0, "time": time, "kind": kind * 10**18 + time}.get(self.order, kind * 10**18 - time)
        self.events.held[place * 10**6 + number] = time, body

    def at_request(self) -> None:
        """In the API's own thread, while the client waits for it."""
        self.clock.sleep(self.dice.choice([0, 0, 1, 30]))
        if self.dice.random() < 0.2:
            self.some_arrive(3)

    def some_arrive(self, most: int) -> None:
        for _ in range(self.dice.randint(0, most)):
            self.arrive(self._now() + self.ahead)

    def some_are_sent(self) -> None:
        """A device that was offline sends what it kept, in one order or the other."""
        if self.devices and self.devices.random() < self.sent:
            self.send(self.devices.randint(1, 20))

    def send(self, count: int) -> None:
        """A device sends so many events."""
        dice = self.devices or self.dice
        until, step = dice.randint(60, 200_000), dice.choice([-900, -60, -1, 1, 60, 900])
        for place in range(count):
            self.arrive(self._now() + self.ahead - timedelta(seconds=max(0, until + place * step)))

    # Runs

    def modes(self) -> list[str]:
        by_time = self.order == "time" and not self.newest_first
        modes = [] if by_time and self.late and self.is_filtered else [""]
        if by_time and self.late and not self.is_filtered:
            # On from its last page: nobody finds what becomes visible late.
            self.late = timedelta(0)
        return modes + (["filter", *WINDOWS] if self.is_filtered else [])

    def variables(self) -> dict[str, Any]:
        given: dict[str, Any] = {
            "api_overlap": f"{self.overlap.total_seconds():.0f} seconds",
            "api_page_limit": self.dice.choice([2, 2, 5, 25]),
            "api_pagination": self.pagination,
            "api_concurrency": 1,
            "api_start": "2024-02-29",
        }
        if self.mode == "filter":
            given["api_time_filter"] = "since,until"
        elif self.mode:
            given["api_shard"] = self.mode
        return given

    def faults(self) -> list[Fault]:
        first = partial(self.dice.randint, 1, 8)
        kinds = ["500", "429", "504", "away", *["cursor"] * (3 if self.may_refuse else 0)]
        made = {
            "500": lambda: status(500, first=first(), count=2),
            "429": lambda: status(429, first=first()),
            "504": lambda: status(504, first=first()),
            "away": lambda: status(500, first=first(), count=None),
            "cursor": lambda: cursor_expired(first=first()),
        }
        return [made[self.dice.choice(kinds)]() for _ in range(self.dice.choice([0, 0, 1, 2]))]

    def run(self, *, quiet: bool = False) -> bool:
        """One run; whether it came to the end."""
        variables, faults = self.variables(), [] if quiet else self.faults()
        self.ingesting.api.set(faults=faults)
        most = None if quiet or self.dice.random() < 0.5 else self.dice.randint(1, 8)
        is_killed = self.dice.random() < 0.3
        self.events.at_request = (lambda: None) if quiet else self.at_request
        Turns.pages = self.dice.choice([1, 1, 2, 5])
        wrong = self.clocks.choice([0, 0, -8, 1, 8]) if self.clocks and not quiet else 0
        clock = Minutes(self.clock, ahead=timedelta(hours=wrong))
        # What lies ahead of our clock may be of a window that is not planned yet.
        before, totals = {key for key, moment in self.times.items() if moment <= clock.now()}, Totals()

        def told_to_stop() -> bool:
            if most is None or totals.pages < most:
                return False
            if is_killed:
                raise KilledError
            return True

        try:
            Ingestion(
                self.ingesting.settings(**variables),
                self.ageing,
                told_to_stop,
                clock,
                totals=totals,
            ).run()
        except KilledError:
            totals.ended = "killed"
        is_complete = totals.ended == "complete" and not totals.failures
        self.too_old += totals.counts.too_old
        told = [(of.status, of.first, of.count) for of in faults]
        print(f"{self._now()} {wrong=} {self.mode!r} pages of {variables['api_page_limit']} by {Turns.pages}")
        print(f"    {told=} {most=}")
        print(f"    {totals.ended} {totals.failures} {totals.counts} {totals.watermark} {totals.pages} pages")
        assert totals.counts.balance == 0
        whole = self.mode in ("", "filter")
        if self.began[whole] is None:
            self.reached = max((self.times[key] for key in before), default=START)
        if is_complete:
            self.due |= before if self.began[whole] is None else self.began[whole] or set()
            self.began[whole] = None
        elif self.began[whole] is None:
            self.began[whole] = before
        self.check(is_complete=is_complete)
        if is_complete:
            self.is_first = False
        return is_complete

    def check(self, *, is_complete: bool) -> None:
        database, ageing = self.ingesting.database, self.ageing
        rows = {str(key): data for key, data in database.execute("SELECT id, data FROM ingested_events")}
        filed = {row["id"]: json.loads(row["data"]) for row in ageing.filed()}
        rejected = [bytes(raw) for (raw,) in database.execute("SELECT raw FROM rejected_records")]  # type: ignore[call-overload]
        assert not ageing.gone & rows.keys(), "what was purged came back"
        assert len(filed) == len(ageing.filed()), "twice in the files"
        assert ageing.gone <= filed.keys(), "purged, and in no file"
        assert len({*rejected}) == len(rejected), "rejected twice"
        for key, data in [*rows.items(), *filed.items()]:
            assert data == json.loads(self.texts[key])
        odd = {str(json.loads(raw)["id"]): raw for raw in rejected}
        assert all(self.texts[key] == raw for key, raw in odd.items())
        assert not odd.keys() & (rows.keys() | filed.keys()), "a row, and rejected"
        stands = rows.keys() | filed.keys() | odd.keys()
        if is_complete and not self.is_alone:
            missing = self.due - stands
            young = {key for key in missing if self.times[key] >= ageing.young_from or self.is_first}
            assert not young, f"{len(young)} are missing: {young}"
            assert len(missing) <= self.too_old, f"missing and not too old: {missing}"

    def is_left_alone(self, day: date) -> bool:
        """Whether no later pass asks for events of a day: over a window that is not over, one does by the overlap."""
        return self.mode not in WINDOWS or midnight(day + ONE_DAY) <= self.reached - self.overlap

    def live(self) -> None:
        for number in range(RUNS):
            for _ in range(0 if self.is_alone and number == 0 else 2):
                self.clock.sleep(self.dice.choice([0, 60, 3600, 20_000, 40_000]))
                self.some_arrive(6)
                self.some_are_sent()
            if not self.is_first and self.dice.random() < 0.2:
                self.mode = self.dice.choice(self.modes())
            # What only a pass that was stopped has taken is not known to have arrived.
            if self.run() and self.dice.random() < 0.8:
                for day in filter(self.is_left_alone, self.ageing.aged_days()):
                    (self.ageing.night if self.dice.random() < 0.8 else self.ageing.archive)(day)
                self.check(is_complete=False)
        self.clock.sleep(86_400)
        for number in range(3):
            self.is_alone &= number < 2
            assert self.run(quiet=True), "it does not come to the end"
        assert self.due == self.times.keys()


@pytest.mark.parametrize("life", LIVES)
def test_a_life_of_an_api_at_random_loses_and_doubles_no_event(
    database: Database, local_lake: Lake, serve_api: ServeApi, monkeypatch: pytest.MonkeyPatch, life: str
):
    monkeypatch.setattr(workers, "Buffer", Turns)
    monkeypatch.setattr(limiter, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(windows, "_SPLIT_ABOVE_PAGES", 3)
    monkeypatch.setattr(windows, "_PAGES_OF_A_PART", 2)
    Life(database, local_lake, serve_api, life).live()
    survived("lives: APIs at random")

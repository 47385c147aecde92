"""The order of days: its rules one by one, then night after night with days of every kind."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_archive.domain.days import ONE_DAY
from event_archive.nightly.plan import CYCLE, Attempt, plan

FIRST = date(2024, 3, 1)
DAYS = [FIRST + n * ONE_DAY for n in range(12)]
A_NIGHT = datetime(2026, 1, 1, 2, tzinfo=UTC)


def at(night: int) -> datetime:
    return A_NIGHT + night * ONE_DAY


def tried(night: int, *, failed: bool = False) -> Attempt:
    return Attempt(at(night).isoformat(timespec="seconds"), failed)


def first_day_of(days: list[date], attempts: dict[date, Attempt], nights: range) -> list[date]:
    """What each of some nights would do whose budget is one day."""
    return [plan(days, attempts, (), now=at(night), most=1)[0] for night in nights]


def test_days_never_tried_go_by_age():
    assert plan(reversed(DAYS), {}, (), now=at(0)) == DAYS


def test_days_tried_before_go_by_their_last_try_then_by_age():
    attempts = {DAYS[0]: tried(2), DAYS[1]: tried(1), DAYS[2]: tried(2)}
    assert plan(DAYS[:3], attempts, (), now=at(3)) == [DAYS[1], DAYS[0], DAYS[2]]


def test_a_dry_run_is_a_try_and_no_failure():
    attempts = {DAYS[0]: tried(0)}
    assert first_day_of(DAYS[:2], attempts, range(1, 6)).count(DAYS[1]) == CYCLE - 1


def test_with_as_many_new_days_as_slots_a_failed_day_still_gets_a_place():
    attempts = {DAYS[0]: tried(0, failed=True)}
    for night in range(1, 12):
        assert DAYS[0] in plan(DAYS, attempts, (), now=at(night), most=CYCLE)


@pytest.mark.parametrize("hours", [1, 6, 24, 168])
def test_runs_of_one_day_serve_a_failed_day_once_in_five_however_often_they_come(hours: int):
    attempts = {DAYS[0]: tried(0, failed=True)}
    moments = [A_NIGHT + timedelta(hours=hours * n) for n in range(CYCLE)]
    chosen = [plan(DAYS, attempts, (), now=moment, most=1)[0] for moment in moments]
    assert chosen.count(DAYS[0]) == 1


def test_among_failed_days_the_one_that_waited_longest_comes_first():
    attempts = {DAYS[0]: tried(3, failed=True), DAYS[1]: tried(1, failed=True), DAYS[2]: tried(2, failed=True)}
    assert plan(DAYS[:3], attempts, (), now=at(4)) == [DAYS[1], DAYS[2], DAYS[0]]


def test_held_days_come_after_all_others_even_after_failed_ones():
    attempts = {DAYS[1]: tried(0, failed=True), DAYS[2]: tried(0)}
    for night in range(1, 1 + CYCLE):
        assert plan(DAYS[:3], attempts, {DAYS[0]}, now=at(night))[-1] == DAYS[0]


@dataclass
class Nights:
    """A table night after night: a day that is tried is emptied, unless it fails, is held, or fills up again."""

    failing: set[date]
    filling: set[date]
    slow: set[date]
    held: set[date]
    holding: set[date]
    hours: int
    slots: int | None = None
    budget: int | None = None
    newcomers: int = 0
    attempts: dict[date, Attempt] = field(default_factory=dict)

    def run(self, nights: int) -> Iterator[set[date]]:
        """The days that each night tries."""
        youngest = max(self.holding, default=FIRST)
        for night in range(nights):
            now = A_NIGHT + timedelta(hours=self.hours * night)
            arrived = {youngest + (n + 1) * ONE_DAY for n in range(self.newcomers)}
            youngest = max({youngest, *arrived})
            self.holding |= arrived
            in_order = plan(self.holding, self.attempts, self.held, now=now)
            assert sorted(in_order) == sorted(self.holding)
            assert plan(self.holding, self.attempts, self.held, now=now, most=self.slots) == in_order[: self.slots]
            done = set(self._cut(in_order))
            stamp = now.isoformat(timespec="seconds")
            self.attempts |= {day: Attempt(stamp, day in self.failing) for day in done}
            self.holding -= done - self.failing - self.filling - self.held
            yield done

    def _cut(self, in_order: list[date]) -> Iterator[date]:
        """What a night gets to. A budget lets the first day through, and ends after the day that uses it up."""
        spent = 0
        for day in in_order[: self.slots]:
            if spent and self.budget is not None and spent >= self.budget:
                return
            spent += max(1, self.budget or 0) if day in self.slow else 1
            yield day


KINDS = ("healthy", "failing", "filling", "held")
World = tuple[Nights, dict[date, str]]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    kinds = dict(zip(DAYS, draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=len(DAYS))), strict=False))

    def of(kind: str) -> set[date]:
        return {day for day in kinds if kinds[day] == kind}

    slow = draw(st.sets(st.sampled_from(sorted(kinds))))
    limit = draw(st.sampled_from(["slots", "budget"]))
    amount = draw(st.integers(1, 7))
    before = draw(st.dictionaries(st.sampled_from(sorted(kinds)), st.builds(tried, st.integers(-9, -1))))
    nights = Nights(
        failing=of("failing"),
        filling=of("filling"),
        slow=slow,
        held=of("held"),
        holding=set(kinds),
        hours=draw(st.sampled_from([1, 6, 24, 168])),
        newcomers=draw(st.integers(0, 2)),
        attempts={day: Attempt(attempt.at, kinds[day] == "failing") for day, attempt in before.items()},
        **{limit: amount},
    )
    return nights, kinds


def last_wait(nights: list[set[date]], day: date) -> int:
    """The most nights in a row that did not try a day."""
    tries = [-1, *(night for night, done in enumerate(nights) if day in done), len(nights)]
    return max(later - earlier for earlier, later in pairwise(tries)) - 1


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(worlds())
def test_every_healthy_day_is_done_and_every_failing_one_tried_again_within_a_bound(
    world: World,
):
    nights, kinds = world
    count = len(kinds)
    # A queue of tried or failed days owns one place in five; before that, a day stands once among the new ones.
    bound = CYCLE * count + CYCLE * ceil(count / (CYCLE - 2))
    done = list(nights.run(2 * bound))
    for day, kind in kinds.items():
        if kind == "healthy":
            assert any(day in tried_days for tried_days in done[:bound]), f"{day} was not done in {bound} nights"
        if kind in ("failing", "filling"):
            assert last_wait(done, day) <= bound, f"{day} waited longer than {bound} nights"


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(worlds())
def test_held_days_keep_nobody_waiting(world: World):
    nights, _ = world
    for night in range(CYCLE):
        now = at(night)
        without = plan(nights.holding - nights.held, nights.attempts, (), now=now)
        assert plan(nights.holding, nights.attempts, nights.held, now=now)[: len(without)] == without

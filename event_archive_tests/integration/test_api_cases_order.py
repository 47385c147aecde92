"""Events that come newest first, become visible late, change, or belong to a day that is archived already.

The numbers in the comments are those of the hardest cases of an API ingestion.
"""

import json
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import Retention, midnight, now_utc
from event_archive.sources.http_api import crew, workers
from event_archive.sources.landing import Counts, land_in
from event_archive_tests.api_server.events import START, Events
from event_archive_tests.api_server.switches import cursor_expired, status
from event_archive_tests.fixtures.ingestion import Ingest
from event_archive_tests.fixtures.pipeline import SPECIFICATION

pytestmark = pytest.mark.slow

SHORT: dict[str, Any] = {"api_overlap": "10 seconds"}
FILTER: dict[str, Any] = {"api_time_filter": "since,until", **SHORT}
WINDOWS: dict[str, Any] = {"api_shard": "1 day", "api_start": "2024-03-01", **SHORT}
ENDED = START + timedelta(seconds=500)
"""When the last of 500 events has come."""


def event(identifier: str, moment: datetime, kind: str = "added") -> str:
    return json.dumps({"id": identifier, "timestamp": moment.isoformat(), "type": kind})


@pytest.fixture
def two_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """One page waits to be landed, and one more is on its way, however busy the machine is."""
    monkeypatch.setattr(workers, "_BUFFER_BYTES", 1)


# 8: oldest first while events arrive

UNTIL_EMPTY = {"no word of more": {"envelope": "bare"}, "more until empty": {"more_until_empty": True}}


@pytest.mark.parametrize("switches", UNTIL_EMPTY.values(), ids=UNTIL_EMPTY)
@pytest.mark.parametrize("missing_pages", [False, True], ids=["an empty page", "404"])
@pytest.mark.parametrize("pagination", ["page", "offset"])
def test_a_short_page_that_is_filled_up_while_the_next_is_asked_for_is_not_passed_over(
    ingest: Ingest, pagination: str, missing_pages: bool, switches: dict[str, Any]
):
    ingesting = ingest(
        210, pagination=pagination, missing_pages=missing_pages, arriving=25, arriving_requests=4, **switches
    )
    totals = ingesting.run(api_pagination=pagination)
    assert (totals.ended, totals.failures, ingesting.has_all()) == ("complete", [], True)


@pytest.mark.parametrize("asked", [40, 99])
@pytest.mark.parametrize("switches", UNTIL_EMPTY.values(), ids=UNTIL_EMPTY)
def test_a_page_that_holds_more_than_was_asked_for_may_be_short_too(
    ingest: Ingest, switches: dict[str, Any], asked: int
):
    ingesting = ingest(210, pagination="page", default_limit=100, arriving=25, arriving_requests=4, **switches)
    totals = ingesting.run(api_pagination="page", api_limit_parameter="unused", api_page_limit=asked)
    assert (totals.ended, totals.failures, ingesting.has_all()) == ("complete", [], True)


def test_a_short_page_is_kept_where_the_next_fails_and_is_gone_on_with(ingest: Ingest):
    ingesting = ingest(230, pagination="page", envelope="bare", faults=[status(400, first=4, count=None)])
    (error,) = ingesting.run(api_pagination="page").failures
    assert "refuses the request (status 400)" in str(error)
    assert ingesting.position("cursor_value") == ("page 3/100",)
    ingesting.api.set(faults=[], arriving=100, arriving_requests=1)
    assert ingesting.run(api_pagination="page").counts.new == 100
    assert ingesting.has_all()


# 8: newest first while events arrive


@pytest.mark.usefixtures("two_ahead")
@pytest.mark.parametrize("variables", [SHORT, FILTER], ids=["without a filter", "with a filter"])
def test_newest_first_what_arrives_during_a_pass_comes_with_a_second_one_above_it(
    ingest: Ingest, variables: dict[str, Any]
):
    ingesting = ingest(order="newest", arriving=5, arriving_requests=4)
    totals = ingesting.run(**variables)
    assert (totals.failures, totals.counts.new) == ([], 520)
    # The second pass ends where the first began, but for the overlap.
    assert [cursor is None for cursor in ingesting.asked("cursor")][:7] == [True, *[False] * 5, True]
    # Seven are needed, and two more were asked for when it turned out that nobody wants them; not all six again.
    assert len(ingesting.api.requests) <= 7 + 2
    assert ingesting.has_all()


@pytest.mark.usefixtures("two_ahead")
def test_newest_first_the_next_run_reads_what_is_new_and_no_more(ingest: Ingest):
    ingesting = ingest(order="newest")
    ingesting.run(**SHORT)
    assert ingesting.position("watermark, ceiling") == (START + timedelta(seconds=499), None)
    before = len(ingesting.api.requests)
    ingesting.api.set(arriving=30, arriving_requests=1)
    assert ingesting.run(**SHORT).counts.new == 30
    assert len(ingesting.api.requests) <= before + 1 + 2
    assert ingesting.has_all()


def test_newest_first_an_overlap_of_many_pages_ends(ingest: Ingest):
    ingesting = ingest(order="newest")
    assert ingesting.run(api_overlap="10 minutes").failures == []
    assert len(ingesting.api.requests) == 10


def test_newest_first_a_pass_that_goes_on_misses_nothing_that_came_meanwhile(ingest: Ingest):
    ingesting = ingest(1500, order="newest")
    ingesting.run(pages=3, **SHORT)
    ingesting.api.set(arriving=150, arriving_requests=1)
    totals = ingesting.run(**SHORT)
    assert totals.counts.known < 150
    assert ingesting.has_all()


def test_newest_first_a_last_page_of_one_event_is_no_page_to_go_on_from(ingest: Ingest):
    ingesting = ingest(301, order="newest", faults=[status(500, first=4, count=None)])
    assert ingesting.run(**SHORT).failures
    ingesting.api.set(faults=[])
    ingesting.run(**SHORT)
    ingesting.api.set(arriving=150, arriving_requests=1)
    ingesting.run(**SHORT)
    assert ingesting.has_all()


@pytest.mark.parametrize("limit", [1, 2])
def test_newest_first_on_pages_of_one_or_two_events_a_refused_cursor_loses_none(ingest: Ingest, limit: int):
    ingesting = ingest(30, order="newest", faults=[cursor_expired(first=5)])
    totals = ingesting.run(api_page_limit=limit, api_time_filter="since,until", api_overlap="1 second")
    assert (totals.failures, totals.restarts) == ([], 1)
    assert ingesting.has_all()


@pytest.mark.parametrize("variables", [SHORT, FILTER, WINDOWS], ids=["without a filter", "with a filter", "windows"])
@pytest.mark.parametrize("limit", [1, 2])
def test_newest_first_late_events_that_seem_to_ascend_hide_none_where_a_cursor_is_refused(
    ingest: Ingest, limit: int, variables: dict[str, Any]
):
    ingesting = ingest(Events(0), order="newest", faults=[cursor_expired(first=2)])
    ingesting.api.add([event(f"{minute}", START + timedelta(minutes=minute)) for minute in range(20)])
    # Each became visible after those that are newer: newest first, the last to come is the oldest of the four.
    ingesting.api.add([event(f"late-{by}", START + timedelta(hours=1, seconds=-by)) for by in (0, 3, 5, 8)])
    assert ingesting.run(api_page_limit=limit, **variables).failures == []
    assert ingesting.run(api_page_limit=limit, **variables).failures == []
    assert ingesting.has_all()


def test_old_events_that_begin_newest_first_hide_none_of_those_that_come_after_them(ingest: Ingest):
    ingesting = ingest(Events(0))
    # As of an import from an export that was newest first.
    ingesting.api.add([event(f"old-{hour}", START - timedelta(hours=hour)) for hour in range(20)])
    ingesting.api.add([event(f"first-{hour}", START + timedelta(hours=hour)) for hour in range(20)])
    assert ingesting.run(api_page_limit=10, **SHORT).counts.new == 40
    ingesting.api.add([event(f"then-{hour}", START + timedelta(hours=20 + hour)) for hour in range(10)])
    assert ingesting.run(api_page_limit=10, **SHORT).counts.new == 10
    assert ingesting.has_all()


@pytest.mark.parametrize("pages", [None, 3], ids=["in one go", "interrupted"])
def test_newest_first_of_each_of_several_kinds_no_kind_hides_the_others(ingest: Ingest, pages: int | None):
    ingesting = ingest(Events(0))
    hours = range(20, 0, -1)
    for kind in "abc":
        ingesting.api.add([event(f"{kind}-{hour}", START + timedelta(hours=hour), kind) for hour in hours])
    assert ingesting.run(api_page_limit=10, **SHORT).counts.new == 60
    for number in range(2):
        ingesting.api.add([event(f"c-then-{number}", START + timedelta(hours=20, minutes=number), "c")])
        if pages:
            ingesting.run(api_page_limit=10, pages=pages, **SHORT)
        assert ingesting.run(api_page_limit=10, **SHORT).counts.new == 1
    assert ingesting.has_all()


def test_oldest_first_of_each_of_several_kinds_whose_pages_rise_no_kind_hides_the_others(ingest: Ingest):
    ingesting = ingest(Events(0))
    for minute, kind in enumerate("abc"):
        ingesting.api.add(
            event(f"{kind}-{hour}", START + timedelta(hours=hour, minutes=minute), kind) for hour in range(10)
        )
    assert ingesting.run(api_page_limit=10, **SHORT).counts.new == 30
    # Each run reads all.
    assert ingesting.run(api_page_limit=10, **SHORT).counts.known == 30


def test_newest_first_of_each_of_several_kinds_whose_pages_fall_no_kind_hides_the_others(ingest: Ingest):
    """As of devices by their last activity, each of which has a page of its own."""
    ingesting = ingest(Events(0))
    for minute, kind in enumerate("cba"):
        ingesting.api.add(
            [
                event(f"{kind}-{hour}", START + timedelta(hours=hour, minutes=9 - minute), kind)
                for hour in range(10, 0, -1)
            ]
        )
    assert ingesting.run(api_page_limit=10, **SHORT).counts.new == 30
    for number in range(2):
        ingesting.api.add([event(f"a-then-{number}", START + timedelta(hours=10, minutes=number), "a")])
        assert ingesting.run(api_page_limit=10, **SHORT).counts.new == 1
    assert ingesting.has_all()


@pytest.mark.parametrize("hours", [range(20), range(20, 0, -1)], ids=["oldest first", "newest first"])
@pytest.mark.parametrize("pages", [3, 4])
def test_of_each_of_several_kinds_a_first_pass_that_is_gone_on_with_hides_no_kind(
    ingest: Ingest, hours: range, pages: int
):
    ingesting = ingest(Events(0))
    for kind in "abc":
        ingesting.api.add([event(f"{kind}-{hour}", START + timedelta(hours=hour), kind) for hour in hours])
    ingesting.run(api_page_limit=10, pages=pages, **SHORT)
    ingesting.run(api_page_limit=10, **SHORT)
    assert ingesting.position("cursor_value, watermark") == (None, None)


def test_of_two_kinds_a_first_pass_that_was_stopped_between_them_hides_neither(ingest: Ingest):
    ingesting = ingest(Events(0))
    for kind in "ab":
        ingesting.api.add([event(f"{kind}-{hour}", START + timedelta(hours=hour), kind) for hour in range(20)])
    ingesting.run(api_page_limit=10, pages=2, **SHORT)
    ingesting.run(api_page_limit=10, **SHORT)
    assert ingesting.has_all()
    # The next run reads all of them.
    assert ingesting.position("cursor_value, watermark") == (None, None)


def test_newest_first_of_each_of_several_kinds_no_kind_is_hidden_once_the_filter_is_taken_away(ingest: Ingest):
    ingesting = ingest(Events(0))
    for kind in "abc":
        hours = range(20, 0, -1)
        ingesting.api.add([event(f"{kind}-{hour}", START + timedelta(hours=hour), kind) for hour in hours])
    assert ingesting.run(api_page_limit=10, **FILTER).counts.new == 60
    assert ingesting.run(api_page_limit=10, **FILTER).counts.new == 0
    ingesting.api.add([event("c-then", START + timedelta(hours=20, minutes=1), "c")])
    assert ingesting.run(api_page_limit=10, **SHORT).counts.new == 1


@pytest.mark.parametrize("variables", [FILTER, WINDOWS], ids=["chain", "windows"])
@pytest.mark.parametrize("pages", [None, 3], ids=["in one go", "interrupted"])
def test_oldest_first_of_each_of_several_kinds_a_refused_cursor_loses_none(
    ingest: Ingest, variables: dict[str, Any], pages: int | None
):
    ingesting = ingest(Events(0), faults=[cursor_expired(first=3)])
    for kind in "ab":
        ingesting.api.add(event(f"{kind}-{hour}", START + timedelta(hours=hour), kind) for hour in range(20))
    ingesting.run(api_page_limit=10, pages=pages, **variables)
    totals = ingesting.run(api_page_limit=10, **variables)
    assert totals.failures == []
    assert ingesting.has_all()


def test_newest_first_an_event_from_the_future_hides_none_that_comes_later(ingest: Ingest):
    ingesting = ingest(250, now=START + timedelta(seconds=250), order="newest")
    ingesting.api.add([event("future", START + timedelta(days=200))])
    ingesting.run(**SHORT)
    ingesting.clock.sleep(300)
    ingesting.api.set(arriving=300, arriving_requests=1)
    ingesting.run(**SHORT)
    assert ingesting.has_all()


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_dense_windows_are_split_whatever_the_order(ingest: Ingest, order: str):
    ingesting = ingest(Events(2600, step_ms=10_000), order=order, with_total=True)
    totals = ingesting.run(**WINDOWS, api_page_limit=50)
    assert (totals.failures, totals.counts.new) == ([], 2600)
    assert len(ingesting.database.execute("SELECT shard FROM cursor_state")) > 5
    assert ingesting.has_all()


# 9: events that become visible late


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("variables", [{"api_time_filter": "since,until"}, WINDOWS], ids=["chain", "windows"])
def test_an_event_that_becomes_visible_within_the_overlap_comes_with_the_next_run(
    ingest: Ingest, order: str, variables: dict[str, Any]
):
    ingesting = ingest(now=ENDED, order=order, late_every=10, late_requests=30, with_total=True)
    overlap = {"api_overlap": "10 minutes"}
    assert ingesting.run(**variables | overlap).counts.new == 450
    ingesting.api.set(late_requests=0)
    assert ingesting.run(**variables | overlap).counts.new == 50
    assert ingesting.has_all()


def test_the_watermark_is_not_past_the_beginning_of_the_pass(ingest: Ingest):
    # Eight pages, then a pause in which more events arrive and a late one becomes visible.
    ingesting = ingest(
        800,
        now=START + timedelta(seconds=800),
        late_every=790,
        late_requests=8,
        limit_requests=8,
        limit_seconds=300,
        arriving=30,
        arriving_requests=8,
    )
    overlap: dict[str, Any] = {"api_time_filter": "since,until", "api_overlap": "1 minute"}
    assert ingesting.run(**overlap).counts.new == 1039
    assert ingesting.position("watermark") == (START + timedelta(seconds=800),)
    assert ingesting.run(**overlap).counts.new == 1
    assert ingesting.has_all()


def test_an_event_from_the_future_moves_no_watermark_past_the_present(ingest: Ingest):
    ingesting = ingest(now=ENDED)
    ingesting.api.add([event("future", START + timedelta(days=200))])
    ingesting.run(**FILTER)
    assert ingesting.position("watermark") == (ENDED,)
    ingesting.clock.sleep(100)
    ingesting.api.set(arriving=100, arriving_requests=1)
    assert ingesting.run(**FILTER).counts.new == 100
    assert ingesting.has_all()


def test_a_window_is_read_again_until_nothing_becomes_visible_in_it_any_more(ingest: Ingest):
    ingesting = ingest(now=ENDED, with_total=True)

    def passes() -> list[tuple[object, ...]]:
        ingesting.run(**WINDOWS)
        return ingesting.database.execute("SELECT passes FROM cursor_state ORDER BY lower_bound")

    assert passes() == [(0,)]
    ingesting.clock.advance_to((START + timedelta(days=1, seconds=9)).timestamp())
    assert passes() == [(0,), (0,)]
    ingesting.clock.sleep(1)
    assert passes() == [(1,), (0,)]
    before = len(ingesting.api.requests)
    assert passes() == [(1,), (0,)]
    assert ingesting.asked("since")[before:] == ["2024-03-02T00:00:00Z"]


def test_a_window_read_in_part_before_its_end_is_read_again_after_it(ingest: Ingest):
    ingesting = ingest(1500, now=START + timedelta(hours=1), with_total=True)
    ingesting.run(pages=2, **WINDOWS)
    ingesting.clock.advance_to((START + timedelta(days=1, hours=1)).timestamp())
    passes = []
    for _ in range(2):
        ingesting.run(**WINDOWS)
        passes += ingesting.database.execute("SELECT passes FROM cursor_state ORDER BY lower_bound")
    assert passes == [(0,), (0,), (1,), (0,)]


@pytest.mark.parametrize("variables", [WINDOWS, FILTER], ids=["windows", "with a filter"])
def test_newest_first_a_first_page_that_seems_to_ascend_is_the_newest_for_whoever_goes_on(
    ingest: Ingest, variables: dict[str, Any]
):
    ingesting = ingest(0, now=START + timedelta(hours=1), order="newest")
    seconds = [*range(0, 600, 60), 600, 597]
    ingesting.api.add(event(f"e{number}", START + timedelta(seconds=second)) for number, second in enumerate(seconds))
    ingesting.run(pages=1, **variables | {"api_page_limit": 2})
    ingesting.run(**variables | {"api_page_limit": 2})
    assert ingesting.has_all()
    reached = ingesting.database.execute("SELECT max(watermark) FROM cursor_state")
    assert reached == [(START + timedelta(seconds=600),)]


@pytest.mark.parametrize(
    "variables", [{}, {"api_time_filter": "since,until"}], ids=["without a filter", "with a filter"]
)
def test_events_in_the_order_in_which_they_came_and_nearly_in_that_of_their_times_are_read_once(
    ingest: Ingest, variables: dict[str, Any]
):
    ingesting = ingest(0, now=ENDED)
    ingesting.api.add(event(f"e{number}", START + timedelta(seconds=number - number % 7)) for number in range(450))
    ingesting.run(**SHORT | variables)
    before = len(ingesting.api.requests)
    ingesting.api.add(event(f"f{number}", START + timedelta(seconds=445 + number - number % 7)) for number in range(60))
    counts = ingesting.run(**SHORT | variables).counts
    assert (counts.new, len(ingesting.api.requests) - before) == (60, 2 if not variables else 1)
    assert ingesting.has_all()


@pytest.mark.parametrize(
    "variables", [{}, {"api_time_filter": "since,until"}], ids=["without a filter", "with a filter"]
)
def test_events_in_no_order_at_all_are_read_again(ingest: Ingest, variables: dict[str, Any]):
    ingesting = ingest(0, now=ENDED, faults=[cursor_expired(first=4)])
    ingesting.api.add(event(f"e{number}", START + timedelta(seconds=number * 7919 % 450)) for number in range(450))
    totals = ingesting.run(**SHORT | variables)
    assert (totals.restarts, totals.watermark) == (1, START + timedelta(seconds=449))
    assert ingesting.has_all()
    assert ingesting.position("cursor_value") == (None,)


# 10: an event that changed upstream


@pytest.mark.parametrize(("conflict", "seconds", "kept"), [
    ("ignore", 1, "page_view"),
    ("update", 1, "changed"),
    ("update", 0, "changed"),
    ("update", -1, "page_view"),
])  # fmt: skip
def test_a_changed_event_changes_its_row_where_that_is_wanted_and_it_is_no_older(
    ingest: Ingest, conflict: str, seconds: int, kept: str
):
    ingesting = ingest(497)
    ingesting.run(api_conflict=conflict)
    last = ingesting.ids[-1]
    ingesting.api.add([event(last, START + timedelta(seconds=496 + seconds), "changed")])
    counts = ingesting.run(api_conflict=conflict).counts
    assert counts.superseded == (conflict == "update")
    query = "SELECT event_type, data ->> 'type' FROM ingested_events WHERE id = %s"
    assert ingesting.database.execute(query, last) == [(kept, kept)]


# 23: events whose day is archived already


def keeping() -> Dataset:
    """1 March is aged, by the database's clock; 2 March is not. At midnight it is another retention."""
    return replace(
        SPECIFICATION,
        table=TableName("public", "ingested_events"),
        time_column="timestamp",
        retention=Retention(months=0, days=(now_utc().date() - date(2024, 3, 2)).days),
    )


def test_the_first_pass_takes_in_events_however_old(ingest: Ingest):
    ingesting = ingest(1500)
    ingesting.run(datasets=[keeping()], pages=2)
    totals = ingesting.run(datasets=[keeping()])
    assert totals.counts.too_old == 0
    assert ingesting.has_all()


@pytest.mark.parametrize("filtered", [SHORT, FILTER], ids=["whole", "filter"])
def test_an_api_that_never_had_an_event_has_not_been_passed_over(ingest: Ingest, filtered: dict[str, Any]):
    """The key may not have had its scope yet."""
    ingesting = ingest(0)
    ingesting.run(datasets=[keeping()], **filtered)
    ingesting.api.add([event("old", START + timedelta(hours=1))])
    counts = ingesting.run(datasets=[keeping()], **filtered).counts
    assert (counts.new, counts.too_old) == (1, 0)


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_a_purged_event_does_not_come_back_with_a_later_pass(ingest: Ingest, order: str):
    ingesting = ingest(order=order)
    ingesting.run(datasets=[keeping()])
    ingesting.database.execute(
        "DELETE FROM ingested_events; UPDATE cursor_state SET cursor_value = NULL, watermark = NULL"
    )
    counts = ingesting.run(datasets=[keeping()]).counts
    assert counts.taken == counts.too_old >= 500
    assert ingesting.ids == []


def test_a_run_goes_on_at_a_page_whose_events_are_all_purged(ingest: Ingest):
    ingesting = ingest()
    ingesting.run(datasets=[keeping()])
    ingesting.database.execute("DELETE FROM ingested_events")
    totals = ingesting.run(datasets=[keeping()])
    assert (totals.restarts, totals.counts.taken, totals.counts.too_old) == (0, 100, 100)


@pytest.mark.parametrize("late", [range(99, 100), range(90, 330)], ids=["the last of a page", "whole pages"])
@pytest.mark.parametrize(
    "stopped", [0, 2, 7], ids=["at once", "stopped, and its cursor refused", "the same, behind it"]
)
def test_late_events_end_no_pass_from_the_newest_on(ingest: Ingest, late: range, stopped: int):
    ingesting = ingest(Events(0), order="newest", time_filter=False)
    ingesting.api.add([event(f"e{n}", START + timedelta(seconds=n)) for n in range(500)])
    ingesting.run()
    # In the order in which they came: the last is the first that is given.
    times = [START + timedelta(hours=1, seconds=n) for n in range(500)]
    for place in late:
        times[-1 - place] = START - timedelta(days=2)
    ingesting.api.add([event(f"f{n}", time) for n, time in enumerate(times)])
    if stopped:
        ingesting.run(pages=stopped)
        ingesting.api.add([event(f"g{n}", START + timedelta(hours=2, seconds=n)) for n in range(150)])
        ingesting.api.add([event(f"h{n}", START - timedelta(days=3)) for n in range(150)])
        ingesting.api.set(faults=[cursor_expired(first=1)])
    ingesting.run()
    assert ingesting.has_all()


@pytest.mark.parametrize("stopped", [1, 3])
def test_a_pass_that_seemed_to_ascend_knows_what_it_began_with_once_it_goes_on(ingest: Ingest, stopped: int):
    ingesting = ingest(Events(0), order="newest", time_filter=False)
    # A device sent its newest events first: those that are given first ascend.
    times = [*range(400), *range(500, 400, -1)]
    ingesting.api.add([event(f"e{n}", START + timedelta(seconds=second)) for n, second in enumerate(times)])
    ingesting.run(pages=stopped)
    ingesting.run()
    ingesting.api.add([event(f"f{n}", START + timedelta(hours=1, seconds=n)) for n in range(50)])
    ingesting.api.add([event(f"g{n}", START - timedelta(days=2)) for n in range(150)])
    ingesting.api.add([event("last", START + timedelta(hours=2))])
    ingesting.run()
    assert ingesting.has_all()


@pytest.mark.parametrize("pagination", ["cursor", "link", "page", "offset"])
@pytest.mark.parametrize("imported", [50, 100, 301])
@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_an_import_from_the_newest_on_says_nothing_of_the_order(
    ingest: Ingest, order: str, imported: int, pagination: str
):
    ingesting = ingest(Events(0), order=order, time_filter=False, pagination=pagination)
    ingesting.api.add([event(f"e{n}", START + timedelta(seconds=imported - n)) for n in range(imported)])
    ingesting.run(api_pagination=pagination)
    for day in (1, 2):
        ingesting.clock.sleep(86_400)
        ingesting.api.add([event(f"f{day}-{n}", START + timedelta(days=day, seconds=n)) for n in range(250)])
        ingesting.run(api_pagination=pagination)
    assert ingesting.has_all()


@pytest.mark.parametrize("pagination", ["cursor", "page"])
@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_an_import_behind_the_first_event_says_nothing_of_the_order(ingest: Ingest, order: str, pagination: str):
    ingesting = ingest(Events(0), order=order, time_filter=False, pagination=pagination)
    ingesting.api.add([event("first", START + timedelta(hours=12))])
    ingesting.run(api_pagination=pagination)
    ingesting.api.add([event(f"e{n}", START + timedelta(hours=11, seconds=-10 * n)) for n in range(250)])
    ingesting.run(api_pagination=pagination)
    for day in (1, 2, 3):
        ingesting.clock.sleep(86_400)
        ingesting.api.add([event(f"f{day}-{n}", START + timedelta(days=day, seconds=n)) for n in range(250)])
        ingesting.run(api_pagination=pagination)
    assert ingesting.has_all()


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_of_a_position_that_a_former_version_wrote_nobody_knows_whether_its_order_is_right(ingest: Ingest, order: str):
    ingesting = ingest(Events(0), order=order, time_filter=False)
    ingesting.api.add([event(f"e{n}", START - timedelta(seconds=n)) for n in range(250)])
    ingesting.run(**SHORT)
    ingesting.database.execute(
        "UPDATE cursor_state SET cursor_value = regexp_replace(cursor_value, '( .*/)?[?].*', '')"
    )
    ingesting.api.add([event(f"f{n}", START + timedelta(hours=1, seconds=n)) for n in range(250)])
    ingesting.run(**SHORT)
    assert ingesting.has_all()


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("error", [-86_400, 86_400])
def test_an_api_whose_clock_is_of_another_day_is_read_whole_once_a_day(ingest: Ingest, order: str, error: int):
    ingesting = ingest(350, order=order, time_filter=False, clock_error_seconds=error)
    ingesting.run(**SHORT)
    assert ingesting.run(**SHORT).pages < 4, "the day of the first pass"
    ingesting.clock.sleep(86_400)
    assert 4 < ingesting.run(**SHORT).pages < 12
    assert ingesting.run(**SHORT).pages < 4, "once a day"


@pytest.mark.parametrize(("order", "count"), [("oldest", 2), ("newest", None)])
def test_cursors_that_are_refused_while_all_is_read_for_a_doubt_fail_no_run(
    ingest: Ingest, order: str, count: int | None
):
    ingesting = ingest(350, order=order, time_filter=False)
    ingesting.run(**SHORT)
    ingesting.clock.sleep(86_400)
    ingesting.api.set(faults=[cursor_expired(first=4, count=count)])
    totals = ingesting.run(**SHORT)
    assert (totals.failures, totals.ended) == ([], "complete")
    assert ingesting.run(**SHORT).pages < 4, "once a day"


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_a_pass_that_is_stopped_takes_nothing_from_what_is_known_of_the_order(ingest: Ingest, order: str):
    ingesting = ingest(Events(1000, step_ms=10_000), order=order, time_filter=False)
    ingesting.run(**SHORT)
    for day in (1, 2, 3):
        times = [START + timedelta(days=day, seconds=10 * n) for n in range(350)]
        ingesting.api.add([event(f"f{day}-{n}", time) for n, time in enumerate(times)])
        ingesting.run(**SHORT, pages=2)
        ingesting.clock.sleep(86_400)
        assert ingesting.run(**SHORT).pages < 8
    assert ingesting.has_all()
    assert ingesting.run(**SHORT).pages < 4, "a day later"


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_changes_prove_an_order_too_where_they_land(ingest: Ingest, order: str):
    ingesting = ingest(Events(350, step_ms=10_000), order=order, time_filter=False)
    settings: dict[str, Any] = {**SHORT, "api_conflict": "update"}
    ingesting.run(**settings)
    for day in (1, 2):
        ingesting.clock.sleep(86_400)
        ingesting.api.add([event(f"e{n}", START + timedelta(days=day, seconds=n)) for n in range(5)])
        pages = ingesting.run(**settings).pages
    assert pages < 4


def test_what_was_in_no_order_and_then_is_in_one_is_doubted(ingest: Ingest):
    ingesting = ingest(Events(0), time_filter=False)
    ingesting.api.add([event(f"m{n}", START + timedelta(hours=hour)) for n, hour in enumerate((1, 9, 5))])
    ingesting.api.add([event(f"e{n}", START - timedelta(seconds=n)) for n in range(350)])
    ingesting.run(**SHORT)
    ingesting.api.set(deleted=3)
    ingesting.clock.sleep(86_400)
    ingesting.run(**SHORT, api_read_all_every="1 day")
    ingesting.api.add([event(f"f{n}", START + timedelta(days=1, seconds=n)) for n in range(250)])
    ingesting.clock.sleep(86_400)
    ingesting.run(**SHORT)
    assert ingesting.database.execute("SELECT count(*) FROM ingested_events") == [(603,)]


@pytest.mark.parametrize("pagination", ["cursor", "page"])
def test_what_is_in_no_order_is_read_whole_though_a_stopped_pass_ended_in_one(ingest: Ingest, pagination: str):
    ingesting = ingest(Events(0), time_filter=False, pagination=pagination)
    settings: dict[str, Any] = {**SHORT, "api_pagination": pagination}
    ingesting.api.add([event(f"e{n}", START + timedelta(hours=10, seconds=n)) for n in range(500)])
    ingesting.api.add([event(f"f{n}", START + timedelta(hours=1, seconds=n)) for n in range(550)])
    ingesting.run(**settings)
    ingesting.run(**settings, pages=3)
    ingesting.run(**settings)
    assert ingesting.run(**settings).pages > 10


def test_a_run_whose_budget_ends_before_all_is_read_is_not_complete(ingest: Ingest):
    ingesting = ingest(350, order="newest", time_filter=False, latency_ms=600)
    ingesting.run(**SHORT)
    ingesting.clock.sleep(86_400)
    assert ingesting.run(**SHORT, run_budget="1 second").ended == "budget"
    assert ingesting.run(**SHORT).pages > 4


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_where_the_filter_is_taken_away_the_order_is_in_doubt(ingest: Ingest, order: str):
    # In the order in which they came, which a filter takes from the list.
    ingesting = ingest(Events(0), order=order, time_filter=True, pagination="page")
    ingesting.api.add([event(f"e{n}", START - timedelta(seconds=n)) for n in range(301)])
    ingesting.run(**SHORT, api_pagination="page", api_time_filter="since,until")
    ingesting.api.set(time_filter=False)
    ingesting.run(**SHORT, api_pagination="page")
    for day in (1, 2):
        ingesting.clock.sleep(86_400)
        ingesting.api.add([event(f"f{day}-{n}", START + timedelta(days=day, seconds=n)) for n in range(250)])
        ingesting.run(**SHORT, api_pagination="page")
    assert ingesting.has_all()


@pytest.mark.parametrize("pagination", ["cursor", "page"])
def test_where_a_place_is_lost_the_order_is_in_doubt(ingest: Ingest, pagination: str):
    ingesting = ingest(Events(300, step_ms=10_000), time_filter=False, pagination=pagination)
    settings: dict[str, Any] = {**SHORT, "api_pagination": pagination}
    ingesting.run(**settings)
    ingesting.api.add([event(f"e{n}", START + timedelta(hours=2, seconds=n)) for n in range(50)])
    ingesting.run(**settings)
    # The API keeps one event, and an import from newest to oldest follows.
    ingesting.api.set(deleted=349)
    ingesting.api.add([event(f"i{n}", START + timedelta(hours=1, seconds=-n)) for n in range(250)])
    ingesting.run(**settings)
    for day in (1, 2, 3):
        ingesting.clock.sleep(86_400)
        ingesting.api.add([event(f"f{day}-{n}", START + timedelta(days=day, seconds=n)) for n in range(250)])
        ingesting.run(**settings)
    assert ingesting.has_all()


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_an_order_is_believed_once_something_new_came_where_it_has_it_come(ingest: Ingest, order: str):
    ingesting = ingest(350, order=order, time_filter=False)
    ingesting.run(**SHORT)
    assert ingesting.run(**SHORT).pages < 4, "the day of the first pass"
    ingesting.clock.sleep(86_400)
    assert ingesting.run(**SHORT).pages > 4, "nothing has come yet"
    assert ingesting.run(**SHORT).pages < 4, "once a day"
    ingesting.api.set(arriving=5, arriving_requests=1)
    assert ingesting.run(**SHORT).counts.new == 5
    ingesting.clock.sleep(86_400)
    assert ingesting.run(**SHORT).pages < 4


def test_newest_first_a_position_of_a_former_version_ends_no_pass_by_time_alone(ingest: Ingest):
    ingesting = ingest(Events(0), order="newest", time_filter=False)
    ingesting.api.add([event(f"e{n}", START + timedelta(seconds=n)) for n in range(300)])
    ingesting.run(**SHORT)
    ingesting.database.execute("UPDATE cursor_state SET cursor_value = NULL")
    ingesting.api.add([event(f"f{n}", START + timedelta(hours=1, seconds=n)) for n in range(50)])
    ingesting.api.add([event(f"g{n}", START - timedelta(days=2)) for n in range(150)])
    ingesting.api.add([event("last", START + timedelta(hours=2))])
    ingesting.run(**SHORT)
    assert ingesting.has_all()


@pytest.mark.parametrize("pagination", ["page", "cursor"])
def test_newest_first_what_somebody_deleted_is_not_read_again(ingest: Ingest, pagination: str):
    ingesting = ingest(1500, order="newest", pagination=pagination, time_filter=False)
    ingesting.run(**SHORT, api_pagination=pagination)
    ingesting.database.execute("DELETE FROM ingested_events")
    ingesting.api.set(arriving=30, arriving_requests=1)
    assert 30 <= ingesting.run(**SHORT, api_pagination=pagination).counts.new <= 200


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("pagination", ["page", "cursor"])
@pytest.mark.parametrize("stopped", [False, True], ids=["at once", "stopped in between"])
def test_where_that_is_asked_for_a_pass_reads_all_now_and_then(
    ingest: Ingest, order: str, pagination: str, stopped: bool
):
    ingesting = ingest(1500, order=order, pagination=pagination, time_filter=False)
    settings: dict[str, Any] = {**SHORT, "api_pagination": pagination}
    ingesting.run(**settings)
    settings["api_read_all_every"] = "1 day"
    lost = ingesting.ids[700:900]

    def lose() -> None:
        ingesting.database.execute("DELETE FROM ingested_events WHERE id = ANY (%s)", lost)

    lose()
    assert ingesting.run(**settings).counts.new == 200, "none was yet"
    lose()
    assert ingesting.run(**settings).counts.new == 0, "the same day"
    ingesting.clock.sleep(86_400)
    if stopped:
        ingesting.run(pages=3, **settings)
        assert not ingesting.has_all()
    assert ingesting.run(**settings).failures == []
    assert ingesting.has_all()
    # The next goes on as ever.
    lose()
    ingesting.api.set(arriving=5, arriving_requests=1)
    assert ingesting.run(**settings).counts.new == 5


def test_a_clock_that_was_ahead_once_keeps_no_pass_from_reading_all(ingest: Ingest):
    ingesting = ingest(300, time_filter=False)
    settings: dict[str, Any] = {**SHORT, "api_read_all_every": "1 day"}
    ingesting.run(**settings)
    ingesting.run(**settings, ahead=timedelta(days=40))
    ingesting.clock.sleep(86_400)
    ingesting.database.execute("DELETE FROM ingested_events WHERE id = %s", ingesting.ids[150])
    assert ingesting.run(**settings).counts.new == 1


def test_an_event_of_an_archived_day_does_not_stand_for_what_moved_before_it(ingest: Ingest):
    ingesting = ingest(Events(0), pagination="offset", time_filter=False)
    young = START + timedelta(days=2)
    ingesting.api.add([event(f"e{n}", young + timedelta(seconds=n)) for n in range(500)])
    ingesting.run(datasets=[keeping()], api_pagination="offset")
    ingesting.api.set(deleted=300)
    ingesting.api.add([event(f"f{n}", young + timedelta(hours=1, seconds=n)) for n in range(200)])
    # The page where a run goes on begins with it.
    ingesting.api.add([event("late", START)])
    ingesting.api.add([event(f"g{n}", young + timedelta(hours=2, seconds=n)) for n in range(50)])
    totals = ingesting.run(datasets=[keeping()], api_pagination="offset")
    assert (totals.restarts, totals.counts.new, totals.counts.too_old) == (1, 250, 1)


@pytest.mark.parametrize(
    ("before", "after"),
    [(SHORT, WINDOWS), (FILTER, WINDOWS), (WINDOWS, SHORT), (WINDOWS, FILTER)],
    ids=["chain, then windows", "chain by time, then windows", "windows, then chain", "windows, then chain by time"],
)
def test_a_purged_event_does_not_come_back_where_windows_are_begun_or_given_up(
    ingest: Ingest, before: dict[str, Any], after: dict[str, Any]
):
    ingesting = ingest()
    assert ingesting.run(datasets=[keeping()], **before).counts.new == 500
    ingesting.database.execute("DELETE FROM ingested_events")
    ingesting.clock.sleep(86_400)
    ingesting.api.add([event("then", START + timedelta(days=2))])
    counts = ingesting.run(datasets=[keeping()], **after).counts
    # A window that is dense is split, and its first page read once more.
    assert (counts.new, counts.too_old >= 500, counts.known) == (1, True, 0)
    assert ingesting.ids == ["then"]


@pytest.mark.parametrize("meanwhile", [None, SHORT, FILTER], ids=["at rest", "in a pass", "in a pass by time"])
def test_a_purged_event_of_an_api_in_no_order_does_not_come_back_where_windows_are_begun(
    ingest: Ingest, meanwhile: dict[str, Any] | None
):
    ingesting = ingest(Events(0))
    for kind in "ab":
        ingesting.api.add([event(f"{kind}-{hour}", START + timedelta(hours=hour), kind) for hour in range(20)])
    assert ingesting.run(datasets=[keeping()], api_page_limit=10, **SHORT).counts.new == 40
    ingesting.database.execute("DELETE FROM ingested_events")
    if meanwhile:
        ingesting.run(datasets=[keeping()], api_page_limit=5, pages=1, **meanwhile)
    counts = ingesting.run(datasets=[keeping()], api_page_limit=10, **WINDOWS).counts
    assert (counts.new, counts.too_old) == (0, 40)


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_a_purged_event_of_a_long_window_does_not_come_back_with_a_pass_that_is_gone_on_with(
    ingest: Ingest, order: str
):
    ingesting = ingest(400, now=ENDED, order=order)
    long = WINDOWS | {"api_shard": "30 days"}
    assert ingesting.run(datasets=[keeping()], **long).counts.new == 400
    ingesting.database.execute("DELETE FROM ingested_events")
    began = len(ingesting.api.requests)
    ingesting.api.set(arriving=800, arriving_requests=1)
    ingesting.run(datasets=[keeping()], pages=1, **long)
    went_on = len(ingesting.api.requests)
    ingesting.run(datasets=[keeping()], **long)
    asked = ingesting.asked("since", "cursor")
    assert asked[went_on][0] == asked[began][0]
    assert asked[went_on][1] is not None
    # But for the overlap.
    assert 800 <= len(ingesting.ids) <= 811


def test_events_from_before_the_first_window_are_not_too_old_where_windows_are_given_up(ingest: Ingest):
    """They were never asked for; without a filter by time, all are."""
    ingesting = ingest()
    ingesting.api.add([event("before", START - timedelta(days=1))])
    assert ingesting.run(datasets=[keeping()], **WINDOWS).counts.new == 500
    ingesting.database.execute("DELETE FROM ingested_events")
    ingesting.clock.sleep(86_400)
    counts = ingesting.run(datasets=[keeping()], **SHORT).counts
    assert (counts.new, counts.too_old >= 500) == (1, True)
    assert ingesting.ids == ["before"]


def test_a_purged_event_of_an_api_in_no_order_does_not_come_back_where_a_long_window_is_given_up(ingest: Ingest):
    ingesting = ingest(Events(0), now=START + timedelta(hours=30))
    long = WINDOWS | {"api_shard": "30 days"}
    ingesting.api.add(event(f"old-{hour}", START + timedelta(hours=hour)) for hour in range(20))
    assert ingesting.run(datasets=[keeping()], api_page_limit=5, **long).counts.new == 20
    ingesting.database.execute("DELETE FROM ingested_events")
    for kind in "ab":
        moments = [START + timedelta(hours=24, minutes=20 * number) for number in range(18)]
        ingesting.api.add(event(f"{kind}-{moment}", moment, kind) for moment in moments)
    # Stopped once the second kind contradicts what the first one seemed to be.
    ingesting.run(datasets=[keeping()], api_page_limit=5, pages=5, **long)
    ingesting.run(datasets=[keeping()], api_page_limit=5, **FILTER)
    # Of the former ones only that within the overlap.
    assert [key for key in ingesting.ids if key.startswith("old")] == ["old-19"]
    assert len(ingesting.ids) == 37


@pytest.mark.parametrize(("before", "after"), [(FILTER, WINDOWS), (WINDOWS, FILTER)], ids=["windows", "chain"])
def test_events_that_never_arrived_are_not_too_old_where_windows_are_begun_or_given_up(
    ingest: Ingest, before: dict[str, Any], after: dict[str, Any]
):
    ingesting = ingest(faults=[status(500, first=2, count=None)])
    assert ingesting.run(datasets=[keeping()], **before).failures
    ingesting.api.set(faults=[])
    assert ingesting.run(datasets=[keeping()], **after).counts.too_old == 0
    assert ingesting.has_all()


def test_purged_events_behind_a_window_that_failed_do_not_come_back_where_windows_are_given_up(ingest: Ingest):
    ingesting = ingest(Events(24, step_ms=3_600_000), now=START + timedelta(days=10), faults=[status(400, first=2)])
    run = ingesting.run(datasets=[keeping()], **WINDOWS | {"api_shard": "6 hours", "api_concurrency": 1})
    assert (len(run.failures), run.counts.new) == (1, 18)
    ingesting.database.execute("DELETE FROM ingested_events")
    ingesting.api.set(faults=[])
    counts = ingesting.run(datasets=[keeping()], **FILTER).counts
    assert (counts.new, counts.too_old) == (6, 18)


def test_purged_events_on_a_page_with_one_from_before_the_first_window_do_not_come_back(ingest: Ingest):
    ingesting = ingest(10)
    assert ingesting.run(datasets=[keeping()], **WINDOWS).counts.new == 10
    ingesting.database.execute("DELETE FROM ingested_events")
    ingesting.api.add([event("before", START - timedelta(days=1))])
    counts = ingesting.run(datasets=[keeping()], **SHORT).counts
    assert (counts.new, counts.too_old) == (1, 10)


@pytest.mark.parametrize(("before", "after"), [(FILTER, WINDOWS), (WINDOWS, FILTER)], ids=["windows", "chain"])
def test_events_that_arrive_later_are_not_too_old_where_windows_are_begun_or_given_up(
    ingest: Ingest, before: dict[str, Any], after: dict[str, Any]
):
    """As after an outage that lasted until their day was aged."""
    ingesting = ingest()
    assert ingesting.run(datasets=[keeping()], **before).counts.new == 500
    ingesting.database.execute("DELETE FROM ingested_events")
    ingesting.api.add(event(f"later-{hour}", START + timedelta(hours=hour)) for hour in (20, 21, 22))
    ingesting.clock.sleep(86_400)
    counts = ingesting.run(datasets=[keeping()], **after).counts
    assert (counts.new, counts.too_old >= 500) == (3, True)


def test_an_event_from_before_the_first_day_that_is_archived_is_not_too_old(ingest: Ingest):
    """It is in no file, and never purged."""
    ingesting = ingest(10)
    ingesting.run(datasets=[keeping()])
    moments = [midnight(keeping().start), midnight(keeping().start) - timedelta(seconds=1)]
    ingesting.api.add(event(f"{moment:%Y}", moment) for moment in moments)
    counts = ingesting.run(datasets=[keeping()]).counts
    # Those of the last page are read once more.
    assert (counts.new, counts.too_old) == (1, 11)
    assert f"{moments[1]:%Y}" in ingesting.ids


def test_an_event_of_the_youngest_day_is_not_too_old(ingest: Ingest):
    ingesting = ingest(Events(200, START + timedelta(hours=23, minutes=58, seconds=20)))
    ingesting.run(datasets=[keeping()])
    ingesting.database.execute("DELETE FROM ingested_events; UPDATE cursor_state SET cursor_value = NULL")
    counts = ingesting.run(datasets=[keeping()]).counts
    assert (counts.too_old, counts.new) == (100, 100)
    assert ingesting.database.execute("SELECT min(timestamp) FROM ingested_events") == [(START + timedelta(days=1),)]


def test_what_is_purged_while_a_run_goes_on_does_not_come_back_with_it(ingest: Ingest, monkeypatch: pytest.MonkeyPatch):
    ingesting, kept = ingest(), [replace(keeping(), retention=Retention(months=0, days=keeping().retention.days + 1))]
    ingesting.run(datasets=kept)
    ingesting.database.execute("UPDATE cursor_state SET cursor_value = NULL, watermark = NULL")
    landings = iter(range(99))

    def after_two_pages(*given: Any) -> Counts:
        if next(landings) == 2:
            # Midnight has passed, and the archive was quick.
            kept[0] = keeping()
            ingesting.database.execute("DELETE FROM ingested_events")
        return land_in(*given)

    monkeypatch.setattr(crew, "land_in", after_two_pages)
    counts = ingesting.run(datasets=kept, pages=99).counts
    assert (counts.known, counts.too_old, counts.new, ingesting.ids) == (200, 300, 0, [])


def test_nothing_is_too_old_for_a_table_that_is_not_archived(ingest: Ingest):
    ingesting = ingest()
    ingesting.run(datasets=[SPECIFICATION])
    ingesting.database.execute("DELETE FROM ingested_events; UPDATE cursor_state SET cursor_value = NULL")
    assert ingesting.run(datasets=[SPECIFICATION]).counts.new == 500

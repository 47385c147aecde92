"""Events that come in some order or none, become visible late, or change.

The numbers in the comments are those of the hardest cases of an API ingestion.
"""

from datetime import timedelta
from typing import Any

import pytest

from event_archive_tests.api_server.events import START
from event_archive_tests.api_server.switches import cursor_expired, status
from event_archive_tests.fixtures.ingestion import Ingest
from event_archive_tests.fixtures.passes import ENDED, FILTER, SHORT, WINDOWS, event

pytestmark = pytest.mark.slow


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

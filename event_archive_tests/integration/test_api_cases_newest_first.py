"""Events that come newest first, of one kind or of several, while others arrive.

The numbers in the comments are those of the hardest cases of an API ingestion.
"""

from datetime import timedelta
from typing import Any

import pytest

from event_archive.sources.http_api import workers
from event_archive_tests.api_server.events import START, Events
from event_archive_tests.api_server.switches import cursor_expired, status
from event_archive_tests.fixtures.ingestion import Ingest
from event_archive_tests.fixtures.passes import FILTER, SHORT, WINDOWS, event

pytestmark = pytest.mark.slow


@pytest.fixture
def two_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """One page waits to be landed, and one more is on its way, however busy the machine is."""
    monkeypatch.setattr(workers, "_BUFFER_BYTES", 1)


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

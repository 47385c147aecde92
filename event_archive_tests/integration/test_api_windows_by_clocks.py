"""Windows of an API by clocks that are ahead or behind: none ends early, and no event is hidden."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from event_archive_tests.api_server.events import START, Events
from event_archive_tests.api_server.switches import status
from event_archive_tests.faults.turns import Told
from event_archive_tests.fixtures.ingestion import Ingest
from event_archive_tests.fixtures.passes import HOURS

pytestmark = pytest.mark.slow


def _event(at: str | datetime) -> str:
    moment = at.isoformat() if isinstance(at, datetime) else f"2024-03-02T{at}:00Z"
    return json.dumps({"id": str(at), "timestamp": moment, "type": "added"})


def test_a_clock_that_is_ahead_of_the_apis_ends_no_window_early(ingest: Ingest):
    ingesting = ingest(Events(0), now=datetime(2024, 3, 2, 12, 15, tzinfo=UTC), clock_error_seconds=-3600)
    hours = HOURS | {"api_start": "2024-03-02"}
    ingesting.api.add([_event("10:30"), _event("11:05")])
    assert ingesting.run(**hours).counts.new == 2
    ingesting.api.add([_event("11:50")])
    ingesting.clock.sleep(3600)
    assert ingesting.run(**hours).counts.new == 1
    unread = "SELECT lower_bound::time::text FROM cursor_state WHERE passes = 0 ORDER BY 1"
    assert ingesting.database.execute(unread) == [("12:00:00",), ("13:00:00",)]


def test_a_clock_that_was_ahead_when_a_pass_began_ends_no_window_early(ingest: Ingest):
    faults = [status(500, first=15, count=None)]
    ingesting = ingest(Events(0), now=datetime(2024, 3, 2, 12, 15, tzinfo=UTC), faults=faults)
    hours = HOURS | {"api_start": "2024-03-02", "api_page_limit": 3, "api_concurrency": 1}
    ingesting.api.add([_event(f"12:{minute:02}") for minute in range(0, 15, 2)])
    ingesting.run(**hours)
    ingesting.api.set(faults=[])
    ahead = "UPDATE cursor_state SET pass_began = pass_began + interval '1 day' WHERE cursor_value <> '' RETURNING true"
    assert ingesting.database.execute(ahead) == [(True,)]
    ingesting.run(**hours)
    ingesting.api.add([_event("12:16")])
    ingesting.clock.sleep(3600)
    ingesting.run(**hours)
    assert ingesting.has_all()


def test_a_window_is_not_over_for_whoever_goes_on_with_a_pass_that_began_by_a_clock_that_was_ahead(ingest: Ingest):
    ingesting = ingest(Events(200, step_ms=300_000), now=START + timedelta(hours=17), order="newest")
    day = HOURS | {"api_shard": "1 day", "api_page_limit": 20, "api_concurrency": 1}
    ingesting.run(pages=3, ahead=timedelta(hours=8), **day)
    ingesting.api.add([_event(START + timedelta(hours=hour, minutes=1)) for hour in range(17, 24)])
    ingesting.clock.sleep(9 * 3600)
    for _ in range(2):
        assert ingesting.run(**day).ended == "complete"
    assert ingesting.has_all()


def test_a_window_is_not_over_for_a_clock_that_is_ahead_and_goes_on_with_a_pass_of_an_older_version(ingest: Ingest):
    """That one wrote down by what clock it had when a pass began."""
    ingesting = ingest(Events(200, step_ms=300_000), now=START + timedelta(hours=17), order="newest")
    day = HOURS | {"api_shard": "1 day", "api_page_limit": 20, "api_concurrency": 1}
    ingesting.run(pages=3, ahead=timedelta(hours=8), **day)
    ingesting.database.execute("UPDATE cursor_state SET pass_began = pass_began + interval '8 hours'")
    ingesting.run(ahead=timedelta(hours=8), **day)
    ingesting.api.add([_event(START + timedelta(hours=hour, minutes=1)) for hour in range(17, 24)])
    ingesting.clock.sleep(9 * 3600)
    ingesting.run(**day)
    assert ingesting.has_all()


def test_a_window_that_was_over_when_a_pass_of_many_pages_began_is_over_for_a_clock_that_is_ahead(ingest: Ingest):
    ingesting = ingest(Events(200, step_ms=300_000), now=START + timedelta(hours=30))
    ingesting.run(api_shard="1 day", api_start="2024-03-01", api_page_limit=20, ahead=timedelta(hours=8))
    over = "SELECT passes FROM cursor_state WHERE upper_bound = '2024-03-02 00:00Z'"
    assert ingesting.database.execute(over) == [(1,)]


def test_a_window_is_not_over_for_an_api_whose_clock_is_ahead(ingest: Ingest):
    ingesting = ingest(Events(200, step_ms=300_000), now=START + timedelta(hours=17), clock_error_seconds=8 * 3600)
    day = HOURS | {"api_shard": "1 day"}
    ingesting.run(**day)
    ingesting.api.add([_event(START + timedelta(hours=hour, minutes=1)) for hour in range(17, 24)])
    ingesting.clock.sleep(9 * 3600)
    ingesting.run(**day)
    assert ingesting.has_all()


def test_a_pass_that_nobody_knows_the_beginning_of_is_followed_by_another_and_does_not_count(ingest: Ingest):
    ingesting = ingest(Events(100), now=START + timedelta(hours=17))
    few: dict[str, Any] = {"api_time_filter": "since,until", "api_start": "2024-03-01", "api_page_limit": 10}
    ingesting.run(pages=3, **few)
    ingesting.database.execute("UPDATE cursor_state SET pass_began = pass_began + interval '1 day'")
    asked = len(ingesting.api.requests)
    assert ingesting.run(**few).ended == "complete"
    assert len(ingesting.api.requests) - asked >= 15
    assert set(ingesting.asked("since")) == {"2024-03-01T00:00:00Z"}
    assert ingesting.position("passes, watermark") == (1, START + timedelta(seconds=99))


def test_a_clock_that_is_behind_goes_on_with_a_pass_that_began_by_a_right_one(ingest: Ingest):
    ingesting = ingest(Events(100), now=START + timedelta(hours=17))
    few: dict[str, Any] = {"api_time_filter": "since,until", "api_page_limit": 10}
    ingesting.run(pages=3, **few)
    asked = len(ingesting.api.requests)
    assert ingesting.run(ahead=-timedelta(hours=8), **few).ended == "complete"
    assert len(ingesting.api.requests) - asked < 10
    assert ingesting.has_all()


@pytest.mark.parametrize("is_corrected", [True, False])
def test_what_becomes_visible_late_is_read_though_the_pass_began_by_a_clock_that_was_ahead(
    ingest: Ingest, *, is_corrected: bool
):
    by_time = Told(lambda: None)

    def show(moment: datetime) -> None:
        by_time.held[int(moment.timestamp())] = int(moment.timestamp()) * 1_000_000, _event(moment).encode()

    for number in range(50):
        show(START + timedelta(minutes=5 * number))
    ingesting = ingest(by_time, now=START + timedelta(hours=4, minutes=10))
    filtered: dict[str, Any] = {"api_time_filter": "since,until", "api_overlap": "2 hours", "api_page_limit": 5}
    ingesting.run(pages=7, ahead=timedelta(hours=8 if is_corrected else 0), **filtered)
    if not is_corrected:
        # The API tells no time, say.
        ingesting.database.execute("UPDATE cursor_state SET pass_began = pass_began + interval '1 day'")
    assert ingesting.position("pass_began IS NULL, watermark::time > '02:42'") == (False, True)
    show(START + timedelta(hours=2, minutes=41))
    show(START + timedelta(hours=13))
    ingesting.clock.sleep(9 * 3600)
    for _ in range(2):
        assert ingesting.run(**filtered).ended == "complete"
    assert len(ingesting.ids) == 52


def test_a_clock_that_is_ahead_of_the_apis_lets_no_event_of_its_future_hide_others(ingest: Ingest):
    filtered: dict[str, Any] = {"api_time_filter": "since,until"}
    ingesting = ingest(Events(0), now=datetime(2024, 3, 2, 12, 15, tzinfo=UTC), clock_error_seconds=-3600)
    ingesting.api.add([_event("11:10"), _event("11:55")])
    assert ingesting.run(**filtered).counts.new == 2
    ingesting.clock.sleep(600)
    ingesting.api.add([_event("11:25")])
    assert ingesting.run(**filtered).counts.new == 1

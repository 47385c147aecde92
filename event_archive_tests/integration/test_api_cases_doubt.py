"""Whether an API's order can be believed: what says nothing of it, what casts doubt on it, and what is read then."""

from datetime import timedelta
from typing import Any

import pytest

from event_archive_tests.api_server.events import START, Events
from event_archive_tests.api_server.switches import cursor_expired
from event_archive_tests.fixtures.ingestion import Ingest, Ingesting
from event_archive_tests.fixtures.passes import SHORT, event

pytestmark = pytest.mark.slow


def taken(ingesting: Ingesting) -> int:
    """How many events a run took in; its pages say less, since some are read ahead and then not needed."""
    return ingesting.run(**SHORT).counts.taken


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
    assert taken(ingesting) < 350, "the day of the first pass"
    ingesting.clock.sleep(86_400)
    assert 350 <= taken(ingesting) < 1_000
    assert taken(ingesting) < 350, "once a day"


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
    assert taken(ingesting) < 350, "once a day"


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_a_pass_that_is_stopped_takes_nothing_from_what_is_known_of_the_order(ingest: Ingest, order: str):
    ingesting = ingest(Events(1000, step_ms=10_000), order=order, time_filter=False)
    ingesting.run(**SHORT)
    for day in (1, 2, 3):
        times = [START + timedelta(days=day, seconds=10 * n) for n in range(350)]
        ingesting.api.add([event(f"f{day}-{n}", time) for n, time in enumerate(times)])
        ingesting.run(**SHORT, pages=2)
        ingesting.clock.sleep(86_400)
        assert taken(ingesting) < 800
    assert ingesting.has_all()
    assert taken(ingesting) < 350, "a day later"


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_changes_prove_an_order_too_where_they_land(ingest: Ingest, order: str):
    ingesting = ingest(Events(350, step_ms=10_000), order=order, time_filter=False)
    settings: dict[str, Any] = {**SHORT, "api_conflict": "update"}
    ingesting.run(**settings)
    for day in (1, 2):
        ingesting.clock.sleep(86_400)
        ingesting.api.add([event(f"e{n}", START + timedelta(days=day, seconds=n)) for n in range(5)])
        counts = ingesting.run(**settings).counts
    assert counts.taken < 350


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
    assert taken(ingesting) >= 350


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
    assert taken(ingesting) < 350, "the day of the first pass"
    ingesting.clock.sleep(86_400)
    assert taken(ingesting) >= 350, "nothing has come yet"
    assert taken(ingesting) < 350, "once a day"
    ingesting.api.set(arriving=5, arriving_requests=1)
    assert ingesting.run(**SHORT).counts.new == 5
    ingesting.clock.sleep(86_400)
    assert taken(ingesting) < 350


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

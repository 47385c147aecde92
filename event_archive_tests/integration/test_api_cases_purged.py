"""Events whose day is archived already do not come back, and no others are taken for them.

The numbers in the comments are those of the hardest cases of an API ingestion.
"""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import Retention, midnight, now_utc
from event_archive.sources.http_api import crew
from event_archive.sources.landing import Counts, land_in
from event_archive_tests.api_server.events import START, Events
from event_archive_tests.api_server.switches import status
from event_archive_tests.fixtures.ingestion import Ingest
from event_archive_tests.fixtures.passes import ENDED, FILTER, SHORT, WINDOWS, event
from event_archive_tests.fixtures.pipeline import SPECIFICATION

pytestmark = pytest.mark.slow


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

"""Pages of an API at which a run goes on: what moved, what was deleted, what is no place any more."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from event_archive.domain.days import iso
from event_archive.sources.http_api import records
from event_archive.sources.http_api.place import Arrivals, First
from event_archive_tests.api_server.events import START, Events
from event_archive_tests.api_server.switches import status
from event_archive_tests.fixtures.ingestion import Ingest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("pagination", ["page", "offset"])
def test_newest_first_a_page_that_comes_again_since_as_many_events_arrived_is_no_error(ingest: Ingest, pagination: str):
    ingesting = ingest(pagination=pagination, order="newest", arriving=100, arriving_requests=2)
    assert ingesting.run(api_pagination=pagination, api_overlap="1 second").failures == []
    assert ingesting.has_all()


@pytest.mark.parametrize("pagination", ["page", "offset"])
@pytest.mark.parametrize("events", [500, 550])
def test_404_behind_the_last_page_is_the_end(ingest: Ingest, pagination: str, events: int):
    ingesting = ingest(events, pagination=pagination, envelope="bare", missing_pages=True)
    totals = ingesting.run(api_pagination=pagination)
    assert (totals.failures, totals.restarts, totals.counts.known) == ([], 0, 0)
    assert ingesting.position("passes") == (1,)
    ingesting.api.set(arriving=30, arriving_requests=1)
    before = len(ingesting.api.requests)
    totals = ingesting.run(api_pagination=pagination)
    assert (totals.failures, totals.restarts, totals.counts.new) == ([], 0, 30)
    assert len(ingesting.api.requests) <= before + 3
    assert ingesting.has_all()


@pytest.mark.parametrize("switches", [{"envelope": "bare"}, {"more_until_empty": True}], ids=["no word", "until empty"])
def test_an_empty_page_by_number_is_no_place_to_go_on_from(ingest: Ingest, switches: dict[str, Any]):
    ingesting = ingest(230, pagination="page", **switches)
    ingesting.run(api_pagination="page")
    for more in (30, 0, 140, 60):
        ingesting.api.set(arriving=more, arriving_requests=1)
        assert ingesting.run(api_pagination="page").counts.new == more
    assert ingesting.has_all()


@pytest.mark.parametrize("pagination", ["page", "offset", "link", "cursor"])
@pytest.mark.parametrize("arriving", [300, 700], ids=["the place is empty", "others stand there"])
def test_where_an_api_deleted_what_came_before_a_run_goes_on_from_the_beginning(
    ingest: Ingest, pagination: str, arriving: int
):
    ingesting = ingest(500, pagination=pagination)
    ingesting.run(api_pagination=pagination)
    ingesting.api.set(deleted=500, arriving=arriving, arriving_requests=1)
    totals = ingesting.run(api_pagination=pagination)
    assert (totals.failures, totals.restarts, totals.counts.new) == ([], 1, arriving)
    ingesting.api.set(deleted=550, arriving=60, arriving_requests=1)
    totals = ingesting.run(api_pagination=pagination)
    assert (totals.failures, totals.restarts, totals.counts.new) == ([], 0, 60)
    assert ingesting.has_all()


def test_a_known_event_amid_a_page_does_not_stand_for_what_moved(ingest: Ingest):
    ingesting = ingest(500, pagination="offset")
    ingesting.run(api_pagination="offset")
    again = [*ingesting.api.events.values()][499].encode()
    ingesting.api.set(deleted=450, arriving=900, arriving_requests=1, bad_events=[again], bad_after=870)
    totals = ingesting.run(api_pagination="offset")
    assert (totals.failures, totals.restarts) == ([], 1)


def test_what_cannot_be_a_row_or_was_changed_does_not_stand_for_what_moved(ingest: Ingest):
    """An API may give the like of it again and again, or move a changed event to behind those that are new."""
    ingesting = ingest(500, bad_events=[b"null"], bad_after=450)
    ingesting.run()
    settings = ingesting.settings()
    target, reader = records.target("public", "ignore"), records.reader(settings)
    known, new = (
        [*ingesting.api.events.values()][499].encode(),
        b'{"id":"new","type":"added","timestamp":"2024-03-01T00:09:00Z"}',
    )

    def begins(*raw: bytes) -> bool | None:
        first = First.of([*map(msgspec.Raw, raw)], reader, datetime.now(UTC))
        with settings.postgres.session() as session:
            return None if first is None else Arrivals(session, target, reader).have(first)

    assert [begins(b"null", known, new), begins(b"null"), begins(b"{}", known)] == [True, True, True]
    assert [begins(b"null", new, known), begins(b"{}"), begins()] == [False, False, None]
    changed = json.dumps(json.loads(known) | {"timestamp": "2024-03-01T00:09:00Z"}).encode()
    assert [begins(changed), begins(changed, known)] == [False, False]


def test_a_page_whose_rows_somebody_deleted_is_still_the_one_that_was_read(ingest: Ingest):
    ingesting = ingest(500)
    ingesting.run()
    ingesting.database.execute("DELETE FROM ingested_events")
    totals = ingesting.run()
    assert (totals.failures, totals.restarts, totals.counts.new) == ([], 0, 100)


def test_after_another_field_became_the_id_a_run_goes_on_where_it_was(ingest: Ingest):
    ingesting = ingest(Events(0), time_filter=False)
    events = [
        json.dumps({"id": f"e{n}", "uid": f"u{n}", "type": "x", "timestamp": iso(START + timedelta(minutes=n))})
        for n in range(600)
    ]
    ingesting.api.add(events[:500])
    ingesting.run()
    ingesting.api.add(events[500:])
    totals = ingesting.run(api_id_field="uid")
    assert (totals.failures, totals.restarts, totals.counts.new) == ([], 0, 200), "the last page, and what came"


@pytest.mark.parametrize(("event", "restarts"), [(400, 0), (300, 1)])
def test_a_place_that_a_former_version_wrote_is_known_by_its_id(ingest: Ingest, event: int, restarts: int):
    ingesting = ingest(500, time_filter=False)
    ingesting.run()
    place = hashlib.sha256([*ingesting.api.events][event].encode()).hexdigest()[:16]
    ingesting.database.execute("DELETE FROM ingested_events")
    ingesting.database.execute(
        "UPDATE cursor_state SET cursor_value = split_part(cursor_value, chr(10), 1) || chr(10) || %s", place
    )
    totals = ingesting.run()
    assert (totals.failures, totals.restarts, totals.counts.new) == ([], restarts, 500 if restarts else 100)
    assert ingesting.run().pages == 1


def test_404_for_the_page_where_a_run_goes_on_means_from_the_start(ingest: Ingest):
    ingesting = ingest(200, pagination="page", envelope="bare", missing_pages=True)
    ingesting.run(api_pagination="page")
    # Where a process that was killed before it heard of the end leaves it.
    ingesting.database.execute("UPDATE cursor_state SET cursor_value = 'page 3/100', passes = 0")
    totals = ingesting.run(api_pagination="page")
    assert (totals.failures, totals.restarts, totals.counts.known) == ([], 1, 200)
    assert ingesting.position("passes") == (1,)


def test_an_api_that_is_no_longer_there_is_an_error_wherever_a_run_goes_on(ingest: Ingest):
    ingesting = ingest(pagination="page", envelope="bare")
    ingesting.run(api_pagination="page")
    ingesting.api.set(faults=[status(404, count=None)])
    (error,) = ingesting.run(api_pagination="page").failures
    assert "refuses the request (status 404)" in str(error)


@pytest.mark.parametrize(
    ("pagination", "cursor"),
    [
        ("page", "abc"),
        ("page", "3/100"),
        ("page", "offset 300"),
        ("offset", "abc"),
        ("offset", "300"),
        ("offset", "page 3/100"),
        ("cursor", "page 3/100"),
        ("cursor", "offset 300"),
        ("link", "abc"),
        ("link", "200"),
        ("link", "ELSEWHERE"),
    ],
)
def test_a_cursor_of_another_kind_of_pages_is_no_place_to_go_on_from(ingest: Ingest, pagination: str, cursor: str):
    ingesting = ingest(pagination=pagination)
    ingesting.run(api_pagination=pagination)
    cursor = cursor.replace("ELSEWHERE", f"{ingesting.api.elsewhere_url}/events")
    ingesting.database.execute("UPDATE cursor_state SET cursor_value = %s, passes = 0", cursor)
    before = len(ingesting.api.requests)
    totals = ingesting.run(api_pagination=pagination)
    assert (totals.failures, totals.counts.known) == ([], 500)
    assert ingesting.api.elsewhere == []
    assert ingesting.asked("cursor", "offset")[before] in [(None, None), (None, "0")]

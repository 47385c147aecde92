"""The API that the ingestion is tested against: its pages, its envelopes and its cursors."""

import json
import re

import pytest
import urllib3

from event_archive_tests.api_server.client import Client, Json
from event_archive_tests.api_server.clock import FakeClock
from event_archive_tests.api_server.running import ApiServer
from event_archive_tests.api_server.switches import cursor_expired
from event_archive_tests.fixtures.api import ServeApi


def ids(events: list[Json]) -> list[str]:
    return [event["id"] for event in events]


def test_page_after_page_gives_every_event_once_oldest_first(api_client: Client, api_server: ApiServer):
    events = api_client.events(limit=1000)
    assert {event["id"]: event for event in events} == {
        key: json.loads(text) for key, text in api_server.events.items()
    }
    assert len(events) == 2500
    assert ids(events) == list(api_server.events)
    assert [type(event["timestamp"]) for event in events[:2]] == [str, int]
    assert [(request.params["limit"], request.status) for request in api_server.requests] == [("1000", 200)] * 3


def test_an_event_has_some_347_bytes(api_server: ApiServer):
    lengths = [len(text.encode()) for text in api_server.events.values()]
    assert 320 < sum(lengths) / len(lengths) < 370


def test_a_window_is_half_open(api_client: Client):
    window = {"since": "2024-03-01T00:00:10Z", "until": "2024-03-01T00:00:20+00:00"}
    assert [int(event["id"][-12:], 16) for event in api_client.events(**window)] == list(range(10, 20))


def test_added_events_come_last_and_in_their_window_and_known_ones_are_replaced(
    api_client: Client, api_server: ApiServer
):
    changed = next(iter(api_server.events.values())).replace("page_view", "changed")
    added = '{"id":"new","timestamp":"2024-03-01T00:00:10.5Z"}'
    api_server.add([changed, added])
    events = api_client.events(limit=1000)
    assert (len(events), events[0]["type"], events[-1]["id"]) == (2501, "changed", "new")
    assert len(api_client.events(since="2024-03-01T00:00:10Z", until="2024-03-01T00:00:11Z")) == 2
    assert next(iter(api_server.events.values())) == changed


def test_a_limit_is_capped_silently(api_client: Client, api_server: ApiServer):
    api_server.set(max_limit=300)
    assert len(api_client.page(limit=1000)["data"]) == 300


def test_without_the_key_nothing_is_given(api_server: ApiServer, http: urllib3.PoolManager):
    assert http.request("GET", api_server.url + "/events").status == 401
    assert api_server.requests[0].key is None


def test_from_a_request_on_the_key_is_refused(api_client: Client, api_server: ApiServer):
    api_server.set(unauthorized_from=2)
    assert [api_client.get().status for _ in range(3)] == [200, 401, 401]


def test_the_envelope_takes_the_shapes_that_were_seen(api_client: Client, api_server: ApiServer):
    api_server.set(envelope="pagination", cursor_seconds=116)
    page = api_client.page(limit=1000)
    assert page["pagination"] == {
        "limit": 1000,
        "hasMore": True,
        "nextCursor": page["pagination"]["nextCursor"],
        "cursorExpiresIn": 116,
    }
    assert page["meta"] == {"total": 2500, "returned": 1000}
    api_server.set(envelope="nested", total_error=7)
    page = api_client.page(limit=10)
    assert len(page["data"]["data"]) == 10
    assert page["data"]["meta"]["total"] == 2507
    api_server.set(envelope="flat", with_total=True, names={"data": "items", "hasMore": "more", "nextCursor": "next"})
    assert set(api_client.page()) == {"items", "more", "next", "total"}


@pytest.mark.parametrize("pagination", ["page", "offset"])
def test_pages_are_asked_for_by_number(api_client: Client, api_server: ApiServer, pagination: str):
    api_server.set(pagination=pagination, envelope="bare")
    numbers = {"page": (1, 2, 3, 4), "offset": (0, 1000, 2000, 3000)}[pagination]
    pages = [api_client.get("/events", **{"limit": 1000, pagination: number}).json() for number in numbers]
    assert [len(page) for page in pages] == [1000, 1000, 500, 0]
    assert ids([event for page in pages for event in page]) == list(api_server.events)


def test_a_link_leads_to_the_next_page(api_client: Client, api_server: ApiServer):
    api_server.set(pagination="link", envelope="bare")
    got: list[Json] = []
    address: str | None = "/events?limit=1000"
    while address:
        answer = api_client.get(address)
        got += answer.json()
        found = re.search('<([^>]*)>; rel="next"', answer.headers["Link"])
        address = found and found[1]
    assert ids(got) == list(api_server.events)


def test_newest_first_events_that_arrive_shift_offsets_but_not_cursors(api_client: Client, api_server: ApiServer):
    api_server.set(order="newest", arriving=5, arriving_requests=3)
    assert len(set(ids(api_client.events(limit=1000)))) == 2505
    assert len(api_server.events) == 2515
    api_server.set(pagination="offset", arriving=5, arriving_requests=3)
    pages = [api_client.page(limit=1000, offset=offset)["data"] for offset in (0, 1000)]
    assert pages[1][:5] == pages[0][-5:]


def test_late_events_are_not_seen_before_their_time(api_client: Client, api_server: ApiServer):
    api_server.set(late_every=10, late_requests=1)
    assert len(api_client.events(limit=5000)) == 2250
    assert len(api_client.events(limit=5000)) == 2500


def test_duplicates_stand_at_borders_and_within_pages(api_client: Client, api_server: ApiServer):
    api_server.set(duplicates_at_borders=2, duplicates_within=1)
    pages = list(api_client.pages(limit=1000))
    assert ids(pages[1]["data"])[1:3] == ids(pages[0]["data"])[-2:]
    assert pages[0]["data"][0] == pages[0]["data"][1]
    assert len({event["id"] for page in pages for event in page["data"]}) == 2500


def test_empty_pages_come_first_and_an_empty_list_may_be_null(api_client: Client, api_server: ApiServer):
    api_server.set(empty_pages=3, null_when_empty=True, more_until_empty=True)
    pages = list(api_client.pages(limit=2500))
    assert [page["data"] and len(page["data"]) for page in pages] == [None, None, None, 2500, None]
    assert [page["hasMore"] for page in pages] == [True] * 4 + [False]


@pytest.mark.parametrize(
    ("cursors", "pattern"), [("repeat", "AAAAA"), ("cycle", "ABABA"), ("missing", "-----"), ("right", "ABCDE")]
)
def test_cursors_repeat_cycle_or_are_missing(api_client: Client, api_server: ApiServer, cursors: str, pattern: str):
    api_server.set(cursors=cursors)
    got = [page["nextCursor"] for page in api_client.pages(most=5, limit=10)]
    letters = dict(zip(dict.fromkeys(got), "ABCDE", strict=False)) | {None: "-"}
    assert "".join(letters[cursor] for cursor in got) == pattern


def test_a_cursor_may_stand_on_the_last_page(api_client: Client, api_server: ApiServer):
    api_server.set(cursors="on-last")
    page = api_client.page(limit=5000)
    assert page["nextCursor"]
    assert not page["hasMore"]


def test_a_cursor_expires_after_some_time_or_some_requests_or_at_once(serve_api: ServeApi, http: urllib3.PoolManager):
    clock = FakeClock()
    api = serve_api(clock=clock, cursor_seconds=116)
    api_client = Client(http, api)
    cursor = api_client.page()["nextCursor"]
    clock.sleep(115)
    assert api_client.get(cursor=cursor).status == 200
    clock.sleep(1)
    assert api_client.get(cursor=cursor).json()["error"]["code"] == "CURSOR_EXPIRED"
    api.set(cursor_seconds=None, cursor_requests=2, expired="410")
    cursor = api_client.page()["nextCursor"]
    assert [api_client.get(cursor=cursor).status for _ in range(3)] == [200, 200, 410]
    api.set(cursor_requests=None, faults=[cursor_expired(first=2)])
    cursor = api_client.page()["nextCursor"]
    assert [api_client.get(cursor=cursor).status for _ in range(3)] == [200, 400, 200]

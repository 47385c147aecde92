"""The API that the tests of ``ingest api`` use does what its switches say."""

import json
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import urllib3

from event_archive_tests.api_server.clock import FakeClock
from event_archive_tests.api_server.quota import Quota
from event_archive_tests.api_server.running import ApiServer, in_process
from event_archive_tests.api_server.switches import Fault, cursor_expired, error_object, html, redirect, status
from event_archive_tests.fixtures.api import ServeApi

Json = dict[str, Any]


@pytest.fixture
def http() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=5) as pool:
        yield pool


class Client:
    """Asks one API, the plain way."""

    def __init__(self, pool: urllib3.PoolManager, api: ApiServer) -> None:
        self._pool = pool
        self._api = api

    def get(self, address: str = "/events", **parameters: Any) -> urllib3.BaseHTTPResponse:
        url = address if address.startswith("http") else self._api.url + address
        headers = {"X-API-Key": self._api.key, "Accept-Encoding": "gzip"}
        fields = {name: str(value) for name, value in parameters.items() if value is not None}
        return self._pool.request("GET", url, fields=fields or None, headers=headers)

    def page(self, **parameters: Any) -> Json:
        answer = self.get(**parameters)
        assert answer.status == 200
        return dict(answer.json())

    def pages(self, most: int = 100, **parameters: Any) -> Iterator[Json]:
        """Page after page of the flat envelope, until there are no more, or so many."""
        cursor = None
        for _ in range(most):
            page = self.page(cursor=cursor, **parameters)
            yield page
            cursor = page["nextCursor"]
            if not page["hasMore"]:
                return

    def events(self, **parameters: Any) -> list[Json]:
        return [event for page in self.pages(**parameters) for event in page["data"] or []]


def ids(events: list[Json]) -> list[str]:
    return [event["id"] for event in events]


@pytest.fixture
def client(http: urllib3.PoolManager, api_server: ApiServer) -> Client:
    return Client(http, api_server)


def test_page_after_page_gives_every_event_once_oldest_first(client: Client, api_server: ApiServer):
    events = client.events(limit=1000)
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


def test_a_window_is_half_open(client: Client):
    window = {"since": "2024-03-01T00:00:10Z", "until": "2024-03-01T00:00:20+00:00"}
    assert [int(event["id"][-12:], 16) for event in client.events(**window)] == list(range(10, 20))


def test_added_events_come_last_and_in_their_window_and_known_ones_are_replaced(client: Client, api_server: ApiServer):
    changed = next(iter(api_server.events.values())).replace("page_view", "changed")
    added = '{"id":"new","timestamp":"2024-03-01T00:00:10.5Z"}'
    api_server.add([changed, added])
    events = client.events(limit=1000)
    assert (len(events), events[0]["type"], events[-1]["id"]) == (2501, "changed", "new")
    assert len(client.events(since="2024-03-01T00:00:10Z", until="2024-03-01T00:00:11Z")) == 2
    assert next(iter(api_server.events.values())) == changed


def test_a_limit_is_capped_silently(client: Client, api_server: ApiServer):
    api_server.set(max_limit=300)
    assert len(client.page(limit=1000)["data"]) == 300


def test_without_the_key_nothing_is_given(api_server: ApiServer, http: urllib3.PoolManager):
    assert http.request("GET", api_server.url + "/events").status == 401
    assert api_server.requests[0].key is None


def test_from_a_request_on_the_key_is_refused(client: Client, api_server: ApiServer):
    api_server.set(unauthorized_from=2)
    assert [client.get().status for _ in range(3)] == [200, 401, 401]


def test_the_envelope_takes_the_shapes_that_were_seen(client: Client, api_server: ApiServer):
    api_server.set(envelope="pagination", cursor_seconds=116)
    page = client.page(limit=1000)
    assert page["pagination"] == {
        "limit": 1000,
        "hasMore": True,
        "nextCursor": page["pagination"]["nextCursor"],
        "cursorExpiresIn": 116,
    }
    assert page["meta"] == {"total": 2500, "returned": 1000}
    api_server.set(envelope="nested", total_error=7)
    page = client.page(limit=10)
    assert len(page["data"]["data"]) == 10
    assert page["data"]["meta"]["total"] == 2507
    api_server.set(envelope="flat", with_total=True, names={"data": "items", "hasMore": "more", "nextCursor": "next"})
    assert set(client.page()) == {"items", "more", "next", "total"}


@pytest.mark.parametrize("pagination", ["page", "offset"])
def test_pages_are_asked_for_by_number(client: Client, api_server: ApiServer, pagination: str):
    api_server.set(pagination=pagination, envelope="bare")
    first = {"page": 1, "offset": 0}[pagination]
    step = {"page": 1, "offset": 1000}[pagination]
    pages = [client.get(limit=1000, **{pagination: first + step * number}).json() for number in range(4)]
    assert [len(page) for page in pages] == [1000, 1000, 500, 0]
    assert ids([event for page in pages for event in page]) == list(api_server.events)


def test_a_link_leads_to_the_next_page(client: Client, api_server: ApiServer):
    api_server.set(pagination="link", envelope="bare")
    got: list[Json] = []
    address: str | None = "/events?limit=1000"
    while address:
        answer = client.get(address)
        got += answer.json()
        found = re.search('<([^>]*)>; rel="next"', answer.headers["Link"])
        address = found and found[1]
    assert ids(got) == list(api_server.events)


def test_newest_first_events_that_arrive_shift_offsets_but_not_cursors(client: Client, api_server: ApiServer):
    api_server.set(order="newest", arriving=5, arriving_requests=3)
    assert len(set(ids(client.events(limit=1000)))) == 2505
    assert len(api_server.events) == 2515
    api_server.set(pagination="offset", arriving=5, arriving_requests=3)
    pages = [client.page(limit=1000, offset=offset)["data"] for offset in (0, 1000)]
    assert pages[1][:5] == pages[0][-5:]


def test_late_events_are_not_seen_before_their_time(client: Client, api_server: ApiServer):
    api_server.set(late_every=10, late_requests=1)
    assert len(client.events(limit=5000)) == 2250
    assert len(client.events(limit=5000)) == 2500


def test_duplicates_stand_at_borders_and_within_pages(client: Client, api_server: ApiServer):
    api_server.set(duplicates_at_borders=2, duplicates_within=1)
    pages = list(client.pages(limit=1000))
    assert ids(pages[1]["data"])[1:3] == ids(pages[0]["data"])[-2:]
    assert pages[0]["data"][0] == pages[0]["data"][1]
    assert len({event["id"] for page in pages for event in page["data"]}) == 2500


def test_empty_pages_come_first_and_an_empty_list_may_be_null(client: Client, api_server: ApiServer):
    api_server.set(empty_pages=3, null_when_empty=True, more_until_empty=True)
    pages = list(client.pages(limit=2500))
    assert [page["data"] and len(page["data"]) for page in pages] == [None, None, None, 2500, None]
    assert [page["hasMore"] for page in pages] == [True] * 4 + [False]


@pytest.mark.parametrize(
    ("cursors", "pattern"), [("repeat", "AAAAA"), ("cycle", "ABABA"), ("missing", "-----"), ("right", "ABCDE")]
)
def test_cursors_repeat_cycle_or_are_missing(client: Client, api_server: ApiServer, cursors: str, pattern: str):
    api_server.set(cursors=cursors)
    got = [page["nextCursor"] for page in client.pages(most=5, limit=10)]
    letters = dict(zip(dict.fromkeys(got), "ABCDE", strict=False)) | {None: "-"}
    assert "".join(letters[cursor] for cursor in got) == pattern


def test_a_cursor_may_stand_on_the_last_page(client: Client, api_server: ApiServer):
    api_server.set(cursors="on-last")
    page = client.page(limit=5000)
    assert page["nextCursor"]
    assert not page["hasMore"]


def test_a_cursor_expires_after_some_time_or_some_requests_or_at_once(serve_api: ServeApi, http: urllib3.PoolManager):
    clock = FakeClock()
    api = serve_api(clock=clock, cursor_seconds=116)
    client = Client(http, api)
    cursor = client.page()["nextCursor"]
    clock.sleep(115)
    assert client.get(cursor=cursor).status == 200
    clock.sleep(1)
    assert client.get(cursor=cursor).json()["error"]["code"] == "CURSOR_EXPIRED"
    api.set(cursor_seconds=None, cursor_requests=2, expired="410")
    cursor = client.page()["nextCursor"]
    assert [client.get(cursor=cursor).status for _ in range(3)] == [200, 200, 410]
    api.set(cursor_requests=None, faults=[cursor_expired(first=2)])
    cursor = client.page()["nextCursor"]
    assert [client.get(cursor=cursor).status for _ in range(3)] == [200, 400, 200]


@pytest.mark.parametrize("sliding", [False, True])
def test_a_quota_counts_what_it_allows(sliding: bool):
    clock = FakeClock()
    quota = Quota(10, 60, clock, sliding=sliding)
    standings = []
    for _ in range(12):
        standings.append(quota.take())
        clock.sleep(1)
    assert [standing.allowed for standing in standings] == [True] * 10 + [False] * 2
    assert [standing.remaining for standing in standings] == [*range(9, -1, -1), 0, 0]
    assert standings[-1].reset_seconds == 49
    clock.sleep(standings[-1].reset_seconds - 1)
    assert quota.take().remaining == (0 if sliding else 9)
    clock.sleep(60)
    assert quota.take(foreign=4).remaining == 5


def test_who_waits_for_the_reset_is_never_refused_and_loses_no_time(serve_api: ServeApi, http: urllib3.PoolManager):
    clock = FakeClock()
    api = serve_api(clock=clock, limit_requests=10, limit_seconds=60)
    client = Client(http, api)
    for answer in (client.get() for _ in range(100)):
        if answer.headers["X-RateLimit-Remaining"] == "0":
            clock.sleep(int(answer.headers["X-RateLimit-Reset"]))
    requests = api.requests
    assert {request.status for request in requests} == {200}
    assert requests[-1].time - requests[0].time == pytest.approx(9 * 60)


@pytest.mark.parametrize(
    ("style", "headers"),
    [
        ("x-delta", {"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "60"}),
        ("x-epoch", {"X-RateLimit-Reset": "1760000060"}),
        ("x-ms", {"X-RateLimit-Reset": "1760000060000"}),
        ("x-iso", {"X-RateLimit-Reset": "2025-10-09T08:54:20+00:00"}),
        ("ietf", {"RateLimit": '"default";r=1;t=60', "RateLimit-Policy": '"default";q=2;w=60'}),
        ("ietf-split", {"RateLimit-Limit": "2", "RateLimit-Remaining": "1", "RateLimit-Reset": "60"}),
        ("none", {}),
    ],
)
def test_an_answer_tells_the_quota_in_each_style(
    serve_api: ServeApi, http: urllib3.PoolManager, style: str, headers: dict[str, str]
):
    api = serve_api(clock=FakeClock(), limit_requests=2, limit_headers=style, limit_status=403)
    client = Client(http, api)
    answer = client.get()
    told = {name: value for name, value in answer.headers.items() if "RateLimit" in name}
    assert headers.items() <= told.items()
    assert bool(told) == bool(headers)
    assert [client.get().status for _ in range(2)] == [200, 403]


def test_a_refusal_says_when_to_come_again(serve_api: ServeApi, http: urllib3.PoolManager):
    api = serve_api(clock=FakeClock(), limit_requests=3, foreign_per_request=2)
    client = Client(http, api)
    assert client.get().status == 200
    refusal = client.get()
    assert (refusal.status, refusal.headers["Retry-After"]) == (429, "60")
    api.set(retry_after="date")
    refusal = client.get()
    told = parsedate_to_datetime(refusal.headers["Retry-After"]) - parsedate_to_datetime(refusal.headers["Date"])
    assert told.total_seconds() == 60
    api.set(retry_after="soon")
    assert client.get().headers["Retry-After"] == "soon"
    api.set(retry_after="absent")
    assert "Retry-After" not in client.get().headers


def test_faults_happen_to_the_requests_they_are_meant_for(client: Client, api_server: ApiServer):
    api_server.set(faults=[status(503, count=2), status(413, above_limit=500, count=None), html(), error_object()])
    assert [client.get(limit=10).status for _ in range(2)] == [503, 503]
    assert client.get(limit=501).status == 413
    assert client.get(limit=500).data.startswith(b"<!DOCTYPE html>")
    assert "error" in client.page(limit=500)
    assert "data" in client.page(limit=500)
    api_server.set(faults=[], outage=True)
    assert client.get().status == 503


def test_a_body_is_cut_in_every_way(client: Client, api_server: ApiServer):
    api_server.set(faults=[Fault(kind="cut")])
    with pytest.raises(urllib3.exceptions.ProtocolError, match="IncompleteRead"):
        client.get()
    api_server.set(faults=[Fault(kind="reset")])
    with pytest.raises(urllib3.exceptions.ProtocolError, match="reset"):
        client.get()
    api_server.set(faults=[Fault(kind="cut-whole-chunks")])
    with pytest.raises(json.JSONDecodeError):
        client.page()
    assert len(client.page()["data"]) == 100


def test_gzip_that_is_cut_inside_whole_chunks_is_seen_by_nobody_but_the_parser(client: Client, api_server: ApiServer):
    api_server.set(gzip=True, chunked=True)
    answer = client.get()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(answer.json()["data"]) == 100
    api_server.set(faults=[Fault(kind="cut-whole-chunks")])
    answer = client.get()
    assert answer.status == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_a_bomb_is_small_until_it_is_decoded(client: Client, api_server: ApiServer):
    api_server.set(faults=[Fault(kind="bomb", decoded_bytes=10_000_000), Fault(kind="giant", decoded_bytes=1_000_000)])
    answer = client.get()
    assert int(answer.headers["Content-Length"]) < 20_000
    assert len(answer.data) == 10_000_000
    assert len(client.get().data) > 1_000_000


def test_silence_and_a_dribble_last_until_the_client_gives_up(http: urllib3.PoolManager, api_server: ApiServer):
    api_server.set(faults=[Fault(kind="silence"), Fault(kind="dribble", seconds=0.001)])
    events, headers = f"{api_server.url}/events", {"X-API-Key": api_server.key}
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        http.request("GET", events, headers=headers, timeout=0.1)
    dribble = http.request("GET", events, headers=headers, preload_content=False)
    assert [dribble.read1(100) for _ in range(3)] == [b"{", b'"', b"d"]
    dribble.close()
    assert [request.status for request in api_server.requests] == [0, 200]


def test_bad_events_stand_in_the_page_byte_for_byte(client: Client, api_server: ApiServer):
    bad = [b'{"id":"nul","name":"\\u0000"}', b'{"id":"\xff\xfe"}', b'{"id":NaN}', b'{"id":"\\ud800"}']
    api_server.set(bad_events=bad, bad_after=1, max_limit=3)
    assert b",".join(bad) in client.get().data
    assert bad[0] not in client.get(cursor=client.page(limit=1)["nextCursor"], limit=0).data


def test_a_redirect_leads_to_another_host_that_remembers_the_key(client: Client, api_server: ApiServer):
    api_server.set(faults=[redirect(api_server.elsewhere_url + "/events")])
    assert client.get().status == 302
    assert api_server.elsewhere == []
    client.get(api_server.elsewhere_url + "/events")
    assert [asked["headers"]["x-api-key"] for asked in api_server.elsewhere] == [api_server.key]


def test_an_outage_refuses_connections_and_ends(client: Client, api_server: ApiServer):
    assert client.get().status == 200
    with api_server.outage():
        for _ in range(2):
            with pytest.raises((urllib3.exceptions.ProtocolError, urllib3.exceptions.NewConnectionError)):
                client.get()
    assert client.get().status == 200


def test_a_process_of_its_own_serves_a_million_events(http: urllib3.PoolManager):
    with in_process(1_000_000, step_ms=60_000, time_scale=600, limit_headers="none") as api:
        client = Client(http, api)
        assert len(client.page(limit=1000, since="2025-01-01T00:00:00Z")["data"]) == 1000
        for _ in range(50):
            client.get(limit=1000)
        assert len(api.requests) == 51

"""The API that the ingestion is tested against: its quota, and all that goes wrong."""

import json
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import pytest
import urllib3

from event_archive_tests.api_server import odd
from event_archive_tests.api_server.client import Client
from event_archive_tests.api_server.clock import FakeClock
from event_archive_tests.api_server.quota import Quota
from event_archive_tests.api_server.running import ApiServer, in_process
from event_archive_tests.api_server.switches import Fault, error_object, html, redirect, status
from event_archive_tests.fixtures.api import ServeApi


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
    api_client = Client(http, api)
    for answer in (api_client.get() for _ in range(100)):
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
    api_client = Client(http, api)
    answer = api_client.get()
    told = {name: value for name, value in answer.headers.items() if "RateLimit" in name}
    assert headers.items() <= told.items()
    assert bool(told) == bool(headers)
    assert [api_client.get().status for _ in range(2)] == [200, 403]


def test_a_refusal_says_when_to_come_again(serve_api: ServeApi, http: urllib3.PoolManager):
    api = serve_api(clock=FakeClock(), limit_requests=3, foreign_per_request=2)
    api_client = Client(http, api)
    assert api_client.get().status == 200
    refusal = api_client.get()
    assert (refusal.status, refusal.headers["Retry-After"]) == (429, "60")
    api.set(retry_after="date")
    refusal = api_client.get()
    told = parsedate_to_datetime(refusal.headers["Retry-After"]) - parsedate_to_datetime(refusal.headers["Date"])
    assert told.total_seconds() == 60
    api.set(retry_after="soon")
    assert api_client.get().headers["Retry-After"] == "soon"
    api.set(retry_after="absent")
    assert "Retry-After" not in api_client.get().headers


def test_faults_happen_to_the_requests_they_are_meant_for(api_client: Client, api_server: ApiServer):
    api_server.set(faults=[status(503, count=2), status(413, above_limit=500, count=None), html(), error_object()])
    assert [api_client.get(limit=10).status for _ in range(2)] == [503, 503]
    assert api_client.get(limit=501).status == 413
    assert api_client.get(limit=500).data.startswith(b"<!DOCTYPE html>")
    assert "error" in api_client.page(limit=500)
    assert "data" in api_client.page(limit=500)
    api_server.set(faults=[], outage=True)
    assert api_client.get().status == 503


def test_a_body_is_cut_in_every_way(api_client: Client, api_server: ApiServer):
    api_server.set(faults=[Fault(kind="cut")])
    with pytest.raises(urllib3.exceptions.ProtocolError, match="IncompleteRead"):
        api_client.get()
    api_server.set(faults=[Fault(kind="reset")])
    with pytest.raises(urllib3.exceptions.ProtocolError, match="reset"):
        api_client.get()
    api_server.set(faults=[Fault(kind="cut-whole-chunks")])
    with pytest.raises(json.JSONDecodeError):
        api_client.page()
    assert len(api_client.page()["data"]) == 100


def test_gzip_that_is_cut_inside_whole_chunks_is_seen_by_nobody_but_the_parser(
    api_client: Client, api_server: ApiServer
):
    api_server.set(gzip=True, chunked=True)
    answer = api_client.get()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(answer.json()["data"]) == 100
    api_server.set(faults=[Fault(kind="cut-whole-chunks")])
    answer = api_client.get()
    assert answer.status == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_a_bomb_is_small_until_it_is_decoded(api_client: Client, api_server: ApiServer):
    api_server.set(faults=[Fault(kind="bomb", decoded_bytes=10_000_000), Fault(kind="giant", decoded_bytes=1_000_000)])
    answer = api_client.get()
    assert int(answer.headers["Content-Length"]) < 20_000
    assert len(answer.data) == 10_000_000
    assert len(api_client.get().data) > 1_000_000


def test_silence_and_a_dribble_last_until_the_client_gives_up(http: urllib3.PoolManager, api_server: ApiServer):
    api_server.set(faults=[Fault(kind="silence"), Fault(kind="dribble", seconds=0.001)])
    events, headers = f"{api_server.url}/events", {"X-API-Key": api_server.key}
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        http.request("GET", events, headers=headers, timeout=0.1)
    dribble = http.request("GET", events, headers=headers, preload_content=False)
    assert [dribble.read1(100) for _ in range(3)] == [b"{", b'"', b"d"]
    dribble.close()
    assert [request.status for request in api_server.requests] == [0, 200]


def test_bad_events_stand_in_the_page_byte_for_byte(api_client: Client, api_server: ApiServer):
    bad = [*odd.UNREADABLE.values(), *odd.NO_RECORDS.values(), odd.record(b"7", b'"now"')]
    api_server.set(bad_events=bad, bad_after=1)
    assert b",%b," % b",".join(bad) in api_client.get(limit=3).data
    assert api_client.page(limit=1)["data"][0]["type"] == "page_view"


def test_a_redirect_leads_to_another_host_that_remembers_the_key(api_client: Client, api_server: ApiServer):
    api_server.set(faults=[redirect(api_server.elsewhere_url + "/events")])
    assert api_client.get().status == 302
    assert api_server.elsewhere == []
    api_client.get(api_server.elsewhere_url + "/events")
    assert [asked["headers"]["x-api-key"] for asked in api_server.elsewhere] == [api_server.key]


def test_an_outage_refuses_connections_and_ends(api_client: Client, api_server: ApiServer):
    assert api_client.get().status == 200
    with api_server.outage():
        for _ in range(2):
            with pytest.raises((urllib3.exceptions.ProtocolError, urllib3.exceptions.NewConnectionError)):
                api_client.get()
    assert api_client.get().status == 200


def test_a_process_of_its_own_serves_a_million_events(http: urllib3.PoolManager):
    with in_process(1_000_000, step_ms=60_000, time_scale=600, limit_headers="none") as api:
        api_client = Client(http, api)
        assert len(api_client.page(limit=1000, since="2025-01-01T00:00:00Z")["data"]) == 1000
        for _ in range(50):
            api_client.get(limit=1000)
        assert len(api.requests) == 51


def test_the_log_tells_how_many_requests_are_under_way(api_client: Client, api_server: ApiServer):
    api_server.set(latency_ms=200)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: api_client.get(), range(3)))
    assert sorted(request.at_once for request in api_server.requests) == [1, 2, 3]

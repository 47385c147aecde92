"""Ways of their own that APIs have with pages and links, and settings that do not fit an API: never a silent end.

The hardest cases have files of their own.
"""

import time
from datetime import timedelta
from typing import Any

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import ConfigurationError, RefusedError, UnreachableError
from event_archive.postgres.session import Postgres
from event_archive.sources.http_api import fetching
from event_archive.sources.http_api.pages import Fields, read_page
from event_archive.sources.http_api.positions import Position, Positions
from event_archive_tests.api_server.events import START
from event_archive_tests.api_server.switches import Fault, cursor_expired, status
from event_archive_tests.fixtures.ingestion import Ingest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("links", ["lines", "loose"])
def test_a_link_is_found_however_the_header_is_written(ingest: Ingest, links: str):
    ingesting = ingest(pagination="link", links=links)
    assert ingesting.run(api_pagination="link").failures == []
    assert len(ingesting.api.requests) == 5
    assert ingesting.has_all()


def test_more_without_a_link_is_an_error(ingest: Ingest):
    ingesting = ingest()
    (error,) = ingesting.run(api_pagination="link").failures
    assert isinstance(error, RefusedError)
    assert "says that more follows, and gives no link for it" in str(error)
    assert ingesting.position("cursor_value, passes, events_ingested") == (None, 0, 100)


def test_links_that_are_not_heeded_are_an_error_and_the_right_setting_takes_in_the_rest(ingest: Ingest):
    ingesting = ingest(pagination="link", envelope="bare")
    (error,) = ingesting.run().failures
    assert "set API_PAGINATION=link" in str(error)
    assert ingesting.position("cursor_value, passes, events_ingested") == (None, 0, 100)
    assert ingesting.run(api_pagination="link").failures == []
    assert ingesting.has_all()


UNNAMED: dict[str, Any] = {"names": {"hasMore": "other", "nextCursor": "another"}}
"""Of an API that says nothing of a next page."""


def test_a_part_of_a_total_without_a_word_of_the_next_page_is_an_error(ingest: Ingest):
    ingesting = ingest(pagination="offset", with_total=True, **UNNAMED)
    (error,) = ingesting.run().failures
    assert "tells of 500 events, gives 100, and says nothing of the next page" in str(error)
    assert ingesting.position("passes") == (0,)
    assert ingesting.run(api_pagination="offset").failures == []
    assert ingesting.has_all()


def test_a_total_of_all_events_is_no_error_where_a_window_of_them_is_asked_for(ingest: Ingest):
    ingesting = ingest(200, with_total=True, total_error=1000, **UNNAMED)
    filtered: dict[str, Any] = {"api_page_limit": 1000, "api_time_filter": "since,until", "api_start": "2024-03-01"}
    assert ingesting.run(**filtered).failures == []
    assert ingesting.has_all()


def test_headers_that_come_byte_by_byte_are_given_up(ingest: Ingest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetching, "_TIMEOUT_SECONDS", 0.4)
    # The headers alone would take half a minute.
    ingesting = ingest(faults=[Fault(kind="dribble", seconds=0.2)])
    began = time.monotonic()
    assert ingesting.run().failures == []
    assert time.monotonic() - began < 10
    assert ingesting.has_all()


def test_bodies_that_are_given_up_leave_connections_for_others(ingest: Ingest):
    # More of them than connections; pages that are counted keep their size.
    too_large = Fault(kind="giant", decoded_bytes=4_000_000, count=None)
    ingesting = ingest(0, now=START + timedelta(hours=1), faults=[too_large])
    totals = ingesting.run(api_pagination="page", api_shard="5 minutes", api_start="2024-03-01", api_concurrency=1)
    assert [type(failure) for failure in totals.failures] == [UnreachableError] * 3
    assert len(ingesting.api.requests) == 15


@pytest.mark.parametrize("pagination", ["page", "offset"])
def test_an_api_that_does_not_heed_the_number_of_a_page_is_an_error_and_no_page_is_passed_over(
    ingest: Ingest, pagination: str
):
    ingesting = ingest(pagination=pagination, envelope="bare")
    for run in (1, 2):
        (error,) = ingesting.run(api_pagination=pagination, api_cursor_parameter="start").failures
        assert "answers with the same page again and again, whatever 'start' says" in str(error)
        assert len(ingesting.api.requests) == 3 * run
        assert len(ingesting.ids) == 100
        assert ingesting.position("cursor_value, passes") == (None, 0)
    assert ingesting.run(api_pagination=pagination).failures == []
    assert ingesting.has_all()


def test_an_api_that_does_not_heed_its_cursors_is_an_error_and_no_page_is_passed_over(ingest: Ingest):
    ingesting = ingest()
    (error,) = ingesting.run(api_cursor_parameter="after", pages=20).failures
    assert "answers with the same page again and again, each time with another cursor" in str(error)
    assert (len(ingesting.api.requests), len(ingesting.ids)) == (3, 100)
    assert ingesting.run().failures == []
    assert ingesting.has_all()


def test_null_is_no_empty_list_where_there_is_another_list():
    page = read_page(b'{"data":null,"events":[{"id":1}]}', Fields())
    assert [bytes(of) for of in page.events] == [b'{"id":1}']


@pytest.mark.parametrize("scheme", ["", "Bearer "])
def test_no_part_of_the_key_is_told_where_a_page_that_is_none_repeats_it(ingest: Ingest, scheme: str):
    ingesting = ingest(key_header="Authorization")
    for letters in range(175, 200, 10):
        body = b"<html>" + b"x" * (letters - 5) + ingesting.api.key.encode()
        ingesting.api.set(faults=[Fault(kind="answer", status=200, body=body, count=None)])
        totals = ingesting.run(api_key=scheme + ingesting.api.key, api_key_header="Authorization")
        (error,) = totals.failures
        assert f"begins with '<html>{'x' * (letters - 5)}***'" in str(error)
        assert ingesting.api.key[:4] not in str(error)


def test_nothing_is_repeated_of_events_in_xml(ingest: Ingest):
    ingesting = ingest()
    body = b"<?xml version='1.0'?><event><name>nobody-may-see</name></event>"
    ingesting.api.set(faults=[Fault(kind="answer", status=200, body=body, count=None)])
    (error,) = ingesting.run().failures
    assert f"the answer is no JSON: it has {len(body)} bytes" in str(error)
    assert "nobody-may-see" not in str(error)


def test_who_has_no_key_is_told_to_set_one(ingest: Ingest):
    (error,) = ingest().run(api_key=None).failures
    assert "wants a key (status 401): set API_KEY" in str(error)


@pytest.mark.parametrize("kind", ["giant", "413"])
def test_a_page_that_is_too_large_is_halved_until_it_holds_one_event_however_many_attempts_that_takes(
    ingest: Ingest, kind: str
):
    giant = Fault(kind="giant", decoded_bytes=4_000_000, above_limit=1, count=None)
    fault = giant if kind == "giant" else status(413, above_limit=1, count=None)
    ingesting = ingest(5, now=START + timedelta(hours=1), faults=[fault])
    windows: dict[str, Any] = {"api_shard": "1 day", "api_start": "2024-03-01"}
    assert ingesting.run(**windows, api_page_limit=1000).failures == []
    assert ingesting.asked("limit")[:10] == ["1000", "500", "250", "125", "62", "31", "15", "7", "3", "1"]
    assert ingesting.waiting.waits == []
    assert ingesting.has_all()


def test_one_event_that_is_too_large_ends_the_attempts(ingest: Ingest):
    ingesting = ingest(5, faults=[status(413, count=None)])
    (error,) = ingesting.run(api_page_limit=4).failures
    assert "did not answer well in 5 attempts: status 413" in str(error)
    assert ingesting.asked("limit") == ["4", "2", "1", "1", "1", "1", "1"]


def test_what_is_left_of_a_total_is_known_until_all_has_arrived_once(ingest: Ingest):
    ingesting = ingest(1500, with_total=True)
    for _ in range(2):
        left = ingesting.run(pages=2).left
        assert left == 1500 - len(ingesting.ids) > 0
    assert ingesting.run().left is None
    ingesting.api.set(arriving=30, arriving_requests=1)
    assert ingesting.run().left is None


def test_where_a_refused_cursor_makes_a_pass_go_on_is_logged(ingest: Ingest, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    ingest(faults=[cursor_expired(first=3)]).run()
    assert "does not know the cursor any more; going on from the beginning" in caplog.text
    ingest(faults=[cursor_expired(first=3)]).run(api_time_filter="since,until", api_overlap="10 seconds")
    assert "does not know the cursor any more; going on with events since 2024-03-01T00:04:49Z" in caplog.text


def test_a_run_beside_another_one_says_so_and_is_done(ingest: Ingest, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    ingesting = ingest()
    ingesting.run()
    positions = Positions(TableName("public", "cursor_state"), f"{ingesting.api.url}/events")
    with Postgres(ingesting.database.dsn).session() as other:
        assert positions.claim(other, Position())
        before = len(ingesting.api.requests)
        totals = ingesting.run()
    assert (totals.ended, totals.failures, len(ingesting.api.requests)) == ("shared", [], before)
    assert "/events: another run is reading it\n" in caplog.text


def test_a_proxy_of_the_environment_is_asked_but_for_hosts_that_are_left_out(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
):
    ingesting = ingest()
    proxy = ingesting.api.url.replace("http://", "http://user:pass%20word@")
    monkeypatch.setenv("http_proxy", proxy)
    assert ingesting.run(api_base_url="http://api.invalid").failures == []
    assert ingesting.has_all()
    monkeypatch.setenv("no_proxy", "other.invalid,api.invalid")
    (error,) = ingesting.run(api_base_url="http://api.invalid").failures
    assert "Failed to resolve 'api.invalid'" in str(error)
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", "http://user:password@127.0.0.1:1")
    (error,) = ingesting.run(api_base_url="http://api.invalid").failures
    assert "in 5 attempts: the proxy: Failed to establish a new connection: [Errno 111]" in str(error)


@pytest.mark.parametrize("proxy", ["socks5://user:secret@h:1", "http://user:secret@h:port"])
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch, proxy: str
):
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ConfigurationError, match="HTTP_PROXY is no address of a proxy like http://HOST:3128") as caught:
        ingest().run(api_base_url="http://api.invalid")
    assert "secret" not in str(caught.value)


def test_an_api_that_nobody_listens_for_is_told_as_that_and_not_as_slow(ingest: Ingest):
    ingesting = ingest()
    with ingesting.api.outage():
        (error,) = ingesting.run().failures
    assert "in 5 attempts: Failed to establish a new connection: [Errno 111] Connection refused. What" in str(error)


def test_a_body_that_is_packed_in_another_way_than_it_says_is_told_as_that(ingest: Ingest):
    plain = Fault(kind="answer", status=200, headers={"Content-Encoding": "gzip"}, body=b"{}", count=None)
    (error,) = ingest(faults=[plain]).run().failures
    assert "in 5 attempts: its body is not packed as its headers say. What" in str(error)


def test_cursors_that_are_not_heeded_are_an_error(ingest: Ingest):
    ingesting = ingest(names={"hasMore": "other"})
    (error,) = ingesting.run(api_pagination="link").failures
    assert "gives no link, but a cursor for the next page: set API_PAGINATION=cursor" in str(error)
    assert ingesting.run().failures == []
    assert ingesting.has_all()

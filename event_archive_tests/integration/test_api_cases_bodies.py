"""Answers that are no pages, too large, cut short, or hold events that cannot be rows.

The numbers in the comments are those of the hardest cases of an API ingestion.
"""

from datetime import timedelta
from typing import Any

import pytest

from event_archive.errors import RefusedError, UnreachableError
from event_archive.sources.http_api import fetching
from event_archive.sources.http_api.pages import Fields, read_page
from event_archive_tests.api_server.events import START
from event_archive_tests.api_server.switches import Fault, error_object, html, status
from event_archive_tests.fixtures.ingestion import Ingest

pytestmark = pytest.mark.slow

MEBIBYTE = 1024 * 1024


# 15: a page that is too much for the API


@pytest.mark.parametrize("code", [413, 502, 504])
def test_a_page_that_is_too_much_is_halved_at_the_same_cursor(ingest: Ingest, code: int):
    ingesting = ingest(faults=[status(code, above_limit=30, count=None)])
    assert ingesting.run().failures == []
    assert ingesting.asked("limit", "cursor")[:3] == [("100", None), ("50", None), ("25", None)]
    assert ingesting.has_all()


def test_a_halved_page_grows_again_after_twenty(ingest: Ingest):
    ingesting = ingest(2000, faults=[Fault(kind="answer", status=413, with_cursor=True)])
    assert ingesting.run().failures == []
    limits = ingesting.asked("limit")
    cursors = ingesting.asked("cursor")
    assert limits == ["100"] * 2 + ["50"] * 20 + ["100"] * (len(limits) - 22)
    assert cursors[1] == cursors[2]
    assert ingesting.has_all()


def test_silence_halves_the_page(ingest: Ingest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetching, "_TIMEOUT_SECONDS", 0.2)
    ingesting = ingest(faults=[Fault(kind="silence", above_limit=50, count=None)])
    assert ingesting.run().failures == []
    assert ingesting.asked("limit")[:2] == ["100", "50"]
    assert ingesting.has_all()


def test_a_body_that_comes_byte_by_byte_is_given_up(ingest: Ingest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetching, "_TIMEOUT_SECONDS", 0.3)
    ingesting = ingest(faults=[Fault(kind="dribble", seconds=0.0005)])
    assert ingesting.run().failures == []
    assert len(ingesting.api.requests) > 5
    assert ingesting.has_all()


@pytest.mark.parametrize("pagination", ["offset", "link"])
def test_a_page_is_halved_whatever_the_pagination(ingest: Ingest, pagination: str):
    ingesting = ingest(pagination=pagination, faults=[status(413, above_limit=50)])
    assert ingesting.run(api_pagination=pagination).failures == []
    assert ingesting.has_all()


def test_pages_that_are_counted_keep_their_size(ingest: Ingest):
    ingesting = ingest(pagination="page", faults=[status(502, first=3, count=2)])
    assert ingesting.run(api_pagination="page").failures == []
    assert set(ingesting.asked("limit")) == {"100"}
    assert ingesting.has_all()


# 17: a body that is none


BROKEN = [
    html(first=2, count=2),
    Fault(kind="cut", first=2, count=2),
    Fault(kind="cut-whole-chunks", first=2, count=2),
    Fault(kind="reset", first=2, count=2),
    status(500, first=2, count=2),
    Fault(kind="answer", status=200, body=b"", first=2, count=2),
]


@pytest.mark.parametrize("fault", BROKEN, ids=lambda fault: f"{fault.kind}-{fault.status}-{len(fault.body)}")
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_broken_body_is_asked_for_again(ingest: Ingest, fault: Fault, packed: bool):
    ingesting = ingest(faults=[fault], gzip=packed)
    assert ingesting.run().failures == []
    cursors = ingesting.asked("cursor")
    assert cursors[1] == cursors[2] == cursors[3] != cursors[4]
    # One, two seconds, and some jitter.
    assert [1 <= wait <= 2.5 for wait in ingesting.waiting.waits] == [True, True]
    assert ingesting.has_all()


def test_after_five_attempts_the_first_bytes_are_told_without_the_key(ingest: Ingest):
    ingesting = ingest()
    body = f"<html>maintenance {ingesting.api.key}".encode()
    ingesting.api.set(faults=[Fault(kind="answer", status=200, body=body, first=3, count=None)])
    totals = ingesting.run()
    (error,) = totals.failures
    assert isinstance(error, UnreachableError)
    assert "in 5 attempts: the answer is no JSON; it begins with '<html>maintenance ***'" in str(error)
    assert ingesting.api.key not in repr(error)
    assert [round(wait) for wait in ingesting.waiting.waits] == pytest.approx([1, 2, 4, 8], rel=0.3)
    assert totals.counts.new == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("nobody-may-see,1\n", "the answer is no JSON: it has 17 bytes"),
        ('"nobody-may-see"', "the answer has no list of events in it."),
        ("4711\n", "the answer has no list of events in it."),
        ("null\n", "the answer has no list of events in it."),
        ('{"nobody-may-see": 1, "x": [2]}', "the answer has no list of events in it; it has x."),
    ],
)
def test_what_may_be_events_in_a_form_that_is_none_is_told_without_them(ingest: Ingest, body: str, words: str):
    ingesting = ingest(faults=[Fault(kind="answer", status=200, body=body.encode(), count=None)])
    (error,) = ingesting.run().failures
    assert words in str(error)
    assert "nobody-may-see" not in str(error)
    # What is JSON is no page that was cut short.
    assert (len(ingesting.api.requests) == 1) == ("no list" in words)


@pytest.mark.parametrize("status", [203, 206])
def test_a_page_under_another_status_of_a_page_is_one(ingest: Ingest, status: int):
    page = b'\xef\xbb\xbf{"data": [{"id": "x", "timestamp": "2024-03-01T00:00:00Z"}], "hasMore": false}'
    ingesting = ingest(faults=[Fault(kind="answer", status=status, body=page)])
    assert ingesting.run().failures == []
    assert ingesting.ids == ["x"]


@pytest.mark.parametrize("status", [202, 204, 304])
def test_a_status_of_no_page_is_said(ingest: Ingest, status: int):
    ingesting = ingest(faults=[Fault(kind="answer", status=status, body=b"", count=None)])
    (error,) = ingesting.run().failures
    assert f"gives no page of events (status {status}). Check API_BASE_URL" in str(error)
    assert len(ingesting.api.requests) == 1


def test_a_proxy_that_wants_a_user_is_said_to_be_one(ingest: Ingest):
    ingesting = ingest(faults=[Fault(kind="answer", status=407, body=b"", count=None)])
    (error,) = ingesting.run().failures
    assert "The proxy wants a user (status 407): HTTP_PROXY=http://USER:PASSWORD@HOST:PORT" in str(error)


def test_a_page_that_is_cut_short_is_told_without_its_events(ingest: Ingest):
    ingesting = ingest(faults=[Fault(kind="cut-whole-chunks", count=None)])
    (error,) = ingesting.run().failures
    assert "no JSON, or cut short: it has" in str(error)
    assert "user-" not in str(error)


# 18: an error under 200


def test_an_error_object_under_200_is_no_empty_page(ingest: Ingest):
    ingesting = ingest(faults=[error_object(first=3, count=None)])
    (error,) = ingesting.run().failures
    assert isinstance(error, RefusedError)
    assert "has no list of events in it; it has error, success" in str(error)
    assert ingesting.position("passes, events_ingested") == (0, 200)
    ingesting.api.set(faults=[])
    ingesting.run()
    assert ingesting.has_all()


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":null,"error":{"code":"INTERNAL"}}',
        b'{"data":[],"hasMore":false,"errors":[{"message":"something went wrong"}]}',
        b'{"success":false,"data":null}',
        b'{"success":"false","data":[]}',
        b'{"status":"fail","data":null}',
        b'{"status":"error","message":"rate limited","data":[]}',
        b'{"code":429,"message":"rate limited","data":null}',
        b'{"meta":{"code":500,"error_type":"server_error"},"data":[]}',
        b'{"data":{"data":[],"errors":[{"message":"something went wrong"}]}}',
    ],
)
def test_newest_first_an_error_beside_no_events_hides_none_of_those_before(ingest: Ingest, body: bytes):
    ingesting = ingest(order="newest", faults=[Fault(kind="answer", status=200, body=body, first=3)])
    (error,) = ingesting.run().failures
    assert isinstance(error, RefusedError)
    assert "has an error in place of events; it has " in str(error)
    assert ingesting.position("passes, events_ingested") == (0, 200)
    assert ingesting.run().failures == []
    assert ingesting.has_all()


@pytest.mark.parametrize("empty", ["[]", "[ ]"])
def test_an_empty_list_beside_one_with_something_in_it_is_no_end(ingest: Ingest, empty: str):
    body = f'{{"data":{empty},"events":[{{"id":"a"}}],"hasMore":false}}'.encode()
    ingesting = ingest(faults=[Fault(kind="answer", status=200, body=body, first=1)])
    (error,) = ingesting.run().failures
    assert "an empty list data, and another one that is not, events: API_DATA_FIELD says which" in str(error)
    assert ingesting.run(api_data_field="data").failures == []
    assert ingesting.has_all()


def test_an_error_beside_the_name_of_the_next_cursor_is_no_refusal_of_the_one_that_was_sent(ingest: Ingest):
    body = b'{"data":[],"hasMore":false,"nextCursor":null,"cursorExpiresIn": 60,"error":{"code":"OVERLOADED"}}'
    ingesting = ingest(faults=[Fault(kind="answer", status=200, body=body, first=3, count=None)])
    totals = ingesting.run()
    assert totals.restarts == 0
    assert "has an error in place of events" in str(totals.failures)
    assert ingesting.position("passes, events_ingested") == (0, 200)


@pytest.mark.parametrize(
    "told",
    [
        b'"error":null,"errors":[],"success":true',
        b'"error":{"code":0,"message":"ok"},"ok":1,"status":"ok"',
        b'"error":"none","errors":{},"success":"true","status":200,"code":0',
        b'"error":false,"result":"success","meta":{"code":200,"error":"0"}',
    ],
)
def test_members_for_errors_that_tell_of_none_leave_the_end_an_end(told: bytes):
    assert read_page(b'{"data":[],"hasMore":false,%b}' % told, Fields()).has_more is False


# 19: bodies that are too large


@pytest.mark.parametrize("kind", ["bomb", "giant"])
def test_a_body_that_is_too_large_is_not_read_to_its_end(ingest: Ingest, kind: Any):
    ingesting = ingest(faults=[Fault(kind=kind, decoded_bytes=64 * MEBIBYTE, first=2, count=1)])
    assert ingesting.run().failures == []
    assert ingesting.asked("limit")[1:3] == ["100", "50"]
    assert ingesting.has_all()


def test_a_body_within_the_bound_is_read_however_many_blanks_are_in_it(ingest: Ingest):
    ingesting = ingest(200, faults=[Fault(kind="giant", decoded_bytes=8 * MEBIBYTE)])
    assert ingesting.run().failures == []
    assert len(ingesting.api.requests) == 2
    assert ingesting.has_all()


def test_workers_that_are_many_have_smaller_pages(ingest: Ingest):
    ingesting = ingest(100, now=START + timedelta(hours=1), faults=[Fault(kind="giant", decoded_bytes=8 * MEBIBYTE)])
    assert ingesting.run(api_shard="1 day", api_start="2024-03-01").failures == []
    assert ingesting.asked("limit")[:2] == ["100", "50"]
    assert ingesting.has_all()

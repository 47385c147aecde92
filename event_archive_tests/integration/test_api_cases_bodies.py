"""Answers that are no pages, too large, cut short, or hold events that cannot be rows.

The numbers in the comments are those of the hardest cases of an API ingestion.
"""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from event_archive.errors import RefusedError, UnreachableError
from event_archive.sources.http_api import fetching, workers
from event_archive.sources.http_api.pages import Fields, read_page
from event_archive_tests.api_server import odd
from event_archive_tests.api_server.events import START
from event_archive_tests.api_server.switches import Fault, error_object, html, redirect, status
from event_archive_tests.fixtures.ingestion import Ingest, Ingesting

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


# 20: one event that PostgreSQL cannot hold

DEEP = {
    f"{levels} levels": b'{"id":"deep","timestamp":1709251200000,"x":%b1%b}' % (b"[" * levels, b"]" * levels)
    for levels in (3_000, 100_000)
}
LARGE = {
    "a number too large": b'{"id":"large","timestamp":1709251200000,"x":1e200000}',
    "an id too long": b'{"id":"%b","timestamp":1709251200000}'
    % json.dumps([str(number * 7919) for number in range(20_000)])[1:-1].replace('"', "").encode(),
}


def rejected(ingesting: Ingesting) -> dict[bytes, str]:
    rows = ingesting.database.execute("SELECT raw, reason FROM rejected_records")
    return {bytes(raw): str(reason) for raw, reason in rows}  # type: ignore[call-overload]


def test_events_that_cannot_be_rows_are_kept_to_the_byte_and_their_page_goes_on(ingest: Ingest):
    bad = [*odd.UNREADABLE.values(), *odd.NO_RECORDS.values()]
    ingesting = ingest(250, bad_events=bad, bad_after=50)
    totals = ingesting.run()
    assert (totals.failures, totals.counts.new, totals.counts.rejected) == ([], 250, len(bad))
    assert rejected(ingesting).keys() == set(bad)
    assert ingesting.has_all()


@pytest.mark.parametrize("bad", [*(DEEP | LARGE).values()], ids=[*(DEEP | LARGE)])
def test_an_event_that_only_postgresql_knows_it_cannot_hold_is_rejected_alone(ingest: Ingest, bad: bytes):
    ingesting = ingest(250, bad_events=[bad], bad_after=50)
    totals = ingesting.run()
    assert (totals.failures, totals.counts.new, totals.counts.rejected) == ([], 250, 1)
    assert rejected(ingesting).keys() == {bad}
    assert ingesting.has_all()


def test_more_rejected_events_than_allowed_end_the_run_and_what_arrived_is_kept(ingest: Ingest):
    bad = [*odd.NO_RECORDS.values()]
    ingesting = ingest(250, bad_events=bad, bad_after=50)
    with pytest.raises(RefusedError, match=f"{len(bad)} events cannot be rows, more than MAX_REJECTED=3"):
        ingesting.run(max_rejected=3)
    assert len(rejected(ingesting)) == len(bad)
    # They are known by then.
    assert ingesting.run(max_rejected=3).failures == []
    assert ingesting.has_all()


# 21: ids


def test_an_id_is_the_text_of_its_token(ingest: Ingest):
    bad = [odd.record(identifier=token) for token in odd.IDS]
    ingesting = ingest(60, bad_events=bad, bad_after=50)
    ingesting.run()
    ids = ingesting.database.execute("SELECT id FROM ingested_events WHERE event_type = 'odd'")
    assert {key for (key,) in ids} == set(odd.IDS.values())
    assert rejected(ingesting) == {}


# 22: times


def test_a_time_is_exact_or_the_event_is_rejected(ingest: Ingest):
    times = [*odd.TIMES, *odd.NO_TIMES]
    bad = [odd.record(b'"odd %d"' % number, token) for number, token in enumerate(times)]
    ingesting = ingest(60, bad_events=bad, bad_after=50)
    ingesting.run()
    query = "SELECT id, timestamp FROM ingested_events WHERE event_type = 'odd'"
    found = {times[int(str(key)[4:])]: moment for key, moment in ingesting.database.execute(query)}
    assert found == {token: datetime.fromisoformat(text) for token, text in odd.TIMES.items()}
    assert rejected(ingesting).keys() == {of for of, token in zip(bad, times, strict=True) if token in odd.NO_TIMES}


# 25: the key


@pytest.mark.parametrize("windows", [False, True])
def test_a_key_that_is_refused_in_the_midst_ends_the_run_at_once(ingest: Ingest, windows: bool):
    ingesting = ingest(1500, now=START + timedelta(minutes=24), unauthorized_from=3, with_total=True)
    variables: dict[str, Any] = {"api_shard": "5 minutes", "api_start": "2024-03-01"} if windows else {}
    totals = ingesting.run(**variables)
    assert totals.ended == "failed"
    assert "refuses the key (status 401). Check API_KEY and API_KEY_HEADER" in str(totals.failures[0])
    assert ingesting.api.key not in repr(totals)
    assert len(ingesting.api.requests) <= 3 + 5
    assert ingesting.waiting.waits == []
    assert len(ingesting.ids) == totals.counts.new == 200
    ingesting.api.set(unauthorized_from=None)
    assert ingesting.run(**variables).failures == []
    assert ingesting.has_all()


@pytest.mark.parametrize("code", [301, 302, 307])
def test_the_key_goes_to_no_other_host_by_a_redirect(ingest: Ingest, code: Any):
    ingesting = ingest()
    ingesting.api.set(faults=[redirect(ingesting.api.elsewhere_url + "/events", code, first=2, count=None)])
    (error,) = ingesting.run().failures
    assert f"redirects (status {code}), which is not followed" in str(error)
    assert ingesting.api.elsewhere == []


def test_the_key_goes_to_no_other_host_by_a_link(ingest: Ingest):
    ingesting = ingest(pagination="link")
    link = {"Link": f'<{ingesting.api.elsewhere_url}/events?page=2>; rel="next"'}
    ingesting.api.set(faults=[Fault(kind="answer", status=200, body=b"[]", headers=link)])
    (error,) = ingesting.run(api_pagination="link").failures
    assert f"links to {ingesting.api.elsewhere_url} for the next page, which is not followed" in str(error)
    assert ingesting.api.elsewhere == []


@pytest.mark.parametrize("address", ["http://[", "http://[::1/x", "http://[v1.x]/x"])
def test_a_link_that_is_no_address_is_refused_and_what_came_with_it_is_kept(ingest: Ingest, address: str):
    ingesting = ingest(0, pagination="link")
    link = {"Link": f'<{address}>; rel="next"'}
    body = b'[{"id": "1", "timestamp": "2024-03-01T00:00:00Z", "type": "x"}]'
    ingesting.api.set(faults=[Fault(kind="answer", status=200, body=body, headers=link)])
    (error,) = ingesting.run(api_pagination="link").failures
    assert "links to" in str(error)
    assert "What arrived is kept" in str(error)
    assert ingesting.ids == ["1"]


def test_the_key_is_sent_in_the_header_that_is_named(ingest: Ingest):
    ingesting = ingest(100, key_header="Authorization")
    assert ingesting.run(api_key_header="Authorization").failures == []
    assert {request.key for request in ingesting.api.requests} == {ingesting.api.key}


# What nobody foresaw


def test_a_worker_that_fails_for_an_unknown_reason_ends_its_shard_and_not_the_waiting(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(workers, "walk", broken)
    (error,) = ingest().run().failures
    assert "ZeroDivisionError in test_api_cases_bodies.py" in str(error)
    assert "a secret" not in str(error)


def test_an_api_that_is_down_ends_a_run_over_many_windows_soon(ingest: Ingest):
    ingesting = ingest(now=START + timedelta(hours=1), outage=True)
    totals = ingesting.run(api_shard="5 minutes", api_start="2024-03-01", api_concurrency=1)
    assert totals.ended == "failed"
    assert len(totals.failures) == 3
    assert len(ingesting.api.requests) == 15

"""Events that cannot be rows, keys that are refused, links that lead elsewhere.

The numbers in the comments are those of the hardest cases of an API ingestion.
"""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from event_archive.errors import RefusedError
from event_archive.sources.http_api import workers
from event_archive_tests.api_server import odd
from event_archive_tests.api_server.events import START
from event_archive_tests.api_server.switches import Fault, redirect
from event_archive_tests.fixtures.ingestion import Ingest, Ingesting

pytestmark = pytest.mark.slow


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
    assert "ZeroDivisionError in test_api_cases_events.py" in str(error)
    assert "a secret" not in str(error)


def test_an_api_that_is_down_ends_a_run_over_many_windows_soon(ingest: Ingest):
    ingesting = ingest(now=START + timedelta(hours=1), outage=True)
    totals = ingesting.run(api_shard="5 minutes", api_start="2024-03-01", api_concurrency=1)
    assert totals.ended == "failed"
    assert len(totals.failures) == 3
    assert len(ingesting.api.requests) == 15

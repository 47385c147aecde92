"""The limits of an API: each window of its quota is used up, and nothing is asked that would be refused.

The numbers in the comments are those of the hardest cases of an API ingestion.
"""

import re
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from event_archive.errors import BusyError, UnreachableError
from event_archive.sources.http_api import crew
from event_archive_tests.api_server.events import START, Events
from event_archive_tests.api_server.switches import Fault, status
from event_archive_tests.fixtures.ingestion import Ingest, Ingesting

pytestmark = pytest.mark.slow

STYLES = ["x-delta", "x-epoch", "x-ms", "x-iso", "ietf", "ietf-split"]
QUOTA: dict[str, Any] = {"limit_requests": 10, "limit_seconds": 60}
MANY_WINDOWS: dict[str, Any] = {"api_shard": "10 minutes", "api_start": "2024-03-01"}


def windows(ingest: Ingest, **switches: Any) -> Ingesting:
    """An API whose events lie in forty windows of a page each."""
    return ingest(Events(400, step_ms=60_000), now=START + timedelta(minutes=399), **switches)


def assert_all_of_the_quota_is_used(ingesting: Ingesting) -> None:
    requests = ingesting.api.requests
    assert len(requests) == 40
    assert {request.status for request in requests} == {200}
    # Ten at once, and ten more after each of three minutes.
    assert 180 <= requests[-1].time - requests[0].time <= 180 * 1.05
    assert ingesting.has_all()


@pytest.mark.parametrize("style", STYLES)
def test_a_chain_uses_the_whole_quota_and_is_never_refused(ingest: Ingest, style: str):
    ingesting = ingest(4000, **QUOTA, limit_headers=style)
    assert ingesting.run().failures == []
    assert_all_of_the_quota_is_used(ingesting)


@pytest.mark.parametrize("style", STYLES)
def test_several_workers_use_the_whole_quota_and_are_never_refused(ingest: Ingest, style: str):
    ingesting = windows(ingest, **QUOTA, limit_headers=style)
    assert ingesting.run(**MANY_WINDOWS).failures == []
    assert_all_of_the_quota_is_used(ingesting)


@pytest.mark.parametrize("kind", ["chain", "windows"])
def test_a_quota_that_holds_at_any_time_is_kept_too(ingest: Ingest, kind: str):
    sliding = {**QUOTA, "limit_sliding": True}
    ingesting = ingest(4000, **sliding) if kind == "chain" else windows(ingest, **sliding)
    assert ingesting.run(**MANY_WINDOWS if kind == "windows" else {}).failures == []
    assert_all_of_the_quota_is_used(ingesting)


# 11: told to wait


@pytest.mark.parametrize("code", [429, 403])
@pytest.mark.parametrize("retry_after", ["seconds", "date"])
def test_who_is_told_to_wait_waits_that_long_and_not_much_longer(ingest: Ingest, code: int, retry_after: str):
    ingesting = ingest(
        limit_requests=3, limit_seconds=60, limit_headers="none", limit_status=code, retry_after=retry_after
    )
    assert ingesting.run().failures == []
    requests = ingesting.api.requests
    assert [request.status for request in requests] == [200, 200, 200, code, 200, 200]
    assert 60 <= requests[4].time - requests[3].time <= 60 * 1.1 + 1
    assert ingesting.has_all()


@pytest.mark.parametrize("retry_after", ["soon", "-5", "", "1e9", "Thu, 99 Foo 2024", "NaN"])
def test_who_is_told_nonsense_waits_longer_each_time(ingest: Ingest, retry_after: str):
    ingesting = ingest(limit_requests=3, limit_seconds=20, limit_headers="none", retry_after=retry_after)
    assert ingesting.run().failures == []
    times = [request.time for request in ingesting.api.requests if request.status == 429]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert [round(gap) for gap in gaps[:4]] == pytest.approx([1, 2, 4, 8], rel=0.2)
    assert ingesting.has_all()


def test_who_is_told_to_wait_for_a_day_ends_and_the_next_run_goes_on(ingest: Ingest):
    ingesting = ingest(limit_requests=3, limit_seconds=60, limit_headers="none", retry_after="86400")
    totals = ingesting.run()
    (error,) = totals.failures
    assert isinstance(error, BusyError)
    assert "wants no request for 86400 s" in str(error)
    assert (totals.ended, totals.counts.new) == ("failed", 300)
    ingesting.clock.sleep(86_400)
    totals = ingesting.run()
    assert (totals.failures, totals.counts.known) == ([], 0)
    assert ingesting.has_all()


def test_a_window_that_is_over_in_a_day_ends_the_run_as_well(ingest: Ingest):
    ingesting = ingest(limit_requests=3, limit_seconds=86_400)
    totals = ingesting.run()
    assert isinstance(totals.failures[0], BusyError)
    assert [request.status for request in ingesting.api.requests] == [200] * 3
    assert totals.counts.new == 300


def test_refusals_without_end_end_the_run(ingest: Ingest):
    ingesting = ingest(faults=[status(429, first=3, count=None)])
    began = ingesting.clock()
    totals = ingesting.run()
    assert isinstance(totals.failures[0], BusyError)
    assert re.search(r"refuses one request after another: .* for \d+ s in vain", str(totals.failures[0]))
    assert 10 * 60 < ingesting.clock() - began < 20 * 60
    assert totals.counts.new == 200


def test_a_budget_that_ends_before_any_page_came_is_a_failure(ingest: Ingest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crew, "_IN_FLIGHT_SECONDS", 0)
    ingesting = ingest(latency_ms=1500)
    (failure,) = ingesting.run(run_budget="1 second").failures
    assert isinstance(failure, UnreachableError)
    assert "no page arrived before RUN_BUDGET ended" in str(failure)


@pytest.mark.parametrize("header", ["0", "0.2", "Fri, 01 Mar 2024 00:00:00 GMT"])
def test_who_is_told_again_to_come_at_once_waits_longer_each_time(ingest: Ingest, header: str):
    refusal = Fault(kind="answer", status=429, headers={"Retry-After": header}, first=3, count=None)
    ingesting = ingest(faults=[refusal])
    totals = ingesting.run()
    assert isinstance(totals.failures[0], BusyError)
    times = [request.time for request in ingesting.api.requests[2:8]]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == pytest.approx([gaps[0], 1, 2, 4, 8], rel=0.2)
    assert gaps[0] < 0.5


def test_503_that_says_when_to_come_again_is_waited_for(ingest: Ingest):
    refusal = Fault(kind="answer", status=503, headers={"Retry-After": "120"}, first=3)
    ingesting = ingest(faults=[refusal])
    assert ingesting.run().failures == []
    requests = ingesting.api.requests
    assert 120 <= requests[3].time - requests[2].time <= 120 * 1.1 + 1
    assert ingesting.has_all()


# 12: refused without any header


def test_a_refusal_without_a_header_makes_all_workers_wait_once(ingest: Ingest):
    ingesting = windows(ingest, faults=[status(429, first=6, count=5)])
    began = ingesting.clock()
    assert ingesting.run(**MANY_WINDOWS).failures == []
    refused = [request for request in ingesting.api.requests if request.status == 429]
    assert len(refused) == 5
    # At the worst each came alone: 1, 2, 4, 8 and 16 s.
    assert 1 <= ingesting.clock() - began <= 31 * 1.1 + 3
    assert ingesting.has_all()


# 13: a clock that is wrong


@pytest.mark.parametrize(
    ("style", "form"),
    [
        ("x-delta", "seconds from then on"), ("x-epoch", "seconds since 1970"), ("x-ms", "milliseconds since 1970"),
        ("x-iso", "a date"), ("ietf", "seconds from then on"),
    ],
)  # fmt: skip
def test_how_a_reset_is_read_is_logged_once(ingest: Ingest, caplog: pytest.LogCaptureFixture, style: str, form: str):
    caplog.set_level("INFO")
    assert ingest(2000, **QUOTA, limit_headers=style).run().failures == []
    (told,) = [record.getMessage() for record in caplog.records if "the API's limit: " in record.getMessage()]
    assert told == f"the API's limit: 9 of 10 requests are left, for 60 s; that is told in {form}"


@pytest.mark.parametrize("style", ["x-epoch", "x-ms", "x-iso"])
@pytest.mark.parametrize("seconds", [-4000, 4000])
def test_an_api_whose_clock_is_wrong_is_waited_for_by_its_own(ingest: Ingest, style: str, seconds: int):
    ingesting = ingest(2000, **QUOTA, limit_headers=style, clock_error_seconds=seconds)
    assert ingesting.run().failures == []
    requests = ingesting.api.requests
    assert {request.status for request in requests} == {200}
    assert 60 <= requests[-1].time - requests[0].time <= 63


# 14: a quota shared with somebody else


def test_what_others_take_of_the_quota_is_believed(ingest: Ingest):
    ingesting = ingest(1000, **QUOTA, foreign_per_request=4)
    assert ingesting.run().failures == []
    requests = ingesting.api.requests
    assert {request.status for request in requests} == {200}
    assert 240 <= requests[-1].time - requests[0].time <= 240 * 1.05


def test_a_run_begins_with_one_request_since_others_may_have_used_up_the_window(ingest: Ingest):
    ingesting = windows(ingest, **QUOTA, foreign_per_request=9, latency_ms=100)
    ingesting.run(**MANY_WINDOWS, pages=2)
    assert {request.status for request in ingesting.api.requests} == {200}

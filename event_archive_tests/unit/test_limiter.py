"""One limiter for all workers: how many requests are on their way, and what it makes of the headers."""

from datetime import UTC, datetime
from threading import Event

import pytest

from event_archive.errors import BusyError
from event_archive.sources.http_api.headers import LONGEST_SECONDS, Quota, quota, retry_after
from event_archive.sources.http_api.limiter import Limiter
from event_archive_tests.api_server.clock import FakeClock
from event_archive_tests.fixtures.ingestion import WaitingClock

NOW = datetime(2024, 3, 1, tzinfo=UTC)
DATE = {"date": "Fri, 01 Mar 2024 00:00:00 GMT"}


def limiter() -> Limiter:
    return Limiter(WaitingClock(FakeClock(NOW.timestamp())), Event(), concurrency=5)


class StoppingClock(WaitingClock):
    """Nobody waits by it."""

    def wait(self, seconds: float, stop: Event) -> bool:
        stop.set()
        return True


def remaining(limiter: Limiter) -> int:
    """How many requests may begin before the window is over."""
    limiter._clock = StoppingClock(FakeClock(limiter._clock.seconds()))
    count = 0
    while limiter.acquire():
        limiter.release()
        count += 1
    return count


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]])
def test_answers_in_any_order_leave_what_the_window_holds_and_no_more(order: list[int]):
    of = limiter()
    of.acquire()
    of.release(Quota(20, 19, 60))
    for _ in range(5):
        of.acquire()
    answers = [Quota(20, 18 - number, 60) for number in range(5)]
    for number in order:
        of.release(answers[number])
    assert remaining(of) == 14


def test_three_refusals_in_a_row_leave_two_at_once_and_fifty_pages_one_more():
    of = limiter()
    for expected in (5, 5, 2):
        of.refused(1)
        assert of.concurrency == expected
    for _ in range(49):
        of.succeeded()
    assert of.concurrency == 2
    of.succeeded()
    assert of.concurrency == 3
    for _ in range(1000):
        of.succeeded()
    assert of.concurrency == 10


def test_refusals_of_requests_that_were_on_their_way_make_one_pause():
    of = limiter()
    for _ in range(5):
        of.refused(None)
    began = of._clock.seconds()
    assert of.acquire()
    assert 1 <= of._clock.seconds() - began <= 1.1


def test_a_longer_pause_takes_the_place_of_a_shorter_one():
    of = limiter()
    of.refused(None)
    of.refused(30)
    began = of._clock.seconds()
    assert of.acquire()
    assert 30 <= of._clock.seconds() - began <= 33


def test_a_pause_that_is_too_long_is_an_error():
    with pytest.raises(BusyError, match="longer than a run waits"):
        limiter().refused(3600)


def test_an_answer_without_headers_in_a_window_does_not_lift_its_limit():
    of = limiter()
    of.acquire()
    of.release(Quota(3, 2, 60))
    of.acquire()
    of.release(None)
    of.acquire()
    of.release(Quota(None, None, None))
    assert remaining(of) == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30), ("1709251230", 30), ("1709251230000", 30), ("2024-03-01T00:00:30Z", 30),
        ("2024-03-01T00:00:30", 30),
        ("0", 0), ("1709251100", 0), ("999999999", LONGEST_SECONDS), ("9999999999", LONGEST_SECONDS), ("4.5", 4.5),
        ("soon", None), ("-5", None), ("", None), ("99999999999999999999", None),
    ],
)  # fmt: skip
def test_a_reset_is_told_apart_by_its_size(text: str, seconds: float | None):
    assert quota({"x-ratelimit-reset": text, **DATE}, NOW).reset_seconds == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7), ("1.5", 1.5), ("60s", 60), ("Fri, 01 Mar 2024 00:00:30 GMT", 30),
        ("Thu, 29 Feb 2024 00:00:00 GMT", 0),
        ("-5", None), ("soon", None), ("", None), ("1e9", None),
        ("Mon, 1 Jan 2024 99999999999999999999:00:00 GMT", None), ("Mon, 1 Jan 2024 00:00:00 +9999999999999999", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None):
    assert retry_after({"retry-after": text, **DATE}, NOW) == seconds

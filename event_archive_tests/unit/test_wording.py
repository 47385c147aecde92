"""Numbers as people read them."""

import pytest

from event_archive.domain.wording import oldest_for, size, took


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, ""),
        (0.04, ", the oldest for less than 1 s"),
        (0.97, ", the oldest for less than 1 s"),
        (1.2, ", the oldest for 1 s"),
        (86_400, ", the oldest for 86,400 s"),
    ],
)
def test_nothing_that_waits_waits_for_no_time(seconds: float, words: str):
    assert oldest_for(seconds) == words


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (999_960_000, "1.0 GB"),
        (5e12, "5000.0 GB"),
    ],
)
def test_a_size_has_the_unit_that_it_is_rounded_to(size_bytes: float, words: str):
    assert size(size_bytes) == words


@pytest.mark.parametrize(("seconds", "words"), [(0.0, "< 1 s"), (0.99, "< 1 s"), (1.2, "1 s"), (3_720, "1 h 2 min")])
def test_what_took_no_second_is_not_told_as_one(seconds: float, words: str):
    assert took(seconds) == words

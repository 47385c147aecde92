"""Numbers as people read them."""

import pytest

from event_archive.domain.wording import oldest_for


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

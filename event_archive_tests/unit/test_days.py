from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_archive.domain.days import ONE_DAY, Retention, day_range, midnight, parse_day
from event_archive.errors import ConfigurationError

durations = st.builds(Retention, st.integers(0, 40), st.integers(0, 400)).filter(lambda r: bool(r.months or r.days))
days = st.dates(date(1990, 1, 1), date(2150, 12, 31))


@pytest.mark.parametrize(
    ("text", "retention"),
    [
        ("1 year", Retention(12, 0)),
        ("6 months", Retention(6, 0)),
        ("90 days", Retention(0, 90)),
        ("2 weeks", Retention(0, 14)),
        ("P1Y", Retention(12, 0)),
        ("P1Y6M2W3D", Retention(18, 17)),
        ("1 year 6 months", Retention(18, 0)),
        (" 1  YEAR ", Retention(12, 0)),
        ("1day", Retention(0, 1)),
    ],
)
def test_a_duration_is_read(text: str, retention: Retention):
    assert Retention.parse(text) == retention


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 days",
        "P0D",
        "P",
        "-1 year",
        "P-1Y",
        "1.5 years",
        "year",
        "1",
        "1 hour",
        "P1YT1H",
        "1 year and",
        "one year",
    ],
)
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(ValueError, match="is not a calendar duration"):
        Retention.parse(text)


def test_a_century_is_enough():
    assert Retention.parse("100 years") == Retention(1200, 0)
    with pytest.raises(ValueError, match="longer than 100 years"):
        Retention.parse("101 years")


@given(durations)
def test_a_duration_reads_back_what_it_says_of_itself(retention: Retention):
    assert Retention.parse(str(retention)) == retention


@pytest.mark.parametrize(
    ("text", "fewest"),
    [("1 year", 365), ("6 months", 181), ("1 month", 28), ("4 years", 1460), ("2 weeks", 14), ("1 month 3 days", 31)],
)
def test_the_fewest_days_a_duration_spans(text: str, fewest: int):
    assert Retention.parse(text).fewest_days == fewest


@given(durations, days)
def test_no_day_is_aged_that_is_not_a_partition(retention: Retention, today: date):
    youngest_partition = today - ONE_DAY - timedelta(days=retention.fewest_days)
    assert retention.last_aged_day(midnight(today)) <= youngest_partition


@pytest.mark.parametrize(
    ("retention", "now", "last"),
    [
        ("1 year", datetime(2025, 3, 1, tzinfo=UTC), date(2024, 2, 29)),
        ("1 year", datetime(2025, 2, 28, 23, 59, 59, tzinfo=UTC), date(2024, 2, 27)),
        ("1 year", datetime(2024, 2, 29, tzinfo=UTC), date(2023, 2, 27)),
        ("1 month", datetime(2024, 3, 31, tzinfo=UTC), date(2024, 2, 28)),
        ("1 month", datetime(2024, 5, 31, tzinfo=UTC), date(2024, 4, 29)),
        ("1 day", datetime(2024, 1, 2, tzinfo=UTC), date(2023, 12, 31)),
        ("1 day", datetime(2024, 1, 2, 23, 59, tzinfo=UTC), date(2023, 12, 31)),
        ("1 day", datetime(2024, 1, 2, 5, tzinfo=timezone(timedelta(hours=9))), date(2023, 12, 30)),
    ],
)
def test_the_youngest_aged_day(retention: str, now: datetime, last: date):
    assert Retention.parse(retention).last_aged_day(now) == last


@given(durations, days)
def test_a_day_comes_of_age_on_that_date_and_not_before(retention: Retention, day: date):
    date_of_age = retention.comes_of_age(day)
    assert retention.last_aged_day(midnight(date_of_age)) >= day
    assert retention.last_aged_day(midnight(date_of_age) - timedelta(microseconds=1)) < day


@pytest.mark.parametrize(
    "text", ["2024-3-1", "20240301", "2024-02-30", "2024-W09-5", "today", "", "2024-03-01T00:00", "\uff12024-03-01"]
)
def test_what_is_no_day_is_refused(text: str):
    with pytest.raises(ConfigurationError, match="YYYY-MM-DD"):
        parse_day(text)


def test_a_range_holds_both_ends():
    assert list(day_range(date(2024, 2, 28), date(2024, 3, 1))) == [
        parse_day(f"2024-{d}") for d in ("02-28", "02-29", "03-01")
    ]

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import Retention
from event_archive.errors import NotAgedError

NOW = datetime(2026, 11, 22, 2, tzinfo=UTC)
dataset = Dataset(TableName("public", "Event"), "created_at", "a/b", "events", Retention(12, 0), date(2015, 1, 1))


@pytest.mark.parametrize(
    ("text", "schema", "name"),
    [
        ("public.Event", "public", "Event"),
        ('public."Event"', "public", "Event"),
        ('"public"."Event"', "public", "Event"),
        ("Event", "public", "Event"),
        ("we ird. table ", "we ird", " table "),
        ('"a.b"."c.d"', "a.b", "c.d"),
        ('s."quo""te"', "s", 'quo"te'),
        ('s."; DROP TABLE x; --', "s", '"; DROP TABLE x; --'),
        ("schéma.événements", "schéma", "événements"),
    ],
)
def test_a_table_is_named_literally(text: str, schema: str, name: str):
    assert TableName.parse(text) == TableName(schema, name)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a.b.c", '"a".b.c', "a..b"])
def test_what_names_no_table_is_refused(text: str):
    with pytest.raises(ValueError, match=r"is not schema\.table"):
        TableName.parse(text)


@pytest.mark.parametrize("text", ["a." + "x" * 64, "ü" * 32 + ".a", "a.b\0c"])
def test_a_name_that_postgresql_cannot_have_is_refused(text: str):
    with pytest.raises(ValueError, match="holds"):
        TableName.parse(text)


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=15)


@given(names, names)
def test_a_table_reads_back_what_it_prints(schema: str, name: str):
    assert TableName.parse(str(TableName(schema, name))) == TableName(schema, name)


def test_files_lie_in_the_folder_one_a_day():
    assert dataset.path(date(2024, 3, 1)) == "a/b/events_2024-03-01.csv"
    assert dataset.day_of("a/b/events_2024-03-01.csv") == date(2024, 3, 1)


@pytest.mark.parametrize(
    "path",
    [
        "a/b/events_2024-03-01.csv.bak",
        "a/b/events_2024-3-01.csv",
        "a/events_2024-03-01.csv",
        "a/b/other_2024-03-01.csv",
    ],
)
def test_other_files_are_of_no_day(path: str):
    assert dataset.day_of(path) is None


def test_aged_days_are_accepted():
    for day in (date(2015, 1, 1), date(2025, 11, 21)):
        dataset.require_aged(day, NOW)


@pytest.mark.parametrize(
    ("day", "words"),
    [
        (date(2025, 11, 22), "comes of age on 2026-11-23"),
        (date(2030, 1, 1), "comes of age on 2031-01-02"),
        (date(9999, 12, 31), "before the year 10000"),
        (date(2014, 12, 31), "before the first day that is archived, 2015-01-01. Set ARCHIVE_START_DATE"),
    ],
)
def test_other_days_are_refused_with_what_to_do(day: date, words: str):
    with pytest.raises(NotAgedError, match=words):
        dataset.require_aged(day, NOW)


def test_where_the_first_day_that_is_archived_is_not_aged_nobody_is_told_that_earlier_ones_are():
    late = replace(dataset, start=date(2026, 6, 1))
    told = late.aged_told(NOW)
    assert "no day is aged at 2026-11-22 02:00 UTC" in told
    assert told.endswith("The first that is archived, 2026-06-01, comes of age on 2027-06-02.")
    with pytest.raises(
        NotAgedError, match="before the first day that is archived, 2026-06-01. Set .* to 2026-05-01 .* 2027-05-02"
    ):
        late.require_aged(date(2026, 5, 1), NOW)
    with pytest.raises(
        NotAgedError, match=r"2026-06-03 is not aged.* it comes of age on 2027-06-04 \(UTC\); none may be"
    ):
        late.require_aged(date(2026, 6, 3), NOW)
    with pytest.raises(NotAgedError, match="No day before 1000-01-01 can be"):
        dataset.require_aged(date(500, 1, 1), NOW)

"""What is said of rows that no day will ever archive."""

from dataclasses import replace
from datetime import date

import pytest

from event_archive.nightly.orphans import orphans_told
from event_archive.table.rows import MOST_ORPHANS, Orphans
from event_archive_tests.fixtures.pipeline import SPECIFICATION


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Orphans(2, 1), ["; 1 row has NULL", ": 2 rows lie before"]),
        (Orphans(MOST_ORPHANS, 0), [": at least 100,000 rows lie before the first day"]),
        (Orphans(60_000, 50_000), [": at least 60,000 rows lie before", "; at least 50,000 rows have NULL"]),
    ],
)
def test_of_rows_that_were_counted_no_further_the_least_number_is_said(found: Orphans, words: list[str]):
    told = orphans_told(SPECIFICATION, found)
    assert all(of in told for of in words), told
    assert told.endswith(". They stay in the table.")


def test_nobody_is_told_to_begin_before_the_first_day_that_there_is():
    """As of rows of the years before Christ."""
    told = orphans_told(replace(SPECIFICATION, start=date(1000, 1, 1)), Orphans(1, 0))
    assert "1 row lies before the first day that is archived, 1000-01-01: no file can be of their days" in told
    assert "ARCHIVE_START_DATE" not in told

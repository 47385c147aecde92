"""The sums over the days of a run."""

from event_archive.domain.days import ONE_DAY
from event_archive.nightly.outcome import DayOutcome, Totals
from event_archive_tests.fixtures.pipeline import DAY


def test_rows_that_went_with_a_partition_are_not_taken_off_another_datasets_day():
    """Rows of a held day of one dataset stay, whichever days another one's partition took along."""
    first, second = Totals(), Totals()
    first.add(DayOutcome(DAY, "events", outcome="held", left=5))
    second.add(DayOutcome(DAY, "readings", outcome="waiting", left=7))
    second.add(DayOutcome(DAY + ONE_DAY, "readings", outcome="purged", deleted=14, others={DAY: 0}))
    assert second.left == 0
    assert Totals.of([first, second]).left == 5

"""The sums over the days of a run."""

import pytest

from event_archive.domain.days import ONE_DAY
from event_archive.nightly.outcome import DayOutcome, Totals
from event_archive.operations.purge import PurgedDay
from event_archive_tests.fixtures.pipeline import DAY


def test_rows_that_went_with_a_partition_are_not_taken_off_another_datasets_day():
    """Rows of a held day of one dataset stay, whichever days another one's partition took along."""
    first, second = Totals(), Totals()
    first.add(DayOutcome(DAY, "events", outcome="held", left=5))
    second.add(DayOutcome(DAY, "readings", outcome="waiting", left=7))
    second.add(DayOutcome(DAY + ONE_DAY, "readings", outcome="purged", deleted=14, others={DAY: 0}))
    assert second.left == 0
    assert Totals.of([first, second]).left == 5


def test_a_dry_run_tells_no_rows_as_left_that_went_with_another_partition():
    """A day whose rows lie in two partitions: the second one is looked at as if the first were still there."""
    totals = Totals()
    totals.add(DayOutcome(DAY, outcome="waiting", left=4))
    totals.add(DayOutcome(DAY + ONE_DAY, outcome="dry run", proven=9, others={DAY: 1}))
    assert totals.left == 1
    totals.add(DayOutcome(DAY, outcome="dry run", proven=4))
    totals.add(DayOutcome(DAY + ONE_DAY, outcome="dry run", proven=9, others={DAY: 1}))
    assert totals.left == 0


def test_rows_of_days_that_a_run_does_not_do_are_not_told_as_left():
    """Of a day that is named, the partition held rows of the day before, too; others of its lie in another."""
    totals = Totals()
    totals.add(DayOutcome(DAY + ONE_DAY, outcome="purged", deleted=9, others={DAY: 1}))
    assert totals.left == 0


@pytest.mark.parametrize(("dry_run", "outcome"), [(False, "purged"), (True, "dry run")])
def test_a_day_that_was_archived_and_that_another_command_purged_meanwhile_was_done(dry_run: bool, outcome: str):
    day = DayOutcome(DAY, rows=5, rows_appended=2)
    day.purged(PurgedDay(DAY, 0, 0, 0, "nothing to do", None, 0.1, dry_run=dry_run))
    assert day.outcome == outcome
    nothing_new = DayOutcome(DAY, rows=5)
    nothing_new.purged(PurgedDay(DAY, 0, 0, 0, "nothing to do", None, 0.1, dry_run=dry_run))
    assert nothing_new.outcome == "nothing to do"

"""Several datasets in one run: whose turn it is, and what one waits for."""

import pytest

from event_archive.domain.dataset import TableName
from event_archive.lake.protocol import Lake
from event_archive.nightly.day import Night, NoReports
from event_archive.nightly.outcome import DayOutcome, Totals
from event_archive.nightly.run import Share, run_shares
from event_archive.observability.json_lines import JsonDisplay
from event_archive.operations.archive import ArchivedDay
from event_archive_tests.fixtures.pipeline import DAY, Pipeline

TABLES = """
CREATE TABLE away (id int PRIMARY KEY, at timestamptz NOT NULL);
CREATE TABLE lines (id int PRIMARY KEY, at timestamptz NOT NULL);
INSERT INTO lines VALUES (1, '2024-03-01 12:00Z');
"""


def test_a_dataset_that_could_go_on_in_the_end_has_not_failed(pipeline: Pipeline):
    """The table of the dataset before it was away for a moment."""
    pipeline.database.execute(TABLES)
    pipeline.add(1)
    notes = pipeline.of(table=TableName("public", "notes"), time_column="at", file_prefix="notes")
    lines = pipeline.of(table=TableName("public", "lines"), time_column="at", file_prefix="lines")

    class Mending(JsonDisplay):
        def day_ends(self, outcome: DayOutcome) -> None:
            pipeline.database.execute("ALTER TABLE IF EXISTS away RENAME TO notes")

    of_events, of_lines = Totals(), Totals()
    shares = [
        Share(Night(pipeline.site, Mending()), [DAY], True, of_events, [(notes.dataset, notes.postgres)]),
        Share(Night(lines.site, Mending()), [DAY], True, of_lines),
    ]
    assert run_shares(shares, budget=None, started=0) == []
    assert (of_events.failure, of_events.deleted, of_lines.deleted) == (None, 1, 1)


def test_what_a_stopped_day_has_in_its_file_is_counted(pipeline: Pipeline):
    pipeline.add(3)

    class Stopping(NoReports):
        def archived(self, archived: ArchivedDay, lake: Lake) -> None:
            raise KeyboardInterrupt

    totals = Totals()
    night = Night(pipeline.site, JsonDisplay(), reports=Stopping())
    with pytest.raises(KeyboardInterrupt):
        run_shares([Share(night, [DAY], True, totals)], budget=None, started=0)
    assert (totals.rows_appended, Totals.of([totals]).rows_appended, totals.days) == (3, 3, 0)

"""What a run over an API says of itself, beside what the database says."""

from typing import Any

import pytest

from event_archive_tests.api_server.events import Events
from event_archive_tests.api_server.switches import cursor_expired, status
from event_archive_tests.fixtures.ingestion import Ingest

pytestmark = pytest.mark.slow

HALF_DAYS: dict[str, Any] = {"api_shard": "12 hours", "api_start": "2024-03-01"}


def test_the_watermark_of_windows_is_not_past_one_that_was_not_read(ingest: Ingest):
    """Two windows have events; the older one is refused."""
    ingesting = ingest(Events(480, step_ms=180_000), faults=[status(404)])
    totals = ingesting.run(api_concurrency=1, **HALF_DAYS)
    assert len(totals.failures) == 1
    assert totals.counts.new == 240
    assert totals.watermark is None
    again = ingesting.run(api_concurrency=1, **HALF_DAYS)
    assert (again.counts.new, again.failures) == (240, [])
    ((newest,),) = ingesting.database.execute('SELECT max("timestamp") FROM ingested_events')
    assert again.watermark == newest


def test_a_run_that_reads_nothing_keeps_the_watermark(ingest: Ingest):
    ingesting = ingest()
    watermark = ingesting.run().watermark
    assert watermark == ingesting.position("watermark")[0]
    ingesting.api.set(faults=[status(401, count=None)])
    failed = ingesting.run()
    assert (len(failed.failures), failed.watermark) == (1, watermark)


def test_what_is_left_is_not_told_of_a_pass_that_began_again(ingest: Ingest):
    ingesting = ingest(1500, with_total=True, faults=[cursor_expired(first=10)])
    totals = ingesting.run(pages=12)
    assert (totals.restarts, totals.counts.new, len(ingesting.ids)) == (1, 1000, 1000)
    assert totals.left is None, "400 were counted twice"


def test_a_run_that_has_read_all_is_not_ended_by_its_budget(ingest: Ingest):
    ingesting = ingest(100, latency_ms=1100)
    totals = ingesting.run(run_budget="1 second")
    assert totals.counts.new == 100
    assert totals.ended == "complete"

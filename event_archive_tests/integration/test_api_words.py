"""What a run over an API says of itself, beside what the database says."""

from dataclasses import replace
from typing import Any

import pytest

from event_archive.cli.ingest import _told
from event_archive.sources.http_api import fetching
from event_archive.sources.http_api.pages import Fields, Page, read_page
from event_archive.sources.http_api.task import Totals
from event_archive.sources.landing import Counts
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


def test_what_is_left_of_a_pass_that_began_again_is_what_it_still_has_to_read(ingest: Ingest):
    """In the process that began it again, and in the next one."""
    ingesting = ingest(1500, with_total=True, faults=[cursor_expired(first=10)])
    totals = ingesting.run(pages=12)
    assert (totals.restarts, totals.counts.new, len(ingesting.ids)) == (1, 1000, 1000)
    assert totals.left == 1500 - ingesting.position("events_ingested")[0]
    again = ingesting.run(pages=2)
    assert again.left == 1500 - ingesting.position("events_ingested")[0]
    assert again.counts.taken > 0
    assert ingesting.run().left is None
    assert ingesting.has_all()


def test_what_is_left_is_told_by_a_total_of_the_first_page_alone(ingest: Ingest, monkeypatch: pytest.MonkeyPatch):
    pages = list[Page]()

    def read_first(body: bytes, fields: Fields) -> Page:
        pages.append(read_page(body, fields))
        return pages[-1] if len(pages) == 1 else replace(pages[-1], total=None)

    monkeypatch.setattr(fetching, "read_page", read_first)
    ingesting = ingest(500, with_total=True)
    totals = ingesting.run(pages=2)
    assert totals.left == 500 - totals.counts.taken
    assert ingesting.run().left is None
    pages.clear()
    ingesting.database.execute("TRUNCATE cursor_state")
    totals = ingesting.run()
    assert (totals.ended, totals.left) == ("complete", None), "all of it has come"


def test_a_run_that_has_read_all_is_not_ended_by_its_budget(ingest: Ingest):
    ingesting = ingest(100, latency_ms=1100)
    totals = ingesting.run(run_budget="1 second")
    assert totals.counts.new == 100
    assert totals.ended == "complete"


@pytest.mark.parametrize(("left", "words"), [(5, "5 events are left, about 1 s"), (1, "1 event is left, about 1 s")])
def test_what_is_left_takes_some_time(left: int, words: str):
    totals = Totals(counts=Counts(taken=100, new=100), seconds=1.0, left=left)
    assert _told(totals) == f"100 events in 1.0 s (100 a second): 100 new; {words}"

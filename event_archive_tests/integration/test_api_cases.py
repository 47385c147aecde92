"""Cursors of an API that does not always keep to its word.

The numbers in the comments are those of the hardest cases of an API ingestion.
"""

from datetime import timedelta
from typing import Any

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import RefusedError
from event_archive.postgres.session import Postgres
from event_archive.sources.tables import make_missing
from event_archive_tests.api_server.switches import cursor_expired
from event_archive_tests.fixtures.ingestion import Ingest, Ingesting

EACH_ALONE = 1000
"""Pages after which a run is told to stop, which it never has."""
FILTER: dict[str, Any] = {"api_time_filter": "since,until", "api_overlap": "10 seconds"}


# 1: killed between rows and cursor


def break_third_position(ingesting: Ingesting, statement: str) -> None:
    """What happens once, when the position behind the third page is written: no rollback sets a sequence back."""
    with Postgres(ingesting.database.dsn).session() as session:
        make_missing(session, TableName("public", "cursor_state"))
    ingesting.database.execute(
        f"""
        CREATE SEQUENCE positions_written;
        CREATE FUNCTION break_it() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN IF nextval('public.positions_written') = 3 THEN {statement}; END IF; RETURN new; END $$;
        CREATE TRIGGER break_it BEFORE INSERT OR UPDATE ON cursor_state FOR EACH ROW EXECUTE FUNCTION break_it()
        """
    )


def test_rows_are_not_there_without_the_position_behind_them(ingest: Ingest):
    ingesting = ingest()
    break_third_position(ingesting, "RAISE EXCEPTION 'no'")
    with pytest.raises(RefusedError):
        ingesting.run(pages=EACH_ALONE)
    assert len(ingesting.ids) == ingesting.position("events_ingested")[0] == 200
    assert ingesting.run().counts.known == 0
    assert ingesting.has_all()


def test_a_session_that_dies_before_its_commit_leaves_neither_rows_nor_position(ingest: Ingest):
    ingesting = ingest()
    break_third_position(ingesting, "PERFORM pg_terminate_backend(pg_backend_pid())")
    totals = ingesting.run(pages=EACH_ALONE)
    assert (totals.ended, totals.counts.new, totals.counts.known) == ("complete", 500, 0)
    assert ingesting.has_all()


def test_a_run_goes_on_at_the_cursor_where_the_last_one_was_stopped(ingest: Ingest):
    ingesting = ingest(1500)
    totals = ingesting.run(pages=2)
    assert totals.ended == "interrupted"
    cursor, _, passes, events = ingesting.position()
    assert (events, passes) == (totals.counts.new, 0)
    before = len(ingesting.api.requests)
    assert ingesting.run().counts.known == 0
    assert ingesting.api.requests[before].params["cursor"] == cursor
    assert ingesting.has_all()


# 2: a cursor that expired


def test_after_a_refused_cursor_a_pass_goes_on_from_the_watermark_minus_the_overlap(ingest: Ingest):
    ingesting = ingest(faults=[cursor_expired(first=3)])
    totals = ingesting.run(**FILTER)
    assert (totals.restarts, totals.failures) == (1, [])
    assert ingesting.asked("cursor", "since")[4] == (None, "2024-03-01T00:04:49Z")
    assert totals.counts.known == 11
    assert ingesting.has_all()


def test_without_a_time_filter_a_refused_cursor_means_from_the_start(ingest: Ingest):
    ingesting = ingest(faults=[cursor_expired(first=3)])
    totals = ingesting.run()
    assert (totals.restarts, totals.failures, totals.counts.known) == (1, [], 300)
    assert ingesting.asked("cursor", "since")[4] == (None, None)
    assert ingesting.has_all()


def test_restarts_without_progress_end_with_an_error(ingest: Ingest):
    ingesting = ingest(faults=[cursor_expired(first=3, count=None)])
    totals = ingesting.run()
    (error,) = totals.failures
    assert "without getting further than 3 pages" in str(error)
    assert totals.restarts == 3
    assert len(ingesting.ids) == 300
    ingesting.api.set(faults=[])
    assert ingesting.run().failures == []
    assert ingesting.has_all()


def test_restarts_with_progress_go_on_however_short_a_cursor_lives(ingest: Ingest):
    # Of the requests with a cursor the third, the sixth and so on.
    ingesting = ingest(1500, faults=[cursor_expired(first=3 + 2 * number) for number in range(9)])
    totals = ingesting.run(**FILTER)
    assert totals.restarts >= 5
    assert totals.failures == []
    assert ingesting.has_all()


def test_restarts_that_only_read_the_overlap_again_end_with_an_error(ingest: Ingest):
    ingesting = ingest(1500, faults=[cursor_expired(first=3 + 2 * number) for number in range(9)])
    totals = ingesting.run(api_time_filter="since,until", api_overlap="10 minutes")
    assert "without getting further" in str(totals.failures[0])


def test_a_cursor_whose_time_is_over_is_not_asked_for(ingest: Ingest):
    ingesting = ingest(1500, envelope="pagination", cursor_seconds=116)
    ingesting.run(pages=2, **FILTER)
    watermark = ingesting.position("watermark")[0]
    ingesting.clock.sleep(116)
    before = len(ingesting.api.requests)
    totals = ingesting.run(**FILTER)
    since = (watermark - timedelta(seconds=10)).isoformat().replace("+00:00", "Z")
    assert ingesting.asked("cursor", "since")[before] == (None, since)
    assert {request.status for request in ingesting.api.requests} == {200}
    assert totals.restarts == 0
    assert ingesting.has_all()


@pytest.mark.parametrize("seconds", [1.7e12, 2.5e14])
def test_a_cursor_that_is_said_to_hold_for_ages_is_one(ingest: Ingest, seconds: float):
    ingesting = ingest(envelope="pagination", cursor_seconds=seconds)
    assert ingesting.run().failures == []
    assert ingesting.has_all()


@pytest.mark.parametrize("expired", ["400", "410", "200"])
def test_a_cursor_that_expired_unannounced_is_noticed_however_the_api_says_so(ingest: Ingest, expired: str):
    ingesting = ingest(1500, cursor_seconds=116, expired=expired)
    ingesting.run(pages=2)
    ingesting.clock.sleep(200)
    totals = ingesting.run()
    assert (totals.restarts, totals.failures) == (1, [])
    assert ingesting.has_all()


def test_a_window_whose_cursor_expired_goes_on_from_its_watermark(ingest: Ingest):
    ingesting = ingest(with_total=True, faults=[cursor_expired(first=3)])
    totals = ingesting.run(api_shard="1 day", api_start="2024-03-01", api_concurrency=1, **FILTER)
    assert (totals.restarts, totals.failures) == (1, [])
    again = [row for row in ingesting.asked("cursor", "since") if row[0] is None]
    assert again[:2] == [(None, "2024-03-01T00:00:00Z"), (None, "2024-03-01T00:04:49Z")]
    assert ingesting.has_all()


# 3: the same cursor again


@pytest.mark.parametrize(("cursors", "requests"), [("repeat", 2), ("cycle", 3)])
def test_a_cursor_that_comes_again_is_an_error_that_names_it(ingest: Ingest, cursors: str, requests: int):
    ingesting = ingest(cursors=cursors)
    totals = ingesting.run()
    (error,) = totals.failures
    assert isinstance(error, RefusedError)
    assert "gave the same cursor a second time" in str(error)
    assert ingesting.asked("cursor")[1] not in str(error)
    assert len(ingesting.api.requests) == requests
    assert ingesting.position("passes") == (0,)
    assert len(ingesting.ids) >= 200


def test_an_api_that_mends_its_cursors_is_read_to_its_end_by_the_next_run(ingest: Ingest):
    ingesting = ingest(cursors="cycle")
    ingesting.run()
    assert ingesting.run().failures
    ingesting.api.set(cursors="right")
    assert ingesting.run().failures == []
    assert ingesting.has_all()


def test_a_link_that_comes_again_is_an_error(ingest: Ingest):
    ingesting = ingest(pagination="link", cursors="repeat")
    assert "a second time" in str(ingesting.run(api_pagination="link").failures[0])

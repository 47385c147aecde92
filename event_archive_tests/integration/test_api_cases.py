"""Pages and cursors of an API that does not always keep to its word.

The numbers in the comments are those of the hardest cases of an API ingestion.
"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import RefusedError
from event_archive.postgres.session import Postgres
from event_archive.sources.tables import make_missing
from event_archive_tests.api_server.events import START, Events
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
        CREATE TRIGGER break_it BEFORE INSERT ON cursor_state FOR EACH ROW EXECUTE FUNCTION break_it()
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


# 4: hasMore with an empty page


@pytest.mark.parametrize("null", [False, True])
def test_empty_pages_before_others_are_passed_over(ingest: Ingest, null: bool):
    ingesting = ingest(empty_pages=99, null_when_empty=null)
    assert ingesting.run().failures == []
    assert ingesting.has_all()


def test_a_hundred_empty_pages_in_a_row_are_an_error(ingest: Ingest):
    ingesting = ingest(empty_pages=10_000)
    assert "100 empty pages in a row" in str(ingesting.run().failures[0])
    assert len(ingesting.api.requests) == 100


# 5: hasMore without a cursor


def test_more_without_a_cursor_is_an_error_and_the_api_not_read_to_its_end(ingest: Ingest):
    ingesting = ingest(cursors="missing")
    totals = ingesting.run()
    assert "gives no cursor for it" in str(totals.failures[0])
    assert ingesting.position("cursor_value, passes, events_ingested") == (None, 0, 100)
    assert len(ingesting.ids) == 100


def test_more_without_a_cursor_in_the_midst_keeps_the_place_and_what_arrived(ingest: Ingest):
    ingesting = ingest(1500)
    ingesting.run(pages=2)
    cursor, *_ = ingesting.position()
    landed = len(ingesting.ids)
    ingesting.api.set(cursors="missing")
    assert ingesting.run().failures
    assert ingesting.position("cursor_value, passes") == (cursor, 0)
    assert len(ingesting.ids) == landed + 100
    ingesting.api.set(cursors="right")
    assert ingesting.run().failures == []
    assert ingesting.has_all()


def test_a_window_without_its_cursor_is_incomplete_and_the_others_go_on(ingest: Ingest):
    # Eleven hours in two days: the first has more than a page, the second has not.
    ingesting = ingest(Events(120, START + timedelta(hours=23, minutes=58, seconds=15)), cursors="missing")
    totals = ingesting.run(api_shard="1 day", api_start="2024-03-01", api_concurrency=1)
    assert len(totals.failures) == 1
    assert len(ingesting.ids) == 115
    assert ingesting.database.execute("SELECT passes FROM cursor_state ORDER BY lower_bound") == [(0,), (0,)]


# 6: a cursor on the last page


def test_hasmore_decides_where_the_last_page_has_a_cursor(ingest: Ingest):
    ingesting = ingest(cursors="on-last")
    assert ingesting.run().failures == []
    assert len(ingesting.api.requests) == 5
    assert ingesting.has_all()


def test_null_in_place_of_a_list_is_an_empty_page(ingest: Ingest):
    ingesting = ingest(0, null_when_empty=True)
    totals = ingesting.run()
    assert (totals.ended, totals.failures, totals.counts.taken) == ("complete", [], 0)
    assert ingesting.position("passes") == (0,)


@pytest.mark.parametrize("pagination", ["page", "offset"])
def test_without_hasmore_the_end_is_an_empty_page(ingest: Ingest, pagination: str):
    ingesting = ingest(envelope="bare", pagination=pagination)
    assert ingesting.run(api_pagination=pagination).failures == []
    assert len(ingesting.api.requests) == 6
    assert ingesting.has_all()


# 7: duplicates


def test_an_event_that_comes_twice_is_one_row(ingest: Ingest):
    ingesting = ingest(duplicates_at_borders=3, duplicates_within=2)
    counts = ingesting.run().counts
    assert counts.new == 500
    assert counts.known > 20
    assert ingesting.has_all()


def test_an_event_of_several_windows_is_one_row(ingest: Ingest):
    # The API does not heed the bounds, so that each window has all.
    ingesting = ingest(250, time_filter=False)
    counts = ingesting.run(api_shard="12 hours", api_start="2024-03-01").counts
    assert counts.new == 250
    assert counts.known >= 750
    assert ingesting.has_all()


def test_an_event_of_the_very_edge_belongs_to_one_window(ingest: Ingest):
    ingesting = ingest(Events(3, START + timedelta(hours=11, minutes=59, seconds=59)))
    counts = ingesting.run(api_shard="12 hours", api_start="2024-03-01").counts
    assert (counts.new, counts.known) == (3, 0)


# 16: a limit that is capped without a word


@pytest.mark.parametrize("pagination", ["cursor", "page", "offset", "link"])
def test_a_short_page_is_not_the_end(ingest: Ingest, pagination: str):
    ingesting = ingest(pagination=pagination, max_limit=30)
    assert ingesting.run(api_pagination=pagination).failures == []
    # By number, the first one is read again: behind it are events, so it is full, and tells how many a page holds.
    assert len(ingesting.api.requests) == 17 + 2 * (pagination == "page")
    assert ingesting.has_all()


def test_dense_windows_are_split_and_none_is_lost(ingest: Ingest):
    ingesting = ingest(Events(3000, step_ms=10_000), with_total=True)
    totals = ingesting.run(api_shard="1 day", api_start="2024-03-01", api_page_limit=50)
    assert (totals.failures, totals.counts.new) == ([], 3000)
    windows = ingesting.database.execute("SELECT lower_bound, upper_bound FROM cursor_state ORDER BY 1")
    assert len(windows) > 5
    assert all(one[1] == other[0] for one, other in pairwise(windows))
    assert (windows[0][0], windows[-1][1]) == (datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 3, tzinfo=UTC))
    assert ingesting.has_all()


def test_an_api_whose_names_are_its_own_is_read_by_those(ingest: Ingest):
    ingesting = ingest(envelope="nested", names={"hasMore": "more", "nextCursor": "next", "data": "list"})
    fields: dict[str, Any] = {"api_data_field": "list.list", "api_has_more_field": "list.pagination.more"}
    assert ingesting.run(**fields, api_next_cursor_field="list.pagination.next").failures == []
    assert ingesting.has_all()


def test_the_table_that_a_role_may_not_read_is_named(ingest: Ingest):
    ingesting = ingest(Events(3))
    assert ingesting.run().failures == []
    database = ingesting.database
    role = f"half_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT ON ingested_events, rejected_records TO {role}")
    try:
        with pytest.raises(RefusedError, match=r"^public\.cursor_state: PostgreSQL says: permission denied"):
            ingesting.run(pg_connection_string=database.server.dsn(database.name, role))
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

"""Pages of an API that are empty, short, come twice, or say otherwise whether there are more.

The numbers in the comments are those of the hardest cases of an API ingestion.
"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from event_archive.errors import RefusedError
from event_archive_tests.api_server.events import START, Events
from event_archive_tests.fixtures.ingestion import Ingest

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

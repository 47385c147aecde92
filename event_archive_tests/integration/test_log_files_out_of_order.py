"""Log files where something is out of order: their numbers and names, the ledger, the clock, the settings.

The numbers in the comments are those of the hardest cases of an ingestion of log files.
"""

import os

import pytest

from event_archive_tests.fixtures.log_files import Logs, entry, ndjson


# 8: what PostgreSQL cannot hold, and what it can
@pytest.mark.parametrize(
    ("content", "rows", "rejected"),
    [
        (b'{"time":1709290800000,"n":1e1000000000000000000,"m":NaN}\n' + ndjson(entry(1)), 1, 1),
        (b'[{"time":1709290800000,"n":NaN},{"time":1709290800000,"n":%s}]' % (b"1" * 5000), 1, 1),
    ],
    ids=["an exponent of 19 digits", "5,000 digits beside what is no JSON"],
)
def test_a_number_of_any_size_ends_no_run(logs: Logs, content: bytes, rows: int, rejected: int):
    logs.write("a.log", content)
    logs.run()
    assert logs.files() == [("COMPLETED", rows, rejected)]


# 17: clocks that jump
@pytest.mark.parametrize(
    ("state", "loaded"),
    [
        ("status = 'PROCESSING', attempts = 5, lease = NULL", 0),
        ("status = 'PROCESSING', attempts = 5, lease = now() + interval '1 year'", 0),
        ("status = 'PROCESSING', attempts = 1, lease = 'infinity'", 1),
        ("status = 'FAILED', attempts = 1, lease = now() + interval '1 year'", 1),
        ("status = 'PENDING', attempts = 7", 1),
        ("status = 'PENDING', attempts = -100", 1),
    ],
)
def test_whatever_stands_in_the_ledger_each_file_is_loaded_or_given_up(logs: Logs, state: str, loaded: int):
    logs.write("a.log", ndjson(entry(1)))
    logs.run(limit=0)
    logs.database.execute(f"UPDATE processed_files SET {state}")  # noqa: S608 (the test's own)
    assert logs.ingestion().waits()
    totals = logs.run(run_budget="20 seconds")
    assert (totals.ended, totals.files, totals.failed) == ("complete", loaded, 1 - loaded)
    assert logs.files("status") == [("COMPLETED" if loaded else "FAILED",)]


def test_a_run_ends_while_a_claimed_file_is_not_quiet_yet(logs: Logs):
    path = logs.write("a.log", ndjson(entry(1)))
    logs.run(limit=0)
    os.utime(path)
    logs.run(limit=0)
    # Its process, which waits for no file to be quiet, is gone.
    logs.database.execute("UPDATE processed_files SET status = 'PROCESSING', attempts = 1, lease = now()")
    assert logs.run(logs_min_age="10 minutes", run_budget="5 seconds").ended == "complete"
    assert logs.run().files == 1


def test_a_file_is_tried_again_within_a_day_however_often_it_failed(logs: Logs):
    logs.write("a.gz", b"\x1f\x8b broken")
    logs.run(limit=0)
    logs.database.execute("UPDATE processed_files SET attempts = 90")
    assert logs.run(logs_max_attempts=100).failed == 1
    assert logs.files("status, lease < now() + interval '1 day'") == [("FAILED", True)]


def test_a_file_whose_loads_broke_off_is_given_up_for_a_reason_that_is_true(logs: Logs):
    logs.write("a.log", ndjson(entry(1)))
    logs.run(limit=0)
    logs.database.execute("UPDATE processed_files SET status = 'PROCESSING', attempts = 5, lease = now()")
    logs.run()
    assert "the process ended, or it lost the database" in logs.errors()[0]

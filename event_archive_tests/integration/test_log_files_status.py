"""What people are told of log files: how many are left, how long they wait, which were given up."""

from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from event_archive.errors import ConfigurationError, RefusedError
from event_archive.sources.log_files.status import GivenUp, Left, Status
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson


def test_who_looks_before_the_first_run_makes_no_table(logs: Logs):
    assert logs.ingestion().status() == Status([], [])
    assert logs.ingestion().left() == Left(0, None, 0, 0, 0, 0)
    logs.ingestion().announce(lambda _: pytest.fail("there is nothing to tell"))
    made = "to_regclass('processed_files'), to_regclass('logs'), to_regclass('log_listing')"
    assert logs.database.execute(f"SELECT {made}") == [(None, None, None)]
    with pytest.raises(ConfigurationError, match="INGEST_SCHEMA .'nowhere'. names no schema"):
        logs.ingestion(ingest_schema="nowhere").status()


def test_what_is_left_is_counted_since_it_was_listed_or_written_anew(logs: Logs):
    for name in ("a.log", "b.log", "c.log"):
        logs.write(name, ndjson(entry(1)))
    logs.write("d.gz", array(entry(2))[:-5])
    logs.run(limit=0)
    [(since,)] = logs.database.execute("SELECT max(created_at) FROM processed_files")
    assert isinstance(since, datetime)
    assert logs.ingestion().left() == Left(4, since, 0, 0, 0, 0)
    logs.run(limit=3)
    # All of them were listed long ago; b was written again just now.
    logs.database.execute(
        "UPDATE processed_files SET created_at = now() - interval '61 minutes', modified = '2024-01-01'"
    )
    logs.write("b.log", ndjson(entry(1), entry(2)))
    logs.run(limit=0)
    found = logs.ingestion().left()
    assert (found.waiting, found.overdue, found.failed) == (2, 1, 0)
    logs.run()
    logs.database.execute("UPDATE processed_files SET attempts = 5 WHERE status = 'FAILED'")
    assert logs.ingestion().left() == Left(0, None, 0, 1, 1, 1)


def test_a_file_that_waits_by_its_age_alone_is_not_overdue(logs: Logs):
    logs.write("a.log", ndjson(entry(1)))
    logs.run(limit=0)
    logs.database.execute(
        "UPDATE processed_files SET created_at = now() - interval '2 hours', modified = now() - interval '2 hours'"
    )
    assert logs.ingestion().left().overdue == 1
    assert logs.ingestion(logs_min_age="3 hours").left().overdue == 0


def test_a_file_that_is_given_up_is_announced_once_and_again_where_it_is_given_up_again(logs: Logs):
    told: list[GivenUp] = []
    damaged = logs.write("a.gz", array(entry(1))[:-5])
    logs.run()
    logs.ingestion().announce(told.append)
    assert told == [], "it is tried again"
    logs.wait_no_more()
    logs.run(logs_max_attempts=2)
    run = logs.ingestion(logs_max_attempts=2)

    def refuse(_: GivenUp) -> None:
        raise RefusedError("The webhook does not take it.")

    with pytest.raises(RefusedError):
        run.announce(refuse)
    run.announce(told.append)
    run.announce(told.append)
    (given_up,) = told
    assert (given_up.files, list(given_up.errors)) == (1, [str(damaged)])
    assert "gzip is cut short" in given_up.errors[str(damaged)]
    logs.run(logs_max_attempts=1, anew=True)
    run.announce(told.append)
    assert len(told) == 1, "one attempt is left"
    logs.wait_no_more()
    logs.run(logs_max_attempts=2)
    run.announce(told.append)
    assert len(told) == 2


def test_of_many_files_that_are_given_up_the_first_are_named_and_all_are_counted(logs: Logs):
    told: list[GivenUp] = []
    for number in range(7):
        logs.write(f"{number}.gz", array(entry(1))[:-5])
    logs.run(logs_max_attempts=1)
    logs.ingestion(logs_max_attempts=1).announce(told.append)
    (given_up,) = told
    assert given_up.files == 7
    assert [Path(key).name for key in given_up.errors] == [f"{number}.gz" for number in range(5)]


def test_two_that_announce_at_a_time_tell_of_a_file_once(logs: Logs):
    told: list[GivenUp] = []
    logs.write("a.gz", array(entry(1))[:-5])
    logs.run(logs_max_attempts=1)
    run = logs.ingestion(logs_max_attempts=1)
    run.announce(lambda _: run.announce(told.append))
    assert told == []


def test_a_run_that_has_loaded_all_is_not_ended_by_its_limit(logs: Logs):
    for name in ("a.log", "b.log"):
        logs.write(name, ndjson(entry(1)))
    assert logs.run(limit=1).ended == "limit"
    assert logs.run(limit=1).ended == "complete"
    assert logs.run(limit=1).ended == "complete"


def test_a_file_whose_process_has_died_is_not_told_as_being_loaded(logs: Logs):
    for name in ("a.log", "b.log"):
        logs.write(name, ndjson(entry(1)))
    logs.run(limit=0)
    logs.database.execute("UPDATE processed_files SET status = 'PROCESSING', lease = now() - interval '1 second'")
    with psycopg.connect(logs.database.dsn) as loading:
        loading.execute("SELECT FROM processed_files ORDER BY key LIMIT 1 FOR UPDATE")
        counts = logs.ingestion().status().counts
    assert [(of.status, of.files) for of in counts] == [("PENDING", 1), ("PROCESSING", 1)]
    assert [(of.status, of.files) for of in logs.ingestion().status().counts] == [("PENDING", 2)]


def test_rows_of_former_versions_that_are_removed_are_counted(logs: Logs):
    path = logs.write("a.log", ndjson(*map(entry, range(5)), {"no": "time"}))
    assert logs.run().removed == 0
    path.write_bytes(ndjson(*map(entry, range(7))))
    totals = logs.run()
    assert (totals.counts.new, totals.removed, len(logs.rows())) == (7, 5, 7)
    path.write_bytes(b"")
    totals = logs.run()
    assert (totals.files, totals.counts.taken, totals.removed, logs.rows()) == (1, 0, 7, [])


def test_a_trigger_that_keeps_rows_of_a_former_version_makes_no_entry_stand_twice(logs: Logs):
    logs.write("a.log", ndjson(entry(1)))
    logs.run()
    logs.database.execute(
        """
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          RETURN CASE WHEN current_setting('application_name') = 'event_archive' THEN NULL ELSE old END; END $$;
        CREATE TRIGGER keep BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION keep()
        """
    )
    logs.write("a.log", ndjson(entry(1), entry(2)))
    totals = logs.run()
    assert (totals.failed, totals.counts.taken, logs.rows()) == (1, 0, ["request 1"])
    assert "keeps rows of the former version of" in logs.errors()[0]
    logs.database.execute("DROP TRIGGER keep ON logs")
    logs.wait_no_more()
    assert logs.run().removed == 1
    assert logs.rows() == ["request 1", "request 2"]


def test_a_file_none_of_whose_entries_is_a_row_is_told(logs: Logs, caplog: pytest.LogCaptureFixture):
    path = logs.write("a.log", ndjson({"no": "time"}, {"no": "time"}))
    logs.write("b.log", ndjson({"no": "time"}, entry(1)))
    logs.write("c.log", b"")
    logs.run()
    assert caplog.messages == [f"{path}: none of its entries can be a row: `event-archive rejected` says why."]

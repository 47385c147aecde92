"""Log files of a folder, landed in PostgreSQL: the hard cases of which files there are, and when each is loaded.

The numbers in the comments are those of the hardest cases of an ingestion of log files.
"""

import errno
import os
import re
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import Retention
from event_archive.errors import ClocksError, ConfigurationError, UnreachableError
from event_archive.sources import runs
from event_archive.sources.log_files import ingest, loading
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson

ARCHIVED = Dataset(
    table=TableName("public", "logs"),
    time_column="timestamp",
    folder="f",
    file_prefix="logs",
    retention=Retention.parse("90 days"),
    start=date(2015, 1, 1),
)


# 16: a file that failed too often
def test_a_file_that_failed_too_often_is_left_until_somebody_asks(logs: Logs):
    logs.write("a.gz", array(entry(1))[:-9])
    for attempt in range(3):
        totals = logs.run(logs_max_attempts=3)
        assert totals.failed == 1
        logs.wait_no_more()
        assert logs.files("attempts") == [(attempt + 1,)]
    assert "--retry-failed takes it up again" in str(totals.failures[-1])
    assert logs.run(logs_max_attempts=3).failed == 0
    (failed,) = logs.ingestion(logs_max_attempts=3).status().failed
    assert failed.given_up
    assert logs.run(logs_max_attempts=3, anew=True).failed == 1
    assert logs.files("attempts") == [(1,)]


def test_a_link_to_a_file_beside_it_is_that_file(logs: Logs):
    """As a rotating log has one to its present file."""
    first, second = (logs.write(name, ndjson(*map(entry, of))) for name, of in [("1.log", (1, 2)), ("2.log", (3,))])
    link = logs.folder / "current"
    for file in (first, second):
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        assert logs.run(logs_url=f"file://{link}").removed == 0
    assert logs.run().files == 0, "they are loaded"
    link.unlink()
    link.symlink_to(logs.write(".hidden", ndjson(entry(4))))
    assert logs.run(logs_url=f"file://{link}").counts.new == 1
    assert logs.run().files == 0, "it is listed by the link's name"
    assert len(logs.rows()) == 4


# 4: cut short or corrupt; back-off
def test_failures_are_tried_again_later_and_later(logs: Logs):
    logs.write("a.gz", array(entry(1))[:-9])
    waits = []
    for _ in range(3):
        logs.run()
        [(wait,)] = logs.files("round(extract(epoch FROM lease - updated_at))::int")
        waits.append(wait)
        logs.wait_no_more()
    assert waits == [60, 300, 1500]


def test_a_limit_ends_a_run_the_oldest_files_come_first(logs: Logs):
    for number, name in enumerate("cab"):
        os.utime(logs.write(f"{name}.log", ndjson(entry(number))), (1_700_000_000 + number,) * 2)
    totals = logs.run(limit=2)
    assert (totals.files, totals.ended) == (2, "limit")
    assert logs.rows() == ["request 0", "request 1"]
    assert logs.run().files == 1


def test_files_are_loaded_by_the_times_in_their_keys_else_by_those_at_which_they_were_written(logs: Logs):
    for number, (name, written) in enumerate(
        [("2024/03/02/a.log", 1), ("app-20240301-0512.log", 3), ("plain.log", 1_709_290_800), ("20240301-05/z.log", 2)]
    ):
        os.utime(logs.write(name, ndjson(entry(number))), (written, written))
    logs.run()
    order = logs.database.execute("SELECT key FROM processed_files ORDER BY last_attempt")
    assert [str(key).rpartition("/logs/")[2] for (key,) in order] == [
        *("20240301-05/z.log", "app-20240301-0512.log", "plain.log", "2024/03/02/a.log")
    ]


def test_what_an_earlier_run_left_is_loaded_before_what_is_new_however_old(logs: Logs):
    for name in ("2024-03-05.log", "2024-03-04.log"):
        logs.write(name, ndjson(entry(1)))
    logs.run(limit=0)
    logs.write("2024-03-03.log", ndjson(entry(1)))
    assert logs.run().files == 3
    order = logs.database.execute("SELECT key FROM processed_files ORDER BY last_attempt")
    assert [str(key)[-8:-4] for (key,) in order] == ["3-04", "3-05", "3-03"]


def test_a_stop_rolls_the_file_back_and_gives_it_back(logs: Logs):
    logs.write("a.log", ndjson(*map(entry, range(20000))))
    asked = iter(range(10**6))
    assert logs.run(told_to_stop=lambda: next(asked) >= 3).ended == "interrupted"
    assert logs.files("status, attempts") == [("PENDING", 0)]
    assert logs.rows() == []
    assert logs.run().counts.new == 20000


def test_days_that_are_archived_are_left_out_once_the_first_pass_is_over(logs: Logs):
    young, younger = ((datetime.now(UTC) - timedelta(days=days)).isoformat() for days in (3, 2))
    logs.write("a.log", ndjson(entry(1)))
    logs.write("b.log", ndjson(entry(2)))
    assert logs.run(datasets=[ARCHIVED], limit=1).counts.new == 1
    assert logs.run(datasets=[ARCHIVED]).counts.new == 1, "it was there at the first pass"
    logs.write("a.log", ndjson(entry(1), entry(3, time=younger)))
    logs.write("c.log", ndjson(entry(4), entry(5, time=young)))
    counts = logs.run(datasets=[ARCHIVED]).counts
    assert (counts.new, counts.too_old) == (2, 2)
    # The purge alone deletes what is aged: nobody knows whether it is in the archive yet.
    assert logs.rows() == ["request 1", "request 2", "request 5", "request 3"]


def test_what_a_place_holds_once_it_has_files_is_of_the_first_listing(logs: Logs):
    """The mount was away, or the bucket was filled later."""
    logs.run(datasets=[ARCHIVED])
    logs.write("a.log", ndjson(entry(1)))
    counts = logs.run(datasets=[ARCHIVED]).counts
    assert (counts.new, counts.too_old) == (1, 0)


def test_a_folder_of_another_machine_that_is_away_is_not_taken_for_an_empty_one(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
):
    logs.write("a.log", ndjson(entry(1)))
    logs.write("below/b.log", ndjson(entry(2)))
    scan = os.scandir

    def away(path: str) -> object:
        if path.endswith("/below"):
            raise OSError(errno.ESTALE, "Stale file handle", path)
        return scan(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", away)
        with pytest.raises(UnreachableError, match="below: Stale file handle"):
            logs.run(datasets=[ARCHIVED])
    counts = logs.run(datasets=[ARCHIVED]).counts
    assert (counts.new, counts.too_old) == (2, 0)


def test_a_link_to_a_folder_elsewhere_or_to_a_hidden_one_is_left_out_with_a_warning(
    logs: Logs, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    logs.write("below/a.log", ndjson(entry(1)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (logs.folder / "link").symlink_to(elsewhere)
    (logs.folder / "same").symlink_to(logs.folder / "below")
    (logs.folder / ".hidden").mkdir()
    (logs.folder / "dotted").symlink_to(logs.folder / ".hidden")
    assert logs.run().files == 1
    for name in ("link", "dotted"):
        assert f"{name}: It is a link to a folder elsewhere, or a hidden one. It is left out." in caplog.text
    assert "same" not in caplog.text


def test_a_clock_that_goes_wrong_amid_a_run_ends_it_and_costs_no_file_an_attempt(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
):
    logs.write("a.log", ndjson(entry(1)))
    logs.run(datasets=[ARCHIVED])
    logs.write("a.log", ndjson(entry(1), entry(2, time=datetime.now(UTC).isoformat())))
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "aged_times", partial(runs.aged_times, only_looks=True))
        patch.setattr(runs, "now_utc", lambda: datetime.now(UTC) - timedelta(hours=2))
        with pytest.raises(ClocksError):
            logs.run(datasets=[ARCHIVED])
    assert logs.database.execute("SELECT status, attempts FROM processed_files") == [("PENDING", 0)]
    assert logs.run(datasets=[ARCHIVED]).counts.new == 1


def test_what_the_table_lost_comes_again_as_the_page_says(logs: Logs):
    for number, name in enumerate(("a.log", "b.log", "c.log")):
        logs.write(name, ndjson(entry(number)))
    logs.run(datasets=[ARCHIVED], limit=1)
    [(backed_up_at,)] = logs.database.execute("SELECT now()::text")
    logs.run(datasets=[ARCHIVED])
    logs.database.execute("DELETE FROM logs WHERE message <> 'request 0'")
    page = Path(__file__).parents[2] / "docs/howto/logs.md"
    (statement,) = re.findall(r"`(UPDATE processed_files [^`]+ > 'TIME')`", page.read_text())
    logs.database.execute(statement.replace("TIME", str(backed_up_at)))
    counts = logs.run(datasets=[ARCHIVED]).counts
    assert (counts.new, counts.too_old) == (2, 0)


def test_a_clock_that_is_set_back_during_the_first_listing_makes_no_file_a_later_one(logs: Logs):
    logs.run()
    logs.database.execute("""
        DELETE FROM log_listing;
        CREATE FUNCTION ahead() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.created_at = now() + interval '10 seconds'; RETURN NEW; END $$;
        CREATE TRIGGER ahead BEFORE INSERT ON processed_files FOR EACH ROW EXECUTE FUNCTION ahead()""")
    logs.write("a.log", ndjson(entry(1)))
    counts = logs.run(datasets=[ARCHIVED]).counts
    assert (counts.new, counts.too_old) == (1, 0)


# 11: keys of all kinds, and archived objects
def test_keys_with_any_characters_are_files_of_their_own(logs: Logs):
    names = ["a b.log", "a%20b.log", "ä/ö.log", "x" * 200 + ".log", "q'\"\\.log", "line\nend.log", "deep/er/still.log"]
    for number, name in enumerate(names):
        logs.write(name, ndjson(entry(number)))
    assert logs.run().files == len(names)
    assert len(logs.rows()) == len(names)


def test_one_file_is_read_by_itself_and_known_to_the_folder(logs: Logs):
    path = logs.write("a.log", ndjson(entry(1)))
    logs.write("b.log", ndjson(entry(2)))
    assert logs.run(logs_url=f"file://{path}").files == 1
    assert logs.run().files == 1


def test_one_file_alone_is_loaded_not_those_whose_names_begin_with_its_name(logs: Logs):
    path = logs.write("a.log", ndjson(entry(1)))
    logs.write("a.log.1", ndjson(entry(2)))
    logs.run(limit=0)
    only = logs.ingestion(logs_url=f"file://{path}")
    assert only.run().files == 1
    assert logs.rows() == ["request 1"]
    assert sum(of.files for of in only.status().counts) == 1
    assert logs.run().files == 1


def test_a_file_that_still_grows_waits_until_it_has_been_quiet(logs: Logs):
    path = logs.write("a.log", ndjson(entry(1)))
    logs.write("b.log", ndjson(entry(2)))
    os.utime(logs.folder / "b.log", (path.stat().st_mtime - 700,) * 2)
    assert logs.run(logs_min_age="10 minutes").files == 1
    with path.open("ab") as file:
        file.write(ndjson(entry(3)))
    assert not logs.ingestion(logs_min_age="10 minutes").waits()
    assert logs.run(logs_min_age="10 minutes").files == 0
    os.utime(path, (path.stat().st_mtime - 700,) * 2)
    assert logs.run(logs_min_age="10 minutes").files == 1
    assert logs.rows() == ["request 1", "request 2", "request 3"]


def test_a_file_of_the_far_future_does_not_wait_until_then(logs: Logs):
    path = logs.write("a.log", ndjson(entry(1)))
    os.utime(path, (path.stat().st_mtime + 10**8,) * 2)
    assert logs.run(logs_min_age="10 minutes").files == 1


def test_a_file_that_cannot_be_opened_fails_alone(logs: Logs):
    logs.write("b.log", ndjson(entry(1)))
    (logs.folder / "a.log").symlink_to(logs.folder / "nowhere")
    assert logs.run().files == 1


def test_a_place_without_any_file_is_told_until_there_is_one(logs: Logs, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"):
        assert logs.run().files == 0
    assert f"{logs.folder}/: there is no file, and never was one. Check LOGS_URL." in caplog.text
    caplog.clear()
    logs.write("a.log", ndjson(entry(1)))
    with caplog.at_level("INFO"):
        assert (logs.run().files, logs.run().files) == (1, 0)
    assert "no file is there" not in caplog.text


def test_a_folder_that_is_not_there_ends_the_run(logs: Logs):
    with pytest.raises(Exception, match="LOGS_URL must name a folder"):
        logs.run(logs_url=f"file://{logs.folder}/nowhere")


def test_a_server_that_is_too_old_is_told_before_anything_is_made(logs: Logs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading, "LOGS_OLDEST_SERVER", 99)
    with pytest.raises(ConfigurationError, match=r"is PostgreSQL 1\d; log files need 99 or newer. No file was loaded"):
        logs.run()
    assert logs.database.execute("SELECT to_regclass('logs') IS NULL") == [(True,)]

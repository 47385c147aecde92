"""Log files where something is out of order: their numbers and names, the ledger, the clock, the settings.

The numbers in the comments are those of the hardest cases of an ingestion of log files.
"""

import errno
import os
import random
import threading
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import ConfigurationError, FileChangedError
from event_archive.sources.log_files import decoding, ingest
from event_archive.sources.log_files.places import open_store
from event_archive.sources.log_files.replay import replay
from event_archive.sources.rejected import RejectedRecords
from event_archive.sources.runs import NONE_AGED, AgedTimes, aged_times
from event_archive_tests.fixtures.ages import aged_until
from event_archive_tests.fixtures.log_files import Logs, archived_logs, entry, ndjson

pytestmark = pytest.mark.slow


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
    logs.database.execute(f"UPDATE processed_files SET {state}")
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


# 14: one file that cannot be reached
def test_a_link_to_itself_ends_no_listing(logs: Logs, caplog: pytest.LogCaptureFixture):
    (logs.folder / "a.log").symlink_to(logs.folder / "a.log")
    logs.write("b.log", ndjson(entry(1)))
    assert logs.run().files == 1
    assert f"{logs.folder}/a.log: Too many levels of symbolic links. It is left out." in caplog.text


def test_a_link_to_a_file_that_is_listed_makes_no_second_row_of_an_entry(logs: Logs, tmp_path: Path):
    logs.write("2024/a.log", ndjson(entry(1)))
    logs.write(".hidden/b.log", ndjson(entry(2)))
    (tmp_path / "c.log").write_bytes(ndjson(entry(3)))
    (logs.folder / "current.log").symlink_to("2024/a.log")
    (logs.folder / "b.log").symlink_to(".hidden/b.log")
    (logs.folder / "c.log").symlink_to(tmp_path / "c.log")
    assert logs.run().counts.new == 3
    assert logs.rows() == ["request 1", "request 2", "request 3"]


def test_a_key_that_no_index_can_hold_keeps_no_other_file_out(logs: Logs, caplog: pytest.LogCaptureFixture):
    # PostgreSQL compresses what repeats.
    dice = random.Random(1)
    parts = [dice.randbytes(120).hex() for _ in range(13)]
    logs.write(f"{'/'.join(parts)}/a.log", ndjson(entry(1)))
    logs.write("b.log", ndjson(entry(2)))
    assert (logs.run().files, logs.rows()) == (1, ["request 2"])
    assert f"{parts[-1]}/a.log: Its key is longer than 2400 bytes. It is left out." in caplog.text


def test_a_file_of_no_date_keeps_no_other_file_out(
    logs: Logs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    logs.write("a.log", ndjson(entry(1)))
    logs.write("b.log", ndjson(entry(2)))
    stat = Path.stat

    def far(path: Path, **options: bool) -> os.stat_result:
        state = stat(path, **options)
        # Not every file system keeps such a time.
        return os.stat_result((*state[:7], *[2**40] * 3)) if path.name == "a.log" else state

    monkeypatch.setattr(Path, "stat", far)
    assert logs.run().files == 1
    assert "a.log: Its time of modification is no date of the calendar. It is left out." in caplog.text


def test_a_folder_below_that_cannot_be_read_is_told_of_and_the_rest_goes_on(
    logs: Logs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    logs.write("b.log", ndjson(entry(1)))
    logs.write("private/a.log", ndjson(entry(2)))
    listed = os.scandir

    def refuse(path: str) -> object:
        """As to a user who is not root."""
        if path == str(logs.folder / "private"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert logs.run().files == 1
    assert f"{logs.folder}/private: Permission denied. It is left out." in caplog.text


# 11: keys
def test_a_name_that_is_no_utf_8_is_told_of_and_left_out(logs: Logs, caplog: pytest.LogCaptureFixture):
    (logs.folder / os.fsdecode(b"\xff.log")).write_bytes(ndjson(entry(1)))
    logs.write("b.log", ndjson(entry(1)))
    assert logs.run().files == 1
    assert "Its name is no UTF-8. It is left out." in caplog.text


def test_a_file_is_the_same_one_by_whatever_way_it_is_named(logs: Logs, tmp_path: Path):
    path = logs.write("a.log", ndjson(entry(1)))
    (tmp_path / "link").symlink_to(logs.folder)
    assert logs.run().files == 1
    for way in (f"{logs.folder}/../logs", f"{tmp_path}/link/", f"{tmp_path}//link/./a.log", f"{tmp_path}/link/../logs"):
        assert logs.run(logs_url=f"file://{way}").files == 0, way
    assert logs.files("key") == [(str(path),)]


def test_names_that_differ_by_case_or_normal_form_alone_are_files_of_their_own(logs: Logs):
    for name in ("a.log", "A.log", "\u00e4.log", "a\u0308.log"):
        logs.write(name, ndjson(entry(1)))
    assert logs.run().files == 4
    assert logs.run().files == 0
    assert len(logs.rows()) == 4


def test_a_file_that_turned_into_a_pipe_is_not_waited_for(logs: Logs):
    path = logs.write("a.log", ndjson(entry(1)))
    logs.run(limit=0)
    store = open_store(logs.settings())
    (found,) = store.list()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileChangedError), store.open(found) as content:
        list(content)


def test_of_many_files_that_fail_a_run_keeps_some_of_the_reasons(logs: Logs):
    for number in range(25):
        logs.write(f"{number:02}.gz", b"\x1f\x8b broken")
    totals = logs.run(logs_max_attempts=2)
    assert (totals.failed, len(totals.failures)) == (25, 20)
    assert str(totals.failures[0]).endswith("It was not loaded. It is tried 1 more time.")


def test_a_store_that_cannot_be_opened_fails_the_run(logs: Logs):
    run = logs.ingestion(logs_url="az://container")
    with pytest.raises(ConfigurationError):
        run.run()
    assert run.totals.ended == "failed"


def test_a_second_pass_over_a_version_leaves_the_books_as_they_were(logs: Logs):
    logs.write("a.log", ndjson(entry(1), {"no": "time"}, entry(2)))
    logs.run()
    # Somebody wants it to be loaded again; then nobody knows that it ever was.
    for forgotten in ("UPDATE processed_files SET status = 'PENDING'", "TRUNCATE processed_files, log_listing"):
        logs.database.execute(forgotten)
        assert logs.run().files == 1
        assert logs.files() == [("COMPLETED", 2, 1)]
    logs.write("a.log", ndjson(entry(3)))
    logs.run()
    assert (logs.rows(), logs.rejected()) == (["request 3"], 0)


def test_an_entry_that_another_mapping_makes_a_row_is_rejected_no_more(logs: Logs, tmp_path: Path):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("timestamp: [time, when]\nmessage: msg\n")
    logs.write("a.log", ndjson(entry(1), {"msg": "later", "when": "2024-03-01T11:00:30Z"}))
    logs.run()
    logs.database.execute("UPDATE processed_files SET status = 'PENDING'")
    logs.run(logs_mapping=mapping)
    assert (logs.rows(), logs.rejected()) == (["request 1", "later"], 0)
    assert logs.files() == [("COMPLETED", 2, 0)]


# 9: one broken line
def test_a_line_of_a_brace_alone_is_one_broken_line(logs: Logs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "_BLOCK_BYTES", 256)
    monkeypatch.setattr(decoding, "MOST_ENTRY_BYTES", 1024)
    logs.write("a.log", ndjson(entry(1)) + b"{\n" + ndjson(*map(entry, range(2, 50))) + b"}\n" + ndjson(entry(50)))
    logs.run()
    assert logs.files() == [("COMPLETED", 50, 2)]


def test_broken_lines_lend_no_time_to_another(logs: Logs):
    lines = [
        b'{"time":1709290800000},{"time":1709290801000}',
        b'{"time":1709290802000,"msg":"good"}',
        b'{"x":1',
        b'"y":2}',
    ]
    logs.write("a.log", b"\n".join(lines) + b"\n")
    logs.run()
    assert logs.rows("message, extract(epoch FROM timestamp)::int") == [("good", 1_709_290_802)]
    assert logs.files() == [("COMPLETED", 1, 3)]


# 10: times
@pytest.mark.parametrize("time", ["20240301", "1.7092908e9", "12345", "1709290800.25", "1709290800000"])
def test_a_number_is_the_same_time_whatever_stands_beside_it_and_however_deep(logs: Logs, tmp_path: Path, time: str):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("timestamp: [time, log.time]\n")
    logs.write("a.log", b'{"time":%s}\n' % time.encode())
    logs.write("b.log", b'{"time":%s}\n{"broken\n' % time.encode())
    logs.run()
    logs.write("c.log", b'{"log":{"time":%s}}\n' % time.encode())
    logs.run(logs_mapping=mapping)
    assert len(logs.rows()) == 3
    assert len({*logs.rows("timestamp")}) == 1


def test_a_mapping_with_a_column_twice_is_refused(logs: Logs, tmp_path: Path):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("timestamp: time\nmessage: msg\nmessage: text\n")
    with pytest.raises(ConfigurationError, match="LOGS_MAPPING: .* is not right: message stands there twice"):
        logs.run(logs_mapping=mapping)


def test_a_field_whose_name_cannot_be_written_is_explained(logs: Logs):
    logs.write("a.log", b'{"time":1709290800000,"a\\ud800":"hunter2"}\n')
    logs.run()
    [(number,)] = logs.database.execute("SELECT id FROM rejected_records")
    with logs.settings().postgres.session() as session:
        _, look = RejectedRecords(session, TableName("public", "rejected_records")).explained(int(str(number)))
    assert look == "Its fields: time (number), a? (text)."


# 13: several workers, and 16: two that try again
def test_two_that_replay_at_once_land_each_entry_once(logs: Logs, tmp_path: Path):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("timestamp: [time, when]\nmessage: msg\n")
    later = {"msg": "later", "when": "2024-03-01T11:00:30Z"}
    logs.write("a.log", ndjson(*[later] * 300, {"msg": "never"}))
    logs.write("b.log", ndjson(*[later] * 300))
    logs.run()
    settings = logs.settings(logs_mapping=mapping)

    def try_again() -> None:
        with settings.postgres.session() as session:
            found.append(RejectedRecords(session, TableName("public", "rejected_records")).replay(replay(settings)).new)

    found: list[int] = []
    both = [threading.Thread(target=try_again) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sum(found) == len(logs.rows()) == 600
    assert logs.files() == [("COMPLETED", 300, 1), ("COMPLETED", 300, 0)]
    assert logs.rejected() == 1


def test_places_that_overlap_share_their_files(logs: Logs):
    logs.write("app/a.log", ndjson(entry(1)))
    logs.write("app-2/b.log", ndjson(entry(2)))
    app = f"file://{logs.folder}/app"
    assert logs.run(logs_url=app).files == 1
    assert logs.run().files == 1
    logs.write("app/a.log", ndjson(entry(3)))
    assert logs.run().files == 1
    assert logs.run(logs_url=app).files == 0
    assert logs.rows() == ["request 2", "request 3"]


def test_processes_with_a_limit_load_no_more_than_it_each(logs: Logs):
    for number in range(12):
        logs.write(f"{number:02}.log", ndjson(entry(number)))
    loaded: list[int] = []
    workers = [threading.Thread(target=lambda: loaded.append(logs.run(limit=3).files)) for _ in range(3)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert loaded == [3] * 3
    assert sorted(status for (status,) in logs.files("status")) == ["COMPLETED"] * 9 + ["PENDING"] * 3


def test_a_day_that_becomes_aged_while_a_run_goes_on_is_left_out_from_then_on(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
):
    logs.write("a.log", ndjson(entry(1)))
    logs.run()
    logs.write("b.log", ndjson(entry(2)))
    logs.write("c.log", ndjson(entry(3)))
    days = iter([aged_until(1)] * 2 + [aged_until(2)] * 9)
    monkeypatch.setattr(ingest, "aged_times", lambda *_: next(days))
    monkeypatch.setattr(ingest, "AGES_SECONDS", 0)
    counts = logs.run().counts
    assert (counts.new, counts.too_old) == (1, 1)


def come_of_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 March is aged by the end of the first load, and was not when the run looked."""
    days = [aged_until(1)]

    def aged_by_now(*_: object, **__: object) -> AgedTimes:
        days[0] = aged_until(2)
        return days[0]

    monkeypatch.setattr(ingest, "aged_times", lambda *_: days[0])
    monkeypatch.setattr(ingest, "aged_by_now", aged_by_now)


def test_a_day_that_becomes_aged_while_a_new_version_is_loaded_keeps_its_rows(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
):
    logs.write("a.log", ndjson(entry(1)))
    logs.run()
    former = logs.rows("id, message")
    logs.write("a.log", ndjson(entry(1), entry(2), entry(3, time=1_709_377_200_000)))
    # From now on a night may archive the day, whose rows would be others once the load commits.
    come_of_age(monkeypatch)
    totals = logs.run()
    assert logs.rows("id, message")[:1] == former
    assert (totals.counts.new, totals.counts.too_old, totals.removed, totals.files) == (1, 2, 0, 1)
    assert logs.files() == [("COMPLETED", 1, 0)]


def test_a_day_that_was_purged_just_before_a_new_version_is_loaded_does_not_come_back(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
):
    """Which days are aged was asked a moment ago; none of the former version's rows is left that could tell."""
    logs.write("a.log", ndjson(entry(1)))
    logs.run()
    logs.database.execute("DELETE FROM logs")
    logs.write("a.log", ndjson(entry(1), entry(2), entry(3, time=1_709_377_200_000)))
    come_of_age(monkeypatch)
    counts = logs.run().counts
    assert (counts.new, counts.too_old) == (1, 2)
    assert logs.files() == [("COMPLETED", 1, 0)]


def test_an_entry_from_before_the_first_day_that_is_archived_is_not_too_old(logs: Logs):
    """It is in no file, and never purged; a new version of its file replaces it."""
    dataset = replace(archived_logs("3 days"), start=date(2024, 3, 2))
    logs.write("a.log", ndjson(entry(1)))
    logs.run(datasets=[dataset])
    for number in (2, 3):
        logs.write("b.log", ndjson(entry(number), entry(4, time=1_709_377_200_000)))
        totals = logs.run(datasets=[dataset])
        assert (totals.counts.new, totals.counts.too_old, totals.removed) == (1, 1, number - 2)
    assert logs.rows() == [entry(number)["msg"] for number in (1, 3)]


# 19: settings that change
@pytest.mark.parametrize("change", ["LOGS_TIMEZONE", "LOGS_MAPPING"])
def test_what_other_settings_read_as_aged_keeps_the_row_that_it_has(logs: Logs, tmp_path: Path, change: str):
    dataset = archived_logs("3 days")
    with logs.settings().postgres.session() as session:
        aged = aged_times(session, [dataset], dataset.table)
    assert aged != NONE_AGED

    def at(number: int) -> dict[str, str]:
        # Of the first second that is not aged; by another zone, or another field, it is.
        time = (aged.until + timedelta(minutes=number)).replace(tzinfo=None).isoformat()
        return {"msg": f"{number}", "time": time, "started": "2024-03-01T00:00:00Z" if number < 9 else time}

    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("timestamp: started\nmessage: msg\n")
    changed = {"logs_timezone": "Europe/Berlin"} if change == "LOGS_TIMEZONE" else {"logs_mapping": mapping}
    logs.run(datasets=[dataset])
    for number, others in enumerate([{}, changed, changed]):
        logs.write("a.log", ndjson(at(1), at(2), *(at(600 + of) for of in range(number + 1))))
        totals = logs.run(datasets=[dataset], **others)
        assert (totals.counts.too_old, totals.removed) == (2 if others else 0, number)
        assert logs.rows() == ["1", "2", *(f"{600 + of}" for of in range(number + 1))]

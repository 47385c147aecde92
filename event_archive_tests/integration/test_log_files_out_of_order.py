"""Log files where something is out of order: their numbers and names, the ledger, the clock, the settings."""

import errno
import os
import random
from pathlib import Path

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import ConfigurationError, FileChangedError
from event_archive.sources.log_files import decoding
from event_archive.sources.log_files.places import open_store
from event_archive.sources.rejected import RejectedRecords
from event_archive_tests.fixtures.log_files import Logs, entry, ndjson

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

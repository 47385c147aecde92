"""Log files of a folder, landed in PostgreSQL: the hard cases of what is in them.

The numbers in the comments are those of the hardest cases of an ingestion of log files.
"""

import errno
import gzip
import json
import os
import re
from collections.abc import Callable
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


def test_an_entry_of_pino_fills_the_columns_and_stands_in_raw_data_to_the_letter(each_logs: Logs):
    text = (
        b'{"level":30,"time":1709290800123,"pid":7,"hostname":"web-1","req":{"id":12,"method":"GET","url":"/o?x=1",'
        b'"query":{"x":"1"},"params":{},"headers":{"host":"h"},"remoteAddress":"::1","remotePort":5432},'
        b'"context":"Orders","cacheHit":true,"documentCount":3,"responseTime":1.5,"lastUpdated":"2024-03-01T10:00:00Z",'
        b'"authUserId":"u1","msg":"request  done", "msg":"request done"}'
    )
    each_logs.write("a.log", text + b"\n")
    assert each_logs.run().counts.new == 1
    (row,) = each_logs.database.execute(
        'SELECT "timestamp", level, method, url, query, params, headers, context, message, auth_user_id, pid, '
        "hostname, remote_address, remote_port, processing_time_ms, cache_hit, document_count, last_updated, "
        "request_id, raw_data::text FROM logs"
    )
    assert row == (
        datetime(2024, 3, 1, 11, 0, 0, 123000, UTC), "info", "GET", "/o?x=1", {"x": "1"}, {}, {"host": "h"}, "Orders",
        "request done", "u1", 7, "web-1", "::1", 5432, 1.5, True, 3, datetime(2024, 3, 1, 10, tzinfo=UTC), "12",
        text.decode(),
    )  # fmt: skip


# 6: told by the bytes, in flat memory
@pytest.mark.parametrize(
    "content",
    [
        ndjson(entry(1), entry(2)),
        b"\xef\xbb\xbf" + ndjson(entry(1), entry(2)).replace(b"\n", b"\r\n\r\n"),
        ndjson(entry(1), entry(2)).rstrip(),
        json.dumps([entry(1), entry(2)], indent=2).encode(),
        b"".join(json.dumps(of, indent=2).encode() + b"\n" for of in (entry(1), entry(2))),
        array(entry(1), entry(2)),
        gzip.compress(array(entry(1), entry(2))),
        gzip.compress(ndjson(entry(1))) + gzip.compress(b"") + gzip.compress(ndjson(entry(2))) + b"\0" * 512,
        array(entry(1)) + array(entry(2)),
    ],
    ids=["lines", "bom", "no line end", "array", "laid out", "gzip", "gzip twice", "members and padding", "arrays"],
)
def test_what_a_file_is_is_told_by_its_bytes_not_by_its_name(logs: Logs, content: bytes):
    logs.write("plain.gz", content)
    logs.write("empty.json", b"")
    logs.write("empty.gz", gzip.compress(b" \n"))
    assert logs.run().files == 3
    assert logs.rows() == ["request 1", "request 2"]
    assert logs.files() == [("COMPLETED", 0, 0), ("COMPLETED", 0, 0), ("COMPLETED", 2, 0)]


# 7: identical lines, request ids used again
def test_identical_lines_and_a_request_id_used_again_are_rows_of_their_own(logs: Logs):
    logs.write("a.log", ndjson(entry(1), entry(1)))
    logs.write("b.log", ndjson(entry(1)))
    assert logs.run().counts.new == 3
    assert logs.rows("request_id") == ["1", "1", "1"]


def test_a_second_pass_and_a_forgotten_ledger_make_no_row_twice(logs: Logs):
    logs.write("a.log", ndjson(entry(1), entry(2)))
    logs.run()
    assert logs.run().files == 0
    logs.database.execute("TRUNCATE processed_files, log_listing")
    counts = logs.run().counts
    assert (counts.new, counts.known) == (0, 2)
    assert logs.files() == [("COMPLETED", 2, 0)]


# 2: the same key with new content
def test_a_new_version_of_a_file_replaces_its_rows_and_what_was_rejected_of_it(each_logs: Logs):
    each_logs.write("a.log", ndjson(entry(1), entry(2), {"no": "time"}))
    each_logs.write("b.log", ndjson(entry(3), {"no": "time"}))
    each_logs.run()
    assert each_logs.files() == [("COMPLETED", 2, 1), ("COMPLETED", 1, 1)]
    each_logs.write("a.log", ndjson(entry(5), entry(6), entry(7)))
    assert each_logs.run().files == 1
    assert each_logs.rows() == ["request 3", "request 5", "request 6", "request 7"]
    assert each_logs.files() == [("COMPLETED", 3, 0), ("COMPLETED", 1, 1)]
    assert len(each_logs.database.execute("SELECT id FROM rejected_records")) == 1


def test_what_was_rejected_of_a_file_stays_whatever_becomes_of_one_whose_records_are_named_like_it(logs: Logs):
    logs.write("a.log", ndjson(entry(1), {"no": "time"}))
    logs.run()
    ((etag,),) = logs.database.execute("SELECT etag FROM processed_files")
    logs.write(f"a.log {etag} entry b.log", ndjson({"no": "time"}))
    logs.run()
    logs.write("a.log", ndjson(entry(1), entry(2)))
    logs.run()
    assert logs.files() == [("COMPLETED", 2, 0), ("COMPLETED", 0, 1)]
    assert len(logs.database.execute("SELECT id FROM rejected_records")) == 1


# 4: cut short or corrupt; back-off
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda of: of[:-20], "gzip is cut short at byte"),
        (lambda of: of[:-8] + b"\0\0\0\0" + of[-4:], "damaged, from byte"),
        (lambda of: of[:40] + bytes([of[40] ^ 255]) + of[41:], "byte"),
        (lambda of: of + b"more", "no gzip follow it at byte"),
        (lambda of: gzip.compress(gzip.decompress(of)[:-3]), "array is cut short at byte"),
    ],
    ids=["cut short", "checksum", "flipped", "followed", "array cut"],
)
def test_a_damaged_file_is_rolled_back_whole_and_failed_with_the_offset(
    logs: Logs, damage: Callable[[bytes], bytes], words: str
):
    whole = array(*map(entry, range(3000)))
    logs.write("a.json.gz", damage(whole))
    logs.write("b.log", ndjson(entry(1)))
    totals = logs.run()
    assert (totals.files, totals.failed) == (1, 1)
    assert logs.rows() == ["request 1"]
    assert logs.files()[0] == ("FAILED", 0, 0)
    assert words in logs.errors()[0]
    assert logs.run().failed == 0, "it is not tried again at once"
    logs.wait_no_more()
    logs.write("a.json.gz", whole)
    assert logs.run().counts.new == 3000


# 8: what PostgreSQL cannot hold, and what it can
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (rb'{"time":1709290800000,"msg":"a\u0000b"}', "\\u0000"),
        (rb'{"time":1709290800000,"msg":"a\ud800b"}', "surrogate"),
        (b'{"time":1709290800000,"msg":"\xff"}', "no UTF-8"),
        (b'{"time":1709290800000,"msg":NaN}', "no number of JSON"),
        (b'{"time":1709290800000,"msg":', "no JSON"),
        (b'{"msg":"no time"}', "no time"),
        (b'{"time":"yesterday"}', "not ISO 8601"),
        (b'{"time":99999999999999999999999}', "years 1 to 9999"),
        (b'"text"', "no object"),
        (b"plain text", "no JSON"),
        (b'{"time":1709290800000,"n":1e200000}', "out of range"),
    ],
)
@pytest.mark.parametrize("kind", ["lines", "array"])
def test_an_entry_that_cannot_be_a_row_is_rejected_and_the_file_goes_on(
    logs: Logs, text: bytes, reason: str, kind: str
):
    if kind == "array" and (text[:1] == b"p" or text.endswith(b":")):
        pytest.skip("an array that is no JSON is a damaged file")
    before, behind = ndjson(entry(1)).strip(), ndjson(entry(3)).strip()
    content = b"[" + b",".join((before, text, behind)) + b"]" if kind == "array" else b"\n".join((before, text, behind))
    logs.write("a.log", content)
    counts = logs.run().counts
    assert (counts.new, counts.rejected) == (2, 1)
    [(locator, told, raw)] = logs.database.execute("SELECT locator, reason, raw FROM rejected_records")
    assert str(locator).endswith(" entry 2")
    assert reason in str(told)
    assert raw == text


# 8: what PostgreSQL cannot hold, and what it can
@pytest.mark.parametrize(
    "text",
    [
        b'{"time":1709290800000,"n":1e400}',
        b'{"time":1709290800000,"pid":123456789012345678901234567890}',
        b'{"time":1709290800000,"a":1,"a":2}',
        b'{"time":1709290800000,"time":1709290800001, "x" : 1.0 }',
        b'{"time":1709290800.5,"pid":"7x","req":"text","cacheHit":"maybe","lastUpdated":"now","responseTime":{}}',
        rb'{"time":1709290800000,"msg":"\\u0000 and \ud83d\ude00"}',
    ],
)
def test_an_odd_entry_that_can_be_a_row_is_one_to_the_letter(logs: Logs, text: bytes):
    logs.write("a.log", text)
    assert logs.run().counts.new == 1
    assert logs.rows("raw_data::text") == [text.decode()]


# 9: one broken line among many
def test_a_broken_line_is_rejected_more_than_max_rejected_fail_the_file(logs: Logs):
    logs.write("a.log", ndjson(*map(entry, range(20000))) + b"{broken\n" + ndjson(*map(entry, range(10))))
    logs.write("b.log", b"{broken\n" * 3)
    totals = logs.run(max_rejected=2)
    assert logs.files() == [("COMPLETED", 20010, 1), ("FAILED", 0, 0)]
    assert totals.counts.rejected == 1
    assert "MAX_REJECTED=2" in logs.errors()[1]
    assert len(logs.database.execute("SELECT id FROM rejected_records")) == 1


# 10: levels and times of all kinds
@pytest.mark.parametrize(
    ("level", "name"), [(10, "trace"), (30, "info"), (35, "35"), ("info", "info"), (None, None), (60, "fatal")]
)
def test_a_level_is_a_name_or_what_stands_in_its_place(logs: Logs, level: object, name: object):
    logs.write("a.log", ndjson(entry(1, level=level)))
    logs.run()
    assert logs.rows("level") == [name]


# 10: levels and times of all kinds
@pytest.mark.parametrize(
    "time",
    [1709290800, 1709290800.0, 1709290800000, 1709290800000000000, "2024-03-01T11:00:00Z", "1709290800000",
     "2024-03-01T12:00:00.000+01:00"],
)  # fmt: skip
def test_a_time_is_told_by_its_form(logs: Logs, time: object):
    logs.write("a.log", ndjson(entry(1, time=time)))
    logs.run()
    assert logs.rows('"timestamp"') == [datetime(2024, 3, 1, 11, tzinfo=UTC)]


# 10: levels and times of all kinds
def test_timestamp_goes_before_time_and_a_contradiction_is_counted(logs: Logs):
    logs.write(
        "a.log",
        ndjson(
            entry(1, timestamp="2024-01-15T10:30:00Z"),
            entry(2, timestamp="2024-03-01T11:00:02Z"),
            entry(3, timestamp="nothing"),
            entry(4, timestamp=None),
        ),
    )
    assert logs.run().contradictions == 1
    assert [of.isoformat()[:19] for of in logs.rows('"timestamp"')] == [
        *("2024-01-15T10:30:00", "2024-03-01T11:00:02", "2024-03-01T11:00:03", "2024-03-01T11:00:04")
    ]


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


def test_another_mapping_names_the_fields_of_other_loggers(logs: Logs, tmp_path: Path):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        "timestamp: /@timestamp\nlevel: log.level\nmessage: [text, note]\nmethod: /http.method\nlevels: {W: warn}\n"
    )
    logs.write(
        "a.log",
        ndjson(
            {"@timestamp": "2024-03-01T11:00:00Z", "log": {"level": "W"}, "note": "n", "http.method": "PUT", "pid": 3}
        ),
    )
    logs.run(logs_mapping=mapping)
    assert logs.rows("level, message, method, pid") == [("warn", "n", "PUT", None)]


@pytest.mark.parametrize("fields", ["[at, at]", "'we\"ird'", "'back\\slash'", "[at, 'we\"ird']"])
def test_a_mapping_may_name_a_field_twice_or_one_with_an_odd_name(logs: Logs, tmp_path: Path, fields: str):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(f"timestamp: {fields}\nmessage: msg\n")
    name = {"at": "at"}.get(fields.strip("[]'").split(",")[0], fields.strip("'"))
    logs.write("a.log", ndjson({name: "2024-03-01T11:00:00Z", "msg": "m"}))
    logs.run(logs_mapping=mapping)
    assert logs.rows("message, timestamp") == [("m", datetime(2024, 3, 1, 11, tzinfo=UTC))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("message: msg", "timestamp"),
        ("timestamp: t\nmesage: m", "`mesage` is none of the columns"),
        ("timestamp: {a: b}", "must name a field"),
        ("- a", "must be columns"),
        ("a: [", "no YAML"),
    ],
)
def test_a_mapping_that_is_wrong_is_said_before_anything_is_read(logs: Logs, tmp_path: Path, text: str, words: str):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        logs.run(logs_mapping=mapping)

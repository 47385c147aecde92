"""Log files of a folder, landed in PostgreSQL: the hard cases of what is in them.

The numbers in the comments are those of the hardest cases of an ingestion of log files.
"""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from event_archive.errors import ConfigurationError
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson


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

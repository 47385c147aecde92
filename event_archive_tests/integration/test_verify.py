"""What verify says of a file."""

import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import UnreachableError
from event_archive.operations import csv_reader, verify
from event_archive.operations.adopt import adopt_day
from event_archive.operations.verify import VerifiedDay, verify_day
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.progress import Seen
from event_archive_tests.fixtures.verifying import damaged, verified


def test_a_good_file_is_good(ten_rows: Pipeline):
    found = verified(ten_rows)
    assert (found.rows, found.problems) == (10, ())
    assert found.bytes == len(ten_rows.content())


def test_a_flipped_byte_is_said(ten_rows: Pipeline):
    (problem,) = damaged(ten_rows, lambda lines: [lines[0], lines[1].replace(b",t,", b",u,"), *lines[2:]]).problems
    assert problem.startswith("bytes were altered in place: its SHA-256 is ")


def test_a_missing_row_is_said(ten_rows: Pipeline):
    problems = damaged(ten_rows, lambda lines: lines[:-1]).problems
    assert "1 row is missing: it holds 9, its manifest says 10" in problems
    assert " bytes were read, its manifest says " in problems[0]


def test_a_doubled_row_is_said(ten_rows: Pipeline):
    problems = damaged(ten_rows, lambda lines: [*lines, lines[-1]]).problems
    assert "1 row was added or doubled: it holds 11, its manifest says 10" in problems


def test_a_row_of_another_day_is_said(ten_rows: Pipeline):
    problems = damaged(
        ten_rows, lambda lines: [lines[0], *[line.replace(b"-03-01", b"-03-02") for line in lines[1:3]], *lines[3:]]
    )
    assert "2 rows are not of 2024-03-01" in problems.problems


def test_a_payload_that_is_no_json_is_said(ten_rows: Pipeline):
    problems = damaged(
        ten_rows,
        lambda lines: [lines[0], lines[1].replace(b'""n""', b'""n"', 1).replace(b'""n"', b"nnnnn"), *lines[2:]],
    )
    assert "1 value of payload is not JSON" in problems.problems


def test_another_header_is_said(ten_rows: Pipeline):
    problems = damaged(ten_rows, lambda lines: [lines[0].replace(b"event_type", b"event_kind"), *lines[1:]]).problems
    assert any("is not the one its manifest was made of" in problem for problem in problems)


def test_what_is_no_csv_is_said(ten_rows: Pipeline):
    found = damaged(ten_rows, lambda lines: [*lines[:3], b"1,2\n", *lines[4:]])
    assert found.rows is None
    (damage,) = [problem for problem in found.problems if problem.startswith("it is not a CSV file: ")]
    # Without the row: what it says goes where nobody should read events.
    assert damage.endswith("Expected 6 columns, got 2")


@pytest.mark.parametrize(
    "row", [b'901,e901, "a,b" ,2024-03-01 01:00:00,,{}\n', b'901,a"x,y"b,x,2024-03-01 01:00:00,,{}\n']
)
def test_what_postgresql_alone_reads_is_no_damage(pipeline: Pipeline, row: bytes):
    pipeline.put(b"id,event_id,event_type,created_at,processed_at,payload\n" + row)
    adopt_day(pipeline.site, DAY)
    pipeline.add(1)
    assert pipeline.run().deleted == 1
    found = verify_day(pipeline.dataset, DAY, table=None, lake=pipeline.lake)
    assert (found.problems, found.rows) == ((), None)
    (remark,) = found.remarks
    assert remark.startswith("PyArrow cannot read it, so its rows and values were not checked: ")


def _held() -> list[object]:
    return [of for of in gc.get_objects() if isinstance(of, csv_reader._Stream | csv_reader._Piece)]


def test_nothing_of_a_damaged_file_is_left_to_another_thread(pipeline: Pipeline):
    """One of pyarrow's that still had some of it when Python ends would end the process by SIGABRT."""
    pipeline.add(3)
    pipeline.archive()
    pipeline.put(pipeline.content() + b"1,2\n" * 1000)
    for _ in range(20):
        assert verify_day(pipeline.dataset, DAY, table=None, lake=pipeline.lake).problems
        assert _held() == []


def test_a_file_that_breaks_off_while_it_is_verified_is_let_go_at_once(
    ten_rows_locally: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    ten_rows_locally.add(3)
    ten_rows_locally.archive()

    def broken(reading: Any, blocks: Iterator[bytes], _: object) -> Iterator[bytes]:
        yield next(blocks)
        raise UnreachableError("away")

    monkeypatch.setattr(csv_reader.Reading, "_hashed", broken)
    started = time.monotonic()
    with pytest.raises(UnreachableError):
        verify_day(ten_rows_locally.dataset, DAY, table=None, lake=ten_rows_locally.lake)
    assert (_held(), time.monotonic() - started < csv_reader._LET_GO_SECONDS) == ([], True)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"id,event_id,event\xfftype,created_at,processed_at,payload\n", "it is not a CSV file: "),
        (b"id,event_id,created_at,created_at,processed_at,payload\n", "its header names a column twice"),
        (b"id,event_id,event_type,created_at,payload,payload\n", "its header names a column twice"),
    ],
)
def test_a_damaged_header_is_said(ten_rows_locally: Pipeline, header: bytes, words: str):
    found = damaged(ten_rows_locally, lambda lines: [header, *lines[1:]])
    assert any(words in problem for problem in found.problems)
    assert any("its SHA-256 is" in problem for problem in found.problems)
    assert found.bytes == len(ten_rows_locally.content())


def test_without_the_tables_shape_the_rest_is_verified(ten_rows_locally: Pipeline):
    def verify_without() -> VerifiedDay:
        return verify_day(ten_rows_locally.dataset, DAY, table=None, lake=ten_rows_locally.lake)

    assert (verify_without().rows, verify_without().problems) == (10, ())
    damaged(ten_rows_locally, lambda lines: lines[:-1])
    assert "1 row is missing: it holds 9, its manifest says 10" in verify_without().problems


@pytest.mark.parametrize(
    ("columns", "value", "change", "remarks"),
    [
        ("j jsonb", "[" + "1" * 5000 + "]", "", ()),
        ("j jsonb", "[" * 3000 + "]" * 3000, "", ()),
        ("j text", "hello", "ALTER TABLE n ALTER j TYPE jsonb USING to_jsonb(j)", ("1 value of j is not JSON",)),
    ],
)
def test_what_the_file_was_archived_with_is_no_problem(
    pipeline: Pipeline, columns: str, value: str, change: str, remarks: tuple[str, ...]
):
    pipeline.database.execute(f"CREATE TABLE n (id int PRIMARY KEY, created_at timestamptz, {columns})")
    pipeline.database.execute(f"INSERT INTO n VALUES (1, '2024-03-01 10:00Z', %s::{columns[2:]})", value)
    of = pipeline.of(table=TableName("public", "n"))
    of.run()
    if change:
        pipeline.database.execute(change)
    assert (verified(of).problems, verified(of).remarks) == ((), remarks)


@pytest.mark.parametrize(
    ("time", "of_the_day"),
    [
        ("2024-02-29 23:00:00-05", True),
        ("2024-03-01T23:59:59.999Z", True),
        ("2024-03-01 10:00:00+00:00", True),
        ("2024-03-01", True),
        ("2024-03-01 23:00:00-05", False),
        ("2024-03-02 00:00:00", False),
        ("1 March 2024", False),
        ("0001-01-01 00:00:00+05", False),
    ],
)
def test_a_time_is_of_the_day_whatever_its_offset(pipeline: Pipeline, time: str, of_the_day: bool):
    pipeline.put(f"id,created_at\n1,{time}\n".encode())
    assert ("1 row is not of 2024-03-01" not in verified(pipeline).problems) == of_the_day


def test_a_record_too_large_to_be_parsed_is_a_remark(ten_rows_locally: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verify, "_FIRST_BLOCK_BYTES", 60)
    monkeypatch.setattr(verify, "_LARGEST_BLOCK_BYTES", 60)
    assert verified(ten_rows_locally).problems == ()
    assert verified(ten_rows_locally).rows is None
    assert verified(ten_rows_locally).remarks == ("a record is larger than 60 bytes: its rows were not checked",)
    problems = damaged(ten_rows_locally, lambda lines: lines[:-1]).problems
    assert any("its SHA-256 is" in problem for problem in problems)


def test_a_stop_does_not_wait_for_the_rest_of_the_file(pipeline: Pipeline):
    pipeline.database.execute(
        """INSERT INTO "Event" (event_id, event_type, created_at, payload)
        SELECT n, 't', '2024-03-01', jsonb_build_object('x', repeat('y', 20000000)) FROM generate_series(1, 2) AS n"""
    )
    pipeline.run()

    class Stopped(Seen):
        def advance(self, rows: int, size_bytes: int) -> None:
            super().advance(rows, size_bytes)
            raise KeyboardInterrupt

    seen = Stopped()
    with pytest.raises(KeyboardInterrupt):
        verify_day(pipeline.dataset, DAY, table=None, lake=pipeline.lake, progress=seen)
    assert seen.names() == ["verifying"]
    assert 0 < seen.phases[0].bytes < len(pipeline.content())


def test_a_file_of_another_tool_is_said(ten_rows: Pipeline):
    ten_rows.put(ten_rows.content())
    assert verified(ten_rows).problems == ("it has no manifest: another tool wrote or copied it",)


def test_a_missing_file_is_said(pipeline: Pipeline):
    assert verified(pipeline).problems == (f"there is no file at {pipeline.lake.url(pipeline.dataset.path(DAY))}",)


def test_empty_lines_quotes_and_newlines_count_as_what_they_are(pipeline: Pipeline):
    pipeline.add(7)
    pipeline.database.execute('UPDATE "Event" SET event_type = E\'\\n\\n"\\n\\\\.\\n\' WHERE id = 3')
    pipeline.run()
    assert verified(pipeline).problems == ()


def test_a_record_larger_than_a_block_is_read(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.database.execute(
        """UPDATE "Event" SET payload = jsonb_build_object('x', repeat('y', 9000000)) WHERE id = 1"""
    )
    pipeline.run()
    found = verified(pipeline)
    assert (found.rows, found.problems) == (2, ())


def test_a_manifest_that_was_altered_is_told_apart_from_rows_that_are_missing(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    file = pipeline.lake.stat(pipeline.dataset.path(DAY))
    assert file is not None
    pipeline.put(pipeline.content(), metadata=dict(file.metadata) | {"event_archive_rows": "4"})
    (problem,) = verified(pipeline).problems
    assert problem == "its manifest says 4 rows; its bytes are those that were archived, and hold 3"

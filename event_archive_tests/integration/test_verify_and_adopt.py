"""What verify says of a file, and what adopt makes of one."""

import gc
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.manifest import Manifest
from event_archive.errors import FileChangedError, IntegrityError, RefusedError, UnreachableError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations import csv_reader, verify
from event_archive.operations.adopt import adopt_day
from event_archive.operations.verify import VerifiedDay, verify_day
from event_archive.table.shape import reflect
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.progress import Seen


def verified(pipeline: Pipeline) -> VerifiedDay:
    with pipeline.postgres.transaction("test") as connection:
        table = reflect(connection, pipeline.dataset)
    return verify_day(pipeline.dataset, DAY, table=table, lake=pipeline.lake)


def damaged(pipeline: Pipeline, damage: Callable[[list[bytes]], list[bytes]]) -> VerifiedDay:
    """The file with its records changed and its manifest left, as it verifies."""
    file = pipeline.lake.stat(pipeline.dataset.path(DAY))
    assert file is not None
    pipeline.put(b"".join(damage(pipeline.content().splitlines(keepends=True))), metadata=dict(file.metadata))
    return verified(pipeline)


@pytest.fixture
def simple(each_pipeline: Pipeline) -> Pipeline:
    """Ten rows, each a line."""
    return with_ten_rows(each_pipeline)


@pytest.fixture
def local(pipeline: Pipeline) -> Pipeline:
    """The same, where neither PostgreSQL's version nor the kind of lake matters."""
    return with_ten_rows(pipeline)


def with_ten_rows(pipeline: Pipeline) -> Pipeline:
    pipeline.database.execute(
        """INSERT INTO "Event" (event_id, event_type, created_at, payload)
        SELECT n::text, 't', '2024-03-01', jsonb_build_object('n', n, 'big', 12345678901234567890123)
        FROM generate_series(1, 10) AS n"""
    )
    pipeline.run()
    return pipeline


def test_a_good_file_is_good(simple: Pipeline):
    found = verified(simple)
    assert (found.rows, found.problems) == (10, ())
    assert found.bytes == len(simple.content())


def test_a_flipped_byte_is_said(simple: Pipeline):
    (problem,) = damaged(simple, lambda lines: [lines[0], lines[1].replace(b",t,", b",u,"), *lines[2:]]).problems
    assert problem.startswith("bytes were altered in place: its SHA-256 is ")


def test_a_missing_row_is_said(simple: Pipeline):
    problems = damaged(simple, lambda lines: lines[:-1]).problems
    assert "1 row is missing: it holds 9, its manifest says 10" in problems
    assert " bytes were read, its manifest says " in problems[0]


def test_a_doubled_row_is_said(simple: Pipeline):
    problems = damaged(simple, lambda lines: [*lines, lines[-1]]).problems
    assert "1 row was added or doubled: it holds 11, its manifest says 10" in problems


def test_a_row_of_another_day_is_said(simple: Pipeline):
    problems = damaged(
        simple, lambda lines: [lines[0], *[line.replace(b"-03-01", b"-03-02") for line in lines[1:3]], *lines[3:]]
    )
    assert "2 rows are not of 2024-03-01" in problems.problems


def test_a_payload_that_is_no_json_is_said(simple: Pipeline):
    problems = damaged(
        simple, lambda lines: [lines[0], lines[1].replace(b'""n""', b'""n"', 1).replace(b'""n"', b"nnnnn"), *lines[2:]]
    )
    assert "1 value of payload is not JSON" in problems.problems


def test_another_header_is_said(simple: Pipeline):
    problems = damaged(simple, lambda lines: [lines[0].replace(b"event_type", b"event_kind"), *lines[1:]]).problems
    assert any("is not the one its manifest was made of" in problem for problem in problems)


def test_what_is_no_csv_is_said(simple: Pipeline):
    found = damaged(simple, lambda lines: [*lines[:3], b"1,2\n", *lines[4:]])
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
    local: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    local.add(3)
    local.archive()

    def broken(reading: Any, blocks: Iterator[bytes], _: object) -> Iterator[bytes]:
        yield next(blocks)
        raise UnreachableError("away")

    monkeypatch.setattr(csv_reader.Reading, "_hashed", broken)
    started = time.monotonic()
    with pytest.raises(UnreachableError):
        verify_day(local.dataset, DAY, table=None, lake=local.lake)
    assert (_held(), time.monotonic() - started < csv_reader._LET_GO_SECONDS) == ([], True)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"id,event_id,event\xfftype,created_at,processed_at,payload\n", "it is not a CSV file: "),
        (b"id,event_id,created_at,created_at,processed_at,payload\n", "its header names a column twice"),
        (b"id,event_id,event_type,created_at,payload,payload\n", "its header names a column twice"),
    ],
)
def test_a_damaged_header_is_said(local: Pipeline, header: bytes, words: str):
    found = damaged(local, lambda lines: [header, *lines[1:]])
    assert any(words in problem for problem in found.problems)
    assert any("its SHA-256 is" in problem for problem in found.problems)
    assert found.bytes == len(local.content())


def test_without_the_tables_shape_the_rest_is_verified(local: Pipeline):
    def verify_without() -> VerifiedDay:
        return verify_day(local.dataset, DAY, table=None, lake=local.lake)

    assert (verify_without().rows, verify_without().problems) == (10, ())
    damaged(local, lambda lines: lines[:-1])
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


def test_a_record_too_large_to_be_parsed_is_a_remark(local: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verify, "_FIRST_BLOCK_BYTES", 60)
    monkeypatch.setattr(verify, "_LARGEST_BLOCK_BYTES", 60)
    assert verified(local).problems == ()
    assert verified(local).rows is None
    assert verified(local).remarks == ("a record is larger than 60 bytes: its rows were not checked",)
    problems = damaged(local, lambda lines: lines[:-1]).problems
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


def test_a_file_of_another_tool_is_said(simple: Pipeline):
    simple.put(simple.content())
    assert verified(simple).problems == ("it has no manifest: another tool wrote or copied it",)


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


def test_a_contradicting_file_is_adopted_as_it_stands(simple: Pipeline):
    damaged(simple, lambda lines: lines[:-1])
    content = simple.content()
    with pytest.raises(IntegrityError, match="event-archive adopt 2024-03-01'"):
        simple.archive()
    manifest = adopt_day(simple.site, DAY)
    assert manifest.rows == 9
    assert simple.content() == content
    assert verified(simple).problems == ()
    simple.add(2, prefix="late")
    assert simple.run().deleted == 2
    assert len(simple.records_of_file()) == 11


def test_what_was_adopted_is_not_purged_by_before_it_was_archived_again(simple: Pipeline):
    simple.add(1, prefix="late")
    simple.archive()
    damaged(simple, lambda lines: [*lines, lines[-1]] if False else lines)
    adopt_day(simple.site, DAY)
    with pytest.raises(IntegrityError, match="Archive the day again"):
        simple.purge()
    assert simple.run().deleted == 1


def test_an_adopted_file_names_the_former_keys_and_the_present_one(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.archive()
    content = pipeline.content()
    pipeline.put(content)
    assert adopt_day(pipeline.site, DAY).keys == (("id",),)
    pipeline.database.execute('ALTER TABLE "Event" DROP CONSTRAINT "Event_event_id_key", DROP CONSTRAINT "Event_pkey"')
    pipeline.database.execute('ALTER TABLE "Event" ADD PRIMARY KEY (id, created_at)')
    manifest = adopt_day(pipeline.site, DAY)
    assert manifest.keys == (("id",), ("id", "created_at"))
    pipeline.put(content, metadata=replace(manifest, keys=()).to_metadata())
    assert adopt_day(pipeline.site, DAY).keys == ()


def test_an_adopted_file_keeps_the_recorded_types_where_its_bytes_are_those_that_were_recorded(simple: Pipeline):
    simple.archive()
    file = simple.lake.stat(simple.dataset.path(DAY))
    before = file and Manifest.from_file(file)
    assert before
    assert before.types
    assert adopt_day(simple.site, DAY) == before
    simple.put(simple.content().replace(b",t,", b",u,"), metadata=before.to_metadata())
    assert adopt_day(simple.site, DAY).types == ""


def test_an_adopted_file_names_no_key_that_it_does_not_hold(pipeline: Pipeline):
    pipeline.add(2)
    manifest = pipeline.archive().manifest
    assert manifest is not None
    pipeline.database.execute('ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey"')
    pipeline.put(b"event_id,created_at\na,2024-03-01\n", metadata=manifest.to_metadata())
    assert adopt_day(pipeline.site, DAY).keys == (("event_id",),)


def test_a_file_that_is_written_while_it_is_adopted_stays_as_it_was_written(
    local: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    newer = local.content() + local.content().splitlines(keepends=True)[-1]
    original, times = type(local.lake).read, itertools.count(1)

    @contextmanager
    def read(lake: Lake, file: StoredFile) -> Iterator[Iterator[bytes]]:
        with original(lake, file) as blocks:
            # The first time it is read into PostgreSQL.
            if file.path.endswith(".csv") and next(times) == 2:
                local.put(newer)
            yield blocks

    monkeypatch.setattr(type(local.lake), "read", read)
    with pytest.raises(FileChangedError):
        adopt_day(local.site, DAY)
    monkeypatch.undo()
    assert local.content() == newer


def test_a_file_without_the_key_is_not_adopted(simple: Pipeline):
    simple.put(b"event_id,created_at\na,2024-03-01 00:00:00\n")
    with pytest.raises(IntegrityError, match="its header lacks the key: id. It cannot be adopted"):
        adopt_day(simple.site, DAY)


def test_there_must_be_a_file_to_adopt(pipeline: Pipeline):
    with pytest.raises(RefusedError, match="no file to adopt"):
        adopt_day(pipeline.site, DAY)


def test_what_is_no_csv_is_not_adopted(pipeline: Pipeline):
    pipeline.put(b'id,"x\n1,2\n')
    with pytest.raises(IntegrityError, match="not the header.*It cannot be adopted") as refused:
        adopt_day(pipeline.site, DAY)
    assert "event-archive adopt" not in str(refused.value)


def test_another_tools_file_without_the_key_is_not_told_to_be_adopted(pipeline: Pipeline):
    pipeline.put(b"event_id,created_at\na,2024-03-01\n")
    with pytest.raises(IntegrityError, match="lacks the key: id.*move it elsewhere") as refused:
        pipeline.archive()
    assert "event-archive adopt" not in str(refused.value)


def test_a_file_of_a_newer_program_is_not_adopted(pipeline: Pipeline):
    pipeline.add(2)
    metadata = {"event_archive_version": "2", "event_archive_rows": "2", "event_archive_bytes": "1"}
    pipeline.archive()
    file = pipeline.lake.stat(pipeline.dataset.path(DAY))
    assert file is not None
    pipeline.put(pipeline.content(), metadata=dict(file.metadata) | metadata)
    with pytest.raises(IntegrityError, match=r"version 2.*update this one"):
        adopt_day(pipeline.site, DAY)


def test_a_manifest_that_was_altered_is_told_apart_from_rows_that_are_missing(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    file = pipeline.lake.stat(pipeline.dataset.path(DAY))
    assert file is not None
    pipeline.put(pipeline.content(), metadata=dict(file.metadata) | {"event_archive_rows": "4"})
    (problem,) = verified(pipeline).problems
    assert problem == "its manifest says 4 rows; its bytes are those that were archived, and hold 3"


@pytest.mark.parametrize("content", [b"", b"id,id\n1,1\n", b"id\n1,2\n", b"\x00\n"])
def test_nobody_is_sent_to_adopt_what_cannot_be_adopted(pipeline: Pipeline, content: bytes):
    pipeline.add(1)
    pipeline.put(content)
    with pytest.raises(IntegrityError) as refused:
        pipeline.archive()
    assert "adopt" not in str(refused.value)
    assert str(refused.value).endswith("Put the right file back, or move this one elsewhere.")


def test_a_file_that_reads_otherwise_the_second_time_is_not_written_over(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """A proxy or a memory may have changed what came."""
    pipeline.add(3)
    pipeline.run()
    good, original, times = pipeline.content(), type(pipeline.lake).read, 0

    @contextmanager
    def read(lake: Lake, file: StoredFile) -> Iterator[Iterator[bytes]]:
        nonlocal times
        times += file.path.endswith(".csv")
        with original(lake, file) as blocks:
            yield (block.replace(b"evt", b"ewt") for block in blocks) if times == 2 else blocks

    with monkeypatch.context() as patched:
        patched.setattr(type(pipeline.lake), "read", read)
        with pytest.raises(IntegrityError, match="it changed between two readings"):
            adopt_day(pipeline.site, DAY)
    assert pipeline.content() == good
    assert adopt_day(pipeline.site, DAY).rows == 3

"""What every lake promises, held against each of them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from event_archive.errors import FileChangedError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive_tests.fixtures.lakes import PATH, SMALL_BLOCK_BYTES, append, put, read, stat


def test_where_nothing_was_written_there_is_no_file_and_an_empty_list(lake: Lake):
    assert lake.stat(PATH) is None
    assert list(lake.list("events")) == []
    assert list(lake.list("")) == []


def test_a_new_file_is_read_back_with_its_metadata(lake: Lake):
    before = datetime.now(UTC) - timedelta(seconds=2)
    written = put(lake, b"a,b\n1,2\n", rows="1", source_table='public.%22Event%22 "x"')
    assert stat(lake) == written
    assert read(lake, written) == b"a,b\n1,2\n"
    assert written.path == PATH
    assert written.size_bytes == 8
    assert written.metadata == {"rows": "1", "source_table": 'public.%22Event%22 "x"'}
    assert before < written.modified < datetime.now(UTC) + timedelta(seconds=2)
    assert lake.appendable(written)


def test_what_is_settled_is_not_seen_before_the_commit(lake: Lake):
    with lake.write(PATH, replaces=None) as upload:
        upload.write(b"x" * (SMALL_BLOCK_BYTES + 1))
        upload.settle()
        upload.settle()
        assert lake.stat(PATH) is None
        upload.write(b"y")
        file = upload.commit({})
    assert read(lake, file) == b"x" * (SMALL_BLOCK_BYTES + 1) + b"y"


def test_a_new_file_never_takes_the_place_of_one_that_was_there(lake: Lake):
    first = put(lake, b"first")
    with pytest.raises(FileChangedError, match=PATH):
        put(lake, b"second")
    assert stat(lake) == first
    assert read(lake, first) == b"first"


def test_a_new_file_loses_to_one_that_appeared_while_it_was_staged(lake: Lake):
    with lake.write(PATH, replaces=None) as upload:
        upload.write(b"x" * (2 * SMALL_BLOCK_BYTES))
        faster = put(lake, b"faster")
        with pytest.raises(FileChangedError):
            upload.commit({})
    assert stat(lake) == faster


def test_a_replacement_takes_the_place_of_content_and_metadata(lake: Lake):
    old = put(lake, b"old", rows="1", only_old="x")
    new = put(lake, b"newer", replaces=old, rows="2")
    assert new.etag != old.etag
    assert stat(lake) == new
    assert new.metadata == {"rows": "2"}
    assert read(lake, new) == b"newer"


def test_a_replacement_of_equal_content_is_another_version(lake: Lake):
    etags = set()
    file = None
    for _ in range(5):
        file = put(lake, b"same", replaces=file)
        etags.add(file.etag)
    assert len(etags) == 5


def test_a_replacement_of_an_older_version_loses(lake: Lake):
    old = put(lake, b"old")
    new = put(lake, b"new", replaces=old)
    with pytest.raises(FileChangedError):
        put(lake, b"late", replaces=old)
    assert stat(lake) == new


def test_an_append_keeps_the_old_bytes_and_replaces_the_metadata(lake: Lake):
    old = put(lake, b"1\n" * SMALL_BLOCK_BYTES, rows="1", only_old="x")
    new = append(lake, old, b"2\n", rows="2")
    assert stat(lake) == new
    assert new.etag != old.etag
    assert new.metadata == {"rows": "2"}
    assert new.size_bytes == old.size_bytes + 2
    assert read(lake, new) == b"1\n" * SMALL_BLOCK_BYTES + b"2\n"
    assert read(lake, append(lake, new, b"3\n")) == b"1\n" * SMALL_BLOCK_BYTES + b"2\n3\n"


def test_an_append_of_nothing_changes_the_metadata_alone(lake: Lake):
    old = put(lake, b"content", rows="1")
    new = append(lake, old, b"", rows="2")
    assert stat(lake) == new
    assert (new.metadata, read(lake, new)) == ({"rows": "2"}, b"content")


def test_an_append_loses_to_a_competing_append(lake: Lake):
    old = put(lake, b"1\n")
    with lake.write(PATH, replaces=old, append=True) as upload:
        upload.write(b"slow\n")
        faster = append(lake, old, b"fast\n")
        with pytest.raises(FileChangedError):
            upload.commit({})
    assert stat(lake) == faster
    assert read(lake, faster) == b"1\nfast\n"


def test_an_append_to_an_older_version_loses(lake: Lake):
    old = put(lake, b"1\n")
    append(lake, old, b"2\n")

    def append_late() -> None:
        with lake.write(PATH, replaces=old, append=True) as upload:
            upload.write(b"x")
            upload.commit({})

    with pytest.raises(FileChangedError):
        append_late()
    assert read(lake, stat(lake)) == b"1\n2\n"


def test_an_append_needs_a_file(lake: Lake):
    with pytest.raises(FileChangedError), lake.write(PATH, replaces=None, append=True):
        pass


@pytest.mark.parametrize("append_to_it", [False, True], ids=["replacing", "appending"])
def test_leaving_without_a_commit_leaves_everything_as_it_was(lake: Lake, append_to_it: bool):
    old = put(lake, b"old", rows="1")
    with lake.write(PATH, replaces=old, append=append_to_it) as upload:
        upload.write(b"y" * (3 * SMALL_BLOCK_BYTES))
    with suppress(ZeroDivisionError), lake.write(PATH, replaces=old, append=append_to_it) as upload:
        upload.write(b"z" * (3 * SMALL_BLOCK_BYTES))
        raise ZeroDivisionError
    assert stat(lake) == old
    assert [file.path for file in lake.list("events")] == [PATH]
    assert read(lake, old) == b"old"


def test_a_last_look_that_raises_lets_no_file_appear(lake: Lake):
    looked: list[bool] = []
    with lake.write(PATH, replaces=None) as upload:
        upload.write(b"new")
        with pytest.raises(ZeroDivisionError):
            upload.commit({}, lambda: 1 / 0)
        assert lake.stat(PATH) is None
        file = upload.commit({}, lambda: looked.append(lake.stat(PATH) is None))
    assert looked == [True]
    assert read(lake, file) == b"new"


def test_a_new_file_that_is_never_committed_leaves_nothing(lake: Lake):
    with lake.write(PATH, replaces=None) as upload:
        upload.write(b"y" * (3 * SMALL_BLOCK_BYTES))
    assert lake.stat(PATH) is None
    assert list(lake.list("events")) == []


def test_many_small_writes_span_several_blocks_in_order(lake: Lake):
    rows = [b"%07d,some event\n" % n for n in range(30_000)]
    with lake.write(PATH, replaces=None) as upload:
        for row in rows:
            upload.write(memoryview(row))
        file = upload.commit({})
    assert file.size_bytes == sum(map(len, rows)) > 8 * SMALL_BLOCK_BYTES
    assert read(lake, file) == b"".join(rows)


def test_one_large_write_spans_several_blocks(lake: Lake):
    content = b"".join(b"%09d" % n for n in range(5 * SMALL_BLOCK_BYTES // 9))
    assert read(lake, put(lake, content)) == content


def test_an_empty_file_is_a_file(lake: Lake):
    empty = put(lake, b"", rows="0")
    assert stat(lake) == empty
    assert empty.size_bytes == 0
    assert read(lake, empty) == b""
    assert read(lake, append(lake, empty, b"row\n")) == b"row\n"


def test_of_writers_that_race_exactly_one_wins(lake: Lake):
    start = threading.Barrier(4)

    def race(n: int) -> StoredFile | None:
        with lake.write(PATH, replaces=None) as upload:
            upload.write(b"%d" % n * SMALL_BLOCK_BYTES * 2)
            start.wait()
            try:
                return upload.commit({"n": str(n)})
            except FileChangedError:
                return None

    with ThreadPoolExecutor(4) as pool:
        won = [file for file in pool.map(race, range(4)) if file]
    assert won == [stat(lake)]
    assert read(lake, won[0]) == won[0].metadata["n"].encode() * SMALL_BLOCK_BYTES * 2


def test_an_upload_is_committed_once(lake: Lake):
    with lake.write(PATH, replaces=None) as upload:
        upload.write(b"x")
        file = upload.commit({})
        with pytest.raises(ValueError, match="already committed"):
            upload.commit({})
    assert stat(lake) == file


def test_an_error_of_the_caller_is_not_taken_for_one_of_the_lake(lake: Lake):
    file = put(lake, b"x")
    with pytest.raises(FileNotFoundError), lake.read(file):
        raise FileNotFoundError("the caller's")
    with pytest.raises(FileNotFoundError), lake.write(PATH, replaces=file):
        raise FileNotFoundError("the caller's")

"""What every lake promises its readers and lists, held against each of them."""

import threading
from contextlib import suppress

import pytest

from event_archive.errors import FileChangedError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive_tests.fixtures.lakes import PATH, SMALL_BLOCK_BYTES, append, put, read, stat


def test_a_listed_file_can_be_appended_to(lake: Lake):
    put(lake, b"1\n")
    listed = next(lake.list("events"))
    assert lake.appendable(listed)
    assert read(lake, append(lake, listed, b"2\n")) == b"1\n2\n"


@pytest.mark.parametrize("content", [b"old content", b""], ids=["some", "empty"])
def test_a_reader_of_an_older_version_is_told(lake: Lake, content: bytes):
    old = put(lake, content)
    put(lake, b"new", replaces=old)
    with pytest.raises(FileChangedError, match=PATH):
        read(lake, old)


@pytest.mark.parametrize("size_bytes", [1, 5, SMALL_BLOCK_BYTES + 1, 10 * SMALL_BLOCK_BYTES])
def test_the_head_of_a_file_is_its_first_bytes(lake: Lake, size_bytes: int):
    content = bytes(n % 251 for n in range(3 * SMALL_BLOCK_BYTES))
    assert lake.head(put(lake, content), size_bytes) == content[:size_bytes]


def test_the_head_of_an_empty_file_is_empty(lake: Lake):
    assert lake.head(put(lake, b""), 5) == b""


@pytest.mark.parametrize("content", [b"old content", b""], ids=["some", "empty"])
def test_the_head_of_an_older_version_is_refused(lake: Lake, content: bytes):
    old = put(lake, content)
    put(lake, b"new", replaces=old)
    with pytest.raises(FileChangedError, match=PATH):
        lake.head(old, 5)


def test_a_reader_of_a_file_that_never_was_is_told(lake: Lake):
    file = put(lake, b"x")
    gone = StoredFile("events/other.csv", 1, file.etag, {}, file.modified)
    with pytest.raises(FileChangedError):
        read(lake, gone)


def test_readers_see_the_old_file_until_the_commit(lake: Lake):
    old = put(lake, b"old")
    with lake.write(PATH, replaces=old, append=True) as upload:
        upload.write(b"y" * (3 * SMALL_BLOCK_BYTES))
        assert stat(lake) == old
        assert read(lake, old) == b"old"


def test_a_list_is_in_order_of_paths_and_does_not_descend(lake: Lake):
    files = [put(lake, b"x", path=path, n=path[-1]) for path in ("b/2", "b/1", "b/10", "b/sub/3", "a/1", "c", "b-/1")]
    listed = list(lake.list("b"))
    assert [file.path for file in listed] == ["b/1", "b/10", "b/2"]
    assert [file.path for file in lake.list("")] == ["c"]
    assert [file.path for file in lake.list("b/sub")] == ["b/sub/3"]
    by_path = {file.path: file for file in files}
    for file in listed:
        written = by_path[file.path]
        assert (file.size_bytes, file.etag, file.metadata) == (1, written.etag, written.metadata)
        assert read(lake, file) == b"x"


@pytest.mark.parametrize(
    "name", ["with space.csv", "Ärger & Größe.csv", "日本 %20 +#?.csv", "UPPER.csv", "q'uote\".csv"]
)
def test_paths_of_any_spelling_are_taken_literally(lake: Lake, name: str):
    path = f"my folder/{name}"
    file = put(lake, b"content", path=path)
    assert stat(lake, path) == file
    assert [found.path for found in lake.list("my folder")] == [path]
    assert read(lake, append(lake, file, b"+")) == b"content+"
    assert " " not in lake.url(path)
    assert lake.url(path).isascii()


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "../a", "a/./b", ".hidden", "a\\b", "a\nb"])
def test_a_path_that_could_mean_another_file_is_refused(lake: Lake, path: str):
    with pytest.raises(ValueError, match="must be a path"):
        lake.stat(path)


@pytest.mark.parametrize(
    "metadata", [{"Upper": "x"}, {"with-hyphen": "x"}, {"n": "Größe"}, {"n": " x"}, {"n": "a\nb"}, {"n": "x" * 9000}]
)
def test_metadata_that_a_lake_would_change_are_refused(lake: Lake, metadata: dict[str, str]):
    with lake.write(PATH, replaces=None) as upload, pytest.raises(ValueError, match="metadata"):
        upload.commit(metadata)
    assert lake.stat(PATH) is None


def test_metadata_of_nearly_eight_kilobytes_are_kept(lake: Lake):
    put(lake, b"x", a="x" * 4000, b="y" * 4000)
    assert stat(lake).metadata == {"a": "x" * 4000, "b": "y" * 4000}


def test_a_reader_that_stops_early_leaves_nothing_running(lake: Lake):
    file = put(lake, b"x" * (20 * SMALL_BLOCK_BYTES))
    with lake.read(file) as blocks:
        assert next(blocks).startswith(b"x")
    with suppress(ZeroDivisionError), lake.read(file) as blocks:
        next(blocks)
        raise ZeroDivisionError
    with lake.read(file):
        pass
    with lake.write(PATH, replaces=file) as upload:
        upload.write(b"y" * (5 * SMALL_BLOCK_BYTES))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("event-archive")] == []
    assert read(lake, file) == b"x" * (20 * SMALL_BLOCK_BYTES)

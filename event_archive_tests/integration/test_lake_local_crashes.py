"""A crash between a file and its metadata, or an edit of either: what was there stays, and is told by its bytes."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest

from event_archive.errors import FileChangedError
from event_archive.lake.local import upload
from event_archive.lake.local.folder import LocalLake
from event_archive.lake.local.sidecar import read_sidecar
from event_archive.lake.protocol import StoredFile
from event_archive_tests.fixtures.folders import PATH, PowerFailureError, power_failure, put, stat
from event_archive_tests.fixtures.lakes import read


def test_a_crash_before_the_rename_leaves_the_old_version_with_its_metadata(
    folder_lake: LocalLake, day_file: Path, monkeypatch: pytest.MonkeyPatch
):
    old = put(folder_lake, b"old", version="old")
    _crash_before_the_rename(folder_lake, monkeypatch, b"new", old, version="new")
    assert len(json.loads((day_file.parent / ".day.csv.json").read_bytes())["versions"]) == 2
    assert stat(folder_lake) == old
    assert read(folder_lake, old) == b"old"
    assert put(folder_lake, b"newer", old, version="newer") == stat(folder_lake)


@pytest.mark.parametrize("foreign", [False, True])
def test_a_crash_before_the_rename_of_a_file_that_was_copied_here_leaves_it_its_metadata(
    folder_lake: LocalLake, day_file: Path, monkeypatch: pytest.MonkeyPatch, foreign: bool
):
    put(folder_lake, b"old", version="old")
    if foreign:
        day_file.with_name(f".{day_file.name}.json").unlink()
    _replace_by_a_copy(day_file, b"old")
    copied = stat(folder_lake)
    assert copied.metadata == ({} if foreign else {"version": "old"})
    _crash_before_the_rename(folder_lake, monkeypatch, b"new", copied, version="new")
    assert stat(folder_lake) == copied


def test_a_crash_after_the_rename_leaves_the_new_version_with_its_metadata(
    folder_lake: LocalLake, monkeypatch: pytest.MonkeyPatch
):
    old = put(folder_lake, b"old", version="old")
    with monkeypatch.context() as patched, suppress(PowerFailureError):
        patched.setattr(upload, "sync_folder", power_failure)
        put(folder_lake, b"new", old, version="new")
    new = stat(folder_lake)
    assert (read(folder_lake, new), new.metadata) == (b"new", {"version": "new"})


def test_a_crash_before_a_new_file_appears_leaves_no_file(folder_lake: LocalLake, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched, suppress(PowerFailureError):
        patched.setattr(os, "link", power_failure)
        put(folder_lake, b"new", version="lost")
    assert folder_lake.stat(PATH) is None
    assert list(folder_lake.list("events")) == []
    assert put(folder_lake, b"again", version="again") == stat(folder_lake)


def test_a_file_edited_in_place_keeps_the_metadata_that_it_contradicts(folder_lake: LocalLake, day_file: Path):
    before = put(folder_lake, b"a,b\n1,2\n", rows="1")
    day_file.write_bytes(b"a,b\n1,2\n3,4\n")
    after = stat(folder_lake)
    assert after.etag != before.etag
    assert after.size_bytes == 12
    assert after.metadata == {"rows": "1"}
    with pytest.raises(FileChangedError):
        read(folder_lake, before)
    with pytest.raises(FileChangedError):
        put(folder_lake, b"x", before)


def test_a_file_replaced_by_a_copy_keeps_the_metadata_last_written(folder_lake: LocalLake, day_file: Path):
    first = put(folder_lake, b"first", rows="1")
    put(folder_lake, b"second", first, rows="2")
    _replace_by_a_copy(day_file, b"restored")
    assert stat(folder_lake).metadata == {"rows": "2"}
    assert read(folder_lake, stat(folder_lake)) == b"restored"


@pytest.mark.parametrize("how", ["copied", "by a link"])
def test_a_former_version_that_is_put_back_contradicts_its_metadata(
    folder_lake: LocalLake, day_file: Path, tmp_path: Path, how: str
):
    """As from a backup of the files alone, also one that is made of hard links: there it is the very same file."""
    first, backup = put(folder_lake, b"first", rows="1"), tmp_path / "backup"
    os.link(day_file, backup)
    put(folder_lake, b"first and second", first, rows="2")
    if how == "copied":
        _replace_by_a_copy(day_file, b"first")
    else:
        backup.replace(day_file)
    assert (stat(folder_lake).etag == first.etag) == (how != "copied")
    assert stat(folder_lake).metadata == {"rows": "2"}


def test_of_a_folder_that_was_copied_after_a_crash_the_file_keeps_its_metadata(
    folder_lake: LocalLake, day_file: Path, monkeypatch: pytest.MonkeyPatch
):
    first = put(folder_lake, b"first", rows="1")
    _crash_before_the_rename(folder_lake, monkeypatch, b"first and second", first, rows="2")
    _replace_by_a_copy(day_file, b"first")
    assert stat(folder_lake).metadata == {"rows": "1"}


def test_a_former_version_that_is_put_back_after_a_crash_contradicts_its_metadata(
    folder_lake: LocalLake, day_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By then the new version was read, as before each purge."""
    first, backup = put(folder_lake, b"first", rows="1"), tmp_path / "backup"
    os.link(day_file, backup)
    with monkeypatch.context() as patched, suppress(PowerFailureError):
        patched.setattr(upload, "sync_folder", power_failure)
        put(folder_lake, b"first and second", first, rows="2")
    assert len(read_sidecar(day_file)) == 2
    assert read(folder_lake, stat(folder_lake)) == b"first and second"
    backup.replace(day_file)
    assert (stat(folder_lake).etag, stat(folder_lake).metadata) == (first.etag, {"rows": "2"})


def _crash_before_the_rename(
    folder_lake: LocalLake, monkeypatch: pytest.MonkeyPatch, content: bytes, replaces: StoredFile, **metadata: str
) -> None:
    with monkeypatch.context() as patched, suppress(PowerFailureError):
        patched.setattr(Path, "replace", _replace_only_sidecars)
        put(folder_lake, content, replaces, **metadata)


def _replace_by_a_copy(day_file: Path, content: bytes) -> None:
    copy = day_file.with_name("copy")
    copy.write_bytes(content)
    copy.replace(day_file)


_replace = Path.replace


def _replace_only_sidecars(source: Path, destination: Path) -> Path:
    if destination.suffix != ".json":
        raise PowerFailureError
    return _replace(source, destination)

"""What is written, read or copied has reached the disk, or is told not to have."""

import errno
import io
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest

from event_archive.errors import FileChangedError, IntegrityError, UnreachableError
from event_archive.lake.local import upload
from event_archive.lake.local.folder import LocalLake
from event_archive.lake.local.versions import READ_BYTES, blocks_of
from event_archive_tests.fixtures.folders import PATH, PowerFailureError, power_failure, put, stat
from event_archive_tests.fixtures.lakes import read


@pytest.fixture
def synced_paths(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What has been brought to the disk, in order."""
    synced_paths: list[Path] = []
    fsync = os.fsync

    def observed(descriptor: int) -> None:
        synced_paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", observed)
    return synced_paths


def test_every_folder_that_is_made_outlives_a_power_failure(tmp_path: Path, synced_paths: list[Path]):
    with LocalLake(tmp_path / "new" / "lake").write("a/b/day.csv", replaces=None):
        folders = {tmp_path, *(tmp_path / made for made in ("new", "new/lake", "new/lake/a"))}
        assert set(synced_paths) == folders
        assert len(synced_paths) == len(folders)
    synced_paths.clear()
    with LocalLake(tmp_path / "new" / "lake").write("a/b/other.csv", replaces=None):
        assert synced_paths == []


@pytest.mark.parametrize("new", [True, False], ids=["new", "replacement"])
def test_what_is_seen_has_reached_the_disk(
    folder_lake: LocalLake, day_file: Path, monkeypatch: pytest.MonkeyPatch, new: bool
):
    """First the content, then what describes it, then the name: a power failure leaves a whole version or the other."""
    old = None if new else put(folder_lake, b"old")
    done: list[tuple[str, str, int]] = []
    fsync, link, rename = os.fsync, os.link, Path.replace

    def note(what: str, path: Path) -> None:
        done.append((what, re.sub(r"\.[0-9a-f]{16}\.", ".N.", path.name), path.stat().st_size if path.is_file() else 0))

    def noted_fsync(descriptor: int) -> None:
        note("fsync", Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def noted_link(source: Path, destination: Path) -> None:
        link(source, destination)
        note("appears", destination)

    def noted_replace(source: Path, destination: Path) -> Path:
        moved = rename(source, destination)
        note("appears", destination)
        return moved

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    monkeypatch.setattr(Path, "replace", noted_replace)
    with folder_lake.write(PATH, replaces=old) as content:
        content.write(b"four")
        done.clear()
        content.commit({"rows": "1"})
    sizes = [size for *what, size in done if what == ["appears", ".day.csv.json"]]
    described = [
        [("fsync", ".day.csv.json.tmp", size), ("appears", ".day.csv.json", size), ("fsync", "events", 0)]
        for size in sizes
    ]
    assert done == [
        ("fsync", ".day.csv.N.tmp", 4),
        *described[0],
        ("appears", "day.csv", 4),
        ("fsync", "events", 0),
        # The version before goes from the sidecar once it has gone.
        *(described[1] if old else []),
    ]
    assert len(sizes) == (1 if new else 2)


def test_what_is_read_has_reached_the_disk(
    folder_lake: LocalLake, day_file: Path, monkeypatch: pytest.MonkeyPatch, synced_paths: list[Path]
):
    """Its writer may have been killed before it saw to that, and a purge deletes what was read."""
    with monkeypatch.context() as patched, suppress(PowerFailureError):
        patched.setattr(upload, "sync_folder", power_failure)
        put(folder_lake, b"new")
    synced_paths.clear()
    with folder_lake.read(stat(folder_lake)):
        assert synced_paths == [day_file, day_file.parent, day_file.parent.parent, day_file.parent.parent.parent]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EINVAL, errno.EACCES])
def test_where_nobody_can_write_files_are_read_all_the_same(
    folder_lake: LocalLake, monkeypatch: pytest.MonkeyPatch, number: int
):
    put(folder_lake, b"old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    assert read(folder_lake, stat(folder_lake)) == b"old"


def test_a_disk_that_does_not_keep_what_is_read_is_told(folder_lake: LocalLake, monkeypatch: pytest.MonkeyPatch):
    put(folder_lake, b"old")

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UnreachableError, match=os.strerror(errno.EIO)):
        read(folder_lake, stat(folder_lake))


def test_a_reading_that_ends_early_never_looks_complete(folder_lake: LocalLake, day_file: Path):
    class EndsEarly(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size) if not self.tell() else b""

    file = put(folder_lake, b"x" * (READ_BYTES + 1))
    with EndsEarly(day_file) as content, pytest.raises(FileChangedError):
        list(blocks_of(content, file))


def test_an_append_to_a_copy_that_is_not_whole_is_refused(folder_lake: LocalLake, monkeypatch: pytest.MonkeyPatch):
    """Some file systems say at once that there is nothing to copy."""
    old = put(folder_lake, b"old")
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    with pytest.raises(FileChangedError), folder_lake.write(PATH, replaces=old, append=True):
        pass
    assert read(folder_lake, stat(folder_lake)) == b"old"


def test_a_copy_without_the_file_systems_help_is_the_same(folder_lake: LocalLake, monkeypatch: pytest.MonkeyPatch):
    def unsupported(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", unsupported)
    old = put(folder_lake, b"old," * 2_000_000)
    with folder_lake.write(PATH, replaces=old, append=True) as upload:
        upload.write(b"new")
        file = upload.commit({})
    assert read(folder_lake, file) == b"old," * 2_000_000 + b"new"


def test_a_copy_that_the_file_system_gives_up_half_way_is_whole(
    folder_lake: LocalLake, monkeypatch: pytest.MonkeyPatch
):
    copy_file_range = os.copy_file_range
    copied: list[int] = []

    def gives_up(old: int, new: int, _: int) -> int:
        if copied:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        copied.append(copy_file_range(old, new, 3))
        return copied[0]

    monkeypatch.setattr(os, "copy_file_range", gives_up)
    old = put(folder_lake, b"1234567")
    with folder_lake.write(PATH, replaces=old, append=True) as upload:
        upload.write(b"8")
        file = upload.commit({})
    assert copied == [3]
    assert read(folder_lake, file) == b"12345678"


def test_a_copy_that_the_file_system_gets_wrong_replaces_no_file(
    folder_lake: LocalLake, monkeypatch: pytest.MonkeyPatch
):
    """OpenZFS 2.2.0 copied zeros: https://github.com/openzfs/zfs/issues/15526."""
    old = put(folder_lake, b"x" * 10_000)
    copy_file_range = os.copy_file_range

    def zeros(old: int, new: int, size_bytes: int) -> int:
        copied = copy_file_range(old, new, size_bytes)
        os.pwrite(new, bytes(min(copied, 4096)), 0)
        return copied

    monkeypatch.setattr(os, "copy_file_range", zeros)
    with pytest.raises(IntegrityError, match="holds other bytes"), folder_lake.write(PATH, replaces=old, append=True):
        pass
    assert read(folder_lake, stat(folder_lake)) == b"x" * 10_000

"""What only a folder can do to a lake: crashes between two files, hands that edit, permissions."""

import errno
import fcntl
import io
import json
import os
import re
import resource
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from event_archive.errors import FileChangedError, IntegrityError, RefusedError, UnreachableError
from event_archive.lake.local import upload, versions
from event_archive.lake.local.folder import LocalLake
from event_archive.lake.local.sidecar import read_sidecar
from event_archive.lake.local.versions import READ_BYTES, blocks_of
from event_archive.lake.protocol import StoredFile

PATH = "events/day.csv"


class PowerFailureError(BaseException):
    """Ends a commit where nothing could be tidied up."""


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "events" / "day.csv"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What has been brought to the disk, in order."""
    synced: list[Path] = []
    fsync = os.fsync

    def observed(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", observed)
    return synced


def put(lake: LocalLake, content: bytes, replaces: StoredFile | None = None, **metadata: str) -> StoredFile:
    with lake.write(PATH, replaces=replaces) as upload:
        upload.write(content)
        return upload.commit(metadata)


def stat(lake: LocalLake) -> StoredFile:
    file = lake.stat(PATH)
    assert file is not None
    return file


def read(lake: LocalLake, file: StoredFile) -> bytes:
    with lake.read(file) as blocks:
        return b"".join(blocks)


def staged(target: Path) -> list[Path]:
    return [path for path in target.parent.iterdir() if path.suffix == ".tmp"]


def test_a_crash_before_the_rename_leaves_the_old_version_with_its_metadata(
    lake: LocalLake, target: Path, monkeypatch: pytest.MonkeyPatch
):
    old = put(lake, b"old", version="old")
    _crash_before_the_rename(lake, monkeypatch, b"new", old, version="new")
    assert len(json.loads((target.parent / ".day.csv.json").read_bytes())["versions"]) == 2
    assert stat(lake) == old
    assert read(lake, old) == b"old"
    assert put(lake, b"newer", old, version="newer") == stat(lake)


@pytest.mark.parametrize("foreign", [False, True])
def test_a_crash_before_the_rename_of_a_file_that_was_copied_here_leaves_it_its_metadata(
    lake: LocalLake, target: Path, monkeypatch: pytest.MonkeyPatch, foreign: bool
):
    put(lake, b"old", version="old")
    if foreign:
        target.with_name(f".{target.name}.json").unlink()
    _replace_by_a_copy(target, b"old")
    copied = stat(lake)
    assert copied.metadata == ({} if foreign else {"version": "old"})
    _crash_before_the_rename(lake, monkeypatch, b"new", copied, version="new")
    assert stat(lake) == copied


def test_a_crash_after_the_rename_leaves_the_new_version_with_its_metadata(
    lake: LocalLake, monkeypatch: pytest.MonkeyPatch
):
    old = put(lake, b"old", version="old")
    with monkeypatch.context() as patched, suppress(PowerFailureError):
        patched.setattr(upload, "sync_folder", _power_failure)
        put(lake, b"new", old, version="new")
    new = stat(lake)
    assert (read(lake, new), new.metadata) == (b"new", {"version": "new"})


def test_a_crash_before_a_new_file_appears_leaves_no_file(lake: LocalLake, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched, suppress(PowerFailureError):
        patched.setattr(os, "link", _power_failure)
        put(lake, b"new", version="lost")
    assert lake.stat(PATH) is None
    assert list(lake.list("events")) == []
    assert put(lake, b"again", version="again") == stat(lake)


def test_a_file_edited_in_place_keeps_the_metadata_that_it_contradicts(lake: LocalLake, target: Path):
    before = put(lake, b"a,b\n1,2\n", rows="1")
    target.write_bytes(b"a,b\n1,2\n3,4\n")
    after = stat(lake)
    assert after.etag != before.etag
    assert after.size_bytes == 12
    assert after.metadata == {"rows": "1"}
    with pytest.raises(FileChangedError):
        read(lake, before)
    with pytest.raises(FileChangedError):
        put(lake, b"x", before)


def test_a_file_replaced_by_a_copy_keeps_the_metadata_last_written(lake: LocalLake, target: Path):
    first = put(lake, b"first", rows="1")
    put(lake, b"second", first, rows="2")
    _replace_by_a_copy(target, b"restored")
    assert stat(lake).metadata == {"rows": "2"}
    assert read(lake, stat(lake)) == b"restored"


@pytest.mark.parametrize("how", ["copied", "by a link"])
def test_a_former_version_that_is_put_back_contradicts_its_metadata(
    lake: LocalLake, target: Path, tmp_path: Path, how: str
):
    """As from a backup of the files alone, also one that is made of hard links: there it is the very same file."""
    first, backup = put(lake, b"first", rows="1"), tmp_path / "backup"
    os.link(target, backup)
    put(lake, b"first and second", first, rows="2")
    if how == "copied":
        _replace_by_a_copy(target, b"first")
    else:
        backup.replace(target)
    assert (stat(lake).etag == first.etag) == (how != "copied")
    assert stat(lake).metadata == {"rows": "2"}


def test_of_a_folder_that_was_copied_after_a_crash_the_file_keeps_its_metadata(
    lake: LocalLake, target: Path, monkeypatch: pytest.MonkeyPatch
):
    first = put(lake, b"first", rows="1")
    _crash_before_the_rename(lake, monkeypatch, b"first and second", first, rows="2")
    _replace_by_a_copy(target, b"first")
    assert stat(lake).metadata == {"rows": "1"}


def test_a_former_version_that_is_put_back_after_a_crash_contradicts_its_metadata(
    lake: LocalLake, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By then the new version was read, as before each purge."""
    first, backup = put(lake, b"first", rows="1"), tmp_path / "backup"
    os.link(target, backup)
    with monkeypatch.context() as patched, suppress(PowerFailureError):
        patched.setattr(upload, "sync_folder", _power_failure)
        put(lake, b"first and second", first, rows="2")
    assert len(read_sidecar(target)) == 2
    assert read(lake, stat(lake)) == b"first and second"
    backup.replace(target)
    assert (stat(lake).etag, stat(lake).metadata) == (first.etag, {"rows": "2"})


@pytest.mark.parametrize("size_bytes", [9_000_000, 10_000_000], ids=["shorter", "of the same size"])
def test_an_edit_while_it_is_read_is_noticed(lake: LocalLake, target: Path, size_bytes: int):
    file = put(lake, b"x" * 10_000_000)
    with lake.read(file) as blocks:
        next(blocks)
        os.truncate(target, size_bytes)
        with pytest.raises(FileChangedError):
            list(blocks)


def test_a_foreign_file_has_no_metadata_and_is_not_appendable_but_replaceable(lake: LocalLake, target: Path):
    target.parent.mkdir()
    target.write_bytes(b"old tool")
    file = stat(lake)
    assert (file.metadata, lake.appendable(file)) == ({}, False)
    with pytest.raises(FileChangedError), lake.write(PATH, replaces=file, append=True):
        pass
    assert read(lake, file) == b"old tool"
    assert lake.appendable(put(lake, b"ours", file, rows="1"))


def test_a_foreign_file_that_appears_at_the_last_moment_is_spared(
    lake: LocalLake, target: Path, monkeypatch: pytest.MonkeyPatch
):
    target.parent.mkdir()
    link = os.link

    def link_too_late(source: Path, destination: Path) -> None:
        target.write_bytes(b"foreign")
        link(source, destination)

    monkeypatch.setattr(os, "link", link_too_late)
    with pytest.raises(FileChangedError):
        put(lake, b"ours", rows="1")
    assert target.read_bytes() == b"foreign"
    assert (stat(lake).metadata, lake.appendable(stat(lake))) == ({}, False)
    assert {path.name for path in target.parent.iterdir()} == {"day.csv", ".lock"}


def test_what_a_killed_writer_left_is_never_listed_and_removed_by_the_next_writer(lake: LocalLake, target: Path):
    code = (
        "import os, sys, pathlib; from event_archive.lake.local.folder import LocalLake\n"
        f"with LocalLake(pathlib.Path(sys.argv[1])).write({PATH!r}, replaces=None) as upload:\n"
        "    upload.write(b'x' * 5_000_000); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(target.parent.parent)], check=False)
    assert killed.returncode == -9
    assert len(staged(target)) == 1
    assert list(lake.list("events")) == []
    assert lake.stat(PATH) is None
    file = put(lake, b"next")
    assert staged(target) == []
    assert [found.etag for found in lake.list("events")] == [file.etag]


def test_what_a_living_writer_stages_is_left_alone(lake: LocalLake, target: Path):
    with lake.write(PATH, replaces=None) as slow:
        slow.write(b"slow")
        with lake.write(PATH, replaces=None):
            assert len(staged(target)) == 2
        file = slow.commit({})
    assert read(lake, file) == b"slow"
    assert staged(target) == []


@pytest.mark.parametrize("name", ["day.csv.json", "day.csv.0123456789abcdef.tmp"])
def test_a_file_named_like_anothers_leftovers_is_its_own(lake: LocalLake, name: str):
    with lake.write(f"events/{name}", replaces=None) as upload:
        upload.write(b"{}")
        upload.commit({"n": "1"})
    put(lake, b"x", n="2")
    assert [(file.path, file.metadata) for file in lake.list("events")] == [
        ("events/day.csv", {"n": "2"}),
        (f"events/{name}", {"n": "1"}),
    ]


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"versions": [{}]}', b'{"versions": 1}', b"\xff"])
def test_a_damaged_sidecar_is_refused_and_not_ignored(lake: LocalLake, target: Path, damage: bytes):
    put(lake, b"x", rows="1")
    (target.parent / ".day.csv.json").write_bytes(damage)
    with pytest.raises(RefusedError, match=r"\.day\.csv\.json"):
        lake.stat(PATH)


def test_a_folder_where_the_file_should_be_is_refused(lake: LocalLake, target: Path):
    target.mkdir(parents=True)
    with pytest.raises(RefusedError, match="not a regular file"):
        lake.stat(PATH)
    assert list(lake.list("events")) == []


def test_a_root_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "root").write_bytes(b"")
    lake = LocalLake(tmp_path / "root")
    with pytest.raises(RefusedError, match=PATH):
        put(lake, b"x")
    with pytest.raises(RefusedError, match=PATH):
        lake.stat(PATH)


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, RefusedError), (errno.ESTALE, UnreachableError)])
def test_what_the_file_system_says_is_passed_on(
    lake: LocalLake, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
):
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind, match=os.strerror(number)):
        put(lake, b"x")
    assert lake.stat(PATH) is None


def test_a_full_disk_is_told_once(lake: LocalLake, target: Path):
    """What is left in the buffer would fail again when the file is closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with lake.write(PATH, replaces=None) as upload:
            upload.write(b"x")
            with pytest.raises(RefusedError, match=os.strerror(errno.EFBIG)):
                upload.write(b"x" * 2_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert staged(target) == []


def test_a_file_system_that_is_away_is_told_by_its_folder(
    lake: LocalLake, target: Path, monkeypatch: pytest.MonkeyPatch
):
    def stale(path: Path, **_: object) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stale)
        with pytest.raises(UnreachableError, match=f"^{target.parent}: ") as raised:
            lake.stat(PATH)
    assert target.name not in str(raised.value)


def test_every_folder_that_is_made_outlives_a_power_failure(tmp_path: Path, synced: list[Path]):
    with LocalLake(tmp_path / "new" / "lake").write("a/b/day.csv", replaces=None):
        folders = {tmp_path, *(tmp_path / made for made in ("new", "new/lake", "new/lake/a"))}
        assert set(synced) == folders
        assert len(synced) == len(folders)
    synced.clear()
    with LocalLake(tmp_path / "new" / "lake").write("a/b/other.csv", replaces=None):
        assert synced == []


@pytest.mark.parametrize("new", [True, False], ids=["new", "replacement"])
def test_what_is_seen_has_reached_the_disk(lake: LocalLake, target: Path, monkeypatch: pytest.MonkeyPatch, new: bool):
    """First the content, then what describes it, then the name: a power failure leaves a whole version or the other."""
    old = None if new else put(lake, b"old")
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
    with lake.write(PATH, replaces=old) as content:
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
    lake: LocalLake, target: Path, monkeypatch: pytest.MonkeyPatch, synced: list[Path]
):
    """Its writer may have been killed before it saw to that, and a purge deletes what was read."""
    with monkeypatch.context() as patched, suppress(PowerFailureError):
        patched.setattr(upload, "sync_folder", _power_failure)
        put(lake, b"new")
    synced.clear()
    with lake.read(stat(lake)):
        assert synced == [target, target.parent, target.parent.parent, target.parent.parent.parent]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EINVAL, errno.EACCES])
def test_where_nobody_can_write_files_are_read_all_the_same(
    lake: LocalLake, monkeypatch: pytest.MonkeyPatch, number: int
):
    put(lake, b"old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    assert read(lake, stat(lake)) == b"old"


def test_a_disk_that_does_not_keep_what_is_read_is_told(lake: LocalLake, monkeypatch: pytest.MonkeyPatch):
    put(lake, b"old")

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UnreachableError, match=os.strerror(errno.EIO)):
        read(lake, stat(lake))


def test_the_last_look_comes_when_the_folder_is_to_be_had(lake: LocalLake, target: Path):
    """Whoever has it may stand still for hours, and the session with PostgreSQL be lost meanwhile."""
    looked = threading.Event()
    with lake.write(PATH, replaces=None) as writing, (target.parent / ".lock").open("ab") as lock:
        writing.write(b"new")
        fcntl.flock(lock, fcntl.LOCK_EX)
        committing = threading.Thread(target=writing.commit, args=({}, looked.set))
        committing.start()
        assert not looked.wait(0.5)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert looked.wait(30)
        committing.join()


@pytest.mark.parametrize("step", ["_remove_dead", "read_sidecar"], ids=["staging", "committing"])
def test_a_writer_has_the_folder_to_itself(lake: LocalLake, target: Path, monkeypatch: pytest.MonkeyPatch, step: str):
    """Else another one could remove what is staged and not yet locked, or commit after the look at what stands."""
    old = put(lake, b"old")
    original, looks = getattr(upload, step), []

    def look(path: Path) -> object:
        with (path.parent / ".lock").open("ab") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        looks.append(path)
        return original(path)

    monkeypatch.setattr(upload, step, look)
    put(lake, b"new", old)
    assert looks == [target]


def test_two_versions_in_one_tick_of_the_kernels_clock_are_told_apart(
    lake: LocalLake, target: Path, monkeypatch: pytest.MonkeyPatch
):
    times = iter([1_700_000_000_000_000_001] * 2 + [1_700_000_000_000_000_002] * 2)
    monkeypatch.setattr("event_archive.lake.local.upload.time.time_ns", lambda: next(times))
    first = put(lake, b"1")
    assert target.stat().st_mtime_ns == 1_700_000_000_000_000_001
    put(lake, b"2", first)
    assert target.stat().st_mtime_ns == 1_700_000_000_000_000_002


@pytest.mark.parametrize("how", ["a copy in its place", "cut short in place", "edited in place"])
def test_a_file_that_was_changed_is_another_version_whatever_its_time_says(lake: LocalLake, target: Path, how: str):
    file, status = put(lake, b"content"), target.stat()
    if how == "a copy in its place":
        copy = target.with_name("copy")
        copy.write_bytes(b"CONTENT")
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
        copy.replace(target)
    elif how == "cut short in place":
        os.truncate(target, 3)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        target.write_bytes(b"CONTENT")
    assert stat(lake).etag != file.etag


def test_a_stat_between_two_commits_is_of_one_version(lake: LocalLake, monkeypatch: pytest.MonkeyPatch):
    first = put(lake, b"1", version="1")
    original = read_sidecar

    def read_too_late(path: Path) -> dict[str, dict[str, str]]:
        monkeypatch.undo()
        put(lake, b"33", put(lake, b"22", first, version="2"), version="3")
        return original(path)

    monkeypatch.setattr(versions, "read_sidecar", read_too_late)
    found = stat(lake)
    assert (found.metadata, found.size_bytes) == ({"version": "3"}, 2)


def test_a_reading_that_ends_early_never_looks_complete(lake: LocalLake, target: Path):
    class EndsEarly(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size) if not self.tell() else b""

    file = put(lake, b"x" * (READ_BYTES + 1))
    with EndsEarly(target) as content, pytest.raises(FileChangedError):
        list(blocks_of(content, file))


def test_an_append_to_a_copy_that_is_not_whole_is_refused(lake: LocalLake, monkeypatch: pytest.MonkeyPatch):
    """Some file systems say at once that there is nothing to copy."""
    old = put(lake, b"old")
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    with pytest.raises(FileChangedError), lake.write(PATH, replaces=old, append=True):
        pass
    assert read(lake, stat(lake)) == b"old"


def test_a_copy_without_the_file_systems_help_is_the_same(lake: LocalLake, monkeypatch: pytest.MonkeyPatch):
    def unsupported(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", unsupported)
    old = put(lake, b"old," * 2_000_000)
    with lake.write(PATH, replaces=old, append=True) as upload:
        upload.write(b"new")
        file = upload.commit({})
    assert read(lake, file) == b"old," * 2_000_000 + b"new"


def test_a_copy_that_the_file_system_gives_up_half_way_is_whole(lake: LocalLake, monkeypatch: pytest.MonkeyPatch):
    copy_file_range = os.copy_file_range
    copied: list[int] = []

    def gives_up(old: int, new: int, _: int) -> int:
        if copied:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        copied.append(copy_file_range(old, new, 3))
        return copied[0]

    monkeypatch.setattr(os, "copy_file_range", gives_up)
    old = put(lake, b"1234567")
    with lake.write(PATH, replaces=old, append=True) as upload:
        upload.write(b"8")
        file = upload.commit({})
    assert copied == [3]
    assert read(lake, file) == b"12345678"


def test_a_copy_that_the_file_system_gets_wrong_replaces_no_file(lake: LocalLake, monkeypatch: pytest.MonkeyPatch):
    """OpenZFS 2.2.0 copied zeros: https://github.com/openzfs/zfs/issues/15526."""
    old = put(lake, b"x" * 10_000)
    copy_file_range = os.copy_file_range

    def zeros(old: int, new: int, size_bytes: int) -> int:
        copied = copy_file_range(old, new, size_bytes)
        os.pwrite(new, bytes(min(copied, 4096)), 0)
        return copied

    monkeypatch.setattr(os, "copy_file_range", zeros)
    with pytest.raises(IntegrityError, match="holds other bytes"), lake.write(PATH, replaces=old, append=True):
        pass
    assert read(lake, stat(lake)) == b"x" * 10_000


def test_the_url_is_a_file_address(lake: LocalLake, target: Path):
    assert lake.url(PATH) == target.as_uri()


def _crash_before_the_rename(
    lake: LocalLake, monkeypatch: pytest.MonkeyPatch, content: bytes, replaces: StoredFile, **metadata: str
) -> None:
    with monkeypatch.context() as patched, suppress(PowerFailureError):
        patched.setattr(Path, "replace", _replace_only_sidecars)
        put(lake, content, replaces, **metadata)


def _replace_by_a_copy(target: Path, content: bytes) -> None:
    copy = target.with_name("copy")
    copy.write_bytes(content)
    copy.replace(target)


def _power_failure(*_: object) -> None:
    raise PowerFailureError


_replace = Path.replace


def _replace_only_sidecars(source: Path, destination: Path) -> Path:
    if destination.suffix != ".json":
        raise PowerFailureError
    return _replace(source, destination)


@pytest.mark.parametrize("damage", ["{", '{"versions": [{"etag": "x", "metadata": {"rows": 3}}]}', "[" * 100_000, None])
def test_a_file_whose_sidecar_is_damaged_hides_no_other(lake: LocalLake, target: Path, damage: str | None):
    put(lake, b"good", rows="1")
    target.with_name("other.csv").write_bytes(b"damaged")
    sidecar = target.with_name(".other.csv.json")
    sidecar.mkdir() if damage is None else sidecar.write_text(damage)
    assert [(file.path, file.metadata) for file in lake.list("events")] == [
        (PATH, {"rows": "1"}),
        ("events/other.csv", {}),
    ]
    with pytest.raises(RefusedError, match="does not hold the metadata of other.csv any more"):
        lake.stat("events/other.csv")


def test_a_file_whose_sidecar_may_not_be_read_hides_no_other(
    lake: LocalLake, target: Path, monkeypatch: pytest.MonkeyPatch
):
    put(lake, b"good", rows="1")
    target.with_name("other.csv").write_bytes(b"x")
    read_bytes = Path.read_bytes

    def denied(path: Path) -> bytes:
        if "other" in path.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    found = [(file.path, file.metadata) for file in lake.list("events")]
    assert found == [(PATH, {"rows": "1"}), ("events/other.csv", {})]
    with pytest.raises(RefusedError, match=os.strerror(errno.EACCES)):
        lake.stat("events/other.csv")


def test_a_link_to_nothing_is_told_as_one(lake: LocalLake, target: Path):
    """Else a writer finds no file, and its place taken, for ever."""
    target.parent.mkdir()
    target.symlink_to("nowhere")
    with pytest.raises(RefusedError, match="is a link to nothing"):
        lake.stat(PATH)


@pytest.mark.parametrize(("to", "words"), [(PATH.rpartition("/")[2], "leads back to itself"), ("gone", "to nothing")])
def test_a_link_that_leads_nowhere_hides_no_other_file(lake: LocalLake, target: Path, to: str, words: str):
    target.parent.mkdir()
    target.with_name("other.csv").write_bytes(b"good")
    target.symlink_to(to)
    assert [(file.path, file.size_bytes) for file in lake.list("events")] == [(PATH, 0), ("events/other.csv", 4)]
    with pytest.raises(RefusedError, match=f"is a link.*{words}. Move it away"):
        lake.stat(PATH)

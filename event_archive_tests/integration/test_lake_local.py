"""What only a folder can do to a lake: hands that edit while it is read, leftovers, permissions, links."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from event_archive.errors import FileChangedError, RefusedError, UnreachableError
from event_archive.lake.local import upload, versions
from event_archive.lake.local.folder import LocalLake
from event_archive.lake.local.sidecar import read_sidecar
from event_archive_tests.fixtures.folders import PATH, put, stat
from event_archive_tests.fixtures.lakes import read


def staged(day_file: Path) -> list[Path]:
    return [path for path in day_file.parent.iterdir() if path.suffix == ".tmp"]


@pytest.mark.parametrize("size_bytes", [9_000_000, 10_000_000], ids=["shorter", "of the same size"])
def test_an_edit_while_it_is_read_is_noticed(folder_lake: LocalLake, day_file: Path, size_bytes: int):
    file = put(folder_lake, b"x" * 10_000_000)
    with folder_lake.read(file) as blocks:
        next(blocks)
        os.truncate(day_file, size_bytes)
        with pytest.raises(FileChangedError):
            list(blocks)


def test_a_foreign_file_has_no_metadata_and_is_not_appendable_but_replaceable(folder_lake: LocalLake, day_file: Path):
    day_file.parent.mkdir()
    day_file.write_bytes(b"old tool")
    file = stat(folder_lake)
    assert (file.metadata, folder_lake.appendable(file)) == ({}, False)
    with pytest.raises(FileChangedError), folder_lake.write(PATH, replaces=file, append=True):
        pass
    assert read(folder_lake, file) == b"old tool"
    assert folder_lake.appendable(put(folder_lake, b"ours", file, rows="1"))


def test_a_foreign_file_that_appears_at_the_last_moment_is_spared(
    folder_lake: LocalLake, day_file: Path, monkeypatch: pytest.MonkeyPatch
):
    day_file.parent.mkdir()
    link = os.link

    def link_too_late(source: Path, destination: Path) -> None:
        day_file.write_bytes(b"foreign")
        link(source, destination)

    monkeypatch.setattr(os, "link", link_too_late)
    with pytest.raises(FileChangedError):
        put(folder_lake, b"ours", rows="1")
    assert day_file.read_bytes() == b"foreign"
    assert (stat(folder_lake).metadata, folder_lake.appendable(stat(folder_lake))) == ({}, False)
    assert {path.name for path in day_file.parent.iterdir()} == {"day.csv", ".lock"}


def test_what_a_killed_writer_left_is_never_listed_and_removed_by_the_next_writer(
    folder_lake: LocalLake, day_file: Path
):
    code = (
        "import os, sys, pathlib; from event_archive.lake.local.folder import LocalLake\n"
        f"with LocalLake(pathlib.Path(sys.argv[1])).write({PATH!r}, replaces=None) as upload:\n"
        "    upload.write(b'x' * 5_000_000); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(day_file.parent.parent)], check=False)
    assert killed.returncode == -9
    assert len(staged(day_file)) == 1
    assert list(folder_lake.list("events")) == []
    assert folder_lake.stat(PATH) is None
    file = put(folder_lake, b"next")
    assert staged(day_file) == []
    assert [found.etag for found in folder_lake.list("events")] == [file.etag]


def test_what_a_living_writer_stages_is_left_alone(folder_lake: LocalLake, day_file: Path):
    with folder_lake.write(PATH, replaces=None) as slow:
        slow.write(b"slow")
        with folder_lake.write(PATH, replaces=None):
            assert len(staged(day_file)) == 2
        file = slow.commit({})
    assert read(folder_lake, file) == b"slow"
    assert staged(day_file) == []


@pytest.mark.parametrize("name", ["day.csv.json", "day.csv.0123456789abcdef.tmp"])
def test_a_file_named_like_anothers_leftovers_is_its_own(folder_lake: LocalLake, name: str):
    with folder_lake.write(f"events/{name}", replaces=None) as upload:
        upload.write(b"{}")
        upload.commit({"n": "1"})
    put(folder_lake, b"x", n="2")
    assert [(file.path, file.metadata) for file in folder_lake.list("events")] == [
        ("events/day.csv", {"n": "2"}),
        (f"events/{name}", {"n": "1"}),
    ]


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"versions": [{}]}', b'{"versions": 1}', b"\xff"])
def test_a_damaged_sidecar_is_refused_and_not_ignored(folder_lake: LocalLake, day_file: Path, damage: bytes):
    put(folder_lake, b"x", rows="1")
    (day_file.parent / ".day.csv.json").write_bytes(damage)
    with pytest.raises(RefusedError, match=r"\.day\.csv\.json"):
        folder_lake.stat(PATH)


def test_a_folder_where_the_file_should_be_is_refused(folder_lake: LocalLake, day_file: Path):
    day_file.mkdir(parents=True)
    with pytest.raises(RefusedError, match="not a regular file"):
        folder_lake.stat(PATH)
    assert list(folder_lake.list("events")) == []


def test_a_root_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "root").write_bytes(b"")
    folder_lake = LocalLake(tmp_path / "root")
    with pytest.raises(RefusedError, match=PATH):
        put(folder_lake, b"x")
    with pytest.raises(RefusedError, match=PATH):
        folder_lake.stat(PATH)


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, RefusedError), (errno.ESTALE, UnreachableError)])
def test_what_the_file_system_says_is_passed_on(
    folder_lake: LocalLake, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
):
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind, match=os.strerror(number)):
        put(folder_lake, b"x")
    assert folder_lake.stat(PATH) is None


def test_a_full_disk_is_told_once(folder_lake: LocalLake, day_file: Path):
    """What is left in the buffer would fail again when the file is closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with folder_lake.write(PATH, replaces=None) as upload:
            upload.write(b"x")
            with pytest.raises(RefusedError, match=os.strerror(errno.EFBIG)):
                upload.write(b"x" * 2_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert staged(day_file) == []


def test_a_file_system_that_is_away_is_told_by_its_folder(
    folder_lake: LocalLake, day_file: Path, monkeypatch: pytest.MonkeyPatch
):
    def stale(path: Path, **_: object) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stale)
        with pytest.raises(UnreachableError, match=f"^{day_file.parent}: ") as raised:
            folder_lake.stat(PATH)
    assert day_file.name not in str(raised.value)


def test_the_last_look_comes_when_the_folder_is_to_be_had(folder_lake: LocalLake, day_file: Path):
    """Whoever has it may stand still for hours, and the session with PostgreSQL be lost meanwhile."""
    looked = threading.Event()
    with folder_lake.write(PATH, replaces=None) as writing, (day_file.parent / ".lock").open("ab") as lock:
        writing.write(b"new")
        fcntl.flock(lock, fcntl.LOCK_EX)
        committing = threading.Thread(target=writing.commit, args=({}, looked.set))
        committing.start()
        assert not looked.wait(0.5)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert looked.wait(30)
        committing.join()


@pytest.mark.parametrize("step", ["_remove_dead", "read_sidecar"], ids=["staging", "committing"])
def test_a_writer_has_the_folder_to_itself(
    folder_lake: LocalLake, day_file: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    """Else another one could remove what is staged and not yet locked, or commit after the look at what stands."""
    old = put(folder_lake, b"old")
    original, looks = getattr(upload, step), []

    def look(path: Path) -> object:
        with (path.parent / ".lock").open("ab") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        looks.append(path)
        return original(path)

    monkeypatch.setattr(upload, step, look)
    put(folder_lake, b"new", old)
    assert looks == [day_file]


def test_two_versions_in_one_tick_of_the_kernels_clock_are_told_apart(
    folder_lake: LocalLake, day_file: Path, monkeypatch: pytest.MonkeyPatch
):
    times = iter([1_700_000_000_000_000_001] * 2 + [1_700_000_000_000_000_002] * 2)
    monkeypatch.setattr("event_archive.lake.local.upload.time.time_ns", lambda: next(times))
    first = put(folder_lake, b"1")
    assert day_file.stat().st_mtime_ns == 1_700_000_000_000_000_001
    put(folder_lake, b"2", first)
    assert day_file.stat().st_mtime_ns == 1_700_000_000_000_000_002


@pytest.mark.parametrize("how", ["a copy in its place", "cut short in place", "edited in place"])
def test_a_file_that_was_changed_is_another_version_whatever_its_time_says(
    folder_lake: LocalLake, day_file: Path, how: str
):
    file, status = put(folder_lake, b"content"), day_file.stat()
    if how == "a copy in its place":
        copy = day_file.with_name("copy")
        copy.write_bytes(b"CONTENT")
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
        copy.replace(day_file)
    elif how == "cut short in place":
        os.truncate(day_file, 3)
        os.utime(day_file, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        day_file.write_bytes(b"CONTENT")
    assert stat(folder_lake).etag != file.etag


def test_a_stat_between_two_commits_is_of_one_version(folder_lake: LocalLake, monkeypatch: pytest.MonkeyPatch):
    first = put(folder_lake, b"1", version="1")
    original = read_sidecar

    def read_too_late(path: Path) -> dict[str, dict[str, str]]:
        monkeypatch.undo()
        put(folder_lake, b"33", put(folder_lake, b"22", first, version="2"), version="3")
        return original(path)

    monkeypatch.setattr(versions, "read_sidecar", read_too_late)
    found = stat(folder_lake)
    assert (found.metadata, found.size_bytes) == ({"version": "3"}, 2)


def test_the_url_is_a_file_address(folder_lake: LocalLake, day_file: Path):
    assert folder_lake.url(PATH) == day_file.as_uri()


@pytest.mark.parametrize("damage", ["{", '{"versions": [{"etag": "x", "metadata": {"rows": 3}}]}', "[" * 100_000, None])
def test_a_file_whose_sidecar_is_damaged_hides_no_other(folder_lake: LocalLake, day_file: Path, damage: str | None):
    put(folder_lake, b"good", rows="1")
    day_file.with_name("other.csv").write_bytes(b"damaged")
    sidecar = day_file.with_name(".other.csv.json")
    sidecar.mkdir() if damage is None else sidecar.write_text(damage)
    assert [(file.path, file.metadata) for file in folder_lake.list("events")] == [
        (PATH, {"rows": "1"}),
        ("events/other.csv", {}),
    ]
    with pytest.raises(RefusedError, match="does not hold the metadata of other.csv any more"):
        folder_lake.stat("events/other.csv")


def test_a_file_whose_sidecar_may_not_be_read_hides_no_other(
    folder_lake: LocalLake, day_file: Path, monkeypatch: pytest.MonkeyPatch
):
    put(folder_lake, b"good", rows="1")
    day_file.with_name("other.csv").write_bytes(b"x")
    read_bytes = Path.read_bytes

    def denied(path: Path) -> bytes:
        if "other" in path.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    found = [(file.path, file.metadata) for file in folder_lake.list("events")]
    assert found == [(PATH, {"rows": "1"}), ("events/other.csv", {})]
    with pytest.raises(RefusedError, match=os.strerror(errno.EACCES)):
        folder_lake.stat("events/other.csv")


def test_a_link_to_nothing_is_told_as_one(folder_lake: LocalLake, day_file: Path):
    """Else a writer finds no file, and its place taken, for ever."""
    day_file.parent.mkdir()
    day_file.symlink_to("nowhere")
    with pytest.raises(RefusedError, match="is a link to nothing"):
        folder_lake.stat(PATH)


@pytest.mark.parametrize(("to", "words"), [(PATH.rpartition("/")[2], "leads back to itself"), ("gone", "to nothing")])
def test_a_link_that_leads_nowhere_hides_no_other_file(folder_lake: LocalLake, day_file: Path, to: str, words: str):
    day_file.parent.mkdir()
    day_file.with_name("other.csv").write_bytes(b"good")
    day_file.symlink_to(to)
    assert [(file.path, file.size_bytes) for file in folder_lake.list("events")] == [(PATH, 0), ("events/other.csv", 4)]
    with pytest.raises(RefusedError, match=f"is a link.*{words}. Move it away"):
        folder_lake.stat(PATH)

"""Whether the lake answers, and writes, reads and appends to a file as the pipeline does. Leaves nothing there."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from event_archive.config import services
from event_archive.doctor.findings import Finding, Patient
from event_archive.domain.dataset import Dataset
from event_archive.domain.wording import counted, size
from event_archive.errors import ConfigurationError, EventArchiveError, FileChangedError, IntegrityError
from event_archive.lake.local.folder import LocalLake
from event_archive.lake.local.sidecar import write_sidecar
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.claim import owner, unclaimed_elsewhere
from event_archive.operations.marker import files_of, read_claim
from event_archive.operations.site import Site
from event_archive.paths import is_folder

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

    from event_archive.lake.azure.container import AzureLake

LAKE = ("lake", "lake_owner", "lake_write", "lake_delete", "lake_store")

LEAST_FREE_BYTES = 1_000_000_000
"""Room for some large days."""

# A doctor's answer is waited for by a person; the pipeline itself waits for a minute.
_PATIENCE_SECONDS = 15.0
_FIRST, _SECOND = b"written by the doctor\n", b"appended by the doctor\n"
_METADATA = {"doctor": "probe"}


def lake(patient: Patient) -> Iterator[Finding]:
    """The lake, with a probe that is no day's file by its name."""
    settings = patient.settings
    dataset = settings.dataset
    probe = f"{dataset.folder}/event-archive-doctor-{secrets.token_hex(8)}.probe"
    with services.lake(settings) as opened:
        if isinstance(opened, LocalLake):
            yield from _folder(opened, dataset, probe, patient)
            return
        # Late, since Azure's client takes long to import.
        from event_archive.lake.azure.container import AzureLake

        if not isinstance(opened, AzureLake):
            raise TypeError(f"the doctor does not know a lake of type {type(opened).__name__}")
        yield from _azure(opened, dataset, probe, patient)


def _folder(opened: LocalLake, dataset: Dataset, probe: str, patient: Patient) -> Iterator[Finding]:
    root = patient.settings.archive_local_path or Path()
    yield _reached(opened, dataset, "" if is_folder(root) else "; the folder does not exist yet")
    yield _owner(opened, dataset, patient)
    yield from _probed(opened, probe, lambda: _remove_from_folder(root, probe))
    yield _free_space(root, dataset.folder)


def _azure(opened: "AzureLake", dataset: Dataset, probe: str, patient: Patient) -> Iterator[Finding]:
    # Late, since Azure's client takes long to import.
    from event_archive.doctor import azure

    container = opened.container
    dated = partial(_read_clock, patient)
    missing = azure.lacks_container(container, probe, patience_seconds=_PATIENCE_SECONDS, dated=dated)
    yield _reached(opened, dataset, "; the container does not exist yet" if missing else "")
    yield _owner(opened, dataset, patient)
    yield from _probed(opened, probe, lambda: azure.remove(container, probe))
    yield _account(container)


def _reached(opened: Lake, dataset: Dataset, remark: str) -> Finding:
    days = sum(dataset.day_of(file.path) is not None for file in opened.list(dataset.folder))
    return Finding("lake", "good", f"{opened.url(dataset.folder)}: {counted(days, 'file', 'files')} of days{remark}")


def _owner(opened: Lake, dataset: Dataset, patient: Patient) -> Finding:
    """Whose the files are: this table's, or another's, which no run would touch."""
    site = Site(dataset, services.primary(patient.settings), opened)
    try:
        before = read_claim(dataset, opened)
    except EventArchiveError as error:
        return Finding("lake_owner", "bad", str(error))
    try:
        found = owner(site)
        elsewhere = None if found else unclaimed_elsewhere(site)
    except (ConfigurationError, IntegrityError) as error:
        return Finding("lake_owner", "bad", str(error))
    except EventArchiveError:
        return Finding("lake_owner", "skipped", "not looked at: PostgreSQL does not tell")
    if elsewhere:
        return Finding("lake_owner", "warning", elsewhere)
    if found is None:
        return Finding("lake_owner", "good", f"{files_of(dataset)} belongs to nobody yet: the first run claims it")
    if before and found.timeline > before.timeline:
        return Finding(
            "lake_owner",
            "warning",
            f"{files_of(dataset)} was last used on timeline {before.timeline}; this server is on {found.timeline}, so "
            "it was promoted or restored from a backup: a run, also a dry one, makes it the owner, and one on the "
            "former timeline is refused from then on",
            "After a failover, that is right. If this server is a copy, give it a folder of its own: "
            f"{dataset.setting('ARCHIVE_FOLDER')}.",
        )
    return Finding("lake_owner", "good", f"{files_of(dataset)} belongs to this table")


def _probed(opened: Lake, probe: str, remove: Callable[[], None]) -> Iterator[Finding]:
    try:
        written = _write(opened, probe)
    finally:
        removed = _removed(opened, probe, remove)
    yield written
    yield removed


def _write(opened: Lake, probe: str) -> Finding:
    try:
        made = _commit(opened, probe, _FIRST, replaces=None)
        wrong = _read(opened, made) != _FIRST or _is_taken(opened, probe, replaces=None)
        stood = opened.stat(probe)
        if wrong or stood is None:
            return _unsound("a new file")
        longer = _commit(opened, probe, _SECOND, replaces=stood)
        if _read(opened, longer) != _FIRST + _SECOND or _is_taken(opened, probe, replaces=made):
            return _unsound("an append")
    except EventArchiveError as error:
        return Finding("lake_write", "bad", str(error))
    return Finding("lake_write", "good", "a probe was written, read back, appended to and read back")


def _commit(opened: Lake, probe: str, content: bytes, *, replaces: StoredFile | None) -> StoredFile:
    with opened.write(probe, replaces=replaces, append=replaces is not None) as upload:
        upload.write(content)
        return upload.commit(_METADATA)


def _read(opened: Lake, file: StoredFile) -> bytes:
    with opened.read(file) as blocks:
        return b"".join(blocks)


def _is_taken(opened: Lake, probe: str, *, replaces: StoredFile | None) -> bool:
    """Whether the lake takes content whose condition does not hold, as none may."""
    try:
        with opened.write(probe, replaces=replaces) as upload:
            upload.write(b"taken in spite of its condition\n")
            upload.commit(_METADATA)
    except FileChangedError:
        return False
    return True


def _unsound(what: str) -> Finding:
    return Finding(
        "lake_write",
        "bad",
        f"the lake does not give back what was written, or takes {what} though its condition (If-Match, If-None-Match) "
        "does not hold: two runs could overwrite each other",
        "Check what stands between here and the store: a proxy, a gateway, an emulator.",
    )


def _removed(opened: Lake, probe: str, remove: Callable[[], None]) -> Finding:
    try:
        if opened.stat(probe) is None:
            return Finding("lake_delete", "good", "no probe is left")
        remove()
    except (EventArchiveError, OSError) as error:
        return Finding(
            "lake_delete",
            "warning",
            f"the probe could not be deleted again: {error}",
            f"The pipeline works without it, since it never deletes a file. Delete {opened.url(probe)} by hand.",
        )
    return Finding("lake_delete", "good", "the probe is deleted again")


def _remove_from_folder(root: Path, probe: str) -> None:
    target = root / probe
    if is_folder(target.parent):
        target.unlink(missing_ok=True)
        write_sidecar(target, {})


def _free_space(root: Path, folder: str) -> Finding:
    if not is_folder(root):
        return Finding("lake_store", "skipped", "not looked at, because of lake_write")
    # Another disk may be mounted there.
    free = shutil.disk_usage(root / folder if is_folder(root / folder) else root).free
    if free < LEAST_FREE_BYTES:
        return Finding(
            "lake_store", "warning", f"a folder with {size(free)} free", "Make room, or mount a larger disk."
        )
    return Finding("lake_store", "good", f"a folder with {size(free)} free")


def _read_clock(patient: Patient, date: str, seconds: float) -> None:
    # The date has no fraction of a second: half a second is the mean of what was cut off.
    patient.read_clock("the Blob service", parsedate_to_datetime(date).timestamp() + 0.5, seconds)


def _account(container: "ContainerClient") -> Finding:
    from event_archive.doctor import azure

    try:
        kind = "with" if azure.is_hierarchical(container) else "without"
    except EventArchiveError:
        return Finding("lake_store", "good", "Blob Storage; whether with a hierarchical namespace may not be asked")
    return Finding("lake_store", "good", f"Blob Storage {kind} hierarchical namespace; either will do")

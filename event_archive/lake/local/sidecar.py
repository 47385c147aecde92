"""The hidden sidecars that hold the metadata of a folder's files. Not here: the files, when a sidecar is written.

A sidecar holds an entry for each version (ETag) that it describes, the newest last.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from event_archive.errors import RefusedError


def read_sidecar(target: Path) -> dict[str, dict[str, str]]:
    """Metadata by ETag, the newest last; empty where there is no sidecar.

    Raises:
        RefusedError: it cannot be parsed, so somebody else wrote it.
    """
    sidecar = _sidecar(target)
    try:
        document = json.loads(sidecar.read_bytes())
        versions = {entry["etag"]: dict(entry["metadata"]) for entry in document["versions"]}
        if not all(isinstance(text, str) for etag, of in versions.items() for text in (etag, *of, *of.values())):
            raise TypeError("something else than text")
        return versions
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, RecursionError, IsADirectoryError):
        raise RefusedError(
            f"{sidecar} does not hold the metadata of {target.name} any more: somebody else wrote it. Put it back, or "
            "delete it: the file then counts as another tool's, until it is adopted."
        ) from None


def write_sidecar(target: Path, versions: Mapping[str, Mapping[str, str]]) -> None:
    """Replaces the sidecar atomically; the folder's lock is held. Without versions there is none."""
    sidecar = _sidecar(target)
    if not versions:
        sidecar.unlink(missing_ok=True)
        return
    document = {"versions": [{"etag": etag, "metadata": dict(metadata)} for etag, metadata in versions.items()]}
    # A fixed name will do: only the lock's holder writes it, and overwrites what one that died has left.
    staged = sidecar.with_name(f"{sidecar.name}.tmp")
    with staged.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(sidecar)
    sync_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it that are missing, so that they outlive a power failure."""
    made = [level for level in (folder, *folder.parents) if not level.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for level in made:
        sync_folder(level.parent)


def sync_folder(folder: Path) -> None:
    """Makes what was made or renamed in a folder outlive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sidecar(target: Path) -> Path:
    return target.with_name(f".{target.name}.json")

"""A folder that nobody has claimed yet: whose files lie there, by their own manifests. Not here: claiming it."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from event_archive.domain.dataset import Dataset
from event_archive.domain.manifest import Manifest
from event_archive.domain.source import Source
from event_archive.errors import IntegrityError, OtherSourceError
from event_archive.lake.protocol import Lake
from event_archive.operations.marker import files_of, read_claim

_FORMER_PREFIX = "events"  # Of every table's files, before it followed the table's name.


def require_unclaimed(dataset: Dataset, lake: Lake, source: Source) -> None:
    """Checks that the files of a folder from before markers are this table's, and that none of them lie elsewhere.

    Raises:
        OtherSourceError: they are another's, or lie under the former prefix.
    """
    place, found = files_of(dataset), 0
    for other in sources_of_files(dataset, lake):
        found += 1
        if not source.is_same(other):
            raise OtherSourceError(
                f"{place} holds files of {other}; this is {source}. Nothing was written or deleted. Give this table a "
                "file prefix or a folder of its own. If it is the same table, which has moved, was upgraded or "
                f"renamed, accept it once: {dataset.adopt_source}."
            )
    before = replace(dataset, file_prefix=_FORMER_PREFIX)
    if not found and before != dataset:
        _require_none_of_before(before, lake, source, place)


def _require_none_of_before(before: Dataset, lake: Lake, source: Source, place: str) -> None:
    claimed = read_claim(before, lake)
    if claimed and not claimed.source.is_same(source):
        return
    setting = before.setting("EVENT_FILE_PREFIX")
    for path, other in _sources(before, lake):
        if other.is_same(source):
            raise OtherSourceError(
                f"{path} holds rows of {source.table}, and {place} is empty. Nothing was written or deleted. Set "
                f"{setting} to {_FORMER_PREFIX} to go on with those files; to begin anew here, accept it once: "
                f"{before.adopt_source}."
            )


def sources_of_files(dataset: Dataset, lake: Lake) -> set[Source]:
    """Whose rows the files hold that say it."""
    return {source for _, source in _sources(dataset, lake)}


def _sources(dataset: Dataset, lake: Lake) -> Iterator[tuple[str, Source]]:
    """The files of days that have a readable manifest, and whose they are."""
    for file in lake.list(dataset.folder):
        if dataset.day_of(file.path):
            # A file that contradicts its manifest is refused when its day comes.
            with suppress(IntegrityError):
                if manifest := Manifest.claimed_by(file):
                    yield file.path, manifest.source


def files_elsewhere(dataset: Dataset, lake: Lake, source: Source) -> str | None:
    """Says that files of a source lie in the folder under another prefix alone, and what to do; None where none do."""
    found = set[str]()
    for file in lake.list(dataset.folder):
        if dataset.day_of(file.path):
            return None
        with suppress(IntegrityError):
            manifest = Manifest.claimed_by(file)
            if manifest and manifest.day and source.is_same(manifest.source):
                name, end = file.path.removeprefix(f"{dataset.folder}/"), f"_{manifest.day}.csv"
                if name.endswith(end):
                    found.add(name.removesuffix(end))
    if not found:
        return None
    setting, prefixes = dataset.setting("EVENT_FILE_PREFIX"), ", ".join(sorted(found))
    return (
        f"{files_of(dataset)} is empty, and this table has files in that folder that are named {prefixes}. Their days "
        f"do not count as archived here. To go on with those files, set {setting} to {min(found)}."
    )

"""The marker beside the files, ``FOLDER/_PREFIX.source.json``, which says whose they are. Not here: who may claim."""

import logging
from contextlib import suppress

from event_archive.domain.dataset import Dataset
from event_archive.domain.source import Claim
from event_archive.errors import FileChangedError, IntegrityError, NewerFormError
from event_archive.lake.protocol import Lake, StoredFile

logger = logging.getLogger(__name__)

_MAX_BYTES = 1024 * 1024
_ATTEMPTS = 3
_REFUSED = " Nothing was written or deleted."


def marker_path(dataset: Dataset) -> str:
    """Where the marker lies, from the lake's root; hidden from globs of the files by the underscore."""
    return f"{dataset.folder}/_{dataset.file_prefix}.source.json"


def files_of(dataset: Dataset) -> str:
    """The files of a dataset, for messages."""
    return f"{dataset.folder}/{dataset.file_prefix}_*.csv"


def read_claim(dataset: Dataset, lake: Lake) -> Claim | None:
    """Whose the files are; None where nobody has claimed them.

    Raises:
        IntegrityError: the marker cannot be read.
        RefusedError, UnreachableError: as the lake says.
    """
    return _read_present(dataset, lake, outcome=_REFUSED)


def claim_to_read(dataset: Dataset, lake: Lake, *, replaced: bool = False) -> Claim | None:
    """As ``read_claim``, but what cannot be read is a warning; to be ``replaced``, a newer program's is an error."""
    try:
        return _read_present(dataset, lake, outcome="")
    except IntegrityError as error:
        if replaced and isinstance(error, NewerFormError):
            raise NewerFormError(f"{error}{_REFUSED}") from None
        logger.warning("%s", error)
        return None


def _read_present(dataset: Dataset, lake: Lake, *, outcome: str) -> Claim | None:
    for _ in range(_ATTEMPTS):
        # A run may write it between the two.
        with suppress(FileChangedError):
            return read_marker(dataset, lake, lake.stat(marker_path(dataset)), outcome=outcome)
    return read_marker(dataset, lake, lake.stat(marker_path(dataset)), outcome=outcome)


def read_marker(dataset: Dataset, lake: Lake, marker: StoredFile | None, *, outcome: str = _REFUSED) -> Claim | None:
    """As ``read_claim``, of a marker that was looked up; ``outcome`` ends the message where it cannot be read."""
    if marker is None:
        return None
    try:
        if marker.size_bytes > _MAX_BYTES:
            raise ValueError("too large")
        with lake.read(marker) as blocks:
            return Claim.from_json(b"".join(blocks))
    except NotImplementedError as error:
        raise NewerFormError(
            f"{marker.path}: it says whose files lie here, and {error}. A newer program wrote it: update this one."
            f"{outcome}"
        ) from None
    except ValueError as error:
        raise IntegrityError(
            f"{marker.path}: it says whose files lie here, and it cannot be read ({error}). Put the right one back; "
            f"or, where the files are this table's: {dataset.adopt_source}.{outcome}"
        ) from None


def write_marker(dataset: Dataset, lake: Lake, claimed: Claim, *, replaces: StoredFile | None) -> StoredFile:
    """Says whose the files are; returns the marker as it stands then.

    Args:
        dataset: whose files.
        lake: where they lie.
        claimed: what to say.
        replaces: the marker that was found; None where none was.

    Raises:
        FileChangedError: another one is there.
        RefusedError, UnreachableError: as the lake says.
    """
    with lake.write(marker_path(dataset), replaces=replaces) as upload:
        upload.write(claimed.to_json())
        return upload.commit({})

"""The error for a file that is not what its manifest says, or no CSV file of ours at all. Not here: finding out."""

from event_archive.errors import IntegrityError
from event_archive.lake.protocol import StoredFile


def no_csv_of_ours(file: StoredFile, found: str) -> IntegrityError:
    """The error for a file that cannot be read, and so not be adopted either."""
    return IntegrityError(
        f"{file.path}: {found}.",
        outcome="Nothing was written or deleted.",
        advice="Put the right file back, or move this one elsewhere.",
    )


def contradiction(file: StoredFile, found: str) -> IntegrityError:
    """The error for a file that can be read: with what was found and what to do."""
    return IntegrityError(
        f"{file.path}: {found}.",
        outcome="Nothing was written or deleted.",
        advice="Somebody changed the file: put the right one back, or accept it as it stands with "
        f"'event-archive adopt {file.path.removesuffix('.csv')[-10:]}' (and --dataset, where there are several).",
    )

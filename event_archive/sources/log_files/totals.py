"""What a run over log files did, in figures. Not here: what it says of them."""

from dataclasses import dataclass

from event_archive.sources.log_files.loading import Loaded
from event_archive.sources.runs import RunTotals


@dataclass(slots=True)
class Totals(RunTotals):
    """What a run did; it may have ended by its ``limit``, too.

    Attributes:
        files: files that were loaded.
        failed: files that could not be.
        bytes: of the entries that were loaded.
        contradictions: entries whose times contradict each other.
        removed: rows of former versions of those files that were deleted.
    """

    files: int = 0
    failed: int = 0
    bytes: int = 0
    contradictions: int = 0
    removed: int = 0

    def add(self, loaded: Loaded) -> None:
        """Adds a file that was loaded."""
        self.files += 1
        self.counts.add(loaded.counts)
        self.bytes += loaded.bytes
        self.contradictions += loaded.contradictions
        self.removed += loaded.removed

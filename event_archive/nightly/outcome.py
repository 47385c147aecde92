"""How a day of a run went, and the sums over a run's days. Not here: running them, showing them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from event_archive.errors import EventArchiveError

if TYPE_CHECKING:
    # event-archive days imports this through attempts, and must not load operations.
    from event_archive.operations.archive import ArchivedDay
    from event_archive.operations.purge import PurgedDay


@dataclass(slots=True)
class DayOutcome:
    """How one day went. Of a day that failed, the numbers say what was done before that.

    Attributes:
        day: the day.
        dataset: the name of the dataset; empty where it has none.
        seconds: the whole day.
        rows: rows in the day's file; ``rows_appended`` of them were written by this run.
        bytes: of the file.
        deleted: rows deleted; 0 in a dry run.
        proven: rows that were read back identical: what is deleted where the run is not dry.
        left: rows of the day that stay, in a dry run those that would; where it failed before any was deleted, all that
            were counted.
        outcome: ``purged``, ``kept``, ``dry run``, ``nothing to do``, ``held``, ``waiting``, ``locked`` or ``failed``.
        reason: why it is held, waits or rows are kept, or why its partition was not dropped.
        how: as in ``PurgedDay``.
        partitions: as in ``PurgedDay``.
        others: as in ``PurgedDay``; in a dry run, those whose rows would go.
        vacuum_seconds: as in ``PurgedDay``.
        cause: why it failed.
    """

    day: date
    dataset: str = ""
    seconds: float = 0.0
    rows: int = 0
    rows_appended: int = 0
    bytes: int = 0
    deleted: int = 0
    proven: int = 0
    left: int = 0
    outcome: str = "failed"
    reason: str = ""
    how: str | None = None
    partitions: tuple[str, ...] = ()
    others: Mapping[date, int] = field(default_factory=dict)
    vacuum_seconds: float | None = None
    cause: EventArchiveError | None = None

    @property
    def error(self) -> str | None:
        """What went wrong, for people; None where nothing did."""
        return None if self.cause is None else str(self.cause)

    def archived(self, archived: "ArchivedDay") -> None:
        """The day's file is up to date."""
        self.rows, self.rows_appended = archived.rows, archived.rows_appended
        self.bytes = archived.manifest.bytes if archived.manifest else 0

    def purged(self, purged: "PurgedDay") -> None:
        """The day's rows were deleted, or left for a reason."""
        self.deleted, self.proven, self.left = purged.deleted, purged.proven, purged.left
        self.outcome, self.reason = purged.outcome, purged.reason or ""
        self.how, self.partitions, self.vacuum_seconds = purged.how, purged.partitions, purged.vacuum_seconds
        self.others = purged.others
        if purged.outcome == "nothing to do" and self.rows_appended and not purged.left:
            # Another command has purged them meanwhile.
            self.outcome = "dry run" if purged.dry_run else "purged"

    @property
    def details(self) -> dict[str, object]:
        """How its rows were purged, as far as there is anything to tell: for lines of logs and of output."""
        return purge_details(self.how, self.partitions, self.vacuum_seconds)


def purge_details(how: str | None, partitions: Sequence[str], vacuum_seconds: float | None) -> dict[str, object]:
    """The names under which users find how rows were purged; without those of which there is nothing to tell."""
    told = {"purge": how, "partition": ", ".join(partitions), "vacuum_seconds": vacuum_seconds}
    return {name: value for name, value in told.items() if value not in ("", None)}


@dataclass(slots=True)
class Totals:
    """The sums over the days of one run.

    Attributes:
        outcomes: of each day, in the order in which they ended.
        day_in_hand: a day that has begun and not ended.
        appended_in_hand: rows that were written to its file, and stand there, when the run was told to stop.
        failure: why a dataset could not begin, or could not go on; None where it could.
    """

    days: int = 0
    failed: int = 0
    rows: int = 0
    rows_appended: int = 0
    bytes: int = 0
    deleted: int = 0
    outcomes: list[DayOutcome] = field(default_factory=list)
    day_in_hand: date | None = None
    appended_in_hand: int = 0
    failure: EventArchiveError | None = None

    @classmethod
    def of(cls, parts: "Iterable[Totals]") -> "Totals":
        """The sums over the days of several datasets."""
        total = cls()
        for part in parts:
            for outcome in part.outcomes:
                total.add(outcome)
            total.stop(part.appended_in_hand)
        return total

    def add(self, outcome: DayOutcome) -> None:
        """Counts one day, which has ended."""
        self.day_in_hand = None
        self.outcomes.append(outcome)
        self.days += 1
        self.failed += outcome.cause is not None
        self.rows += outcome.rows
        self.rows_appended += outcome.rows_appended
        self.bytes += outcome.bytes
        self.deleted += outcome.deleted

    def stop(self, rows_appended: int) -> None:
        """Counts what was written of a day that has not ended."""
        self.appended_in_hand += rows_appended
        self.rows_appended += rows_appended

    @property
    def left(self) -> int:
        """Rows of these days that stay; in a dry run, that would."""
        left: dict[tuple[str, date], int] = {}
        for of in self.outcomes:
            # Rows that waited for their partition have gone with it. A dry run finds those again that went before.
            for day, rows in of.others.items():
                if (of.dataset, day) in left:
                    left[of.dataset, day] = min(rows, left[of.dataset, day])
            left[of.dataset, of.day] = of.left
        return sum(left.values())

    @property
    def failures(self) -> list[DayOutcome]:
        """The days that failed."""
        return [outcome for outcome in self.outcomes if outcome.cause is not None]

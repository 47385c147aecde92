"""How a day of a run went, and the sums over a run's days. Not here: running them, showing them."""

from dataclasses import dataclass, field
from datetime import date


@dataclass(frozen=True, slots=True)
class DayOutcome:
    """How one day went.

    Attributes:
        day: the day.
        seconds: the whole run.
        rows: records in the day's file; ``rows_appended`` of them were written by this run.
        bytes: of the file.
        deleted: rows deleted; 0 in a dry run.
        proven: rows that were read back identical: what is deleted where the run is not dry.
        left: rows of the day that stay.
        outcome: ``purged``, ``dry run``, ``held``, ``locked`` or ``failed``.
        reason: why it is held.
        error: what went wrong, for people; None where nothing did.
        unreachable: a service did not answer, so the next day would fare no better.
    """

    day: date
    seconds: float
    rows: int = 0
    rows_appended: int = 0
    bytes: int = 0
    deleted: int = 0
    proven: int = 0
    left: int = 0
    outcome: str = "failed"
    reason: str = ""
    error: str | None = None
    unreachable: bool = False

    @property
    def line(self) -> dict[str, object]:
        """What a JSON line of the day holds, where the assets wrote none."""
        return {
            "day": self.day.isoformat(),
            "outcome": self.outcome,
            "rows": self.rows,
            "deleted": self.deleted,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class Totals:
    """The sums over the days of one run."""

    days: int = 0
    failed: int = 0
    rows: int = 0
    rows_appended: int = 0
    bytes: int = 0
    deleted: int = 0
    left: int = 0
    failures: list[DayOutcome] = field(default_factory=list)

    def add(self, run: DayOutcome) -> None:
        """Counts one day."""
        self.days += 1
        if run.error is not None:
            self.failed += 1
            self.failures.append(run)
        self.rows += run.rows
        self.rows_appended += run.rows_appended
        self.bytes += run.bytes
        self.deleted += run.deleted
        self.left += run.left

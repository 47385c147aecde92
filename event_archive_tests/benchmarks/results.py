"""What was measured, to be looked up and written down. Here: records and their JSON. Not here: targets, tables."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from event_archive_tests.benchmarks.catalogue import Job
from event_archive_tests.benchmarks.measure import Cost, medians
from event_archive_tests.benchmarks.server import SETTINGS, VERSION
from event_archive_tests.benchmarks.stage import Case, LakeName


@dataclass(frozen=True)
class Result:
    """A case and what each of its runs took."""

    section: str
    case: Case
    costs: list[Cost]

    @property
    def cost(self) -> Cost:
        """The medians."""
        return medians(self.costs)

    @property
    def rows_per_second(self) -> float:
        """By the wall clock, process start included."""
        return self.case.data.rows / self.cost.wall_seconds


@dataclass
class Results:
    """All of one call of ``make bench``, and what the machine was like when it began."""

    machine: Mapping[str, str]
    found: list[Result] = field(default_factory=list)

    def of(
        self,
        section: str,
        contender: str,
        job: Job,
        lake: LakeName,
        *,
        rows: int | None = None,
        days: int | None = None,
    ) -> Result:
        """The one result that fits.

        Raises:
            LookupError: it was not measured.
        """
        for result in self.found:
            case = result.case
            if (result.section, case.contender, case.job, case.lake) == (section, contender, job, lake) and (
                rows in (None, case.data.rows) and days in (None, case.data.days)
            ):
                return result
        raise LookupError(f"{section}: {contender}, {job}, {lake} was not measured")

    def section(self, name: str) -> list[Result]:
        """The results of a section."""
        return [result for result in self.found if result.section == name]

    def to_json(self) -> dict[str, Any]:
        """Every run of every case, and where they ran."""
        cases = [
            {
                "section": result.section,
                "contender": result.case.contender,
                "job": result.case.job,
                "lake": result.case.lake,
                "data": asdict(result.case.data),
                "median": asdict(result.cost),
                "runs": [asdict(cost) for cost in result.costs],
            }
            for result in self.found
        ]
        return {"machine": self.machine, "server": SETTINGS, "cases": cases}


def machine() -> dict[str, str]:
    """What it runs on, and how busy that is."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "day": datetime.now(UTC).date().isoformat(),
        "processor": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load": f"{os.getloadavg()[0]:.1f}",
        "memory": f"{memory_gib:.0f} GiB",
        "system": f"Linux {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "postgresql": str(VERSION),
    }

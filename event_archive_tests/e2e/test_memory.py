"""A night fits its container, however many rows a day has."""

import subprocess
import sys
from pathlib import Path

import pytest

from event_archive.domain.days import ONE_DAY
from event_archive_tests.fixtures.installation import Installation, clean_environment
from event_archive_tests.fixtures.pipeline import DAY

pytestmark = pytest.mark.slow

LIMIT_MIB = 200
"""The container has 512; what is left is for what nobody foresaw."""
APART_MIB = 32
"""Blocks are 8 MiB, and how many are on their way or kept by the allocator is partly luck: 17 MiB were seen. The rows
that the larger day has more would be a hundred."""

# The process itself says at its end what it needed: Dagster, the SDK, and every block.
_RUN = """
import atexit, sys
from pathlib import Path
peak = Path(sys.argv.pop(1))
atexit.register(lambda: peak.write_text(Path("/proc/self/status").read_text()))
from event_archive.cli import main
main()
"""


def peak_mib(installation: Installation, path: Path, *arguments: str) -> float:
    """The most memory that a command had at once, VmHWM."""
    subprocess.run(
        [sys.executable, "-c", _RUN, str(path), *arguments],
        env=clean_environment(**installation.variables),
        check=True,
        capture_output=True,
        timeout=240,
    )
    (line,) = [line for line in path.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def test_memory_is_bounded_and_hardly_grows_with_the_rows(azure_installation: Installation, tmp_path: Path):
    peaks = {}
    for place, rows in enumerate((60_000, 300_000)):
        day = DAY + place * ONE_DAY
        azure_installation.database.execute(
            """INSERT INTO "Event" (event_id, event_type, created_at, payload)
            SELECT gen_random_uuid()::text, 'order.created', %s::timestamp + n * interval '100 milliseconds',
                   jsonb_build_object('n', n, 'text', repeat('x', 250)) FROM generate_series(1, %s) AS n""",
            day,
            rows,
        )
        peaks[rows] = peak_mib(azure_installation, tmp_path / "status", "run", day.isoformat())
    assert azure_installation.everything() == []
    assert max(peaks.values()) <= LIMIT_MIB, peaks
    assert peaks[300_000] - peaks[60_000] <= APART_MIB, peaks
    print(f"peak of 'event-archive run': {peaks}")

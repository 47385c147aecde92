"""Several datasets in one process, one of them purged by dropping partitions: killed anywhere, no row is lost."""

import random
import signal
import subprocess
import sys
import time

from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.datasets import DAYS, NAMES, TABLE_OF, Datasets
from event_archive_tests.fixtures.installation import clean_environment

KILLS = share_of(12)
_TEXTS = "SELECT {column}::text FROM {table}"
_KEY_OF = {"events": "event_id", "lines": "id", "readings": "at", "elsewhere": "event_id"}


def keys(four: Datasets, name: str) -> list[str]:
    """What tells the rows of a table from one another."""
    query = _TEXTS.format(column=_KEY_OF[name], table=TABLE_OF[name])
    return [str(key) for (key,) in four.database(name).execute(query)]


def test_a_kill_at_any_instant_loses_no_row_of_any_dataset(four: Datasets):
    before = {name: sorted(keys(four, name)) for name in NAMES}
    started = time.monotonic()
    assert four.cli("run", "--dry-run").code == 0
    whole_run_seconds = time.monotonic() - started
    killed = 0
    for number in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "event_archive.cli", "run"],
            env=clean_environment(**four.variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Early at first: a run that comes to its end leaves the next ones nothing to do.
        time.sleep(random.uniform(0.2, 0.3 + 0.6 * number / KILLS) * whole_run_seconds)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        survived("kills: several datasets")
        for name in NAMES:
            in_files = {row[_KEY_OF[name]] for row in four.records(name)}
            assert in_files | set(keys(four, name)) == set(before[name]), name
    assert killed
    done = four.cli("run")
    assert done.code == 0, done.said
    assert four.left() == dict.fromkeys(NAMES, 0)
    for name in NAMES:
        assert sorted(row[_KEY_OF[name]] for row in four.records(name)) == before[name], name
    assert four.here.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = 'telemetry.readings'::regclass") == [
        (0,)
    ], "both partitions are gone"
    assert {file.path.rpartition("_")[2] for file in four.lake.list("lake") if file.path.endswith(".csv")} == {
        f"{day}.csv" for day in DAYS
    }

"""The ingestion of log files, killed at every step and at any instant, by several processes too: each entry once.

The numbers in the comments are those of the hardest cases of an ingestion of log files.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import pytest

from event_archive_tests.faults.forking import Forking, forking
from event_archive_tests.faults.log_victim import POINTS
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson

RANDOM_KILLS = share_of(200)
MOST_RANDOM_SECONDS = 0.5
FILES = 6
ENTRIES = 40
BAD = b'{"msg":"no time"}'


@dataclass
class Victims(Forking):
    """The process that forks them, against one folder and one database."""

    logs: Logs

    def fill(self, version: int) -> None:
        """Files of that version, one of them damaged."""
        for number in range(FILES):
            entries = [entry(n, version=version, file=number) for n in range(ENTRIES)]
            lines = ndjson(*entries[: ENTRIES // 2]) + BAD + b"\n" + ndjson(*entries[ENTRIES // 2 :])
            self.logs.write(f"{number}.log", lines)
        self.logs.write("damaged.gz", array(entry(1, version=version))[:-5])
        self.version = version

    def check_books(self) -> None:
        """Whatever is committed is a whole file of one version, and stands in the ledger."""
        [(exists,)] = self.logs.database.execute("SELECT to_regclass('processed_files') IS NOT NULL")
        if not exists:
            return
        loaded = self.logs.database.execute("SELECT rows FROM processed_files WHERE loaded_etag IS NOT NULL")
        [(rows,)] = self.logs.database.execute("SELECT count(*) FROM logs")
        [(rejected,)] = self.logs.database.execute("SELECT count(*) FROM rejected_records")
        assert rows == sum(int(str(of)) for (of,) in loaded) == len(loaded) * ENTRIES
        assert rejected == len(loaded)

    def check_all(self) -> None:
        """Each entry of each file is one row; what cannot be one is rejected once; the damaged file has failed."""
        found = self.logs.database.execute(
            "SELECT (raw_data ->> 'file')::int, (raw_data ->> 'version')::int, count(*)::int, "
            "count(DISTINCT message)::int FROM logs GROUP BY 1, 2 ORDER BY 1, 2"
        )
        assert found == [(number, self.version, ENTRIES, ENTRIES) for number in range(FILES)]
        assert self.logs.files() == [("COMPLETED", ENTRIES, 1)] * FILES + [("FAILED", 0, 0)]
        assert "cut short" in self.logs.errors()[-1]
        self.check_books()

    def forget(self) -> None:
        """As if nothing had been loaded."""
        self.logs.database.execute("TRUNCATE logs, rejected_records, processed_files, log_listing")


@pytest.fixture
def victims(logs: Logs) -> Iterator[Victims]:
    variables = {"PG_CONNECTION_STRING": logs.database.dsn, "LOGS_URL": f"file://{logs.folder}"}
    with forking("log_victim") as process:
        yield Victims(process, variables, logs)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_step_loses_no_entry_and_loads_none_twice(victims: Victims, point: str):
    version = 0
    for nth in (1, 2, 5, 12):
        for has_former in (False, True):
            # The second time the files have changed.
            version += 1
            victims.fill(version)
            [status] = victims.run(point=point, nth=nth)
            if status == signal.SIGKILL:
                survived(f"kills of an ingestion of log files: {point}")
            else:
                comes_later = nth > 1 or (point == "former rows" and not has_former)
                assert (status, comes_later) == (0, True)
            victims.check_books()
            victims.logs.wait_no_more()
            assert victims.run() == [0]
            victims.check_all()
        victims.forget()


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_kills_at_any_instant_lose_no_entry_and_load_none_twice(victims: Victims, processes: int):
    killed, rounds = 0, RANDOM_KILLS // processes // 3
    for number in count():
        # On a fast machine all may be done before a kill comes.
        if number >= rounds and killed:
            break
        assert number < 20 * rounds
        victims.fill(number)
        statuses = victims.run(processes=processes, most_seconds=MOST_RANDOM_SECONDS)
        killed += statuses.count(signal.SIGKILL)
        victims.check_books()
        if number % 5 == 4:
            # Leases that have not run out are waited for.
            assert victims.run(processes=processes) == [0] * processes
            victims.check_all()
        if number % 10 == 9:
            victims.forget()
    for _ in range(killed):
        survived(f"kills of {processes} ingestions of log files at any instant")


# 13: several workers, and one that dies
def test_a_file_of_a_process_that_died_is_loaded_by_the_next_one_at_once(victims: Victims):
    victims.fill(1)
    [status] = victims.run(point="merged", nth=10)
    assert status == signal.SIGKILL
    assert ("PROCESSING",) in victims.logs.files("status")
    assert victims.run() == [0]
    victims.check_all()

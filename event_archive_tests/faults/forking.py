"""A process that forks children which take in a source, as a test sees it. Not here: what a child does."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from event_archive_tests.fixtures.installation import clean_environment


@dataclass
class Forking:
    """The process; its children get these variables."""

    process: subprocess.Popen[str]
    variables: dict[str, str]

    def run(self, **order: Any) -> list[int]:
        """The wait statuses of children that took in what there is, and were perhaps killed."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"variables": self.variables} | order) + "\n")
        self.process.stdin.flush()
        statuses: list[int] = json.loads(self.process.stdout.readline())
        return statuses


@contextmanager
def forking(victim: str) -> Iterator[subprocess.Popen[str]]:
    """Starts the process of a module of this package, and ends it."""
    with subprocess.Popen(
        [sys.executable, "-m", f"event_archive_tests.faults.{victim}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()

"""Many hands on one day: runs of it at once, and somebody who changes its file."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from event_archive.lake.protocol import Lake, StoredFile, Upload
from event_archive_tests.faults.rounds import ORDERLY, run_rounds
from event_archive_tests.fixtures.pipeline import Pipeline

ROWS = 600
PROCESS_SECONDS = 90


@dataclass
class Crowd:
    """Processes that archive and purge at once."""

    pipeline: Pipeline
    where: dict[str, str]
    folder: Path

    def run(self, processes: int, meanwhile: Callable[[], None], *, days: list[date], most: int = 300) -> Counter[str]:
        """Lets them run from one moment on, until ``meanwhile`` is done and each has gone round once more."""
        arguments = (self.pipeline.database.dsn, self.where, self.pipeline.dataset, days, self.folder, most)
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = [pool.submit(run_rounds, *arguments) for _ in range(processes)]
            try:
                until = time.monotonic() + PROCESS_SECONDS
                while len(list(self.folder.glob("ready-*"))) < processes:
                    assert time.monotonic() < until, "not all processes start"
                    time.sleep(0.02)
                (self.folder / "starts").touch()
                meanwhile()
            finally:
                (self.folder / "ends").touch()
                (self.folder / "starts").touch()
            ended = sum((future.result(PROCESS_SECONDS) for future in futures), Counter[str]())
        assert set(ended) <= ORDERLY, ended
        assert ended["purged"]
        return ended


@dataclass
class Meddled:
    """A lake in which something happens to the file at one moment of a purge: a ``Lake``.

    Attributes:
        lake: the true one.
        meddle: what happens, once.
        moment: "stat 1" (after the first stat), "read 1" (with the first block), "end 1" (after the last block), ...
    """

    lake: Lake
    meddle: Callable[[], None]
    moment: str
    seen: Counter[str] = field(default_factory=Counter)

    def url(self, path: str) -> str:
        return self.lake.url(path)

    def list(self, folder: str) -> Iterator[StoredFile]:
        return self.lake.list(folder)

    def stat(self, path: str) -> StoredFile | None:
        file = self.lake.stat(path)
        self._now("stat")
        return file

    def appendable(self, file: StoredFile) -> bool:
        return self.lake.appendable(file)

    def head(self, file: StoredFile, size_bytes: int) -> bytes:
        return self.lake.head(file, size_bytes)

    @contextmanager
    def read(self, file: StoredFile) -> Iterator[Iterator[bytes]]:
        def blocks() -> Iterator[bytes]:
            for block in content:
                self._now("read")
                yield block
            self._now("end")

        with self.lake.read(file) as content:
            yield blocks()

    def write(self, path: str, *, replaces: StoredFile | None, append: bool = False) -> AbstractContextManager[Upload]:
        return self.lake.write(path, replaces=replaces, append=append)

    def _now(self, what: str) -> None:
        self.seen[what] += 1
        if f"{what} {self.seen[what]}" == self.moment:
            self.meddle()

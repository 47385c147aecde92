"""Archive and purge again and again, in a process of its own. Imports little, so that six start in a moment."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from event_archive.domain.dataset import Dataset
from event_archive.domain.record import Record
from event_archive.errors import EventArchiveError, IntegrityError
from event_archive.lake.local.folder import LocalLake
from event_archive.lake.protocol import Lake
from event_archive.operations.archive import archive_day
from event_archive.operations.purge import purge_day
from event_archive.operations.site import Site
from event_archive.postgres.session import Postgres

ORDERLY = {"purged", "nothing to do", "kept", "locked", "waiting", "IntegrityError", "FileChangedError", "BusyError"}
"""How a round may end beside others. Rows are kept that somebody writes anew, as they were, right behind a DELETE."""


@contextmanager
def _opened(where: Mapping[str, str]) -> Iterator[Lake]:
    """A lake by what can be sent to another process."""
    if "root" in where:
        yield LocalLake(Path(where["root"]))
        return
    from event_archive.lake.azure.container import AzureLake

    with AzureLake.from_connection_string(
        where["connection_string"], where["container"], block_bytes=64 * 1024, retry_seconds=20
    ) as lake:
        yield lake


def run_rounds(
    dsn: str, where: Mapping[str, str], dataset: Dataset, days: list[date], folder: Path, most: int
) -> Counter[str]:
    """Begins when the file ``starts`` is in the folder, ends a round after ``ends`` is; how often a round ended how."""
    ended: Counter[str] = Counter()
    postgres = Postgres(dsn, lock_timeout_seconds=5)
    with _opened(where) as lake:
        (folder / f"ready-{os.getpid()}").touch()
        while not (folder / "starts").exists():
            time.sleep(0.01)
        for _ in range(most):
            last = (folder / "ends").exists()
            for day in days:
                ended[_one(dataset, day, postgres, lake)] += 1
            if last:
                break
    return ended


def _one(dataset: Dataset, day: date, postgres: Postgres, lake: Lake) -> str:
    try:
        archived = archive_day(Site(dataset, postgres, lake), day)
        record = Record(archived.etag, archived.rows)
        return purge_day(Site(dataset, postgres, lake), day, record, dry_run=False).outcome
    except EventArchiveError as error:
        # A gate that names an older file is right to refuse; any other contradiction would be a lie about a file.
        if isinstance(error, IntegrityError) and "the day's latest archive" not in str(error):
            return f"IntegrityError: {error}"
        return type(error).__name__

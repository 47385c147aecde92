"""What the command line remembers from one run to the next: which days it tried, when, and which failed.

The planner needs it, so that no day starves another. It lies in the lake, beside the files, since a CronJob has no disk
of its own; hidden from globs of the files by the underscore at the start of its name. It only orders days: without it,
or with another one, the same days are done. Not here: how Dagster's schedule remembers (``defs.last_runs``).

A day is tried when a run begins it, a dry run too. It failed where it ended with an error; a day that was
stopped, that is held, or that another command was working on, is tried and did not fail. The schedule counts otherwise.
"""

import json
import logging
from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

from event_archive.domain.dataset import Dataset
from event_archive.domain.days import parse_day
from event_archive.errors import ConfigurationError, EventArchiveError, FileChangedError, RefusedError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.nightly.outcome import Totals
from event_archive.nightly.plan import Attempt

logger = logging.getLogger(__name__)

_MAX_BYTES = 16 * 1024 * 1024
"""Of a hundred thousand days; a larger file is none of ours."""


def attempts_path(dataset: Dataset) -> str:
    """Where they lie, from the lake's root."""
    return f"{dataset.folder}/_{dataset.file_prefix}.attempts.json"


def read_attempts(dataset: Dataset, lake: Lake) -> dict[date, Attempt]:
    """What the former runs tried; nothing where there is nothing that can be read.

    Raises:
        UnreachableError: as the lake says.
    """
    path = attempts_path(dataset)
    try:
        return _read(lake, lake.stat(path))
    except RefusedError as error:
        logger.warning("days are done as if none was ever tried: %s", error)
        return {}


def remember(
    dataset: Dataset, lake: Lake, totals: Totals, *, at: str, days_left: Collection[date], complete: bool
) -> None:
    """Writes down what a run tried, as far as the next one has to know it. That this cannot be done is a warning.

    Args:
        dataset: whose days.
        lake: where the files lie.
        totals: of the run.
        at: when it began, ISO 8601.
        days_left: the days that the run was to do and did not come to. Where there are none, every day has had its
            turn, and only those that failed are remembered.
        complete: the run was to do every day that has rows, and not some that a person named.
    """
    try:
        _remember(dataset, lake, totals, at=at, days_left=days_left, complete=complete)
    except EventArchiveError as error:
        logger.warning("which days were tried cannot be written down, so the next run may try them first: %s", error)


def _remember(
    dataset: Dataset, lake: Lake, totals: Totals, *, at: str, days_left: Collection[date], complete: bool
) -> None:
    path = attempts_path(dataset)
    file = lake.stat(path)
    before = _read(lake, file)
    tried = {done.day: Attempt(at, failed=done.cause is not None) for done in totals.outcomes}
    if totals.day_in_hand:
        tried[totals.day_in_hand] = Attempt(at)
    after = {day: attempt for day, attempt in tried.items() if attempt.failed}
    # Where every day had its turn, those that were done have nobody to wait for.
    if days_left or (before and not complete):
        after = before | tried
    if after == before:
        return
    with lake.write(path, replaces=file) as upload:
        upload.write(_to_json(after))
        upload.commit({})


def _read(lake: Lake, file: StoredFile | None) -> dict[date, Attempt]:
    if file is None or file.size_bytes > _MAX_BYTES:
        return {}
    try:
        with lake.read(file) as blocks:
            document: Any = json.loads(b"".join(blocks))
        return {
            parse_day(day): Attempt(str(of["at"]), failed=bool(of["failed"])) for day, of in document["days"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigurationError, FileChangedError):
        logger.warning("%s cannot be read: days are done as if none was ever tried", file.path)
        return {}


def _to_json(attempts: Mapping[date, Attempt]) -> bytes:
    days = {day.isoformat(): {"at": of.at, "failed": of.failed} for day, of in sorted(attempts.items())}
    return json.dumps({"days": days}, indent=1).encode()

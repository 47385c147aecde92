"""Reads a day's file with a reader that is not PostgreSQL and compares it with its manifest. Changes nothing.

Not here: the reader (``csv_reader``), what is done about a problem.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from event_archive.domain.dataset import Dataset
from event_archive.domain.manifest import Manifest, names_hash
from event_archive.domain.progress import NO_PROGRESS, Progress
from event_archive.domain.source import Source
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.claim import source_to_read
from event_archive.operations.csv_reader import Reading
from event_archive.table.shape import Table

# pyarrow wants every record within two of its blocks: small ones keep memory flat where records are small, and a file
# with larger records, of which PostgreSQL takes hundreds of MiB, is read again in larger ones.
_FIRST_BLOCK_BYTES = 1024 * 1024
_LARGEST_BLOCK_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class VerifiedDay:
    """What was found.

    Attributes:
        day: the day.
        path: its file.
        rows: in the file; None where it could not be read to its end as CSV.
        bytes: bytes read.
        problems: a sentence each; none where the file is good.
        remarks: what looks odd in a file whose bytes are those that were archived, such as a column's changed type, or
            what could not be checked.
        source: whose rows the file holds, as its manifest says; None where that cannot be read.
        seconds: how long the call took.
    """

    day: date
    path: str
    rows: int | None
    bytes: int
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    source: Source | None
    seconds: float


def verify_day(
    dataset: Dataset, day: date, *, table: Table | None, lake: Lake, progress: Progress = NO_PROGRESS
) -> VerifiedDay:
    """Verifies one day's file: bytes, SHA-256, rows, header, days of the rows, and that every JSON value is JSON.

    Args:
        dataset: what was archived.
        day: whose file.
        table: the table's shape, which says which columns hold JSON; None where it cannot be had.
        lake: where the file lies.
        progress: is told of every block that is read.

    Raises:
        FileChangedError: somebody wrote the file meanwhile.
        RefusedError, UnreachableError: as the lake says.
    """
    started = time.monotonic()
    path = dataset.path(day)
    file = lake.stat(path)
    if file is None:
        problem = f"there is no file at {lake.url(path)}"
        return VerifiedDay(day, path, 0, 0, (problem,), (), None, time.monotonic() - started)
    reading = Reading(dataset, day, table)
    block_bytes = _FIRST_BLOCK_BYTES
    while True:
        try:
            progress.begin("verifying", total_bytes=file.size_bytes)
            with lake.read(file) as blocks:
                reading.read(blocks, block_bytes, progress)
            break
        except (pa.ArrowException, UnicodeDecodeError) as error:
            if "straddling" not in str(error):
                # Without the row, which pyarrow quotes.
                words = re.sub(r"(got \d+): .*", r"\1", str(error).splitlines()[0])
                reading.damage = words[:200]
                break
            if block_bytes >= _LARGEST_BLOCK_BYTES:
                reading.found["size"] = (
                    f"a record is larger than {_LARGEST_BLOCK_BYTES} bytes: its rows were not checked"
                )
                break
            block_bytes *= 16
    problems, remarks = tuple(_differences(dataset, file, lake, reading)), tuple(reading.found.values())
    source = _source(file)
    if reading.damage:
        # PostgreSQL reads some files of other tools that this reader does not.
        is_changed = problems and source is not None
        why = (
            "it is not a CSV file" if is_changed else "PyArrow cannot read it, so its rows and values were not checked"
        )
        remarks = (*remarks, f"{why}: {reading.damage}")
    if problems:
        problems, remarks = problems + remarks, ()
    rows = reading.rows if reading.is_whole else None
    return VerifiedDay(day, path, rows, reading.bytes, problems, remarks, source, time.monotonic() - started)


def _differences(dataset: Dataset, file: StoredFile, lake: Lake, reading: Reading) -> Iterator[str]:
    try:
        manifest = Manifest.claimed_by(file)
        if manifest:
            source_to_read(dataset, reading.day, manifest, file, lake)
    except IntegrityError as error:
        yield error.problem.removeprefix(f"{file.path}: ").removesuffix(".")
        return
    if manifest is None:
        yield "it has no manifest: another tool wrote or copied it"
        return
    if reading.bytes != manifest.bytes:
        yield f"{reading.bytes} bytes were read, its manifest says {manifest.bytes}"
    parsed = reading.is_whole
    if (
        parsed
        and (reading.bytes, reading.sha256) == (manifest.bytes, manifest.sha256)
        and reading.rows != manifest.rows
    ):
        rows = counted(manifest.rows, "row", "rows")
        yield f"its manifest says {rows}; its bytes are those that were archived, and hold {reading.rows}"
        return
    if parsed and reading.rows < manifest.rows:
        missing = counted(manifest.rows - reading.rows, "row is", "rows are")
        yield f"{missing} missing: it holds {reading.rows}, its manifest says {manifest.rows}"
    if parsed and reading.rows > manifest.rows:
        added = counted(reading.rows - manifest.rows, "row was", "rows were")
        yield f"{added} added or doubled: it holds {reading.rows}, its manifest says {manifest.rows}"
    if parsed and manifest.columns not in (names_hash(reading.columns), names_hash(_with_mark(reading.columns))):
        # Not quoted: where the header was cut off, a row stands in its place.
        yield "its header is not the one its manifest was made of"
    if reading.sha256 != manifest.sha256:
        same = parsed and (reading.bytes, reading.rows) == (manifest.bytes, manifest.rows)
        yield (
            ("bytes were altered in place: " if same else "")
            + f"its SHA-256 is {reading.sha256}, its manifest says {manifest.sha256}"
        )


def _source(file: StoredFile) -> Source | None:
    try:
        manifest = Manifest.claimed_by(file)
    except IntegrityError:
        return None
    return manifest.source if manifest else None


def _with_mark(columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns where the first one's name begins with a byte order mark, which the reader takes away."""
    return ("\ufeff" + columns[0], *columns[1:]) if columns else columns

"""Reads a day's file back and holds it against its manifest, with a reader that is not PostgreSQL. Changes nothing."""

import hashlib
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from event_archive.domain.dataset import Dataset
from event_archive.domain.manifest import Manifest, columns_hash
from event_archive.domain.progress import NO_PROGRESS, Progress
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.table.shape import Table

_FIRST_BLOCK_BYTES = 1024 * 1024
_LARGEST_BLOCK_BYTES = 64 * 1024 * 1024
_JSON = ("json", "jsonb")
_TIME_IN_UTC = r"([ T][0-9:.]+(Z|\+00(:?00)?)?)?"


@dataclass(frozen=True, slots=True)
class VerifiedDay:
    """What was found.

    Attributes:
        day: the day.
        path: its file.
        rows: records read.
        bytes: bytes read.
        problems: a sentence each; none where the file is good.
        remarks: what looks odd in a file whose bytes are those that were archived: a type, say, that is another today.
        seconds: how long the call took.
    """

    day: date
    path: str
    rows: int
    bytes: int
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
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
        progress: told of every block read.

    Raises:
        FileChangedError: somebody wrote the file meanwhile.
        RefusedError, UnreachableError: as the lake says.
    """
    started = time.monotonic()
    path = dataset.path(day)
    file = lake.stat(path)
    if file is None:
        return VerifiedDay(day, path, 0, 0, ("there is no file",), (), time.monotonic() - started)
    reading = _Reading(dataset, day, table)
    block_bytes = _FIRST_BLOCK_BYTES
    while True:
        try:
            progress.begin("verifying", total_bytes=file.size_bytes)
            with lake.read(file) as blocks:
                reading.read(blocks, block_bytes, progress)
            break
        except (pa.ArrowException, UnicodeDecodeError) as error:
            # pyarrow wants every record within two of its blocks, and PostgreSQL takes records of hundreds of MiB.
            if "straddling" not in str(error):
                # Without the row, which pyarrow quotes.
                told = re.sub(r"(got \d+): .*", r"\1", str(error).splitlines()[0])
                reading.damage = f"it is not a CSV file: {told[:200]}"
                break
            if block_bytes >= _LARGEST_BLOCK_BYTES:
                reading.found["size"] = (
                    f"a record is larger than {_LARGEST_BLOCK_BYTES} bytes: its rows were not checked"
                )
                break
            block_bytes *= 16
    problems, remarks = tuple(_held_against_manifest(dataset, file, reading)), tuple(reading.found.values())
    if problems:
        problems, remarks = problems + remarks, ()
    if reading.damage:
        problems = (*problems, reading.damage)
    return VerifiedDay(day, path, reading.rows, reading.bytes, problems, remarks, time.monotonic() - started)


def _held_against_manifest(dataset: Dataset, file: StoredFile, reading: "_Reading") -> Iterator[str]:
    try:
        manifest = Manifest.claimed_by(file, table=str(dataset.table))
    except IntegrityError as error:
        yield str(error).removeprefix(f"{file.path}: ").partition(". ")[0]
        return
    if manifest is None:
        yield "it has no manifest, being another tool's"
        return
    if reading.bytes != manifest.bytes:
        yield f"{reading.bytes} bytes were read, its manifest says {manifest.bytes}"
    parsed = not reading.damage and "size" not in reading.found
    if parsed and reading.rows < manifest.rows:
        missing = counted(manifest.rows - reading.rows, "row is", "rows are")
        yield f"{missing} missing: it holds {reading.rows}, its manifest says {manifest.rows}"
    if parsed and reading.rows > manifest.rows:
        added = counted(reading.rows - manifest.rows, "row was", "rows were")
        yield f"{added} added or doubled: it holds {reading.rows}, its manifest says {manifest.rows}"
    if parsed and columns_hash(reading.columns) != manifest.columns:
        yield f"its header ({', '.join(reading.columns)}) is not the one its manifest was made of"
    if reading.sha256 != manifest.sha256:
        same = parsed and (reading.bytes, reading.rows) == (manifest.bytes, manifest.rows)
        yield (
            ("bytes were altered in place: " if same else "")
            + f"its SHA-256 is {reading.sha256}, its manifest says {manifest.sha256}"
        )


class _Reading:
    """One pass over a file, with what it found. A second pass starts from nothing."""

    def __init__(self, dataset: Dataset, day: date, table: Table | None) -> None:
        self._time_column = dataset.time_column
        self._day = day
        self._json_columns = {column.name for column in table.columns if column.type in _JSON} if table else set()
        self._reset()

    def _reset(self) -> None:
        self.rows = 0
        self.columns: tuple[str, ...] = ()
        self.found: dict[str, str] = {}
        self.damage = ""
        self._hash = hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def read(self, blocks: Iterator[bytes], block_bytes: int, progress: Progress) -> None:
        """Reads to the end, whatever damage is found on the way: the hash is of the whole file."""
        self._reset()
        hashed = _OneAtATime(self._hashed(blocks, progress))
        try:
            self._parse(hashed, block_bytes)
        except (pa.ArrowException, UnicodeDecodeError):
            for _ in hashed:
                pass
            raise

    def _hashed(self, blocks: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
        for block in blocks:
            self._hash.update(block)
            self.bytes += len(block)
            progress.advance(0, len(block))
            yield block

    def _parse(self, blocks: Iterator[bytes], block_bytes: int) -> None:
        source = pa.PythonFile(io.BufferedReader(_Stream(blocks), block_bytes), mode="r")
        opened = csv.open_csv(
            source,
            read_options=csv.ReadOptions(block_size=block_bytes, use_threads=False),
            parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(
                default_column_type=pa.string(),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        )
        with opened as reader:
            self.columns = tuple(reader.schema.names)
            if len(set(self.columns)) < len(self.columns):
                raise pa.ArrowInvalid("its header names a column twice")
            for batch in reader:
                self._check(batch)
                self.rows += batch.num_rows

    def _check(self, batch: pa.RecordBatch) -> None:
        if self._time_column in self.columns:
            times = batch.column(self._time_column)
            plain = pc.fill_null(pc.match_substring_regex(times, f"^{self._day}{_TIME_IN_UTC}$"), False)
            other = sum(not _is_of(self._day, value) for value in times.filter(pc.invert(plain)).to_pylist())
            if other:
                self._count("days", f"row is not of {self._day}", f"rows are not of {self._day}", other)
        for name in self._json_columns.intersection(self.columns):
            wrong = sum(not _is_json(value) for value in batch.column(name).to_pylist() if value is not None)
            if wrong:
                self._count(f"json {name}", f"value of {name} is not JSON", f"values of {name} are not JSON", wrong)

    def _count(self, kind: str, one: str, many: str, count: int) -> None:
        before = int(self.found.get(kind, "0 ").split(" ", 1)[0])
        self.found[kind] = counted(before + count, one, many)


class _OneAtATime(Iterator[bytes]):
    """Blocks for two threads: pyarrow reads ahead in one of its own, which an error elsewhere does not stop at once."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._lock = threading.Lock()

    def __next__(self) -> bytes:
        with self._lock:
            return next(self._blocks)


class _Stream(io.RawIOBase):
    """Blocks as a file that can be read once."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        super().__init__()
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _is_of(day: date, text: str | None) -> bool:
    """Whether a time is of a UTC day; one without an offset is in UTC."""
    try:
        moment = datetime.fromisoformat(text or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).date() == day
    except (ValueError, OverflowError):
        return False


def _is_json(text: str) -> bool:
    try:
        # As text: Python turns no number of more than 4300 digits into an int.
        json.loads(text, parse_int=str)
    except ValueError:
        return False
    except RecursionError:
        # Deeper than this reader goes; that says nothing against the value.
        return True
    return True

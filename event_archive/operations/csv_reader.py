"""A reader of CSV that is not PostgreSQL: pyarrow's, and what a day's values must be. Not here: manifests."""

import hashlib
import json
import threading
import traceback
import weakref
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from event_archive.domain.dataset import Dataset
from event_archive.domain.progress import Progress
from event_archive.domain.wording import counted
from event_archive.table.shape import Table

_JSON = ("json", "jsonb")
_LET_GO_SECONDS = 10.0
_TIME_IN_UTC = r"([ T][0-9:.]+(Z|\+00(:?00)?)?)?"


class Reading:
    """One pass over a file, with what it found. A second pass starts from nothing.

    Attributes:
        day: whose file.
        rows: rows read.
        bytes: bytes read.
        columns: the header.
        found: what looks odd about values, by kind.
        damage: why it cannot be read as CSV; empty where it can.

    Args:
        dataset: what was archived.
        day: whose file.
        table: its shape, which says which columns hold JSON; None where it cannot be had.
    """

    def __init__(self, dataset: Dataset, day: date, table: Table | None) -> None:
        self._time_column = dataset.time_column
        self.day = day
        self._json_columns = {column.name for column in table.columns if column.type in _JSON} if table else set()
        self._reset()

    def _reset(self) -> None:
        self.rows = 0
        self.columns: tuple[str, ...] = ()
        self.found: dict[str, str] = {}
        self._counts = Counter[str]()
        self.damage = ""
        self._hash = hashlib.sha256()
        self.bytes = 0

    @property
    def is_whole(self) -> bool:
        """Whether every row was read."""
        return not self.damage and "size" not in self.found

    @property
    def sha256(self) -> str:
        """Of the bytes read, hex."""
        return self._hash.hexdigest()

    def read(self, blocks: Iterator[bytes], block_bytes: int, progress: Progress) -> None:
        """Reads to the end even where the file is damaged, since the hash is of the whole file."""
        self._reset()
        hashed = _OneAtATime(self._hashed(blocks, progress))
        stream = _Stream(hashed)
        # A thread of pyarrow's that has some of it when Python ends would end the process by SIGABRT.
        let_go = threading.Event()
        weakref.finalize(stream, let_go.set).atexit = False
        try:
            self._parse(stream, block_bytes)
        except BaseException as error:
            # They have the stream, too.
            traceback.clear_frames(error.__traceback__)
            if isinstance(error, pa.ArrowException | UnicodeDecodeError):
                for _ in hashed:
                    pass
            raise
        finally:
            del stream
            let_go.wait(_LET_GO_SECONDS)

    def _hashed(self, blocks: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
        for block in blocks:
            self._hash.update(block)
            self.bytes += len(block)
            progress.advance(0, len(block))
            yield block

    def _parse(self, stream: "_Stream", block_bytes: int) -> None:
        opened = csv.open_csv(
            pa.PythonFile(stream, mode="r"),
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
            plain = pc.fill_null(pc.match_substring_regex(times, f"^{self.day}{_TIME_IN_UTC}$"), False)
            other = sum(not _is_of(self.day, value) for value in times.filter(pc.invert(plain)).to_pylist())
            if without := times.null_count:
                name, other = self._time_column, other - without
                self._count("times", f"row has no {name}", f"rows have no {name}", without)
            if other:
                self._count("days", f"row is not of {self.day}", f"rows are not of {self.day}", other)
        for name in self._json_columns.intersection(self.columns):
            wrong = sum(not _is_json(value) for value in batch.column(name).to_pylist() if value is not None)
            if wrong:
                self._count(f"json {name}", f"value of {name} is not JSON", f"values of {name} are not JSON", wrong)

    def _count(self, kind: str, one: str, many: str, count: int) -> None:
        self._counts[kind] += count
        self.found[kind] = counted(self._counts[kind], one, many)


class _OneAtATime(Iterator[bytes]):
    """Blocks for two threads: pyarrow's own thread reads ahead, and after an error goes on for a while."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._lock = threading.Lock()

    def __next__(self) -> bytes:
        with self._lock:
            return next(self._blocks)


class _Piece(bytearray):
    """What was read of a stream, which lives as long as this does."""

    stream: "_Stream"


class _Stream:
    """Blocks as a file that can be read once."""

    closed = False

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def read(self, size: int) -> _Piece:
        piece = _Piece()
        piece.stream = self
        while len(piece) < size:
            if not self._rest:
                self._rest = memoryview(next(self._blocks, b""))
            if not self._rest:
                break
            part = self._rest[: size - len(piece)]
            piece += part
            self._rest = self._rest[len(part) :]
        return piece

    def close(self) -> None:
        self.closed = True


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

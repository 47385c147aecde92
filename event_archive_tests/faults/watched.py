"""What is known of a table and its files between two steps of a life, and a lake in which others meddle."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from event_archive.lake.protocol import StoredFile, Upload
from event_archive_tests.faults.crowds import Meddled
from event_archive_tests.faults.random_table import Row


def parsed(content: str) -> list[Row]:
    """The rows of a CSV, by a reader that shares nothing with the product."""
    fields = re.findall(r'("(?:[^"]|"")*"|[^,"\n]*)(,|\n)', content)
    assert sum(map(len, map("".join, fields))) == len(content), "no CSV"
    records, record = list[list[str | None]](), list[str | None]()
    for text, end in fields:
        record.append(text[1:-1].replace('""', '"') if text[:1] == '"' else text or None)
        if end == "\n":
            records.append(record)
            record = []
    return [tuple(zip(map(str, records[0]), record, strict=True)) for record in records[1:]]


@dataclass(frozen=True)
class Picture:
    """All rows that are committed, those of the table with their days, and how many a trigger wrote of what went."""

    table: Counter[tuple[str, Row]]
    neighbours: dict[str, Counter[Row]]
    audited: int
    triggers: set[str]


@dataclass
class WatchedUpload:
    """An upload at whose steps something may happen."""

    upload: Upload
    instant: Callable[[], None]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.instant()
        self.upload.write(data)

    def settle(self) -> None:
        self.upload.settle()
        self.instant()

    def commit(self, metadata: Mapping[str, str], look: Callable[[], object] | None = None) -> StoredFile:
        self.instant()
        file = self.upload.commit(metadata, look)
        self.instant()
        return file


class Watched(Meddled):
    """A lake at each of whose operations something may happen; ``moment`` is the latest."""

    def _now(self, what: str) -> None:
        self.moment = what
        self.meddle()

    @contextmanager
    def write(self, path: str, *, replaces: StoredFile | None, append: bool = False) -> Iterator[Upload]:
        with self.lake.write(path, replaces=replaces, append=append) as upload:
            yield WatchedUpload(upload, self.meddle)

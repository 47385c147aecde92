"""What is archived: a table, its time column, its retention, where its files lie. Not here: the table's shape."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from event_archive.domain.days import EARLIEST_START, Retention, parse_day
from event_archive.errors import ConfigurationError, NotAgedError, printable

Purge = Literal["delete", "drop"]

_MAX_IDENTIFIER_BYTES = 63
_KEYS = {
    "EVENT_TABLE": "table",
    "EVENT_TIME_COLUMN": "time_column",
    "EVENT_FILE_PREFIX": "file_prefix",
    "EVENT_PURGE": "purge",
    "EVENT_DROP_EMPTY_PARTITIONS": "drop_empty_partitions",
    "EVENT_VACUUM": "vacuum",
    "ARCHIVE_START_DATE": "start",
    "MAX_DAYS_PER_RUN": "max_days_per_run",
    "MAX_REPLICA_LAG": "max_replica_lag",
    "LOGICAL_MESSAGE_PREFIX": "logical_message_prefix",
}
"""Of the datasets file."""
_NAME = re.compile(r'"((?:[^"]|"")+)"(?=\.|$)|([^.]+)')
_NAMES = re.compile(rf"(?:{_NAME.pattern})(?:\.(?:{_NAME.pattern}))?")


@dataclass(frozen=True, slots=True)
class TableName:
    """A table's name as the catalogue holds it, without quotes."""

    schema: str
    name: str

    @classmethod
    def parse(cls, text: str, *, schema: str = "public") -> "TableName":
        """Reads ``schema.table``, or ``table`` in the schema given.

        Each name is taken literally, case and spaces kept; one that holds a dot stands in double quotes, in which a
        double quote is doubled.

        Raises:
            ValueError: not one or two names, or a name that PostgreSQL would cut short.
        """
        if not _NAMES.fullmatch(text):
            raise ValueError('is not schema.table; double-quote a name that holds a dot, like public."my.table"')
        parts = [inner.replace('""', '"') if inner else plain for inner, plain in _NAME.findall(text)]
        for part in parts:
            check_identifier(part)
        return cls(*parts) if len(parts) == 2 else cls(schema, parts[0])

    def __str__(self) -> str:
        """As PostgreSQL writes it: ``public."Event"``."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


def quoted(name: str) -> str:
    """An identifier in double quotes where it needs them. For messages; SQL uses ``psycopg.sql``."""
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def key_named(key: Iterable[str]) -> str:
    """A key's columns, for messages: ``(id, created_at)``."""
    return f"({', '.join(map(quoted, key))})"


def keys_named(keys: Iterable[Iterable[str]]) -> str:
    """Several keys, for messages: ``(id) and (id, created_at)``."""
    return " and ".join(map(key_named, keys))


def check_identifier(name: str) -> None:
    """Refuses what cannot be the name of a table or column.

    Raises:
        ValueError: it is empty, holds a NUL, or is longer than 63 bytes, where PostgreSQL silently cuts names off.
    """
    if not name or "\0" in name:
        raise ValueError("holds an empty name or a NUL character")
    if len(name.encode()) > _MAX_IDENTIFIER_BYTES:
        raise ValueError(f"holds a name of more than {_MAX_IDENTIFIER_BYTES} bytes, which PostgreSQL does not know")


@dataclass(frozen=True, slots=True)
class Dataset:
    """One table and its archive.

    Attributes:
        table: the events.
        time_column: ``timestamp`` (taken as UTC), ``timestamptz`` or ``date``; says which day a row belongs to.
        folder: where the files lie, from the lake's root, without slashes at the ends.
        file_prefix: files are ``PREFIX_YYYY-MM-DD.csv``.
        retention: how long a row stays in the table.
        start: the first day that is archived; rows before it are reported.
        purge: whether rows are deleted, or partitions dropped where every row of them is proven.
        drop_empty_partitions: whether a partition that a purge has emptied is dropped once all of it is aged.
        vacuum: whether an ordinary table is vacuumed after its rows were deleted.
        name: among several datasets; empty where the environment describes the only one.
        asset_prefix: what the keys of its assets in Dagster begin with; empty for none.
    """

    table: TableName
    time_column: str
    folder: str
    file_prefix: str
    retention: Retention
    start: date
    purge: Purge = "delete"
    drop_empty_partitions: bool = False
    vacuum: bool = False
    name: str = ""
    asset_prefix: str = ""

    @property
    def label(self) -> str:
        """What people know it by: its table, and its name where it has one; fit for a terminal."""
        return printable(f"{self.name} ({self.table})" if self.name else str(self.table))

    def setting(self, variable: str) -> str:
        """What people know one of this dataset's settings by: the variable, or its place in the datasets file."""
        return f"{self.name}.{_KEYS[variable]}" if self.name else variable

    def command(self, arguments: str) -> str:
        """A command about this dataset alone, for messages: ``event-archive run 2024-03-01 --dataset lines``."""
        return f"event-archive {arguments} --dataset {self.name}" if self.name else f"event-archive {arguments}"

    @property
    def adopt_source(self) -> str:
        """The command that makes this table the owner of the files that lie here, for messages."""
        return self.command("adopt --source")

    def is_aged(self, day: date, now: datetime) -> bool:
        """Whether a day may be archived at ``now``, which must be aware."""
        return self.start <= day <= self.retention.last_aged_day(now)

    def aged_told(self, now: datetime) -> str:
        """Which days are aged at ``now``, which must be aware, and by what, for messages."""
        last = self.retention.last_aged_day(now)
        at = f"at {now:%Y-%m-%d %H:%M} UTC, with a retention of {self.retention}"
        if last < self.start:
            first = f"The first that is archived, {self.start}, {self._comes_of_age(self.start)}."
            return f"{self.label}: no day is aged {at}. {first}"
        return f"{self.label}: days up to {last} are aged {at}."

    def require_aged(self, day: date, now: datetime) -> None:
        """Refuses a day that may not be archived at ``now``, which must be aware.

        Raises:
            NotAgedError: with the date on which the day comes of age, or with the first day there is.
        """
        last = self.retention.last_aged_day(now)
        if day < self.start:
            what_to_do = f"Set {self.setting('ARCHIVE_START_DATE')} to {day} or earlier to archive it."
            if day < EARLIEST_START:
                what_to_do = f"No day before {EARLIEST_START} can be: give its rows another time."
            elif day > last:
                what_to_do += f" With a retention of {self.retention} it {self._comes_of_age(day)} (UTC)."
            raise NotAgedError(
                f"{self.label}: {day} lies before the first day that is archived, {self.start}. {what_to_do}"
            )
        if day > last:
            at = f"{now:%Y-%m-%d %H:%M} UTC"
            youngest = f"the youngest day that may be archived at {at} is {last}"
            raise NotAgedError(
                f"{self.label}: {day} is not aged. With a retention of {self.retention} it {self._comes_of_age(day)} "
                f"(UTC); {youngest if last >= self.start else f'none may be at {at}'}."
            )

    def _comes_of_age(self, day: date) -> str:
        try:
            return f"comes of age on {self.retention.comes_of_age(day)}"
        except (OverflowError, ValueError):
            return "does not come of age before the year 10000"

    def path(self, day: date) -> str:
        """Where the day's file lies, from the lake's root."""
        return f"{self.folder}/{self.file_prefix}_{day.isoformat()}.csv"

    def day_of(self, path: str) -> date | None:
        """The day whose file lies at ``path``; None for a file that is not one of this dataset."""
        head, tail = f"{self.folder}/{self.file_prefix}_", ".csv"
        if not (path.startswith(head) and path.endswith(tail)):
            return None
        try:
            day = parse_day(path[len(head) : -len(tail)])
        except ConfigurationError:
            return None
        return day if self.path(day) == path else None

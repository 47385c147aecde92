"""A log entry as a row of ``logs``: its id and time, and the whole of it to the letter.

What PostgreSQL takes out of the entry is not here (``mapping``), nor how entries are told apart (``decoding``).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from event_archive.domain.dataset import TableName
from event_archive.sources.copy_format import clean_line, line
from event_archive.sources.instants import NoInstantError, check_plausible, of_epoch, parse_epoch, parse_iso
from event_archive.sources.json_text import refusal_of
from event_archive.sources.landing import Batch, Rejected
from event_archive.sources.log_files.decoding import Entry
from event_archive.sources.log_files.mapping import Field, LogMapping
from event_archive.sources.log_files.stores import Found
from event_archive.sources.merge import Target

SOURCE = "logs"
_COLUMNS = (("id", "text"), ("timestamp", "timestamptz"), ("raw_data", "json"))
_NO_TIME = "it has no time"
_CONTRADICTION = timedelta(seconds=1)
"""Two times of one entry that lie further apart contradict each other: some are cut to seconds."""
_NULL = msgspec.Raw(b"null")


def target(schema: str, mapping: LogMapping) -> Target:
    """Where entries land."""
    return Target(TableName(schema, "logs"), _COLUMNS, ("id",), document="raw_data", computed=mapping.computed())


def id_prefix(bucket: str, key: str, etag: str) -> str:
    """What the ids of a file's version begin with, up to the point before the position."""
    return hashlib.sha256(f"{bucket}\0{key}\0{etag}".encode()).hexdigest()[:32]


def locator_prefix(bucket: str, file: Found, etag: str) -> str:
    """What the locators of a file's version begin with."""
    return f"{bucket}/{file.key} {etag} entry "


@dataclass(slots=True)
class Reader:
    """Reads the entries of one version of a file, one batch after another.

    Attributes:
        bucket: where the file is.
        file: the version.
        mapping: which fields hold a time.
        zone: of a time without one.
        now: this machine's clock.
        aged_before: entries from before are left out, since their day is archived.
        position: entries read so far.
        contradictions: entries whose times contradict each other.
    """

    bucket: str
    file: Found
    mapping: LogMapping
    zone: ZoneInfo
    now: datetime
    aged_before: datetime
    position: int = 0
    contradictions: int = 0
    _times: "_Times" = field(init=False)
    _id: str = field(init=False)
    _locator: str = field(init=False)

    def __post_init__(self) -> None:
        """Makes what each entry needs."""
        self._times = _Times(self.mapping.times)
        self._id = id_prefix(self.bucket, self.file.key, self.file.etag)
        self._locator = locator_prefix(self.bucket, self.file, self.file.etag)

    def read(self, entries: Sequence[Entry], batch: Batch) -> None:
        """Adds entries, the next in the file, to a batch."""
        first = len(batch.lines)
        made_of: list[tuple[int, Entry]] = []
        for entry, found in zip(entries, self._times.of(entries), strict=True):
            self.position += 1
            data = bytes(entry)
            reason = None if found is not None and _is_clean(entry, data) else refusal_of(data)
            if found is None:
                reason = reason or "it is no object"
            instant = None
            if reason is None and found is not None:
                instant, reason = self._instant(found)
            if instant is None:
                batch.rejected.append(Rejected(f"{self._locator}{self.position}", reason or _NO_TIME, data))
            elif instant < self.aged_before:
                batch.too_old += 1
            else:
                key = f"{self._id}.{self.position:010d}".encode()
                values = (key, instant.isoformat().encode(), data)
                # JSON holds no control characters but line ends between its tokens.
                plain = b"\n" not in data and b"\r" not in data
                batch.lines.append(clean_line(values) if plain else line(values))
                made_of.append((self.position, entry))
        batch.origins.append((first, lambda index: self._origin(*made_of[index - first])))

    def _origin(self, position: int, entry: Entry) -> tuple[str, bytes]:
        return f"{self._locator}{position}", bytes(entry)

    def _instant(self, tokens: Sequence[Any]) -> tuple[datetime | None, str | None]:
        """The first time of an entry that is one; where none is, why the first is none."""
        first, reason = None, None
        for token in tokens:
            if token is None:
                continue
            try:
                instant = check_plausible(self._parsed(token), self.now)
            except NoInstantError as error:
                reason = reason or str(error)
                continue
            if first is None:
                first = instant
            elif abs(instant - first) >= _CONTRADICTION:
                self.contradictions += 1
                break
        return first, reason

    def _parsed(self, token: Any) -> datetime:
        if isinstance(token, str):
            return parse_iso(token.strip(), self.zone)
        if isinstance(token, msgspec.Raw):
            text = bytes(token)
            if text == b"null":
                raise NoInstantError(_NO_TIME)
            if text[:1] == b'"':
                return parse_iso(msgspec.json.decode(text, type=str).strip(), self.zone)
            return parse_epoch(text.decode())
        return of_epoch(token)


def _is_clean(entry: Entry, data: bytes) -> bool:
    """Whether an entry that a strict parser took is sure to be JSON that PostgreSQL can hold."""
    if type(entry) is bytes or b"\\u0000" in data:
        return False
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Times:
    """Finds the tokens of an entry's times."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = fields
        self._decoders = []
        if all(len(of) == 1 for of in fields):
            names = {f"t{number}": of[0] for number, of in enumerate(fields)}
            # A float would lose digits of an epoch; what is of neither kind is looked at as it came.
            for kind, default in ((str | int | None, None), (msgspec.Raw, _NULL)):
                struct = msgspec.defstruct("Times", [(name, kind, default) for name in names], rename=names, gc=False)
                self._decoders.append(msgspec.json.Decoder(list[struct]))  # type: ignore[valid-type]

    def of(self, entries: Sequence[Entry]) -> list[Sequence[Any] | None]:
        """The tokens of each entry; None where the entry is no object."""
        joined = b"[" + b",".join(entries) + b"]"
        for decoder in self._decoders:
            try:
                found = decoder.decode(joined)
            except (msgspec.MsgspecError, RecursionError, ValueError):
                continue
            if len(found) == len(entries):
                return [*map(msgspec.structs.astuple, found)]
        return [self._alone(entry) for entry in entries]

    def _alone(self, entry: Entry) -> Sequence[Any] | None:
        """By the parser that forgives: the entry is checked elsewhere."""
        try:
            value = json.loads(bytes(entry), parse_float=_Number, parse_int=_Number)
        except (ValueError, RecursionError):
            return []
        return [_at(value, of) for of in self._fields] if isinstance(value, dict) else None


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def _at(value: Any, path: Field) -> str | None:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None

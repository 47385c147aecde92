"""A log entry as a row of ``logs``: its id and time, and the whole of it to the letter.

What PostgreSQL takes out of the entry is not here (``mapping``), nor how entries are told apart (``decoding``).
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
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
from event_archive.sources.merge import Target
from event_archive.sources.runs import AgedTimes

SOURCE = "logs"
_COLUMNS = (("id", "text"), ("timestamp", "timestamptz"), ("raw_data", "json"))
_NO_TIME = "it has no time"
_CONTRADICTION = timedelta(seconds=1)
"""Two times of one entry that lie further apart contradict each other: some are cut to seconds."""
_NULL = msgspec.Raw(b"null")
_LEAST_MILLISECONDS, _MOST_MILLISECONDS = 10**11, 10**14
"""Between them an epoch counts milliseconds."""
_MOST_SECONDS = 10_000


def target(schema: str, mapping: LogMapping) -> Target:
    """Where entries land."""
    return Target(TableName(schema, "logs"), _COLUMNS, ("id",), document="raw_data", computed=mapping.computed())


def id_prefix(bucket: str, key: str, etag: str) -> str:
    """What the ids of a file's version begin with, up to the point before the position."""
    return hashlib.sha256(f"{bucket}\0{key}\0{etag}".encode()).hexdigest()[:32]


def locator_prefix(bucket: str, key: str, etag: str) -> str:
    """What the locators of a file's version begin with, up to the position."""
    return f"{bucket}/{key} {etag} entry "


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry is: in which version of which file, and its number there."""

    bucket: str
    key: str
    etag: str
    position: int


def parse_locator(locator: str) -> Place:
    """The place that a locator names. Keys may hold blanks; ETags hold none."""
    version, _, position = locator.rpartition(" entry ")
    path, _, etag = version.rpartition(" ")
    scheme, _, rest = path.partition("://")
    name, _, key = rest.partition("/")
    return Place(f"{scheme}://{name}", key, etag, int(position))


@dataclass(slots=True)
class Reader:
    """Reads the entries of one version of a file, one batch after another.

    Attributes:
        bucket: where the file is.
        key: its name there.
        etag: of the version.
        mapping: which fields hold a time.
        zone: of a time without one.
        now: this machine's clock.
        aged: entries of these times are left out, since their day is archived.
        position: entries read so far.
        contradictions: entries whose times contradict each other.
    """

    bucket: str
    key: str
    etag: str
    mapping: LogMapping
    zone: ZoneInfo
    now: datetime
    aged: AgedTimes
    position: int = 0
    contradictions: int = 0
    _times: "_Times" = field(init=False)
    _no_others: tuple[None, ...] = field(init=False)
    _seconds: dict[int, tuple[bytes, bool]] = field(init=False, default_factory=dict)
    _id: bytes = field(init=False)
    _locator: str = field(init=False)

    def __post_init__(self) -> None:
        """Makes what each entry needs."""
        self._times = _times(tuple(self.mapping.times))
        self._no_others = (None,) * (len(self.mapping.times) - 1)
        self._id = id_prefix(self.bucket, self.key, self.etag).encode()
        self._locator = locator_prefix(self.bucket, self.key, self.etag)

    def read(self, entries: Sequence[Entry], batch: Batch) -> None:
        """Adds entries, the next in the file, to a batch."""
        first = len(batch.lines)
        made_of: list[tuple[int, Entry]] = []
        joined = b",".join(entries)
        are_clean, are_lines = _is_clean(joined), b"\n" not in joined and b"\r" not in joined
        add, remember, prefix = batch.lines.append, made_of.append, self._id
        position = self.position
        for entry, tokens in zip(entries, self._times.of(entries, joined), strict=True):
            position += 1
            data = bytes(entry)
            time, too_old, reason = None, False, None
            if tokens is None or not are_clean or type(entry) is bytes:
                reason = self._refusal(entry, data, tokens)
            if reason is None:
                time, too_old, reason = self._time(tokens or ())
            if time is None:
                batch.rejected.append(Rejected(f"{self._locator}{position}", reason or _NO_TIME, data))
            elif too_old:
                batch.too_old += 1
            else:
                values = (b"%b.%010d" % (prefix, position), time, data)
                # JSON holds no control characters but line ends between its tokens.
                add(clean_line(values) if are_lines else line(values))
                remember((position, entry))
        self.position = position
        batch.origins.append((first, lambda index: self._origin(*made_of[index - first])))

    def _refusal(self, entry: Entry, data: bytes, tokens: Sequence[Any] | None) -> str | None:
        """Why PostgreSQL could not hold an entry, or it is none."""
        reason = None if type(entry) is not bytes and _is_clean(data) else refusal_of(data)
        return reason or ("it is no object" if tokens is None else None)

    def _origin(self, position: int, entry: Entry) -> tuple[str, bytes]:
        return f"{self._locator}{position}", bytes(entry)

    def _time(self, tokens: Sequence[Any]) -> tuple[bytes | None, bool, str | None]:
        """The time of an entry as PostgreSQL reads it, whether its day is archived, or else why it has none."""
        token = tokens[-1] if tokens and tokens[:-1] == self._no_others else None
        if type(token) is int and _LEAST_MILLISECONDS <= token < _MOST_MILLISECONDS:
            # As pino writes it. Entries of one second share all but the digits behind the point.
            second, milliseconds = divmod(token, 1000)
            begun = self._seconds.get(second) or self._second(second)
            if begun is not None:
                return b"%b.%03d+00" % (begun[0], milliseconds), begun[1], None
        instant, reason = self._instant(tokens)
        if instant is None:
            return None, False, reason
        return instant.isoformat().encode(), instant in self.aged, None

    def _second(self, second: int) -> tuple[bytes, bool] | None:
        """The second of an epoch, without a zone, and whether its day is archived; None where it is not plausible."""
        try:
            instant = check_plausible(of_epoch(second), self.now)
        except NoInstantError:
            return None
        if len(self._seconds) >= _MOST_SECONDS:
            self._seconds.clear()
        # Days are archived whole, so that a second is archived or not.
        time = instant.isoformat()[:19].encode(), instant in self.aged
        self._seconds[second] = time
        return time

    def _instant(self, tokens: Sequence[Any]) -> tuple[datetime | None, str | None]:
        """The first time of an entry that is one; where none is, why the first is none."""
        first, reason = None, None
        for token in tokens:
            if token is None:
                continue
            try:
                instant = self._parsed(token)
                check_plausible(instant, self.now)
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
        if type(token) is int:
            return of_epoch(token)
        if isinstance(token, msgspec.Raw):
            text = bytes(token)
            if text == b"null":
                raise NoInstantError(_NO_TIME)
            if text[:1] == b'"':
                return parse_iso(msgspec.json.decode(text, type=str).strip(), self.zone)
            return parse_epoch(text.decode())
        if isinstance(token, _Number):
            return parse_epoch(token)
        return parse_iso(token.strip(), self.zone)


def _is_clean(data: bytes) -> bool:
    """Whether what a strict parser took is sure to be JSON that PostgreSQL can hold."""
    if b"\\u0000" in data:
        return False
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


class _Times:
    """Finds the tokens of an entry's times."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = fields
        self._decoders = []
        if all(len(of) == 1 for of in fields):
            names = {f"t{number}": of[0] for number, of in enumerate(fields)}
            # msgspec refuses two of one name, and names with quotes, backslashes or control characters.
            with suppress(ValueError):
                # A float would lose digits of an epoch; what is of neither kind is looked at as it came.
                for kind, default in ((str | int | None, None), (msgspec.Raw, _NULL)):
                    struct = msgspec.defstruct("Times", [(of, kind, default) for of in names], rename=names, gc=False)
                    self._decoders.append(msgspec.json.Decoder(list[struct]))  # type: ignore[valid-type]

    def of(self, entries: Sequence[Entry], joined: bytes) -> list[Sequence[Any] | None]:
        """The tokens of each entry, which are joined by commas; None where the entry is no object."""
        # Of entries that are no JSON, two may become one when they are joined, and one two.
        for decoder in () if bytes in map(type, entries) else self._decoders:
            try:
                found = decoder.decode(b"[" + joined + b"]")
            except (msgspec.MsgspecError, RecursionError, ValueError):
                continue
            return [*map(msgspec.structs.astuple, found)]
        return [self._alone(entry) for entry in entries]

    def _alone(self, entry: Entry) -> Sequence[Any] | None:
        """By the parser that forgives: the entry is checked elsewhere."""
        try:
            value = json.loads(bytes(entry), parse_float=_Number, parse_int=_Number)
        except (ValueError, RecursionError):
            return []
        return [_at(value, of) for of in self._fields] if isinstance(value, dict) else None


@cache
def _times(fields: tuple[Field, ...]) -> _Times:
    """Made once for all files."""
    return _Times(fields)


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def _at(value: Any, path: Field) -> str | None:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None

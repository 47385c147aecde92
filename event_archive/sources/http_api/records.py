"""An event as a row of ``ingested_events``: its id, type and time, and the whole of it to the letter.

Not here: pages, how rows are landed.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec

from event_archive.config.sources import ApiSettings
from event_archive.domain.dataset import TableName
from event_archive.sources.copy_format import clean_line, clean_lines, line
from event_archive.sources.instants import (
    NoInstantError,
    check_plausible,
    of_epoch,
    parse_epoch,
    parse_iso,
    texts,
)
from event_archive.sources.json_text import refusal_of
from event_archive.sources.landing import Batch, Rejected
from event_archive.sources.merge import Target

SOURCE = "api"
_COLUMNS = (("id", "text"), ("event_type", "text"), ("timestamp", "timestamptz"), ("data", "jsonb"))
Raw = bytes | msgspec.Raw
_Row = tuple[datetime, bytes]


def target(schema: str, conflict: str) -> Target:
    """Where events land.

    Args:
        schema: of the table.
        conflict: ``update`` where an event that is newer by its time, or as new, takes the place of the one there.
    """
    return Target(
        TableName(schema, "ingested_events"), _COLUMNS, ("id",), "timestamp" if conflict == "update" else None
    )


def reader(settings: ApiSettings) -> "Reader":
    """Reads events by the names that the settings give."""
    return Reader(
        id_field=settings.api_id_field,
        type_field=settings.api_type_field,
        time_field=settings.api_time_field,
        zone=settings.api_timezone,
    )


class _Event(msgspec.Struct):
    id: msgspec.Raw
    type: msgspec.Raw
    time: msgspec.Raw


class _Plain(msgspec.Struct):
    id: str
    type: str
    time: str | int


def _struct(name: str, names: dict[str, str], kinds: Mapping[str, tuple[Any, ...]]) -> type[Any]:
    """A struct of attributes by the names of their fields; one field may be that of several."""
    first = {field: attribute for attribute, field in reversed(names.items())}
    again = {of: property(attrgetter(first[field])) for of, field in names.items() if first[field] != of}
    fields = [(of, *kind) for of, kind in kinds.items() if of not in again]
    return msgspec.defstruct(name, fields, rename=names, namespace=again, gc=False)


class _RejectedError(Exception):
    """Why an event cannot be a row."""


class Reader:
    """Reads the events of an API: which fields hold what."""

    def __init__(self, *, id_field: str, type_field: str, time_field: str, zone: ZoneInfo) -> None:
        """Takes the names of an event's fields, and the zone of a time without one."""
        names = {"id": id_field, "type": type_field, "time": time_field}
        # A field that is absent is null: as an optional one, msgspec would refuse every object.
        kind = _struct("Event", names, {name: (msgspec.Raw, msgspec.Raw(b"null")) for name in names})
        self._one = msgspec.json.Decoder(kind)
        self._many = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        plain = _struct("Plain", names, {"id": (str,), "type": (str,), "time": (str | int,)})
        self._many_plain = msgspec.json.Decoder(list[plain])  # type: ignore[valid-type]
        self._zone = zone

    def read(
        self,
        events: Sequence[Raw],
        batch: Batch,
        *,
        now: datetime,
        too_old: Callable[[datetime], bool],
        text: msgspec.Raw | None = None,
    ) -> list[datetime]:
        """Adds a page's events to a batch.

        Args:
            events: each as it came.
            batch: takes the rows, and what cannot be one.
            now: this machine's clock.
            too_old: whether an event of a time is left out, since its day is archived.
            text: the list of the events, where it is JSON throughout; with it, a page is read faster.

        Returns:
            The times of those events that have one, in the page's order.
        """
        first = len(batch.lines)
        times, lines = self._plain_rows(events, text, now) or ([], [])
        if times and not any(map(too_old, times)):
            batch.lines += lines
            batch.origins.append((first, lambda index: _origin(events[index - first])))
            return times
        times, made_of = [], list[Raw]()
        for raw, row in zip(events, self._rows(events, now), strict=True):
            if isinstance(row, str):
                data = bytes(raw)
                batch.rejected.append(Rejected(locator(data), row, data))
                continue
            instant, made = row
            times.append(instant)
            if too_old(instant):
                batch.too_old += 1
            else:
                batch.lines.append(made)
                made_of.append(raw)
        batch.origins.append((first, lambda index: _origin(made_of[index - first])))
        return times

    def id_of(self, event: Raw) -> str | None:
        """An event's id; None where it has none that could be a row's."""
        decoded = self._decoded_alone(event)
        key = _text(bytes(decoded.id)) if decoded else None
        return key.decode() if key and b"\0" not in key and _is_utf8(key) else None

    def _plain_rows(
        self, events: Sequence[Raw], text: msgspec.Raw | None, now: datetime
    ) -> tuple[list[datetime], list[bytes]] | None:
        """Times and lines of a page on which nothing is unusual, with as few steps an event as can be; else None."""
        page = b"" if text is None else bytes(text)
        if b"\n" in page or b"\r" in page:
            # Between events they may be.
            page = b"[" + b",".join(events) + b"]"
        if not events or not page or b"\\u0000" in page or b"\n" in page or b"\r" in page:
            return None
        try:
            plain: list[_Plain] = self._many_plain.decode(page)
            names, kinds = [event.id for event in plain], [event.type for event in plain]
            if not (all(names) and all(kinds) and "".join(names).isprintable() and "".join(kinds).isprintable()):
                return None
            told = [event.time for event in plain]
            times = [parse_iso(time, self._zone) if isinstance(time, str) else of_epoch(time) for time in told]
            check_plausible(min(times), now)
            check_plausible(max(times), now)
            ids, types = [name.encode() for name in names], [kind.encode() for kind in kinds]
            lines = clean_lines(ids, types, texts(times), events)
            # One by one: the text of a whole page would not stay in the processor's cache.
            for made in lines:
                if not made.isascii():
                    made.decode()
        except (RecursionError, msgspec.MsgspecError, NoInstantError, UnicodeDecodeError):
            return None
        return times, lines

    def _rows(self, events: Sequence[Raw], now: datetime) -> Iterable[_Row | str]:
        """A row of each event, or why it cannot be one."""
        try:
            decoded = self._many.decode(b"[" + b",".join(events) + b"]")
        except (RecursionError, msgspec.MsgspecError):
            decoded = [self._decoded_alone(event) for event in events]
        return [self._row_or_reason(raw, event, now) for raw, event in zip(events, decoded, strict=True)]

    def _row_or_reason(self, raw: Raw, event: _Event | None, now: datetime) -> _Row | str:
        data = bytes(raw)
        try:
            if event is None or type(raw) is bytes or b"\\u0000" in data or not _is_utf8(data):
                _check(data)
            if event is None:
                return "it is no object"
            return self._row(data, event, now)
        except _RejectedError as error:
            return str(error)

    def _decoded_alone(self, event: Raw) -> _Event | None:
        try:
            return cast(_Event, self._one.decode(event))
        except (RecursionError, msgspec.MsgspecError):
            return None

    def _row(self, data: bytes, event: _Event, now: datetime) -> _Row:
        key, kind = bytes(event.id), bytes(event.type)
        name = _text(key)
        if not name:
            raise _RejectedError("it has no id")
        instant = self._instant(bytes(event.time), now)
        told, at = _text(kind), instant.isoformat().encode()
        # JSON holds no control characters but between its tokens, and escaped.
        plain = b"\\" not in key and b"\\" not in kind and b"\n" not in data and b"\r" not in data
        return instant, clean_line((name, told, at, data)) if plain and told else line((name, told, at, data))

    def _instant(self, token: bytes, now: datetime) -> datetime:
        try:
            if token[:1] == b'"':
                text = token[1:-1].decode() if b"\\" not in token else msgspec.json.decode(token, type=str)
                return check_plausible(parse_iso(text, self._zone), now)
            return check_plausible(parse_epoch(token.decode()), now)
        except NoInstantError as error:
            raise _RejectedError("it has no time" if token == b"null" else str(error)) from None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check(data: bytes) -> None:
    if reason := refusal_of(data):
        raise _RejectedError(reason)


def locator(raw: bytes) -> str:
    """Where an event is found that cannot be a row: by its content, since pages move."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def _origin(raw: Raw) -> tuple[str, bytes]:
    data = bytes(raw)
    return locator(data), data


def _text(token: bytes) -> bytes | None:
    """A string's text, a number to the letter; None for anything else."""
    if token[:1] == b'"':
        # What JSON allows unescaped is UTF-8 and holds no control characters.
        return token[1:-1] if b"\\" not in token else cast(str, msgspec.json.decode(token)).encode()
    return token if token[:1] in b"-0123456789" else None

"""An event as a row of ``ingested_events``: its id, type and time, and the whole of it to the letter.

Not here: pages, how rows are landed.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec

from event_archive.config.sources import ApiSettings
from event_archive.domain.dataset import TableName
from event_archive.sources.copy_format import clean_line, line
from event_archive.sources.instants import (
    NoInstantError,
    check_plausible,
    of_epoch,
    parse_epoch,
    parse_iso,
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


class _RejectedError(Exception):
    """Why an event cannot be a row."""


class Reader:
    """Reads the events of an API: which fields hold what."""

    def __init__(self, *, id_field: str, type_field: str, time_field: str, zone: ZoneInfo) -> None:
        """Takes the names of an event's fields, and the zone of a time without one."""
        names = {"id": id_field, "type": type_field, "time": time_field}
        # A field that is absent is null: as an optional one, msgspec would refuse every object.
        fields = [(name, msgspec.Raw, msgspec.Raw(b"null")) for name in names]
        kind = msgspec.defstruct("Event", fields, rename=names, gc=False)
        self._one = msgspec.json.Decoder(kind)
        self._many = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        plain = msgspec.defstruct("Plain", [("id", str), ("type", str), ("time", str | int)], rename=names, gc=False)
        self._many_plain = msgspec.json.Decoder(list[plain])  # type: ignore[valid-type]
        self._zone = zone

    def read(
        self, events: Sequence[Raw], batch: Batch, *, now: datetime, too_old: Callable[[datetime], bool]
    ) -> list[datetime]:
        """Adds a page's events to a batch.

        Args:
            events: each as it came.
            batch: takes the rows, and what cannot be one.
            now: this machine's clock.
            too_old: whether an event of a time is left out, since its day is archived.

        Returns:
            The times of those events that have one, in the page's order.
        """
        times: list[datetime] = []
        made_of: list[Raw] = []
        first = len(batch.lines)
        decoded, row_of = self._decoded(events)
        for raw, event in zip(events, decoded, strict=True):
            data = bytes(raw)
            try:
                # Those of a page that is JSON throughout are Raw, and can only hold what JSON allows.
                if event is None or type(raw) is bytes or b"\\u0000" in data:
                    _check(data)
                if event is None:
                    raise _RejectedError("it is no object")
                instant, row = row_of(data, event, now)
            except _RejectedError as error:
                batch.rejected.append(Rejected(locator(data), str(error), data))
                continue
            times.append(instant)
            if too_old(instant):
                batch.too_old += 1
            else:
                batch.lines.append(row)
                made_of.append(raw)
        batch.origins.append((first, lambda index: _origin(made_of[index - first])))
        return times

    def _decoded(self, events: Sequence[Raw]) -> "tuple[Sequence[Any], Callable[[bytes, Any, datetime], _Row]]":
        """The events of a page, and what makes a row of one: less is to be looked at where all are of plain kinds."""
        page = b"[" + b",".join(events) + b"]"
        with suppress(msgspec.MsgspecError):
            return self._many_plain.decode(page), self._plain_row
        with suppress(msgspec.MsgspecError):
            return self._many.decode(page), self._row
        return [self._decoded_alone(event) for event in events], self._row

    def _decoded_alone(self, event: Raw) -> _Event | None:
        try:
            return cast(_Event, self._one.decode(event))
        except msgspec.MsgspecError:
            return None

    def _plain_row(self, data: bytes, event: _Plain, now: datetime) -> "_Row":
        name, kind, time = event.id, event.type, event.time
        try:
            instant = parse_iso(time, self._zone) if isinstance(time, str) else of_epoch(time)
            check_plausible(instant, now)
        except NoInstantError as error:
            raise _RejectedError(str(error)) from None
        if not name:
            raise _RejectedError("it has no id")
        values = (name.encode(), kind.encode(), instant.isoformat().encode(), data)
        plain = kind and name.isprintable() and kind.isprintable() and b"\n" not in data and b"\r" not in data
        return instant, clean_line(values) if plain else line(values)

    def _row(self, data: bytes, event: _Event, now: datetime) -> "_Row":
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

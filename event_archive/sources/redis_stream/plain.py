"""The fast way for records on which nothing is unusual: one JSON object, a field a column. Not here: all others.

What it reads, ``rows`` would read to the same row.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec

from event_archive.sources.instants import of_epoch, parse_iso
from event_archive.sources.redis_stream.fields import NAMES, plan
from event_archive.sources.redis_stream.rows import RejectedError, Row, levels

_LONGEST = len("2024-03-01T12:00:00.123456Z")
_MARKS = ("-T::Z", "-T::.")
"""Every third character of a time that PostgreSQL reads as Python does, from the eighth on."""
_Integer = Annotated[int, msgspec.Meta(ge=-(2**31) + 1, le=2**31 - 1)]
_KINDS: dict[str, tuple[Any, ...]] = {
    "device_id": (str | int,),
    "ts": (str | int,),
    **dict.fromkeys(("latitude", "longitude", "altitude", "angle", "speed"), (float | None, None)),
    **dict.fromkeys(("satellites", "priority"), (_Integer | None, None)),
    "attributes": (msgspec.Raw, msgspec.Raw(b"{}")),
}


class PlainReader:
    """Reads the records of a batch, which are likely to have their fields by the same names."""

    def __init__(self, fields: Mapping[bytes, bytes], zone: ZoneInfo) -> None:
        """Takes the names from an entry.

        Args:
            fields: the entry's.
            zone: of a time without one.
        """
        self._decoder = _decoder(_names(fields))
        self._zone = zone

    def row(self, key: bytes, fields: Mapping[bytes, bytes]) -> Row | None:
        """The row of a record; None where something is unusual about it."""
        if self._decoder is None or len(fields) != 1:
            return None
        (document,) = fields.values()
        if _is_unusual(document):
            return None
        try:
            of = self._decoder.decode(document)
            instant, time = self._instant(of.ts)
            device = str(of.device_id)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return None
        attributes = bytes(of.attributes)
        if attributes[:1] != b"{" or not device or not device.isprintable():
            return None
        text = (
            f"{device}\1{time}\1{_text(of.latitude)}\1{_text(of.longitude)}\1{_text(of.altitude)}\1{_text(of.angle)}"
            f"\1{_text(of.satellites)}\1{_text(of.speed)}\1{_text(of.priority)}\1"
        )
        return device, instant, of.latitude, of.longitude, b"%b%b\1%b\n" % (text.encode(), attributes, key)

    def _instant(self, time: str | int) -> tuple[datetime, str]:
        """A time, and what PostgreSQL is told: the text as it came, where it reads that as Python does."""
        if type(time) is int:
            instant = of_epoch(time)
        elif len(time) <= _LONGEST and time[7:20:3] in _MARKS and time[-1] == "Z":
            return datetime.fromisoformat(time), time
        else:
            instant = parse_iso(time.strip(), self._zone)
        return instant, instant.isoformat()


def _text(number: float | None) -> str:
    return "" if number is None else str(number)


def _is_unusual(document: bytes) -> bool:
    """Whether there may be a sentinel or a NUL in a document, or what needs quotes in a COPY, or no UTF-8."""
    if b"\\u00" in document or b'"__b' in document or b'"Buffer"' in document:
        return True
    if b"\n" in document or b"\r" in document:
        return True
    try:
        return not (document.isascii() or document.decode())
    except UnicodeDecodeError:
        return True


def _names(fields: Mapping[bytes, bytes]) -> tuple[str, ...] | None:
    """The name of the field for each column; None where the record is not of the plain kind."""
    try:
        found = levels(fields) if len(fields) == 1 else []
    except RejectedError:
        return None
    planned = plan(found)
    if len(found) != 1 or planned.others or any(len(places) > 1 for places in planned.columns):
        return None
    return tuple(
        places[0][1] if places else NAMES[column][0] for column, places in zip(NAMES, planned.columns, strict=True)
    )


@lru_cache(maxsize=100)
def _decoder(names: tuple[str, ...] | None) -> msgspec.json.Decoder[Any] | None:
    if names is None:
        return None
    fields = [(column, *kind) for column, kind in _KINDS.items()]
    # It fails on any other field, which is then kept.
    record = msgspec.defstruct(
        "Record", fields, rename=dict(zip(NAMES, names, strict=True)), gc=False, forbid_unknown_fields=True
    )
    return msgspec.json.Decoder(record)

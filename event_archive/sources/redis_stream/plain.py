"""The fast way for records of the form that the first of a batch has. Not here: all others.

A record is read here to the same row as by ``rows``, which reads any; or not at all.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec

from event_archive.sources.instants import of_epoch, parse_iso
from event_archive.sources.redis_stream.fields import ENVELOPES, NAMES, Plan, plan
from event_archive.sources.redis_stream.rows import RejectedError, Row, envelope, levels
from event_archive.sources.redis_stream.sentinels import is_disguised, may_have_sentinels, revived

_LONGEST = len("2024-03-01T12:00:00.123456")
_MARKS = ("-T::Z", "-T::.", "-T::+")
"""Every third character of a time that PostgreSQL reads as Python does, from the eighth on."""
_PLAIN_NAME = re.compile(r"[\w .:/+-]{1,100}", re.ASCII)
"""That JSON writes in one way."""
_ENVELOPES = frozenset(f'"{name}"'.encode() for name in ENVELOPES)
_FILLED_FROM_AROUND = ("device_id", "ts")
_Other = tuple[bytes, bytes]
"""What fills no column: its name in quotes, and its JSON."""
_Integer = Annotated[int, msgspec.Meta(ge=-(2**31) + 1, le=2**31 - 1)]
_KINDS: dict[str, Any] = {
    "device_id": str | int | None,
    "ts": str | int | None,
    **dict.fromkeys(("latitude", "longitude", "altitude", "angle", "speed"), float | None),
    **dict.fromkeys(("satellites", "priority"), _Integer | None),
}
_OBJECT = msgspec.json.Decoder(msgspec.defstruct("Object", []))


@dataclass(frozen=True, slots=True)
class _Form:
    """How a record is written.

    Attributes:
        keys: the entry's fields.
        document: the one that holds JSON; None where each holds a text.
        kind: of the decoded record: it refuses what this form does not have.
        decoder: of the JSON.
        others: what fills no column: its attribute of the decoded record, and its name in quotes.
        around: the entry's other fields: name, name in quotes, and the column that it fills where the record does not.
    """

    keys: frozenset[bytes]
    document: bytes | None
    kind: type[Any]
    decoder: msgspec.json.Decoder[Any]
    others: tuple[tuple[str, bytes], ...]
    around: tuple[tuple[bytes, bytes, str | None], ...]


class PlainReader:
    """Reads the records of a batch, which are likely to be written alike."""

    def __init__(self, fields: Mapping[bytes, bytes], zone: ZoneInfo) -> None:
        """Takes the form from an entry.

        Args:
            fields: the entry's.
            zone: of a time without one.
        """
        self._form = _form(fields)
        self._zone = zone

    def row(self, key: bytes, fields: Mapping[bytes, bytes]) -> Row | None:
        """The row of a record; None where something is unusual about it."""
        form = self._form
        if form is None or fields.keys() != form.keys:
            return None
        if len(fields) > 1 and envelope(fields) != form.document:
            return None
        try:
            record = _record(form, fields)
            others = _around(form, fields, record) if form.around else []
            attributes = _attributes(form, record, others)
            instant, time = self._instant(record.ts)
            device = str(record.device_id or "")
        except (msgspec.MsgspecError, RecursionError, ValueError, TypeError):
            return None
        latitude, longitude = record.latitude, record.longitude
        numbers = (
            f"{_text(latitude)}\1{_text(longitude)}\1{_text(record.altitude)}\1{_text(record.angle)}\1"
            f"{_text(record.satellites)}\1{_text(record.speed)}\1{_text(record.priority)}"
        )
        if not device or not device.isprintable() or "n" in numbers:
            # Neither nan nor inf are numbers.
            return None
        text = f"{device}\1{time}\1{numbers}".encode()
        return device, instant, latitude, longitude, b"%b\1%b\1%b" % (text, attributes, key)

    def _instant(self, time: str | int) -> tuple[datetime, str]:
        """A time, and what PostgreSQL is told: the text as it came, where it reads that as Python does."""
        if isinstance(time, int):
            instant = of_epoch(time)
        elif time[7:20:3] in _MARKS and _is_in_utc(time):
            return datetime.fromisoformat(time), time
        else:
            instant = parse_iso(time.strip(), self._zone)
        return instant, instant.isoformat()


def _is_in_utc(time: str) -> bool:
    """Whether a time says so, and has no more digits than PostgreSQL: it rounds where Python cuts off."""
    return len(time) <= _LONGEST + 1 if time[-1] == "Z" else time[-6:] == "+00:00" and len(time) <= _LONGEST + 6


def _text(number: float | None) -> str:
    return "" if number is None else str(number)


def _record(form: _Form, fields: Mapping[bytes, bytes]) -> Any:
    """A record by its columns.

    Raises:
        MsgspecError, ValueError: it is not of this form, or has something unusual.
    """
    if form.document is None:
        texts = {name.decode(): value.decode() for name, value in fields.items()}
        return msgspec.convert(texts, form.kind, strict=False)
    document = fields[form.document]
    if not document.isascii():
        document.decode()
    if may_have_sentinels(document):
        # A malformed one is refused even where the name stands there again: then only the last value would be read.
        revived(document)
    return form.decoder.decode(_usual(document))


def _usual(document: bytes) -> bytes:
    """The same JSON, where it needs no quotes in a COPY and is sure to hold no NUL."""
    if b"\n" in document or b"\r" in document or is_disguised(document):
        raise ValueError
    return document


def _around(form: _Form, fields: Mapping[bytes, bytes], record: Any) -> list[_Other]:
    """Fills columns from the fields around a record, and returns those that fill none."""
    others = []
    for name, quoted, column in form.around:
        text = fields[name].decode()
        value = getattr(record, column) if column else None
        if column and value is None:
            setattr(record, column, text or None)
        elif not column or (text and text != str(value)):
            others.append((quoted, _encoded(text)))
    return others


def _encoded(text: str) -> bytes:
    if "\0" in text:
        raise ValueError
    return msgspec.json.encode(text)


def _attributes(form: _Form, record: Any, around: list[_Other]) -> bytes:
    """The attributes, with what fills no column beside them."""
    values = [(quoted, getattr(record, name)) for name, quoted in form.others]
    if form.document is None:
        attributes = _usual((record.attributes or "").strip().encode()) or b"{}"
        _OBJECT.decode(attributes)
        others = [(quoted, _encoded(text)) for quoted, text in values]
    else:
        attributes = bytes(record.attributes)
        if any(quoted in _ENVELOPES and bytes(raw)[:1] == b"{" for quoted, raw in values):
            # That object is the record.
            raise ValueError
        others = [(quoted, _revived(token)) for quoted, raw in values if (token := bytes(raw))] + around
    attributes = _revived(attributes)
    if attributes[:1] != b"{" or any(quoted in attributes for quoted, _ in others):
        raise ValueError
    if not others:
        return attributes
    own = attributes[1:-1].strip()
    return b"{%b%b%b}" % (own, b"," if own else b"", b",".join([b"%b:%b" % other for other in others]))


def _revived(token: bytes) -> bytes:
    return revived(token) if may_have_sentinels(token) else token


def _form(fields: Mapping[bytes, bytes]) -> _Form | None:
    """How a record is written; None where that is not plain."""
    try:
        found = levels(fields)
    except RejectedError:
        return None
    document = next(iter(fields)) if len(fields) == 1 else envelope(fields)
    if len(found) != 1 + (document is not None and len(fields) > 1):
        return None
    return _form_of(frozenset(fields), document, plan(found))


@lru_cache(maxsize=100)
def _form_of(keys: frozenset[bytes], document: bytes | None, planned: Plan) -> _Form | None:
    names: dict[str, str] = {}
    around: list[tuple[str, str | None]] = []
    for column, places in zip(NAMES, planned.columns, strict=True):
        inner, outer = ([name for level, name in places if bool(level) == is_outer] for is_outer in (False, True))
        if len(inner) > 1 or len(outer) > (column in _FILLED_FROM_AROUND):
            return None
        names[column] = inner[0] if inner else NAMES[column][0]
        around += [(name, column) for name in outer]
    around += [(name, None) for level, name in planned.others if level]
    others = {f"other_{number}": name for number, (level, name) in enumerate(planned.others) if not level}
    all_others = [*others.values(), *(name for name, _ in around)]
    if len({*all_others}) < len(all_others) or not all(map(_PLAIN_NAME.fullmatch, all_others)):
        return None
    kind = _kind(names | others, is_json=document is not None)
    return _Form(
        keys,
        document,
        kind,
        msgspec.json.Decoder(kind),
        tuple((attribute, _quoted(name)) for attribute, name in others.items()),
        tuple((name.encode(), _quoted(name), column) for name, column in around),
    )


def _kind(names: dict[str, str], *, is_json: bool) -> type[Any]:
    """What a record is decoded to, and by which names of its fields."""
    columns = [(column, kind, None) for column, kind in _KINDS.items()]
    other: tuple[Any, ...] = (msgspec.Raw, msgspec.Raw(b"")) if is_json else (str, "")
    attributes = (msgspec.Raw, msgspec.Raw(b"{}")) if is_json else other
    others = [(name, *other) for name in names if name not in NAMES]
    fields = [*columns, ("attributes", *attributes), *others]
    return msgspec.defstruct("Record", fields, rename=names, gc=False, forbid_unknown_fields=True)


def _quoted(name: str) -> bytes:
    return b'"%b"' % name.encode()

"""A record in whatever form it comes as a row of ``positions``. Not here: which field is for what (``fields``)."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec

from event_archive.sources.copy_format import line
from event_archive.sources.instants import NoInstantError, parse_epoch, parse_iso
from event_archive.sources.json_text import refusal_of
from event_archive.sources.redis_stream.fields import ENVELOPES, NAMES, Level, Place, plan
from event_archive.sources.redis_stream.sentinels import MalformedError, may_have_sentinels, revived

Row = tuple[str, datetime, float | None, float | None, bytes]
"""Device, time, latitude, longitude, and the line of the COPY."""

_STRING = msgspec.json.Decoder(str)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,5})?", re.ASCII)
_NUMBERS = tuple(NAMES)[2:-1]
_INTEGERS = ("satellites", "priority")
_MOST_INTEGER = 2**31 - 1
_NOTHING = (b"null", b'""')


class RejectedError(Exception):
    """Why an entry cannot be a row, without any of its values."""


def row(key: bytes, fields: Mapping[bytes, bytes], zone: ZoneInfo) -> Row:
    """Reads a record.

    Args:
        key: the entry's id.
        fields: the entry's.
        zone: of a time without one.

    Raises:
        RejectedError: it is none.
    """
    found = levels(fields)
    planned = plan(found)
    others = [(name, found[level][name]) for level, name in planned.others]
    device_id, ts, *numbers, attributes = [_first(found, places, others) for places in planned.columns]
    device, instant = _device(device_id), _instant(ts, zone)
    values = [_number(name, token) for name, token in zip(_NUMBERS, numbers, strict=True)]
    latitude, longitude, *_ = values
    texts = [device, instant.isoformat(), *[None if of is None else str(of) for of in values]]
    encoded = [None if text is None else text.encode() for text in texts]
    return device, instant, latitude, longitude, line((*encoded, _attributes(attributes, others), key))


def levels(fields: Mapping[bytes, bytes]) -> list[Level]:
    """The record and the envelopes around it, from the record outwards.

    Raises:
        RejectedError: there is no record, or nothing that PostgreSQL can hold.
    """
    if len(fields) == 1:
        return _unwrapped(_object(*fields.values())[1])
    name = envelope(fields)
    if name is None:
        return [_texts(fields)]
    around = {of: value for of, value in fields.items() if of != name}
    return [*_unwrapped(_object(fields[name])[1]), _texts(around)]


def envelope(fields: Mapping[bytes, bytes]) -> bytes | None:
    """Which of several fields holds the record, as JSON; None where each of them holds a text."""
    names = (name.encode() for name in ENVELOPES)
    return next((name for name in names if fields.get(name, b"").lstrip()[:1] == b"{"), None)


def _object(document: bytes) -> tuple[bytes, Level]:
    """An object, and the JSON of each of its fields; in both, what sentinels stand for is in their place."""
    try:
        if b"\\u0000" in document and (reason := refusal_of(document)):
            raise RejectedError(reason)
        document.decode()
        fields = _OBJECT.decode(document)
        if may_have_sentinels(document):
            document = revived(document)
            fields = _OBJECT.decode(document)
        return document, {name: bytes(raw) for name, raw in fields.items()}
    except MalformedError as error:
        raise RejectedError(str(error)) from None
    except RecursionError:
        raise RejectedError("it is nested too deeply") from None
    except (msgspec.MsgspecError, ValueError):
        raise RejectedError(refusal_of(document) or "it is no object") from None


def _unwrapped(level: Level) -> list[Level]:
    found = [level]
    while name := next((of for of in ENVELOPES if found[0].get(of, b"")[:1] == b"{"), None):
        found.insert(0, _object(found[0].pop(name))[1])
    return found


def _texts(fields: Mapping[bytes, bytes]) -> Level:
    """Fields that hold a text each, as JSON."""
    if not fields:
        raise RejectedError("it has no fields")
    if any(b"\0" in value for of in fields.items() for value in of):
        raise RejectedError("it holds \\u0000, which PostgreSQL cannot keep")
    try:
        return {name.decode(): msgspec.json.encode(value.decode()) for name, value in fields.items()}
    except UnicodeDecodeError:
        raise RejectedError("one of its fields is no UTF-8") from None


def _first(found: Sequence[Level], places: Sequence[Place], others: list[tuple[str, bytes]]) -> bytes | None:
    """The first field that has a value; those behind it that have another one are added to the others."""
    values = [(name, value) for level, name in places if (value := found[level][name]) not in _NOTHING]
    if not values:
        return None
    first = values[0][1]
    if len(values) > 1:
        others += [(name, value) for name, value in values[1:] if value != first and _text(value) != _text(first)]
    return first


def _text(token: bytes) -> str | None:
    """A string's text, a number to the letter; None for anything else."""
    if token[:1] == b'"':
        return _STRING.decode(token) if b"\\" in token else token[1:-1].decode()
    return token.decode() if token[:1] in b"-0123456789" else None


def _device(token: bytes | None) -> str:
    if token is None or (text := _text(token)) == "":
        raise RejectedError("it has no device")
    if text is None:
        raise RejectedError("its device is neither a text nor a number")
    return text


def _instant(token: bytes | None, zone: ZoneInfo) -> datetime:
    text = None if token is None else _text(token)
    if token is None or text is None:
        raise RejectedError("it has no time")
    try:
        return parse_iso(text.strip(), zone) if token[:1] == b'"' else parse_epoch(text)
    except NoInstantError as error:
        raise RejectedError(str(error)) from None


def _number(name: str, token: bytes | None) -> float | int | None:
    text = "" if token is None else _text(token)
    if text is not None and (text := text.strip()).lower() in ("", "null"):
        return None
    if text is None or not _NUMBER.fullmatch(text):
        raise RejectedError(f"its {name} is no number")
    number = float(text)
    if name in _INTEGERS:
        if not number.is_integer() or abs(number) > _MOST_INTEGER:
            raise RejectedError(f"its {name} is no whole number of 32 bits")
        return int(number)
    if number in (float("inf"), float("-inf")):
        raise RejectedError(f"its {name} is too large a number")
    return number


def _attributes(token: bytes | None, others: Sequence[tuple[str, bytes]]) -> bytes:
    """The attributes with what filled no column beside them; a name that is taken gets an underscore behind it."""
    own: Level = {}
    try:
        if token is not None and (token[:1] != b'"' or (token := (_text(token) or "").strip().encode())):
            token, own = _object(token)
    except RejectedError as error:
        raise RejectedError(f"its attributes: {error}") from None
    if not others:
        return token or b"{}"
    for name, value in others:
        free = name
        while free in own:
            free += "_"
        own[free] = value
    return b"{" + b",".join(msgspec.json.encode(name) + b":" + value for name, value in own.items()) + b"}"

"""A stream's entries as rows of ``positions``. Not here: how entries are read, how rows are landed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import msgspec

from event_archive.domain.days import ONE_DAY
from event_archive.sources.landing import Batch, Rejected
from event_archive.sources.redis_stream.plain import PlainReader
from event_archive.sources.redis_stream.rows import RejectedError, envelope, row
from event_archive.sources.runs import AgedTimes

SOURCE = "stream"
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""A clock that was never set begins in 1970 or 1980: each of its days would have a partition."""
FUTURE = ONE_DAY
"""How far ahead of this machine's clock a time is plausible."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An entry of a stream.

    Attributes:
        id: as Redis writes it: ``1709251200000-0``.
        fields: by name.
    """

    id: bytes
    fields: dict[bytes, bytes]


class Position(msgspec.Struct, frozen=True, gc=False):
    """Where a device was.

    Attributes:
        device_id: which device.
        ts: when, UTC.
        latitude: in degrees; None where the record has none.
        longitude: likewise.
    """

    device_id: str
    ts: datetime
    latitude: float | None
    longitude: float | None


@dataclass(slots=True)
class Decoded:
    """What some entries hold.

    Attributes:
        batch: their rows, and those that cannot be one.
        positions: of the rows, in their order.
        days: on which the rows lie, UTC.
    """

    batch: Batch = field(default_factory=Batch)
    positions: list[Position] = field(default_factory=list)
    days: set[date] = field(default_factory=set)


def decode(entries: Sequence[Entry], *, stream: str, aged: AgedTimes, now: datetime, zone: ZoneInfo) -> Decoded:
    """Reads entries; one that cannot be a row is rejected, by its id, and the others go on.

    Args:
        entries: in the order of their ids.
        stream: the key of theirs.
        aged: records of these times are left out, since their day is archived.
        now: this machine's clock.
        zone: of a time without one.
    """
    decoded, made_of, ordinals = Decoded(), list[Entry](), set[int]()
    batch, latest = decoded.batch, now + FUTURE
    plain = PlainReader(entries[0].fields if entries else {}, zone)
    for entry in entries:
        try:
            device_id, ts, latitude, longitude, text = plain.row(entry.id, entry.fields) or row(
                entry.id, entry.fields, zone
            )
            if not EARLIEST <= ts < latest:
                raise RejectedError("its time is before 2000 or more than a day ahead")
        except RejectedError as error:
            batch.rejected.append(Rejected(locator(stream, entry.id), str(error), raw(entry)))
            continue
        if ts in aged:
            batch.too_old += 1
            continue
        batch.lines.append(text)
        made_of.append(entry)
        decoded.positions.append(Position(device_id, ts, latitude, longitude))
        ordinals.add(ts.toordinal())
    batch.origins.append((0, lambda index: (locator(stream, made_of[index].id), raw(made_of[index]))))
    decoded.days.update(map(date.fromordinal, ordinals))
    return decoded


def locator(stream: str, of: bytes) -> str:
    """Where an entry is found, for ``rejected_records``: ids are those of their stream alone."""
    return f"{stream} {of.decode()}"


def parse_locator(text: str) -> tuple[str, bytes]:
    """The stream and the entry's id."""
    stream, _, of = text.rpartition(" ")
    return stream, of.encode()


def raw(entry: Entry) -> bytes:
    """The bytes of an entry, for ``rejected_records``: its only field, or a JSON object of them all.

    An only field that would be read as another record than it is, by ``fields``, stands as a text in a list. What is no
    UTF-8 in such JSON is written as ``surrogateescape`` has it, so that the bytes can be had back.
    """
    if len(entry.fields) > 1 or not entry.fields:
        return json.dumps({_text(name): _text(value) for name, value in entry.fields.items()}).encode()
    (value,) = entry.fields.values()
    found = _parsed(value)
    # Of several fields, one that holds JSON may be the record.
    is_read_otherwise = isinstance(found, bytes) or (isinstance(found, dict) and envelope(found) is not None)
    return json.dumps([_text(value)]).encode() if is_read_otherwise else value


def fields(kept: bytes) -> dict[bytes, bytes]:
    """The fields of an entry, as ``raw`` has kept them; the name of an only one does not matter.

    An only field that holds an object of texts alone is taken for several fields, which makes the same row.
    """
    found = _parsed(kept)
    return found if isinstance(found, dict) else {b"payload": kept if found is None else found}


def _parsed(data: bytes) -> dict[bytes, bytes] | bytes | None:
    """Several fields, which are an object of texts; an only one, which is a list of a text; None for anything else."""
    try:
        found = json.loads(data.decode())
        if isinstance(found, dict) and len(found) > 1 and all(type(value) is str for value in found.values()):
            return {_bytes(name): _bytes(value) for name, value in found.items()}
        return _bytes(found[0]) if isinstance(found, list) and len(found) == 1 and type(found[0]) is str else None
    except (ValueError, RecursionError):
        return None


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")

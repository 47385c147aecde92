"""A stream's entries as rows of ``positions``. Not here: how entries are read, how rows are landed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from zoneinfo import ZoneInfo

import msgspec

from event_archive.sources.landing import Batch

SOURCE = "stream"


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


def decode(entries: Sequence[Entry], *, aged_before: datetime | None, now: datetime, zone: ZoneInfo) -> Decoded:
    """Reads entries; one that cannot be a row is rejected, by its id, and the others go on.

    Args:
        entries: in the order of their ids.
        aged_before: records from before are left out, since their day is archived; None for none.
        now: this machine's clock.
        zone: of a time without one.
    """
    raise NotImplementedError


def raw(entry: Entry) -> bytes:
    """The bytes of an entry, as they are kept of a rejected one."""
    raise NotImplementedError

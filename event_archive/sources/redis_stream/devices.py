"""What is known of the devices that were heard of last, in memory. Not here: their positions in the table."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from event_archive.domain.days import now_utc
from event_archive.sources.redis_stream.records import Position


@dataclass(slots=True)
class Device:
    """What is known of a device.

    Attributes:
        last_position: the newest by its time.
        last_seen: when a record of it was last read, UTC.
        position_count_session: records of it that this process has read since it knows the device, those that came
            again among them.
    """

    last_position: Position
    last_seen: datetime
    position_count_session: int = 0


class Devices:
    """The devices that were heard of last."""

    def __init__(self, most: int, *, clock: Callable[[], datetime] = now_utc) -> None:
        """Knows no device.

        Args:
            most: how many devices are kept; those that were not heard of for longest are forgotten.
            clock: this machine's.
        """
        self._most, self._clock = most, clock
        self._devices: OrderedDict[str, Device] = OrderedDict()

    def saw(self, positions: Iterable[Position]) -> None:
        """Takes note of positions that were landed, in the order of their entries."""
        now, devices = self._clock(), self._devices
        for position in positions:
            device = devices.get(position.device_id)
            if device is None:
                device = devices[position.device_id] = Device(position, now)
            elif position.ts >= device.last_position.ts:
                device.last_position = position
            device.last_seen = now
            device.position_count_session += 1
            devices.move_to_end(position.device_id)
        while len(devices) > self._most:
            devices.popitem(last=False)

    def of(self, device_id: str) -> Device | None:
        """What is known of a device; None where it is nothing."""
        return self._devices.get(device_id)

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._devices)

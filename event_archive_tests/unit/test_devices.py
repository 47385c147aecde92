"""Devices in memory: the newest position of each, and no more devices than are to be kept."""

from datetime import UTC, datetime, timedelta

from event_archive.sources.redis_stream.devices import Devices
from event_archive.sources.redis_stream.records import Position

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


def position(device: str, minute: int, latitude: float = 0.0) -> Position:
    return Position(device, NOON + timedelta(minutes=minute), latitude, 0.0)


def test_a_late_position_counts_and_does_not_move_the_last_one_back():
    # Case 13.
    times = iter([NOON, NOON + timedelta(hours=1)])
    devices = Devices(10, clock=lambda: next(times))
    devices.saw([position("a", 5), position("a", 3)])
    devices.saw([position("a", 4), position("b", 1)])
    device = devices.of("a")
    assert device is not None
    assert (device.last_position, device.position_count_session) == (position("a", 5), 3)
    assert device.last_seen == NOON + timedelta(hours=1)


def test_of_two_positions_of_one_time_the_later_entry_counts():
    devices = Devices(10)
    devices.saw([position("a", 5, 1.0), position("a", 5, 2.0)])
    device = devices.of("a")
    assert device is not None
    assert device.last_position.latitude == 2.0


def test_the_device_that_was_not_heard_of_for_longest_is_forgotten_first():
    devices = Devices(2)
    devices.saw([position("a", 1), position("b", 1), position("a", 2), position("c", 1)])
    assert len(devices) == 2
    assert devices.of("b") is None
    assert devices.of("a") is not None
    assert devices.of("c") is not None


def test_nothing_is_known_of_a_device_that_was_never_heard_of():
    assert Devices(0).of("a") is None
    devices = Devices(0)
    devices.saw([position("a", 1)])
    assert len(devices) == 0

"""Points in time as sources write them: ISO 8601 of every kind, and epochs; exactly, or not at all.

PostgreSQL's own parser takes ``now``, ``infinity`` and ``01/02/2024``, so that text is read strictly here. Not here:
which field of a record holds a time.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec

from event_archive.domain.days import ONE_DAY

EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
FUTURE = timedelta(days=366)
"""How far ahead of this machine's clock a time is plausible."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = re.compile(
    r"(\d{4}-?\d{2}-?\d{2}|\d{4}-?W\d{2}-?\d)"
    r"(?:[Tt ](\d{2})(?::?(\d{2})(?::?(\d{2})(?:[.,](\d{1,18}))?)?)?\s?([Zz]|[+-]\d{2}(?::?\d{2}(?::?\d{2})?)?)?)?",
    re.ASCII,
)
_NUMBER = re.compile(r"-?\d{1,25}(?:\.\d{1,25})?(?:[eE][+-]?\d{1,2})?", re.ASCII)
# Eight digits are a date.
_EPOCH_TEXT = re.compile(r"-?\d{9,25}(?:\.\d{1,25})?", re.ASCII)
# What a number counts is told by its size: as seconds, 1e11 is the year 5138; as milliseconds, 1973.
_UNITS = ((Decimal("1e11"), Decimal(1_000_000)), (Decimal("1e14"), Decimal(1000)), (Decimal("1e17"), Decimal(1)))
_NANOSECOND = Decimal("0.001")
_EXACT_MILLISECONDS = range(10**11, 1000 * 2**32)
"""Of epochs that a float holds as seconds to a quarter of a microsecond; as numbers, milliseconds begin there."""
_DIGITS_OF_MICROSECONDS = 6
_LENGTHS = (20, 24, 27)
"""Of extended forms with no fraction, with milliseconds and with microseconds."""


class NoInstantError(ValueError):
    """A text that is no point in time, or not a plausible one. Its message does not repeat the text."""


def parse_iso(text: str, zone: ZoneInfo) -> datetime:
    """ISO 8601: calendar or week date, basic or extended, with or without time and zone; or an epoch as text.

    Digits behind the microseconds are cut off, as PostgreSQL holds none; so no time moves into the next day. A leap
    second is the first of the next minute, as PostgreSQL has it.

    Args:
        text: as the source wrote it.
        zone: of a time without one.

    Raises:
        NoInstantError: anything else.
    """
    if len(text) in _LENGTHS and text[10] == "T" and text[-1] == "Z":
        # Nine in ten are written so, and Python reads this form exactly.
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    found = _ISO.fullmatch(text)
    if not found and _EPOCH_TEXT.fullmatch(text):
        return parse_epoch(text)
    if not found:
        raise NoInstantError("its time is not ISO 8601")
    date, hour, minute, second, fraction, offset = found.groups()
    leap, whole_day = second == "60", hour == "24"
    if whole_day and (int(minute or 0) or int(second or 0) or int(fraction or 0)):
        raise NoInstantError("its time is past the end of the day")
    digits = (fraction or "")[:_DIGITS_OF_MICROSECONDS].ljust(_DIGITS_OF_MICROSECONDS, "0")
    clock = f"{'00' if whole_day else hour or '00'}:{minute or '00'}:{'59' if leap else second or '00'}.{digits}"
    try:
        instant = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if offset in ('Z', 'z') else offset or ''}")
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=zone)
        # In UTC, where a day always has 24 hours.
        return instant.astimezone(UTC) + leap * timedelta(seconds=1) + whole_day * ONE_DAY
    except (ValueError, OverflowError):
        raise NoInstantError("its time is no date of the calendar") from None


def parse_epoch(token: str) -> datetime:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size; may be negative.

    What is smaller than a microsecond is cut off towards the past.

    Raises:
        NoInstantError: no number, or a time outside the years that Python knows.
    """
    if not _NUMBER.fullmatch(token):
        raise NoInstantError("its time is no number")
    if token.lstrip("-").isdigit():
        return of_epoch(int(token))
    number = Decimal(token)
    unit = next((unit for limit, unit in _UNITS if abs(number) < limit), _NANOSECOND)
    try:
        return _EPOCH + timedelta(microseconds=int((number * unit).to_integral_value(rounding="ROUND_FLOOR")))
    except (OverflowError, ArithmeticError):
        raise NoInstantError("its time is outside the years 1 to 9999") from None


def of_epoch(number: int) -> datetime:
    """As ``parse_epoch``, of a whole number."""
    if number in _EXACT_MILLISECONDS:
        return datetime.fromtimestamp(number / 1000, UTC)
    size = abs(number)
    if size < 10**11:
        microseconds = number * 1_000_000
    elif size < 10**14:
        microseconds = number * 1000
    else:
        microseconds = number if size < 10**17 else number // 1000
    try:
        return _EPOCH + timedelta(0, 0, microseconds)
    except OverflowError:
        raise NoInstantError("its time is outside the years 1 to 9999") from None


def texts(instants: Sequence[datetime]) -> list[bytes]:
    """Times in ISO 8601, as PostgreSQL reads them; of one at least."""
    return msgspec.json.encode(instants)[2:-2].split(b'","')


def check_plausible(instant: datetime, now: datetime) -> datetime:
    """The same instant, where it lies after 1900 and not a year ahead.

    Raises:
        NoInstantError: it does not.
    """
    if not EARLIEST <= instant < now + FUTURE:
        raise NoInstantError("its time is before 1900 or more than a year ahead")
    return instant

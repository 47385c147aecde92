"""UTC days and retention: which days are aged, and when a day comes of age. Not here: which days have rows.

A day is a ``datetime.date`` and means the half-open window ``[D 00:00, D+1 00:00)`` in UTC. Day D is aged when all of
it lies before *now - retention*.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache

from dateutil.relativedelta import relativedelta

from event_archive.errors import ConfigurationError

EARLIEST_START = date(1000, 1, 1)
"""Of the days that can be archived: Dagster writes the years before with fewer digits."""
ONE_DAY = timedelta(days=1)
ONE_HOUR = timedelta(hours=1)

_UNIT_DAYS = {"day": 1, "week": 7}
_UNIT_MONTHS = {"month": 1, "year": 12}
_WORDS = re.compile(r"(\d+)\s*(year|month|week|day)s?", re.IGNORECASE)
_ISO = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?", re.IGNORECASE)
# More is a mistake, and dates would leave the years that Python knows.
_MAX_YEARS = 100
# After so many years the lengths of months repeat.
_GREGORIAN_CYCLE_YEARS = 400


def iso(moment: datetime) -> str:
    """An aware time as it is written everywhere: ``2024-03-01T00:00:00Z``, with microseconds where there are any."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


@dataclass(frozen=True, slots=True)
class Retention:
    """A calendar duration. Subtracting takes the months first, to the last day of a shorter month, then the days,
    as PostgreSQL does with an ``interval``.
    """

    months: int
    days: int

    @classmethod
    def parse(cls, text: str) -> "Retention":
        """Reads ``1 year``, ``6 months``, ``90 days``, ``2 weeks``, ``1 year 6 months``, or ISO 8601 ``P1Y6M``.

        Raises:
            ValueError: not a duration, zero, negative, or longer than 100 years.
        """
        amounts = _amounts(text.strip())
        months = sum(amount * _UNIT_MONTHS[unit] for amount, unit in amounts if unit in _UNIT_MONTHS)
        days = sum(amount * _UNIT_DAYS[unit] for amount, unit in amounts if unit in _UNIT_DAYS)
        if not months and not days:
            raise ValueError("is not a calendar duration of at least one day; write it like '1 year', '90 days' or P1Y")
        if months > _MAX_YEARS * 12 or days > _MAX_YEARS * 366:
            raise ValueError(f"is longer than {_MAX_YEARS} years")
        return cls(months, days)

    def __str__(self) -> str:
        years, months = divmod(self.months, 12)
        parts = [(years, "year"), (months, "month"), (self.days, "day")]
        return " ".join(f"{n} {unit}{'s' if n > 1 else ''}" for n, unit in parts if n)

    @property
    def fewest_days(self) -> int:
        """The fewest days that this duration can span: 365 for a year, 28 for a month, 181 for six months."""
        return _fewest_days(self.months) + self.days

    def before(self, moment: datetime) -> datetime:
        """*moment - retention*: rows from this instant on are too young."""
        return moment.astimezone(UTC) - relativedelta(months=self.months) - timedelta(days=self.days)

    def last_aged_day(self, now: datetime) -> date:
        """The youngest day that is aged at ``now``, which must be aware."""
        return self.before(now).date() - ONE_DAY

    def comes_of_age(self, day: date) -> date:
        """The date from whose midnight (UTC) on ``day`` is aged.

        Raises:
            OverflowError, ValueError: past the year 9999.
        """
        candidate = day + ONE_DAY + relativedelta(months=self.months) + timedelta(days=self.days)
        while self.last_aged_day(midnight(candidate)) < day:
            candidate += ONE_DAY
        while self.last_aged_day(midnight(candidate - ONE_DAY)) >= day:
            candidate -= ONE_DAY
        return candidate


@cache
def _fewest_days(months: int) -> int:
    # A span that ends on the first of a month is never longer than one that ends later in it.
    firsts = [date(2000 + m // 12, m % 12 + 1, 1).toordinal() for m in range(_GREGORIAN_CYCLE_YEARS * 12)]
    cycle_days = date(2000 + _GREGORIAN_CYCLE_YEARS, 1, 1).toordinal() - firsts[0]
    wrapped = firsts + [first + cycle_days for first in firsts[:months]]
    return min(wrapped[m + months] - firsts[m] for m in range(len(firsts)))


def _amounts(text: str) -> list[tuple[int, str]]:
    if iso := _ISO.fullmatch(text):
        return [(int(n), unit) for n, unit in zip(iso.groups(), ("year", "month", "week", "day"), strict=True) if n]
    if re.fullmatch(rf"{_WORDS.pattern}(?:\s+{_WORDS.pattern})*", text, re.IGNORECASE):
        return [(int(n), unit.lower()) for n, unit in _WORDS.findall(text)]
    return []


def midnight(day: date) -> datetime:
    """The first instant of a day, UTC."""
    return datetime.combine(day, time(), UTC)


def now_utc() -> datetime:
    """The present by this machine's clock, UTC."""
    return datetime.now(UTC)


def parse_day(text: str) -> date:
    """Reads ``YYYY-MM-DD``.

    Raises:
        ConfigurationError: anything else, another ISO 8601 form of a date included.
    """
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise ConfigurationError(f"{text!r} is not a day; write it as YYYY-MM-DD, like 2024-03-01.")


def day_range(first: date, last: date) -> Iterator[date]:
    """Each day from ``first`` to ``last``, both included."""
    for ordinal in range(first.toordinal(), last.toordinal() + 1):
        yield date.fromordinal(ordinal)

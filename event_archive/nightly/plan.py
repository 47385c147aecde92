"""stub"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a day was last tried."""

    at: str = ""
    failed: bool = False


def plan(
    days: Iterable[date],
    attempts: Mapping[date, Attempt],
    held: Collection[date],
    *,
    now: datetime,
    most: int | None = None,
) -> list[date]:
    """Stub."""
    return sorted(days)[:most]

"""What an API's headers say: how many requests are left, until when, how long to wait, and where the next page is.

``X-RateLimit-*``, the IETF's ``RateLimit`` and ``RateLimit-*`` (draft-ietf-httpapi-ratelimit-headers), ``Retry-After``
(RFC 9110, section 10.2.3), ``Link`` (RFC 8288). Not here: what follows from them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 7 * 86_400
"""What is further ahead is no answer."""

_ON_ITS_WAY = timedelta(seconds=15)

_LINK = re.compile(r'<([^>]*)>((?:[^,"]|"[^"]*")*)')
_RELATIONS = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)
_DELTA_BELOW, _SECONDS_BELOW = 1e9, 1e11
"""A reset is told apart by its size: below the first, seconds from now; below the second, epoch seconds; else ms."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What a response says of the limit.

    Attributes:
        limit: requests in a window; None where it is not told.
        remaining: requests left in this one.
        reset_seconds: from now until the next one.
        reset_form: how that is written, in words; empty where it is not told.
    """

    limit: int | None
    remaining: int | None
    reset_seconds: float | None
    reset_form: str = ""


def quota(headers: Mapping[str, str], now: datetime) -> Quota:
    """Reads the limit.

    Args:
        headers: of a response, their names in lower case.
        now: this machine's clock; the response's own ``Date`` comes first.
    """
    date = _date(headers.get("date", "")) or now
    draft = headers.get("ratelimit", "")
    policy = headers.get("ratelimit-policy", "")
    limit = _whole(headers.get("x-ratelimit-limit") or headers.get("ratelimit-limit") or _part(policy, "q"))
    remaining = _whole(
        headers.get("x-ratelimit-remaining") or headers.get("ratelimit-remaining") or _part(draft, "r", "remaining")
    )
    reset = headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset") or _part(draft, "t", "reset")
    return Quota(limit or _whole(_part(draft, "limit")), remaining, *_until(reset.strip(), date))


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """How many seconds to wait; None where there is no such header, or it says nothing that makes sense."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?\s*s?", text):
        return float(text.rstrip("s "))
    moment = _date(text)
    if moment is None:
        return None
    return max(0.0, (moment - (_date(headers.get("date", "")) or now)).total_seconds())


def ahead_of(headers: Mapping[str, str], now: datetime) -> timedelta:
    """How far a clock is ahead of the API's, or behind it, as a response tells, if it is more than that takes."""
    ahead = now - (_date(headers.get("date", "")) or now)
    return ahead if abs(ahead) > _ON_ITS_WAY else timedelta(0)


def _until(text: str, date: datetime) -> tuple[float | None, str]:
    """Seconds until a reset, however it is written, and how it is."""
    form = "seconds from then on"
    if re.fullmatch(r"\d{1,16}(\.\d{1,9})?", text):
        number = float(text)
        if number >= _DELTA_BELOW:
            unit, form = (1, "seconds since 1970") if number < _SECONDS_BELOW else (1000, "milliseconds since 1970")
            number = number / unit - date.timestamp()
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None, ""
        moment, form = moment if moment.tzinfo else moment.replace(tzinfo=UTC), "a date"
        number = (moment - date).total_seconds()
    return min(max(0.0, number), LONGEST_SECONDS), form


def _part(value: str, *names: str) -> str:
    """A parameter of a structured field: of ``"default";r=50;t=30``, or ``limit=100, remaining=50, reset=5``."""
    found = re.search(rf"(?:^|[;,\s])(?:{'|'.join(names)})=\"?(\d+)", value)
    return found[1] if found else ""


def _whole(text: str | None) -> int | None:
    # ``100, 100;w=60`` tells the limit, and then the policies it is made of.
    found = re.match(r"\s*(\d{1,9})\b", text or "")
    return int(found[1]) if found else None


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def next_link(header: str) -> str | None:
    """The address with ``rel="next"`` of a Link header (RFC 8288)."""
    for address, parameters in _LINK.findall(header):
        relations = _RELATIONS.search(parameters)
        if relations and "next" in (relations[1] or relations[2] or "").lower().split():
            return str(address)
    return None

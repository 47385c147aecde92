"""Which events a page shows, and how it is written. Not here: what goes wrong on the way."""

import base64
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from event_archive_tests.api_server.events import microseconds
from event_archive_tests.api_server.switches import Switches


@dataclass(frozen=True)
class Cursor:
    """Where a client is.

    Attributes:
        last: the number of the last event it was shown; None before the first.
        issued_at: when it was, in seconds since 1970.
        issued_with: with which request.
    """

    last: int | None
    issued_at: float
    issued_with: int

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(json.dumps([self.last, self.issued_at, self.issued_with]).encode()).decode()

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises ValueError where the API never wrote it."""
        last, issued_at, issued_with = json.loads(base64.urlsafe_b64decode(text))
        return cls(last, issued_at, issued_with)


@dataclass(frozen=True)
class Query:
    """What a request asks for; window in microseconds since 1970, ``start`` and ``limit`` in events."""

    limit: int
    cursor: Cursor | None
    start: int
    since: int | None
    until: int | None


@dataclass(frozen=True)
class Page:
    """The events of a page, by number, whether there are more, and after which one they come."""

    numbers: Sequence[int]
    has_more: bool
    last: int | None


def query(parameters: Mapping[str, str], switches: Switches) -> Query:
    """What the parameters of a request ask for.

    Raises:
        ValueError: one of them is nothing that the API knows.
    """
    limit = min(int(parameters.get("limit", switches.default_limit)), switches.max_limit)
    if limit < 1:
        raise ValueError("limit")
    cursor = start = None
    match switches.pagination:
        case "cursor" | "link":
            cursor = Cursor.parse(parameters["cursor"]) if parameters.get("cursor") else None
        case "page":
            start = (int(parameters.get("page", 1)) - 1) * limit
        case "offset":
            start = int(parameters.get("offset", 0))
    window = [parameters.get(name) if switches.time_filter else None for name in ("since", "until")]
    since, until = (microseconds(when) if when else None for when in window)
    return Query(limit, cursor, start or 0, since, until)


def page(numbers: Sequence[int], asked: Query, switches: Switches) -> Page:
    """The page of a listing, which is given in the order in which events came."""
    start = asked.start
    ordered = numbers = numbers[switches.deleted :]
    last = asked.cursor.last if asked.cursor else None
    if switches.order == "newest":
        ordered = numbers[::-1]
        start += bisect_right(ordered, -last, key=int.__neg__) if last is not None else 0
    else:
        start += bisect_right(ordered, last) if last is not None else 0
    start = max(0, start - switches.duplicates_at_borders)
    shown = ordered[start : start + asked.limit]
    has_more = bool(shown) if switches.more_until_empty else start + asked.limit < len(ordered)
    twice = shown[: switches.duplicates_within]
    return Page([*twice, *shown] if twice else shown, has_more, shown[-1] if shown else last)


def body(texts: Sequence[bytes], told: Mapping[str, Any], switches: Switches) -> bytes:
    """A page in its envelope, with what is told: ``hasMore``, ``nextCursor``, ``limit``, ``total`` and the like."""
    names = switches.names
    data = b"null" if switches.null_when_empty and not texts else b"[%b]" % b",".join(texts)
    if switches.envelope == "bare":
        return data
    name = _json(names.get("data", "data"))
    fields = {names.get(field, field): value for field, value in told.items() if field not in ("total", "returned")}
    total = {names.get("total", "total"): told["total"]}
    if switches.envelope == "flat":
        flat = {key: fields[key] for key in (names.get(field, field) for field in ("hasMore", "nextCursor"))}
        return b"{%b:%b,%b" % (name, data, _json(flat | (total if switches.with_total else {}))[1:])
    meta = total | {"returned": told["returned"]}
    rest = {names.get("pagination", "pagination"): fields, "meta": meta}
    inner = b"{%b:%b,%b" % (name, data, _json(rest)[1:])
    return inner if switches.envelope == "pagination" else b'{"success":true,%b:%b}' % (name, inner)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()

"""The API itself: what it answers to a request for events. Not here: sockets."""

import gzip
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any
from urllib.parse import urlencode

from event_archive_tests.api_server import pages
from event_archive_tests.api_server.clock import Clock
from event_archive_tests.api_server.events import Events
from event_archive_tests.api_server.quota import Quota, limit_headers, retry_after
from event_archive_tests.api_server.switches import Fault, Switches


@dataclass(frozen=True)
class Request:
    """A request for events.

    Attributes:
        address: scheme, host and path, as the client has it.
        path: the path alone.
        parameters: of the query.
        headers: by lower-case name.
    """

    address: str
    path: str
    parameters: dict[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """A response, and what goes wrong while it is sent."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False
    fault: Fault | None = None


@dataclass(frozen=True)
class Served:
    """A request that was answered.

    Attributes:
        path: asked for.
        params: of the query.
        status: answered; 0 for silence.
        time: when it was answered, in seconds since 1970 by the API's clock.
        key: sent in the header with the key.
        at_once: how many requests were under way, this one included.
    """

    path: str
    params: dict[str, str]
    status: int
    time: float
    key: str | None
    at_once: int


class Api:
    """Events, switches, and a log of what was asked; safe to use from several threads.

    Attributes:
        served: the log.
        answered: told whenever the log grows; its lock is the API's.
    """

    def __init__(self, events: Events, key: str, switches: Switches, clock: Clock = time.time) -> None:
        self.events = events
        self.key = key
        self.served: list[Served] = []
        self.answered = threading.Condition()
        self._clock = clock
        self._at_once = 0
        self.switch(switches)

    @property
    def switches(self) -> Switches:
        """As they were last set."""
        return self._switches

    def switch(self, switches: Switches) -> None:
        """Sets them; whatever is counted begins anew, but for a quota that stays as it was."""
        with self.answered:
            before = getattr(self, "_switches", None)
            self._switches = switches
            self._requests = 0
            self._met = [0] * len(switches.faults)
            self._issued: list[str] = []
            quota = _quota(switches)
            if not before or _quota(before) != quota:
                limit, seconds, sliding = quota
                self._quota = Quota(limit, seconds, self.now, sliding=sliding) if limit else None

    def now(self) -> float:
        """The API's time, in seconds since 1970."""
        return self._clock() + self._switches.clock_error_seconds

    def add(self, texts: Iterable[str]) -> None:
        """Takes in events as JSON texts; see :meth:`Events.add`."""
        with self.answered:
            self.events.add(texts)

    @contextmanager
    def under_way(self) -> Iterator[int]:
        """How many requests are, this one included, which is until the context is left."""
        with self.answered:
            self._at_once += 1
            at_once = self._at_once
        try:
            yield at_once
        finally:
            with self.answered:
                self._at_once -= 1

    def answer(self, request: Request, at_once: int) -> Answer:
        """What the client gets; written into the log."""
        with self.answered:
            now = self.now()
            answer = self._answer(request)
            status = 0 if answer.fault and answer.fault.kind == "silence" else answer.status
            key = request.headers.get(self._switches.key_header.lower())
            self.served.append(Served(request.path, request.parameters, status, now, key, at_once))
            self.answered.notify_all()
        return replace(answer, headers={"Date": formatdate(now, usegmt=True)} | answer.headers)

    def _answer(self, request: Request) -> Answer:
        switches = self._switches
        self._requests += 1
        if switches.outage:
            return _error(503, "UNAVAILABLE")
        refused = switches.unauthorized_from is not None and self._requests >= switches.unauthorized_from
        key = request.headers.get(switches.key_header.lower(), "")
        if refused or key.removeprefix("Bearer ") != self.key:
            return _error(401, "UNAUTHORIZED")
        headers: dict[str, str] = {}
        if self._quota:
            standing = self._quota.take(switches.foreign_per_request)
            headers = limit_headers(standing, switches.limit_headers)
            if not standing.allowed:
                refusal = _error(switches.limit_status, "RATE_LIMIT_EXCEEDED")
                return replace(refusal, headers=refusal.headers | headers | retry_after(standing, switches.retry_after))
        fault = self._fault(request.parameters)
        if fault and fault.kind == "answer":
            return Answer(fault.status, fault.body, {"Content-Type": "application/json"} | headers | fault.headers)
        answer = self._page(request)
        return replace(answer, headers=answer.headers | headers, fault=fault)

    def _fault(self, parameters: Mapping[str, str]) -> Fault | None:
        """The fault that happens to this request; those before it in the list that might have are counted."""
        for at, fault in enumerate(self._switches.faults):
            limit = int(parameters.get("limit", self._switches.default_limit))
            if fault.above_limit is not None and limit <= fault.above_limit:
                continue
            if fault.with_cursor and not parameters.get("cursor"):
                continue
            self._met[at] += 1
            if self._met[at] >= fault.first and (fault.count is None or self._met[at] < fault.first + fault.count):
                return fault
        return None

    def _page(self, request: Request) -> Answer:
        switches = self._switches
        try:
            asked = pages.query(request.parameters, switches)
        except (ValueError, TypeError, KeyError):
            return _error(400, "INVALID_PARAMETER")
        if asked.cursor and self._expired(asked.cursor):
            return _error(int(switches.expired), "CURSOR_EXPIRED")
        if self._requests <= switches.arriving_requests:
            self.events.count += switches.arriving
        listing = self.events.between(asked.since, asked.until)
        if switches.late_every and self._requests <= switches.late_requests:
            listing = [number for number in listing if (number + 1) % switches.late_every]
        page = pages.page(listing, asked, switches)
        if self._requests <= switches.empty_pages:
            page = pages.Page([], has_more=True, last=asked.cursor.last if asked.cursor else None)
        if switches.missing_pages and not page.numbers and asked.start:
            return _error(404, "NOT_FOUND")
        cursor = self._next_cursor(page)
        told = {
            "limit": asked.limit,
            "hasMore": page.has_more,
            "nextCursor": cursor,
            "cursorExpiresIn": 116 if switches.cursor_seconds is None else int(switches.cursor_seconds),
            "returned": len(page.numbers),
            "total": len(listing) + switches.total_error,
        }
        body = pages.body(self._texts(page), told, switches)
        return self._packed(request, body, {"Content-Type": "application/json"} | self._link(request, cursor))

    def _expired(self, cursor: pages.Cursor) -> bool:
        seconds, requests = self._switches.cursor_seconds, self._switches.cursor_requests
        too_old = seconds is not None and self.now() - cursor.issued_at >= seconds
        return too_old or (requests is not None and self._requests - cursor.issued_with > requests)

    def _texts(self, page: pages.Page) -> list[bytes]:
        bad, after = self._switches.bad_events, self._switches.bad_after
        if not bad or after not in page.numbers:
            return self.events.texts(page.numbers)
        at = page.numbers.index(after) + 1
        return [*self.events.texts(page.numbers[:at]), *bad, *self.events.texts(page.numbers[at:])]

    def _next_cursor(self, page: pages.Page) -> str | None:
        kind = self._switches.cursors
        if kind == "missing" or not (page.has_more or kind == "on-last"):
            return None
        issued = self._issued
        if len(issued) < {"repeat": 1, "cycle": 2}.get(kind, len(issued) + 1):
            issued.append(str(pages.Cursor(page.last, self.now(), self._requests)))
            return issued[-1]
        issued.reverse()
        return issued[-1]

    def _link(self, request: Request, cursor: str | None) -> dict[str, str]:
        if self._switches.pagination != "link":
            return {}
        rest = {name: value for name, value in request.parameters.items() if name != "cursor"}
        first = f"<{request.address}?{urlencode(rest)}>"
        following = [f"<{request.address}?{urlencode(rest | {'cursor': cursor})}>"] if cursor else []
        match self._switches.links:
            case "one line":
                return {"Link": ", ".join([f'{first}; rel="first"', *(f'{link}; rel="next"' for link in following)])}
            case "lines":
                # The last line's would stay, where one took the place of another.
                return {
                    "Link": "\r\nLink: ".join([*(f'{link}; rel="next"' for link in following), f"{first}; rel=first"])
                }
            case "loose":
                return {
                    "Link": ",".join(
                        [f"{first};rel=first", *(f'{link} ; title="a, b"; REL = Next' for link in following)]
                    )
                }

    def _packed(self, request: Request, body: bytes, headers: dict[str, str]) -> Answer:
        if self._switches.gzip and "gzip" in request.headers.get("accept-encoding", ""):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers = headers | {"Content-Encoding": "gzip"}
        return Answer(200, body, headers, self._switches.chunked)


def _quota(switches: Switches) -> tuple[int | None, float, bool]:
    return switches.limit_requests, switches.limit_seconds, switches.limit_sliding


def _error(status: int, code: str) -> Answer:
    body: dict[str, Any] = {"error": {"code": code, "message": code.replace("_", " ").lower()}}
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

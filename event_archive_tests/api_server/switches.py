"""All that can be switched about the API, while it runs. Not here: what the switches do."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from event_archive_tests.api_server.quota import LimitHeaders

_CURSOR_EXPIRED = b'{"error":{"code":"CURSOR_EXPIRED","message":"the cursor has expired"}}'


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_bytes="base64", val_json_bytes="base64")


class Fault(_Model):
    """What happens to some of the requests for events.

    Attributes:
        kind: ``answer`` in place of the page; ``silence``: no answer; ``dribble``: the page byte by byte;
            ``cut``: a part of the body, whose length says more; ``cut-whole-chunks``: a part of it in chunks that end
            as they should; ``reset``: a part of the answer, then a reset; ``bomb``: gzip of many blanks;
            ``giant``: the page with many blanks before it.
        first: the number of the first request it happens to, among those it may happen to, from 1.
        count: to how many; None for all from there on.
        above_limit: only where more events are asked for than this.
        with_cursor: only where a cursor is given.
        status: of ``answer``.
        headers: of ``answer``.
        body: of ``answer``.
        fraction: the part that is sent.
        seconds: how long the silence lasts, or each byte takes.
        decoded_bytes: of ``bomb`` and ``giant``.
    """

    kind: Literal["answer", "silence", "dribble", "cut", "cut-whole-chunks", "reset", "bomb", "giant"]
    first: int = 1
    count: int | None = 1
    above_limit: int | None = None
    with_cursor: bool = False
    status: int = 500
    headers: dict[str, str] = Field(default_factory=dict)
    body: bytes = b""
    fraction: float = 0.5
    seconds: float = 3600
    decoded_bytes: int = 0


class Switches(_Model):
    """How the API behaves. The counts below begin anew whenever a switch is set.

    Attributes:
        envelope: ``flat``: all beside ``data``; ``pagination``: under that name, with ``meta``; ``nested``: that
            again under ``data``; ``bare``: a list and nothing else.
        names: other names for ``data``, ``pagination``, ``hasMore``, ``nextCursor``, ``total``.
        total_error: what the total is off by.
        with_total: ``flat`` has a total too.
        null_when_empty: ``null`` for an empty list.
        pagination: how the next page is asked for. ``link``: the address stands in the Link header.
        order: of the events.
        max_limit: above which a limit is silently lowered.
        default_limit: where none is asked for.
        time_filter: ``since`` and ``until`` are heeded.
        duplicates_at_borders: so many last events of a page stand on the next one again.
        duplicates_within: so many events of a page stand there twice.
        arriving: so many new events come with each request,
        arriving_requests: for so many requests.
        late_every: each so many-th event is not to be seen,
        late_requests: for so many requests.
        deleted: so many events that came first are not there any more.
        bad_events: raw bytes put into the list after the event of that number in
        bad_after: the order in which events came.
        empty_pages: so many requests get an empty page and ``hasMore`` first.
        more_until_empty: ``hasMore`` until a page is empty.
        links: how links are written: on one line, on a line each, or with spaces and capitals that RFC 8288 allows.
        missing_pages: 404 in place of an empty page behind the first.
        cursors: ``repeat``: the same for ever; ``cycle``: A, B, A; ``missing``: none; ``on-last``: after all pages.
        cursor_seconds: how long a cursor is good, by the API's clock.
        cursor_requests: for how many further requests.
        expired: how an expired cursor is refused; ``200``: an error object under that status.
        key_header: the header with the key.
        unauthorized_from: the number of the first request whose key is refused.
        limit_requests: requests allowed in
        limit_seconds: a window; None for no limit.
        limit_sliding: at any time, not in windows that follow one another.
        limit_headers: how answers tell where the client stands.
        limit_status: of a refusal.
        retry_after: ``seconds``, ``date``, ``absent``, or the header's text as it stands.
        foreign_per_request: requests of somebody else, of the same quota, before each request.
        latency_ms: before each answer.
        gzip: bodies are compressed for those who take it.
        chunked: bodies are sent in chunks.
        outage: 503 to everything.
        clock_error_seconds: what the API's clock is off by.
        faults: what happens to some requests; the first that matches does.
    """

    envelope: Literal["flat", "pagination", "nested", "bare"] = "flat"
    names: dict[str, str] = Field(default_factory=dict)
    total_error: int = 0
    with_total: bool = False
    null_when_empty: bool = False

    pagination: Literal["cursor", "page", "offset", "link"] = "cursor"
    order: Literal["oldest", "newest"] = "oldest"
    max_limit: int = 5000
    default_limit: int = 100
    time_filter: bool = True
    duplicates_at_borders: int = 0
    duplicates_within: int = 0
    arriving: int = 0
    arriving_requests: int = 0
    late_every: int = 0
    late_requests: int = 0
    deleted: int = 0
    bad_events: tuple[bytes, ...] = ()
    bad_after: int = 0
    empty_pages: int = 0
    more_until_empty: bool = False
    links: Literal["one line", "lines", "loose"] = "one line"
    missing_pages: bool = False

    cursors: Literal["right", "repeat", "cycle", "missing", "on-last"] = "right"
    cursor_seconds: float | None = None
    cursor_requests: int | None = None
    expired: Literal["400", "410", "200"] = "400"

    key_header: str = "X-API-Key"
    unauthorized_from: int | None = None
    limit_requests: int | None = None
    limit_seconds: float = 60
    limit_sliding: bool = False
    limit_headers: LimitHeaders = "x-delta"
    limit_status: Literal[429, 403] = 429
    retry_after: str = "seconds"
    foreign_per_request: int = 0

    latency_ms: float = 0
    gzip: bool = False
    chunked: bool = False
    outage: bool = False
    clock_error_seconds: float = 0
    faults: tuple[Fault, ...] = ()


def status(code: int, *, first: int = 1, count: int | None = 1, above_limit: int | None = None) -> Fault:
    """An answer of that status with an error object."""
    body = b'{"error":{"code":"%d"}}' % code
    return Fault(kind="answer", status=code, body=body, first=first, count=count, above_limit=above_limit)


def cursor_expired(*, first: int = 1, count: int | None = 1) -> Fault:
    """A cursor that is refused at once."""
    return Fault(kind="answer", status=400, body=_CURSOR_EXPIRED, first=first, count=count, with_cursor=True)


def html(*, first: int = 1, count: int | None = 1) -> Fault:
    """A page of a proxy, with 200."""
    body = b"<!DOCTYPE html><html><body><h1>Scheduled maintenance</h1></body></html>"
    return Fault(kind="answer", status=200, headers={"Content-Type": "text/html"}, body=body, first=first, count=count)


def error_object(*, first: int = 1, count: int | None = 1) -> Fault:
    """An error told under 200."""
    body = b'{"success":false,"error":{"code":"INTERNAL","message":"something went wrong"}}'
    return Fault(kind="answer", status=200, body=body, first=first, count=count)


def redirect(to: str, code: Literal[301, 302, 307] = 302, *, first: int = 1, count: int | None = 1) -> Fault:
    """An answer that sends the client to another address."""
    return Fault(kind="answer", status=code, headers={"Location": to}, first=first, count=count)

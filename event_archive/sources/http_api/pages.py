"""A body as a page of events: where the list is, whether more follows, and by which cursor.

Not here: how bodies are fetched, what an event is.
"""

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from event_archive.config.sources import ApiSettings
from event_archive.errors import EventArchiveError
from event_archive.sources.json_text import list_at

_DATA = (("data",), ("data", "data"), ("events",), ("items",), ("results",), ("records",), ())
"""Where the list of events may be, in this order; last, the document itself."""
_AROUND = ((), ("pagination",), ("data", "pagination"), ("data",), ("meta",), ("meta", "pagination"))
"""Around the list, where the names below may stand."""
_HAS_MORE = ("hasMore", "has_more")
_NEXT_CURSOR = ("nextCursor", "next_cursor")
_EXPIRES_IN = ("cursorExpiresIn",)
_TOTAL = ("total",)
_ERRORS = ("error", "errors")
_SUCCESS = ("success", "ok", "isSuccess")
_STATUS = ("status", "result", "code", "statusCode", "status_code")
"""Beside a list without events they may say that there is none for another reason than the end."""
_NO_ERROR, _FAILED = ("0", "none", "null", "false", "ok"), ("error", "fail", "failed", "failure")

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_DEEPEST = 2
"""Levels at which a page may hold its list."""
_MOST_OF_ANYTHING = 10**18
_NAME = re.compile(r"[A-Za-z_]\w{0,39}", re.ASCII)
_HTML = re.compile(rb"\s*<(!doctype\s+)?html\b", re.IGNORECASE)
_NO_EVENTS = msgspec.Raw(b"[]")
_EMPTY = re.compile(rb"\s*\[\s*\]\s*")

Document = Mapping[tuple[str, ...], msgspec.Raw]
"""The values of a document and of the objects in it, by the keys that lead there."""


class PageError(EventArchiveError):
    """A body is no page of events.

    Attributes:
        cut_short: it may be whole at another try.
        body: what came in its place, where that is a page of HTML; a proxy's, which may repeat the key.
    """

    def __init__(self, message: str, *, cut_short: bool, body: bytes = b"") -> None:
        super().__init__(message)
        self.cut_short, self.body = cut_short, body


@dataclass(frozen=True, slots=True)
class Fields:
    """Names that an API has of its own, as the keys that lead there; None for those that are known."""

    data: tuple[str, ...] | None = None
    has_more: tuple[str, ...] | None = None
    next_cursor: tuple[str, ...] | None = None
    total: tuple[str, ...] | None = None


def fields(settings: ApiSettings) -> Fields:
    """The names that the settings give."""
    names = (
        settings.api_data_field,
        settings.api_has_more_field,
        settings.api_next_cursor_field,
        settings.api_total_field,
    )
    return Fields(*(tuple(name.split(".")) if name else None for name in names))


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Attributes:
        events: each as it came.
        text: the list of them as it came; None where one of them is not quite JSON.
        has_more: whether more follows; None where the page does not say.
        cursor: of the next page, as text; None where there is none.
        expires_seconds: how long that cursor holds, where it is told.
        total: how many events there are, where it is told.
    """

    events: Sequence[bytes | msgspec.Raw]
    text: msgspec.Raw | None
    has_more: bool | None
    cursor: str | None
    expires_seconds: float | None = None
    total: int | None = None

    def expires(self, now: datetime) -> datetime | None:
        """Until when that cursor holds; None where it is not told, or leads out of the calendar."""
        try:
            return None if self.expires_seconds is None else now + timedelta(seconds=self.expires_seconds)
        except OverflowError:
            return None


def read_page(body: bytes, fields: Fields) -> Page:
    """Reads a page. An event that is not quite JSON is kept as it came, beside the others.

    Raises:
        PageError: no JSON, or no list of events in it: an error of the API's in spite of its status, say.
    """
    loose: dict[tuple[str, ...], list[bytes]] = {}
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        document = _document(body)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        document = _document_around(body, fields, loose)
    # null stands for an empty list only where there is none.
    lists = [path for path in _paths(fields) if _is_list(document.get(path))]
    path = next((path for path in lists if _or_none(document[path]) is not None), next(iter(lists), None))
    if path and _is_empty(document[path]):
        full = next((of for of in lists if not _is_empty(document[of])), None)
        if full:
            raise PageError(
                f"the answer has an empty list {'.'.join(path)}, and another one that is not, {'.'.join(full)}: "
                "API_DATA_FIELD says which one holds the events",
                cut_short=False,
            )
    if path is None:
        raise PageError(f"the answer has no list of events in it{_error_in(document)}", cut_short=False)
    text = None if path in loose else _or_none(document[path]) or _NO_EVENTS
    events = loose[path] if text is None else _LIST.decode(text)
    if not events and _has_failed(document):
        raise PageError(f"the answer has an error in place of events{_error_in(document)}", cut_short=False)
    return Page(
        events=events,
        text=text,
        has_more=_boolean(_found(document, fields.has_more, _HAS_MORE)),
        cursor=_cursor(document, fields),
        expires_seconds=_number(_found(document, None, _EXPIRES_IN)),
        total=_whole(_number(_found(document, fields.total, _TOTAL))),
    )


def _paths(fields: Fields) -> Sequence[tuple[str, ...]]:
    return _DATA if fields.data is None else (fields.data,)


def _document(body: bytes) -> Document:
    """Raises MsgspecError where the body is not JSON throughout."""
    found: dict[tuple[str, ...], msgspec.Raw] = {(): msgspec.Raw(body)}
    start = bytes(body).lstrip()[:1]
    if start == b"{":
        _open((), found)
    elif start == b"[":
        _LIST.decode(body)
    else:
        # A text, a number or null: nothing is in it.
        msgspec.json.decode(body)
        return {}
    return found


def _open(path: tuple[str, ...], found: dict[tuple[str, ...], msgspec.Raw]) -> None:
    """Adds what is in an object, and in the objects in it."""
    if len(path) > _DEEPEST:
        return
    for key, value in _OBJECT.decode(found[path]).items():
        found[*path, key] = value
        if bytes(memoryview(value)[:1]) == b"{":
            _open((*path, key), found)


def _document_around(body: bytes, fields: Fields, loose: dict[tuple[str, ...], list[bytes]]) -> Document:
    """A document whose list may hold what is not quite JSON; the list's elements go into ``loose``."""
    for path in _paths(fields):
        try:
            elements, around = list_at(body, path)
            document = _document(around)
        except (ValueError, RecursionError, msgspec.MsgspecError):
            continue
        loose[path] = elements
        return document
    start = body.lstrip()[:1]
    if start in (b"{", b"["):
        raise PageError(f"the answer is no JSON, or cut short: it has {len(body)} bytes", cut_short=True)
    # Of what may be events, in XML say, nothing is repeated.
    is_page = _HTML.match(body) is not None
    reason = f"the answer is no JSON: it has {len(body)} bytes" if start else "the answer is empty"
    raise PageError("the answer is no JSON" if is_page else reason, cut_short=True, body=body if is_page else b"")


def _error_in(document: Document) -> str:
    # Others may be values of the events themselves.
    keys = ", ".join(sorted(path[0] for path in document if len(path) == 1 and _NAME.fullmatch(path[0]))[:10])
    return f"; it has {keys}" if keys else ""


def _has_failed(document: Document) -> bool:
    """Whether a document says that it holds an error."""

    def told(names: Sequence[str], around: Sequence[tuple[str, ...]] = _AROUND) -> list[Any]:
        return [_found(document, (*path, name), ()) for path in around for name in names]

    return (
        any(map(_is_error, told(_ERRORS)))
        or any(_boolean(value) is False for value in told(_SUCCESS))
        # Elsewhere it may be that of the events.
        or any(map(_is_failure, told(_STATUS, ((), ("meta",)))))
    )


def _is_error(value: Any) -> bool:
    """Whether what stands where errors are told is one."""
    if isinstance(value, dict):
        return str(value.get("code", "")) != "0" and any(value.values())
    return bool(value) and str(value).lower() not in _NO_ERROR


def _is_failure(value: Any) -> bool:
    """Whether a status is that of a failure: a word of JSend's and others', or a number of HTTP's."""
    return str(value).lower() in _FAILED or re.fullmatch("[45][0-9][0-9]", str(value)) is not None


def _is_list(value: msgspec.Raw | None) -> bool:
    return value is not None and (bytes(memoryview(value)).lstrip()[:1] == b"[" or _or_none(value) is None)


def _is_empty(value: msgspec.Raw) -> bool:
    return _or_none(value) is None or _EMPTY.fullmatch(memoryview(value)) is not None


def _or_none(value: msgspec.Raw) -> msgspec.Raw | None:
    return None if bytes(value) == b"null" else value


def _token(document: Document, path: tuple[str, ...] | None, names: Sequence[str]) -> msgspec.Raw | None:
    paths = [(*around, name) for around in _AROUND for name in names] if path is None else [path]
    return next((document[path] for path in paths if path in document), None)


def _found(document: Document, path: tuple[str, ...] | None, names: Sequence[str]) -> Any:
    """The value at a path, else of the first of some names that stands around the list."""
    raw = _token(document, path, names)
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        raise PageError("the answer is no JSON around its events", cut_short=True) from None


def _boolean(value: Any) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())


def _cursor(document: Document, fields: Fields) -> str | None:
    """The cursor as text: a number, an object or a list to the letter."""
    value = _found(document, fields.next_cursor, _NEXT_CURSOR)
    if value in (None, "", [], {}) or isinstance(value, bool):
        return None
    token = _token(document, fields.next_cursor, _NEXT_CURSOR)
    return value if isinstance(value, str) else bytes(token or b"").decode()


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # One of 400 digits is no float.
    return float(value) if is_number and abs(value) < _MOST_OF_ANYTHING else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)

"""One pass over a shard, page after page: each request begins as soon as the page before has told its cursor.

Four kinds of pages: by cursor, by number, by offset, by link. Not here: what the events are, where they land, how a
pass that ended begins again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import urljoin, urlsplit

from event_archive.errors import EventArchiveError, RefusedError
from event_archive.sources.http_api.fetching import Answer, CursorRefusedError, Fetcher, PageSize, StoppedError
from event_archive.sources.http_api.pages import Page
from event_archive.sources.http_api.positions import iso

Pagination = Literal["cursor", "page", "offset", "link"]

MOST_EMPTY_PAGES = 100
"""In a row, of which each says that more follows."""

_MOST_REPEATED = 2
_SHOWN_CURSOR = 40
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Paging:
    """How an API is asked for pages.

    Attributes:
        url: where events are asked for.
        pagination: the kind.
        most: events on a page.
        size_parameter: how many events a page is to hold.
        cursor_parameter: the parameter of the cursor, the page's number or the offset.
        time_filter: the parameters of a window's start and end; None where the API has none.
    """

    url: str
    pagination: Pagination
    most: int
    size_parameter: str
    cursor_parameter: str
    time_filter: tuple[str, str] | None = None

    @property
    def is_counted(self) -> bool:
        """Whether this program counts pages or events, and the API does not tell what follows."""
        return self.pagination in ("page", "offset")


@dataclass(frozen=True, slots=True)
class Start:
    """Where a pass begins: at a cursor, or at the beginning of a window.

    Attributes:
        cursor: of the first page; None for the very first.
        since: the start of the window that is asked for; None for none.
        until: its end.
    """

    cursor: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """One page of a pass.

    Attributes:
        page: the page.
        asked_by: the cursor that it was asked by.
        next: the cursor of the page after it; None where it is the last.
        size_bytes: of its body.
        first: whether the pass began with it at its very beginning.
        is_broken: more follows, and nothing tells where.
    """

    page: Page
    asked_by: str | None
    next: str | None
    size_bytes: int
    first: bool
    is_broken: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a pass.

    Attributes:
        error: why it ended before its last page; None where it did not, or where somebody stopped it.
        cursor_refused: the API does not know the cursor any more.
    """

    error: EventArchiveError | None = None
    cursor_refused: bool = False


def walk(start: Start, paging: Paging, fetcher: Fetcher, emit: Callable[[Fetched], bool]) -> Ended:
    """Fetches every page of a pass.

    Args:
        start: where it begins.
        paging: how pages are asked for.
        fetcher: fetches them.
        emit: takes each page; returns False where no further one is wanted.
    """
    try:
        _walk(start, paging, fetcher, emit)
    except StoppedError:
        return Ended()
    except CursorRefusedError:
        return Ended(cursor_refused=True)
    except EventArchiveError as error:
        return Ended(error)
    return Ended()


def _walk(start: Start, paging: Paging, fetcher: Fetcher, emit: Callable[[Fetched], bool]) -> None:
    # By numbers, a page of another size would leave events out.
    size = PageSize(paging.most, fixed=paging.pagination == "page")
    cursor, before, endless = start.cursor, None, _Endless(paging, start.cursor)
    while True:
        step = _Step(paging, start, cursor, size)
        try:
            answer = fetcher.fetch(step.request, size, cursor=cursor is not None)
        except CursorRefusedError as refused:
            if not (paging.is_counted and refused.status == _NOT_FOUND and cursor != start.cursor):
                raise
            # Behind the last page. That one is there when the next run goes on at it.
            emit(Fetched(Page([], has_more=False, cursor=None), before, None, 0, first=False))
            return
        try:
            following = step.next(answer)
        except RefusedError:
            emit(Fetched(answer.page, cursor, None, answer.size_bytes, cursor is None, is_broken=True))
            raise
        endless.check_page(answer.page, following)
        # Not landed, so that the position stays before it, should it be the same for ever.
        if not endless.is_repeated:
            fetched = Fetched(answer.page, cursor, following, answer.size_bytes, cursor is None)
            if not emit(fetched) or following is None:
                return
        endless.check_cursor(following)
        before, cursor = cursor, following


class _Endless:
    """Notices an API that would be asked for ever."""

    def __init__(self, paging: Paging, cursor: str | None) -> None:
        self._paging, self._seen = paging, {cursor}
        self._empty = self._repeated = 0
        self._last: int | None = None

    @property
    def is_repeated(self) -> bool:
        """Whether the page is the one before again, and more follows."""
        return self._repeated > 0

    def check_page(self, page: Page, following: str | None) -> None:
        """Raises RefusedError where pages come without end that hold no event, or the same ones."""
        self._empty = 0 if page.events else self._empty + 1
        if following is not None and self._empty == MOST_EMPTY_PAGES:
            raise RefusedError(
                f"{self._paging.url} answered {self._empty} empty pages in a row, and says that more follows. What "
                "arrived is kept; tell whoever keeps the API."
            )
        if not self._paging.is_counted:
            return
        content = hash(b"".join(page.events))
        is_same = following is not None and bool(page.events) and content == self._last
        self._repeated, self._last = self._repeated + 1 if is_same else 0, content
        # Once it may be, where as many events arrived as a page holds.
        if self._repeated == _MOST_REPEATED:
            raise RefusedError(
                f"{self._paging.url} answers with the same page again and again, whatever "
                f"{self._paging.cursor_parameter!r} says. What arrived is kept. API_CURSOR_PARAMETER names the "
                "parameter that tells which page is asked for."
            )

    def check_cursor(self, following: str | None) -> None:
        """Raises RefusedError where a cursor comes a second time."""
        if following in self._seen:
            raise RefusedError(
                f"{self._paging.url} gave the cursor {str(following)[:_SHOWN_CURSOR]!r} a second time: it would go "
                "round for ever. What arrived is kept; tell whoever keeps the API."
            )
        self._seen.add(following)


@dataclass(slots=True)
class _Step:
    """One page: how it is asked for, and what follows it."""

    paging: Paging
    start: Start
    cursor: str | None
    size: PageSize

    def request(self) -> tuple[str, Mapping[str, str]]:
        """Address and parameters, for the size that a page has at this attempt."""
        paging, start = self.paging, self.start
        if paging.pagination == "link" and self.cursor is not None:
            return self.cursor, {}
        parameters = {paging.size_parameter: str(self.size.value)}
        if paging.time_filter:
            bounds = zip(paging.time_filter, (start.since, start.until), strict=True)
            parameters |= {name: iso(moment) for name, moment in bounds if moment is not None}
        if paging.pagination == "page":
            parameters[paging.cursor_parameter] = str(self._number)
        elif self.cursor is not None or paging.pagination == "offset":
            parameters[paging.cursor_parameter] = self.cursor or "0"
        return paging.url, parameters

    @property
    def _number(self) -> int:
        """Of this page; the first, where pages were counted by another size."""
        number, _, counted = (self.cursor or "").partition("/")
        return int(number) if counted == str(self.size.value) else 1

    def next(self, answer: Answer) -> str | None:
        """The cursor of the page that follows; None where none does.

        Raises:
            RefusedError: more follows, and nothing says where.
        """
        page, paging = answer.page, self.paging
        if paging.pagination == "link":
            return self._linked(answer)
        if paging.pagination == "cursor":
            return self._cursor_in(answer)
        # A short page is not the end: the API may cap its size without a word.
        if not (bool(page.events) if page.has_more is None else page.has_more):
            return None
        if paging.pagination == "page":
            return f"{self._number + 1}/{self.size.value}"
        return str(int(self.cursor or 0) + len(page.events))

    def _cursor_in(self, answer: Answer) -> str | None:
        page, url = answer.page, self.paging.url
        if page.cursor is not None:
            return None if page.has_more is False else page.cursor
        if page.has_more:
            raise RefusedError(
                f"{url} says that more follows, and gives no cursor for it. What arrived is kept. "
                "API_NEXT_CURSOR_FIELD names the cursor where it has a name of its own."
            )
        if page.has_more is None and answer.link:
            raise RefusedError(
                f"{url} gives no cursor, but a link to the next page: set API_PAGINATION=link. What arrived is kept."
            )
        # Of a window, the total may be that of all windows.
        if page.has_more is None and self.start == Start() and page.total and page.total > len(page.events):
            raise RefusedError(
                f"{url} tells of {page.total} events, gives {len(page.events)}, and says nothing of the next page. "
                "What arrived is kept. API_PAGINATION says how the next page is asked for; API_NEXT_CURSOR_FIELD "
                "names the cursor where it has a name of its own."
            )
        return None

    def _linked(self, answer: Answer) -> str | None:
        if answer.link is None:
            if answer.page.has_more:
                raise RefusedError(
                    f"{self.paging.url} says that more follows, and gives no link to it. What arrived is kept. "
                    "API_PAGINATION says how the next page is asked for."
                )
            return None
        url = urljoin(self.cursor or self.paging.url, answer.link)
        if urlsplit(url)[:2] != urlsplit(self.paging.url)[:2]:
            raise RefusedError(
                f"{self.paging.url} links to another host for the next page, which is not followed, since the key "
                "would go with it."
            )
        return url

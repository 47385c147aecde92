"""One pass over a shard, page after page: each request begins as soon as the page before has told its cursor.

Not here: how a page is asked for, what the events are, where they land, how a pass that ended begins again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from event_archive.errors import EventArchiveError, RefusedError
from event_archive.sources.http_api.fetching import CursorRefusedError, Fetcher, StoppedError
from event_archive.sources.http_api.page_size import PageSize
from event_archive.sources.http_api.pages import Page
from event_archive.sources.http_api.paging import Paging, Start, Step

MOST_EMPTY_PAGES = 100
"""In a row, of which each says that more follows."""

_MOST_REPEATED = 2
_NOT_FOUND = 404
_NOTHING = Page([], None, has_more=False, cursor=None)


@dataclass(frozen=True, slots=True)
class Fetched:
    """One page of a pass.

    Attributes:
        page: the page.
        asked_by: the cursor that it was asked by; where it is the last and holds no event, the last one that did was.
        next: the cursor of the page after it; None where it is the last.
        size_bytes: of its body.
        first: whether the pass began with it at its very beginning.
        is_broken: more follows, and nothing tells where; the next run goes on where this page was asked for.
        ahead: how far this machine's clock is ahead of the API's; less than nothing where it is behind.
    """

    page: Page
    asked_by: str | None
    next: str | None
    size_bytes: int
    first: bool
    is_broken: bool = False
    ahead: timedelta = timedelta(0)


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
    cursor, endless = start.cursor, _Endless(paging, start.cursor)
    # A number stays the same while its page fills up: behind the last page is no place to go on from.
    filled, full = None if paging.pagination == "page" else start.cursor, 0
    while True:
        step = Step(paging, start, cursor, size)
        try:
            answer = fetcher.fetch(step.request, size, cursor=cursor is not None)
        except CursorRefusedError as refused:
            if not (paging.is_counted and refused.status == _NOT_FOUND and cursor != start.cursor):
                raise
            # Behind the last page. That one is there when the next run goes on at it.
            emit(Fetched(_NOTHING, filled, None, 0, first=False))
            return
        try:
            following = step.next(answer)
        except RefusedError:
            first, ahead = cursor is None, answer.ahead
            emit(Fetched(answer.page, cursor, None, answer.size_bytes, first, is_broken=True, ahead=ahead))
            raise
        # One of more events than were asked for may be short, too: the API does not heed that, or caps its pages.
        count = len(answer.page.events) if paging.pagination == "page" and following is not None else 0
        if count not in (0, full or size.value):
            try:
                if _goes_on(fetcher, Step(paging, start, following, size)):
                    # It may have been filled up since; now it is full, and so tells how many events a page holds.
                    answer = fetcher.fetch(step.request, size, cursor=cursor is not None)
                    following, full = step.next(answer), max(full, len(answer.page.events))
                else:
                    following = None
            except (EventArchiveError, CursorRefusedError):
                emit(Fetched(answer.page, cursor, step.here, answer.size_bytes, cursor is None, ahead=answer.ahead))
                raise
        try:
            endless.check_page(answer.page, following)
        except _SamePageError:
            # No number is a place to go on from.
            emit(Fetched(_NOTHING, None, None, 0, first=False, is_broken=True))
            raise
        # Not landed, so that the position stays before it, should it be the same for ever.
        if not endless.is_repeated:
            first, ahead = cursor is None, answer.ahead
            filled = cursor if answer.page.events else filled
            asked_by = filled if following is None else cursor
            fetched = Fetched(answer.page, asked_by, following, answer.size_bytes, first, ahead=ahead)
            if not emit(fetched) or following is None:
                return
        endless.check_cursor(following)
        cursor = following


def _goes_on(fetcher: Fetcher, step: Step) -> bool:
    """Whether a page behind a short one holds an event, or says that more follows."""
    try:
        page = fetcher.fetch(step.request, step.size, cursor=True).page
    except CursorRefusedError as refused:
        if refused.status == _NOT_FOUND:
            return False
        raise
    return bool(page.events or page.has_more)


class _SamePageError(RefusedError):
    """The API does not heed which page is asked for."""


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
        content = hash(b"".join(page.events) if page.text is None else bytes(page.text))
        is_same = following is not None and bool(page.events) and content == self._last
        self._repeated, self._last = self._repeated + 1 if is_same else 0, content
        # Once it may be, where as many events arrived as a page holds.
        if self._repeated < _MOST_REPEATED:
            return
        url, name = self._paging.url, self._paging.cursor_parameter
        if self._paging.is_counted:
            raise _SamePageError(
                f"{url} answers with the same page again and again, whatever {name!r} says. What arrived is kept. "
                "API_CURSOR_PARAMETER names the parameter that tells which page is asked for."
            )
        raise RefusedError(
            f"{url} answers with the same page again and again, each time with another cursor. What arrived is kept. "
            "API_CURSOR_PARAMETER names the parameter of the cursor where it has a name of its own."
        )

    def check_cursor(self, following: str | None) -> None:
        """Raises RefusedError where a cursor comes a second time."""
        if following in self._seen:
            raise RefusedError(
                f"{self._paging.url} gave the same cursor a second time: it would go round for ever. What arrived is "
                "kept; tell whoever keeps the API."
            )
        self._seen.add(following)

"""How a page is asked for, and what follows it: pages by cursor, by number, by offset, by link.

Not here: requests, one page after another.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import urljoin, urlsplit

from event_archive.config.sources import ApiSettings
from event_archive.domain.days import iso
from event_archive.errors import RefusedError
from event_archive.sources.http_api.fetching import Answer, Api
from event_archive.sources.http_api.page_size import PageSize
from event_archive.sources.http_api.pages import Page, fields

Pagination = Literal["cursor", "page", "offset", "link"]

_SETTINGS = (
    "API_PAGINATION says how the next page is asked for; API_NEXT_CURSOR_FIELD names the cursor where it has a name of "
    "its own."
)

# What is counted here bears its name: a bare number may be a cursor of an API.
_COUNTED = re.compile(r"page (?P<page>[0-9]+)/(?P<size>[0-9]+)|offset (?P<offset>[0-9]+)")


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

    def takes(self, cursor: str) -> bool:
        """Whether a stored cursor is one of this kind of pages: the setting may have been another then."""
        counted = _COUNTED.fullmatch(cursor)
        match self.pagination:
            case "page":
                return counted is not None and counted["page"] is not None
            case "offset":
                return counted is not None and counted["offset"] is not None
            case "link":
                return _origin(cursor) == _origin(self.url)
        return counted is None


def api(settings: ApiSettings) -> Api:
    """The API that the settings name."""
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    proxy = settings.proxy.get_secret_value() if settings.proxy else None
    return Api(settings.url, {settings.api_key_header: key} if key else {}, key, proxy, fields(settings))


def paging(settings: ApiSettings) -> Paging:
    """How the settings say that pages are asked for."""
    names = {"cursor": "cursor", "page": "page", "offset": "offset", "link": ""}
    return Paging(
        settings.url,
        settings.api_pagination,
        settings.api_page_limit,
        settings.api_limit_parameter,
        settings.api_cursor_parameter or names[settings.api_pagination],
        settings.time_filter,
    )


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


@dataclass(slots=True)
class Step:
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
        place = str(self._count) if paging.is_counted else self.cursor
        if place is not None:
            parameters[paging.cursor_parameter] = place
        return paging.url, parameters

    @property
    def _count(self) -> int:
        """The number of this page, or its offset: the first, where pages were counted by another size."""
        counted = _COUNTED.fullmatch(self.cursor or "")
        if self.paging.pagination == "offset":
            return int(counted["offset"]) if counted else 0
        return int(counted["page"]) if counted and counted["size"] == str(self.size.value) else 1

    @property
    def here(self) -> str:
        """The cursor of this page, where pages have numbers."""
        return f"page {self._count}/{self.size.value}"

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
            return f"page {self._count + 1}/{self.size.value}"
        return f"offset {self._count + len(page.events)}"

    def _cursor_in(self, answer: Answer) -> str | None:
        page = answer.page
        if page.cursor is None:
            self._check_end(page, "cursor", "link" if answer.link else None)
        return None if page.has_more is False else page.cursor

    def _check_end(self, page: Page, missing: str, other: Pagination | None) -> None:
        """Raises RefusedError where more follows.

        Args:
            page: that seems to be the last.
            missing: what would lead to the next one.
            other: the kind of pages that the API seems to have instead.
        """
        url = self.paging.url
        if page.has_more:
            raise RefusedError(
                f"{url} says that more follows, and gives no {missing} for it. What arrived is kept. {_SETTINGS}"
            )
        if page.has_more is False or self.cursor is not None:
            return
        if other is not None:
            raise RefusedError(
                f"{url} gives no {missing}, but a {other} for the next page: set API_PAGINATION={other}. What arrived "
                "is kept."
            )
        # Of a window, the total may be that of all windows.
        if self.start == Start() and page.total and page.total > len(page.events):
            raise RefusedError(
                f"{url} tells of {page.total} events, gives {len(page.events)}, and says nothing of the next page. "
                f"What arrived is kept. {_SETTINGS}"
            )

    def _linked(self, answer: Answer) -> str | None:
        if answer.link is None:
            self._check_end(answer.page, "link", "cursor" if answer.page.cursor else None)
            return None
        try:
            url = urljoin(self.cursor or self.paging.url, answer.link)
            followed = self.paging.takes(url)
        except ValueError:
            raise RefusedError(
                f"{self.paging.url} links to what is no address for the next page. What arrived is kept. {_SETTINGS}"
            ) from None
        if not followed:
            scheme, host = _origin(url)
            raise RefusedError(
                f"{self.paging.url} links to {scheme}://{host.rpartition('@')[2]} for the next page, which is not "
                "followed, since the key would go with it. What arrived is kept. Where that is the API itself, let "
                "API_BASE_URL begin like that."
            )
        return url


def _origin(url: str) -> tuple[str, str]:
    """Scheme and host of an address."""
    address = urlsplit(url)
    return address.scheme, address.netloc.lower()

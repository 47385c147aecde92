"""One request after another to an API, until its body is a whole page: tried again, halved, paused, within its limits.

Not here: which page is next, what is in it but for its shape.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from event_archive.certificates import OPENSSL_BUNDLE, untrusted
from event_archive.errors import RefusedError, UnreachableError
from event_archive.sources.http_api.clock import Clock
from event_archive.sources.http_api.connections import connections, words_of
from event_archive.sources.http_api.headers import ahead_of, next_link, quota, retry_after
from event_archive.sources.http_api.limiter import MOST_AT_ONCE, Limiter
from event_archive.sources.http_api.page_size import PageSize
from event_archive.sources.http_api.pages import Fields, Page, PageError, read_page

_TIMEOUT_SECONDS = 10.0
_PAUSES_SECONDS: Final = (1, 2, 4, 8)
_PIECE_BYTES = 64 * 1024
_TOO_MUCH, _FORBIDDEN, _UNAVAILABLE, _NO_ENTRY = 429, 403, 503, (401, 403)
_TOO_LARGE, _PROXY_WANTS_A_USER = 413, 407
_HALVING = (_TOO_LARGE, 502, 504)
_PASSING = (408, *range(500, 600))
_OF_A_PAGE = (200, 203, 206)
"""A proxy that changes answers makes 203 of 200; 206 is PostgREST's for a part of the whole."""
_REDIRECTS = (301, 302, 303, 307, 308)
_CURSOR_REFUSED = (400, 404, 410, 422)
_LONGEST_ERROR_BYTES, _SHOWN = 2000, 200
_OF_THE_NEXT: Final = re.compile(rb'"(next_?cursor|cursorexpiresin)"\s*:')
"""Members of any page; in an error they say nothing of the cursor that was sent."""


class StoppedError(Exception):
    """Somebody stops: no page comes any more."""


class NoEntryError(RefusedError):
    """The API refuses the key: no further request makes sense."""


class CursorRefusedError(Exception):
    """The API does not, or no longer, know the cursor.

    Attributes:
        status: by which it says so.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Api:
    """An API.

    Attributes:
        url: where events are asked for, without parameters.
        headers: sent with each request, the key among them. A secret.
        secret: the key; taken out of all messages.
        proxy: through which it is asked; None for none. A secret.
        fields: names of its own in a page.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    secret: str = field(default="", repr=False)
    proxy: str | None = field(default=None, repr=False)
    fields: Fields = field(default_factory=Fields)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole page, and what came with it.

    Attributes:
        page: what it holds.
        size_bytes: of its body, decoded.
        link: the address of the next page by the ``Link`` header (RFC 8288); None where there is none.
        ahead: how far this machine's clock is ahead of the API's; less than nothing where it is behind.
    """

    page: Page
    size_bytes: int
    link: str | None
    ahead: timedelta


class _TooMuchError(Exception):
    """The API's limit is reached; the limiter knows for how long."""


class _FailedError(Exception):
    """One attempt failed; another may not.

    Attributes:
        halve: a smaller page may go through.
        is_too_large: a page of that size never will.
    """

    def __init__(self, why: str, *, halve: bool = False, is_too_large: bool = False) -> None:
        super().__init__(why)
        self.halve, self.is_too_large = halve or is_too_large, is_too_large


class Fetcher:
    """Fetches pages for all workers, over one pool of connections."""

    def __init__(self, api: Api, limiter: Limiter, clock: Clock, stop: Event, *, largest_body_bytes: int) -> None:
        """Opens no connection yet.

        Args:
            api: what it fetches from.
            limiter: lets each request in.
            clock: passes the seconds.
            stop: ends every wait.
            largest_body_bytes: of a body as decoded: a page of gzip can hold a thousand times its size.
        """
        self._largest_body_bytes = largest_body_bytes
        self._api, self._limiter, self._clock, self._stop = api, limiter, clock, stop
        # A page that repeats "Bearer KEY" may leave the first word out.
        self._secrets = [secret for secret in (api.secret, api.secret.rpartition(" ")[2]) if secret]
        self._pool = connections(api.url, MOST_AT_ONCE, api.proxy)
        self._dice = random.Random()

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()

    def fetch(self, request: Callable[[], tuple[str, Mapping[str, str]]], size: PageSize, *, cursor: bool) -> Answer:
        """One page, tried again for some seconds.

        Args:
            request: address and parameters, as they are for the size of the page at each attempt.
            size: of the page; it is halved where the API cannot answer in time.
            cursor: whether it asks for a page by a cursor, which the API may not know any more.

        Raises:
            StoppedError: somebody stops.
            CursorRefusedError: the API does not know the cursor.
            UnreachableError: the API does not answer, or not well, at any attempt.
            RefusedError: it refuses the key or the request, its answer is no page, or its certificate is not trusted.
            BusyError: it wants a longer pause than a run waits.
        """
        attempt = 0
        while True:
            if not self._limiter.acquire():
                raise StoppedError
            try:
                answer = self._ask(*request(), cursor=cursor)
            except _TooMuchError:
                continue
            except _FailedError as failed:
                if failed.halve and size.halve() and failed.is_too_large:
                    continue
                if attempt == len(_PAUSES_SECONDS):
                    raise UnreachableError(
                        f"{self._api.url} did not answer well in {attempt + 1} attempts: {failed}. What arrived is "
                        "kept; the next run goes on."
                    ) from None
                pause = _PAUSES_SECONDS[attempt] * self._dice.uniform(1, 1.25)
                attempt += 1
                if self._clock.wait(pause, self._stop):
                    raise StoppedError from None
            else:
                self._limiter.succeeded()
                size.succeeded()
                return answer

    def _ask(self, url: str, parameters: Mapping[str, str], *, cursor: bool) -> Answer:
        """One attempt. It has been let in by the limiter."""
        told, ahead = None, timedelta(0)
        try:
            response = self._pool.request(
                "GET",
                url,
                fields=parameters or None,
                headers={**self._api.headers, "Accept": "application/json", "Accept-Encoding": "gzip"},
                timeout=urllib3.Timeout(connect=_TIMEOUT_SECONDS, read=_TIMEOUT_SECONDS),
                # It would take the key to another host.
                redirect=False,
                preload_content=False,
            )
            with response:
                # A header may come on several lines, and links often do.
                headers = {name.lower(): value for name, value in response.headers.itermerged()}
                now = self._clock.now()
                told, ahead = quota(headers, now), ahead_of(headers, now)
                body = self._body(response)
                response.release_conn()
        except NewConnectionError as error:
            # Which urllib3 counts among the time-outs.
            raise _FailedError(words_of(error)) from None
        except (HTTPTimeoutError, TimeoutError):
            raise _FailedError("no answer within 10 s", halve=True) from None
        except ProtocolError:
            raise _FailedError("the connection broke off") from None
        except HTTPError as error:
            if refused := untrusted(error, self._api.url, check="the address", variable=OPENSSL_BUNDLE):
                raise refused from None
            raise _FailedError(self._hide(words_of(error))) from None
        finally:
            self._limiter.release(told)
        if response.status not in _OF_A_PAGE:
            self._refuse(response.status, headers, cursor=cursor)
        try:
            page = read_page(body, self._api.fields)
            return Answer(page, len(body), next_link(headers.get("link", "")), ahead)
        except PageError as error:
            if error.cut_short:
                raise _FailedError(self._told(error)) from None
            if cursor and b"cursor" in _OF_THE_NEXT.sub(b"", body[:_LONGEST_ERROR_BYTES].lower()):
                # An error object of a cursor's, under a status that is none.
                raise CursorRefusedError(response.status) from None
            raise RefusedError(
                f"{self._api.url}: {self._hide(str(error))}. API_DATA_FIELD names the list where it has a name of its "
                "own; else look at what the API says."
            ) from None

    def _body(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """The body, decoded, up to a size."""
        pieces, size_bytes = [], 0
        while piece := response.read1(_PIECE_BYTES, decode_content=True):
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > self._largest_body_bytes:
                raise _FailedError(f"a page has more than {self._largest_body_bytes:,} bytes", is_too_large=True)
        return b"".join(pieces)

    def _refuse(self, status: int, headers: Mapping[str, str], *, cursor: bool) -> None:
        """Raises what a status means."""
        wait = retry_after(headers, self._clock.now())
        spent = quota(headers, self._clock.now())
        of_the_limit = wait is not None or (spent.remaining == 0 and status == _FORBIDDEN)
        if status == _TOO_MUCH or (status in (_FORBIDDEN, _UNAVAILABLE) and of_the_limit):
            self._limiter.refused(wait if wait is not None else spent.reset_seconds if spent.remaining == 0 else None)
            raise _TooMuchError
        if status in _NO_ENTRY:
            words = f"refuses the key (status {status}). Check API_KEY and API_KEY_HEADER"
            if not self._api.secret:
                words = f"wants a key (status {status}): set API_KEY, and API_KEY_HEADER where it has another name"
            raise NoEntryError(f"{self._api.url} {words}. What arrived is kept; the next run goes on.")
        if status == _PROXY_WANTS_A_USER:
            raise RefusedError(f"The proxy wants a user (status {status}): HTTP_PROXY=http://USER:PASSWORD@HOST:PORT.")
        if cursor and status in _CURSOR_REFUSED:
            raise CursorRefusedError(status)
        if status in _HALVING or status in _PASSING:
            halve, is_too_large = status in _HALVING, status == _TOO_LARGE
            raise _FailedError(f"status {status}", halve=halve, is_too_large=is_too_large)
        if status in _REDIRECTS:
            raise RefusedError(
                f"{self._api.url} redirects (status {status}), which is not followed, since the key would go with it. "
                "Let API_BASE_URL name the address itself."
            )
        does = "refuses the request" if status >= 400 else "gives no page of events"
        raise RefusedError(
            f"{self._api.url} {does} (status {status}). Check API_BASE_URL, API_EVENTS_PATH and names of parameters."
        )

    def _told(self, error: PageError) -> str:
        """What a body is instead of a page, and how it begins."""
        # Before it is cut, since that could cut through the key.
        begins = self._hide(error.body.decode(errors="replace"))[:_SHOWN]
        return self._hide(str(error)) + (f"; it begins with {begins!r}" if begins else "")

    def _hide(self, words: str) -> str:
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words

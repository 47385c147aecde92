"""How long Azure is waited for. Here: the one retry policy of all requests. Not here: what a failure means.

The storage SDK's policies never retry 429 (throttling), count attempts and not time, and have no cap on the back-off;
azure-core's ``RetryPolicy`` has a cap and retries 429, but a subclass of it would replace every other step of its loop
(when to stop, how to wait, both timeouts, the storage SDK's options), and is longer than this module.
"""

import errno
import logging
import random
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import RetryPolicy
from azure.core.pipeline.transport import HttpRequest, HttpResponse
from azure.storage.blob import ExponentialRetry

from event_archive.certificates import distrust

logger = logging.getLogger(__name__)

RETRIED_CODES = frozenset({"Md5Mismatch"})
"""Of Azure, with a status that is not retried otherwise: what was sent has changed on its way."""
RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
CONNECTION_TIMEOUT_SECONDS = 10.0
READ_TIMEOUT_SECONDS = 30.0
"""Half of the usual whole wait, so that a connection which a firewall has forgotten costs one attempt and not all."""

_MULTIPLE_CHOICES, _NOT_FOUND = 300, 404
_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 15.0
_SHORTEST_TIMEOUT_SECONDS = 1.0
_SILENCE_SECONDS = 3.0
_RETRY_AFTER = RetryPolicy[HttpRequest, HttpResponse]()
"""Only reads the header ``Retry-After`` (RFC 9110, section 10.2.3) and Azure's own beside it."""


class BoundedRetry(ExponentialRetry):
    """Retries until a wait is over, counted from the first attempt, whatever fails.

    The last attempt is made when the wait ends, and has a second to connect and one to answer: the whole call takes no
    longer than ``retry_seconds`` and those two. Every call of the SDK takes two options: ``retry_until`` (a time of
    ``time.monotonic()``), for a call whose requests share one wait, and ``retry_abandoned`` (an ``Event``), which ends
    the wait when nobody needs the answer any more. A wait of more than three seconds is logged, once.

    Args:
        retry_seconds: the whole wait.
    """

    def __init__(self, retry_seconds: float) -> None:
        super().__init__()
        self.retry_seconds = retry_seconds

    def send(self, request: PipelineRequest[HttpRequest]) -> PipelineResponse[HttpRequest, HttpResponse]:
        """Sends the request until it is answered or the wait is over."""
        options = request.context.options
        until = options.pop("retry_until", None) or time.monotonic() + self.retry_seconds
        abandoned = options.pop("retry_abandoned", None) or threading.Event()
        connection_timeout = options.pop("connection_timeout", CONNECTION_TIMEOUT_SECONDS)
        read_timeout = options.pop("read_timeout", READ_TIMEOUT_SECONDS)
        # It also removes the options of the SDK's own policies, which the transport refuses.
        settings = self.configure_retries(request)
        attempts, warn_from = 0, time.monotonic() + _SILENCE_SECONDS
        while True:
            longest = max(until - time.monotonic(), _SHORTEST_TIMEOUT_SECONDS)
            options["connection_timeout"] = min(connection_timeout, longest)
            options["read_timeout"] = min(read_timeout, longest)
            response, error = None, None
            try:
                response = self.next.send(request)
                _require_blob_service(response.http_response)
                _require_what_was_asked_for(request.http_request, response.http_response)
            except (ServiceRequestError, ServiceResponseError) as failure:
                if distrust(failure):
                    raise
                response, error = None, failure
            if response is not None:
                response.http_response.location_mode = settings["mode"]
                if not _is_retried(response.http_response):
                    return response
            left_seconds = until - time.monotonic()
            if left_seconds > 0 and time.monotonic() > warn_from:
                warn_from = until
                logger.warning(
                    "%s does not answer well (%s); it is asked again for up to %.0f s",
                    urlsplit(request.http_request.url).netloc,
                    response.http_response.status_code if response else _what_broke(error),
                    left_seconds,
                )
            if left_seconds <= 0 or abandoned.wait(min(_delay_seconds(attempts, response), left_seconds)):
                break
            attempts += 1
        if response is None:
            raise error or ServiceRequestError("neither an answer nor an error")
        return response


class _AnotherError(ServiceResponseError):
    """It was not the Blob service that answered, or it did not answer what was asked."""


def _require_blob_service(answer: HttpResponse) -> None:
    """Raises where somebody else answered: a proxy's page would be read as an answer that says nothing."""
    tells = answer.status_code < _MULTIPLE_CHOICES or answer.status_code == _NOT_FOUND
    if tells and not any(name.lower().startswith("x-ms-") for name in answer.headers):
        raise _AnotherError("", error=OSError(errno.EPROTO, "what answers is no Blob service"))


def _require_what_was_asked_for(request: HttpRequest, answer: HttpResponse) -> None:
    """Raises where other bytes or another version come, or nothing tells which: proxies may not look at it."""
    if answer.status_code >= _MULTIPLE_CHOICES:
        return
    came, etag = answer.headers.get("Content-Range", ""), _strong(answer.headers.get("ETag", ""))
    start = request.headers.get("x-ms-range", "").rpartition("-")[0].replace("=", " ")
    if request.method == "HEAD":
        tells = bool(etag and answer.headers.get("Content-Length"))
    elif request.method == "PUT":
        tells = bool(etag) or "comp=blocklist" not in request.url
    else:
        tells = not start or came.startswith(f"{start}-")
    asked = _strong(request.headers.get("If-Match", "")) if request.method != "PUT" else ""
    if not tells or (asked and asked != etag):
        raise _AnotherError("", error=OSError(errno.EPROTO, "what answers is not what was asked for"))


def _strong(etag: str) -> str:
    """An ETag without quotes, nor the mark of a proxy that has weakened it."""
    return etag.removeprefix("W/").strip('"')


def _is_retried(answer: HttpResponse) -> bool:
    return answer.status_code in RETRIED_STATUS or answer.headers.get("x-ms-error-code") in RETRIED_CODES


def _what_broke(error: Exception | None) -> str:
    if isinstance(error, ServiceRequestError):
        return "no connection"
    return "somebody else answers" if isinstance(error, _AnotherError) else "the connection broke off"


def _delay_seconds(attempts: int, response: PipelineResponse[HttpRequest, HttpResponse] | None) -> float:
    """What the answer asks for, else a back-off that doubles."""
    asked = None
    if response is not None:
        with suppress(ValueError):  # neither seconds nor a date
            asked = _RETRY_AFTER.get_retry_after(response)
    backoff: float = min(_FIRST_DELAY_SECONDS * 2**attempts, _LONGEST_DELAY_SECONDS)
    return asked or backoff * random.uniform(0.5, 1.0)

"""How long Azure is waited for. Here: the one retry policy of all requests. Not here: what a failure means.

The SDK's own policies never retry 429 (throttling), count attempts and not time, and know no cap on the back-off.
"""

import logging
import random
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.transport import HttpRequest, HttpResponse
from azure.storage.blob import ExponentialRetry

logger = logging.getLogger(__name__)

RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
CONNECTION_TIMEOUT_SECONDS = 10.0
READ_TIMEOUT_SECONDS = 30.0
"""Half of the usual whole wait, so that a connection which a firewall has forgotten costs one attempt and not all."""

_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 15.0
_SHORTEST_TIMEOUT_SECONDS = 1.0
_SILENCE_SECONDS = 3.0


class BoundedRetry(ExponentialRetry):
    """Retries until a wait is over, counted from the first attempt and whatever the failures are.

    The last attempt is made when the wait ends, and gets a second to connect and one to answer: the whole call takes no
    longer than ``retry_seconds`` and those. Two options can be given to any call of the SDK: ``retry_until`` (a time of
    ``time.monotonic()``), where one call makes several requests that share a wait, and ``retry_abandoned`` (an
    ``Event``), which ends the wait when nobody wants the answer any more. A wait of more than some seconds is logged.

    Args:
        retry_seconds: the whole wait.
    """

    def __init__(self, retry_seconds: float) -> None:
        super().__init__()
        self.retry_seconds = retry_seconds

    def send(self, request: PipelineRequest[HttpRequest]) -> PipelineResponse[HttpRequest, HttpResponse]:
        """Sends the request, again and again."""
        options = request.context.options
        until = options.pop("retry_until", None) or time.monotonic() + self.retry_seconds
        abandoned = options.pop("retry_abandoned", None) or threading.Event()
        connection_timeout = options.pop("connection_timeout", CONNECTION_TIMEOUT_SECONDS)
        read_timeout = options.pop("read_timeout", READ_TIMEOUT_SECONDS)
        # Also takes the options of the SDK's own policies away, which the transport would stumble over.
        settings = self.configure_retries(request)
        attempts, told_from = 0, time.monotonic() + _SILENCE_SECONDS
        while True:
            longest = max(until - time.monotonic(), _SHORTEST_TIMEOUT_SECONDS)
            options["connection_timeout"] = min(connection_timeout, longest)
            options["read_timeout"] = min(read_timeout, longest)
            response, error = None, None
            try:
                response = self.next.send(request)
            except (ServiceRequestError, ServiceResponseError) as failure:
                error = failure
            if response is not None:
                response.http_response.location_mode = settings["mode"]
                if response.http_response.status_code not in RETRIED_STATUS:
                    return response
            left_seconds = until - time.monotonic()
            if left_seconds > 0 and time.monotonic() > told_from:
                told_from = until
                logger.warning(
                    "%s does not answer (%s); it is asked again for up to %.0f s",
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


def _what_broke(error: Exception | None) -> str:
    return "no connection" if isinstance(error, ServiceRequestError) else "the connection broke off"


def _delay_seconds(attempts: int, response: PipelineResponse[HttpRequest, HttpResponse] | None) -> float:
    asked = _retry_after_seconds(response.http_response.headers.get("Retry-After")) if response is not None else 0.0
    backoff: float = min(_FIRST_DELAY_SECONDS * 2**attempts, _LONGEST_DELAY_SECONDS)
    return asked or backoff * random.uniform(0.5, 1.0)


def _retry_after_seconds(header: str | None) -> float:
    """Seconds, or the time until an HTTP date (RFC 9110, section 10.2.3); 0 where neither."""
    if header is None:
        return 0.0
    with suppress(ValueError):
        return max(float(header), 0.0)
    with suppress(ValueError, TypeError):
        return max((parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds(), 0.0)
    return 0.0

"""How metrics get to a Pushgateway. Not here: which there are, and what they mean (``metrics``)."""

import base64
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from event_archive.certificates import OPENSSL_BUNDLE, require_bundle, untrusted
from event_archive.errors import UnreachableError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_JOB = "event_archive"
_PUSH_SECONDS = 10.0


def push_registry(url: str, registry: "CollectorRegistry", group: dict[str, str]) -> None:
    """Pushes metrics; what the gateway has of other groups, and is not told of this one, stays.

    Args:
        url: of the Pushgateway, with user and password where it asks for them. A secret.
        registry: the metrics.
        group: labels of all of them.

    Raises:
        ConfigurationError: the variable of the certificates to trust is wrong.
        UnreachableError: nobody answered, or not well.
        RefusedError: its certificate is not trusted.
    """
    from prometheus_client import pushadd_to_gateway

    require_bundle(url, [OPENSSL_BUNDLE], may_be_folder=False)
    address = urlsplit(url)
    login = None
    if address.username is not None and address.password is not None:
        login = f"{unquote(address.username)}:{unquote(address.password)}"
    try:
        pushadd_to_gateway(
            urlunsplit(address._replace(netloc=address.netloc.rpartition("@")[2])),
            _JOB,
            registry,
            grouping_key=group,
            timeout=_PUSH_SECONDS,
            handler=partial(_request, login=login),
        )
    except HTTPError as error:
        problem = f"answers {error.code}"
    except _PageError:
        problem = "answers with a web page"
    except ValueError as error:
        # A path that is no ASCII.
        problem = f"cannot be asked ({type(error).__name__})"
    except (OSError, HTTPException) as error:
        if refused := untrusted(error, "METRICS_PUSHGATEWAY", check="it", variable=OPENSSL_BUNDLE):
            raise refused from None
        problem = f"cannot be reached ({type(getattr(error, 'reason', error)).__name__})"
    else:
        return
    # Neither chained nor with the library's words: they may hold the URL.
    raise UnreachableError(f"METRICS_PUSHGATEWAY {problem}. Check it, and that this machine may connect.")


class _PageError(Exception):
    """Something else than a Pushgateway answered, as the login page of a proxy."""


class _Unfollowed(HTTPRedirectHandler):
    """Follows no redirection: the figures would stay behind, and the password would go along."""

    def redirect_request(self, *_: object) -> None:
        """None: the answer counts as an error."""


def _request(
    url: str,
    method: str,
    timeout: float | None,
    headers: Sequence[tuple[str, str]],
    data: bytes,
    *,
    login: str | None,
) -> Callable[[], None]:
    """A request as prometheus_client makes it, sent once it is called."""
    request = Request(url, data, dict(headers), method=method)  # noqa: S310 (the setting takes http and https alone)
    if login is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")

    def send() -> None:
        with build_opener(_Unfollowed).open(request, timeout=timeout) as answer:
            if answer.headers.get_content_type() == "text/html":
                raise _PageError

    return send

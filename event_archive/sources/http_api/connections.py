"""Connections to an API, on which a response as a whole has its time: urllib3 gives each byte of it as much.

Not here: what is asked, how often, and what an answer means.
"""

import http.client
import io
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager, make_headers
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import DecodeError, HTTPError, ProxyError
from urllib3.util import parse_url

from event_archive.certificates import OPENSSL_BUNDLE, require_bundle
from event_archive.errors import ConfigurationError


def connections(url: str, most: int, proxy: str | None = None) -> PoolManager:
    """Connections that try nothing twice, and follow no redirect where they are told not to.

    A response has the seconds of the read time-out from its first byte to its last.

    Args:
        url: of the API.
        most: kept open between requests. More than that are never waited for: whoever asks counts requests.
        proxy: the address of a proxy, which may hold a user and a password.

    Raises:
        ConfigurationError: there can be no such proxy, or the variable of the certificates to trust is wrong.
    """
    require_bundle(url, [OPENSSL_BUNDLE], may_be_folder=False)
    options: dict[str, Any] = {"maxsize": most, "retries": False}
    pools = PoolManager(**options) if proxy is None else _through(proxy, options)
    pools.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return pools


def words_of(error: HTTPError) -> str:
    """Why no answer came, without the names of classes."""
    if isinstance(error, DecodeError):
        return "its body is not packed as its headers say"
    cause = error.original_error if isinstance(error, ProxyError) else error
    words = str(cause).partition("): ")[2] or str(cause)
    return words if cause is error else f"the proxy: {words}"


def _through(proxy: str, options: Mapping[str, Any]) -> PoolManager:
    try:
        address = parse_url(proxy if "://" in proxy else f"http://{proxy}")
        headers = make_headers(proxy_basic_auth=unquote(address.auth)) if address.auth else None
        return ProxyManager(address._replace(auth=None, path=None).url, proxy_headers=headers, **options)
    except ValueError:
        # Its own words may repeat the password.
        raise ConfigurationError(
            "The variable HTTPS_PROXY or HTTP_PROXY is no address of a proxy like http://HOST:3128."
        ) from None


class _Receiving(io.RawIOBase):
    """What a socket receives until its time is up."""

    def __init__(self, connected: socket.socket, seconds: float) -> None:
        self._socket, self._received = connected, connected.makefile("rb", buffering=0)
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._received.readinto(buffer)

    def close(self) -> None:
        self._received.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        seconds = sock.gettimeout()
        if seconds is not None:
            self.fp.close()
            self.fp = io.BufferedReader(_Receiving(sock, seconds))


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection

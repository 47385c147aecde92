"""Connections to an API, on which a response as a whole has its time: urllib3 gives each byte of it as much.

Not here: what is asked, how often, and what an answer means.
"""

import http.client
import io
import socket
import time
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection


def connections(most: int) -> PoolManager:
    """Connections that try nothing twice, and follow no redirect where they are told not to.

    A response has the seconds of the read time-out from its first byte to its last.

    Args:
        most: kept open between requests. More than that are never waited for: whoever asks counts requests.
    """
    pools = PoolManager(maxsize=most, retries=False)
    pools.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return pools


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

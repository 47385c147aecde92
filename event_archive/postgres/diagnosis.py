"""Why a connection could not be made, whatever language the server speaks: its SQLSTATE, or what libpq itself refuses.

Not here: what follows from it (``connecting``), errors of a connection that stands (``errors``).
"""

import ctypes
import re
import select
import sys
import time
from functools import cache
from typing import Any, cast

from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, PGconn, PollingStatus

_ONLY_SQLSTATE = 3
"""libpq's PQERRORS_SQLSTATE: its message of an error holds the severity and the code, and no word more."""
# A host that begins with a slash is a folder of sockets; one that is not there ends a connection before any I/O.
_NO_HOST = "/nonexistent/event_archive"


def sqlstate_of_refusal(conninfo: str, *, timeout_seconds: float) -> str | None:
    """The SQLSTATE with which a server refuses a connection; empty where it sends none, or lets us in.

    psycopg does not keep it: libpq has it in the message alone, and only if it is told so after the connection was
    begun and before the answer came. So this connects once more.

    Args:
        conninfo: names one host.
        timeout_seconds: after which the answer is None.
    """
    until = time.monotonic() + timeout_seconds
    connection = PGconn.connect_start(conninfo.encode())
    try:
        _libpq().PQsetErrorVerbosity(ctypes.c_void_p(cast(Any, connection).pgconn_ptr), _ONLY_SQLSTATE)
        while (status := connection.connect_poll()) in (PollingStatus.READING, PollingStatus.WRITING):
            left_seconds = until - time.monotonic()
            if left_seconds <= 0:
                return None
            poll = select.poll()
            poll.register(connection.socket, select.POLLIN if status == PollingStatus.READING else select.POLLOUT)
            poll.poll(left_seconds * 1000)
        # A message a way to connect: the last ended it.
        codes = re.findall(r":  ([0-9A-Z]{5})$", connection.get_error_message(), re.MULTILINE)
        return codes[-1] if codes and status == PollingStatus.FAILED else ""
    finally:
        connection.finish()


def refused_options(conninfo: str) -> str:
    """What libpq says of options that it refuses before it asks any server; empty where it takes them."""
    probe = make_conninfo(conninfo, host=_NO_HOST, hostaddr="", port="")
    connection = PGconn.connect_start(probe.encode())
    try:
        words = connection.get_error_message()
        return "" if connection.status != ConnStatus.BAD or _NO_HOST in words else words
    finally:
        connection.finish()


@cache
def _libpq() -> ctypes.CDLL:
    """The libpq that psycopg is linked with; symbols of a library's dependencies are found through it."""
    return ctypes.CDLL(sys.modules[PGconn.__module__].__file__)

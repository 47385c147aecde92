"""Being told to stop, by SIGINT or SIGTERM. Here: the handler, its flag, and the exit that comes in any case.

Not here: what a stop means for the work in hand; that ends by the ``KeyboardInterrupt`` which the handler raises. One
that is lost on its way, in a destructor for instance, leaves the flag; and a process that has not ended some seconds
later, because its only thread waits in a library, is ended by a thread of this module. Nothing but the standard library
is imported, so that the handler stands before anything slow begins.
"""

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

MESSAGE = "Stopped. What was not committed is as it was; run it again to go on."
GRACE_SECONDS = 8.0
"""How long the work in hand may take to roll back. Kubernetes kills after 30 seconds, an impatient person sooner."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _State:
    number: int | None = None
    at_end = False
    deferred = False
    grace_seconds = GRACE_SECONDS


_state = _State()


def install() -> None:
    """Handles SIGINT and SIGTERM from here on; in the main thread."""
    _state.number, _state.at_end, _state.deferred, _state.grace_seconds = None, False, False, GRACE_SECONDS
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # Written to by the signal itself, whatever the main thread waits for.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_end_in_any_case, args=(reader,), name="stop", daemon=True).start()
    sys.unraisablehook = _unraisable
    for number in _SIGNALS:
        signal.signal(number, _handle)


def requested() -> bool:
    """Whether the process was told to stop."""
    return _state.number is not None


def exit_code() -> int:
    """128 and the number of the signal, as a shell has it."""
    return 128 + (_state.number or signal.SIGINT)


@contextmanager
def deferred(grace_seconds: float) -> Iterator[None]:
    """In this block a signal only sets the flag, for work that looks at it and ends well; a second one stops at once.

    Args:
        grace_seconds: how long the work may take to end, from the first signal on.
    """
    _state.deferred, _state.grace_seconds = True, grace_seconds
    try:
        yield
    finally:
        _state.deferred = False


def work_is_done() -> None:
    """Nothing is left to roll back: from here on a signal ends the process at once."""
    _state.at_end = True


def ignore_further() -> None:
    """The stop is carried out: no further signal disturbs the end of the process, or changes its exit code."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _handle(number: int, _frame: FrameType | None) -> None:
    if _state.number is not None:
        # The first is being carried out; a second one would only disturb the rollback. Work that ends well may take
        # longer than somebody wants to wait.
        if _state.deferred:
            os._exit(exit_code())
        return
    _state.number = number
    if _state.deferred:
        return
    if _state.at_end:
        os._exit(exit_code())
    raise KeyboardInterrupt


def _unraisable(unraisable: "UnraisableHookArgs") -> None:
    """Says nothing of an interrupt that is lost in a destructor or a callback: the flag is set."""
    if not (requested() and issubclass(unraisable.exc_type, KeyboardInterrupt)):
        sys.__unraisablehook__(unraisable)


def _end_in_any_case(reader: int) -> None:
    number = 0
    while number not in _SIGNALS:
        received = os.read(reader, 1)
        if not received:
            return
        number = received[0]
    threading.Event().wait(_state.grace_seconds)
    try:
        # Where somebody reads it at once: nothing may keep this process from its end any more.
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"{MESSAGE}\n".encode())
    finally:
        os._exit(128 + number)

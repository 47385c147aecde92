"""A call that is waited for no longer than a bound: of one into a library that knows none.

Not here: what has a time-out of its own, such as a statement of ours or a request.
"""

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_time(ask: Callable[[], T], seconds: float, name: str) -> T:
    """What a call returns. One that takes longer is left to a thread that no process waits for.

    Args:
        ask: the call; it must do no harm where nobody takes its answer.
        seconds: how long it is waited for.
        name: of the thread.

    Raises:
        TimeoutError: there is no answer by then.
        Exception: as the call raises it.
    """
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:  # noqa: BLE001 (raised where the answer is waited for)
            answer.set_exception(error)

    Thread(target=work, name=name, daemon=True).start()
    if not wait([answer], seconds).done:
        raise TimeoutError(f"no answer within {seconds:g} s, as where a lock is waited for, or a service stands still")
    return answer.result()

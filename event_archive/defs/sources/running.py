"""A source's run within its asset: how it is told to stop, what is logged and recorded of it, how it fails.

Not here: any source, the failures of other assets (``failures``).
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import dagster as dg

from event_archive.defs.sources.source import SourceNames
from event_archive.domain.wording import counted
from event_archive.errors import EventArchiveError
from event_archive.sources.runs import RunTotals

logger = logging.getLogger(__name__)


class _Run(Protocol):
    @property
    def totals(self) -> RunTotals: ...

    def run(self) -> object: ...


R = TypeVar("R", bound=_Run)


def ingest(source: SourceNames, make: Callable[[Callable[[], bool], Callable[[RunTotals], None]], R]) -> R:
    """Makes a run and runs it; what ended it is the last of its failures.

    Args:
        source: whose run.
        make: makes the run; takes what tells it to stop, and what it tells of its progress.

    Raises:
        KeyboardInterrupt: it was told to stop before its end.
    """
    with told_to_stop() as stopped:
        run = make(stopped, lambda totals: _log(source, totals))
        try:
            run.run()
        except EventArchiveError as error:
            run.totals.failures.append(error)
    ended = run.totals.ended
    _log(source, run.totals, "incomplete" if ended == "complete" and run.totals.failures else ended)
    if stopped() and run.totals.ended != "complete":
        raise KeyboardInterrupt
    return run


def raise_failures(failures: Sequence[EventArchiveError]) -> None:
    """Raises what went wrong, all of it in one error."""
    words = list(dict.fromkeys(map(str, failures)))
    if words:
        raise failures[0] if len(words) == 1 else EventArchiveError(" ".join(words))


def run_metadata(totals: RunTotals) -> dict[str, Any]:
    """Of any source's asset; counts are of the run, the row count too: of a table of any size, no run counts all."""
    return {
        "dagster/row_count": totals.counts.new,
        **totals.counts.as_dict(),
        "ended": totals.ended,
        "seconds": totals.seconds,
    }


def instant_metadata(instant: Any) -> dg.MetadataValue[Any]:
    """A time, or that there is none."""
    return dg.MetadataValue.timestamp(instant) if instant else dg.MetadataValue.null()


def _log(source: SourceNames, totals: RunTotals, outcome: str = "under way") -> None:
    """One log line with the figures so far."""
    figures = {source.unit: getattr(totals, source.unit), "seconds": round(totals.seconds, 3)}
    extra = {"source": source.name, **totals.counts.as_dict(), **figures}
    logger.info("ingestion %s: %s", outcome, counted(totals.counts.taken, "record", "records"), extra=extra)


@contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """In this block a first SIGTERM or SIGINT only asks for an end, and what arrived is landed; a second interrupts.

    Dagster's own handlers, which raise at once, are put back at the first signal and at the end.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def ask(_number: int, _frame: object) -> None:
        asked.set()
        put_back()

    for number in former:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        put_back()

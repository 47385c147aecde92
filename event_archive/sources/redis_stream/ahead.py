"""A batch in the hands of a consumer, and one that is read while another is landed. Not here: what is done with it."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from threading import Thread

from event_archive.sources.redis_stream.records import Decoded, Entry
from event_archive.sources.runs import NONE_AGED, AgedTimes


@dataclass(frozen=True, slots=True)
class InHand:
    """A batch that was read and decoded.

    Attributes:
        ids: of its entries, in their order.
        decoded: what they hold.
        began: when it had been read, by ``time.monotonic``.
        is_full: whether as many entries were there as were asked for.
        entries: that were decoded; none where nothing but their ids is landed.
        aged: records of these times were left out.
    """

    ids: Sequence[bytes]
    decoded: Decoded
    began: float
    is_full: bool = False
    entries: Sequence[Entry] = ()
    aged: AgedTimes = NONE_AGED


class Ahead:
    """A batch that is being read, on a thread that nobody waits for at the end of the process."""

    def __init__(self, read: Callable[[], InHand]) -> None:
        """Begins to read."""
        self._read, self._future = read, Future[InHand]()
        Thread(target=self._work, name="read ahead", daemon=True).start()

    def wait(self) -> None:
        """Waits until it was read, or could not be."""
        wait([self._future])

    def result(self) -> InHand:
        """The batch; what was raised as it was read is raised here."""
        return self._future.result()

    def _work(self) -> None:
        try:
            self._future.set_result(self._read())
        except BaseException as error:  # noqa: BLE001 (raised where the batch is taken)
            self._future.set_exception(error)

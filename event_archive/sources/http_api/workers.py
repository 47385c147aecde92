"""The workers that read an API, a pass each, in threads. Not here: what becomes of what they bring (``crew``)."""

from collections.abc import Sequence
from threading import Event, Thread

from event_archive.config.sources import ApiSettings
from event_archive.errors import UnexpectedError
from event_archive.sources.http_api.buffer import Buffer
from event_archive.sources.http_api.clock import Clock
from event_archive.sources.http_api.fetching import Fetcher
from event_archive.sources.http_api.limiter import MOST_AT_ONCE, Limiter
from event_archive.sources.http_api.paging import api, paging
from event_archive.sources.http_api.shards import Shard
from event_archive.sources.http_api.walking import Ended, Fetched, walk

_BUFFER_BYTES = 16 * 1024 * 1024
_MOST_BYTES = 50_000_000
"""In the buffer, and in the hands of workers, each of whom has a page that is as large as its share of the rest."""


class Workers:
    """Workers over one pool of connections, within one limit, and the buffer that they fill."""

    def __init__(self, settings: ApiSettings, clock: Clock) -> None:
        """Hires nobody yet.

        Args:
            settings: of the API.
            clock: passes the seconds.
        """
        self._stop = Event()
        self._limiter = Limiter(clock, self._stop, concurrency=settings.api_concurrency)
        largest = (_MOST_BYTES - _BUFFER_BYTES) // (MOST_AT_ONCE if settings.api_shard else 1)
        self._fetcher = Fetcher(api(settings), self._limiter, clock, self._stop, largest_body_bytes=largest)
        self._buffer: Buffer[tuple[Shard, Fetched | Ended]] = Buffer(_BUFFER_BYTES)
        self._paging = paging(settings)

    @property
    def concurrency(self) -> int:
        """How many may work at once, by what the API has told of its limit."""
        return self._limiter.concurrency

    @property
    def stopped(self) -> bool:
        """Whether no further request is begun."""
        return self._stop.is_set()

    def send(self, shard: Shard) -> None:
        """Lets a worker read what is left of a shard's pass, until it has enough."""
        start = shard.start()

        def emit(fetched: Fetched) -> bool:
            self._buffer.put((shard, fetched), fetched.size_bytes)
            return not (shard.enough or self._stop.is_set())

        def work() -> None:
            try:
                ended = walk(start, self._paging, self._fetcher, emit)
            except Exception as error:  # noqa: BLE001 (told as the end of the shard)
                ended = Ended(UnexpectedError.of(error))
            self._buffer.put((shard, ended))

        Thread(target=work, name=f"fetch {shard.position.shard}", daemon=True).start()

    def take(self, most_bytes: int, wait_seconds: float) -> Sequence[tuple[Shard, Fetched | Ended]]:
        """What has arrived, in its order, as ``Buffer.take``."""
        return self._buffer.take(most_bytes, wait_seconds)

    def stop(self) -> None:
        """Lets no further request begin."""
        self._stop.set()

    def close(self) -> None:
        """Stops, and closes the connections."""
        self.stop()
        self._buffer.close()
        self._fetcher.close()

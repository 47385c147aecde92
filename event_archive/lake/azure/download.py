"""A blob's content as a stream of ranges that are fetched while the consumer works. Not here: writing.

Each range is asked for under the file's ETag, so that a stream never mixes two versions.
"""

import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager

from azure.core import MatchConditions
from azure.storage.blob import BlobClient

from event_archive.errors import UnreachableError
from event_archive.lake.azure.errors import Subject, ask, or_none
from event_archive.lake.protocol import StoredFile, changed

# Two keep the service and the consumer busy at once; more would only take memory.
_IN_FLIGHT = 2


class Ranges:
    """Ranges of one version of a blob. ``abandoned`` ends the waits of whatever is still asked for.

    Args:
        blob: where from.
        file: the version.
        subject: for messages.
        retry_seconds: how long a range is asked for in all.
    """

    def __init__(self, blob: BlobClient, file: StoredFile, subject: Subject, *, retry_seconds: float) -> None:
        self.file = file
        self.abandoned = threading.Event()
        self._blob = blob
        self._subject = subject
        self._retry_seconds = retry_seconds

    def fetch(self, start: int, length: int) -> bytes:
        """The bytes of one range, which lies within the file.

        Raises:
            FileChangedError, RefusedError, UnreachableError: as for ``Lake``.
        """
        if not length:
            self.require_present()
            return b""
        # The SDK repeats a range that breaks off half-way; all its attempts share one wait.
        until = time.monotonic() + self._retry_seconds

        def download() -> bytes:
            return self._blob.download_blob(
                start,
                length,
                etag=self.file.etag,
                match_condition=MatchConditions.IfNotModified,
                # As it is stored, whatever its Content-Encoding says: the sizes would not add up otherwise.
                decompress=False,
                retry_until=until,
                retry_abandoned=self.abandoned,
            ).readall()

        block = ask(self._subject, or_none(download))
        if block is None:
            raise changed(self._subject, "BlobNotFound")
        if len(block) != length:
            raise UnreachableError(
                f"{self._subject}: {len(block)} of {length} bytes came from byte {start} on. Try again."
            )
        return block

    def require_present(self) -> None:
        """Of an empty blob no range can be asked for.

        Raises:
            FileChangedError, RefusedError, UnreachableError: as for ``Lake``.
        """
        present = ask(
            self._subject,
            or_none(
                lambda: self._blob.get_blob_properties(
                    etag=self.file.etag, match_condition=MatchConditions.IfNotModified
                ),
            ),
        )
        if present is None:
            raise changed(self._subject, "BlobNotFound")


@contextmanager
def streamed(ranges: Ranges, *, range_bytes: int) -> Iterator[Iterator[bytes]]:
    """The blocks of one version. At most four are in memory: two on their way, one of them joined, one in hand.

    Args:
        ranges: of the version.
        range_bytes: size of a range.

    Raises:
        FileChangedError, RefusedError, UnreachableError: from the iterator.
    """
    size_bytes = ranges.file.size_bytes

    def blocks() -> Generator[bytes, None, None]:
        if not size_bytes:
            ranges.require_present()
        in_flight: deque[Future[bytes]] = deque()
        starts = iter(range(0, size_bytes, range_bytes))
        while True:
            while len(in_flight) < _IN_FLIGHT and (start := next(starts, None)) is not None:
                in_flight.append(pool.submit(ranges.fetch, start, min(range_bytes, size_bytes - start)))
            if not in_flight:
                return
            yield in_flight.popleft().result()

    with ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="event-archive-download") as pool:
        try:
            with closing(blocks()) as content:
                yield content
        finally:
            ranges.abandoned.set()

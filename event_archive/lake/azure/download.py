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
from event_archive.lake.azure.errors import ask, changed, or_none
from event_archive.lake.protocol import StoredFile

# Two keep the service and the consumer busy at once; more would only take memory.
_IN_FLIGHT = 2


@contextmanager
def streamed(
    blob: BlobClient, file: StoredFile, subject: str, *, range_bytes: int, retry_seconds: float
) -> Iterator[Iterator[bytes]]:
    """The blocks of one version. At most four are in memory: two on their way, one of them joined, one in hand.

    Args:
        blob: where from.
        file: the version.
        subject: path and container, for messages.
        range_bytes: size of a range.
        retry_seconds: how long a range is asked for in all.

    Raises:
        FileChangedError, RefusedError, UnreachableError: from the iterator.
    """
    abandoned = threading.Event()

    def fetch(start: int) -> bytes:
        length = min(range_bytes, file.size_bytes - start)
        # The SDK repeats a range that breaks off half-way; all its attempts share one wait.
        until = time.monotonic() + retry_seconds

        def download() -> bytes:
            return blob.download_blob(
                start,
                length,
                etag=file.etag,
                match_condition=MatchConditions.IfNotModified,
                # As it is stored, whatever its Content-Encoding says: the sizes would not add up otherwise.
                decompress=False,
                retry_until=until,
                retry_abandoned=abandoned,
            ).readall()

        block = ask(subject, or_none(download))
        if block is None:
            raise changed(subject, "BlobNotFound")
        if len(block) != length:
            raise UnreachableError(f"{subject}: {len(block)} of {length} bytes came from byte {start} on. Try again.")
        return block

    def blocks() -> Generator[bytes, None, None]:
        if not file.size_bytes:
            _require_present(blob, file, subject)
        in_flight: deque[Future[bytes]] = deque()
        starts = iter(range(0, file.size_bytes, range_bytes))
        while True:
            while len(in_flight) < _IN_FLIGHT and (start := next(starts, None)) is not None:
                in_flight.append(pool.submit(fetch, start))
            if not in_flight:
                return
            yield in_flight.popleft().result()

    with ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="event-archive-download") as pool:
        try:
            with closing(blocks()) as content:
                yield content
        finally:
            abandoned.set()
            pool.shutdown(cancel_futures=True)


def _require_present(blob: BlobClient, file: StoredFile, subject: str) -> None:
    """Of an empty blob no range can be asked for."""
    present = ask(
        subject,
        or_none(
            lambda: blob.get_blob_properties(etag=file.etag, match_condition=MatchConditions.IfNotModified),
        ),
    )
    if present is None:
        raise changed(subject, "BlobNotFound")

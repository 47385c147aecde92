"""Content on its way into a blob: blocks, staged while the producer goes on, and their commit. Not here: reading.

Azure's rules (Put Block, Put Block List): block ids of one length and at most 64 bytes, no empty block, at most 50,000
blocks. A commit drops every uncommitted block that it does not list, whoever staged it, and wipes metadata and content
settings unless they are sent again.
"""

import re
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import Any, Self, cast

from azure.core import MatchConditions
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobBlock, BlobClient, BlobProperties, BlockState, ContentSettings

from event_archive.errors import FileChangedError, RefusedError
from event_archive.lake.azure.errors import Subject, ask, lake_error, or_none
from event_archive.lake.names import check_metadata
from event_archive.lake.protocol import CONTENT_TYPE, StoredFile

MAX_BLOCKS = 50_000
MAX_APPENDABLE_BLOCKS = 45_000
"""Leaves room for an append of 40 GB in blocks of 8 MiB. A file of more blocks is rewritten, in full blocks again."""

# Two keep the service and the producer busy at once; more would only take memory.
_IN_FLIGHT = 2
# Two blocks of 8 MiB at a time then need a line of 2.3 Mbit/s.
_SEND_TIMEOUT_SECONDS = 60.0
_OUR_ID = re.compile(r"event-archive-[0-9a-f]{32}-[0-9]{5}")


class BlockUpload:
    """An ``Upload`` into one blob.

    At most three blocks are in memory: one that fills and two on their way. A block that fails is reported by the next
    ``write``, by ``settle`` or by ``commit``.

    Args:
        blob: where to.
        path: the blob's path, for the result.
        subject: for messages.
        replaces: the file that the commit is conditional on; None for a new one.
        committed: ids of the blocks that stay in front of the new ones: all of ``replaces`` for an append, else none.
        block_bytes: a block is sent once it holds at least this much; it never holds twice as much.
    """

    def __init__(
        self,
        blob: BlobClient,
        path: str,
        subject: Subject,
        *,
        replaces: StoredFile | None,
        committed: Sequence[str],
        block_bytes: int,
    ) -> None:
        self._blob = blob
        self._path = path
        self._subject = subject
        self._replaces = replaces
        self._committed = list(committed)
        self._kept_bytes = replaces.size_bytes if replaces and committed else 0
        self._block_bytes = block_bytes
        self._write_id = uuid.uuid4().hex
        self._staged: list[str] = []
        self._staged_bytes = 0
        self._pieces: list[bytes | bytearray | memoryview] = []
        self._pieces_bytes = 0
        self._stage_at_bytes = block_bytes
        self._in_flight: deque[Future[None]] = deque()
        self._abandoned = threading.Event()
        self._pool = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="event-archive-upload")
        self._done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned.set()
        self._pool.shutdown()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes, which the caller must not change afterwards."""
        view = memoryview(data)
        # A row may be far longer than a block: it is cut up as it is, not joined to what came before.
        while self._pieces_bytes + len(view) >= 2 * self._block_bytes:
            taken = self._block_bytes - self._pieces_bytes
            self._pieces.append(view[:taken])
            self._stage_pieces()
            view = view[taken:]
        # A copy, where it is a part: a view would keep the whole in memory.
        self._pieces.append(data if len(view) == len(data) else bytes(view))
        self._pieces_bytes += len(view)
        if self._pieces_bytes >= self._stage_at_bytes:
            self._stage_pieces()

    def settle(self) -> None:
        """Waits until all that was written is staged."""
        self._stage_pieces()
        self._await_blocks(at_most=0)

    def commit(self, metadata: Mapping[str, str], look: Callable[[], object] | None = None) -> StoredFile:
        """Makes the file appear, by one conditional Put Block List."""
        check_metadata(metadata)
        if self._done:
            raise ValueError(f"{self._path} is already committed")
        self.settle()
        if look:
            look()
        old = [BlobBlock(block_id, BlockState.COMMITTED) for block_id in self._committed]
        new = [BlobBlock(block_id, BlockState.UNCOMMITTED) for block_id in self._staged]
        try:
            answer = self._blob.commit_block_list(
                old + new,
                content_settings=ContentSettings(content_type=CONTENT_TYPE),
                metadata=dict(metadata),
                connection_timeout=_SEND_TIMEOUT_SECONDS,
                **self._condition(),
            )
            etag, modified = str(answer["etag"]), cast(datetime, answer["last_modified"])
        except AzureError as failure:
            error = lake_error(failure, self._subject)
        else:
            self._done = True
            return self._stored(etag, modified, metadata)
        # Where the commit succeeded and only its answer was lost, the SDK's second attempt met our own blob.
        ours = self._if_ours(metadata) if isinstance(error, FileChangedError) else None
        if ours is None:
            raise error
        self._done = True
        return self._stored(quoted_etag(ours.etag), ours.last_modified, metadata)

    def _stage_pieces(self) -> None:
        """Stages all that was written as one block."""
        # Before the pieces are joined, so that one block less is in memory.
        self._await_blocks(at_most=_IN_FLIGHT - 1)
        content = b"".join(self._pieces)
        self._pieces.clear()
        self._pieces_bytes = 0
        if content:
            self._stage(content)

    def _stage(self, content: bytes) -> None:
        if len(self._committed) + len(self._staged) >= MAX_BLOCKS:
            raise RefusedError(
                f"{self._subject}: more than {MAX_BLOCKS} blocks of some {self._block_bytes} bytes, which is Azure's "
                "limit for one file. Nothing was changed."
            )
        block_id = f"event-archive-{self._write_id}-{len(self._staged):05d}"
        if not content or not _OUR_ID.fullmatch(block_id) or len(block_id) > 64:
            raise AssertionError(f"block {block_id!r} of {len(content)} bytes is not one that Azure takes")
        future = self._pool.submit(self._send, block_id, content)
        future.add_done_callback(self._hurry_if_failed)
        self._in_flight.append(future)
        self._staged.append(block_id)
        self._staged_bytes += len(content)

    def _send(self, block_id: str, content: bytes) -> None:
        ask(
            self._subject,
            lambda: self._blob.stage_block(
                block_id,
                content,
                length=len(content),
                # The file that stands there holds rows that were purged: what has changed on its way is refused.
                validate_content=self._replaces is not None,
                connection_timeout=_SEND_TIMEOUT_SECONDS,
                retry_abandoned=self._abandoned,
            ),
        )

    def _hurry_if_failed(self, future: "Future[None]") -> None:
        if not future.cancelled() and future.exception():
            self._stage_at_bytes = 0

    def _await_blocks(self, *, at_most: int) -> None:
        while len(self._in_flight) > at_most or (self._in_flight and self._in_flight[0].done()):
            self._in_flight[0].result()
            self._in_flight.popleft()

    def _condition(self) -> dict[str, Any]:
        if self._replaces is None:
            return {"match_condition": MatchConditions.IfMissing}
        return {"match_condition": MatchConditions.IfNotModified, "etag": self._replaces.etag}

    def _if_ours(self, metadata: Mapping[str, str]) -> BlobProperties | None:
        """The blob's properties, where it is what this upload sent; else None."""
        properties: BlobProperties | None = ask(self._subject, or_none(self._blob.get_blob_properties))
        if properties is None or dict(properties.metadata) != dict(metadata):
            return None
        blocks = committed_blocks(self._blob, self._subject)
        return properties if blocks is not None and [b.id for b in blocks] == self._committed + self._staged else None

    def _stored(self, etag: str, modified: datetime, metadata: Mapping[str, str]) -> StoredFile:
        return StoredFile(
            path=self._path,
            size_bytes=self._kept_bytes + self._staged_bytes,
            etag=etag,
            metadata=MappingProxyType(dict(metadata)),
            modified=modified,
        )


def committed_blocks(blob: BlobClient, subject: Subject) -> list[BlobBlock] | None:
    """The blocks that a blob consists of, in order; None where there is no blob."""
    lists = ask(subject, or_none(lambda: blob.get_block_list("committed")))
    return lists[0] if lists else None


def are_ours(blocks: Sequence[BlobBlock], size_bytes: int) -> bool:
    """Whether a blob of this size can be appended to by blocks.

    One that was written by Put Blob has no blocks, and a commit of new ones would replace its content. Ids of another
    length than ours make Azure refuse ours.
    """
    return (
        len(blocks) <= MAX_APPENDABLE_BLOCKS
        and sum(block.size for block in blocks) == size_bytes
        and all(_OUR_ID.fullmatch(block.id) for block in blocks)
    )


def quoted_etag(etag: str) -> str:
    """An ETag in the quotes that HTTP demands and Azure's listings leave out."""
    return '"' + etag.strip('"') + '"'

"""Bytes that may be gzipped, told by the bytes themselves, as plain bytes. Not here: what they mean.

Members one after another, zero padding behind them and gzip within gzip are all taken for one stream. Memory is flat,
whatever the ratio of compression.
"""

import zlib
from collections.abc import Iterator

from event_archive.sources.log_files.stores import FileError

_MAGIC = b"\x1f\x8b"
_GZIP = 31
_AT_ONCE_BYTES = 512 * 1024
_DEPTH = 3
"""How often a file may have been gzipped."""


class CorruptError(FileError):
    """A file's bytes are not what they should be: cut short, or damaged. The message says where."""


def inflated(chunks: Iterator[bytes], depth: int = 0) -> Iterator[bytes]:
    """The chunks, inflated as often as they were deflated.

    Raises:
        CorruptError: cut short, damaged, or gzipped more than three times.
    """
    first = b""
    for chunk in chunks:
        first += chunk
        if len(first) >= len(_MAGIC):
            break
    whole = _chain(first, chunks)
    if not first.startswith(_MAGIC):
        return whole
    if depth == _DEPTH:
        raise CorruptError(f"It is gzipped more than {_DEPTH} times.")
    return inflated(_members(whole), depth + 1)


def _chain(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from chunks


def _members(chunks: Iterator[bytes]) -> Iterator[bytes]:
    member = None
    # Bytes that are taken, and those that wait.
    offset, data = 0, b""
    for chunk in chunks:
        data += chunk
        while True:
            if member is None:
                stripped = data.lstrip(b"\0") if offset else data
                offset, data = offset + len(data) - len(stripped), stripped
                if len(data) < len(_MAGIC):
                    break
                if not data.startswith(_MAGIC):
                    raise CorruptError(f"Bytes that are no gzip follow it at byte {offset}.")
                member = zlib.decompressobj(_GZIP)
            try:
                piece = member.decompress(data, _AT_ONCE_BYTES)
            except zlib.error as error:
                raise CorruptError(f"Its gzip is damaged, from byte {offset} on: {error}.") from None
            rest = member.unused_data if member.eof else member.unconsumed_tail
            offset, data = offset + len(data) - len(rest), rest
            if piece:
                yield piece
            if member.eof:
                member = None
            elif not data and len(piece) < _AT_ONCE_BYTES:
                break
    if member is not None or data:
        raise CorruptError(f"Its gzip is cut short at byte {offset + len(data)}.")

"""What a CSV file's bytes show before PostgreSQL parses them: the header, how lines end. Not here: rows and values."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence

from event_archive.domain.contradiction import no_csv_of_ours
from event_archive.domain.dataset import check_identifier
from event_archive.lake.protocol import StoredFile

BOM = b"\xef\xbb\xbf"
# The longest names of 1,600 columns, PostgreSQL's limit, take 100 kB; what goes on for so much longer is no header.
_MAX_HEADER_BYTES = 1024 * 1024
MOVING_WORDS = (b"now", b"today", b"tomorrow", b"yesterday")
"""What PostgreSQL takes for a time, in upper and lower case, and each day for another."""
_LONGEST_WORD = max(map(len, MOVING_WORDS))
_END_MARKER = re.compile(rb"(?<=[\r\n])\\\.[\r\n]")


def read_head(blocks: Iterator[bytes], file: StoredFile) -> bytes:
    """Takes blocks until they hold the whole header record, and returns them as one.

    Raises:
        IntegrityError: there is nothing.
    """
    head = b""
    for block in blocks:
        head += block
        if header_end(head) or len(head) > _MAX_HEADER_BYTES:
            break
    if not head:
        raise no_csv_of_ours(file, "it is empty, without even a header")
    return head


def header_end(head: bytes) -> int:
    """Where the first record ends: after the first line end outside quotes; 0 where there is none."""
    end = head.find(b"\n")
    while end >= 0:
        if head.count(b'"', 0, end) % 2 == 0:
            return end + 1
        end = head.find(b"\n", end + 1)
    return 0


def header(head: bytes, file: StoredFile, expected: Sequence[str] = ()) -> tuple[str, ...]:
    """The column names in a file's first record.

    Args:
        head: the first bytes of the file.
        file: for messages.
        expected: the table's columns. What looks like a byte order mark may be the beginning of a name.

    Raises:
        IntegrityError: not UTF-8, not one CSV record, or names that no table can have.
    """
    end = header_end(head) or min(len(head), _MAX_HEADER_BYTES)
    try:
        records = list(csv.reader(io.StringIO(head[:end].removeprefix(BOM).decode(), newline=""), strict=True))
        names = records[0]
        for name in names or [""]:
            check_identifier(name)
    except (UnicodeDecodeError, csv.Error, IndexError, ValueError) as error:
        raise no_csv_of_ours(file, f"its first line is not the header of a CSV file ({error})") from None
    if head.startswith(BOM) and (marked := BOM.decode() + names[0]) in expected:
        names[0] = marked
    if len(set(names)) < len(names):
        raise no_csv_of_ours(file, "its header names a column twice")
    return tuple(names)


def takes_more_rows(head: bytes, last_byte: bytes) -> bool:
    r"""Whether PostgreSQL's rows may be appended: there is no byte order mark, and lines end in ``\n`` alone."""
    end = header_end(head)
    return not head.startswith(BOM) and head[end - 2 : end] != b"\r\n" and last_byte == b"\n"


def without_end_marker(blocks: Iterator[bytes], file: StoredFile) -> Iterator[bytes]:
    r"""The same blocks; refuses them where a line outside quotes is ``\.`` alone.

    PostgreSQL before 18 takes that line for the end of the data and silently drops what follows.

    Raises:
        IntegrityError: there is such a line.
    """
    quotes, carry = 0, b"\n"
    for block in blocks:
        text = carry + block
        for match in _END_MARKER.finditer(text):
            if (quotes + text.count(b'"', len(carry), match.start())) % 2 == 0:
                raise no_csv_of_ours(file, r"a line of it is \. alone, which PostgreSQL before 18 takes for its end")
        quotes += block.count(b'"')
        # The line end before the marker, and its 3 bytes less one.
        carry = text[-3:]
        yield block


class MovingWords:
    """Whether a file may say a time that is another one each day. Blocks pass through as they are."""

    def __init__(self) -> None:
        self.found = False

    def watch(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """The same blocks."""
        tail = b""
        for block in blocks:
            if not self.found:
                # In an array, a range or a row, backslashes and quotes within a word are no part of it.
                text = tail + bytes(block).lower().translate(None, b'\\"')
                self.found = any(word in text for word in MOVING_WORDS)
                tail = text[-_LONGEST_WORD:]
            yield block

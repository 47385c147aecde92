"""A stream of plain bytes as log entries, each as it came: a JSON array, JSON lines, or objects over several lines.

Told by the bytes, in memory of a few MiB whatever a file's size and wherever its line ends are. An entry's position is
its number in the file, the same however the bytes arrive. Not here: gzip, what an entry means.
"""

import json
import re
from collections.abc import Iterator

import msgspec

from event_archive.sources.log_files.inflating import CorruptError

MOST_ENTRY_BYTES = 16 * 1024 * 1024
"""An entry that is longer ends its file: memory is bounded by it."""

_BLOCK_BYTES = 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_CUT = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
_SIGN = re.compile(rb"[ \t\r\n]*([^ \t\r\n])")
_NEXT = re.compile(r"[ \t\n\r]*")
_CUTS_TRIED = 8
_LAST_TOKEN = 16
"""Characters: an error so close to the end of what has arrived may be that of a token which has not."""
_ONE = msgspec.json.Decoder(msgspec.Raw)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
# Python makes no int of more than 4,300 digits.
_SLOW = json.JSONDecoder(parse_int=str)

Entry = bytes | msgspec.Raw
"""As ``msgspec.Raw`` it is JSON; as bytes, nobody has found it to be."""
_UNREADABLE = (msgspec.MsgspecError, RecursionError)


def entries(chunks: Iterator[bytes]) -> Iterator[list[Entry]]:
    """The entries of a file, some at a time; empty lines are none.

    Raises:
        CorruptError: the file is cut short, or is no JSON from some byte on. Lines that are no JSON are entries: only
            they themselves are broken.
    """
    window = _Window(_blocks(chunks))
    window.skip(_BOM)
    while window.skip_space():
        if window.data.startswith(b"["):
            yield from _array(window)
        else:
            yield from _lines(window)


def _blocks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of one size: what is found must not hang on how they arrive."""
    block = bytearray()
    for chunk in chunks:
        block += chunk
        while len(block) >= _BLOCK_BYTES:
            yield bytes(block[:_BLOCK_BYTES])
            del block[:_BLOCK_BYTES]
    if block:
        yield bytes(block)


class _Window:
    """What has arrived of a stream and is not taken yet."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.data = b""
        self.offset = 0
        self.ended = False

    def grow(self, more_bytes: int = 0) -> None:
        """Waits for as much more, a block at least, or the end."""
        pieces, size, more_bytes = [self.data], 0, more_bytes or _BLOCK_BYTES
        while size < more_bytes and not self.ended:
            piece = next(self._chunks, None)
            if piece is None:
                self.ended = True
            else:
                pieces.append(piece)
                size += len(piece)
        self.data = b"".join(pieces)

    def take(self, size: int) -> None:
        self.data = self.data[size:]
        self.offset += size

    def skip(self, prefix: bytes) -> None:
        if not self.data:
            self.grow()
        if self.data.startswith(prefix):
            self.take(len(prefix))

    def skip_space(self) -> bool:
        """Whether anything follows the space."""
        while True:
            stripped = self.data.lstrip(_SPACE)
            self.take(len(self.data) - len(stripped))
            if stripped or self.ended:
                return bool(stripped)
            self.grow()

    def grow_or_fail(self, what: str) -> None:
        """Doubles what is looked at, as long as an entry may be so long."""
        if len(self.data) > MOST_ENTRY_BYTES:
            raise CorruptError(f"{what} at byte {self.offset} is longer than {MOST_ENTRY_BYTES} bytes.")
        self.grow(len(self.data))


def _array(window: _Window) -> Iterator[list[Entry]]:
    """An array's elements, up to its end."""
    window.take(1)
    first = True
    while True:
        if not window.skip_space():
            raise CorruptError(f"Its array is cut short at byte {window.offset}.")
        if first and window.data.startswith(b"]"):
            window.take(1)
            return
        if len(window.data) < _BLOCK_BYTES and not window.ended:
            window.grow()
        found, size, at_end = _fast(window) or _slow(window)
        if found:
            yield found
        window.take(size)
        if at_end:
            return
        first = False
        if not found:
            window.grow_or_fail("An element of its array")


def _fast(window: _Window) -> tuple[list[Entry], int, bool] | None:
    """Elements up to a boundary far behind: their number of bytes, the comma's included, and whether the array ends.

    A prefix that decodes ends at a true boundary: within a text or a list inside of an element, it would not.
    """
    data = window.data
    if window.ended:
        try:
            return [*_LIST.decode(b"[" + data)], len(data), True
        except _UNREADABLE:
            # Something else may follow it.
            pass
    for cut in _last_cuts(data):
        try:
            return [*_LIST.decode(b"[" + data[: cut.start() + 1] + b"]")], cut.end() - 1, False
        except _UNREADABLE:
            continue
    return None


def _last_cuts(data: bytes) -> list[re.Match[bytes]]:
    """The last places that look like a boundary between elements, the last one first."""
    step = 64 * 1024
    cuts: list[re.Match[bytes]] = []
    for start in range(max(len(data) - step, 0), -1, -step):
        cuts = list(_CUT.finditer(data, start))
        if cuts:
            break
        step *= 4
    return cuts[: -_CUTS_TRIED - 1 : -1]


def _slow(window: _Window) -> tuple[list[Entry], int, bool]:
    """As ``_fast``, element by element, by a parser that forgives what is not quite JSON within one."""
    text = window.data.decode("utf-8", "surrogateescape")
    found: list[Entry] = []
    at, taken = 0, 0
    while True:
        try:
            _, end = _SLOW.raw_decode(text, at)
        except json.JSONDecodeError as error:
            unterminated = error.msg.startswith("Unterminated")
            if not window.ended and (unterminated or error.pos >= len(text) - _LAST_TOKEN):
                break
            raise _broken(window, text, error.pos, cut_short=unterminated or error.pos >= len(text)) from None
        except RecursionError:
            raise CorruptError(f"An element of its array is nested too deeply at byte {window.offset}.") from None
        following = _NEXT.match(text, end).end()  # type: ignore[union-attr]
        sign = text[following : following + 1]
        if not sign and not window.ended:
            break
        if sign not in (",", "]"):
            raise _broken(window, text, following, cut_short=not sign)
        found.append(_bytes(text[at:end]))
        at = taken = following + 1
        if sign == "]":
            break
        at = _NEXT.match(text, at).end()  # type: ignore[union-attr]
    return found, len(_bytes(text[:taken])), text[taken - 1 : taken] == "]" and bool(taken)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _broken(window: _Window, text: str, at: int, *, cut_short: bool) -> CorruptError:
    offset = window.offset + len(_bytes(text[:at]))
    return CorruptError(
        f"Its array is cut short at byte {offset}." if cut_short else f"Its array is no JSON at byte {offset}."
    )


def _lines(window: _Window) -> Iterator[list[Entry]]:
    """The entries of lines, up to the end of the file."""
    first = True
    while window.data or not window.ended:
        if len(window.data) < _BLOCK_BYTES and not window.ended:
            window.grow()
        if first and window.ended and (whole := _whole(window.data)):
            window.take(len(window.data))
            yield whole
            return
        first = False
        size = len(window.data) if window.ended else window.data.rfind(b"\n") + 1
        found, size = _of_lines(window.data[:size], at_end=window.ended)
        if found:
            yield found
        window.take(size)
        if not size:
            window.grow_or_fail("An entry")


def _whole(data: bytes) -> list[Entry]:
    """What has arrived as one object over several lines, however it is laid out; else nothing."""
    try:
        return [_ONE.decode(data)]
    except _UNREADABLE:
        return []


def _of_lines(data: bytes, *, at_end: bool) -> tuple[list[Entry], int]:
    """The entries of whole lines, and how many bytes they are."""
    try:
        return [*_ONE.decode_lines(data)], len(data)
    except _UNREADABLE:
        pass
    found: list[Entry] = []
    at = 0
    while at < len(data):
        end = data.find(b"\n", at) + 1 or len(data)
        line = data[at:end].strip(_SPACE)
        if line == b"{":
            entry, end = _laid_out(data, at, end)
            if entry is not None:
                found += entry
            elif not at_end:
                return found, at
            else:
                found.append(line)
        elif line:
            found += _decoded(line)
        at = end
    return found, at


def _laid_out(data: bytes, at: int, end: int) -> tuple[list[Entry] | None, int]:
    """An object over several lines, from a brace alone on its line to the one that is indented alike, and its end."""
    following = _SIGN.match(data, end)
    if following and following[1] not in b'"}':
        # A line that is broken: another entry follows it.
        return [data[at:end].strip(_SPACE)], end
    indent = data[at:end].partition(b"{")[0]
    closing = re.compile(rb"^" + re.escape(indent) + rb"\}[ \t,]*\r?(?:\n|\Z)", re.MULTILINE)
    last = closing.search(data, end)
    if last is None:
        return None, end
    return _decoded(data[at : last.end()].strip(_SPACE)), last.end()


def _decoded(text: bytes) -> list[Entry]:
    """The one entry, or several one behind the other; where they are no JSON, one that is none."""
    try:
        return [*_ONE.decode_lines(text)]
    except _UNREADABLE:
        return [text]

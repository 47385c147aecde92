"""A row as a line of the COPY that lands it, without its line end, JSON unescaped.

Not here: which columns there are, the COPY itself.

COPY's CSV with a delimiter and a quote that JSON cannot hold unescaped, so that most values go through as they are.
"""

from collections.abc import Iterable, Sequence

OPTIONS = "FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02', NULL ''"
"""Of the COPY that reads these lines."""

_DELIMITER, _QUOTE = b"\x01", b"\x02"
_CLEAN = bytes(set(range(256)) - {0x01, 0x02, 0x0A, 0x0D})


def line(values: Iterable[bytes | None]) -> bytes:
    """One row.

    Args:
        values: in the order of the COPY's columns, as UTF-8 text; None for NULL.
    """
    return _DELIMITER.join([b"" if value is None else _field(value) for value in values])


def clean_line(values: Sequence[bytes]) -> bytes:
    """As ``line``, of values that are not empty, and hold neither a control character nor a line end."""
    return _DELIMITER.join(values)


def clean_lines(*columns: Iterable[bytes]) -> list[bytes]:
    """As ``clean_line``, of many rows by their columns, which are as long as each other."""
    return [_DELIMITER.join(values) for values in zip(*columns, strict=True)]


def _field(value: bytes) -> bytes:
    # What translate leaves when all harmless bytes are taken away.
    if value and not value.translate(None, _CLEAN):
        return value
    return _QUOTE + value.replace(_QUOTE, _QUOTE + _QUOTE) + _QUOTE

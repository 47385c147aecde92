"""The first rows of a day's file as a Markdown table, for people who look at a partition."""

import csv
import io
from itertools import islice

_ROWS = 5
_CELL_CHARACTERS = 60


def preview(head: bytes) -> str:
    """A Markdown table of the first rows.

    Args:
        head: the first bytes of a file; its last record may be cut.

    Returns:
        The header and at most five rows, long values cut; an empty string for an empty head.
    """
    records = csv.reader(io.StringIO(head.decode(errors="replace"), newline=""))
    header, *rows = [[_cell(value) for value in record] for record in islice(records, _ROWS + 1)] or [[]]
    if not header:
        return ""
    whole = [row for row in rows if len(row) == len(header)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *whole])


def _cell(value: str) -> str:
    cut = value if len(value) <= _CELL_CHARACTERS else value[: _CELL_CHARACTERS - 1] + "…"
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\r", " "), ("\n", " ")):
        cut = cut.replace(character, escaped)
    return cut

"""The first rows of a day's file as a Markdown table, for people who look at a partition.

Not here: recording it (``metadata``). Nothing but this and the file shows values of rows.
"""

import csv
import io
import logging
from itertools import islice

import dagster as dg

from event_archive.defs.gate import asset_keys, latest_materialization
from event_archive.defs.markdown import is_literal, literal
from event_archive.defs.metadata import PREVIEW
from event_archive.domain.dataset import Dataset
from event_archive.errors import EventArchiveError
from event_archive.lake.protocol import Lake
from event_archive.operations.archive import ArchivedDay

logger = logging.getLogger(__name__)

# Enough to see what the rows are like, and narrow enough for the page. It is kept with every materialization.
_ROWS = 5
_CELL_CHARACTERS = 60
# One small request holds five rows of most tables; where it does not, the preview shows fewer.
_HEAD_BYTES = 64 * 1024


def preview_of_day(instance: dg.DagsterInstance, dataset: Dataset, archived: ArchivedDay, lake: Lake) -> str:
    """The preview of a day's file: the one recorded last where the file is still the same, else read from the lake.

    A file that cannot be read at this moment has none: that is no reason for a day to fail.
    """
    if archived.etag is None:
        return ""
    latest = latest_materialization(instance, asset_keys(dataset).archive_csv, archived.day.isoformat())
    recorded = latest.asset_materialization.metadata if latest and latest.asset_materialization else {}
    etag, preview = recorded.get("etag"), recorded.get(PREVIEW)
    if etag and etag.value == archived.etag and preview and is_literal(str(preview.value)):
        return str(preview.value)
    return markdown(head_of_day(archived, lake, _HEAD_BYTES, without="a preview"))


def head_of_day(archived: ArchivedDay, lake: Lake, most_bytes: int, *, without: str) -> bytes:
    """The first bytes of a day's file; none where it cannot be read: a warning says ``without`` what it is recorded."""
    try:
        file = lake.stat(archived.path)
        return lake.head(file, most_bytes) if file else b""
    except EventArchiveError as error:
        logger.warning("%s is recorded without %s: %s", archived.path, without, error)
        return b""


def markdown(head: bytes) -> str:
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
    return literal(value if len(value) <= _CELL_CHARACTERS else value[: _CELL_CHARACTERS - 1] + "…")

"""The columns of a day's file for people who look at a partition: a file keeps the columns that its table had.

Not here: recording them (``metadata``), how a file's columns are matched with a table's (``operations.readback``).
"""

import csv
import io

import dagster as dg

from event_archive.defs.preview import head_of_day
from event_archive.domain.manifest import names_hash
from event_archive.lake.protocol import Lake
from event_archive.operations.archive import ArchivedDay

# 1,600 columns, as many as a table may have, with names of 63 letters: longer headers do without.
_HEAD_BYTES = 128 * 1024


def columns_of_file(archived: ArchivedDay, lake: Lake) -> list[dg.TableColumn]:
    """The columns that a day's file has, with the types that the table gives them by now; ``text`` where it has none.

    A header that cannot be read at this moment has none: that is no reason for a day to fail. Where there is no file,
    they are those that one would have. Whether they may be empty, the table does not tell: rows from before a column
    came have it empty.
    """
    types = {of.name: dg.TableColumn(of.name, of.type) for of in archived.columns}
    manifest = archived.manifest
    if manifest is None or names_hash(list(types)) == manifest.columns:
        return list(types.values())
    head = head_of_day(archived, lake, _HEAD_BYTES, without="its columns")
    names = next(csv.reader(io.StringIO(head.decode(errors="replace"), newline="")), [])
    if names_hash(names) != manifest.columns:
        return []
    return [types.get(name, dg.TableColumn(name, "text")) for name in names]

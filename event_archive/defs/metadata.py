"""What a materialization records of a day, the same for the assets and for what the command line reports.

Here: names and types of the metadata, which users' scripts rely on. Not here: recording it; what the gate makes of it
(``domain.record``).
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from event_archive.defs.markdown import without_links
from event_archive.domain.wording import counted, size, took
from event_archive.nightly.backlog import Backlog
from event_archive.nightly.outcome import purge_details
from event_archive.operations.archive import ArchivedDay
from event_archive.operations.purge import PurgedDay
from event_archive.table.rows import RowsOfDay

if TYPE_CHECKING:
    # pyarrow is a fifth of the memory that a run needs, and only a check needs it.
    from event_archive.operations.verify import VerifiedDay

PREVIEW = "preview"

Metadata = dict[str, Any]


def aged_metadata(rows: RowsOfDay) -> Metadata:
    """Of ``aged_events``."""
    return {"dagster/row_count": rows.rows, "first": rows.first or "", "last": rows.last or ""}


def archive_metadata(archived: ArchivedDay, preview: str, columns: Sequence[dg.TableColumn]) -> Metadata:
    """Of ``archive_csv``; the gate of the purge reads ``etag`` and ``dagster/row_count``.

    Args:
        archived: the day's file.
        preview: its first rows, Markdown.
        columns: those that it has.
    """
    manifest = archived.manifest
    return {
        "path": archived.path,
        "url": dg.MetadataValue.url(archived.url),
        "dagster/row_count": archived.rows,
        "rows_appended": archived.rows_appended,
        "bytes": manifest.bytes if manifest else 0,
        "size": size(manifest.bytes if manifest else 0),
        "sha256": manifest.sha256 if manifest else dg.MetadataValue.null(),
        "etag": archived.etag or dg.MetadataValue.null(),
        "dagster/column_schema": dg.TableSchema(columns=list(columns)),
        PREVIEW: dg.MetadataValue.md(preview),
        "seconds": archived.seconds,
        "took": took(archived.seconds),
        "rows_per_second": archived.rows_appended / archived.seconds,
        "manifest": dg.MetadataValue.json(manifest.to_json()) if manifest else dg.MetadataValue.null(),
    }


def purge_metadata(purged: PurgedDay) -> Metadata:
    """Of ``purged_events``."""
    return {
        "deleted": purged.deleted,
        "proven": purged.proven,
        "left": purged.left,
        "dry_run": purged.dry_run,
        "outcome": purged.outcome,
        "reason": purged.reason or "",
        "seconds": purged.seconds,
        "took": took(purged.seconds),
        **purge_details(purged.how, purged.partitions, purged.vacuum_seconds),
    }


def purges_of_others(purged: PurgedDay) -> list[PurgedDay]:
    """The days whose rows went with a partition that was dropped with another day, each as a purge of its own."""
    if purged.outcome != "purged":
        return []
    return [
        replace(purged, day=day, deleted=0, proven=0, left=left, reason=_went_with(purged.day, left), seconds=0.0)
        for day, left in purged.others.items()
    ]


def _went_with(day: date, left: int) -> str:
    went = f"went with the partition, and count as deleted with those of {day}"
    if not left:
        return f"its rows {went}"
    return f"some of its rows {went}; {counted(left, 'row lies in another and stays', 'rows lie in others and stay')}"


def backlog_metadata(found: Backlog) -> Metadata:
    """Of an observation of ``aged_events``: what is late, and what the whole table takes on disk."""
    return {
        "backlog_days": found.days,
        "backlog_rows": found.rows,
        "held_days": found.held_days,
        "table_bytes": found.table_bytes,
        "table_size": size(found.table_bytes),
    }


def check_metadata(verified: "VerifiedDay") -> Metadata:
    """Of an evaluation of ``archive_is_whole``."""
    rows: Metadata = {} if verified.rows is None else {"rows": verified.rows}
    return rows | {"bytes": verified.bytes, "seconds": verified.seconds}


def check_description(verified: "VerifiedDay", lost: str = "") -> str:
    """What an evaluation of ``archive_is_whole`` says to people.

    Args:
        verified: the day's file.
        lost: that it has fewer rows than were recorded of it, if it has.
    """
    return without_links("; ".join(verified.problems) or lost or "; ".join(("good", *verified.remarks)))

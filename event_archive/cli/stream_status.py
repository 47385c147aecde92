"""``event-archive ingest stream --status``: what waits, what has landed, and whether anything is missing.

Not here: how it is looked at.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from event_archive.domain.dataset import Dataset
from event_archive.domain.wording import counted, oldest_for

if TYPE_CHECKING:
    from event_archive.config.sources import StreamSettings
    from event_archive.sources.redis_stream.status import Status


def show_status(settings: "StreamSettings", datasets: Iterable[Dataset], *, as_json: bool) -> None:
    """Says how a stream stands.

    Args:
        settings: of the stream and the database.
        datasets: what is archived.
        as_json: as a JSON line.

    Raises:
        EventArchiveError: Redis or PostgreSQL does not answer, or refuses.
    """
    from event_archive.observability.json_lines import write_line
    from event_archive.sources.redis_stream.status import status

    found = status(settings, datasets)
    if as_json:
        write_line("done", source="stream", **_fields(found))
    else:
        click.echo("\n".join(_told(found, settings)))


def _fields(found: "Status") -> dict[str, Any]:
    group, table, books = found.group, found.table, found.books
    return {
        "length": group.length,
        "consumers": group.consumers,
        "lag_entries": group.lag_entries,
        "lag_seconds": round(group.lag_seconds, 3),
        "pending": group.pending,
        "oldest_pending_seconds": round(group.oldest_pending_seconds, 3),
        "rows": table and table.rows,
        "last": table and table.last,
        "looked_at": books and books.looked_at,
        "missing": books and list(books.missing),
        "rejected": books and books.rejected,
        "lost": books and books.lost,
    }


def _told(found: "Status", settings: "StreamSettings") -> list[str]:
    group, table, books = found.group, found.table, found.books
    lag = "some" if group.lag_entries is None else f"{group.lag_entries:,}"
    about = f"group {settings.stream_group}, {counted(group.consumers, 'consumer', 'consumers')}"
    if not group.exists:
        about = f"there is no group {settings.stream_group} yet"
    words = [
        f"{settings.stream_key}: {counted(group.length, 'entry', 'entries')}; {about}",
        f"  not read yet: {lag}" + oldest_for(group.lag_seconds),
        f"  not acknowledged yet: {group.pending:,}" + oldest_for(group.oldest_pending_seconds),
    ]
    if table is None or books is None:
        return [
            *words,
            f"{settings.table}: not there{', though the group is past entries' if group.is_past_some else ' yet'}",
        ]
    return [
        *words,
        f"{settings.table}: about {counted(table.rows, 'row', 'rows')}"
        + (f", the latest of {table.last:%Y-%m-%d %H:%M:%S} UTC" if table.last else ""),
        f"  of the {counted(books.looked_at, 'entry', 'entries')} acknowledged last{group.settled_told}, "
        f"{counted(len(books.missing), 'is', 'are')} missing" + "".join(f"\n    {of}" for of in books.missing[:10]),
        f"  rejected: {books.rejected:,}; lost: {books.lost:,}",
    ]

"""``event-archive ingest stream``: positions of a Redis stream, into PostgreSQL. Not here: how entries are read."""

import logging
import sys
from typing import TYPE_CHECKING

import click

from event_archive.cli import exit_code, stop
from event_archive.cli.arguments import warn_of_misspelt
from event_archive.cli.ingestions import show, told_of
from event_archive.cli.stream_status import show_status
from event_archive.config.variables import output_is_json
from event_archive.domain.wording import counted
from event_archive.errors import EventArchiveError

if TYPE_CHECKING:
    from event_archive.sources.redis_stream.task import Totals

_GRACE_SECONDS = 8.0
"""From a signal on: the batch in hand is committed and acknowledged; what takes longer stays pending."""

_log = logging.getLogger(__name__)


@click.command("stream", short_help="Positions of a Redis stream (REDIS_URL).")
@click.option("--status", is_flag=True, help="Say what waits, what has landed, and whether anything is missing.")
@click.option("--drain", is_flag=True, help="End once nothing is left to read.")
@click.option("--debug", is_flag=True, help="Log each batch.")
def stream(*, status: bool, drain: bool, debug: bool) -> None:
    """Positions of a Redis stream (REDIS_URL) into positions, until it is told to stop."""
    if status and drain:
        raise click.UsageError("--status and --drain exclude one another.")
    from event_archive.config.datasets import load_datasets
    from event_archive.config.sources import StreamSettings
    from event_archive.observability import logs as log_lines
    from event_archive.sources.archived import ArchivedHere
    from event_archive.sources.redis_stream.consume import Consumer
    from event_archive.sources.redis_stream.server import answering

    as_json = output_is_json()
    log_lines.configure(as_json=as_json, verbose=not status, stream=sys.stdout if as_json else sys.stderr)
    if debug:
        logging.getLogger("event_archive").setLevel(logging.DEBUG)
    warn_of_misspelt()
    settings = StreamSettings.load()
    datasets = ArchivedHere(settings.postgres, settings.table, load_datasets())
    if status:
        show_status(settings, datasets, as_json=as_json)
        return
    consumer = Consumer(
        settings,
        datasets,
        drain=drain,
        told_to_stop=stop.requested,
        progress=lambda totals: _log.info("ingestion under way: %s", _told(totals)),
    )
    with stop.deferred(_GRACE_SECONDS):
        try:
            with answering(settings, consumer.metrics):
                consumer.run()
        except EventArchiveError as error:
            consumer.totals.failures.append(error)
        _show(consumer.totals, as_json=as_json)
    if stop.requested() and consumer.totals.ended != "complete":
        sys.exit(stop.exit_code())
    if consumer.totals.failures:
        sys.exit(exit_code(consumer.totals.failures))


def _show(totals: "Totals", *, as_json: bool) -> None:
    show(
        totals,
        _told(totals),
        as_json=as_json,
        source="stream",
        entries=totals.counts.taken,
        batches=totals.batches,
        claimed=totals.claimed,
        reconnects=totals.reconnects,
        groups_recreated=totals.groups_recreated,
        pending=totals.pending,
        entries_per_second=round(totals.rate, 1),
    )


def _told(totals: "Totals") -> str:
    words = (
        f"{counted(totals.counts.taken, 'entry', 'entries')} in {totals.seconds:.1f} s ({totals.rate:,.0f} a second): "
    )
    words += told_of(totals, "known", "superseded", "rejected", "too_old", "lost")
    if totals.pending:
        words += f"; {counted(totals.pending, 'entry', 'entries')} of the group still pending"
    return words

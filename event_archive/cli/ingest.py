"""``event-archive ingest``: events of a source, into PostgreSQL. Not here: how any source is read."""

import logging
import sys
from typing import TYPE_CHECKING

import click

from event_archive.cli import EXIT_FAILED, exit_code, stop
from event_archive.cli.arguments import warn_of_misspelt
from event_archive.cli.ingest_logs import logs
from event_archive.cli.ingest_stream import stream
from event_archive.cli.ingestions import show, told_of
from event_archive.config.variables import output_is_json
from event_archive.domain.wording import counted, duration
from event_archive.errors import EventArchiveError

if TYPE_CHECKING:
    from event_archive.sources.http_api.task import Totals

_GRACE_SECONDS = 20.0
"""From a signal on: requests on their way get five, and what arrived is landed."""

_log = logging.getLogger(__name__)


@click.group(short_help="Brings in events of an API, log files or a stream.")
def ingest() -> None:
    """Brings events into PostgreSQL: each becomes one row, however often its source sends it."""


ingest.add_command(logs)
ingest.add_command(stream)


@ingest.command(short_help="Events of an HTTP API (API_BASE_URL).")
def api() -> None:
    """Events of an HTTP API (API_BASE_URL) into ingested_events, from where the last run ended."""
    from event_archive.config.datasets import load_datasets
    from event_archive.config.sources import ApiSettings
    from event_archive.observability import logs as log_lines
    from event_archive.observability.announcement import announced_ingestion
    from event_archive.sources.archived import ArchivedHere
    from event_archive.sources.http_api.ingest import Ingestion

    as_json = output_is_json()
    log_lines.configure(as_json=as_json, verbose=True, stream=sys.stdout if as_json else sys.stderr)
    warn_of_misspelt()
    settings = ApiSettings.load()
    run = Ingestion(
        settings,
        ArchivedHere(settings.postgres, settings.table, load_datasets()),
        told_to_stop=stop.requested,
        progress=lambda totals: _log.info("ingestion under way: %s", _told(totals)),
    )
    with announced_ingestion("api", run, stop.requested) as failures:
        with stop.deferred(_GRACE_SECONDS):
            try:
                run.run()
            except EventArchiveError as error:
                run.totals.failures.append(error)
            _show(run.totals, as_json=as_json)
        failures += run.totals.failures
    if stop.requested() and run.totals.ended != "complete":
        sys.exit(stop.exit_code())
    if run.totals.failures:
        sys.exit(EXIT_FAILED if run.totals.pages else exit_code(run.totals.failures))


def _show(totals: "Totals", *, as_json: bool) -> None:
    show(
        totals,
        _told(totals),
        as_json=as_json,
        source="api",
        events=totals.counts.taken,
        pages=totals.pages,
        restarts=totals.restarts,
        watermark=totals.watermark,
        events_per_second=round(totals.rate, 1),
    )


def _told(totals: "Totals") -> str:
    counts = totals.counts
    words = f"{counted(counts.taken, 'event', 'events')} in {totals.seconds:.1f} s ({totals.rate:,.0f} a second): "
    words += told_of(totals, "known", "superseded", "rejected", "too_old", "lost")
    if totals.left and totals.rate:
        takes = duration(totals.left / totals.rate)
        words += f"; {counted(totals.left, 'event is', 'events are')} left, about {takes}"
    return words

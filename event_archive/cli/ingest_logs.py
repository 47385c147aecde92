"""``event-archive ingest logs``: log files, into PostgreSQL. Not here: how any file is read."""

import logging
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from event_archive.cli import EXIT_FAILED, exit_code, stop
from event_archive.cli.arguments import warn_of_misspelt
from event_archive.cli.ingestions import show, told_of
from event_archive.config.variables import output_is_json, value_of
from event_archive.domain.wording import counted
from event_archive.errors import ConfigurationError, EventArchiveError, printable
from event_archive.paths import is_file

if TYPE_CHECKING:
    from event_archive.config.sources import LogsSettings
    from event_archive.sources.log_files.ingest import Ingestion
    from event_archive.sources.log_files.totals import Totals

_GRACE_SECONDS = 20.0
"""From a signal on: the batch in hand is finished, and its file rolled back."""

_log = logging.getLogger(__name__)


def _interval(_context: click.Context, _parameter: click.Parameter, text: str | None) -> timedelta | None:
    from event_archive.config.values import parse_budget

    try:
        return parse_budget(text) if text is not None else None
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}") from None


@click.command("logs", short_help="Log files of a bucket, a container or a folder (LOGS_URL).")
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="This file of this machine alone.",
)
@click.option("--limit", type=click.IntRange(1), help="Load so many files at most.")
@click.option("--every", callback=_interval, metavar="DURATION", help="Go on: look for files every '5 minutes'.")
@click.option("--status", is_flag=True, help="Say what waits, and what failed and why.")
@click.option("--retry-failed", is_flag=True, help="Take up failed files again, those that were given up too.")
def logs(*, path: Path | None, limit: int | None, every: timedelta | None, status: bool, retry_failed: bool) -> None:
    """Log files of a bucket, a container or a folder (LOGS_URL) into logs: those that are new or have changed."""
    from event_archive.config.datasets import load_datasets
    from event_archive.observability import logs as log_lines
    from event_archive.sources.archived import ArchivedHere
    from event_archive.sources.log_files.ingest import Ingestion

    if status and (limit or every or retry_failed):
        raise click.UsageError("--status only looks: it excludes --limit, --every and --retry-failed.")
    as_json = output_is_json()
    log_lines.configure(as_json=as_json, verbose=not status, stream=sys.stdout if as_json else sys.stderr)
    warn_of_misspelt()
    settings = _settings(path)

    def run(*, anew: bool = False) -> Ingestion:
        return Ingestion(
            settings,
            ArchivedHere(settings.postgres, settings.table, load_datasets()),
            limit=limit,
            anew=anew,
            told_to_stop=stop.requested,
            progress=lambda totals: _log.info("ingestion under way: %s", _told(totals)),
        )

    if status:
        _show_status(run(), as_json=as_json)
        return
    with stop.deferred(_GRACE_SECONDS):
        first = run(anew=retry_failed or path is not None)
        this = _repeated(first, run, every, as_json=as_json, measured=path is None)
    if stop.requested():
        sys.exit(stop.exit_code())
    if this.failures:
        sys.exit(EXIT_FAILED if this.files else exit_code(this.failures))


def _repeated(
    run: "Ingestion", following: Callable[[], "Ingestion"], every: timedelta | None, *, as_json: bool, measured: bool
) -> "Totals":
    """Runs once, or again and again until somebody stops it; returns what the last run did."""
    from event_archive.sources.runs import wait

    while True:
        began = time.monotonic()
        _work(run, as_json=as_json, measured=measured)
        if every is None or _is_hopeless(run.totals):
            return run.totals
        wait(every.total_seconds() - (time.monotonic() - began), stop.requested)
        if stop.requested():
            return run.totals
        run = following()


def _settings(path: Path | None) -> "LogsSettings":
    """The environment's; a file on the command line takes the place of LOGS_URL."""
    from event_archive.config.reading import Entry
    from event_archive.config.sources import LogsSettings

    if path is None:
        return LogsSettings.load()
    if not is_file(path):
        raise click.UsageError("--file must name a file that can be read from its beginning to its end.")
    try:
        bytes(path).decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"--file names {bytes(path)!r}, which is no UTF-8: rename the file.") from None
    scheme, _, folder = value_of("LOGS_URL").partition("://")
    if scheme == "file":
        from event_archive.sources.log_files.local import Folder

        # A run over that folder knows the file by this name.
        path = Folder(Path(folder)).listed(path)
    settings = LogsSettings.load(Entry(values=(("logs_url", "--file", f"file://{path.absolute()}"),)))
    # Who names a file wants it loaded now.
    return settings.model_copy(update={"logs_min_age": None})


def _work(run: "Ingestion", *, as_json: bool, measured: bool) -> None:
    """A run, and what is said of it. A file that failed is tried again: it is announced once it is given up.

    A run of one file that somebody names is not measured: it knows nothing of those that wait or failed elsewhere.
    """
    from event_archive.observability.announcement import announce_given_up, announced_ingestion

    with announced_ingestion("logs", run, stop.requested, run.left, measured=measured) as failures:
        try:
            run.run()
        except EventArchiveError as error:
            run.totals.failures.append(error)
            failures.append(error)
        _show(run.totals, as_json=as_json)
    if not (failures or stop.requested()):
        announce_given_up(run)


def _is_hopeless(totals: "Totals") -> bool:
    """Whether another run would end the same way: a setting is wrong."""
    return totals.ended == "failed" and any(isinstance(of, ConfigurationError) for of in totals.failures)


def _show(totals: "Totals", *, as_json: bool) -> None:
    show(
        totals,
        _told(totals),
        as_json=as_json,
        source="logs",
        files=totals.files,
        failed=totals.failed,
        entries=totals.counts.taken,
        contradictions=totals.contradictions,
        removed=totals.removed,
        bytes=totals.bytes,
        entries_per_second=round(totals.rate, 1),
    )


def _told(totals: "Totals") -> str:
    counts = totals.counts
    words = f"{counted(totals.files, 'file', 'files')}, {counted(counts.taken, 'entry', 'entries')} in "
    words += f"{totals.seconds:.1f} s ({totals.rate:,.0f} a second)"
    words += f": {told_of(totals, 'known', 'rejected', 'too_old')}"
    if totals.removed:
        words += f"; {counted(totals.removed, 'row', 'rows')} of former versions removed"
    if totals.contradictions:
        words += f"; {totals.contradictions:,} with times that contradict each other"
    return words + (f"; {counted(totals.failed, 'file', 'files')} failed" if totals.failed else "")


def _show_status(run: "Ingestion", *, as_json: bool) -> None:
    from event_archive.domain.days import now_utc
    from event_archive.observability.json_lines import write_line

    status = run.status()
    for of in status.counts:
        if as_json:
            write_line(of.status.lower(), files=of.files, rows=of.rows, rejected=of.rejected, oldest=of.oldest)
        else:
            click.echo(
                f"{of.files:>10,}  {of.status:<10}  {counted(of.rows, 'row', 'rows')}, {of.rejected:,} rejected; the "
                f"oldest written {of.oldest:%Y-%m-%d %H:%M} UTC"
            )
    for failed in status.failed:
        again = "by the next run" if failed.again_at <= now_utc() else f"at {failed.again_at:%Y-%m-%d %H:%M} UTC"
        again = "given up, --retry-failed takes it up again" if failed.given_up else f"again {again}"
        if as_json:
            write_line("file", key=failed.key, error=failed.error, attempts=failed.attempts, given_up=failed.given_up)
        else:
            tried = f"tried {counted(failed.attempts, 'time', 'times')}"
            click.echo(f"{printable(failed.key)}: {printable(failed.error)} ({tried}; {again})")
    more = sum(of.files for of in status.counts if of.status == "FAILED") - len(status.failed)
    if more > 0 and not as_json:
        click.echo(f"And {counted(more, 'other', 'others')}: those whose status is FAILED in processed_files.")
    if as_json:
        write_line("done", source="logs", files=sum(of.files for of in status.counts))
    elif not status.counts:
        click.echo("No file is known.")

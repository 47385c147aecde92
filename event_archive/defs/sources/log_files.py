"""Log files in Dagster: their asset ``logs``, its checks, and how its schedule sees whether files wait.

Not here: how files are listed and loaded, what they share with other sources.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import dagster as dg

from event_archive.config.datasets import archiving
from event_archive.config.environment import ListenerSettings, PipelineSettings
from event_archive.config.sources import LogsSettings, LogsShape
from event_archive.defs.bounded import in_time
from event_archive.defs.failures import dagster_failures
from event_archive.defs.sources.books import books_balance
from event_archive.defs.sources.running import ingest, instant_metadata, raise_failures, run_metadata
from event_archive.defs.sources.source import GROUP, SourceNames, SourcePipeline, build_source
from event_archive.domain.wording import counted
from event_archive.errors import EventArchiveError, kind_and_place
from event_archive.observability.announcement import announce_given_up
from event_archive.sources.archived import ArchivedHere
from event_archive.sources.log_files.ingest import Ingestion
from event_archive.sources.log_files.rows import SOURCE
from event_archive.sources.log_files.status import Left
from event_archive.sources.log_files.stores import FileError
from event_archive.sources.log_files.totals import Totals

logger = logging.getLogger(__name__)

LOGS = SourceNames(SOURCE, dg.AssetKey("logs"), unit="files")
_KINDS = {"s3": "s3", "az": "azure", "file": "file"}
_LISTING_SECONDS, _LOOK_SECONDS = 40.0, 45.0
"""Of the 60 that Dagster gives a tick: the listing is ended then, and not waited for any longer."""


def build_logs(shape: LogsShape, datasets: Sequence[PipelineSettings]) -> SourcePipeline:
    """Log files as a source.

    Args:
        shape: where they are, when they are looked for, and where entries land.
        datasets: all; those that archive the table that entries land in say which of them are too old.

    Raises:
        ConfigurationError: Dagster cannot read the cron expression.
    """
    asset, daily = _logs(shape, datasets), [_no_file_failed(), _no_file_overdue()]
    archived, checks = archiving(shape.table, datasets), [books_balance(LOGS)]
    return build_source(LOGS, archived, asset, checks, cron=shape.logs_cron, daily=daily, waits=files_wait)


def files_wait() -> bool:
    """Whether a run would load a file, or tell of one that was given up, as far as that can be seen in time.

    Else a run has to see: it may wait for longer, and where it fails, that is announced.
    """
    until = time.monotonic() + _LISTING_SECONDS

    def look() -> bool:
        files, hears = Ingestion(LogsSettings.load()), ListenerSettings.load().alert_webhook_url
        return files.waits(lambda: time.monotonic() > until) or (hears is not None and files.left().untold > 0)

    try:
        # A store that does not answer keeps a thread for minutes.
        return in_time(look, _LOOK_SECONDS, "log files")
    except Exception as error:  # noqa: BLE001 (a run fails likewise, and is told of)
        words = str(error) if isinstance(error, (EventArchiveError, TimeoutError)) else kind_and_place(error)
        logger.warning("whether log files wait could not be seen: %s", words)
        return True


def _logs(shape: LogsShape, datasets: Sequence[PipelineSettings]) -> dg.AssetsDefinition:
    @dg.asset(
        key=LOGS.key,
        group_name=GROUP,
        kinds={_KINDS[str(shape.logs_url).partition(":")[0]], "postgres"},
        description=f"Entries of log files, each one row of {shape.table}: of files that are new or have changed.",
        owners=["team:event-archive"],
        code_version="1",
        pool=LOGS.name,
    )
    def logs(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        # No retry of the step: the run waits for services by itself, and the schedule comes again.
        with dagster_failures(context.log):
            settings = LogsSettings.load()
            archived = ArchivedHere(settings.postgres, settings.table, datasets)
            run = ingest(LOGS, lambda stopped, tell: Ingestion(settings, archived, told_to_stop=stopped, progress=tell))
            # A file that failed is tried again; what is no file's ended the run.
            raise_failures([of for of in run.totals.failures if not isinstance(of, FileError)])
            announce_given_up(run)
            left = run.left()
        return dg.MaterializeResult(metadata=logs_metadata(run.totals, left))

    return logs


def logs_metadata(totals: Totals, left: Left) -> dict[str, Any]:
    """Of ``logs``; what is left is of all files, all else of the run."""
    return run_metadata(totals) | {
        "files": totals.files,
        "failed": totals.failed,
        "bytes": totals.bytes,
        "contradictions": totals.contradictions,
        "removed": totals.removed,
        "entries_per_second": totals.rate,
        "files_waiting": left.waiting,
        "oldest_waiting": instant_metadata(left.oldest),
        "files_failed": left.failed,
        "files_given_up": left.given_up,
    }


def _no_file_failed() -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=LOGS.key, description="No file is left failed, whether it is tried again or was given up.")
    def no_file_failed() -> dg.AssetCheckResult:
        left = _left()
        words = (
            f"{counted(left.failed, 'file', 'files')} could not be loaded, {left.given_up} of them given up: "
            "`event-archive ingest logs --status` says why"
        )
        return dg.AssetCheckResult(
            passed=left.failed == 0,
            severity=dg.AssetCheckSeverity.WARN,
            description=words if left.failed else "no file is left failed",
            metadata={"failed": left.failed, "given_up": left.given_up},
        )

    return no_file_failed


def _no_file_overdue() -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=LOGS.key, description="No file that was listed waits for more than an hour to be loaded.")
    def no_file_overdue() -> dg.AssetCheckResult:
        left = _left()
        words = f"{counted(left.overdue, 'file waits', 'files wait')} for more than an hour"
        return dg.AssetCheckResult(
            passed=left.overdue == 0,
            severity=dg.AssetCheckSeverity.WARN,
            description=words if left.overdue else "no file that was listed is overdue",
            metadata={
                "overdue": left.overdue,
                "waiting": left.waiting,
                "oldest_waiting": instant_metadata(left.oldest),
            },
        )

    return no_file_overdue


def _left() -> Left:
    with dagster_failures():
        return Ingestion(LogsSettings.load()).left()

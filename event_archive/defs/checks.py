"""Asset checks: for people to see. Not here: the gate of the purge, which is no check (docs/decisions/0001)."""

import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import partial

import dagster as dg

from event_archive.config.environment import PipelineSettings
from event_archive.defs.assets import POOL
from event_archive.defs.failures import dagster_failures
from event_archive.defs.gate import asset_keys, lost_rows, record_if_any
from event_archive.defs.in_flight import is_of_days
from event_archive.defs.internals import PreviewWarning
from event_archive.defs.metadata import backlog_metadata, check_description, check_metadata
from event_archive.defs.resources import LakeResource, PostgresResource
from event_archive.domain.dataset import Dataset
from event_archive.domain.days import now_utc, parse_day
from event_archive.domain.manifest import stored_rows
from event_archive.domain.record import Record
from event_archive.domain.wording import counted
from event_archive.errors import BusyError, ConfigurationError, IntegrityError, RefusedError, UnreachableError
from event_archive.nightly.backlog import backlog
from event_archive.nightly.orphans import orphans, orphans_told
from event_archive.observability.alerts import alert_or_warn, check_message
from event_archive.table.shape import current_shape

ARCHIVE_IS_WHOLE = "archive_is_whole"


@dataclass(frozen=True, slots=True)
class Checks:
    """The checks of one dataset's assets: of a day's file, and of the table as a whole."""

    archive_is_whole: dg.AssetChecksDefinition
    of_table: list[dg.AssetChecksDefinition]


def build_checks(settings: PipelineSettings, partitions: dg.PartitionsDefinition[str]) -> Checks:
    """The checks of one dataset's assets.

    Args:
        settings: of the dataset.
        partitions: its days.
    """
    dataset = settings.dataset
    table_checks = [_backlog_is_small(settings), _no_orphans(settings)]
    # Partitions of checks are a preview in Dagster 1.13; without them a check would not know its day.
    with warnings.catch_warnings(action="ignore", category=PreviewWarning):

        @dg.asset_check(
            asset=asset_keys(dataset).archive_csv,
            name=ARCHIVE_IS_WHOLE,
            partitions_def=partitions,
            pool=POOL,
            description=(
                "The day's file reads back as its manifest says: bytes, SHA-256, rows, header, days, JSON; and it has "
                "no fewer rows than were recorded of it before."
            ),
        )
        def archive_is_whole(
            context: dg.AssetCheckExecutionContext,
            event_archive_postgres: PostgresResource,
            event_archive_lake: LakeResource,
        ) -> dg.AssetCheckResult:
            # Late: pyarrow is a fifth of the memory that a run needs, and no run of the job does.
            from event_archive.operations.verify import verify_day

            with dagster_failures(context.log):
                day = _day_of(context, dataset)
            path = dataset.path(day)
            # What this run's own archive recorded is of the file as it is by now.
            recorded = partial(record_if_any, context.instance, dataset, day)
            with dagster_failures(context.log), event_archive_lake.open(settings) as opened:
                before, appended = None, 0
                with suppress(IntegrityError):  # recorded by hand
                    # Before the file is looked for: another run may write and record more rows meanwhile.
                    before = recorded(before_run=context.run.run_id)
                    latest = recorded()
                    appended = latest.rows_appended if latest and latest != before else 0
                file, url = opened.stat(path), opened.url(path)
                if file is None:
                    record = recorded(before_run=context.run.run_id)
                    if record is None or record.etag is None:
                        return dg.AssetCheckResult(passed=True, description="The day has no file.")
                    gone = _gone(path, record, url)
                    _alert(ARCHIVE_IS_WHOLE, gone)
                    return dg.AssetCheckResult(passed=False, description=gone)
                table = None
                try:
                    table = current_shape(dataset, event_archive_postgres.primary(settings), "look")
                except (BusyError, RefusedError, UnreachableError) as error:
                    context.log.warning("values are not looked at, only the file as a whole: %s", error)
                found = verify_day(dataset, day, table=table, lake=opened)
                lost = (
                    "" if (rows := stored_rows(file)) is None else lost_rows(before, dataset, day, rows, appended, url)
                )
                if found.problems or lost:
                    _alert(ARCHIVE_IS_WHOLE, f"{path}: {'; '.join(found.problems)}" if found.problems else lost)
            return dg.AssetCheckResult(
                passed=not (found.problems or lost),
                description=check_description(found, lost),
                metadata=check_metadata(found),
            )

    return Checks(archive_is_whole, table_checks)


def _day_of(context: dg.AssetCheckExecutionContext, dataset: Dataset) -> date:
    if not context.has_partition_key:
        raise ConfigurationError(
            f"{dataset.label}: {ARCHIVE_IS_WHOLE} is of one day: launch it for a partition, or leave it out where "
            "backlog_is_small and no_orphans run, which are of all days."
        )
    return parse_day(context.partition_key)


def _gone(path: str, record: Record, url: str) -> str:
    rows = counted(record.rows, "row", "rows")
    if place := record.elsewhere(url):
        return (
            f"{path} is not there; the day was recorded with {rows} in {place}. The folder, the file prefix or the "
            "lake has changed since."
        )
    return f"{path}, which was recorded with {rows} in it, is gone."


def _alert(check: str, why: str) -> None:
    """Alerts of a check that failed: no run fails with it, so no sensor would."""
    alert_or_warn(check_message(check, why))


def _backlog_is_small(settings: PipelineSettings) -> dg.AssetChecksDefinition:
    dataset, alert_days = settings.dataset, settings.backlog_alert_days

    @dg.asset_check(
        asset=asset_keys(dataset).aged_events,
        pool=POOL,
        description=(
            f"No day still has rows more than {counted(alert_days, 'day', 'days')} after it came of age, unless it is "
            "held or waits until its whole partition is aged."
        ),
    )
    def backlog_is_small(
        context: dg.AssetCheckExecutionContext, event_archive_postgres: PostgresResource
    ) -> dg.AssetCheckResult:
        with dagster_failures(context.log):
            found = backlog(dataset, now_utc(), event_archive_postgres.primary(settings), grace_days=alert_days)
            # The asset pages launch each day of a backfill with this check: such a run works the backlog off.
            if found.days and not is_of_days(context.run):
                _alert("backlog_is_small", found.message(dataset))
        # Observed as well: the asset's page plots what is observed, not what is checked.
        seen = dg.AssetObservation(asset_keys(dataset).aged_events, metadata=backlog_metadata(found))
        context.instance.report_runless_asset_event(seen)
        return dg.AssetCheckResult(
            passed=not found.days,
            severity=dg.AssetCheckSeverity.WARN,
            description=found.message(dataset) or "no backlog",
            metadata={"days": found.days, "rows": found.rows, "held_days": found.held_days},
        )

    return backlog_is_small


def _no_orphans(settings: PipelineSettings) -> dg.AssetChecksDefinition:
    dataset = settings.dataset

    @dg.asset_check(
        asset=asset_keys(dataset).aged_events,
        pool=POOL,
        description="No row lies before the first day that is archived, or has no finite time: none would ever go.",
    )
    def no_orphans(event_archive_postgres: PostgresResource) -> dg.AssetCheckResult:
        with dagster_failures():
            found = orphans(dataset, event_archive_postgres.primary(settings))
        return dg.AssetCheckResult(
            passed=not found,
            severity=dg.AssetCheckSeverity.WARN,
            description=orphans_told(dataset, found) if found else "every row is of some day",
            metadata={"before_start": found.before_start, "not_finite": found.not_finite},
        )

    return no_orphans

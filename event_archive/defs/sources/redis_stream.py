"""The Redis stream in Dagster: its table as an external asset that a sensor observes, and the checks of it.

Here: adapters, and what is worth a record. A consumer never ends, so it is a process of its own and no run. Not here:
how the stream and the table are looked at (``event_archive.sources.redis_stream``).
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from event_archive.config.datasets import archiving
from event_archive.config.environment import ListenerSettings, PipelineSettings
from event_archive.config.sources import StreamSettings, StreamShape
from event_archive.defs.failures import dagster_failures
from event_archive.defs.markdown import without_links
from event_archive.defs.sources.running import instant_metadata
from event_archive.defs.sources.source import GROUP
from event_archive.domain.days import now_utc
from event_archive.domain.wording import counted, oldest_for
from event_archive.errors import EventArchiveError
from event_archive.observability.alerts import check_message, post

if TYPE_CHECKING:
    from event_archive.sources.redis_stream.status import Status

logger = logging.getLogger(__name__)

POSITIONS = dg.AssetKey("positions")
_LOOK_EVERY_SECONDS = 60
_OBSERVE_EVERY = timedelta(minutes=5)
_BEHIND_SECONDS = 300.0
"""A group that is further behind does not keep up. What a dead consumer left is claimed first, after its own time."""


@dataclass(frozen=True, slots=True)
class StreamPipeline:
    """The definitions of the stream.

    Attributes:
        datasets: those that archive its table.
        asset: the table.
        checks: of the asset.
        sensor: that observes it.
    """

    datasets: Sequence[PipelineSettings]
    asset: dg.AssetSpec
    checks: list[dg.AssetChecksDefinition]
    sensor: dg.SensorDefinition


def build_stream(shape: StreamShape, datasets: Sequence[PipelineSettings]) -> StreamPipeline:
    """The stream as a source.

    Args:
        shape: where positions land.
        datasets: all; those that archive that table say which positions may be gone.
    """
    asset = dg.AssetSpec(
        POSITIONS,
        group_name=GROUP,
        kinds={"redis", "postgres"},
        description=f"Positions of the stream {shape.stream_key}, each one row of {shape.table}, by "
        "`event-archive ingest stream`, which is a process of its own and no run.",
        owners=["team:event-archive"],
    )
    archived = archiving(shape.table, datasets)
    return StreamPipeline(archived, asset, [_keeps_up(), _books_balance(datasets)], _observe_positions(datasets))


def _keeps_up() -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=POSITIONS,
        description="No entry waits longer than five minutes to be read, nor that much longer than STREAM_CLAIM_IDLE "
        "to be acknowledged.",
    )
    def keeps_up() -> dg.AssetCheckResult:
        with dagster_failures():
            return _whether_it_keeps_up(StreamSettings.load())

    return keeps_up


def _books_balance(datasets: Sequence[PipelineSettings]) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=POSITIONS,
        description="Of the newest 1,000 entries that were acknowledged, each is a row, superseded, rejected or too "
        "old; and none was lost.",
    )
    def books_balance() -> dg.AssetCheckResult:
        with dagster_failures():
            return _whether_books_balance(_status(StreamSettings.load(), datasets))

    return books_balance


def _status(settings: StreamSettings, datasets: Sequence[PipelineSettings]) -> "Status | EventArchiveError":
    # Late: only who looks at the stream needs its client.
    from event_archive.sources.archived import ArchivedHere
    from event_archive.sources.redis_stream.status import status

    try:
        return status(settings, ArchivedHere(settings.postgres, settings.table, datasets))
    except EventArchiveError as error:
        return error


def _whether_it_keeps_up(settings: StreamSettings) -> dg.AssetCheckResult:
    from event_archive.sources.redis_stream.state import look_at_group

    try:
        group = look_at_group(settings)
    except EventArchiveError as error:
        return dg.AssetCheckResult(passed=False, description=without_links(str(error)))
    lag = "some entries" if group.lag_entries is None else counted(group.lag_entries, "entry", "entries")
    longest = settings.stream_claim_idle.total_seconds() + _BEHIND_SECONDS
    return dg.AssetCheckResult(
        passed=group.lag_seconds <= _BEHIND_SECONDS and group.oldest_pending_seconds <= longest,
        description=f"{settings.stream_key}: {lag} not read yet{oldest_for(group.lag_seconds)}; "
        f"{group.pending:,} not acknowledged yet{oldest_for(group.oldest_pending_seconds)}.",
        metadata={"lag_seconds": group.lag_seconds, "oldest_pending_seconds": group.oldest_pending_seconds},
    )


def _whether_books_balance(found: "Status | EventArchiveError") -> dg.AssetCheckResult:
    if isinstance(found, EventArchiveError):
        return dg.AssetCheckResult(passed=False, description=without_links(str(found)))
    books = found.books
    if books is None:
        # A consumer makes the table before it reads.
        if found.group.is_past_some:
            gone = (
                "it was dropped, lies in another schema or database than this code server's, or no consumer has run "
                "yet, and the group was made to begin behind entries"
            )
            return dg.AssetCheckResult(
                passed=False, description=f"There is no table, though the group is past entries: {gone}."
            )
        return dg.AssetCheckResult(passed=True, description="There is no table yet.")
    missing = counted(len(books.missing), "is", "are")
    looked_at = f"{counted(books.looked_at, 'entry', 'entries')} acknowledged last{found.group.settled_told}"
    words = f"Of the {looked_at}, {missing} missing"
    words += f": {', '.join(books.missing[:3])}." if books.missing else "."
    if books.lost:
        lost = counted(books.lost, "entry was", "entries were")
        words += f" {lost} lost: `event-archive rejected --source stream` says which."
    return dg.AssetCheckResult(
        passed=not books.missing and not books.lost,
        description=words,
        metadata={"missing": len(books.missing), "lost": books.lost, "rejected": books.rejected},
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the sensor recorded last; its cursor.

    Attributes:
        at: when.
        figures: of the observation.
        failed: the checks that failed.
        untold: those of them that could not be announced.
        away: whether a service did not answer, so that ``figures`` are of before.
    """

    at: datetime
    figures: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)
    away: bool = False

    @classmethod
    def of(cls, cursor: str | None) -> "_Seen":
        if not cursor:
            return cls(datetime.min.replace(tzinfo=UTC))
        fields = json.loads(cursor)
        return cls(
            datetime.fromisoformat(fields["at"]),
            fields["figures"],
            fields["failed"],
            fields.get("untold", []),
            fields.get("away", False),
        )

    @property
    def cursor(self) -> str:
        return json.dumps(asdict(self) | {"at": self.at.isoformat()})

    def is_news(self, former: "_Seen") -> bool:
        if (self.failed, self.away) != (former.failed, former.away) or self.alarming(former):
            return True
        return self.figures != former.figures and self.at - former.at >= _OBSERVE_EVERY

    def alarming(self, former: "_Seen") -> list[str]:
        """The checks to alert of: those that did not fail before, and the books whenever they are worse than before."""
        told = set(former.failed) - set(former.untold)
        more = any(self.figures.get(name, 0) > former.figures.get(name, 0) for name in ("lost", "missing"))
        if more or (self.away and not former.away):
            told.discard("books_balance")
        return [name for name in self.failed if name not in told]


def _observe_positions(datasets: Sequence[PipelineSettings]) -> dg.SensorDefinition:
    @dg.sensor(
        name="observe_positions",
        minimum_interval_seconds=_LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks at the stream and its table: records what it sees every five minutes while that changes, "
        "and at once where a check begins to fail, or passes again. Alerts of failures where ALERT_WEBHOOK_URL says.",
    )
    def observe_positions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        settings = StreamSettings.load()
        found = _status(settings, datasets)
        results = {"keeps_up": _whether_it_keeps_up(settings), "books_balance": _whether_books_balance(found)}
        former = _Seen.of(context.cursor)
        figures = former.figures if isinstance(found, EventArchiveError) else _figures(found)
        failed = [name for name, result in results.items() if not result.passed]
        seen = _Seen(now_utc(), figures, failed, away=isinstance(found, EventArchiveError))
        if not seen.is_news(former):
            return dg.SensorResult(skip_reason="nothing has changed, or it was observed within five minutes")
        seen.untold.extend(_alert({name: results[name].description or "" for name in seen.alarming(former)}))
        return dg.SensorResult(asset_events=[*_observation(found), *_evaluations(results)], cursor=seen.cursor)

    return observe_positions


def _figures(found: "Status") -> dict[str, Any]:
    """What has to change for another observation."""
    group, table, books = found.group, found.table, found.books
    return {
        "stream_length": group.length,
        "lag_entries": group.lag_entries,
        "pending": group.pending,
        "dagster/row_count": table.rows if table else 0,
        "last": table.last.isoformat() if table and table.last else None,
        "rejected": books.rejected if books else 0,
        "lost": books.lost if books else 0,
        "missing": len(books.missing) if books else 0,
    }


def _observation(found: "Status | EventArchiveError") -> Iterator[dg.AssetObservation]:
    if not isinstance(found, EventArchiveError):
        metadata = _figures(found) | {
            "last": instant_metadata(found.table.last if found.table else None),
            "lag_seconds": found.group.lag_seconds,
            "oldest_pending_seconds": found.group.oldest_pending_seconds,
            "consumers": found.group.consumers,
        }
        yield dg.AssetObservation(POSITIONS, metadata=metadata)


def _evaluations(results: Mapping[str, dg.AssetCheckResult]) -> Iterator[dg.AssetCheckEvaluation]:
    for name, result in results.items():
        yield dg.AssetCheckEvaluation(
            POSITIONS, name, result.passed, metadata=result.metadata, description=result.description
        )


def _alert(failures: Mapping[str, str]) -> list[str]:
    """Announces checks that failed, and returns those that could not be: they are tried at the next look."""
    url, left = ListenerSettings.load().alert_webhook_url, list(failures)
    try:
        while url and left:
            post(url.get_secret_value(), check_message(left[0], failures[left[0]]))
            del left[0]
    except EventArchiveError as error:
        # The others are not tried: a webhook that does not answer takes most of the minute that a sensor has.
        logger.warning("the failure could not be announced: %s", error)
        return left
    return []

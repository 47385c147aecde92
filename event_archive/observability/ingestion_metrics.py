"""The Prometheus metrics of a source's run: their names and meaning. Not here: how they get there (``metrics``)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from event_archive.observability.metrics import former_values, save

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from event_archive.sources.log_files.status import Left
    from event_archive.sources.runs import RunTotals

_RECORDS = "event_archive_ingest_run_records"
_LAST_SUCCESS = "event_archive_ingest_last_success_timestamp_seconds"
_METRICS = {
    "event_archive_ingest_last_run_timestamp_seconds": "When the last ingestion ended, Unix time",
    _LAST_SUCCESS: "When the last ingestion ended that did not fail, Unix time; 0 where none is known of",
    "event_archive_ingest_run_seconds": "How long the last ingestion took",
    _RECORDS: "Records that the last ingestion took in, and what became of them, by the label outcome",
    "event_archive_ingest_waiting_files": "Log files that are not loaded yet",
    "event_archive_ingest_overdue_files": "Log files that have been ready to load for more than an hour",
    "event_archive_ingest_failed_files": "Log files that are left failed, tried again or given up",
}


@dataclass(frozen=True, slots=True)
class IngestionFigures:
    """What a source's run did.

    Attributes:
        source: ``api`` or ``logs``.
        ended: when, aware.
        succeeded: whether it ended without a failure.
        totals: of the run.
        left: log files that are not loaded; None for other sources, and where nobody could ask.
    """

    source: str
    ended: datetime
    succeeded: bool
    totals: "RunTotals"
    left: "Left | None" = None


def write_ingestion(path: Path, figures: IngestionFigures) -> None:
    """Writes the metrics into a file of their own beside the archive's.

    Args:
        path: of the archive's file; the source's name is added to it.
        figures: what is written.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    path = path.with_name(f"{path.stem}_{figures.source}{path.suffix}")
    labels = {"source": figures.source}
    last_success = former_values(path).get((_LAST_SUCCESS, tuple(labels.items())), 0.0)
    save(path, _registry({_LAST_SUCCESS: last_success} | _values(figures), figures, labels))


def push_ingestion(url: str, figures: IngestionFigures) -> None:
    """Pushes the metrics to a Pushgateway, grouped by the source; what is not told stays there.

    Args:
        url: of the gateway. A secret.
        figures: what is pushed.

    Raises:
        UnreachableError: nobody answered, or not well.
        RefusedError: its certificate is not trusted.
    """
    from event_archive.observability.pushgateway import push_registry

    push_registry(url, _registry(_values(figures), figures, {}), {"source": figures.source})


def _values(figures: IngestionFigures) -> dict[str, float]:
    """What is known, by metric: of the last success only where this run is one."""
    ended, left = figures.ended.timestamp(), figures.left
    values: dict[str, float] = {
        "event_archive_ingest_last_run_timestamp_seconds": ended,
        "event_archive_ingest_run_seconds": figures.totals.seconds,
    }
    if figures.succeeded:
        values[_LAST_SUCCESS] = ended
    if left is not None:
        values |= {
            "event_archive_ingest_waiting_files": left.waiting,
            "event_archive_ingest_overdue_files": left.overdue,
            "event_archive_ingest_failed_files": left.failed,
        }
    return values


def _registry(values: Mapping[str, float], figures: IngestionFigures, labels: Mapping[str, str]) -> "CollectorRegistry":
    # Late: most runs measure nothing.
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()
    for name, value in values.items():
        gauge = Gauge(name, _METRICS[name], list(labels), registry=registry)
        (gauge.labels(**labels) if labels else gauge).set(value)
    records = Gauge(_RECORDS, _METRICS[_RECORDS], [*labels, "outcome"], registry=registry)
    for outcome, number in figures.totals.counts.as_dict().items():
        records.labels(**labels, outcome=outcome).set(number)
    return registry

"""Prometheus metrics of a run: a text file for node_exporter's textfile collector, or pushed to a Pushgateway.

Here: the metrics' names and meaning. Not here: what is counted, how a Pushgateway is asked (``pushgateway``).
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from event_archive.domain.dataset import Dataset
from event_archive.errors import ConfigurationError
from event_archive.nightly.backlog import AgedDays

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_LAST_SUCCESS = "event_archive_last_success_timestamp_seconds"
_METRICS = {
    "event_archive_last_run_timestamp_seconds": "When the last run ended, Unix time",
    _LAST_SUCCESS: "When the last run ended in which no day failed, Unix time; 0 where none is known of",
    "event_archive_run_seconds": "How long the last run took",
    "event_archive_run_days": "Days that the last run tried",
    "event_archive_run_failed_days": "Days that failed in the last run",
    "event_archive_run_archived_rows": "Rows that the last run wrote to files",
    "event_archive_run_deleted_rows": "Rows that the last run deleted from the table",
    "event_archive_backlog_days": "Aged days that still have rows",
    "event_archive_backlog_rows": "Rows of aged days in the table",
    "event_archive_backlog_oldest_timestamp_seconds": "Start of the oldest aged day that still has rows; 0 for none",
    "event_archive_drain_estimate_seconds": "How long the backlog takes at the last run's pace; NaN where unknown",
    "event_archive_orphan_rows": "Rows that no day will ever archive, at most 100,000 counted",
}


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What one run did.

    Attributes:
        ended: when, aware.
        seconds: how long it took.
        days: that it tried; ``failed_days`` of them failed.
        succeeded: whether it ended without any failure.
        archived_rows: written to files.
        deleted_rows: deleted from the table.
    """

    ended: datetime
    seconds: float
    succeeded: bool
    days: int = 0
    failed_days: int = 0
    archived_rows: int = 0
    deleted_rows: int = 0


def write(path: Path, dataset: Dataset, run: RunFigures, aged: AgedDays | None, others: Collection[str] = ()) -> None:
    """Writes the metrics, all labelled with the table and, where it has a name, the dataset.

    The file appears whole or stays as it was.

    Args:
        path: of the file; its folder must exist.
        dataset: whose run.
        run: what it did.
        aged: what the table still has of aged days; None where nobody could ask.
        others: the names of the other datasets, whose figures in the file stay.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    # Late: most runs write no metrics.
    from prometheus_client import CollectorRegistry, Gauge

    labels = _labels(dataset)
    former = former_values(path)
    values = {_LAST_SUCCESS: former.get((_LAST_SUCCESS, tuple(sorted(labels.items()))), 0.0)} | _values(run, aged)
    registry = CollectorRegistry()
    for name, text in _METRICS.items():
        gauge = Gauge(name, text, list(labels), registry=registry)
        for (metric, pairs), value in former.items():
            if metric == name and dict(pairs).get("dataset") in others:
                gauge.labels(**dict(pairs)).set(value)
        if name in values:
            gauge.labels(**labels).set(values[name])
    save(path, registry)


def save(path: Path, registry: "CollectorRegistry") -> None:
    """Writes metrics to a file, which appears whole or stays as it was.

    Raises:
        ConfigurationError: it cannot be written.
    """
    from prometheus_client import write_to_textfile

    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise ConfigurationError(
            f"METRICS_TEXTFILE holds {str(path)!r}, which cannot be written: {error.strerror}."
        ) from error


def push(url: str, dataset: Dataset, run: RunFigures, aged: AgedDays | None) -> None:
    """Pushes the metrics, grouped by table and dataset; what the gateway has of others, and is not told, stays.

    Args:
        url: of the Pushgateway, with user and password where it asks for them. A secret.
        dataset: whose run.
        run: what it did.
        aged: what the table still has of aged days; None where nobody could ask.

    Raises:
        ConfigurationError, UnreachableError, RefusedError: as ``push_registry``.
    """
    from prometheus_client import CollectorRegistry, Gauge

    from event_archive.observability.pushgateway import push_registry

    registry = CollectorRegistry()
    for name, value in _values(run, aged).items():
        Gauge(name, _METRICS[name], registry=registry).set(value)
    push_registry(url, registry, _labels(dataset))


def _labels(dataset: Dataset) -> dict[str, str]:
    return {"table": str(dataset.table)} | ({"dataset": dataset.name} if dataset.name else {})


def _values(run: RunFigures, aged: AgedDays | None) -> dict[str, float]:
    """What is known, by metric: of the last success only where this run is one."""
    ended = run.ended.timestamp()
    values: dict[str, float] = {
        "event_archive_last_run_timestamp_seconds": ended,
        "event_archive_run_seconds": run.seconds,
        "event_archive_run_days": run.days,
        "event_archive_run_failed_days": run.failed_days,
        "event_archive_run_archived_rows": run.archived_rows,
        "event_archive_run_deleted_rows": run.deleted_rows,
    }
    if run.succeeded:
        values[_LAST_SUCCESS] = ended
    if aged is not None:
        rows, orphans = aged.rows, aged.orphans
        left = sum(rows.values())
        pace = run.deleted_rows / run.seconds if run.seconds else 0
        oldest = datetime.combine(min(rows), datetime.min.time(), run.ended.tzinfo).timestamp() if rows else 0
        values |= {
            "event_archive_backlog_days": len(rows),
            "event_archive_backlog_rows": left,
            "event_archive_backlog_oldest_timestamp_seconds": oldest,
            "event_archive_drain_estimate_seconds": left / pace if pace else (0 if not left else float("nan")),
            "event_archive_orphan_rows": orphans.before_start + orphans.not_finite,
        }
    return values


def former_values(path: Path) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What the file holds, by metric and labels; nothing where there is nothing to be read."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    with suppress(OSError, ValueError):
        for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
            for sample in family.samples:
                found[sample.name, tuple(sorted(sample.labels.items()))] = float(sample.value)
    return found

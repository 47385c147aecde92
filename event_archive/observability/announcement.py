"""Who hears of a run of the command line, besides its caller: the webhook, and Prometheus; and of files given up.

None of it changes how the run ends: what cannot be announced is a warning. Not here: the messages, the metrics
themselves.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from event_archive.config.environment import ListenerSettings, PipelineSettings
from event_archive.config.services import primary
from event_archive.domain.days import now_utc
from event_archive.errors import EventArchiveError, UnexpectedError
from event_archive.nightly.backlog import rows_of_aged_days
from event_archive.nightly.outcome import Totals
from event_archive.observability.alerts import FailedDay, alert_or_warn, failure_message, given_up_message, post
from event_archive.observability.ingestion_metrics import IngestionFigures, push_ingestion, write_ingestion
from event_archive.observability.metrics import RunFigures, push, write

if TYPE_CHECKING:
    from event_archive.config.sources import LandingSettings
    from event_archive.sources.log_files.ingest import Ingestion
    from event_archive.sources.log_files.status import Left
    from event_archive.sources.runs import RunTotals

logger = logging.getLogger(__name__)

_TO_BE_MENDED = "The next run tries again, and may fail until somebody has done what the message says."


class SourceRun(Protocol):
    """A run of any source."""

    @property
    def settings(self) -> "LandingSettings":
        """They say which table it fills."""
        ...

    @property
    def totals(self) -> "RunTotals":
        """What it did."""
        ...


@contextmanager
def announced(
    settings: PipelineSettings, stopped: Callable[[], bool], others: Collection[str] = ()
) -> Iterator[Totals]:
    """Announces a dataset's part in a run when that has ended, well or not; the run fills in the totals.

    Args:
        settings: of the dataset.
        stopped: whether the process was told to stop. Whoever did knows, so nobody is alerted; and there is no time to
            count rows.
        others: the other datasets, whose figures stay.
    """
    totals, started = Totals(), time.monotonic()
    failure: EventArchiveError | None = None
    interrupted = False
    try:
        yield totals
        failure = totals.failure
    except EventArchiveError as error:
        failure, interrupted = error, stopped()
        raise
    except Exception as error:
        failure, interrupted = UnexpectedError.of(error), stopped()
        raise
    except BaseException:
        interrupted = True
        raise
    finally:
        listeners = ListenerSettings.load()
        if not interrupted:
            _alert(settings, totals, failure)
        succeeded = not interrupted and not failure and not totals.failures
        seconds = time.monotonic() - started
        if listeners.metrics_textfile or listeners.metrics_pushgateway:
            figures = _figures(totals, seconds, succeeded=succeeded)
            _measure(settings, listeners, figures, others, with_aged=not interrupted)


@contextmanager
def announced_ingestion(
    source: str,
    run: SourceRun,
    stopped: Callable[[], bool],
    left: "Callable[[], Left] | None" = None,
    *,
    measured: bool = True,
) -> Iterator[list[EventArchiveError]]:
    """Announces a source's run when that has ended, well or not; the caller adds to the list why it failed.

    Args:
        source: its name.
        run: the run.
        stopped: as for ``announced``.
        left: counts log files that are not loaded.
        measured: the run's figures take the place of the last one's.

    Raises:
        ConfigurationError: a listener is described wrongly; before the run begins.
    """
    listeners = ListenerSettings.load()
    failures: list[EventArchiveError] = []
    try:
        yield failures
    except Exception as error:
        failures.append(error if isinstance(error, EventArchiveError) else UnexpectedError.of(error))
        raise
    finally:
        if not stopped():
            _post(str(run.settings.table), [FailedDay("", str(failure)) for failure in failures], failures)
        if measured and (listeners.metrics_textfile or listeners.metrics_pushgateway):
            succeeded = not (failures or run.totals.failures or stopped())
            figures = IngestionFigures(source, now_utc(), succeeded, run.totals)
            # After a failure that is no file's, whoever counts files may wait for what the run has waited for.
            _measure_ingestion(listeners, figures, None if failures or stopped() else left)


def announce_given_up(ingestion: "Ingestion") -> None:
    """Announces log files that were given up, each once: where the webhook takes nothing, the next run does."""
    url = ListenerSettings.load().alert_webhook_url
    if url is None:
        return
    try:
        ingestion.announce(
            lambda given_up: post(url.get_secret_value(), given_up_message(given_up.files, given_up.errors))
        )
    except EventArchiveError as error:
        logger.warning("log files that were given up could not be announced: %s", error)


def _alert(settings: PipelineSettings, totals: Totals, failure: EventArchiveError | None) -> None:
    failures = [FailedDay(run.day.isoformat(), run.error or "") for run in totals.failures]
    if failure:
        failures.append(FailedDay("", str(failure)))
    _post(settings.dataset.label, failures, [*(run.cause for run in totals.failures), failure])


def _post(table: str, failures: list[FailedDay], causes: Iterable[EventArchiveError | None]) -> None:
    if not failures:
        return
    passes = all(cause.transient for cause in causes if cause)
    what_to_do = "It may pass: the next run tries again." if passes else _TO_BE_MENDED
    alert_or_warn(failure_message(table, failures, what_to_do))


def _figures(totals: Totals, seconds: float, *, succeeded: bool) -> RunFigures:
    return RunFigures(
        ended=now_utc(),
        seconds=seconds,
        succeeded=succeeded,
        days=totals.days,
        failed_days=totals.failed,
        archived_rows=totals.rows_appended,
        deleted_rows=totals.deleted,
    )


def _measure(
    settings: PipelineSettings,
    listeners: ListenerSettings,
    figures: RunFigures,
    others: Collection[str],
    *,
    with_aged: bool,
) -> None:
    aged = None
    try:
        if with_aged:
            aged = rows_of_aged_days(settings.dataset, figures.ended, primary(settings.with_secrets()))
    except EventArchiveError as error:
        logger.warning("the rows of aged days could not be counted: %s", error)
    if listeners.metrics_textfile:
        _or_warn(partial(write, listeners.metrics_textfile, settings.dataset, figures, aged, others))
    if listeners.metrics_pushgateway:
        _or_warn(partial(push, listeners.metrics_pushgateway.get_secret_value(), settings.dataset, figures, aged))


def _measure_ingestion(
    listeners: ListenerSettings, figures: IngestionFigures, left: "Callable[[], Left] | None"
) -> None:
    if left:
        try:
            figures = replace(figures, left=left())
        except EventArchiveError as error:
            logger.warning("log files that are left could not be counted: %s", error)
    if listeners.metrics_textfile:
        _or_warn(partial(write_ingestion, listeners.metrics_textfile, figures))
    if listeners.metrics_pushgateway:
        _or_warn(partial(push_ingestion, listeners.metrics_pushgateway.get_secret_value(), figures))


def _or_warn(measure: Callable[[], None]) -> None:
    try:
        measure()
    except EventArchiveError as error:
        logger.warning("the run could not be measured: %s", error)

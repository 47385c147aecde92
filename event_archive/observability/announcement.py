"""Who hears of a run of the command line, besides its caller: the webhook, and Prometheus.

Neither changes how the run ends: what cannot be announced is a warning. Not here: the messages and metrics themselves.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial

from event_archive.config.environment import ListenerSettings, PipelineSettings
from event_archive.config.services import primary
from event_archive.domain.days import now_utc
from event_archive.errors import EventArchiveError, UnexpectedError
from event_archive.nightly.backlog import rows_of_aged_days
from event_archive.nightly.outcome import Totals
from event_archive.observability.alerts import FailedDay, failure_message, post_or_warn
from event_archive.observability.metrics import RunFigures, push, write

logger = logging.getLogger(__name__)

_TO_BE_MENDED = "The next run tries again, and fails as long as nobody has done what the message says."


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
            _alert(settings, listeners, totals, failure)
        succeeded = not interrupted and not failure and not totals.failures
        seconds = time.monotonic() - started
        if listeners.metrics_textfile or listeners.metrics_pushgateway:
            figures = _figures(totals, seconds, succeeded=succeeded)
            _measure(settings, listeners, figures, others, with_aged=not interrupted)


def _alert(
    settings: PipelineSettings, listeners: ListenerSettings, totals: Totals, failure: EventArchiveError | None
) -> None:
    failures = [FailedDay(run.day.isoformat(), run.error or "") for run in totals.failures]
    if failure:
        failures.append(FailedDay("", str(failure)))
    if not failures or listeners.alert_webhook_url is None:
        return
    causes = [*(run.cause for run in totals.failures), failure]
    passes = all(cause.transient for cause in causes if cause)
    what_to_do = "It may pass: the next run tries again." if passes else _TO_BE_MENDED
    message = failure_message(settings.dataset.label, failures, what_to_do)
    post_or_warn(listeners.alert_webhook_url.get_secret_value(), message)


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


def _or_warn(measure: Callable[[], None]) -> None:
    try:
        measure()
    except EventArchiveError as error:
        logger.warning("the run could not be measured: %s", error)

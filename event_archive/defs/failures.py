"""Failures on their way through Dagster: from this package's errors to a failed step, and from a failed run to words.

Here: which failures Dagster tries again, and which runs were stopped and did not fail. Not here: who is alerted.

A signal reaches a run in one of three places, and each leaves other records (Dagster 1.13):

- inside an asset's own code: the step fails with our ``Failure`` of kind ``Interrupted``; the run fails by its step;
- between our code and the end of the step: the step fails with the source ``INTERRUPT``;
- between steps, or before the first: no step fails.

In the last two the run ends as *canceled* where somebody asked Dagster to end it, else as a failure whose error is the
interrupt. All of these are stopped runs, but for one that Dagster's daemon ends because it lasts for too long: nobody
knows of that, and the next one may fare alike.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import dagster as dg

from event_archive.defs.internals import DagsterLogHandler, ErrorSource
from event_archive.errors import EventArchiveError

STOPPED = "Stopped. What was not committed is as it was; the next run goes on."
INTERRUPTED = "Interrupted"
"""The kind of a failure where a signal ended the run."""
TOO_LONG = (
    "The run lasted for longer than Dagster lets one last (run_monitoring: max_runtime_seconds) and was ended. "
    "What was not committed is as it was. Allow more, where a day takes that long."
)
OVERDUE = "Overdue"
"""The kind of that failure."""

_OVERDUE = "Canceling due to exceeding maximum runtime"
"""How the words begin with which Dagster's daemon ends such a run."""

MAX_RETRIES = 2
RETRY_SECONDS = 15
"""Before the first retry of a step; twice that before the second."""

_package = logging.getLogger("event_archive")
_INTERRUPTS = (KeyboardInterrupt, dg.DagsterExecutionInterruptedError)
_INTERRUPT_NAMES = {kind.__name__ for kind in _INTERRUPTS}


@contextmanager
def dagster_failures(log: logging.Logger | None = None, retry_number: int | None = None) -> Iterator[None]:
    """Turns this package's errors into Dagster's; transient ones ask for a retry of the step.

    What the package warns of meanwhile stands in the run's event log, too, where the UI shows it.

    The request stands here and not in a retry policy, because Dagster applies a policy to interrupts as well: a signal
    between our code and the end of the step would be forgotten, and the run go on.

    Args:
        log: the run's; None where it shall stay as it is.
        retry_number: how often Dagster has tried this step again; None where it shall not.

    Raises:
        dagster.Failure, dagster.RetryRequested: in place of what was raised.
    """
    warnings = [_Warnings(log)] if log else []
    for handler in warnings:
        _package.addHandler(handler)
    try:
        yield
    except _INTERRUPTS as interrupt:
        raise dg.Failure(description=STOPPED, metadata={"error": INTERRUPTED}, allow_retries=False) from interrupt
    except EventArchiveError as error:
        failure = dg.Failure(description=str(error), metadata={"error": type(error).__name__}, allow_retries=False)
        if retry_number is None or not error.transient:
            raise failure from error
        failure.__cause__ = error
        raise dg.RetryRequested(MAX_RETRIES, RETRY_SECONDS * 2**retry_number) from failure
    finally:
        for handler in warnings:
            _package.removeHandler(handler)


class _Warnings(logging.Handler):
    """Passes on to a run's log what else would stand in the output of its process alone.

    Where dagster.yaml names the logger (``managed_python_loggers``), Dagster does so itself.
    """

    def __init__(self, log: logging.Logger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if _is_managed(logging.getLogger(record.name)):
            return
        try:
            self._log.log(record.levelno, "%s", record.getMessage())
        except Exception:  # noqa: BLE001 (a warning that cannot be written ends no run)
            self.handleError(record)


def _is_managed(logger: logging.Logger | None) -> bool:
    while logger is not None:
        if any(isinstance(handler, DagsterLogHandler) for handler in logger.handlers):
            return True
        logger = logger.parent
    return False


def first_failure(events: Iterable[dg.DagsterEvent]) -> tuple[str, str]:
    """The words and the kind of a run's first failure. The kind is empty where the error is none of ours.

    Args:
        events: of the run, in order; step failures and the run's failure are looked at.
    """
    for event in events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.error_source == ErrorSource.INTERRUPT:
                return STOPPED, INTERRUPTED
            if data.user_failure_data and data.user_failure_data.description:
                kind = data.user_failure_data.metadata.get("error")
                return data.user_failure_data.description, str(kind.value) if kind else ""
            error = data.error
            while error and error.cause:
                error = error.cause
            if error:
                return error.message.strip(), ""
        elif event.event_type == dg.DagsterEventType.RUN_FAILURE:
            # What Dagster's daemon fails itself, as a run whose worker is gone, has no data.
            error = event.job_failure_data.error if event.event_specific_data else None
            if error and error.cls_name in _INTERRUPT_NAMES:
                return STOPPED, INTERRUPTED
    return "the run failed outside its steps", ""


def failure_of_run(instance: dg.DagsterInstance, run_id: str) -> tuple[str, str]:
    """As ``first_failure``, of a run in Dagster's records."""
    of_type = dg.DagsterEventType
    entries = instance.all_logs(run_id, of_type={of_type.STEP_FAILURE, of_type.RUN_FAILURE, of_type.RUN_CANCELING})
    events = [entry.dagster_event for entry in entries if entry.dagster_event]
    words, kind = first_failure(events)
    if kind in ("", INTERRUPTED) and any((event.message or "").startswith(_OVERDUE) for event in events):
        return TOO_LONG, OVERDUE
    return words, kind

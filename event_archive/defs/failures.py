"""Failures on their way through Dagster: from this package's errors to a failed step, and from there to words."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from event_archive.errors import EventArchiveError

STOPPED = "Stopped. What was not committed is as it was; the next run goes on."
INTERRUPTED = "Interrupted"
"""The kind of a failure where a signal ended the step."""


@contextmanager
def failures_told() -> Iterator[None]:
    """Turns this package's errors into Dagster's, which says whether a retry makes sense."""
    try:
        yield
    except (KeyboardInterrupt, DagsterExecutionInterruptedError) as stop:
        # Dagster's retry policies hold for signals, too; but whoever stops a run does not want it tried again.
        raise dg.Failure(description=STOPPED, metadata={"error": INTERRUPTED}, allow_retries=False) from stop
    except EventArchiveError as error:
        raise dg.Failure(
            description=str(error), metadata={"error": type(error).__name__}, allow_retries=error.transient
        ) from error


def first_failure(events: Iterable[dg.DagsterEvent]) -> tuple[str, str]:
    """The words and the kind of a run's first failed step. The kind is empty where the error is none of ours."""
    for event in events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                kind = data.user_failure_data.metadata.get("error")
                return data.user_failure_data.description, str(kind.value) if kind else ""
            error = data.error
            while error and error.cause:
                error = error.cause
            if error:
                return error.message.strip(), ""
    return "the run failed outside its steps", ""

"""How runs are executed: all steps in the run's own process, and a run that is stopped stays stopped.

Here: what Dagster's in-process executor lacks. Not here: what an interrupt leaves in the records (``failures``).
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from event_archive.defs.internals import MAX_RETRIES_TAG, InProcessExecutor, RetryMode


class _OneProcess(InProcessExecutor):
    """Dagster's own, but for interrupts.

    ``run_retries`` is meant for crashed workers, but Dagster also retries a run that got a signal between two steps. It
    decides right after ``execute``, so the tag is set here.
    """

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        """Runs the steps; forbids retries of a run that is interrupted."""
        try:
            yield from super().execute(plan_context, execution_plan)
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            plan_context.instance.add_run_tags(plan_context.run_id, {MAX_RETRIES_TAG: "0"})
            raise


@dg.executor(name="in_process")
def one_process(_: dg.InitExecutorContext) -> dg.Executor:
    """All steps in the run's process: a process per step costs ten times the work it does."""
    return _OneProcess(retries=RetryMode.ENABLED)

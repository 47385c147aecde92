"""Whether a schedule or sensor is evaluated for a tick, or for somebody who looks at one in Dagster's UI.

A preview is no night and launches nothing, so nobody is told anything. Not here: what is told otherwise.
"""

import dagster as dg


def is_preview(context: dg.ScheduleEvaluationContext | dg.SensorEvaluationContext) -> bool:
    """Whether this is a preview: the log of a tick is named by the tick's number, that of a preview by its time."""
    key = context.log_key
    return key is not None and not key[-1].isdigit()

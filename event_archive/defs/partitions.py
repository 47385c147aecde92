"""One partition a UTC day, from the first that is archived to the youngest that may be aged.

Not here: whether a day is aged, which the operations decide (``domain.days``).
"""

import dagster as dg

from event_archive.domain.dataset import Dataset


def aged_days(dataset: Dataset) -> dg.DailyPartitionsDefinition:
    """The days that can be aged today. The last few of them may not be yet: a calendar duration spans more days in some
    years than in others, and the partitions go by the fewest. The assets refuse those with the date to come back on.
    """
    return dg.DailyPartitionsDefinition(
        start_date=dataset.start.isoformat(), timezone="UTC", end_offset=-dataset.retention.fewest_days
    )

"""The books of a source's latest run that did not fail, and the check that they balance.

Not here: what a run records (``running``).
"""

from dataclasses import fields

import dagster as dg

from event_archive.defs.sources.source import SourceNames
from event_archive.sources.landing import Counts

_COUNTS = [field.name for field in fields(Counts)]


def last_counts(instance: dg.DagsterInstance, source: SourceNames) -> Counts:
    """The counts of the latest materialization; zeros where there is none, or one that was recorded by hand."""
    event = instance.get_latest_materialization_event(source.key)
    metadata = event.asset_materialization.metadata if event and event.asset_materialization else {}
    found = {name: metadata[name].value for name in _COUNTS if name in metadata}
    return Counts(**{name: value for name, value in found.items() if isinstance(value, int)})


def books_balance(source: SourceNames) -> dg.AssetChecksDefinition:
    """The check ``books_balance``."""

    @dg.asset_check(
        name="books_balance",
        asset=source.key,
        pool=source.name,
        description="Of the latest run that did not fail: every record taken in is new, known, superseded, rejected, "
        "too old or lost.",
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        counts = last_counts(context.instance, source)
        told = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.as_dict().items())
        return dg.AssetCheckResult(passed=counts.balance == 0, description=told, metadata=counts.as_dict())

    return check

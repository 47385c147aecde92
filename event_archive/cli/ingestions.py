"""What the commands of all sources say at the end of a run. Not here: what a source counts."""

from typing import TYPE_CHECKING, Any, cast

import click

from event_archive.cli import stop

if TYPE_CHECKING:
    from event_archive.sources.runs import RunTotals

_OUTCOMES = {
    "complete": ("done", "ingestion complete"),
    "shared": ("done", "ingestion ended, another run has the rest"),
    "interrupted": ("stopped", "ingestion interrupted"),
    "budget": ("budget", "ingestion ended by RUN_BUDGET, the next run goes on"),
    "limit": ("done", "ingestion ended by --limit, the next run goes on"),
    "failed": ("failed", "ingestion failed"),
}


def show(totals: "RunTotals", told: str, *, source: str, as_json: bool, **fields: object) -> None:
    """Says what a run did, and why not all of it.

    Args:
        totals: of the run.
        told: the same in words.
        source: its name in ``rejected_records``.
        as_json: as a JSON line.
        fields: what the line holds beside outcome, seconds and counts.
    """
    from event_archive.observability.json_lines import write_line

    stopped = stop.requested() and totals.ended != "complete"
    outcome, words = _OUTCOMES["interrupted" if stopped else "failed" if totals.failures else totals.ended]
    errors = list(dict.fromkeys(str(failure) for failure in totals.failures))
    if as_json:
        fields |= {"seconds": round(totals.seconds, 3), **totals.counts.as_dict()}
        error = " ".join(errors) if errors else None
        write_line(outcome, error=error, message=words, source=source, **cast(dict[str, Any], fields))
    else:
        click.echo(f"{words}: {told}")
        if totals.counts.rejected:
            click.echo(f"event-archive rejected --source {source} says what was rejected, and why.")
    for of in errors:
        click.echo(f"Error: {of}", err=True)


def told_of(totals: "RunTotals", *names: str) -> str:
    """What became of the records, in words: the new ones, and those of other names where there are any."""
    counts = totals.counts
    others = [(getattr(counts, name), name.replace("_", " ")) for name in names]
    return f"{counts.new:,} new" + "".join(f", {number:,} {name}" for number, name in others if number)

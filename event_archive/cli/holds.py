"""``event-archive hold``, ``release`` and ``holds``: days that are archived but not purged.

Not here: where holds are kept (``table.holds``).
"""

from datetime import date
from typing import Any

import click

from event_archive.cli.arguments import DAY, day_and_last, load_settings


@click.command()
@click.argument("day", type=DAY)
@click.option("--to", "last", type=DAY, help="Hold all days up to this one.")
@click.option("--reason", required=True, help="Why; shown wherever the day is not purged.")
def hold(day: date, last: date | None, reason: str) -> None:
    """Holds days: they are archived, but not purged until they are released."""
    first, last = day_and_last(day, last)
    if not reason.strip():
        raise click.UsageError("--reason must say why.")
    if any("\ud800" <= sign <= "\udfff" for sign in reason):
        raise click.UsageError("--reason is no text in this locale's encoding; set LC_ALL=C.UTF-8, or write ASCII.")
    from event_archive.config.services import primary
    from event_archive.table import holds

    settings = load_settings()
    holds.hold(settings.dataset, first, last, reason.strip(), primary(settings))
    if settings.log_as_json:
        _as_json("held", first, last, reason=reason.strip())
    else:
        click.echo(f"{settings.dataset.table}: {_days(first, last)} held: {reason.strip()}")


@click.command()
@click.argument("day", type=DAY)
@click.option("--to", "last", type=DAY, help="Release all days up to this one.")
def release(day: date, last: date | None) -> None:
    """Releases held days: the next run purges them."""
    first, last = day_and_last(day, last)
    from event_archive.config.services import primary
    from event_archive.table import holds

    settings = load_settings()
    released = holds.release(settings.dataset, first, last, primary(settings))
    asked = (last - first).days + 1
    if settings.log_as_json:
        _as_json("released" if released else "not held", first, last, days=released, of_days=asked)
    elif not released:
        click.echo(f"{settings.dataset.table}: {_days(first, last)} not held, so nothing was released.")
    elif asked == 1:
        click.echo(f"{settings.dataset.table}: {first} released.")
    else:
        click.echo(f"{settings.dataset.table}: {released} of {asked} days released, {_days(first, last)}.")


@click.command("holds")
def list_holds() -> None:
    """Lists the held days."""
    from event_archive.config.services import primary
    from event_archive.table import holds

    settings = load_settings()
    found = holds.holds(settings.dataset, primary(settings))
    for held in found:
        if settings.log_as_json:
            _as_json("held", held.first, held.last, reason=held.reason, since=held.since, by=held.by)
        else:
            click.echo(f"{_days(held.first, held.last)}  since {held.since:%Y-%m-%d} by {held.by}: {held.reason}")
    if not found and not settings.log_as_json:
        click.echo(f"{settings.dataset.table}: no day is held.")


def _as_json(outcome: str, first: date, last: date, **fields: Any) -> None:
    from event_archive.observability.json_lines import write_line

    write_line(outcome, first=first, last=last, **fields)


def _days(first: date, last: date) -> str:
    return str(first) if first == last else f"{first} to {last}"

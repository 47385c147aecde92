"""``event-archive hold``, ``release`` and ``holds``: days that are archived but not purged.

Not here: where holds are kept (``table.holds``).
"""

import logging
from datetime import date
from typing import TYPE_CHECKING, Any

import click

from event_archive.cli.arguments import DAY, dataset_option, day_and_last, each_dataset, load_pipelines
from event_archive.errors import printable

if TYPE_CHECKING:
    from event_archive.config.environment import Settings
    from event_archive.domain.dataset import Dataset

logger = logging.getLogger(__name__)


@click.command(short_help="Holds days: they are archived, but not purged.")
@click.argument("day", type=DAY)
@click.option("--to", "last", type=DAY, help="Hold all days up to this one, at most 1,000.")
@click.option("--reason", required=True, help="Why; shown wherever the day is not purged.")
@dataset_option
def hold(day: date, last: date | None, reason: str, datasets: tuple[str, ...]) -> None:
    """Holds days: they are archived, but not purged until they are released."""
    (first, last), reason = day_and_last(day, last), reason.strip()
    if not reason:
        raise click.UsageError("--reason must say why.")
    if printable(reason) != reason:
        raise click.UsageError("--reason must be one line, without control characters.")
    if any("\ud800" <= sign <= "\udfff" for sign in reason):
        raise click.UsageError("--reason is no text in this locale's encoding; set LC_ALL=C.UTF-8, or write ASCII.")
    each_dataset(load_pipelines(datasets, one_by_one=True), lambda settings: _hold(settings, first, last, reason))


def _hold(settings: "Settings", first: date, last: date, reason: str) -> None:
    from event_archive.config.services import primary
    from event_archive.table import holds

    _require_owner(settings)
    holds.hold(settings.dataset, first, last, reason, primary(settings))
    if settings.log_as_json:
        _as_json(settings.dataset, "held", first, last, reason=reason)
    else:
        click.echo(f"{settings.dataset.label}: {_days(first, last)} held: {reason}")
    _warn_of_purged(settings, first, last)


def _require_owner(settings: "Settings") -> None:
    """Refuses a copy of the database that archives, whose holds nobody would heed; a lake that is away is a warning."""
    from event_archive.config.services import lake, primary
    from event_archive.errors import ConfigurationError, EventArchiveError
    from event_archive.operations.claim import require_owner
    from event_archive.operations.marker import claim_to_read

    try:
        with lake(settings) as opened:
            claimed = claim_to_read(settings.dataset, opened)
    except ConfigurationError:
        raise
    except EventArchiveError as error:
        logger.warning("%s: whose the files are could not be seen: %s", settings.dataset.label, error)
        return
    if claimed:
        require_owner(settings.dataset, primary(settings), claimed)


def _warn_of_purged(settings: "Settings", first: date, last: date) -> None:
    """Warns of held days without a row: a purge may have come first. That nobody can tell is a warning, too."""
    from event_archive.config.services import primary
    from event_archive.domain.days import day_range, now_utc
    from event_archive.errors import EventArchiveError
    from event_archive.nightly.backlog import days_without_rows

    # A retention may have become longer, or the first day later, since a day was purged.
    dataset, today = settings.dataset, now_utc().date()
    over = [day for day in day_range(first, last) if day < today]
    try:
        empty = days_without_rows(dataset, over, primary(settings)) if over else []
    except EventArchiveError as error:
        logger.warning("held; whether the table still has rows of these days could not be seen: %s", error)
        return
    if empty:
        has = f"{empty[0]} has" if len(empty) == 1 else f"{len(empty)} days, {empty[0]} the first, have"
        restore = dataset.command(f"restore {empty[0] if len(empty) == 1 else 'DAY'} --in-place")
        logger.warning(
            "%s: %s no row in the table: what was purged before the hold is in the files alone. To put a day back that "
            "has one: %s",
            dataset.label,
            has,
            restore,
        )


@click.command(short_help="Releases held days: the next run purges them.")
@click.argument("day", type=DAY)
@click.option("--to", "last", type=DAY, help="Release all days up to this one.")
@dataset_option
def release(day: date, last: date | None, datasets: tuple[str, ...]) -> None:
    """Releases held days: the next run purges them."""
    first, last = day_and_last(day, last)
    each_dataset(load_pipelines(datasets, one_by_one=True), lambda settings: _release(settings, first, last))


def _release(settings: "Settings", first: date, last: date) -> None:
    from event_archive.config.services import primary
    from event_archive.table import holds

    _require_owner(settings)
    released = holds.release(settings.dataset, first, last, primary(settings))
    asked = (last - first).days + 1
    if settings.log_as_json:
        _as_json(settings.dataset, "released" if released else "not held", first, last, days=released, of_days=asked)
    elif not released:
        click.echo(f"{settings.dataset.label}: {_days(first, last)} not held, so nothing was released.")
    elif asked == 1:
        click.echo(f"{settings.dataset.label}: {first} released.")
    else:
        click.echo(f"{settings.dataset.label}: {released} of {asked} days released, {_days(first, last)}.")


@click.command("holds", short_help="Lists the held days.")
@dataset_option
def list_holds(datasets: tuple[str, ...]) -> None:
    """Lists the held days."""
    each_dataset(load_pipelines(datasets), _list_holds)


def _list_holds(settings: "Settings") -> None:
    from event_archive.config.services import primary
    from event_archive.table import holds

    name = f"{settings.entry.name}  " if settings.entry.name else ""
    found = holds.holds(settings.dataset, primary(settings))
    for held in found:
        if settings.log_as_json:
            _as_json(settings.dataset, "held", held.first, held.last, reason=held.reason, since=held.since, by=held.by)
        else:
            when, by = _days(held.first, held.last), printable(held.by)
            click.echo(f"{name}{when}  since {held.since:%Y-%m-%d} by {by}: {printable(held.reason)}")
    if not found and not settings.log_as_json:
        click.echo(f"{settings.dataset.label}: no day is held.")


def _as_json(dataset: "Dataset", outcome: str, first: date, last: date, **fields: Any) -> None:
    from event_archive.observability.json_lines import write_line

    write_line(outcome, dataset=dataset.name, first=first, last=last, **fields)


def _days(first: date, last: date) -> str:
    return str(first) if first == last else f"{first} to {last}"

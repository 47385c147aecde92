"""What several commands take: days, ranges of days, settings. Not here: what a command does."""

import logging
import sys
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar

import click

from event_archive.errors import ConfigurationError

if TYPE_CHECKING:
    from event_archive.config.environment import Settings

Command = TypeVar("Command", bound=Callable[..., Any])


class DayType(click.ParamType[date]):
    """A day on the command line."""

    name = "DAY"

    def convert(self, value: str | date, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Reads ``YYYY-MM-DD``."""
        from event_archive.domain.days import parse_day

        if isinstance(value, date):
            return value
        try:
            return parse_day(value)
        except ConfigurationError as error:
            self.fail(str(error), param, ctx)


DAY = DayType()


def days_argument(*, required: bool = False) -> Callable[[Command], Command]:
    """``DAY…``, as ``days``: each once, in the order given."""
    return click.argument(
        "days",
        metavar="DAY..." if required else "[DAY]...",
        nargs=-1,
        type=DAY,
        required=required,
        callback=lambda _context, _argument, days: tuple(dict.fromkeys(days)),
    )


def range_options(command: Command) -> Command:
    """``--from DAY --to DAY``, as ``first`` and ``last``."""
    for flag, name, words in (("--to", "last", "Up to this day."), ("--from", "first", "From this day on.")):
        command = click.option(flag, name, type=DAY, help=words)(command)
    return command


def check_range(days: tuple[date, ...], first: date | None, last: date | None) -> None:
    """Refuses days together with a range, and a range that ends before it begins."""
    if days and (first or last):
        raise click.UsageError("Name days, or give a range with --from and --to, not both.")
    if first and last and first > last:
        raise click.UsageError(f"--from {first} lies after --to {last}.")


def day_and_last(day: date, last: date | None) -> tuple[date, date]:
    """``DAY [--to DAY]`` as a range."""
    if last and day > last:
        raise click.UsageError(f"{day} lies after --to {last}.")
    return day, last or day


def load_settings(*, log_is_output: bool = False) -> "Settings":
    """The settings, with logging as they say: warnings, beside the command's output.

    Args:
        log_is_output: of a command that runs unattended: all that it does, among its JSON lines.
    """
    from event_archive.config.environment import Settings, misspelt
    from event_archive.observability import logs

    settings = Settings.load()
    verbose = settings.log_as_json and log_is_output
    logs.configure(as_json=settings.log_as_json, verbose=verbose, stream=sys.stdout if verbose else sys.stderr)
    for name, meant in misspelt():
        logging.getLogger(__name__).warning("%s is no variable of event_archive. Did you mean %s?", name, meant)
    return settings


def within(day: date, first: date | None, last: date | None) -> bool:
    """Whether a day lies in a range that may be open at either end."""
    return (first or day) <= day <= (last or day)

"""What several commands take: days, ranges of days, settings. Not here: what a command does."""

import logging
import sys
from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar

import click

from event_archive.cli import EXIT_FAILED, EXIT_USAGE, exit_code, stop
from event_archive.errors import ConfigurationError, EventArchiveError

if TYPE_CHECKING:
    from event_archive.config.environment import PipelineSettings, Settings

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


def days_argument(command: Command) -> Command:
    """``DAY…``, as ``days``: each once, in the order given."""
    return click.argument(
        "days",
        metavar="[DAY]...",
        nargs=-1,
        type=DAY,
        callback=lambda _context, _argument, days: tuple(dict.fromkeys(days)),
    )(command)


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


def dataset_option(command: Command) -> Command:
    """``--dataset NAME``, repeatable, as ``datasets``."""
    return click.option("--dataset", "datasets", metavar="NAME", multiple=True, help="Which of several datasets.")(
        command
    )


def load_pipelines(
    names: tuple[str, ...], *, log_is_output: bool = False, one_by_one: bool = False
) -> "list[PipelineSettings]":
    """The settings of the datasets named, else of all, with logging as they say: warnings, beside the command's output.

    Args:
        names: of datasets.
        log_is_output: of a command that runs unattended: all that it does, among its JSON lines.
        one_by_one: of several datasets, one has to be named.
    """
    from event_archive.config.datasets import chosen, load_for_command
    from event_archive.observability import logs

    found = chosen(load_for_command(), names)
    if one_by_one and not names and len(found) > 1:
        known = ", ".join(of.dataset.name for of in found)
        raise click.UsageError(f"There are several datasets: name one with --dataset. There are {known}.")
    as_json = found[0].log_as_json
    verbose = as_json and log_is_output
    logs.configure(as_json=as_json, verbose=verbose, stream=sys.stdout if verbose else sys.stderr)
    warn_of_misspelt()
    return found


def warn_of_misspelt() -> None:
    """Warns of variables that nobody reads, and that are named nearly like one of ours."""
    from event_archive.config.environment import misspelt

    for name, meant in misspelt():
        logging.getLogger(__name__).warning("%s is no variable of event_archive. Did you mean %s?", name, meant)


def each_dataset(pipelines: "Sequence[PipelineSettings]", do: "Callable[[Settings], None]") -> None:
    """Does something with each dataset. One that fails stops no other; the command ends with an exit code then.

    Args:
        pipelines: the datasets.
        do: what to do; it may raise, or exit where it said why.
    """
    if len(pipelines) == 1:
        do(pipelines[0].with_secrets())
        return
    codes = [_code_of_one(of, do) for of in pipelines]
    if any(codes):
        sys.exit(EXIT_USAGE if set(codes) == {EXIT_USAGE} else EXIT_FAILED)


def _code_of_one(of: "PipelineSettings", do: "Callable[[Settings], None]") -> int:
    from event_archive.observability.json_lines import write_line

    try:
        do(of.with_secrets())
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAILED
    except EventArchiveError as error:
        # An error that a stop led to says nothing of the dataset.
        if stop.requested():
            raise
        if of.log_as_json:
            write_line("failed", error=str(error), dataset=of.dataset.name)
        click.echo(f"Error: {of.dataset.name}: {error}", err=True)
        return exit_code([error])
    return 0


def within(day: date, first: date | None, last: date | None) -> bool:
    """Whether a day lies in a range that may be open at either end."""
    return (first or day) <= day <= (last or day)

"""The group of all commands, and how each ends: errors as one message, and the exit code. Not here: any command.

Exit codes: 0 done; 1 a day failed or a service is out of reach; 2 wrong usage or configuration; 130 or 143 it was told
to stop.
"""

import gc
import sys
from typing import NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from event_archive.cli import EXIT_FAILED, days, demo, doctor, exit_code, files, holds, ingest, rejected, run, stop
from event_archive.cli.output import make_unbreakable, show_error_line, show_stopped_line, unwritten
from event_archive.errors import EventArchiveError, UnexpectedError

# Importing makes a hundred thousand objects that stay: looking for garbage among them takes an
# eighth of its time.
_GARBAGE_THRESHOLD = 50_000


class _InOrder(click.Group):
    """Lists its commands as they are needed, not by their names."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="event-archive")
def commands() -> None:
    """Moves aged events out of PostgreSQL into one CSV a UTC day, and deletes only what it has read back.

    Begin with doctor, then run --plan and run --dry-run: run alone asks nothing before it deletes. Everything is
    configured by environment variables; docs/configuration.md lists them.
    """


for command in (
    doctor.doctor, run.run, days.list_days, files.verify, files.restore, holds.hold, holds.release, holds.list_holds,
    files.adopt, ingest.ingest, rejected.list_rejected, demo.demo,
):  # fmt: skip
    commands.add_command(command)


def run_command() -> NoReturn:
    """Runs the command that the arguments name, and ends the process."""
    make_unbreakable()
    gc.set_threshold(_GARBAGE_THRESHOLD)
    code = _exit_code()
    stop.work_is_done()
    # A stop whose exception was lost on its way.
    sys.exit(stop.exit_code() if stop.requested() else code)


def _exit_code() -> int:
    try:
        commands.main(standalone_mode=False)
        if why := unwritten():
            click.echo(f"Error: standard output could not be written: {why}", err=True)
            return EXIT_FAILED
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAILED
    except click.ClickException as error:
        shown = isinstance(error, NoArgsIsHelpError)
        show_error_line("No command was named; --help lists them." if shown else error.format_message())
        error.show()
        return error.exit_code
    except BaseException as error:
        # An error that a stop led to, as a connection that broke with the statement, is a stop.
        if stop.requested() or isinstance(error, click.Abort | KeyboardInterrupt):
            stop.ignore_further()
            show_stopped_line()
            click.echo(stop.MESSAGE, err=True)
            return stop.exit_code()
        if not isinstance(error, Exception):
            raise
        words = _words(error)
        show_error_line(words)
        click.echo(f"Error: {words}", err=True)
        return exit_code([error])


def _words(error: Exception) -> str:
    """What an error says, where it cannot hold a secret; of one that nobody foresaw, only its kind and its place."""
    if isinstance(error, EventArchiveError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(UnexpectedError.of(error))

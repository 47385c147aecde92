"""``event-archive COMMAND``. Here: the group, errors and exit codes. Not here: the commands, what is done to a day.

Exit codes: 0 done; 1 a day failed or a service is out of reach; 2 wrong usage or configuration; 130 or 143 it was told
to stop. Imports are late in all of this package: a command that needs no Dagster does not wait for it.
"""

import gc
import signal
import sys
from types import FrameType

import click

from event_archive.cli import days, demo, doctor, files, holds, run
from event_archive.cli.output import make_unbreakable, unwritten
from event_archive.errors import ConfigurationError, EventArchiveError

EXIT_FAILED = 1
EXIT_USAGE = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="event-archive")
def commands() -> None:
    """Moves aged events out of PostgreSQL into one CSV a UTC day, and deletes only what it has read back.

    Everything is configured by environment variables; the documentation lists them.
    """


for command in (
    run.run, days.list_days, files.verify, files.restore, files.adopt, holds.hold, holds.release, holds.list_holds,
    doctor.doctor, demo.demo,
):  # fmt: skip
    commands.add_command(command)


def main() -> None:
    """The entry point: runs a command and turns errors into one message and the right exit code."""
    make_unbreakable()
    signal.signal(signal.SIGTERM, _terminate)
    # Importing makes a hundred thousand objects that stay: looking for garbage among them is an eighth of a command.
    gc.set_threshold(50_000)
    try:
        commands.main(standalone_mode=False)
        if why := unwritten():
            click.echo(f"Error: standard output could not be written: {why}", err=True)
            sys.exit(EXIT_FAILED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped. What was not committed is as it was; the next run goes on.", err=True)
        sys.exit(128 + _signal)
    except ConfigurationError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except EventArchiveError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_FAILED)
    except PermissionError as error:
        click.echo(f"Error: {error.strerror}: {error.filename}", err=True)
        sys.exit(EXIT_FAILED)


_signal = signal.SIGINT


def _terminate(number: int, _frame: FrameType | None) -> None:
    global _signal
    _signal = signal.Signals(number)
    raise KeyboardInterrupt

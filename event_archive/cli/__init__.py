"""``event-archive COMMAND``: one module for each group of commands, and what they share: arguments, output, stopping.

What is done to a day is not here. Imports are late in all of this package: a command does not wait for what it does not
need.
"""

from collections.abc import Iterable
from typing import NoReturn

from event_archive.cli import stop

EXIT_FAILED = 1
EXIT_USAGE = 2


def exit_code(errors: Iterable[BaseException]) -> int:
    """How a command ends that failed for these reasons: 2 where each is a wrong setting or argument, else 1."""
    from event_archive.errors import ConfigurationError

    return EXIT_USAGE if all(isinstance(error, ConfigurationError) for error in errors) else EXIT_FAILED


def main() -> NoReturn:
    """The entry point."""
    stop.install()
    try:
        from event_archive.cli.commands import run_command

        run_command()
    except Exception:
        # An interrupt in the midst of an import may arrive as another error.
        if stop.requested():
            raise SystemExit(stop.exit_code()) from None
        raise
    except KeyboardInterrupt:
        # Before the command had begun.
        raise SystemExit(stop.exit_code()) from None

"""What variables hold before anything validates them, and what must be known where a command ends early.

Nothing but the standard library is imported: a command that is told to stop amid an import must not begin it anew.
"""

import os
import sys


def value_of(variable: str) -> str:
    """What a variable holds, white space around it stripped; empty where it is not set."""
    return os.environ.get(variable, "").strip()


def output_is_json(log_format: str | None = None) -> bool:
    """Whether standard output is to hold JSON lines: as LOG_FORMAT says, else wherever it is no terminal.

    Args:
        log_format: as validated; None to look at the variable itself, which says enough where the settings are wrong.
    """
    chosen = log_format or value_of("LOG_FORMAT").lower()
    return chosen == "json" or (chosen != "console" and not sys.stdout.isatty())

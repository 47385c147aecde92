"""What variables hold before anything validates them, and what must be known where a command ends early.

Nothing but the standard library is imported: a command that is told to stop amid an import must not begin it anew.
"""

import os
import re
import sys

_SECRET = re.compile(
    r"://\S*@|^[^\s:/@]+:\S+@\S"  # a user, and a password
    r"|[?#]\S|[;&]\s*[\w-]+="  # parameters
    r"|(password|passwd|pwd|key|secret|token|credential|signature|\bsig|authorization|cookie)\w*\s*[:=]"
    r"|\b(host|dbname)\s*=|[A-Za-z0-9+/_-]{40,}={1,2}(?!\S)"  # parts of a connection string, a key in Base64
    r"|\bpostgres(ql)?://|^[\w-]+:\s+\S|\bbearer\s",  # a connection string, a header with its value
    re.IGNORECASE,
)

HIDDEN = "(a secret, not shown)"
"""What stands in place of a secret, for messages."""


def value_of(variable: str) -> str:
    """What a variable holds, white space around it stripped; empty where it is not set."""
    return os.environ.get(variable, "").strip()


def is_secret(text: str) -> bool:
    """Whether a text may hold a secret, as a connection string, parameters of a URL and a header's value do."""
    return bool(_SECRET.search(text))


def shown(text: str) -> str:
    """What stands in place of a text, for messages: somebody may have written a secret there."""
    return HIDDEN if is_secret(text) else text or "(nothing)"


def shown_quoted(text: str) -> str:
    """What stands in place of a text, in quotation marks."""
    return HIDDEN if is_secret(text) else repr(text)


def output_is_json(log_format: str | None = None) -> bool:
    """Whether standard output is to hold JSON lines: as LOG_FORMAT says, else wherever it is no terminal.

    Args:
        log_format: as validated; None to look at the variable itself, which says enough where the settings are wrong.
    """
    chosen = log_format or value_of("LOG_FORMAT").lower()
    return chosen == "json" or (chosen != "console" and not sys.stdout.isatty())

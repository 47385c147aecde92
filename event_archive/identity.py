"""Who we are to Azure: one ``DefaultAzureCredential`` a process, for the lake and for PostgreSQL.

A credential keeps its tokens and renews each some minutes before it expires. One for each connection would ask Entra ID
in every transaction. Not here: what a token is used for.
"""

import logging
import re
from functools import cache
from typing import TYPE_CHECKING

from event_archive.certificates import require_bundle

if TYPE_CHECKING:
    from azure.identity import DefaultAzureCredential

CONNECTION_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 10
"""An endpoint that is silent costs less than a minute, with the three further attempts that Azure's library makes; it
would wait for five minutes in each."""


@cache
def azure_credential() -> "DefaultAzureCredential":
    """Workload identity, managed identity or ``az login``, whichever the machine has. Asks for no token yet.

    Raises:
        ConfigurationError: the variable of the certificates to trust is wrong.
    """
    require_bundle()
    # Late: its imports take a second, and with a key and a password they are not needed.
    from azure.identity import DefaultAzureCredential

    # It logs a dozen lines about what it tried; whoever asks for a token says what to do instead.
    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)
    return DefaultAzureCredential(connection_timeout=CONNECTION_TIMEOUT_SECONDS, read_timeout=READ_TIMEOUT_SECONDS)


def entra_codes(error: Exception) -> str:
    """Entra ID's codes in an error's words, in order, joined by spaces. The other words may not be shown."""
    return " ".join(sorted(set(re.findall(r"AADSTS\d+", str(error)))))

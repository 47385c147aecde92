"""Who we are to Azure: one ``DefaultAzureCredential`` a process, for the lake and for PostgreSQL.

One, because it keeps its tokens and asks for the next some minutes before one expires; a credential a connection would
ask Entra ID for every transaction.
"""

import logging
import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.identity import DefaultAzureCredential


@cache
def azure_credential() -> "DefaultAzureCredential":
    """Workload identity, managed identity or ``az login``, whichever the machine has. Asks for no token yet."""
    # Late: a second of imports that nobody needs who has a key and a password.
    from azure.identity import DefaultAzureCredential

    # A dozen lines of what was tried; whoever asks for a token says what to do instead.
    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)
    return DefaultAzureCredential()


def entra_codes(error: Exception) -> str:
    """Entra ID's own codes in what an error says, in order and apart by blanks: all of its words that may be shown."""
    return " ".join(sorted(set(re.findall(r"AADSTS\d+", str(error)))))

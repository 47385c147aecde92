"""How a connection is made: defaults, the access token, attempts, what failures mean.

Not here: what a transaction pins (``session``).
"""

import time
from collections.abc import Mapping
from itertools import count
from typing import Any, Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from event_archive.errors import EventArchiveError, RefusedError, UnreachableError
from event_archive.identity import azure_credential, entra_codes

Auth = Literal["password", "azure"]

# A restart takes a few seconds: between the attempts lie one second and two, and a longer outage is the caller's.
_ATTEMPTS = 3
_ATTEMPTS_WHILE_STARTING = 6
"""With a second more between each two: a server that a crash of one backend restarts is back within 15 seconds."""
# What PostgreSQL says, and PgBouncer in front of it, where the next attempt may find it ready.
_STARTING_OR_FULL = (
    "starting up", "shutting down", "recovery mode", "accepting connections", "too many", "connection slots are",
    "no more connections", "cannot connect to server", "login has been failing",
)  # fmt: skip
# A host that is gone is noticed within two minutes: tcp_user_timeout is in milliseconds, the others in seconds.
_DEFAULTS = {
    "connect_timeout": 10,
    "application_name": "event_archive",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 120_000,
}
_AZURE_TOKEN_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"  # noqa: S105 (a scope, no secret)


def connect(conninfo: str, auth: Auth, *, variable: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection; tried three times where the server does not answer.

    Args:
        conninfo: libpq URL or key=value DSN, whose own parameters come before the defaults here.
        auth: ``azure`` takes an Entra ID access token as the password.
        variable: the setting that holds ``conninfo``, for messages.

    Raises:
        UnreachableError: the server does not answer, or is starting up or full.
        RefusedError: it refuses, or there is no token.
    """
    given = conninfo_to_dict(conninfo)
    options: dict[str, Any] = {name: value for name, value in _DEFAULTS.items() if name not in given}
    if auth == "azure":
        options["password"] = _azure_token()
        if not tls_is_chosen(given):
            # A token that is read on the way lets its reader in until it expires.
            options["sslmode"] = "require"
    for attempt in count(1):
        try:
            # A pooler in transaction mode knows no prepared statement from one transaction to the next.
            return psycopg.connect(conninfo, client_encoding="UTF8", prepare_threshold=None, **options)
        except psycopg.OperationalError as error:
            answered = any(text in str(error) for text in ("FATAL:", "no password supplied"))
            passes = not answered or any(text in str(error) for text in _STARTING_OR_FULL)
            if not passes or attempt == (_ATTEMPTS_WHILE_STARTING if answered else _ATTEMPTS):
                # Not chained: libpq's words may repeat a part of the connection string.
                words = without_secrets(" ".join(str(error).split()), conninfo)
                raise _not_connected(words, variable, answered=answered) from None
        time.sleep(attempt)
    raise AssertionError("unreachable")


def without_secrets(words: str, conninfo: str) -> str:
    """The same words with three asterisks in place of every secret of a connection string."""
    for name, value in conninfo_to_dict(conninfo).items():
        # A word of three letters would garble the message more than it hides.
        if name in ("password", "sslpassword", "passfile") and value and len(str(value)) > 3:
            words = words.replace(str(value), "***")
    return words


def tls_is_chosen(given: Mapping[str, object]) -> bool:
    """Whether the connection string, the environment or a service file says how safe a connection is to be."""
    if {"sslmode", "service"} & given.keys() or str(given.get("host", "")).startswith("/"):
        return True
    defaults = {option.keyword: option.val for option in Conninfo.get_defaults()}
    return defaults[b"sslmode"] != b"prefer"


def _not_connected(words: str, variable: str, *, answered: bool) -> EventArchiveError:
    if answered and not any(text in words for text in _STARTING_OR_FULL):
        return RefusedError(
            f"PostgreSQL refuses the connection: {words}. "
            f"Check user, password and database in {variable}, and the server's access rules."
        )
    return UnreachableError(
        f"PostgreSQL cannot be reached: {words.rstrip('.?')}. "
        f"Check host and port in {variable}, and that the server is up and lets this machine in."
    )


def _azure_token() -> str:
    from azure.core.exceptions import AzureError

    try:
        return azure_credential().get_token(_AZURE_TOKEN_SCOPE).token
    except AzureError as error:
        codes = entra_codes(error)
        # A code of Entra ID's is a refusal; without one, Entra ID may not have been reached.
        kind = RefusedError if codes else UnreachableError
        # Not chained: what the endpoints answered may be repeated in it.
        raise kind(
            f"No Entra ID access token for PostgreSQL (PG_AUTH=azure) could be had ({codes or type(error).__name__}). "
            "Check the workload identity (the service account's client id, the pod's label, the federated credential), "
            "and that Entra ID can be reached."
        ) from None

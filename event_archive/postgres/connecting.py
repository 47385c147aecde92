"""How a connection is made: defaults, the access token, attempts, what failures mean.

Not here: how the reason of a failure is found (``diagnosis``), what a transaction pins (``session``).
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from event_archive.errors import EventArchiveError, RefusedError, UnreachableError
from event_archive.identity import azure_credential, entra_codes
from event_archive.postgres.diagnosis import sqlstate_of_refusal

Auth = Literal["password", "azure"]

# A restart takes a few seconds: between the attempts lie one second and two, and a longer outage is the caller's.
_ATTEMPTS = 3
_ATTEMPTS_WHILE_STARTING = 6
"""With a second more between each two: a server that a crash of one backend restarts is back within 15 seconds."""
_NOT_UP = "It is starting up or shutting down, or a standby with hot_standby off; try again when it lets somebody in."
_PASSING = {
    "53300": (
        "It has no connection left: end some, or raise max_connections, or the CONNECTION LIMIT of role or database."
    ),
    "57P01": _NOT_UP,
    "57P02": _NOT_UP,
    "57P03": _NOT_UP,
}
"""SQLSTATEs of a server that is full, is shutting down or is starting up, and what to do."""
_TELLING_NOTHING = ("08", "58", "XX")
"""What the codes of poolers begin with: PgBouncer sends 08P01 where it is full, where it waits for a server that
restarts, and for a wrong user, password or database alike; pgcat 58000, others XX000. They are tried again as if they
passed; if they do not, somebody has to look."""
_NOT_LET_IN = "28000"
_OF_OPTIONS = ("22023", "42601", "42704", "55P02")
"""SQLSTATEs of a setting that is none or cannot be read, is not to be had, or not with this value."""
_CONNECT_TIMEOUT_SECONDS = 10
# A host that is gone is noticed within two minutes: tcp_user_timeout is in milliseconds, the others in seconds.
_DEFAULTS = {
    "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
    "application_name": "event_archive",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 120_000,
}
# Libpq's own words, which are never translated where psycopg brings it along: a server that is away says no such thing.
_OF_TLS = re.compile(r"certificate|private key|does not support SSL|SSL error: .*\balert\b", re.IGNORECASE)
# A server that answers, but not in the way, or not the one, that the connection string asks for.
_OF_AUTHENTICATION = re.compile(
    r"channel binding (?:is )?required|authentication method requirement|\brequire(?:_auth|peer)\b"
)
_OF_ANOTHER_KIND = re.compile(r"session is (not )?read-only|server is (not )?in hot standby mode")
# Before it connects.
_TLS_REFUSED = re.compile(r"connection is bad: (weak sslmode|invalid SSL)")
_UNSUPPORTED_BY_A_POOLER = "unsupported startup parameter"
"""As PgBouncer says it, which translates nothing."""
# Behind the severity of what a server sends, in whatever language, libpq writes two blanks.
_SENT_BY_A_SERVER = re.compile(r" failed: [^\s:]+:  ")
# What libpq asks on a line of its own is in our advice.
_LIBPQ_ASKS = re.compile(r"\n\tIs the server running\b[^?]*\?")
_AZURE_TOKEN_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"  # noqa: S105 (a scope, no secret)


def connect(conninfo: str, auth: Auth, *, variable: str, patient: bool = True) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection; tried three times where the server does not answer.

    Args:
        conninfo: libpq URL or key=value DSN, whose own parameters come before the defaults here.
        auth: ``azure`` takes an Entra ID access token as the password.
        variable: the setting that holds ``conninfo``, for messages.
        patient: False for one attempt alone, of half the time.

    Raises:
        UnreachableError: the server does not answer, or is starting up or full.
        RefusedError: it refuses, one side does not trust the other's certificate, or there is no token.
    """
    given = conninfo_to_dict(conninfo)
    options: dict[str, Any] = {name: value for name, value in _DEFAULTS.items() if name not in given}
    if not patient:
        options["connect_timeout"] = _CONNECT_TIMEOUT_SECONDS // 2
    if auth == "azure":
        options["password"] = _azure_token()
        if not tls_is_chosen(given):
            # A token that is read on the way lets its reader in until it expires.
            options["sslmode"] = "require"
    heard: EventArchiveError | None = None
    for attempt in count(1):
        try:
            # A pooler in transaction mode knows no prepared statement from one transaction to the next.
            return psycopg.connect(conninfo, client_encoding="UTF8", prepare_threshold=None, **options)
        except psycopg.OperationalError as error:
            failure = _failure(error, conninfo, options, variable)
            if failure.is_answer:
                heard = failure.told
            if not (patient and failure.passes) or attempt == (_ATTEMPTS_WHILE_STARTING if failure.code else _ATTEMPTS):
                # Not chained: libpq's words may repeat a part of the connection string.
                silent = isinstance(error, psycopg.errors.ConnectionTimeout)
                raise (heard if heard and silent else failure.told) from None
        time.sleep(attempt)
    raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt failed.

    Attributes:
        code: the server's SQLSTATE; empty where it sent none.
        passes: whether the next attempt may succeed.
        told: the error that people see if it is the last.
        is_answer: whether a server said it.
    """

    code: str
    passes: bool
    told: EventArchiveError
    is_answer: bool = False


def _failure(error: psycopg.OperationalError, conninfo: str, options: Mapping[str, Any], variable: str) -> _Failure:
    words = without_secrets(" ".join(_LIBPQ_ASKS.sub("", str(error)).split()), conninfo).rstrip(".?")
    words = words.removeprefix("connection failed: ")
    if error.pgconn is not None and error.pgconn.needs_password:
        # libpq ended the connection itself, when it was asked for one.
        return _Failure("", passes=False, told=_refused(words, variable, options))
    code = _code(error, conninfo, options)
    if code in _PASSING:
        told = _out_of_reach(f"{words} [SQLSTATE {code}]", _PASSING[code])
        return _Failure(code, passes=True, told=told, is_answer=True)
    # Of several hosts, of the one that was tried last; behind its name, which may hold any word.
    last = words.partition("Multiple connection attempts failed")[0].partition(" failed: ")[2]
    if code == _NOT_LET_IN and _OF_TLS.search(_own_words_of_two(error)):
        # By sslmode=prefer or allow, libpq tried without TLS, too, which the server's access rules forbid.
        return _Failure(code, passes=False, told=_insecure(f"{words} [SQLSTATE {code}]", variable), is_answer=True)
    if code:
        if code.startswith(_OF_OPTIONS) or _UNSUPPORTED_BY_A_POOLER in words:
            return _Failure(code, passes=False, told=_with_wrong_options(f"{words} [SQLSTATE {code}]", variable))
        by_pooler = code.startswith(_TELLING_NOTHING)
        refused = _refused(f"{words} [SQLSTATE {code}]", variable, options, by_pooler=by_pooler)
        return _Failure(code, by_pooler, refused, is_answer=True)
    if _OF_TLS.search(last) or _TLS_REFUSED.match(words):
        return _Failure("", passes=False, told=_insecure(words, variable))
    if _OF_AUTHENTICATION.search(last):
        return _Failure("", passes=False, told=_other_authentication(words, variable))
    if code is None and _SENT_BY_A_SERVER.search(str(error).partition("Multiple connection attempts failed")[0]):
        check = (
            f"It answered, and then no more. Check user, password and database in {variable} (a pooler whose server "
            "refuses lets whoever asks again wait), and that the server is up."
        )
        return _Failure("", passes=True, told=_out_of_reach(words, check), is_answer=True)
    check = f"Check host and port in {variable}, and that the server is up and lets this machine in."
    if _OF_ANOTHER_KIND.search(last):
        # A primary that is about to be promoted is still a standby.
        check = f"It answers. Check host, port and target_session_attrs in {variable}, and which server is the primary."
    return _Failure("", passes=True, told=_out_of_reach(words, check))


def _own_words_of_two(error: psycopg.OperationalError) -> str:
    """What libpq itself said, and no server, where it made two attempts."""
    tried = str(error).removeprefix("connection failed: ").partition("Multiple connection attempts failed")[0]
    said = [line[line.index(" failed: ") :] for line in tried.splitlines() if " failed: " in line]
    return "\n".join(words for words in said if not _SENT_BY_A_SERVER.match(words)) if len(said) > 1 else ""


def _code(error: psycopg.OperationalError, conninfo: str, options: Mapping[str, Any]) -> str | None:
    """The SQLSTATE of a server that refused; empty where it sent none, None where it does not answer a second time."""
    tried = error.pgconn
    # Nobody answered in time, or no host was found: a second attempt would only take as long.
    if isinstance(error, psycopg.errors.ConnectionTimeout) or tried is None:
        return ""
    # Of several hosts, the one that was tried last.
    host = {"host": tried.host, "hostaddr": tried.hostaddr, "port": tried.port}
    address = {name: value.decode() for name, value in host.items() if value}
    one_host = make_conninfo(conninfo, **(dict(options) | address))
    timeout_seconds = int(conninfo_to_dict(one_host)["connect_timeout"] or 0)
    return sqlstate_of_refusal(
        one_host, timeout_seconds=timeout_seconds if timeout_seconds > 0 else _CONNECT_TIMEOUT_SECONDS
    )


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


def _refused(words: str, variable: str, options: Mapping[str, Any], *, by_pooler: bool = False) -> RefusedError:
    pooler = ""
    if by_pooler:
        pooler = " A pooler says so where it is full, too, or the server is away: raise its limit, or look there, then."
    check = f"user, password and database in {variable}"
    if "password" in options:
        check = (
            f"user and database in {variable}, that the server knows this identity of Entra ID under the user's name "
            "(PG_AUTH=azure: its token is the password)"
        )
    return RefusedError(
        f"PostgreSQL refuses the connection: {words}. Check {check}, and the server's access rules.{pooler}"
    )


def _with_wrong_options(words: str, variable: str) -> RefusedError:
    return RefusedError(
        f"PostgreSQL refuses a setting: {words}. Check options in {variable}, PGOPTIONS, and what else libpq sends "
        "(PGTZ, PGDATESTYLE); behind PgBouncer, its ignore_startup_parameters and track_extra_parameters."
    )


def _insecure(words: str, variable: str) -> RefusedError:
    return RefusedError(
        f"No TLS connection to PostgreSQL can be made: {words}. "
        f"Check sslmode, sslrootcert, sslcert and sslkey in {variable}, and the server's certificate."
    )


def _other_authentication(words: str, variable: str) -> RefusedError:
    return RefusedError(
        f"The connection to PostgreSQL was given up: {words}. Check require_auth, requirepeer and channel_binding in "
        f"{variable}, and which authentication the server's access rules ask for."
    )


def _out_of_reach(words: str, advice: str) -> UnreachableError:
    return UnreachableError(f"PostgreSQL cannot be reached: {words}. {advice}")


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

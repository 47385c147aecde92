"""Whom TLS connections trust: what is wrong with a server's certificate, whatever library's error holds it.

Not here: PostgreSQL's connections, of which libpq tells in words alone.
"""

import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from event_archive.errors import ConfigurationError, RefusedError

UNTRUSTED = "the certificate of what answers is not trusted"
"""For messages."""
REQUESTS_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Which variables the libraries of Azure and of webhooks heed, the first that is set."""
OPENSSL_BUNDLE = "SSL_CERT_FILE"
"""Which one OpenSSL itself heeds, for all other libraries."""
_WRAPPED = ("reason", "inner_exception", "original_error")
"""Where the libraries keep the error that theirs came of."""


def untrusted(failure: BaseException, subject: str, *, check: str, variable: str) -> RefusedError | None:
    """The error that people see where a server's certificate is not trusted; None where something else failed.

    Args:
        failure: of a library.
        subject: whose certificate, for the message.
        check: what holds its address.
        variable: what names the authorities to trust.
    """
    why = distrust(failure)
    if not why:
        return None
    return RefusedError(
        f"{subject}: {UNTRUSTED} ({why}). Check {check} and the certificate; {variable} names a file of the "
        "authorities to trust."
    )


def distrust(failure: BaseException) -> str:
    """Why a server's certificate is not trusted, in OpenSSL's words; empty where something else failed."""
    found, known = [failure], set[int]()
    while found:
        error = found.pop()
        if isinstance(error, ssl.SSLCertVerificationError):
            # What follows a comma names the host, which may be a secret.
            return error.verify_message.partition(",")[0]
        known.add(id(error))
        further = (error.__cause__, error.__context__, *error.args, *map(error.__dict__.get, _WRAPPED))
        found += [of for of in further if isinstance(of, BaseException) and id(of) not in known]
    return ""


def require_bundle(variables: Sequence[str] = REQUESTS_BUNDLES) -> None:
    """Refuses a variable that names no certificates, of which the libraries' own errors say little.

    Args:
        variables: the first that is set counts.

    Raises:
        ConfigurationError: names the variable.
    """
    variable = next((of for of in variables if os.environ.get(of)), None)
    if variable is None:
        return
    path = Path(os.environ[variable])
    try:
        ssl.create_default_context(**{"capath" if path.is_dir() else "cafile": str(path)})  # type: ignore[arg-type]
    except OSError as error:
        raise ConfigurationError(
            f"{variable} names no file or folder of certificates that can be read ({type(error).__name__}). Correct "
            "it, or leave it out."
        ) from None

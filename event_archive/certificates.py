"""Whom TLS connections trust: what is wrong with a server's certificate, whatever library's error holds it.

Not here: PostgreSQL's connections, of which libpq tells in words alone.
"""

import os
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from event_archive.errors import ConfigurationError, RefusedError
from event_archive.paths import is_folder

UNTRUSTED = "the certificate of what answers is not trusted"
"""For messages."""
REQUESTS_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Which variables the libraries of Azure and of webhooks heed, the first that is set."""
OPENSSL_BUNDLE = "SSL_CERT_FILE"
"""Which one OpenSSL itself heeds, for all other libraries."""
_PARAMETERS = ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs", "ssl_ca_path")
"""Of a connection of redis-py: what names files."""
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
        if type(error).__name__ == "CertificateError":
            # Of urllib3, where it compares the names itself, as botocore lets it.
            return "Hostname mismatch"
        known.add(id(error))
        further = (error.__cause__, error.__context__, *error.args, *map(error.__dict__.get, _WRAPPED))
        found += [of for of in further if isinstance(of, BaseException) and id(of) not in known]
    return ""


def require_bundle(
    url: str = "https:", variables: Sequence[str] = REQUESTS_BUNDLES, *, may_be_folder: bool = True
) -> None:
    """Refuses a variable that names no certificates, of which the libraries' own errors say little.

    Args:
        url: what is talked to; without TLS no variable counts.
        variables: the first that is set counts.
        may_be_folder: whether the library takes a folder, too.

    Raises:
        ConfigurationError: names the variable.
    """
    variable = next((of for of in variables if os.environ.get(of)), None)
    if variable is None or url.lower().startswith("http:"):
        return
    path = os.environ[variable]
    options = {"capath": path} if may_be_folder and is_folder(Path(path)) else {"cafile": path}
    try:
        ssl.create_default_context(**options)  # type: ignore[arg-type]
    except OSError as error:
        kind = "file or folder" if may_be_folder else "file"
        raise ConfigurationError(
            f"{variable} names no {kind} of certificates that can be read ({type(error).__name__})"
            f"{'' if path == path.strip() else '; the white space around it counts'}. Correct it, or leave it out."
        ) from None


def require_files(setting: str, parameters: Mapping[str, Any]) -> None:
    """Refuses parameters that name no certificates, or no key of one, which redis-py takes for a failed connection.

    Args:
        setting: what holds them, for the message.
        parameters: by redis-py's names.

    Raises:
        ConfigurationError: names the parameters.
    """
    certificate, key, file, folder = map(parameters.get, _PARAMETERS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if certificate or key:
            # Without a password OpenSSL would ask the terminal for one.
            context.load_cert_chain(certificate or "", key, parameters.get("ssl_password") or "")
        if file or folder:
            context.load_verify_locations(file, folder)
    except OSError as error:
        named = ", ".join(filter(parameters.get, _PARAMETERS))
        raise ConfigurationError(
            f"{setting}: what its parameters name ({named}) holds no certificates, or not the key of one, that can be "
            f"read ({type(error).__name__}). Correct them, or leave them out."
        ) from None

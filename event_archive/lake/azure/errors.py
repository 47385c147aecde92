"""What Azure's refusals mean: the lake's errors in place of the SDK's, without anything secret. Not here: retries.

The SDK's exceptions, and those of the HTTP library inside them, may hold a request's address with its signature. So
their text is never used, and they are never the cause or context of an error that people see.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

from event_archive.certificates import REQUESTS_BUNDLES, untrusted
from event_archive.errors import EventArchiveError, RefusedError, UnreachableError
from event_archive.identity import entra_codes
from event_archive.lake.azure.retry import RETRIED_CODES, RETRIED_STATUS
from event_archive.lake.protocol import changed

T = TypeVar("T")

_CHANGED_CODES = {"BlobAlreadyExists", "BlobNotFound", "InvalidBlockList"}
_TRANSIENT_CODES = {"ContainerBeingDeleted", "OperationTimedOut", "ServerBusy", "InternalError", *RETRIED_CODES}

_ROLE = (
    "Give the identity the role 'Storage Blob Data Contributor' on the container, or the shared access signature the "
    "permissions read, create, write and list (rcwl) on it."
)
_READER = (
    "Give the identity the role 'Storage Blob Data Reader' on the container, or the shared access signature the "
    "permissions read and list (rl) on it."
)
_ROLES = {"write": _ROLE, "read": _READER, "delete": ""}
"""By what is done; nobody has to delete."""
_KEY = "Check the account key or shared access signature, that it has not expired, and the clock."
_ANY = f"{_KEY} Check the account's network rules too. {_ROLE}"
_VAULT = (
    "The account is encrypted by a key of your own in Key Vault, which it cannot use: check that key and its access."
)
_LEASE = "Somebody holds a lease on it: break or release the lease."
_IMMUTABLE = (
    "An immutability policy or legal hold protects it; block blobs cannot be appended to under one, not even with "
    "protected append. Lift it, or archive into a container without one."
)
_FOREIGN = (
    "A blob of another kind, or another tool's uncommitted blocks, stand there. It may hold archived rows: copy it "
    "elsewhere, delete it, and copy it back as a block blob with its metadata; or wait until Azure has discarded the "
    "blocks (a week after they were written)."
)
_HINTS = {
    "AuthenticationFailed": _KEY,
    "InvalidAuthenticationInfo": _KEY,
    "NoAuthenticationInformation": _KEY,
    "AuthorizationFailure": _ANY,
    "AuthorizationPermissionMismatch": _ROLE,
    "AuthorizationProtocolMismatch": "The shared access signature is for HTTPS alone: use an address with https://.",
    "AuthorizationResourceTypeMismatch": "Get a shared access signature for the resource types container and object.",
    "AuthorizationServiceMismatch": "Get a shared access signature for the Blob service.",
    "AuthorizationSourceIPMismatch": "Get a shared access signature for the IP addresses that requests come from.",
    "AccountIsDisabled": "Enable the storage account, or its subscription.",
    "InsufficientAccountPermissions": _ROLE,
    "KeyBasedAuthenticationNotPermitted": "The account allows no keys: use the account URL and an Entra ID identity.",
    "ContainerNotFound": "Create the container, or permit its creation.",
    "ContainerDisabled": "Enable the container.",
    "BlobArchived": "It is in the archive tier. Rehydrate it (set its tier to Hot, Cool or Cold; this takes hours).",
    "BlobBeingRehydrated": "It is on its way out of the archive tier. Try again when it has arrived.",
    "BlobImmutableDueToPolicy": _IMMUTABLE,
    "LeaseIdMissing": _LEASE,
    "LeaseAlreadyPresent": _LEASE,
    "InvalidBlobType": _FOREIGN,
    "InvalidBlobOrBlock": _FOREIGN,
    "InvalidResourceName": "Check the container's name: 3 to 63 lower-case letters, digits and single hyphens.",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a call is about, for messages. Where the whole service is away, they name the container alone.

    Attributes:
        container: its address, never a signed one.
        path: from there; empty for the container itself.
        purpose: what is done to it.
    """

    container: str
    path: str = ""
    purpose: Literal["write", "read", "delete"] = "write"

    def __str__(self) -> str:
        return f"{self.path} in {self.container}" if self.path else self.container


def ask(subject: Subject, call: Callable[[], T]) -> T:
    """What a call of the SDK returns, or the lake's error in place of the SDK's.

    Args:
        subject: what the call is about, for the message.
        call: the call.

    Raises:
        FileChangedError, RefusedError, UnreachableError: what the call's failure means.
    """
    try:
        return call()
    except AzureError as failure:
        error = lake_error(failure, subject)
    # Not inside the handler: the SDK's exception would stay reachable as this one's context.
    raise error


def or_none(call: Callable[[], T]) -> Callable[[], T | None]:
    """The same call, returning None where there is no such blob or container."""

    def found() -> T | None:
        try:
            return call()
        except ResourceNotFoundError:
            return None

    return found


def lake_error(failure: AzureError, subject: Subject) -> EventArchiveError:
    """The lake's error for a failed call."""
    status = getattr(failure, "status_code", None)
    code = code_of(failure)
    if isinstance(failure, ClientAuthenticationError) and status is None:
        reason = ", ".join(filter(None, (type(failure).__name__, entra_codes(failure))))
        return RefusedError(
            f"{subject.container}: no request could be signed ({reason}). Check that the account key is complete, or "
            "that this process has an Entra ID identity that it can get a token for."
        )
    if refused := untrusted(failure, subject.container, check="the address", variable=REQUESTS_BUNDLES[0]):
        return refused
    if isinstance(failure, ServiceRequestError | ServiceResponseError) or status is None:
        written = ""
        if subject.purpose == "write":
            written = "; if something was being written, it may or may not have been committed"
        return UnreachableError(
            f"{subject.container}: the Blob service did not answer, or broke off ({_reason(failure)}). Check the "
            f"address and the network{written}. Run it again."
        )
    if status >= 500 or status in RETRIED_STATUS or code in _TRANSIENT_CODES:
        return UnreachableError(
            f"{subject.container}: the Blob service still answers {status} {code}. Run it again later."
        )
    hint = _HINTS.get(code)
    # 412: a condition was not met, whatever its code, but for a lease's.
    if code in _CHANGED_CODES or (status == 412 and hint is None):
        return changed(subject, code)
    if code.startswith("KeyVault"):
        hint = _VAULT
    hint = hint or {401: _KEY, 403: _ANY, 404: "Check the account and the container's name."}.get(status, "")
    if code == "ContainerNotFound" and subject.purpose == "read":
        hint = "Check its name, and the account."
    hint = hint.replace(_ROLE, _ROLES[subject.purpose])
    return RefusedError(f"{subject}: the Blob service refuses with {status} {code}. {hint}".rstrip())


def code_of(failure: AzureError) -> str:
    """Azure's own code for a failed call, where it gave one."""
    code = getattr(failure, "error_code", None)
    if not code and isinstance(failure, HttpResponseError):
        code = getattr(failure.response, "headers", {}).get("x-ms-error-code")
    text = str(getattr(code, "value", code))
    return text if re.fullmatch(r"\w{1,80}", text) and code else "without an error code"


def _reason(failure: AzureError) -> str:
    """What the operating system said, if it did; else what kind of failure it is."""
    cause: object = failure.inner_exception
    for _ in range(10):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if isinstance(cause, BaseException):
            nested = [arg for arg in cause.args if isinstance(arg, BaseException)]
            cause = getattr(cause, "reason", None) or cause.__cause__ or cause.__context__ or next(iter(nested), None)
    return type(failure).__name__


class _WithoutSignatures(logging.Filter):
    """Takes signatures out of the addresses that the HTTP library logs at level DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                re.sub(r"(?i)\bsig=[^&\s]+", "sig=***", arg) if isinstance(arg, str) else arg for arg in record.args
            )
        return True


_WITHOUT_SIGNATURES = _WithoutSignatures()


def keep_signatures_out_of_logs() -> None:
    """Azure's own loggers redact addresses; urllib3's does not. Levels are left as they are."""
    logging.getLogger("urllib3.connectionpool").addFilter(_WITHOUT_SIGNATURES)

"""Log files in a bucket of S3, or of what speaks its protocol. Not here: other stores.

boto3 is imported when a bucket is opened: it takes most of a second.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from event_archive.certificates import REQUESTS_BUNDLES, require_bundle, untrusted
from event_archive.config.sources import LogsSettings
from event_archive.errors import ConfigurationError, EventArchiveError, FileChangedError, RefusedError
from event_archive.sources.log_files.stores import CHUNK_BYTES, FileError, Found, StoreAwayError, changed, resumed
from event_archive.sources.runs import wait

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

T = TypeVar("T")
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 20.0
_RETRY_SECONDS = 60.0
"""From the first attempt of a request to the beginning of the last."""
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 15.0
_BUNDLES = ("AWS_CA_BUNDLE", REQUESTS_BUNDLES[0])
"""Which variables botocore heeds, the first that is set."""
_REDIRECTS = (300, 301, 302, 303, 307, 308)
_GONE = {"NoSuchKey", "404", "NotFound"}
_CHANGED = {"PreconditionFailed", "412"}
_PASSING = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling"}
_PERMISSIONS = (
    "Give the identity s3:ListBucket on the bucket, s3:GetObject on its objects and, where a key of KMS encrypts them, "
    "kms:Decrypt on that key. A bucket whose requester pays is not read."
)
_HINTS = {
    "AccessDenied": _PERMISSIONS,
    "403": _PERMISSIONS,
    "InvalidObjectState": "It is archived (GLACIER): restore it to a class that can be read, then --retry-failed.",
}
"""Of a file, or of the bucket."""
_ELSEWHERE = "Check the bucket in LOGS_URL, AWS_REGION and AWS_ENDPOINT; the last is without a bucket."
_OF_ALL_FILES = {
    "NoSuchBucket": _ELSEWHERE,
    "InvalidAccessKeyId": "Check AWS_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "Check AWS_SECRET_ACCESS_KEY.",
    "ExpiredToken": "The credentials have expired: renew them.",
    "InvalidToken": "Check AWS_SESSION_TOKEN.",
    "RequestTimeTooSkewed": "Set this machine's clock.",
    "PermanentRedirect": "The bucket lies in another region: set AWS_REGION.",
    "AuthorizationHeaderMalformed": "The bucket lies in another region: set AWS_REGION; or check AWS_ACCESS_KEY_ID.",
}
"""Nothing is wrong with the one file that was asked for."""


class Bucket:
    """A bucket's prefix. Keys are taken as they are, whatever is in them."""

    is_file = False
    lists_after = True

    def __init__(
        self, name: str, prefix: str, settings: LogsSettings, told_to_stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Connects to nothing.

        Args:
            name: of the bucket.
            prefix: what keys begin with.
            settings: the region, the endpoint and the credentials; without those, boto3 looks for them itself.
            told_to_stop: ends the waiting for a bucket that is away.

        Raises:
            ConfigurationError: with these, or with what boto3 finds, there is no client.
        """
        from botocore.exceptions import BotoCoreError

        self.bucket, self.prefix = f"s3://{name}", prefix
        self._name, self._told_to_stop = name, told_to_stop
        require_bundle(settings.aws_endpoint or "https:", _BUNDLES, may_be_folder=False)
        try:
            self._client = _client(settings)
            # Before boto3 looks for the bucket's region: it asks whoever redirects for it, and again for that request.
            self._client.meta.events.register("before-parse.s3", partial(_require_no_redirect, self.bucket))
            return
        except (BotoCoreError, ValueError) as error:
            kind = type(error).__name__
        raise ConfigurationError(
            f"{self.bucket}: boto3 cannot begin ({kind}). Check AWS_REGION, AWS_ENDPOINT, and AWS_PROFILE where it is "
            "set."
        )

    def list(self, after: str | None = None) -> Iterator[Found]:
        """As ``Store.list``; "folders", which are empty objects whose keys end with a slash, are left out."""
        more: dict[str, str] = {"StartAfter": after} if after else {}
        while True:
            page = self._ask(
                self.bucket, partial(self._client.list_objects_v2, Bucket=self._name, Prefix=self.prefix, **more)
            )
            # A proxy's page is parsed as a listing that says nothing; older stores tell no token.
            is_last = page.get("IsTruncated") is False
            if not is_last and not page.get("NextContinuationToken"):
                raise RefusedError(f"{self.bucket}: what answered is no listing of S3 (ListObjectsV2). {_ELSEWHERE}")
            for of in page.get("Contents", ()):
                if not (of["Key"].endswith("/") and not of["Size"]):
                    yield Found(of["Key"], of["ETag"], of["Size"], of["LastModified"])
            if is_last:
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def find(self, key: str) -> Found | None:
        """As ``Store.find``."""
        try:
            of = self._ask(key, partial(self._client.head_object, Bucket=self._name, Key=key))
        except FileChangedError:
            return None
        return Found(key, of["ETag"], of["ContentLength"], of["LastModified"])

    def open(self, file: Found) -> AbstractContextManager[Iterator[bytes]]:
        """As ``Store.open``."""
        return resumed(lambda offset: self._read(file, offset), file)

    def _read(self, file: Found, offset: int) -> Iterator[bytes]:
        where = {"Range": f"bytes={offset}-"} if offset else {}
        answer = self._ask(
            file.key,
            partial(self._client.get_object, Bucket=self._name, Key=file.key, IfMatch=file.etag, **where),
        )
        if answer.get("ETag", file.etag).strip('"') != file.etag.strip('"'):
            raise changed(file.key)
        # A cache may give the whole of it, or what it has kept of another request.
        came = answer.get("ContentRange")
        if came and not came.startswith(f"bytes {offset}-"):
            answer["Body"].close()
            raise StoreAwayError(f"{file.key}: other bytes came than were asked for ({came}).")
        left = 0 if came else offset
        with self._errors(file.key), answer["Body"] as body:
            while left and (passed := len(body.read(min(left, CHUNK_BYTES)))):
                left -= passed
            while piece := body.read(CHUNK_BYTES):
                yield piece

    def _ask(self, subject: str, call: Callable[[], T]) -> T:
        until, pause = time.monotonic() + _RETRY_SECONDS, _FIRST_WAIT_SECONDS
        while True:
            try:
                with self._errors(subject):
                    return call()
            except StoreAwayError:
                if time.monotonic() + pause > until or self._told_to_stop():
                    raise
            wait(pause, self._told_to_stop)
            pause = min(pause * 2, _LONGEST_WAIT_SECONDS)

    @contextmanager
    def _errors(self, subject: str) -> Iterator[None]:
        """What a failure means, in place of botocore's errors, which are neither its cause nor its context."""
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
        from botocore.exceptions import ConnectionError as NoConnectionError
        from urllib3.exceptions import HTTPError

        error: EventArchiveError
        try:
            yield
            return
        except ClientError as failure:
            error = _refusal(subject, self.bucket, failure)
        except (NoConnectionError, HTTPClientError, IncompleteReadError, HTTPError, OSError) as failure:
            error = StoreAwayError(
                f"{self.bucket}: the store did not answer, or broke off ({type(failure).__name__}). Check AWS_ENDPOINT "
                "and the network; run it again."
            )
            error = untrusted(failure, self.bucket, check="AWS_ENDPOINT", variable=_BUNDLES[0]) or error
        except BotoCoreError as failure:
            error = RefusedError(
                f"{self.bucket}: no request could be made ({type(failure).__name__}). Set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or give this machine a role; and check AWS_REGION."
            )
        raise error


def _authorities() -> str | bool | None:
    """What botocore's argument ``verify`` is to be: it looks itself, but takes a variable that is empty for a path."""
    given = [os.environ[variable] for variable in _BUNDLES if variable in os.environ]
    return next(filter(None, given), True) if "" in given else None


def _client(settings: LogsSettings) -> Any:
    import boto3
    from botocore.config import Config

    key, secret, token = settings.aws_access_key_id, settings.aws_secret_access_key, settings.aws_session_token
    return boto3.client(
        "s3",
        region_name=settings.aws_region,
        endpoint_url=settings.aws_endpoint,
        verify=_authorities(),
        aws_access_key_id=key.get_secret_value() if key else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        aws_session_token=token.get_secret_value() if token else None,
        config=Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            # It counts attempts, and gives a store that refuses connections up within a second.
            retries={"total_max_attempts": 1},
            # Newer checksums are refused by some that speak S3's protocol.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"} if settings.aws_endpoint else None,
        ),
    )


def _require_no_redirect(bucket: str, response_dict: dict[str, Any], **_: Any) -> None:
    """Raises where somebody redirects who does not say in which region the bucket lies, as a store does."""
    status, headers = response_dict["status_code"], response_dict["headers"]
    if status in _REDIRECTS and "x-amz-bucket-region" not in {name.lower() for name in headers}:
        raise RefusedError(
            f"{bucket}: what answers redirects (status {status}), which is not followed. Let AWS_ENDPOINT name the "
            "store's own address, with https:// where it asks for that; and check AWS_REGION."
        )


def _refusal(subject: str, bucket: str, failure: "ClientError") -> EventArchiveError:
    code = str(failure.response.get("Error", {}).get("Code", ""))
    status = int(failure.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _CHANGED or (code in _GONE and subject != bucket):
        return changed(subject)
    # What is no error of S3's has its status for a code, or none. An answer that is not whole counts as 500, and so
    # does one that was none of S3's at all.
    told = f"{status} {code}" if code not in ("", str(status)) else str(status)
    if status >= 500 or status == 429 or code in _PASSING:
        doubt = " If that stays so, what answers may be no store: check AWS_ENDPOINT." if told == str(status) else ""
        return StoreAwayError(f"{bucket}: the store still answers {told}. Run it again later.{doubt}")
    hint = _HINTS.get(code) or _OF_ALL_FILES.get(code) or (_ELSEWHERE if subject == bucket else "")
    if subject == bucket or code in _OF_ALL_FILES:
        return RefusedError(f"{subject}: the store refuses with {told}. {hint}".rstrip())
    return FileError(f"The store refuses with {told}. {hint}".rstrip())

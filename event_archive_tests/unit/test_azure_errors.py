"""What the Blob service's refusals mean, by status and code, where no service can be brought to answer so."""

import logging
from http import HTTPStatus
from types import SimpleNamespace

import pytest
from azure.core.exceptions import HttpResponseError

from event_archive.errors import FileChangedError, RefusedError, UnreachableError
from event_archive.lake.azure.container import RETRY_SECONDS
from event_archive.lake.azure.errors import Subject, keep_signatures_out_of_logs, lake_error
from event_archive.lake.azure.retry import READ_TIMEOUT_SECONDS, _delay_seconds

SUBJECT = Subject("https://account.blob.core.windows.net/container", "events/day.csv")


def refused(status: int, code: str | None) -> HttpResponseError:
    headers = {} if code is None else {"x-ms-error-code": code}
    return HttpResponseError(
        response=SimpleNamespace(status_code=status, reason=HTTPStatus(status).phrase, headers=headers)
    )


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (412, "ConditionNotMet", FileChangedError),
        (412, "TargetConditionNotMet", FileChangedError),
        (412, "ACodeOfTomorrow", FileChangedError),
        (412, None, FileChangedError),
        (409, "BlobAlreadyExists", FileChangedError),
        (404, "BlobNotFound", FileChangedError),
        (400, "InvalidBlockList", FileChangedError),
        (412, "LeaseIdMissing", RefusedError),
        (409, "LeaseAlreadyPresent", RefusedError),
        (409, "BlobImmutableDueToPolicy", RefusedError),
        (403, "AuthorizationFailure", RefusedError),
        (409, "ContainerBeingDeleted", UnreachableError),
        (409, "OperationTimedOut", UnreachableError),
        (429, None, UnreachableError),
        (503, "ServerBusy", UnreachableError),
    ],
)
def test_a_refusal_means_what_its_code_says(status: int, code: str | None, kind: type[Exception]):
    error = lake_error(refused(status, code), SUBJECT)
    assert type(error) is kind
    assert (code or "without an error code") in str(error)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("AuthorizationProtocolMismatch", "an address with https://"),
        ("AuthorizationResourceTypeMismatch", "the resource types container and object"),
        ("AuthorizationServiceMismatch", "for the Blob service"),
        ("AuthorizationSourceIPMismatch", "for the IP addresses"),
        ("AccountIsDisabled", "Enable the storage account"),
        ("KeyVaultEncryptionKeyNotFound", "check that key and its access"),
    ],
)
def test_who_has_all_permissions_is_not_told_to_get_them(code: str, advice: str):
    said = str(lake_error(refused(403, code), SUBJECT))
    assert advice in said
    assert "rcwl" not in said


def test_what_is_no_code_is_not_repeated():
    error = lake_error(refused(403, "https://account/container?sig=secret"), SUBJECT)
    assert "with 403 without an error code" in str(error)


def test_the_http_librarys_log_shows_no_signature(caplog: pytest.LogCaptureFixture):
    keep_signatures_out_of_logs()
    with caplog.at_level(logging.DEBUG, "urllib3.connectionpool"):
        logging.getLogger("urllib3.connectionpool").debug('"%s %s" %d', "GET", "/container?se=1&SIG=secret&sv=2", 200)
    assert caplog.messages == ['"GET /container?se=1&sig=***&sv=2" 200']


def test_the_longest_pause_between_two_attempts_is_a_quarter_of_a_minute():
    assert 7.5 <= _delay_seconds(20, None) <= 15


def test_a_connection_that_fell_silent_costs_half_of_the_wait_at_most():
    assert READ_TIMEOUT_SECONDS <= RETRY_SECONDS / 2

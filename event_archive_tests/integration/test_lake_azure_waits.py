"""A Blob service that is busy, slow or away is waited for, and no longer than was said."""

import base64
import re
import socket
import time
from typing import Any

import pytest
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from event_archive.errors import UnreachableError
from event_archive.lake.azure.container import AzureLake
from event_archive_tests.azurite import Azurite
from event_archive_tests.azurite.proxy import Fault, FaultyAzurite, request
from event_archive_tests.fixtures.blobs import lake_at, put, sas_connection_string
from event_archive_tests.fixtures.lakes import PATH, SMALL_BLOCK_BYTES, read
from event_archive_tests.fixtures.waiting import until


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_service_that_is_busy_for_a_moment_is_waited_for(faulty_azurite: FaultyAzurite, container: str, status: int):
    with lake_at(faulty_azurite.service, container) as lake:
        faulty_azurite.faults.append(Fault(request("HEAD"), status=status))
        assert lake.stat(PATH) is None
    assert not faulty_azurite.faults


def test_a_commit_rides_out_a_busy_service(faulty_azurite: FaultyAzurite, container: str):
    with lake_at(faulty_azurite.service, container) as lake:
        faulty_azurite.faults += [Fault(request("PUT", part), status=503) for part in ("comp=block&", "comp=blocklist")]
        assert read(lake, put(lake, b"x" * (2 * SMALL_BLOCK_BYTES))) == b"x" * (2 * SMALL_BLOCK_BYTES)
    assert not faulty_azurite.faults


def test_the_wait_that_the_service_asks_for_is_kept(faulty_azurite: FaultyAzurite, container: str):
    with lake_at(faulty_azurite.service, container) as lake:
        faulty_azurite.faults.append(Fault(request("HEAD"), status=429, headers={"Retry-After": "1"}))
        start = time.monotonic()
        assert lake.stat(PATH) is None
    assert 1 <= time.monotonic() - start < 5


def test_a_wait_that_cannot_be_read_is_as_long_as_ours(faulty_azurite: FaultyAzurite, container: str):
    with lake_at(faulty_azurite.service, container) as lake:
        faulty_azurite.faults.append(Fault(request("HEAD"), status=503, headers={"Retry-After": "soon"}))
        assert lake.stat(PATH) is None
    assert not faulty_azurite.faults


def test_a_longer_wait_than_ours_is_cut_short_by_a_last_attempt(faulty_azurite: FaultyAzurite, container: str):
    with lake_at(faulty_azurite.service, container, retry_seconds=0.5) as lake:
        faulty_azurite.faults.append(Fault(request("HEAD"), status=503, headers={"Retry-After": "3600"}))
        start = time.monotonic()
        assert lake.stat(PATH) is None
    assert 0.5 <= time.monotonic() - start < 5


def test_a_service_that_stays_busy_is_unreachable_in_bounded_time(faulty_azurite: FaultyAzurite, container: str):
    with lake_at(faulty_azurite.service, container, retry_seconds=1) as lake:
        faulty_azurite.faults += [Fault(request("PUT", "comp=block&"), status=503) for _ in range(100)]
        start = time.monotonic()
        with pytest.raises(UnreachableError, match=rf"{container}: .*503") as raised:
            put(lake, b"x")
    assert PATH not in str(raised.value)
    assert 1 <= time.monotonic() - start < 5
    attempts = [address for method, address in faulty_azurite.seen if "comp=block&" in address]
    assert 3 <= len(attempts) <= 10


def test_a_long_wait_is_told_of_once_and_without_the_signature(
    faulty_azurite: FaultyAzurite, container: str, caplog: pytest.LogCaptureFixture
):
    signed = sas_connection_string(faulty_azurite.service, container, "rcwl")
    faulty_azurite.faults.append(Fault(request("HEAD"), status=503, headers={"Retry-After": "1"}, again=True))
    with AzureLake.from_connection_string(signed, container, retry_seconds=6) as lake, pytest.raises(UnreachableError):
        lake.stat(PATH)
    (waited,) = [record.getMessage() for record in caplog.records if record.name.startswith("event_archive")]
    assert re.fullmatch(r"127\.0\.0\.1:\d+ does not answer well \(503\); it is asked again for up to [1-3] s", waited)


@pytest.mark.parametrize("answers", [False, True], ids=["refuses connections", "never answers"])
def test_where_no_service_is_the_wait_is_bounded(container: str, answers: bool):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        if answers:
            nobody.listen()
        service = Azurite("account", base64.b64encode(b"key").decode(), f"http://127.0.0.1:{nobody.getsockname()[1]}/a")
        with lake_at(service, container, retry_seconds=1) as lake:
            start = time.monotonic()
            with pytest.raises(UnreachableError, match=f"{container}: ") as raised:
                lake.stat(PATH)
    # The whole lake is away, whatever file was asked for.
    assert PATH not in str(raised.value)
    assert 1 <= time.monotonic() - start < 5
    assert answers or "Connection refused" in str(raised.value)
    assert raised.value.transient


def test_who_stops_reading_does_not_wait_for_a_busy_service(faulty_azurite: FaultyAzurite, container: str):
    with lake_at(faulty_azurite.service, container) as lake:
        file = put(lake, b"x" * (4 * SMALL_BLOCK_BYTES))
        asked = len(faulty_azurite.seen)
        with lake.read(file) as blocks:
            next(blocks)
            until(lambda: len(faulty_azurite.seen) == asked + 2)
            faulty_azurite.faults.append(Fault(request("GET"), status=503, again=True))
            next(blocks)
            until(lambda: len(faulty_azurite.seen) == asked + 3)
            start = time.monotonic()
    assert time.monotonic() - start < 5


def test_who_gives_up_an_upload_does_not_wait_for_a_busy_service(faulty_azurite: FaultyAzurite, container: str):
    with lake_at(faulty_azurite.service, container) as lake, lake.write(PATH, replaces=None) as upload:
        faulty_azurite.faults.append(Fault(request("PUT", "comp=block&"), status=503, again=True))
        upload.write(b"x" * SMALL_BLOCK_BYTES)
        until(lambda: any("comp=block&" in address for _, address in faulty_azurite.seen))
        start = time.monotonic()
    assert time.monotonic() - start < 5


def test_what_is_sent_has_a_minute_to_get_through(azurite: Azurite, container: str, monkeypatch: pytest.MonkeyPatch):
    seconds: dict[str, float] = {}
    send = HTTPAdapter.send

    def observed(adapter: HTTPAdapter, sent: PreparedRequest, **options: Any) -> Response:
        # While a request is sent, requests waits as long as for the connection.
        seconds[re.sub(r".*comp=(\w+).*", r"\1", str(sent.url))] = options["timeout"][0]
        return send(adapter, sent, **options)

    monkeypatch.setattr(HTTPAdapter, "send", observed)
    with lake_at(azurite, container, retry_seconds=100) as lake:
        put(lake, b"x")
    assert (seconds["block"], seconds["blocklist"]) == (60, 60)

"""Stores of log files that are busy, break off, stall or are not there: waited for, for a while, then gone on with.

The numbers in the comments are those of the hardest cases of an ingestion of log files.
"""

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from azure.storage.blob import ContainerClient

from event_archive.errors import RefusedError
from event_archive.sources.log_files import azure, s3, stores
from event_archive.sources.log_files.stores import Found, StoreAwayError
from event_archive_tests.azurite import Azurite
from event_archive_tests.azurite.proxy import Fault, FaultyAzurite, faulty
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.buckets import TestBucket
from event_archive_tests.fixtures.fake_time import FakeTime
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson

READ_TIMEOUT_SECONDS = 0.7
LARGE = 3000
"""Entries of a file that takes several pieces."""


@dataclass
class Store:
    """A store, seen through a line that breaks on demand."""

    name: str
    logs: Logs
    line: FaultyAzurite
    put: Callable[[str, bytes], None]

    def lists(self, _method: str, address: str) -> bool:
        return "list-type=2" in address or "comp=list" in address

    def reads(self, method: str, address: str) -> bool:
        return method == "GET" and not self.lists(method, address)

    def answer(self, status: int, code: str) -> dict[str, object]:
        """As the store refuses."""
        content = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        headers = {"x-ms-error-code": code, "content-type": "application/xml"}
        return {"status": status, "headers": headers, "content": content}

    @property
    def busy(self) -> dict[str, object]:
        return self.answer(503, "SlowDown" if self.name == "s3" else "ServerBusy")


@pytest.fixture(params=["s3", "azure"])
def store(request: pytest.FixtureRequest, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Each kind of store; what is waited for takes seconds."""
    monkeypatch.setattr(stores, "_AWAY_SECONDS", 0.5)
    monkeypatch.setattr(stores, "_FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(s3, "_READ_SECONDS", READ_TIMEOUT_SECONDS)
    monkeypatch.setattr(azure, "_RETRY_SECONDS", 1.0)
    monkeypatch.setattr(s3, "_RETRY_SECONDS", 1.0)
    monkeypatch.setattr(s3, "_FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr("event_archive.lake.azure.retry.READ_TIMEOUT_SECONDS", READ_TIMEOUT_SECONDS)
    if request.param == "s3":
        bucket: TestBucket = request.getfixturevalue("bucket")
        with faulty(Azurite("", "", bucket.endpoint)) as line:
            variables = bucket.variables | {"AWS_ENDPOINT": line.service.account_url}
            logs.variables = {name.lower(): value for name, value in variables.items()}
            yield Store("s3", logs, line, bucket.put)
        return
    azurite, container = request.getfixturevalue("azurite"), request.getfixturevalue("container")
    with (
        ContainerClient.from_connection_string(azurite.connection_string, container) as client,
        faulty(azurite) as line,
    ):
        client.create_container()

        def upload(key: str, content: bytes) -> None:
            client.upload_blob(key, content)

        logs.variables = {
            "logs_url": f"az://{container}",
            "azure_storage_connection_string": line.service.connection_string,
        }
        logs.variables = logs.settings().model_dump(include={*logs.variables})
        yield Store("azure", logs, line, upload)


def assert_all_is_there(store: Store, files: int) -> None:
    """Each file, at the first attempt."""
    assert store.line.faults == []
    assert store.logs.files("status, attempts, rows") == [("COMPLETED", 1, LARGE)] * files
    assert len(store.logs.rows()) == files * LARGE


def fill(store: Store, files: int) -> None:
    for number in range(files):
        store.put(f"{number}.json", array(*(entry(n, noise=hash((number, n))) for n in range(LARGE))))


# 15: a store that is busy, breaks off, stalls or has no name


def test_a_store_that_is_busy_is_asked_again(store: Store):
    fill(store, 2)
    store.line.faults += [Fault(store.lists, **store.busy), Fault(store.reads, **store.busy)]  # type: ignore[arg-type]
    store.line.faults += [Fault(store.reads, **store.answer(500, "InternalError"))]  # type: ignore[arg-type]
    store.logs.run()
    assert_all_is_there(store, 2)
    survived("faults: store of log files is busy")


@pytest.mark.parametrize("fraction", [0, 0.4, 0.99])
def test_a_connection_that_is_cut_in_the_body_is_gone_on_with(
    store: Store, fraction: float, monkeypatch: pytest.MonkeyPatch
):
    # Azure's SDK goes on by itself at first.
    monkeypatch.setattr(stores, "_AWAY_SECONDS", 10.0)
    fill(store, 1)
    store.line.faults += [Fault(store.reads, sent_fraction=fraction) for _ in range(3)]
    store.logs.run()
    assert_all_is_there(store, 1)
    survived("faults: store of log files breaks off")


def test_other_bytes_than_were_asked_for_are_not_taken(store: Store, monkeypatch: pytest.MonkeyPatch):
    """As a cache answers that keeps a part of a file, and does not look at which."""
    monkeypatch.setattr(stores, "_AWAY_SECONDS", 10.0)
    content = ndjson(*map(entry, range(LARGE)))
    store.put("0.json", content)
    middle, end = len(content) // 2, len(content)
    headers = {"Content-Range": f"bytes {middle}-{end - 1}/{end}", "x-ms-version": "2021-12-02"}
    store.line.faults += [
        Fault(store.reads, sent_fraction=0.4),
        Fault(store.reads, status=206, headers=headers, content=content[middle:]),
    ]
    store.logs.run()
    assert_all_is_there(store, 1)
    survived("faults: store of log files answers with other bytes")


@pytest.mark.parametrize("stall", [{"delay_seconds": 2.0}, {"sent_fraction": 0.5, "held_seconds": 2.0}])
def test_a_store_that_stalls_is_cut_off_and_gone_on_with(
    store: Store, stall: dict[str, float], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stores, "_AWAY_SECONDS", 10.0)
    monkeypatch.setattr(azure, "_RETRY_SECONDS", 10.0)
    fill(store, 1)
    store.line.faults += [Fault(store.lists, delay_seconds=2.0), Fault(store.reads, **stall)]  # type: ignore[arg-type]
    began = time.monotonic()
    store.logs.run()
    assert time.monotonic() - began < 10
    assert_all_is_there(store, 1)
    survived("faults: store of log files stalls")


def test_a_name_that_resolves_to_nothing_for_a_moment_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch):
    fill(store, 1)
    monkeypatch.setattr(stores, "_AWAY_SECONDS", 10.0)
    lookups, failing = [0], socket.getaddrinfo

    def away(*given: object, **options: object) -> object:
        lookups[0] += 1
        if lookups[0] in (2, 3):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return failing(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", away)
    store.line.faults += [Fault(store.reads, sent_fraction=0.5) for _ in range(2)]
    store.logs.run()
    assert lookups[0] > 3
    assert_all_is_there(store, 1)
    survived("faults: store of log files without a name")


GONE: dict[str, dict[str, object]] = {
    "busy": {},
    "cut off": {"sent_fraction": 0.0},
    "cut in the body": {"sent_fraction": 0.5},
    "stalled": {"delay_seconds": 60.0},
}


@pytest.mark.parametrize("how", GONE)
def test_a_store_that_is_gone_in_the_midst_ends_the_run_in_time_and_the_next_one_goes_on(store: Store, how: str):
    for number in range(5):
        store.put(f"{number}.log", ndjson(entry(number)))
    reads = iter(range(1000))

    def from_the_second_on(method: str, address: str) -> bool:
        return store.reads(method, address) and next(reads) > 0

    store.line.faults.append(Fault(from_the_second_on, again=True, **(GONE[how] or store.busy)))  # type: ignore[arg-type]
    began = time.monotonic()
    with pytest.raises(StoreAwayError, match=r"still answers 503|did not answer|bytes came"):
        store.logs.run()
    # Of three files.
    assert time.monotonic() - began < 30
    assert sorted(status for status, *_ in store.logs.files()) == ["COMPLETED", *["FAILED"] * 3, "PENDING"]
    store.line.faults.clear()
    store.logs.wait_no_more()
    assert store.logs.run().files == 4
    assert store.logs.rows() == [f"request {number}" for number in range(5)]
    survived("faults: store of log files gone for good")


@pytest.mark.parametrize("how", ["busy", "stalled"])
def test_a_store_that_cannot_be_listed_ends_the_run_in_time_with_no_file_failed(store: Store, how: str):
    store.put("a.log", ndjson(entry(1)))
    store.line.faults.append(Fault(store.lists, again=True, **(GONE[how] or store.busy)))  # type: ignore[arg-type]
    began = time.monotonic()
    with pytest.raises(StoreAwayError):
        store.logs.run()
    assert time.monotonic() - began < 20
    store.line.faults.clear()
    assert store.logs.run().files == 1
    survived("faults: store of log files gone for good")


# 14: access denied


def test_access_denied_to_one_file_fails_that_one_and_the_rest_goes_on(store: Store):
    for name in ("a.log", "b.log"):
        store.put(name, ndjson(entry(1)))
    denied = store.answer(403, "AccessDenied" if store.name == "s3" else "AuthorizationPermissionMismatch")
    store.line.faults.append(Fault(store.reads, **denied))  # type: ignore[arg-type]
    totals = store.logs.run()
    assert (totals.files, totals.failed) == (1, 1)
    said = str(totals.failures[0])
    assert ("s3:GetObject" if store.name == "s3" else "Storage Blob Data") in said
    assert said.count("a.log") == 1


def test_credentials_that_expire_in_the_midst_end_the_run_before_each_file_has_failed_for_it(store: Store):
    for number in range(5):
        store.put(f"{number}.log", ndjson(entry(number)))
    expired = store.answer(*((400, "ExpiredToken") if store.name == "s3" else (403, "AuthenticationFailed")))
    store.line.faults.append(Fault(store.reads, again=True, **expired))  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="expired"):
        store.logs.run()
    assert sorted(status for status, *_ in store.logs.files()) == ["FAILED"] * 3 + ["PENDING"] * 2


def test_a_pause_of_the_reader_is_no_absence_of_the_store():
    def read_from(offset: int) -> Iterator[bytes]:
        yield b"abcdef"[offset : offset + 2]
        raise StoreAwayError("The connection was idle for too long.")

    found = Found("a.log", "1", 6, datetime.now(UTC))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "_FIRST_WAIT_SECONDS", 0.0)
        patch.setattr(stores, "time", (clock := FakeTime()))
        with stores.resumed(read_from, found) as pieces:
            for expected in (b"ab", b"cd", b"ef"):
                assert next(pieces) == expected
                clock.now += 60


def test_access_denied_to_the_bucket_ends_the_run_at_once(store: Store):
    store.put("a.log", ndjson(entry(1)))
    denied = store.answer(403, "AccessDenied" if store.name == "s3" else "AuthorizationPermissionMismatch")
    store.line.faults.append(Fault(store.lists, again=True, **denied))  # type: ignore[arg-type]
    with pytest.raises(RefusedError):
        store.logs.run()
    assert len(store.line.seen) == 1

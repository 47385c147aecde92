"""What only the Blob service can do to a lake: foreign blobs, lost answers, throttling, refusals, secrets in errors."""

import base64
import hashlib
import logging
import re
import secrets
import socket
import subprocess
import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core.credentials import AccessToken, AzureNamedKeyCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.storage.blob import (
    BlobBlock,
    BlobClient,
    ContainerClient,
    ContainerSasPermissions,
    ContentSettings,
    generate_container_sas,
)
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from event_archive.errors import ConfigurationError, FileChangedError, RefusedError, UnreachableError
from event_archive.lake.azure.container import AzureLake
from event_archive.lake.azure.errors import Subject
from event_archive.lake.azure.upload import MAX_APPENDABLE_BLOCKS, MAX_BLOCKS, BlockUpload, are_ours
from event_archive.lake.protocol import CONTENT_TYPE, StoredFile
from event_archive_tests.azurite import Azurite
from event_archive_tests.azurite.proxy import Fault, FaultyAzurite, faulty, request
from event_archive_tests.fixtures.lakes import SMALL_BLOCK_BYTES
from event_archive_tests.fixtures.servers import answering
from event_archive_tests.fixtures.waiting import until

PATH = "events/events_2024-03-01.csv"


def put(lake: AzureLake, content: bytes, replaces: StoredFile | None = None, *, append: bool = False) -> StoredFile:
    with lake.write(PATH, replaces=replaces, append=append) as upload:
        upload.write(content)
        return upload.commit({"rows": "1"})


def read(lake: AzureLake, file: StoredFile) -> bytes:
    with lake.read(file) as blocks:
        return b"".join(blocks)


def stat(lake: AzureLake) -> StoredFile:
    file = lake.stat(PATH)
    assert file is not None
    return file


def everything_said(error: BaseException) -> str:
    """All that any handler could show of an error: its traceback, and what hangs behind it though not displayed."""
    said = "".join(traceback.format_exception(error))
    behind: BaseException | None = error
    while behind is not None:
        said += repr(behind) + str(behind) + repr(vars(behind))
        behind = behind.__cause__ or behind.__context__
    return said


@pytest.fixture
def client(azurite: Azurite, container: str) -> Iterator[ContainerClient]:
    """The SDK itself, as another tool would use it, on a container that exists."""
    with ContainerClient.from_connection_string(azurite.connection_string, container) as client:
        client.create_container()
        yield client


@pytest.fixture
def blob(client: ContainerClient) -> BlobClient:
    """The blob where the lake's file lies."""
    return client.get_blob_client(PATH)


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultyAzurite]:
    """Azurite, misbehaving on demand."""
    with faulty(azurite) as proxy:
        yield proxy


@contextmanager
def lake_at(service: Azurite, container: str, *, retry_seconds: float = 10) -> Iterator[AzureLake]:
    with AzureLake.from_connection_string(
        service.connection_string, container, block_bytes=SMALL_BLOCK_BYTES, retry_seconds=retry_seconds
    ) as lake:
        yield lake


def sas_connection_string(azurite: Azurite, container: str, permission: str) -> str:
    signature = generate_container_sas(
        azurite.account_name,
        container,
        account_key=azurite.account_key,
        permission=ContainerSasPermissions.from_string(permission),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    return f"BlobEndpoint={azurite.account_url};SharedAccessSignature={signature}"


def signature_of(connection_string: str) -> str:
    return connection_string.split("sig=")[1].split("&")[0]


# Blobs of ours and of others


def test_every_commit_sets_the_content_type_and_leaves_no_stale_md5(azure_lake: AzureLake, blob: BlobClient):
    first = put(azure_lake, b"1\n" * SMALL_BLOCK_BYTES)
    settings = blob.get_blob_properties().content_settings
    assert settings.content_type == CONTENT_TYPE
    blob.set_http_headers(ContentSettings(content_md5=bytearray(hashlib.md5(b"of another content").digest())))
    first = stat(azure_lake)

    put(azure_lake, b"2\n", first, append=True)
    settings = blob.get_blob_properties().content_settings
    assert settings.content_type == CONTENT_TYPE
    assert settings.content_md5 is None


def test_block_ids_are_of_one_length_and_within_azures_limit(azure_lake: AzureLake, blob: BlobClient):
    first = put(azure_lake, b"x" * (3 * SMALL_BLOCK_BYTES + 1))
    put(azure_lake, b"y" * SMALL_BLOCK_BYTES, first, append=True)
    blocks = blob.get_block_list("all")
    assert [block.size for block in blocks[0]] == [SMALL_BLOCK_BYTES] * 2 + [SMALL_BLOCK_BYTES + 1, SMALL_BLOCK_BYTES]
    assert blocks[1] == []
    ids = [block.id for block in blocks[0]]
    assert len(set(ids)) == 4
    assert len({len(block_id) for block_id in ids}) == 1
    assert len(ids[0]) <= 64


def test_a_container_that_is_known_to_be_there_is_not_asked_for(
    proxy: FaultyAzurite, container: str, client: ContainerClient
):
    with lake_at(proxy.service, container) as lake:
        assert lake.stat(PATH) is None
        put(lake, b"x")
    assert [method for method, _ in proxy.seen] == ["HEAD", "PUT", "PUT"]
    assert not [address for _, address in proxy.seen if "restype=container" in address]


def test_a_file_of_another_tool_is_not_appendable_but_replaceable(azure_lake: AzureLake, blob: BlobClient):
    blob.upload_blob(b"old tool")
    file = stat(azure_lake)
    assert not azure_lake.appendable(file)
    with pytest.raises(FileChangedError, match="other blocks"):
        put(azure_lake, b"new", file, append=True)
    assert read(azure_lake, file) == b"old tool"
    replaced = put(azure_lake, b"new", file)
    assert azure_lake.appendable(replaced)
    assert stat(azure_lake) == replaced


def test_a_file_of_foreign_blocks_is_not_appendable_but_replaceable(azure_lake: AzureLake, blob: BlobClient):
    blob.stage_block("0001", b"foreign")
    blob.commit_block_list([BlobBlock("0001")], metadata={"Mixed": "x"})
    file = stat(azure_lake)
    assert not azure_lake.appendable(file)
    assert file.metadata == {"mixed": "x"}
    assert azure_lake.appendable(put(azure_lake, b"new", file))


def test_a_file_overwritten_whole_after_our_blocks_is_not_appendable(azure_lake: AzureLake, blob: BlobClient):
    put(azure_lake, b"ours")
    blob.upload_blob(b"ours", overwrite=True)
    assert not azure_lake.appendable(stat(azure_lake))


def test_an_append_blob_is_neither_appendable_nor_replaceable_and_is_to_be_copied_before_it_is_deleted(
    azure_lake: AzureLake, blob: BlobClient
):
    """A tool that copied the container may have made an append blob of what was archived."""
    blob.create_append_blob()
    file = stat(azure_lake)
    words = "another kind.* may hold archived rows: copy it elsewhere, delete it, and copy it back as a block blob"
    with pytest.raises(RefusedError, match=words):
        azure_lake.appendable(file)
    with pytest.raises(RefusedError, match=words):
        put(azure_lake, b"new", file)


def test_a_row_far_longer_than_a_block_is_cut_up_without_a_copy_of_it(azure_lake: AzureLake, blob: BlobClient):
    row = secrets.token_bytes(200 * SMALL_BLOCK_BYTES)
    with azure_lake.write(PATH, replaces=None) as upload:
        upload.write(b"before")
        tracemalloc.start()
        upload.write(row)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        upload.write(b"after")
        file = upload.commit({})
    assert peak < len(row) / 2
    assert read(azure_lake, file) == b"before" + row + b"after"
    sizes = {block.size for block in blob.get_block_list("all")[0]}
    assert max(sizes) < 2 * SMALL_BLOCK_BYTES


def test_too_many_blocks_are_not_appendable():
    block = BlobBlock(f"event-archive-{'0' * 32}-00000")
    block.size = 1
    assert are_ours([block] * MAX_APPENDABLE_BLOCKS, MAX_APPENDABLE_BLOCKS)
    assert not are_ours([block] * (MAX_APPENDABLE_BLOCKS + 1), MAX_APPENDABLE_BLOCKS + 1)
    assert not are_ours([block], 2)


def test_more_blocks_than_azure_takes_are_refused_before_they_are_sent(azure_lake: AzureLake, client: ContainerClient):
    blob = azure_lake._blob(PATH)
    with BlockUpload(
        blob, PATH, Subject("archive", PATH), replaces=None, committed=["x"] * (MAX_BLOCKS - 1), block_bytes=2
    ) as upload:
        upload.write(b"12")
        with pytest.raises(RefusedError, match="50000 blocks"):
            upload.write(b"34")


def test_a_file_that_is_stored_compressed_is_read_as_it_is_stored(azure_lake: AzureLake, blob: BlobClient):
    blob.upload_blob(b"not really gzip", content_settings=ContentSettings(content_encoding="gzip"))
    assert read(azure_lake, stat(azure_lake)) == b"not really gzip"


def test_a_marked_folder_is_no_file(azure_lake: AzureLake, client: ContainerClient):
    client.upload_blob("events/sub", b"", metadata={"hdi_isfolder": "true"})
    assert list(azure_lake.list("events")) == []
    with pytest.raises(RefusedError, match="is a folder"):
        azure_lake.stat("events/sub")


def test_blocks_that_another_commit_dropped_fail_ours(azure_lake: AzureLake, blob: BlobClient):
    with azure_lake.write(PATH, replaces=None) as upload:
        upload.write(b"x" * (3 * SMALL_BLOCK_BYTES))
        put(azure_lake, b"faster")
        blob.delete_blob()
        with pytest.raises(FileChangedError, match="InvalidBlockList"):
            upload.commit({})
    assert azure_lake.stat(PATH) is None


def test_a_file_in_the_archive_tier_is_refused_until_it_is_rehydrated(azure_lake: AzureLake, blob: BlobClient):
    put(azure_lake, b"cold")
    blob.set_standard_blob_tier("Archive")
    file = stat(azure_lake)
    with pytest.raises(RefusedError, match=rf"{PATH}.*archive tier. Rehydrate it"):
        read(azure_lake, file)


def test_a_leased_file_is_refused(azure_lake: AzureLake, blob: BlobClient):
    file = put(azure_lake, b"leased")
    lease = blob.acquire_lease()
    with pytest.raises(RefusedError, match=r"LeaseIdMissing.*lease"):
        put(azure_lake, b"new", file)
    lease.release()


# A service that loses, cuts and refuses answers


@pytest.mark.parametrize("kind", ["new", "replacement", "append", "empty"])
def test_a_commit_whose_answer_was_lost_is_recognised(proxy: FaultyAzurite, container: str, kind: str):
    with lake_at(proxy.service, container) as lake:
        before = put(lake, b"before") if kind in {"replacement", "append"} else None
        proxy.faults.append(Fault(request("PUT", "comp=blocklist"), sent_fraction=0))
        file = put(lake, b"" if kind == "empty" else b"content", before, append=kind == "append")
        assert file == stat(lake)
        expected = {"new": b"content", "replacement": b"content", "append": b"beforecontent", "empty": b""}
        assert read(lake, file) == expected[kind]
    assert not proxy.faults


@pytest.mark.parametrize(
    ("content", "rows"), [(b"ours", "1"), (b"", "2")], ids=["told by its blocks", "told by its metadata"]
)
def test_a_commit_that_lost_its_answer_and_then_the_race_has_lost(
    proxy: FaultyAzurite, container: str, content: bytes, rows: str
):
    with lake_at(proxy.service, container) as lake, lake.write(PATH, replaces=None) as upload:
        upload.write(content)
        faster = put(lake, content)
        proxy.faults.append(Fault(request("PUT", "comp=blocklist"), sent_fraction=0))
        with pytest.raises(FileChangedError):
            upload.commit({"rows": rows})
        assert stat(lake) == faster


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_service_that_is_busy_for_a_moment_is_waited_for(proxy: FaultyAzurite, container: str, status: int):
    with lake_at(proxy.service, container) as lake:
        proxy.faults.append(Fault(request("HEAD"), status=status))
        assert lake.stat(PATH) is None
    assert not proxy.faults


def test_a_commit_rides_out_a_busy_service(proxy: FaultyAzurite, container: str):
    with lake_at(proxy.service, container) as lake:
        proxy.faults += [Fault(request("PUT", part), status=503) for part in ("comp=block&", "comp=blocklist")]
        assert read(lake, put(lake, b"x" * (2 * SMALL_BLOCK_BYTES))) == b"x" * (2 * SMALL_BLOCK_BYTES)
    assert not proxy.faults


def test_a_block_that_changes_on_its_way_is_sent_again(proxy: FaultyAzurite, container: str):
    with lake_at(proxy.service, container) as lake:
        first = put(lake, b"good")
        proxy.faults.append(Fault(request("PUT", "comp=block&"), altered=lambda body: body.replace(b"e", b"E")))
        assert read(lake, put(lake, b"better", replaces=first)) == b"better"
    assert not proxy.faults


@pytest.mark.parametrize("append", [False, True])
def test_where_every_block_changes_on_its_way_the_file_stays_as_it_was(
    proxy: FaultyAzurite, container: str, *, append: bool
):
    with lake_at(proxy.service, container, retry_seconds=5) as lake:
        first = put(lake, b"good")
        proxy.faults.append(
            Fault(request("PUT", "comp=block&"), altered=lambda body: body.replace(b"e", b"E"), again=True)
        )
        with pytest.raises(UnreachableError, match="still answers 400 Md5Mismatch"):
            put(lake, b"better", replaces=first, append=append)
        assert read(lake, first) == b"good"


def test_a_cache_on_the_way_gives_no_former_version(proxy: FaultyAzurite, azurite: Azurite, container: str):
    """As it may of addresses with a signature, which no header of theirs makes private."""
    proxy.caches = True
    with lake_at(proxy.service, container) as cached, lake_at(azurite, container) as other:
        first = put(cached, b"former")
        assert read(cached, stat(cached)) == b"former"
        put(other, b"latest", replaces=first)
        assert proxy.kept
        assert read(cached, stat(cached)) == b"latest"


@pytest.mark.parametrize(
    "kept", [{"ETag": '"0x8D"'}, {"Content-Range": "bytes 4-9/10"}], ids=["another version", "other bytes"]
)
def test_what_a_cache_kept_of_another_request_is_not_taken(proxy: FaultyAzurite, container: str, kept: dict[str, str]):
    with lake_at(proxy.service, container) as lake:
        file = put(lake, b"latest")
        headers = {"ETag": file.etag, "Content-Range": "bytes 0-5/6", "x-ms-version": "2021-12-02"} | kept
        proxy.faults.append(Fault(request("GET"), status=206, headers=headers, content=b"former"))
        assert read(lake, file) == b"latest"
    assert not proxy.faults


@pytest.mark.parametrize(
    ("asked", "lost"),
    [
        (request("HEAD"), "etag"),
        (request("HEAD"), "content-length"),
        (request("PUT", "comp=blocklist"), "etag"),
        (request("GET"), "etag"),
        (request("GET"), "content-range"),
    ],
)
def test_an_answer_that_lost_a_header_on_the_way_is_none(
    proxy: FaultyAzurite, container: str, asked: Callable[[str, str], bool], lost: str
):
    with lake_at(proxy.service, container) as lake:
        first = put(lake, b"first")
        proxy.faults.append(Fault(asked, dropped=(lost,)))
        found = stat(lake)
        assert found == first
        file = put(lake, b"second", replaces=found)
        assert file.etag != first.etag
        assert stat(lake) == file
        assert read(lake, file) == b"second"
    assert not proxy.faults


def test_the_wait_that_the_service_asks_for_is_kept(proxy: FaultyAzurite, container: str):
    with lake_at(proxy.service, container) as lake:
        proxy.faults.append(Fault(request("HEAD"), status=429, headers={"Retry-After": "1"}))
        start = time.monotonic()
        assert lake.stat(PATH) is None
    assert 1 <= time.monotonic() - start < 5


def test_a_wait_that_cannot_be_read_is_as_long_as_ours(proxy: FaultyAzurite, container: str):
    with lake_at(proxy.service, container) as lake:
        proxy.faults.append(Fault(request("HEAD"), status=503, headers={"Retry-After": "soon"}))
        assert lake.stat(PATH) is None
    assert not proxy.faults


def test_a_longer_wait_than_ours_is_cut_short_by_a_last_attempt(proxy: FaultyAzurite, container: str):
    with lake_at(proxy.service, container, retry_seconds=0.5) as lake:
        proxy.faults.append(Fault(request("HEAD"), status=503, headers={"Retry-After": "3600"}))
        start = time.monotonic()
        assert lake.stat(PATH) is None
    assert 0.5 <= time.monotonic() - start < 5


def test_a_service_that_stays_busy_is_unreachable_in_bounded_time(proxy: FaultyAzurite, container: str):
    with lake_at(proxy.service, container, retry_seconds=1) as lake:
        proxy.faults += [Fault(request("PUT", "comp=block&"), status=503) for _ in range(100)]
        start = time.monotonic()
        with pytest.raises(UnreachableError, match=rf"{container}: .*503") as raised:
            put(lake, b"x")
    assert PATH not in str(raised.value)
    assert 1 <= time.monotonic() - start < 5
    attempts = [address for method, address in proxy.seen if "comp=block&" in address]
    assert 3 <= len(attempts) <= 10


def test_a_long_wait_is_told_of_once_and_without_the_signature(
    proxy: FaultyAzurite, container: str, caplog: pytest.LogCaptureFixture
):
    signed = sas_connection_string(proxy.service, container, "rcwl")
    proxy.faults.append(Fault(request("HEAD"), status=503, headers={"Retry-After": "1"}, again=True))
    with AzureLake.from_connection_string(signed, container, retry_seconds=6) as lake, pytest.raises(UnreachableError):
        lake.stat(PATH)
    (waited,) = [record.getMessage() for record in caplog.records if record.name.startswith("event_archive")]
    assert re.fullmatch(r"127\.0\.0\.1:\d+ does not answer \(503\); it is asked again for up to [1-3] s", waited)


def test_a_block_that_is_refused_fails_the_upload_at_the_next_write(proxy: FaultyAzurite, container: str):
    with lake_at(proxy.service, container) as lake, lake.write(PATH, replaces=None) as upload:
        proxy.faults.append(Fault(request("PUT", "comp=block&"), status=403))
        upload.write(b"x" * SMALL_BLOCK_BYTES)
        assert upload._in_flight[0].exception()
        # The one who waits for it is told first, and the upload right after.
        until(lambda: upload._stage_at_bytes == 0)
        with pytest.raises(RefusedError, match=PATH):
            upload.write(b"y")


def test_a_download_that_breaks_off_is_taken_up_again(proxy: FaultyAzurite, container: str):
    content = secrets.token_bytes(3 * SMALL_BLOCK_BYTES)
    with lake_at(proxy.service, container) as lake:
        file = put(lake, content)
        proxy.faults.append(Fault(request("GET"), sent_fraction=0.5))
        assert read(lake, file) == content
    assert not proxy.faults


def test_a_download_that_keeps_breaking_off_never_looks_complete(proxy: FaultyAzurite, container: str):
    with lake_at(proxy.service, container, retry_seconds=1) as lake:
        file = put(lake, b"x" * SMALL_BLOCK_BYTES)
        proxy.faults += [Fault(request("GET"), sent_fraction=0.5) for _ in range(100)]
        with pytest.raises(UnreachableError, match=f"{container}: .*broke off"):
            read(lake, file)


def test_the_attempts_of_a_range_that_breaks_off_share_one_wait(proxy: FaultyAzurite, container: str):
    busy = Fault(request("GET"), status=503, headers={"Retry-After": "1"})
    with lake_at(proxy.service, container, retry_seconds=1.5) as lake:
        file = put(lake, b"x" * SMALL_BLOCK_BYTES)
        proxy.faults += [busy, Fault(request("GET"), sent_fraction=0.5), replace(busy, again=True)]
        with pytest.raises(UnreachableError):
            read(lake, file)
    assert len([method for method, _ in proxy.seen if method == "GET"]) <= 4


def test_a_file_that_is_shorter_than_it_was_said_to_be_never_looks_complete(azure_lake: AzureLake):
    file = put(azure_lake, b"x" * (SMALL_BLOCK_BYTES - 1))
    with pytest.raises(UnreachableError, match=rf"{SMALL_BLOCK_BYTES - 1} of {SMALL_BLOCK_BYTES} bytes"):
        read(azure_lake, replace(file, size_bytes=SMALL_BLOCK_BYTES))


def test_a_file_removed_while_it_is_read_is_a_changed_file(azure_lake: AzureLake, blob: BlobClient):
    file = put(azure_lake, b"x" * (20 * SMALL_BLOCK_BYTES))
    with azure_lake.read(file) as blocks:
        next(blocks)
        blob.delete_blob()
        with pytest.raises(FileChangedError):
            list(blocks)


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


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("body", [b"", b"<html><body>log in</body></html>"])
def test_what_somebody_else_answers_is_no_answer(container: str, body: bytes, status: int):
    words = "did not answer, or broke off .what answers is no Blob service.. Check the address"
    calls: list[Callable[[AzureLake], object]] = [
        lambda lake: lake.stat(PATH), lambda lake: list(lake.list("events")), lambda lake: put(lake, b"x")
    ]  # fmt: skip
    with answering(body, status) as url:
        service = Azurite("account", base64.b64encode(b"key").decode(), f"{url}/a")
        with lake_at(service, container, retry_seconds=0.1) as lake:
            for call in calls:
                with pytest.raises(UnreachableError, match=words):
                    call(lake)


def test_who_stops_reading_does_not_wait_for_a_busy_service(proxy: FaultyAzurite, container: str):
    with lake_at(proxy.service, container) as lake:
        file = put(lake, b"x" * (4 * SMALL_BLOCK_BYTES))
        asked = len(proxy.seen)
        with lake.read(file) as blocks:
            next(blocks)
            until(lambda: len(proxy.seen) == asked + 2)
            proxy.faults.append(Fault(request("GET"), status=503, again=True))
            next(blocks)
            until(lambda: len(proxy.seen) == asked + 3)
            start = time.monotonic()
    assert time.monotonic() - start < 5


def test_who_gives_up_an_upload_does_not_wait_for_a_busy_service(proxy: FaultyAzurite, container: str):
    with lake_at(proxy.service, container) as lake, lake.write(PATH, replaces=None) as upload:
        proxy.faults.append(Fault(request("PUT", "comp=block&"), status=503, again=True))
        upload.write(b"x" * SMALL_BLOCK_BYTES)
        until(lambda: any("comp=block&" in address for _, address in proxy.seen))
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


# Refusals, and secrets


def test_a_wrong_key_is_refused_and_not_shown(
    azurite: Azurite, client: ContainerClient, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    wrong = base64.b64encode(secrets.token_bytes(32)).decode()
    with lake_at(Azurite(azurite.account_name, wrong, azurite.account_url), client.container_name) as lake:
        for attempt in (lambda: lake.stat(PATH), lambda: put(lake, b"x"), lambda: list(lake.list("events"))):
            with pytest.raises(RefusedError, match=r"403.*key") as raised:
                attempt()
            assert wrong not in everything_said(raised.value)
    assert wrong not in caplog.text


def test_a_key_that_is_not_base64_is_refused_and_not_shown(azurite: Azurite, container: str):
    with (
        lake_at(Azurite(azurite.account_name, "n0tBase64", azurite.account_url), container) as lake,
        pytest.raises(RefusedError, match="account key is complete") as raised,
    ):
        lake.stat(PATH)
    assert "n0tBase64" not in everything_said(raised.value)


def test_a_signature_for_the_container_suffices_and_is_not_shown(
    azurite: Azurite, client: ContainerClient, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    connection_string = sas_connection_string(azurite, client.container_name, "rcwl")
    signature = signature_of(connection_string)
    with AzureLake.from_connection_string(
        connection_string, client.container_name, block_bytes=SMALL_BLOCK_BYTES
    ) as lake:
        file = put(lake, b"1\n" * SMALL_BLOCK_BYTES)
        file = put(lake, b"2\n", file, append=True)
        assert read(lake, file) == b"1\n" * SMALL_BLOCK_BYTES + b"2\n"
        assert [found.path for found in lake.list("events")] == [PATH]
        assert lake.url(PATH) == f"{azurite.account_url}/{client.container_name}/{PATH}"
    assert "/events/" in caplog.text
    assert signature not in caplog.text


def test_a_signature_that_may_not_write_is_refused_and_not_shown(azurite: Azurite, client: ContainerClient):
    connection_string = sas_connection_string(azurite, client.container_name, "rl")
    with AzureLake.from_connection_string(connection_string, client.container_name) as lake:
        assert lake.stat(PATH) is None
        with pytest.raises(RefusedError, match=rf"{PATH} in .*{client.container_name}.*403 Authoriz.*rcwl") as raised:
            put(lake, b"x")
    assert signature_of(connection_string) not in everything_said(raised.value)


def test_a_signature_is_not_shown_where_no_service_is(azurite: Azurite, container: str):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/{azurite.account_name}"
        service = Azurite(azurite.account_name, azurite.account_key, url)
        connection_string = sas_connection_string(service, container, "rcwl")
        with AzureLake.from_connection_string(connection_string, container, retry_seconds=0.1) as lake:
            for attempt in (lambda: lake.stat(PATH), lambda: put(lake, b"x"), lambda: list(lake.list("events"))):
                with pytest.raises(UnreachableError) as raised:
                    attempt()
                assert "sig=" not in everything_said(raised.value)


def test_a_missing_container_holds_no_files_and_is_created_by_the_first_write(azure_lake: AzureLake):
    assert azure_lake.stat(PATH) is None
    assert list(azure_lake.list("")) == []
    absent = StoredFile(PATH, 1, '"0x1"', {}, datetime.now(UTC))
    with pytest.raises(FileChangedError):
        read(azure_lake, absent)
    assert put(azure_lake, b"x") == stat(azure_lake)


def test_a_missing_container_that_may_not_be_created_is_refused(azurite: Azurite, container: str):
    connection_string = sas_connection_string(azurite, container, "rcwl")
    with AzureLake.from_connection_string(connection_string, container) as lake:
        assert lake.stat(PATH) is None
        with pytest.raises(RefusedError, match=rf"{container}.*ContainerNotFound. Create the container"):
            put(lake, b"x")


def test_a_container_that_cannot_be_created_is_told_by_that(proxy: FaultyAzurite, container: str):
    """Not by what a block that is sent all the same is refused with."""
    proxy.faults.append(Fault(request("PUT", "restype=container"), status=400))
    with lake_at(proxy.service, container) as lake, pytest.raises(RefusedError, match=f"{container}: .*400"):
        put(lake, b"x")
    assert not [address for _, address in proxy.seen if "comp=block" in address]


@pytest.mark.parametrize(
    "connection_string",
    [
        "",
        "s3cret",
        "AccountName=x",
        "AccountName=x;AccountKey",
        "AccountKey=s3cret",
        "DefaultEndpointsProtocol=https;AccountName=x;EndpointSuffix=core.windows.net",
        "BlobEndpoint=https://x.blob.core.windows.net",
        "BlobEndpoint=http://[s3cret;SharedAccessSignature=sig=s3cret",
        "https://x.blob.core.windows.net/?sig=s3cret",
    ],
)
def test_a_malformed_connection_string_is_said_so_and_not_shown(connection_string: str):
    with pytest.raises(ConfigurationError, match="connection string is malformed") as raised:
        AzureLake.from_connection_string(connection_string, "archive")
    assert "s3cret" not in everything_said(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x.blob.core.windows.net",
        "https://",
        "https://x.blob.core.windows.net/?sig=s3cret",
        "https://x:s3cret@x.blob.core.windows.net",
    ],
)
def test_a_malformed_account_url_is_said_so_and_not_shown(url: str):
    with pytest.raises(ConfigurationError, match="like https://ACCOUNT") as raised:
        AzureLake.from_account_url(url, "archive")
    assert "s3cret" not in everything_said(raised.value)


def test_an_account_url_with_a_credential_is_a_lake(azurite: Azurite, container: str):
    credential = AzureNamedKeyCredential(azurite.account_name, azurite.account_key)
    with AzureLake.from_account_url(azurite.account_url, container, credential) as lake:
        assert read(lake, put(lake, b"x")) == b"x"


def test_an_account_url_alone_means_the_environments_identity():
    with AzureLake.from_account_url("https://account.blob.core.windows.net", "archive") as lake:
        assert lake.url(PATH) == f"https://account.blob.core.windows.net/archive/{PATH}"


def test_an_identity_that_gets_no_token_is_refused():
    class NoIdentity:
        def get_token(self, *scopes: str, **options: object) -> AccessToken:
            raise ClientAuthenticationError("AADSTS700016: application s3cret not found")

    with (
        AzureLake.from_account_url("https://account.blob.core.windows.net", "archive", NoIdentity()) as lake,
        pytest.raises(RefusedError, match=r"AADSTS700016.*Entra ID identity") as raised,
    ):
        lake.stat(PATH)
    assert "s3cret" not in everything_said(raised.value)


def test_azure_is_imported_only_where_it_is_used():
    code = "import sys, event_archive.lake.protocol, event_archive.lake.local.folder; sys.exit('azure' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import sys, event_archive.lake.azure.container; sys.exit('azure.identity' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

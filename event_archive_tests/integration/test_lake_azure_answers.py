"""Answers of the Blob service that are lost, altered, cut short or somebody else's: found out, and never believed."""

import base64
import secrets
from collections.abc import Callable
from dataclasses import replace

import pytest
from azure.storage.blob import BlobClient

from event_archive.errors import FileChangedError, RefusedError, UnreachableError
from event_archive.lake.azure.container import AzureLake
from event_archive_tests.azurite import Azurite
from event_archive_tests.azurite.proxy import Fault, FaultyAzurite, request
from event_archive_tests.fixtures.blobs import lake_at, put
from event_archive_tests.fixtures.lakes import PATH, SMALL_BLOCK_BYTES, read, stat
from event_archive_tests.fixtures.servers import answering
from event_archive_tests.fixtures.waiting import until

# A service that loses, cuts and refuses answers


@pytest.mark.parametrize("kind", ["new", "replacement", "append", "empty"])
def test_a_commit_whose_answer_was_lost_is_recognised(faulty_azurite: FaultyAzurite, container: str, kind: str):
    with lake_at(faulty_azurite.service, container) as lake:
        before = put(lake, b"before") if kind in {"replacement", "append"} else None
        faulty_azurite.faults.append(Fault(request("PUT", "comp=blocklist"), sent_fraction=0))
        file = put(lake, b"" if kind == "empty" else b"content", before, append=kind == "append")
        assert file == stat(lake)
        expected = {"new": b"content", "replacement": b"content", "append": b"beforecontent", "empty": b""}
        assert read(lake, file) == expected[kind]
    assert not faulty_azurite.faults


@pytest.mark.parametrize(
    ("content", "rows"), [(b"ours", "1"), (b"", "2")], ids=["told by its blocks", "told by its metadata"]
)
def test_a_commit_that_lost_its_answer_and_then_the_race_has_lost(
    faulty_azurite: FaultyAzurite, container: str, content: bytes, rows: str
):
    with lake_at(faulty_azurite.service, container) as lake, lake.write(PATH, replaces=None) as upload:
        upload.write(content)
        faster = put(lake, content)
        faulty_azurite.faults.append(Fault(request("PUT", "comp=blocklist"), sent_fraction=0))
        with pytest.raises(FileChangedError):
            upload.commit({"rows": rows})
        assert stat(lake) == faster


def test_a_block_that_changes_on_its_way_is_sent_again(faulty_azurite: FaultyAzurite, container: str):
    with lake_at(faulty_azurite.service, container) as lake:
        first = put(lake, b"good")
        faulty_azurite.faults.append(
            Fault(request("PUT", "comp=block&"), altered=lambda body: body.replace(b"e", b"E"))
        )
        assert read(lake, put(lake, b"better", replaces=first)) == b"better"
    assert not faulty_azurite.faults


@pytest.mark.parametrize("append", [False, True])
def test_where_every_block_changes_on_its_way_the_file_stays_as_it_was(
    faulty_azurite: FaultyAzurite, container: str, *, append: bool
):
    with lake_at(faulty_azurite.service, container, retry_seconds=5) as lake:
        first = put(lake, b"good")
        faulty_azurite.faults.append(
            Fault(request("PUT", "comp=block&"), altered=lambda body: body.replace(b"e", b"E"), again=True)
        )
        with pytest.raises(UnreachableError, match="still answers 400 Md5Mismatch"):
            put(lake, b"better", replaces=first, append=append)
        assert read(lake, first) == b"good"


def test_a_cache_on_the_way_gives_no_former_version(faulty_azurite: FaultyAzurite, azurite: Azurite, container: str):
    """As it may of addresses with a signature, which no header of theirs makes private."""
    faulty_azurite.caches = True
    with lake_at(faulty_azurite.service, container) as cached, lake_at(azurite, container) as other:
        first = put(cached, b"former")
        assert read(cached, stat(cached)) == b"former"
        put(other, b"latest", replaces=first)
        assert faulty_azurite.kept
        assert read(cached, stat(cached)) == b"latest"


@pytest.mark.parametrize(
    "kept", [{"ETag": '"0x8D"'}, {"Content-Range": "bytes 4-9/10"}], ids=["another version", "other bytes"]
)
def test_what_a_cache_kept_of_another_request_is_not_taken(
    faulty_azurite: FaultyAzurite, container: str, kept: dict[str, str]
):
    with lake_at(faulty_azurite.service, container) as lake:
        file = put(lake, b"latest")
        headers = {"ETag": file.etag, "Content-Range": "bytes 0-5/6", "x-ms-version": "2021-12-02"} | kept
        faulty_azurite.faults.append(Fault(request("GET"), status=206, headers=headers, content=b"former"))
        assert read(lake, file) == b"latest"
    assert not faulty_azurite.faults


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
    faulty_azurite: FaultyAzurite, container: str, asked: Callable[[str, str], bool], lost: str
):
    with lake_at(faulty_azurite.service, container) as lake:
        first = put(lake, b"first")
        faulty_azurite.faults.append(Fault(asked, dropped=(lost,)))
        found = stat(lake)
        assert found == first
        file = put(lake, b"second", replaces=found)
        assert file.etag != first.etag
        assert stat(lake) == file
        assert read(lake, file) == b"second"
    assert not faulty_azurite.faults


def test_a_block_that_is_refused_fails_the_upload_at_the_next_write(faulty_azurite: FaultyAzurite, container: str):
    with lake_at(faulty_azurite.service, container) as lake, lake.write(PATH, replaces=None) as upload:
        faulty_azurite.faults.append(Fault(request("PUT", "comp=block&"), status=403))
        upload.write(b"x" * SMALL_BLOCK_BYTES)
        assert upload._in_flight[0].exception()
        # The one who waits for it is told first, and the upload right after.
        until(lambda: upload._stage_at_bytes == 0)
        with pytest.raises(RefusedError, match=PATH):
            upload.write(b"y")


def test_a_download_that_breaks_off_is_taken_up_again(faulty_azurite: FaultyAzurite, container: str):
    content = secrets.token_bytes(3 * SMALL_BLOCK_BYTES)
    with lake_at(faulty_azurite.service, container) as lake:
        file = put(lake, content)
        faulty_azurite.faults.append(Fault(request("GET"), sent_fraction=0.5))
        assert read(lake, file) == content
    assert not faulty_azurite.faults


def test_a_download_that_keeps_breaking_off_never_looks_complete(faulty_azurite: FaultyAzurite, container: str):
    with lake_at(faulty_azurite.service, container, retry_seconds=1) as lake:
        file = put(lake, b"x" * SMALL_BLOCK_BYTES)
        faulty_azurite.faults += [Fault(request("GET"), sent_fraction=0.5) for _ in range(100)]
        with pytest.raises(UnreachableError, match=f"{container}: .*broke off"):
            read(lake, file)


def test_the_attempts_of_a_range_that_breaks_off_share_one_wait(faulty_azurite: FaultyAzurite, container: str):
    busy = Fault(request("GET"), status=503, headers={"Retry-After": "1"})
    with lake_at(faulty_azurite.service, container, retry_seconds=1.5) as lake:
        file = put(lake, b"x" * SMALL_BLOCK_BYTES)
        faulty_azurite.faults += [busy, Fault(request("GET"), sent_fraction=0.5), replace(busy, again=True)]
        with pytest.raises(UnreachableError):
            read(lake, file)
    assert len([method for method, _ in faulty_azurite.seen if method == "GET"]) <= 4


def test_a_file_that_is_shorter_than_it_was_said_to_be_never_looks_complete(azure_lake: AzureLake):
    file = put(azure_lake, b"x" * (SMALL_BLOCK_BYTES - 1))
    with pytest.raises(UnreachableError, match=rf"{SMALL_BLOCK_BYTES - 1} of {SMALL_BLOCK_BYTES} bytes"):
        read(azure_lake, replace(file, size_bytes=SMALL_BLOCK_BYTES))


def test_a_file_removed_while_it_is_read_is_a_changed_file(azure_lake: AzureLake, blob_client: BlobClient):
    file = put(azure_lake, b"x" * (20 * SMALL_BLOCK_BYTES))
    with azure_lake.read(file) as blocks:
        next(blocks)
        blob_client.delete_blob()
        with pytest.raises(FileChangedError):
            list(blocks)


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

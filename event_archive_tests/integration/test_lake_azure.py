"""What only the Blob service can do to a lake: blocks, blobs of others, tiers, leases, containers."""

import hashlib
import secrets
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime

import pytest
from azure.storage.blob import BlobBlock, BlobClient, ContainerClient, ContentSettings

from event_archive.errors import FileChangedError, RefusedError
from event_archive.lake.azure.container import AzureLake
from event_archive.lake.azure.errors import Subject
from event_archive.lake.azure.upload import MAX_APPENDABLE_BLOCKS, MAX_BLOCKS, BlockUpload, are_ours
from event_archive.lake.protocol import CONTENT_TYPE, StoredFile
from event_archive_tests.azurite import Azurite
from event_archive_tests.azurite.proxy import Fault, FaultyAzurite, request
from event_archive_tests.fixtures.blobs import lake_at, put, sas_connection_string
from event_archive_tests.fixtures.lakes import PATH, SMALL_BLOCK_BYTES, read, stat

# Blobs of ours and of others


def test_every_commit_sets_the_content_type_and_leaves_no_stale_md5(azure_lake: AzureLake, blob_client: BlobClient):
    first = put(azure_lake, b"1\n" * SMALL_BLOCK_BYTES)
    settings = blob_client.get_blob_properties().content_settings
    assert settings.content_type == CONTENT_TYPE
    blob_client.set_http_headers(ContentSettings(content_md5=bytearray(hashlib.md5(b"of another content").digest())))
    first = stat(azure_lake)

    put(azure_lake, b"2\n", first, append=True)
    settings = blob_client.get_blob_properties().content_settings
    assert settings.content_type == CONTENT_TYPE
    assert settings.content_md5 is None


def test_block_ids_are_of_one_length_and_within_azures_limit(azure_lake: AzureLake, blob_client: BlobClient):
    first = put(azure_lake, b"x" * (3 * SMALL_BLOCK_BYTES + 1))
    put(azure_lake, b"y" * SMALL_BLOCK_BYTES, first, append=True)
    blocks = blob_client.get_block_list("all")
    assert [block.size for block in blocks[0]] == [SMALL_BLOCK_BYTES] * 2 + [SMALL_BLOCK_BYTES + 1, SMALL_BLOCK_BYTES]
    assert blocks[1] == []
    ids = [block.id for block in blocks[0]]
    assert len(set(ids)) == 4
    assert len({len(block_id) for block_id in ids}) == 1
    assert len(ids[0]) <= 64


def test_a_container_that_is_known_to_be_there_is_not_asked_for(
    faulty_azurite: FaultyAzurite, container: str, container_client: ContainerClient
):
    with lake_at(faulty_azurite.service, container) as lake:
        assert lake.stat(PATH) is None
        put(lake, b"x")
    assert [method for method, _ in faulty_azurite.seen] == ["HEAD", "PUT", "PUT"]
    assert not [address for _, address in faulty_azurite.seen if "restype=container" in address]


def test_a_file_of_another_tool_is_not_appendable_but_replaceable(azure_lake: AzureLake, blob_client: BlobClient):
    blob_client.upload_blob(b"old tool")
    file = stat(azure_lake)
    assert not azure_lake.appendable(file)
    with pytest.raises(FileChangedError, match="other blocks"):
        put(azure_lake, b"new", file, append=True)
    assert read(azure_lake, file) == b"old tool"
    replaced = put(azure_lake, b"new", file)
    assert azure_lake.appendable(replaced)
    assert stat(azure_lake) == replaced


def test_a_file_of_foreign_blocks_is_not_appendable_but_replaceable(azure_lake: AzureLake, blob_client: BlobClient):
    blob_client.stage_block("0001", b"foreign")
    blob_client.commit_block_list([BlobBlock("0001")], metadata={"Mixed": "x"})
    file = stat(azure_lake)
    assert not azure_lake.appendable(file)
    assert file.metadata == {"mixed": "x"}
    assert azure_lake.appendable(put(azure_lake, b"new", file))


def test_a_file_overwritten_whole_after_our_blocks_is_not_appendable(azure_lake: AzureLake, blob_client: BlobClient):
    put(azure_lake, b"ours")
    blob_client.upload_blob(b"ours", overwrite=True)
    assert not azure_lake.appendable(stat(azure_lake))


def test_an_append_blob_is_neither_appendable_nor_replaceable_and_is_to_be_copied_before_it_is_deleted(
    azure_lake: AzureLake, blob_client: BlobClient
):
    """A tool that copied the container may have made an append blob of what was archived."""
    blob_client.create_append_blob()
    file = stat(azure_lake)
    words = "another kind.* may hold archived rows: copy it elsewhere, delete it, and copy it back as a block blob"
    with pytest.raises(RefusedError, match=words):
        azure_lake.appendable(file)
    with pytest.raises(RefusedError, match=words):
        put(azure_lake, b"new", file)


def test_a_row_far_longer_than_a_block_is_cut_up_without_a_copy_of_it(azure_lake: AzureLake, blob_client: BlobClient):
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
    sizes = {block.size for block in blob_client.get_block_list("all")[0]}
    assert max(sizes) < 2 * SMALL_BLOCK_BYTES


def test_too_many_blocks_are_not_appendable():
    block = BlobBlock(f"event-archive-{'0' * 32}-00000")
    block.size = 1
    assert are_ours([block] * MAX_APPENDABLE_BLOCKS, MAX_APPENDABLE_BLOCKS)
    assert not are_ours([block] * (MAX_APPENDABLE_BLOCKS + 1), MAX_APPENDABLE_BLOCKS + 1)
    assert not are_ours([block], 2)


def test_more_blocks_than_azure_takes_are_refused_before_they_are_sent(
    azure_lake: AzureLake, container_client: ContainerClient
):
    blob_client = azure_lake._blob(PATH)
    with BlockUpload(
        blob_client, PATH, Subject("archive", PATH), replaces=None, committed=["x"] * (MAX_BLOCKS - 1), block_bytes=2
    ) as upload:
        upload.write(b"12")
        with pytest.raises(RefusedError, match="50000 blocks"):
            upload.write(b"34")


def test_a_file_that_is_stored_compressed_is_read_as_it_is_stored(azure_lake: AzureLake, blob_client: BlobClient):
    blob_client.upload_blob(b"not really gzip", content_settings=ContentSettings(content_encoding="gzip"))
    assert read(azure_lake, stat(azure_lake)) == b"not really gzip"


def test_a_marked_folder_is_no_file(azure_lake: AzureLake, container_client: ContainerClient):
    container_client.upload_blob("events/sub", b"", metadata={"hdi_isfolder": "true"})
    assert list(azure_lake.list("events")) == []
    with pytest.raises(RefusedError, match="is a folder"):
        azure_lake.stat("events/sub")


def test_blocks_that_another_commit_dropped_fail_ours(azure_lake: AzureLake, blob_client: BlobClient):
    with azure_lake.write(PATH, replaces=None) as upload:
        upload.write(b"x" * (3 * SMALL_BLOCK_BYTES))
        put(azure_lake, b"faster")
        blob_client.delete_blob()
        with pytest.raises(FileChangedError, match="InvalidBlockList"):
            upload.commit({})
    assert azure_lake.stat(PATH) is None


def test_a_file_in_the_archive_tier_is_refused_until_it_is_rehydrated(azure_lake: AzureLake, blob_client: BlobClient):
    put(azure_lake, b"cold")
    blob_client.set_standard_blob_tier("Archive")
    file = stat(azure_lake)
    with pytest.raises(RefusedError, match=rf"{PATH}.*archive tier. Rehydrate it"):
        read(azure_lake, file)


def test_a_leased_file_is_refused(azure_lake: AzureLake, blob_client: BlobClient):
    file = put(azure_lake, b"leased")
    lease = blob_client.acquire_lease()
    with pytest.raises(RefusedError, match=r"LeaseIdMissing.*lease"):
        put(azure_lake, b"new", file)
    lease.release()


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


def test_a_container_that_cannot_be_created_is_told_by_that(faulty_azurite: FaultyAzurite, container: str):
    """Not by what a block that is sent all the same is refused with."""
    faulty_azurite.faults.append(Fault(request("PUT", "restype=container"), status=400))
    with lake_at(faulty_azurite.service, container) as lake, pytest.raises(RefusedError, match=f"{container}: .*400"):
        put(lake, b"x")
    assert not [address for _, address in faulty_azurite.seen if "comp=block" in address]


def test_azure_is_imported_only_where_it_is_used():
    code = "import sys, event_archive.lake.protocol, event_archive.lake.local.folder; sys.exit('azure' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import sys, event_archive.lake.azure.container; sys.exit('azure.identity' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

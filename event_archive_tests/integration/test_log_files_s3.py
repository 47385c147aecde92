"""Log files of an S3 bucket and of an Azure container: what only such stores do.

The numbers in the comments are those of the hardest cases of an ingestion of log files.
"""

import hashlib
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from azure.storage.blob import ContainerClient

from event_archive.errors import FileChangedError, RefusedError, UnreachableError
from event_archive.sources.log_files import azure
from event_archive.sources.log_files import s3 as store
from event_archive.sources.log_files.places import open_store
from event_archive_tests.azurite import Azurite
from event_archive_tests.azurite.proxy import Fault, faulty
from event_archive_tests.fixtures.buckets import TestBucket, lists
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson
from event_archive_tests.fixtures.servers import serving

pytestmark = pytest.mark.slow


ODD_KEYS = [
    *("a//b.log", "a/../b.log", "/root.log", "with space.log", "a%20b.log", "a+b.log", "ä/日本.log", "q?x=1&y#z.log"),
    "x" * 1024,
]


# 11: keys of all kinds, and archived objects
def test_every_key_is_a_file_and_folders_are_none(s3: Logs, bucket: TestBucket):
    for number, key in enumerate(ODD_KEYS):
        bucket.put(key, ndjson(entry(number)))
    bucket.put("folder/", b"")
    assert s3.run().files == len(ODD_KEYS)
    assert s3.rows() == [f"request {number}" for number in range(len(ODD_KEYS))]
    assert sorted(s3.files("key")) == sorted((key,) for key in ODD_KEYS)


def test_a_key_that_postgresql_cannot_hold_is_told_of_and_left_out(
    s3: Logs, bucket: TestBucket, caplog: pytest.LogCaptureFixture
):
    bucket.put("a\0b.log", ndjson(entry(1)))
    bucket.put("b.log", ndjson(entry(2)))
    assert s3.run().files == 1
    assert "Its key holds a NUL. It is left out." in caplog.text


def test_a_prefix_is_what_keys_begin_with(s3: Logs, bucket: TestBucket):
    for key in ("app/1.log", "app-2.log", "other.log"):
        bucket.put(key, ndjson(entry(1)))
    assert s3.run(logs_url=f"s3://{bucket.name}/app").files == 2
    assert s3.run(logs_url=f"s3://{bucket.name}/app/").files == 0


# 3: the file changes while it is read
def test_a_file_that_changes_while_it_is_read_is_claimed_again(s3: Logs, bucket: TestBucket):
    bucket.put("a.log", ndjson(entry(1)))
    store = open_store(s3.settings())
    (found,) = store.list()
    bucket.put("a.log", ndjson(entry(1), entry(2)))
    with pytest.raises(FileChangedError), store.open(found) as content:
        list(content)
    s3.ingestion(limit=0).run()
    s3.database.execute("UPDATE processed_files SET etag = %s, size = %s", found.etag, found.size)
    bucket.put("b.log", ndjson(entry(3)))
    # Listed between the last key and the end, the change of the first would not be seen.
    s3.database.execute("UPDATE log_listing SET full_pass_at = now()")
    assert s3.run().files == 2
    assert s3.rows() == ["request 1", "request 2", "request 3"]
    assert s3.files() == [("COMPLETED", 2, 0), ("COMPLETED", 1, 0)]


# 11: keys of all kinds, and archived objects
def test_a_file_in_glacier_fails_alone_with_what_to_do(s3: Logs, bucket: TestBucket):
    bucket.put("a.log", ndjson(entry(1)), StorageClass="GLACIER")
    bucket.put("b.log", ndjson(entry(2)))
    totals = s3.run()
    assert (totals.files, totals.failed) == (1, 1)
    assert "restore it" in s3.errors()[0]


# 14: access denied
def test_a_bucket_that_is_not_there_ends_the_run_at_once(s3: Logs):
    with pytest.raises(RefusedError, match="NoSuchBucket.*LOGS_URL"):
        s3.run(logs_url="s3://no-such-bucket-anywhere")


class Cache:
    """Stands before a store, breaks the first answer off, and then gives the whole file, whatever part is asked for.

    Args:
        first: the file that is listed, and begun to be read.
        then: the file that is there afterwards, as long as the first.
    """

    def __init__(self, first: bytes, then: bytes) -> None:
        self._first, self._then, self.asked = first, then, list[str | None]()
        methods = {
            "do_GET": lambda request: self._answer(request),
            "do_HEAD": lambda request: self._answer(request),
            "log_message": lambda *_: None,
        }
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (BaseHTTPRequestHandler,), methods))

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        content, breaks_off = (self._then, False) if self.asked else (self._first, True)
        etag = hashlib.md5(content).hexdigest()
        if "list-type" in request.path:
            body = (
                f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a.log</Key><ETag>&quot;{etag}&quot;"
                f"</ETag><Size>{len(content)}</Size><LastModified>2024-03-01T00:00:00.000Z</LastModified></Contents>"
                "</ListBucketResult>"
            ).encode()
            breaks_off = False
        else:
            body = content
        request.send_response(200)
        for name, value in {"Content-Length": str(len(body)), "ETag": f'"{etag}"'}.items():
            request.send_header(name, value)
        request.send_header("Last-Modified", "Fri, 01 Mar 2024 00:00:00 GMT")
        request.end_headers()
        if request.command == "GET":
            if body is content:
                self.asked.append(request.headers.get("Range"))
            request.wfile.write(body[: len(body) // 2] if breaks_off else body)
        request.close_connection = True


# 3: the file changes while it is read
@pytest.mark.parametrize("changes", [False, True])
def test_the_whole_file_in_place_of_its_rest_is_not_joined_to_its_beginning(s3: Logs, changes: bool):
    first, then = (ndjson(*map(entry, range(start, start + 50))) for start in (100, 200))
    cache = Cache(first, then if changes else first)
    with serving(cache.server) as port:
        s3.run(aws_endpoint=f"http://127.0.0.1:{port}")
    assert (cache.asked[0], cache.asked[1]) == (None, f"bytes={len(first) // 2}-")
    start = 200 if changes else 100
    assert s3.rows() == [f"request {number}" for number in range(start, start + 50)]


def test_an_endpoint_that_names_the_bucket_too_is_told_with_what_to_do(s3: Logs, bucket: TestBucket):
    with pytest.raises(RefusedError, match=r"NoSuchKey\. Check the bucket in LOGS_URL, .* AWS_ENDPOINT"):
        s3.run(aws_endpoint=f"{bucket.endpoint}/{bucket.name}")


def test_a_prefix_that_begins_with_a_slash_is_told_as_it_is(
    s3: Logs, bucket: TestBucket, caplog: pytest.LogCaptureFixture
):
    s3.run(logs_url=f"s3://{bucket.name}//app")
    assert caplog.messages == [f"s3://{bucket.name}//app: there is no file, and never was one. Check LOGS_URL."]


def test_a_prefix_without_a_file_is_told_until_there_is_one(
    s3: Logs, bucket: TestBucket, caplog: pytest.LogCaptureFixture
):
    """It may be misspelt."""
    url = f"s3://{bucket.name}/app"
    words = f"{url}/: there is no file, and never was one. Check LOGS_URL."
    for _ in range(2):
        caplog.clear()
        s3.run(logs_url=f"{url}/")
        assert caplog.messages == [words]
    bucket.put("app/1.log", ndjson(entry(1)))
    s3.run(logs_url=f"{url}/")
    bucket.client.delete_object(Bucket=bucket.name, Key="app/1.log")
    caplog.clear()
    s3.run(logs_url=f"{url}/")
    assert caplog.messages == []


def test_a_container_that_is_only_read_is_told_of_by_its_account_and_asks_for_no_more(
    logs: Logs, azurite: Azurite, container: str, monkeypatch: pytest.MonkeyPatch
):
    given = {"logs_url": f"az://{container}"}
    right = azurite.connection_string
    wrong = re.sub("AccountKey=[^;]*", "AccountKey=c2VjcmV0", right)
    away = re.sub("BlobEndpoint=http://[^/]*", "BlobEndpoint=http://127.0.0.1:9", right)
    account = re.search("AccountName=([^;]*)", right)
    assert account
    place = f"az://{container} of the account {account[1]}: "
    with pytest.raises(RefusedError, match=rf"^{place}.*ContainerNotFound. Check its name, and the account\.$"):
        logs.run(**given, azure_storage_connection_string=right)
    with ContainerClient.from_connection_string(right, container) as client:
        client.create_container()
    with pytest.raises(RefusedError, match=rf"^{place}.*'Storage Blob Data Reader'.*read and list \(rl\)") as refused:
        logs.run(**given, azure_storage_connection_string=wrong)
    assert "write" not in str(refused.value)
    monkeypatch.setattr(azure, "_RETRY_SECONDS", 1.0)
    with pytest.raises(UnreachableError, match=rf"^{place}.*did not answer") as broken:
        logs.run(**given, azure_storage_connection_string=away)
    assert "written" not in str(broken.value)


def test_a_store_that_is_away_for_a_while_is_waited_for(s3: Logs, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "_FIRST_WAIT_SECONDS", 0.05)
    bucket.put("a.log", ndjson(entry(1)))
    with faulty(Azurite("", "", bucket.endpoint)) as line:
        for answer in (Fault(lists, status=503), Fault(lists, sent_fraction=0)):
            line.faults += [answer] * 3
        assert s3.run(aws_endpoint=line.service.account_url).files == 1
        assert line.faults == []


def test_a_run_that_is_told_to_stop_while_the_store_is_away_gives_its_file_back(s3: Logs, bucket: TestBucket):
    bucket.put("a.log", ndjson(entry(1)))
    with faulty(Azurite("", "", bucket.endpoint)) as line:
        line.faults.append(Fault(lambda _method, address: "a.log" in address, status=503, again=True))
        stopped = lambda: any("a.log" in address for _, address in line.seen)  # noqa: E731
        totals = s3.run(aws_endpoint=line.service.account_url, told_to_stop=stopped)
    assert (totals.ended, totals.failures) == ("interrupted", [])
    assert s3.files("status, attempts") == [("PENDING", 0)]


# 15: a store that is busy, breaks off, stalls or has no name
def test_a_store_that_is_away_ends_the_run(s3: Logs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "_RETRY_SECONDS", 1.0)
    with pytest.raises(UnreachableError, match="did not answer"):
        s3.run(aws_endpoint="http://127.0.0.1:9")


def test_blobs_of_a_container_are_files(logs: Logs, azurite: Azurite, container: str):
    variables = {"azure_storage_connection_string": azurite.connection_string, "logs_url": f"az://{container}/app/"}
    logs.variables = logs.settings(**variables).model_dump(include={*variables})
    with ContainerClient.from_connection_string(azurite.connection_string, container) as client:
        with pytest.raises(RefusedError, match="ContainerNotFound"):
            logs.run()
        client.create_container()
        client.upload_blob("app/1.json.gz", array(*map(entry, range(3000))))
        client.upload_blob("app/ä b%20.log", ndjson(entry(5000)))
        client.upload_blob("app/empty", b"")
        client.upload_blob("other/2.log", ndjson(entry(2)))
        assert logs.run().files == 3
        assert len(logs.rows()) == 3001
        client.upload_blob("app/1.json.gz", array(entry(1)), overwrite=True)
        assert logs.run().files == 1
        assert logs.rows() == ["request 1", "request 5000"]
        store = open_store(logs.settings())
        found = next(of for of in store.list() if of.key == "app/1.json.gz")
        client.upload_blob("app/1.json.gz", array(entry(2)), overwrite=True)
        with pytest.raises(FileChangedError), store.open(found) as content:
            list(content)
        assert store.find("app/nothing") is None

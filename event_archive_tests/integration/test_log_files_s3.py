"""Log files of an S3 bucket and of an Azure container: what only such stores do."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

import pytest
from azure.storage.blob import ContainerClient

from event_archive.errors import FileChangedError, RefusedError, UnreachableError
from event_archive.sources.log_files import listing, stores
from event_archive.sources.log_files.places import open_store
from event_archive_tests.azurite import Azurite
from event_archive_tests.fixtures.buckets import TestBucket
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson
from event_archive_tests.fixtures.servers import serving


@pytest.fixture
def s3(logs: Logs, bucket: TestBucket) -> Logs:
    """The ingestion of a bucket."""
    logs.variables = {name.lower(): value for name, value in bucket.variables.items()}
    return logs


ODD_KEYS = [
    *("a//b.log", "a/../b.log", "/root.log", "with space.log", "a%20b.log", "a+b.log", "ä/日本.log", "q?x=1&y#z.log"),
    "x" * 1024,
]


def test_every_key_is_a_file_and_folders_are_none(s3: Logs, bucket: TestBucket):
    for number, key in enumerate(ODD_KEYS):
        bucket.put(key, ndjson(entry(number)))
    bucket.put("folder/", b"")
    assert s3.run().files == len(ODD_KEYS)
    assert s3.rows() == [f"request {number}" for number in range(len(ODD_KEYS))]
    assert sorted(s3.files("key")) == sorted((key,) for key in ODD_KEYS)


def test_a_prefix_is_what_keys_begin_with(s3: Logs, bucket: TestBucket):
    for key in ("app/1.log", "app-2.log", "other.log"):
        bucket.put(key, ndjson(entry(1)))
    assert s3.run(logs_url=f"s3://{bucket.name}/app").files == 2
    assert s3.run(logs_url=f"s3://{bucket.name}/app/").files == 0


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


def test_a_file_in_glacier_fails_alone_with_what_to_do(s3: Logs, bucket: TestBucket):
    bucket.put("a.log", ndjson(entry(1)), StorageClass="GLACIER")
    bucket.put("b.log", ndjson(entry(2)))
    totals = s3.run()
    assert (totals.files, totals.failed) == (1, 1)
    assert "restore it" in s3.errors()[0]


def test_a_bucket_that_is_not_there_ends_the_run_at_once(s3: Logs):
    with pytest.raises(RefusedError, match="NoSuchBucket.*LOGS_URL"):
        s3.run(logs_url="s3://no-such-bucket-anywhere")


def test_only_keys_behind_the_last_are_listed_until_a_full_pass_is_due(
    s3: Logs, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listing, "OVERLAP", 3)
    for number in range(10):
        bucket.put(f"m{number}.log", ndjson(entry(number)))
    assert s3.run().files == 10
    bucket.put("a.log", ndjson(entry(20)))
    bucket.put("m65.log", ndjson(entry(21)))
    bucket.put("z.log", ndjson(entry(22)))
    assert s3.run().files == 2, "the overlap holds one, the end the other"
    s3.database.execute("UPDATE log_listing SET full_pass_at = now() - interval '25 hours'")
    assert s3.run().files == 1, "the daily pass finds what came late"
    bucket.put("b.log", ndjson(entry(23)))
    assert s3.run().files == 1, "keys do not grow with time here, so that the next pass is full again"
    bucket.put("c.log", ndjson(entry(24)))
    assert s3.run().files == 1
    assert s3.run().files == 0
    bucket.put("d.log", ndjson(entry(25)))
    assert s3.run().files == 0, "a full pass that found nothing early ends that"


class Fault:
    """Between the client and the service, on requests that get an object."""

    def __init__(self) -> None:
        self.act: Callable[[BaseHTTPRequestHandler, bytes], bool] = lambda _handler, _body: False
        self.acted = 0


@contextmanager
def between(endpoint: str, fault: Fault) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            request = Request(endpoint + self.path, headers=dict(self.headers))
            with urlopen(request) as answer:
                body = answer.read()
                if "list-type" not in self.path and fault.act(self, body):
                    fault.acted += 1
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with serving(server) as port:
        yield f"http://127.0.0.1:{port}"


def cut(times: int) -> Callable[[BaseHTTPRequestHandler, bytes], bool]:
    """Sends half of what is asked for, so many times."""
    left = iter(range(times))

    def act(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
        if next(left, None) is None:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        return True

    return act


def slow_down(times: int) -> Callable[[BaseHTTPRequestHandler, bytes], bool]:
    return answering(503, b"SlowDown", times=times)


def answering(status: int, code: bytes, *, times: int) -> Callable[[BaseHTTPRequestHandler, bytes], bool]:
    left = iter(range(times))

    def act(handler: BaseHTTPRequestHandler, _body: bytes) -> bool:
        if next(left, None) is None:
            return False
        words = b"<Error><Code>" + code + b"</Code></Error>"
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(words)))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(words)
        return True

    return act


def test_access_denied_to_one_file_fails_that_one_with_what_to_do(s3: Logs, bucket: TestBucket):
    for name in ("a.log", "b.log"):
        bucket.put(name, ndjson(entry(1)))
    fault = Fault()
    fault.act = answering(403, b"AccessDenied", times=1)
    with between(bucket.endpoint, fault) as endpoint:
        totals = s3.run(aws_endpoint=endpoint)
    assert (totals.files, totals.failed) == (1, 1)
    assert "s3:GetObject" in str(totals.failures[0])


@pytest.mark.slow
def test_a_connection_that_is_cut_in_the_body_is_gone_on_with(s3: Logs, bucket: TestBucket):
    content = array(*(entry(n, noise=str(hash(n))) for n in range(50_000)))
    bucket.put("a.gz", content)
    fault = Fault()
    fault.act = cut(3)
    with between(bucket.endpoint, fault) as endpoint:
        assert s3.run(aws_endpoint=endpoint).counts.new == 50_000
    assert fault.acted == 3


@pytest.mark.slow
def test_slow_down_is_waited_for_and_then_ends_the_run_which_the_next_goes_on_with(
    s3: Logs, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stores, "_WAITS_SECONDS", ())
    bucket.put("a.log", ndjson(entry(1)))
    fault = Fault()
    fault.act = slow_down(2)
    with between(bucket.endpoint, fault) as endpoint:
        assert s3.run(aws_endpoint=endpoint).files == 1
        for number in range(4):
            bucket.put(f"b{number}.log", ndjson(entry(number)))
        fault.act = lambda handler, body: slow_down(1)(handler, body)
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="SlowDown"):
            s3.run(aws_endpoint=endpoint)
        assert time.monotonic() - began < 200
    assert [status for status, *_ in s3.files()].count("FAILED") == 3
    s3.wait_no_more()
    assert s3.run().files == 4


def test_a_store_that_is_away_ends_the_run(s3: Logs):
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

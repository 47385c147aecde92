"""Listings of a bucket or a container: which keys are asked for, and what is no listing."""

import pytest

from event_archive.errors import RefusedError
from event_archive.sources.log_files import listing
from event_archive_tests.azurite import Azurite
from event_archive_tests.azurite.proxy import faulty
from event_archive_tests.fixtures.buckets import TestBucket
from event_archive_tests.fixtures.log_files import Logs, entry, ndjson
from event_archive_tests.fixtures.servers import answering

pytestmark = pytest.mark.slow


NO_LISTINGS = {
    "a page": b"<html><body>log in</body></html>",
    "nothing": b"",
    "an old listing": b"<ListBucketResult><Name>b</Name><IsTruncated>true</IsTruncated></ListBucketResult>",
}


@pytest.mark.parametrize("body", NO_LISTINGS.values(), ids=NO_LISTINGS)
def test_what_is_no_listing_is_no_empty_bucket(s3: Logs, body: bytes):
    with answering(body) as url, pytest.raises(RefusedError, match=r"no listing of S3 .* Check the bucket in LOGS_URL"):
        s3.run(aws_endpoint=url)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("location", [None, "https://login.example.invalid/?key=secret"])
def test_who_redirects_and_is_no_store_is_told_at_once(s3: Logs, status: int, location: str | None):
    """As an http:// that asks for https://, or a page to log in; boto3 asks it for the bucket's region without end."""
    asked = list[str]()
    # As CloudFront has one, too.
    headers = {"Location": location, "X-Amz-Cf-Id": "x"} if location else {}
    words = rf"redirects \(status {status}\).*AWS_ENDPOINT"
    with (
        answering(b"<html>moved</html>", status, headers, asked) as url,
        pytest.raises(RefusedError, match=words) as told,
    ):
        s3.run(aws_endpoint=url)
    assert len(asked) == 1
    assert "secret" not in str(told.value)


# 1: a file older than all that was seen appears late
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


def test_a_full_pass_by_a_clock_that_was_ahead_keeps_no_other_from_being_due(
    s3: Logs, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listing, "OVERLAP", 3)
    for number in range(10):
        bucket.put(f"m{number}.log", ndjson(entry(number)))
    assert s3.run().files == 10
    s3.database.execute("UPDATE log_listing SET full_pass_at = now() + interval '1 year'")
    bucket.put("a.log", ndjson(entry(20)))
    assert s3.run().files == 1


# 12: many keys, few of them new
def test_of_many_keys_and_few_new_ones_the_end_alone_is_listed(
    s3: Logs, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listing, "OVERLAP", 3)
    for number in range(30):
        bucket.put(f"{number:03}.log", ndjson(entry(number)))
    with faulty(Azurite("", "", bucket.endpoint)) as line:
        s3.run(aws_endpoint=line.service.account_url)
        for number in range(30, 33):
            bucket.put(f"{number:03}.log", ndjson(entry(number)))
        line.seen.clear()
        assert s3.run(aws_endpoint=line.service.account_url).files == 3
    lists = [address for _, address in line.seen if "list-type=2" in address]
    assert len(lists) == 1
    assert "start-after=026.log" in lists[0]

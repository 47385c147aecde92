"""The line to the Blob service breaks, stalls and lies: nothing is lost or doubled."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from event_archive.errors import FileChangedError, IntegrityError, UnreachableError
from event_archive.lake.azure.container import AzureLake
from event_archive_tests.azurite import Azurite
from event_archive_tests.azurite.proxy import Fault, FaultyAzurite, faulty, request
from event_archive_tests.faults.cut_lines import ends_within, with_file
from event_archive_tests.faults.tally import survived
from event_archive_tests.faults.union import assert_nothing_lost, assert_one_run_puts_it_right, in_file, in_table
from event_archive_tests.fixtures.lakes import SMALL_BLOCK_BYTES
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database

# The line to the Blob service


@pytest.fixture
def service(azurite: Azurite) -> Iterator[FaultyAzurite]:
    """Azurite, misbehaving on demand."""
    with faulty(azurite) as proxy:
        yield proxy


@contextmanager
def pipeline_at(
    service: FaultyAzurite, database: Database, container: str, *, retry_seconds: float = 10
) -> Iterator[Pipeline]:
    with AzureLake.from_connection_string(
        service.service.connection_string, container, block_bytes=SMALL_BLOCK_BYTES, retry_seconds=retry_seconds
    ) as lake:
        yield Pipeline(database, lake)


@pytest.fixture
def blob(service: FaultyAzurite, database: Database, container: str) -> Iterator[Pipeline]:
    """The pipeline through the proxy before Azurite."""
    with pipeline_at(service, database, container) as pipeline:
        yield pipeline


REQUESTS: dict[str, Callable[[str, str], bool]] = {
    "stat": request("HEAD"),
    "stage": lambda method, address: method == "PUT" and "comp=block&" in f"{address}&",
    "commit": request("PUT", "comp=blocklist"),
    "list of blocks": request("GET", "comp=blocklist"),
    "read": lambda method, address: method == "GET" and "comp=" not in address,
}


def retry_after(kind: str) -> dict[str, str]:
    if kind == "a date":
        return {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=1.2), usegmt=True)}
    return {"Retry-After": kind} if kind else {}


@pytest.mark.parametrize("wait", ["", "1", "a date"], ids=["no Retry-After", "Retry-After", "Retry-After, a date"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_blob_service_is_ridden_out(blob: Pipeline, service: FaultyAzurite, status: int, wait: str):
    """Each kind of request once in one run, of a day that has a file: so every kind occurs."""
    before = with_file(blob, late=True)
    service.faults.extend(Fault(matches, status, retry_after(wait)) for matches in REQUESTS.values())
    with ends_within(30):
        assert blob.run().deleted == 50
    assert service.faults == []
    assert_one_run_puts_it_right(blob, before)
    for _ in REQUESTS:
        survived(f"faults: Blob service answers {status}")


@pytest.mark.parametrize("late", [False, True], ids=["first file", "append"])
@pytest.mark.parametrize("what", ["stage", "commit", "both"])
def test_an_answer_that_is_lost_doubles_nothing(blob: Pipeline, service: FaultyAzurite, what: str, late: bool):
    before = with_file(blob, late=late)
    whats = ["stage", "commit"] if what == "both" else [what]
    service.faults.extend(Fault(REQUESTS[name], sent_fraction=0) for name in whats)
    with ends_within(20):
        assert blob.run().left == 0
    assert service.faults == []
    assert_one_run_puts_it_right(blob, before)
    survived("faults: Blob service's answer lost")


@pytest.mark.parametrize("fraction", [0, 0.4, 0.99])
@pytest.mark.parametrize("late", [False, True], ids=["purge", "append"])
def test_a_download_cut_short_is_taken_up_again(blob: Pipeline, service: FaultyAzurite, late: bool, fraction: float):
    before = with_file(blob, late=late)
    service.faults.extend(Fault(REQUESTS["read"], sent_fraction=fraction) for _ in range(2))
    with ends_within(20):
        assert blob.run().left == 0
    assert service.faults == []
    assert_one_run_puts_it_right(blob, before)
    survived("faults: Blob service's download cut short")


def test_a_download_that_is_always_cut_short_deletes_nothing(
    service: FaultyAzurite, database: Database, container: str
):
    with pipeline_at(service, database, container, retry_seconds=2) as pipeline:
        before = with_file(pipeline, late=False)
        pipeline.archive()
        service.faults.append(Fault(REQUESTS["read"], sent_fraction=0.5, again=True))
        with ends_within(10), pytest.raises(UnreachableError):
            pipeline.purge()
        assert in_table(pipeline) == before
        service.faults.clear()
        assert_one_run_puts_it_right(pipeline, before)
    survived("faults: Blob service's download cut short")


@pytest.mark.parametrize("what", REQUESTS)
def test_a_blob_service_that_stalls_is_asked_again(
    blob: Pipeline, service: FaultyAzurite, what: str, monkeypatch: pytest.MonkeyPatch
):
    """The stalled request still arrives, later than the one that took its place."""
    monkeypatch.setattr("event_archive.lake.azure.retry.READ_TIMEOUT_SECONDS", 0.7)
    before = with_file(blob, late=True)
    service.faults.append(Fault(REQUESTS[what], delay_seconds=2))
    with ends_within(20):
        assert blob.run().deleted == 50
    assert service.faults == []
    time.sleep(1)
    assert_one_run_puts_it_right(blob, before)
    survived("faults: Blob service stalled")


def test_a_slow_blob_service_is_only_slow(blob: Pipeline, service: FaultyAzurite):
    before = with_file(blob, late=True)
    service.faults.append(Fault(lambda _method, _address: True, delay_seconds=0.1, again=True))
    with ends_within(20):
        assert blob.run().deleted == 50
    service.faults.clear()
    assert_one_run_puts_it_right(blob, before)
    survived("faults: Blob service slow")


@pytest.mark.parametrize("late", [False, True], ids=["first file", "append"])
def test_a_commit_that_arrives_after_its_run_gave_up_doubles_nothing(
    service: FaultyAzurite, database: Database, container: str, late: bool
):
    """Another run has archived the day by then: the late one finds another ETag, and changes nothing."""
    with pipeline_at(service, database, container, retry_seconds=1) as pipeline:
        before = with_file(pipeline, late=late)
        service.faults.extend(Fault(REQUESTS["commit"], delay_seconds=3) for _ in range(3))
        with ends_within(10), pytest.raises(UnreachableError, match="may or may not have been committed"):
            pipeline.archive()
        service.faults.clear()
        assert_nothing_lost(pipeline, before)
        assert_one_run_puts_it_right(pipeline, before)
        content = in_file(pipeline)
        time.sleep(3)
        assert in_file(pipeline) == content
        assert_one_run_puts_it_right(pipeline, before)
    survived("faults: Blob service commits late")


@pytest.mark.parametrize("late", [False, True], ids=["first file", "append"])
def test_a_commit_that_arrives_amid_the_next_run_doubles_nothing(
    service: FaultyAzurite, database: Database, container: str, late: bool
):
    """Between the next run's stat and its commit: that run has lost a race, and starts again."""
    with pipeline_at(service, database, container, retry_seconds=1) as pipeline:
        before = with_file(pipeline, late=late)
        service.faults.extend(Fault(REQUESTS["commit"], delay_seconds=4) for _ in range(3))
        with pytest.raises(UnreachableError):
            pipeline.archive()
        service.faults.clear()
        with pipeline_at(service, database, container, retry_seconds=10) as patient:
            service.faults.append(Fault(REQUESTS["commit"], delay_seconds=5))
            assert patient.run().left == 0
            assert in_table(patient) == []
            assert_one_run_puts_it_right(patient, before)
    survived("faults: Blob service commits late")


def test_a_commit_that_arrives_after_its_row_went_back_and_was_purged_changes_nothing(
    service: FaultyAzurite, database: Database, container: str
):
    """The file holds the row as it was purged: the next run has nothing to append, by which the late one would lose."""
    late_seconds = 10  # The next run has done its part by then, on a slow machine, too.
    with pipeline_at(service, database, container, retry_seconds=1) as pipeline:
        pipeline.add(3)
        pipeline.archive()
        database.execute("""UPDATE "Event" SET event_type = 'between' WHERE id = 1""")
        service.faults.extend(Fault(REQUESTS["commit"], delay_seconds=late_seconds) for _ in range(3))
        with pytest.raises(UnreachableError, match="may or may not have been committed"):
            pipeline.archive()
        service.faults.clear()
        database.execute("""UPDATE "Event" SET event_type = 'order.created' WHERE id = 1""")
        with pytest.raises(IntegrityError, match="got no answer, and may still come"):
            pipeline.purge()
        assert pipeline.run().deleted == 3
        content = in_file(pipeline)
        time.sleep(late_seconds)
        assert in_file(pipeline) == content
        assert "between" not in pipeline.values("event_type")
    survived("faults: Blob service commits late")


GONE = {
    "refuses": Fault(lambda _method, _address: True, 503, again=True),
    "hangs up": Fault(lambda _method, _address: True, sent_fraction=0, again=True),
    "is silent": Fault(lambda _method, _address: True, delay_seconds=60, again=True),
}


@pytest.mark.parametrize("how", GONE)
@pytest.mark.parametrize("what", [*REQUESTS, "the second stat"])
def test_a_blob_service_that_is_gone_for_good_is_given_up_in_time(
    service: FaultyAzurite, database: Database, container: str, what: str, how: str
):
    """From one request of the run on; the second stat is the purge's, that of the file which it is about to read."""
    retry_seconds = 1
    with pipeline_at(service, database, container, retry_seconds=retry_seconds) as pipeline:
        before = with_file(pipeline, late=True)
        if what == "the second stat":
            pipeline.archive()
        matches = REQUESTS.get(what, REQUESTS["stat"])
        gone = threading.Event()

        def from_then_on(method: str, address: str) -> bool:
            if matches(method, address):
                gone.set()
            return gone.is_set()

        fault = GONE[how]
        service.faults.append(
            Fault(
                from_then_on,
                fault.status,
                delay_seconds=fault.delay_seconds,
                sent_fraction=fault.sent_fraction,
                again=True,
            )
        )
        # A failed commit is followed by a question whether it was ours.
        with ends_within(2 * (retry_seconds + 2) + 2), pytest.raises((UnreachableError, FileChangedError)):
            pipeline.purge() if what == "the second stat" else pipeline.run()
        assert gone.is_set()
        service.faults.clear()
        assert_one_run_puts_it_right(pipeline, before)
    survived("faults: Blob service gone for good")


def test_a_blob_service_that_is_gone_after_the_delete_rolls_it_back(
    service: FaultyAzurite, database: Database, container: str
):
    """The last question before the commit, whether the file still stands, gets no answer: then nothing is deleted."""
    with pipeline_at(service, database, container, retry_seconds=1) as pipeline:
        before = with_file(pipeline, late=False)
        pipeline.archive()
        stats = iter([False, True])
        service.faults.append(
            Fault(lambda method, _address: method == "HEAD" and next(stats, True), sent_fraction=0, again=True)
        )
        with ends_within(6), pytest.raises(UnreachableError):
            pipeline.purge()
        assert in_table(pipeline) == before
        service.faults.clear()
        assert_one_run_puts_it_right(pipeline, before)
    survived("faults: Blob service gone for good")

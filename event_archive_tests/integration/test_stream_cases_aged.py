"""What of a stream is of an archived day: taken in by the first pass, left out, counted and acknowledged after it."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import Retention
from event_archive.errors import ClocksError
from event_archive.lake.protocol import Lake
from event_archive.sources import runs
from event_archive.sources.redis_stream import loop
from event_archive.sources.redis_stream.records import Decoded, decode
from event_archive.sources.redis_stream.status import status
from event_archive_tests.fixtures.ages import aged_until
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.streaming import Background
from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, position
from event_archive_tests.fixtures.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hurried")]


# Days of which nothing is younger than a year are archived.
ARCHIVED = Dataset(
    TableName("public", "positions"), "ts", "folder", "positions", Retention.parse("1 year"), date(2015, 1, 1)
)


def young(number: int) -> dict[str, Any]:
    return position(number, timestamp=datetime.now(UTC).isoformat())


def test_the_first_pass_takes_in_records_however_old(stream: Stream):
    stream.add(position(1), young(2), position(3))
    # Its consumers end in the midst, and the group is lost.
    stream.read_as("gone", 1)
    consumer = stream.consumer(
        datasets=[ARCHIVED], stream_batch=1, told_to_stop=lambda: consumer.totals.counts.new >= 1
    )
    consumer.run()
    stream.server.redis.xgroup_destroy(KEY, GROUP)
    counts = stream.run(datasets=[ARCHIVED], stream_claim_idle="1 second").counts
    assert counts.too_old == 0
    assert sorted(stream.rows()) == [1, 2, 3]


def test_after_the_first_pass_what_is_of_an_aged_day_is_left_out_counted_and_acknowledged(stream: Stream):
    stream.add(position(1))
    stream.run(datasets=[ARCHIVED])
    stream.add(position(2), young(3))
    counts = stream.run(datasets=[ARCHIVED]).counts
    assert (counts.taken, counts.new, counts.too_old) == (2, 1, 1)
    assert sorted(stream.rows()) == [1, 3]
    assert stream.pending() == {}


@pytest.mark.parametrize("ahead", [-1, 1])
def test_where_two_clocks_are_far_apart_nothing_is_taken_for_archived_or_not(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, ahead: int
):
    """A day that is aged by one of them alone may be in no file, or be in one."""
    stream.add(position(1))
    stream.run(datasets=[ARCHIVED])
    stream.add(position(2))
    with monkeypatch.context() as patch:
        patch.setattr(runs, "now_utc", lambda: datetime.now(UTC) + ahead * timedelta(hours=1.1))
        with pytest.raises(ClocksError, match="the database's clock says .* Set the one that is wrong"):
            stream.run(datasets=[ARCHIVED])
        # Who only looks takes nothing in.
        assert status(stream.settings(), [ARCHIVED]).books is not None
        patch.setattr(runs, "now_utc", lambda: datetime.now(UTC) + ahead * timedelta(hours=0.9))
        assert stream.run(datasets=[ARCHIVED]).counts.too_old == 1
    assert stream.pending() == {}


def test_what_the_group_reads_again_from_the_beginning_is_too_old_where_it_is_archived(stream: Stream):
    stream.add(position(1), young(2))
    stream.run(datasets=[ARCHIVED])
    stream.add(young(3))
    assert stream.run(datasets=[ARCHIVED]).counts.too_old == 0
    stream.database.execute("DELETE FROM positions")
    stream.server.redis.xgroup_destroy(KEY, GROUP)
    counts = stream.run(datasets=[ARCHIVED]).counts
    assert (counts.taken, counts.too_old, stream.rows()) == (3, 1, [2, 3])


def test_the_first_pass_lasts_while_any_consumer_has_some_of_it_pending(stream: Stream):
    stream.add(position(1), position(2))
    stream.read_as("slow", 1)
    with Background(stream, datasets=[ARCHIVED]) as consumer:
        until(lambda: consumer.totals.counts.new == 1)
    stream.add(position(3))
    with Background(stream, datasets=[ARCHIVED]) as consumer:
        until(lambda: consumer.totals.counts.taken == 1)
    assert consumer.totals.counts.too_old == 0
    stream.run(datasets=[ARCHIVED], stream_claim_idle="1 second")
    assert sorted(stream.rows()) == [1, 2, 3]
    stream.add(position(4))
    assert stream.run(datasets=[ARCHIVED]).counts.too_old == 1


@pytest.mark.parametrize("in_first_pass", [False, True])
def test_what_a_worker_has_in_hand_while_its_day_is_purged_does_not_come_back(
    stream: Stream, local_lake: Lake, monkeypatch: pytest.MonkeyPatch, in_first_pass: bool
):
    """It stands still from before midnight until after the night; another one takes over, and has a newer record."""
    aged, stands_still = aged_until(1), False
    monkeypatch.setattr(loop, "aged_times", lambda *_: aged)
    monkeypatch.setattr(loop, "aged_by_now", lambda *_: aged)
    archived = replace(ARCHIVED, purge="drop")
    other = {"datasets": [archived], "stream_consumer": "other", "stream_claim_idle": "1 second"}

    def stand_still(*entries: Any, **options: Any) -> Decoded:
        nonlocal aged, stands_still
        decoded = decode(*entries, **options)
        if stands_still:
            stands_still = False
            for number in (1, 2):
                stream.add(position(1, latitude=number), young(2))
                stream.run(**other)
            aged = aged_until(2)
            assert Pipeline(stream.database, local_lake, archived).run().how == "dropped"
        return decoded

    monkeypatch.setattr(loop, "decode", stand_still)
    if not in_first_pass:
        stream.add(young(2))
        stream.run(datasets=[archived])
    stream.add(position(1, latitude=0))
    stands_still = True
    counts = stream.run(datasets=[archived]).counts
    assert (counts.taken, counts.new, counts.too_old) == (1, 0, 1)
    assert {*stream.rows()} == {2}
    assert stream.database.execute("SELECT to_regclass('positions_2024_03_01')") == [(None,)]
    assert stream.pending() == {}


def test_a_stream_that_never_had_an_entry_has_not_been_passed_over(stream: Stream):
    with Background(stream, datasets=[ARCHIVED]) as consumer:
        until(lambda: consumer.has_worked)
    stream.add(position(1))
    assert stream.run(datasets=[ARCHIVED]).counts.new == 1


def test_where_nothing_is_archived_nothing_is_too_old_and_no_further_table_is_made(stream: Stream):
    stream.add(position(1))
    stream.run()
    stream.add(position(2))
    assert stream.run().counts.new == 1
    assert stream.database.execute("SELECT to_regclass('stream_groups')") == [(None,)]

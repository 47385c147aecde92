"""Which server is the primary, which a replica of it, and which a copy that may not write beside it."""

import time
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.record import Record
from event_archive.errors import ConfigurationError, OtherSourceError, RefusedError, UnreachableError
from event_archive.operations import claim as claiming
from event_archive.operations import writing
from event_archive.operations.adopt import adopt_day
from event_archive.operations.archive import archive_day
from event_archive.operations.claim import adopt_source, claim_first, owner
from event_archive.operations.export import Export
from event_archive.operations.marker import read_claim
from event_archive.operations.purge import purge_day
from event_archive.postgres.catalogue.server import Identity, identity
from event_archive.postgres.session import Postgres
from event_archive.table.rows import lock_rows
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database, Server
from event_archive_tests.fixtures.standby import standby_of
from event_archive_tests.fixtures.strangers import OTHER_DAY, refused_everywhere
from event_archive_tests.fixtures.waiting import until

pytestmark = pytest.mark.slow


def test_a_replica_that_is_no_copy_of_the_primary_is_refused(pipeline: Pipeline, stranger: Pipeline):
    pipeline.add(2)
    stranger.add(1)
    replica = replace(stranger.postgres, variable="ITS_REPLICA")
    words = r"ITS_REPLICA names .* no standby of .*, which PG_CONNECTION_STRING names"
    with pytest.raises(OtherSourceError, match=words):
        pipeline.archive(export_postgres=replica)
    assert pipeline.lake.stat(pipeline.dataset.path(DAY)) is None


def test_a_replica_of_another_database_that_lacks_the_table_is_told_by_its_own_setting(pipeline: Pipeline):
    """The message sent people to EVENT_TABLE, which is right."""
    replica = Postgres(pipeline.database.server.dsn("postgres"), variable="ITS_REPLICA")
    with pytest.raises(OtherSourceError, match="ITS_REPLICA names database postgres .*, no standby of"):
        pipeline.archive(export_postgres=replica)


@pytest.fixture
def follower(pipeline: Pipeline, standby: Server) -> Pipeline:
    """A standby that has the table."""
    until = time.monotonic() + 60
    while True:
        try:
            with psycopg.connect(standby.dsn(pipeline.database.name)) as connection:
                connection.execute('SELECT FROM "Event"')
                return Pipeline(Database(standby, pipeline.database.name), pipeline.lake)
        except psycopg.Error:
            assert time.monotonic() < until, "the standby does not follow"
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ("SELECT 1", "CREATE TABLE n (id int PRIMARY KEY, at timestamp)"),
        ("CREATE TABLE n (id int, at timestamp)", "ALTER TABLE n ADD PRIMARY KEY (id)"),
        ("CREATE TABLE n (id int PRIMARY KEY, t timestamp)", "ALTER TABLE n RENAME t TO at"),
    ],
)
def test_a_table_that_a_replica_does_not_have_yet_is_read_on_the_primary(
    pipeline: Pipeline, follower: Pipeline, caplog: pytest.LogCaptureFixture, before: str, change: str
):
    pipeline.database.execute(f"{before}; CREATE TABLE last (n int)")
    until(lambda: follower.database.execute("SELECT to_regclass('last') IS NOT NULL") == [(True,)])
    follower.database.execute("SELECT pg_wal_replay_pause()")
    paused = "SELECT pg_get_wal_replay_pause_state()"
    until(lambda: follower.database.execute(paused) == [("paused",)])
    try:
        pipeline.database.execute(f"{change}; INSERT INTO n (id, at) VALUES (1, '2024-03-01')")
        of = pipeline.of(table=TableName("public", "n"), time_column="at")
        assert of.archive(export_postgres=replace(follower.postgres, variable="ITS_REPLICA")).rows == 1
        assert "the server in ITS_REPLICA does not have public.n as it can be archived, or not yet" in caplog.text
    finally:
        follower.database.execute("SELECT pg_wal_replay_resume()")


@pytest.fixture
def clone(follower: Pipeline) -> Pipeline:
    """A copy of the whole server with the same system identifier, promoted: its timeline is a later one."""
    promote(follower)
    return follower


def promote(standby: Pipeline) -> None:
    promoted = standby.database.execute("SELECT pg_promote(true, 120)")
    assert promoted == [(True,)], "the standby is not promoted in time"


def test_a_clone_and_its_original_do_not_both_write(pipeline: Pipeline, clone: Pipeline):
    pipeline.add(2)
    clone.add(2, prefix="clone")
    pipeline.run()
    clone.run(OTHER_DAY)
    refused_everywhere(pipeline, "on timeline 2; this server is on timeline 1")
    adopt_source(pipeline.site)
    pipeline.add(1, prefix="late")
    assert pipeline.run().deleted == 1
    refused_everywhere(clone, "on timeline 1; this server is on timeline 2")


def test_a_server_on_a_later_timeline_is_warned_once_of_what_a_copy_would_do(
    pipeline: Pipeline, clone: Pipeline, caplog: pytest.LogCaptureFixture
):
    pipeline.add(1)
    pipeline.run()
    clone.add(1, prefix="clone")
    assert not caplog.records
    clone.run()
    clone.run()
    (told,) = [record.getMessage() for record in caplog.records if "belong to" in record.getMessage()]
    assert "before, it was timeline 1" in told
    assert "If this server is a copy, stop its runs" in told


def test_a_claim_is_that_of_the_server_that_asks(pipeline: Pipeline, clone: Pipeline):
    """A process may work on after a failover."""
    site = pipeline.site
    assert claim_first(site).timeline == 1
    assert claim_first(replace(site, postgres=clone.postgres)).timeline == 2


def test_a_run_that_comes_back_to_the_server_from_before_a_failover_is_refused(pipeline: Pipeline, clone: Pipeline):
    """A connection string of two hosts leads to it as soon as it answers again."""
    pipeline.add(2)
    site = pipeline.site
    archive_day(site, DAY)
    clone.run()
    here = archive_day(replace(site, postgres=clone.postgres), DAY)
    for action in (
        lambda: archive_day(site, DAY),
        lambda: purge_day(site, DAY, Record(here.etag, here.rows), dry_run=False),
        lambda: adopt_day(site, DAY),
    ):
        with pytest.raises(OtherSourceError, match="was last used by .* on timeline 2; this server is on timeline 1"):
            action()
    assert pipeline.count() == 2


@pytest.mark.parametrize("is_first", [True, False], ids=["a first file", "an append"])
def test_what_a_former_primary_was_about_to_write_at_a_failover_is_not_written(
    pipeline: Pipeline, clone: Pipeline, monkeypatch: pytest.MonkeyPatch, is_first: bool
):
    """The rows that it had by then, and its successor never had, would stand behind those of its successor."""
    if not is_first:
        pipeline.add(2)
        pipeline.archive()
    pipeline.add(1, prefix="lost")
    before, copy = pipeline.lake.stat(pipeline.dataset.path(DAY)), Export.copy

    def copied(self: Export, *args: Any, **options: Any) -> int:
        rows = copy(self, *args, **options)
        monkeypatch.setattr(Export, "copy", copy)
        clone.run()
        return rows

    monkeypatch.setattr(Export, "copy", copied)
    with pytest.raises(OtherSourceError, match="was last used by .* on timeline 2; this server is on timeline 1"):
        archive_day(pipeline.site, DAY)
    assert pipeline.lake.stat(pipeline.dataset.path(DAY)) == before


def test_a_promoted_copy_is_no_replica(pipeline: Pipeline, clone: Pipeline):
    pipeline.add(2)
    with pytest.raises(OtherSourceError, match="no standby"):
        pipeline.archive(export_postgres=clone.postgres)


def test_a_standby_that_follows_a_former_primary_writes_no_file(
    pipeline: Pipeline, follower: Pipeline, caplog: pytest.LogCaptureFixture
):
    """What the former primary took after the failover is lost with it."""
    pipeline.add(2)
    with standby_of(pipeline.database.server) as other:
        former = Pipeline(Database(other, pipeline.database.name), pipeline.lake)
        until(lambda: follower.count() == former.count() == 2)
        promote(follower)
        pipeline.add(1, prefix="lost")
        until(lambda: former.count() == 3)
        assert follower.archive(export_postgres=former.postgres).rows == 2
    assert "on timeline 1, and PG_CONNECTION_STRING names timeline 2: since a failover" in caplog.text


def test_a_replica_that_is_promoted_before_its_rows_are_read_writes_no_file(
    pipeline: Pipeline, follower: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """It was a standby when it was asked; its rows are those of another database by the time they are read."""

    def promoted_first(*of_day: Any) -> None:
        promote(follower)
        follower.add(1, prefix="of the copy alone")
        lock_rows(*of_day)

    monkeypatch.setattr(writing, "lock_rows", promoted_first)
    with pytest.raises(OtherSourceError, match="no standby of"):
        pipeline.archive(export_postgres=follower.postgres)
    assert pipeline.lake.stat(pipeline.dataset.path(DAY)) is None


def test_of_a_day_that_a_replica_lacks_altogether_the_primary_is_asked(pipeline: Pipeline, follower: Pipeline):
    """No run would archive it, as long as the replica lags: each asked the replica for the day's first file."""
    follower.database.execute("SELECT pg_wal_replay_pause()")
    state = "SELECT pg_get_wal_replay_pause_state()"
    until(lambda: follower.database.execute(state) == [("paused",)])
    pipeline.add(2)
    assert pipeline.archive(export_postgres=follower.postgres).rows == 2
    assert (pipeline.purge().deleted, pipeline.count()) == (2, 0)


@pytest.mark.parametrize(
    "clone_of",
    [
        {"timeline": 2, "is_standby": True},
        {},
        {"system": "another", "is_standby": True},
        {"database": "another", "is_standby": True},
    ],
    ids=["standby of a clone", "clone", "standby of another server", "another database of a standby"],
)
def test_what_does_not_follow_the_primary_is_no_replica(pipeline: Pipeline, clone_of: dict[str, Any]):
    """A standby of a clone is told by its timeline; a clone that began no timeline, by not being a standby; one of
    another server, by that one's identifier.
    """
    pipeline.add(2)
    mine = identity_of(pipeline)
    assert (mine.timeline, mine.is_standby) == (1, False)
    with pytest.MonkeyPatch.context() as patched:
        other = replace(mine, started="another time", **clone_of)
        answers = iter([mine, mine, other])
        patched.setattr(claiming, "identity", lambda _connection: next(answers))
        with pytest.raises(OtherSourceError, match="no standby of"):
            pipeline.archive(export_postgres=pipeline.of().postgres)


def test_the_primary_may_be_its_own_replica(pipeline: Pipeline):
    pipeline.add(2)
    assert pipeline.archive(export_postgres=pipeline.of().postgres).rows == 2


def identity_of(pipeline: Pipeline) -> Identity:
    with pipeline.postgres.transaction("test") as connection:
        return identity(connection)


def test_a_standby_that_hears_late_of_a_new_timeline_is_taken_for_no_copy(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    primary = replace(identity_of(pipeline), timeline=2)
    monkeypatch.setattr(claiming, "identity", lambda _connection: primary)
    adopt_source(pipeline.site)
    standby = replace(primary, timeline=1, is_standby=True)
    monkeypatch.setattr(claiming, "identity", lambda _connection: standby)
    claimed = owner(pipeline.site)
    assert claimed
    assert claimed.timeline == 2


def test_a_standby_knows_a_new_timeline_before_its_control_file_does(pipeline: Pipeline, follower: Pipeline):
    with standby_of(pipeline.database.server, by_way_of=follower.database.server) as second:
        behind = Pipeline(Database(second, pipeline.database.name), pipeline.lake)
        receiver = "SELECT status FROM pg_stat_wal_receiver"
        until(lambda: behind.database.execute(receiver) == [("streaming",)])
        promote(follower)
        until(lambda: identity_of(behind).timeline == 2)
        assert identity_of(behind).is_standby


def test_a_standby_is_no_primary(pipeline: Pipeline, standby: Server):
    pipeline.add(2)
    pipeline.archive()
    until = time.monotonic() + 60
    there = Pipeline(Database(standby, pipeline.database.name), pipeline.lake, records=pipeline.records)
    while True:
        try:
            found = identity_of(there)
            break
        except (UnreachableError, RefusedError):
            assert time.monotonic() < until, "the standby does not follow"
            time.sleep(0.1)
    assert found == replace(identity_of(pipeline), is_standby=True, started=found.started)
    for action in (there.purge, lambda: adopt_source(there.site)):
        with pytest.raises((ConfigurationError, RefusedError), match="PG_CONNECTION_STRING must name the primary"):
            action()
    assert owner(there.site) == read_claim(pipeline.dataset, pipeline.lake)

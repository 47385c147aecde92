"""Files belong to one table of one database: who else comes to write or delete is refused, who reads is told."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.record import Record
from event_archive.domain.source import Claim, Source
from event_archive.errors import (
    ConfigurationError,
    FileChangedError,
    IntegrityError,
    OtherSourceError,
    RefusedError,
    UnreachableError,
)
from event_archive.lake.protocol import Lake
from event_archive.operations import archive as archiving
from event_archive.operations import claim as claiming
from event_archive.operations import unclaimed
from event_archive.operations.adopt import adopt_day
from event_archive.operations.archive import archive_day
from event_archive.operations.claim import adopt_source, claim_first, owner, unclaimed_elsewhere
from event_archive.operations.marker import claim_to_read, marker_path, read_claim
from event_archive.operations.restore.day import restore_day
from event_archive.operations.restore.target import target_named
from event_archive.operations.unclaimed import require_unclaimed, sources_of_files
from event_archive.operations.verify import verify_day
from event_archive.postgres.catalogue.server import Identity, identity
from event_archive.postgres.session import Postgres
from event_archive.table.holds import hold, holds
from event_archive.table.rows import lock_rows
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database, Server, new_database, standby_of
from event_archive_tests.fixtures.waiting import until

pytestmark = pytest.mark.slow

OTHER_DAY = DAY + timedelta(days=1)
EVENT_TWO = TableName("public", "Event2")


@pytest.fixture
def elsewhere(pipeline: Pipeline, server_18: Server) -> Iterator[Pipeline]:
    """Another database of the same shape, with the same lake, folder and prefix."""
    for database in new_database(server_18):
        yield Pipeline(database, pipeline.lake)


def everything(lake: Lake) -> dict[str, str]:
    return {file.path: file.etag for file in lake.list("titan-pulse-event-archive")}


def refused_everywhere(stranger: Pipeline, words: str) -> None:
    """Neither archive nor purge nor adopt does anything, and each says why."""
    before, rows = everything(stranger.lake), stranger.count()
    actions: list[Callable[[], object]] = [
        stranger.archive,
        lambda: adopt_day(stranger.site, DAY),
        lambda: owner(stranger.site),
    ]
    if DAY in stranger.records:
        actions.append(stranger.purge)
    for action in actions:
        with pytest.raises(OtherSourceError, match=words):
            action()
    assert (everything(stranger.lake), stranger.count()) == (before, rows)


def test_a_second_database_is_refused_and_the_first_gets_its_own_rows_back(pipeline: Pipeline, elsewhere: Pipeline):
    pipeline.add(1, prefix="mine")
    elsewhere.add(1, prefix="theirs")
    pipeline.run()
    elsewhere.records = dict(pipeline.records)
    name = pipeline.database.name
    refused_everywhere(elsewhere, rf"belongs to public\.\"Event\" .* of database {name}, .* this is .* database test_")
    restore_day(pipeline.site, DAY, pipeline.dataset.table)
    assert pipeline.database.execute('SELECT event_id FROM "Event"') == [("mine-2024-03-01-0",)]


def test_of_two_first_runs_at_once_the_second_is_refused(
    pipeline: Pipeline, elsewhere: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(1)
    elsewhere.add(1)

    def lose(*arguments: Any) -> None:
        require_unclaimed(*arguments)
        monkeypatch.undo()
        elsewhere.archive(OTHER_DAY)

    monkeypatch.setattr(claiming, "require_unclaimed", lose)
    with pytest.raises(OtherSourceError, match="belongs to"):
        pipeline.archive()
    claimed = read_claim(pipeline.dataset, pipeline.lake)
    assert claimed is not None
    assert claimed.source.database == elsewhere.database.name
    assert pipeline.lake.stat(pipeline.dataset.path(DAY)) is None


def test_of_two_first_runs_of_one_table_at_once_both_go_on(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """Files under the prefix of before are not its former ones, where that is its own."""
    pipeline.add(1)
    pipeline.add(1, day=OTHER_DAY)

    def beside(*arguments: Any) -> set[Source]:
        monkeypatch.undo()
        found = sources_of_files(*arguments)
        pipeline.archive(OTHER_DAY)
        return found

    monkeypatch.setattr(unclaimed, "sources_of_files", beside)
    assert pipeline.archive().rows == 1


def test_of_two_that_accept_a_source_at_once_the_second_is_told(
    pipeline: Pipeline, elsewhere: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(1)
    pipeline.archive()

    def lose(*arguments: Any, **options: Any) -> Claim | None:
        monkeypatch.undo()
        found = claim_to_read(*arguments, **options)
        adopt_source(pipeline.of(table=EVENT_TWO).site)
        return found

    monkeypatch.setattr(claiming, "claim_to_read", lose)
    with pytest.raises(FileChangedError):
        adopt_source(elsewhere.site)
    claimed = read_claim(pipeline.dataset, pipeline.lake)
    assert claimed is not None
    assert claimed.source.table == 'public."Event2"'


def test_what_holds_for_one_database_is_asked_anew_of_another(pipeline: Pipeline, elsewhere: Pipeline):
    """A connection string may lead to another server from one day to the next, as after a failover."""
    pipeline.add(1)
    elsewhere.add(1)
    site = pipeline.site
    archive_day(site, DAY)
    with pytest.raises(OtherSourceError, match="belongs to"):
        archive_day(replace(site, postgres=elsewhere.postgres), OTHER_DAY)


def test_a_second_table_under_the_same_names_is_refused(pipeline: Pipeline):
    pipeline.database.execute('CREATE TABLE "Event2" (LIKE "Event" INCLUDING ALL)')
    second = pipeline.of(table=EVENT_TWO)
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute('INSERT INTO "Event2" SELECT * FROM "Event"')
    second.records = dict(pipeline.records)
    refused_everywhere(second, r'belongs to public\."Event" .* this is public\."Event2"')
    assert pipeline.purge().deleted == 2


def test_a_second_time_column_is_refused(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.run()
    refused_everywhere(
        pipeline.of(time_column="processed_at"), r"days by created_at\).* this is .*days by processed_at"
    )


def test_a_file_of_another_table_in_the_folder_is_not_taken_over(pipeline: Pipeline, elsewhere: Pipeline):
    elsewhere = Pipeline(elsewhere.database, pipeline.lake, replace(pipeline.dataset, file_prefix="theirs"))
    elsewhere.add(2, prefix="theirs")
    elsewhere.archive()
    pipeline.add(2)
    pipeline.archive(OTHER_DAY)
    file = elsewhere.lake.stat(elsewhere.dataset.path(DAY))
    assert file is not None
    pipeline.put(elsewhere.content(), metadata=dict(file.metadata))
    before = everything(pipeline.lake)
    with pytest.raises(IntegrityError, match=r"belongs to .* the files here belong to .* move it elsewhere"):
        pipeline.archive()
    with pytest.raises(IntegrityError, match="belongs to"):
        adopt_day(pipeline.site, DAY)
    with pytest.raises(IntegrityError, match="belongs to"):
        restore_day(pipeline.site, DAY, TableName("public", "Event_restored"))
    found = verify_day(pipeline.dataset, DAY, table=None, lake=pipeline.lake)
    assert len(found.problems) == 1
    assert "it belongs to" in found.problems[0]
    assert (everything(pipeline.lake), pipeline.count()) == (before, 2)


def test_a_file_of_another_day_is_refused_by_all(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.add(3, day=OTHER_DAY)
    pipeline.archive()
    file = pipeline.lake.stat(pipeline.dataset.path(DAY))
    assert file is not None
    pipeline.put(pipeline.content(), metadata=dict(file.metadata), day=OTHER_DAY)
    words = "it is the file of 2024-03-01, as its manifest says, under the name of 2024-03-02"
    for action in (
        lambda: pipeline.archive(OTHER_DAY),
        lambda: adopt_day(pipeline.site, OTHER_DAY),
        lambda: restore_day(pipeline.site, OTHER_DAY, TableName("public", "Event_restored")),
    ):
        with pytest.raises(IntegrityError, match=words):
            action()
    assert words in verify_day(pipeline.dataset, OTHER_DAY, table=None, lake=pipeline.lake).problems[0]
    copied = pipeline.lake.stat(pipeline.dataset.path(OTHER_DAY))
    assert copied is not None
    pipeline.records[OTHER_DAY] = Record(copied.etag, 3)
    with pytest.raises(IntegrityError, match=words):
        pipeline.purge(OTHER_DAY)
    assert pipeline.count() == 6


def test_reading_is_open_to_all_and_says_whose_file_it_is(
    pipeline: Pipeline, elsewhere: Pipeline, caplog: pytest.LogCaptureFixture
):
    pipeline.add(2)
    pipeline.run()
    restored = restore_day(elsewhere.site, DAY, elsewhere.dataset.table)
    assert restored.restored == 2
    assert restored.source is not None
    assert restored.source.database == pipeline.database.name
    assert f'holds rows of public."Event" (days by created_at) of database {pipeline.database.name}' in caplog.text
    assert verify_day(elsewhere.dataset, DAY, table=None, lake=elsewhere.lake).problems == ()


def test_a_replica_that_is_no_copy_of_the_primary_is_refused(pipeline: Pipeline, elsewhere: Pipeline):
    pipeline.add(2)
    elsewhere.add(1)
    replica = replace(elsewhere.postgres, variable="ITS_REPLICA")
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
    until = time.monotonic() + 30
    while True:
        try:
            with psycopg.connect(standby.dsn(pipeline.database.name)) as connection:
                connection.execute('SELECT FROM "Event"')
                return Pipeline(Database(standby, pipeline.database.name), pipeline.lake)
        except psycopg.Error:
            assert time.monotonic() < until, "the standby does not follow"
            time.sleep(0.1)


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


def test_a_promoted_copy_is_no_replica(pipeline: Pipeline, clone: Pipeline):
    pipeline.add(2)
    with pytest.raises(OtherSourceError, match="no standby"):
        pipeline.archive(export_postgres=clone.postgres)


def test_a_replica_that_is_promoted_before_its_rows_are_read_writes_no_file(
    pipeline: Pipeline, follower: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """It was a standby when it was asked; its rows are those of another database by the time they are read."""

    def promoted_first(*of_day: Any) -> None:
        promote(follower)
        follower.add(1, prefix="of the copy alone")
        lock_rows(*of_day)

    monkeypatch.setattr(archiving, "lock_rows", promoted_first)
    with pytest.raises(OtherSourceError, match="no standby of"):
        pipeline.archive(export_postgres=follower.postgres)
    assert pipeline.lake.stat(pipeline.dataset.path(DAY)) is None


def test_of_a_day_that_a_replica_lacks_altogether_the_primary_is_asked(pipeline: Pipeline, follower: Pipeline):
    """No run would archive it, as long as the replica lags: each asked the replica for the day's first file."""
    follower.database.execute("SELECT pg_wal_replay_pause()")
    state = "SELECT pg_get_wal_replay_pause_state()"
    until(lambda: follower.database.execute(state) == [("paused",)], seconds=30)
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
        until(lambda: behind.database.execute(receiver) == [("streaming",)], seconds=30)
        promote(follower)
        until(lambda: identity_of(behind).timeline == 2, seconds=30)
        assert identity_of(behind).is_standby


def test_a_standby_is_no_primary(pipeline: Pipeline, standby: Server):
    pipeline.add(2)
    pipeline.archive()
    until = time.monotonic() + 30
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


def test_prefixes_that_begin_alike_are_two_places(pipeline: Pipeline, elsewhere: Pipeline):
    europe = Pipeline(elsewhere.database, pipeline.lake, replace(pipeline.dataset, file_prefix="events_eu"))
    europe.add(2)
    europe.archive()
    pipeline.add(2)
    assert pipeline.run().deleted == 2
    assert adopt_source(pipeline.site).former == ()


def test_what_the_owner_did_not_tell_is_learnt_from_the_first_who_does():
    unknown = Claim(Source("", "shop", "public.t", "at"), 1)
    learnt = unknown.admitting(Source("111", "shop", "public.t", "at"), 1, place="here")
    assert learnt.source.system == "111"
    with pytest.raises(OtherSourceError):
        learnt.admitting(Source("222", "shop", "public.t", "at"), 1, place="here")


def test_files_from_before_make_nobody_else_an_owner():
    mine = Source("111", "shop", "public.t", "at")
    before = Source("", "", "public.t", "")
    adopted = Claim(mine, 1).adopted_by(mine, 1, [before])
    assert adopted.former == ()
    assert not adopted.holds(Source("222", "staging", "public.t", "at"))
    assert adopted.holds(before)


def test_a_marker_of_a_later_version_is_left_alone(pipeline: Pipeline):
    with pipeline.lake.write(marker_path(pipeline.dataset), replaces=None) as upload:
        upload.write(b'{"version": 2}')
        marker = upload.commit({})
    pipeline.add(1)
    with pytest.raises(IntegrityError, match=r"version 2, this program knows 1.*update this one"):
        pipeline.archive()
    with pytest.raises(IntegrityError, match=r"version 2, this program knows 1.*update this one"):
        adopt_source(pipeline.site)
    with pipeline.lake.read(marker) as blocks:
        assert b"".join(blocks) == b'{"version": 2}'


def test_a_folder_from_before_markers_is_claimed_by_the_first_run(
    pipeline: Pipeline, elsewhere: Pipeline, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, logger="event_archive")
    pipeline.add(2)
    pipeline.archive()
    as_before(pipeline)
    pipeline.add(1, prefix="late")
    assert pipeline.run().deleted == 3
    claimed = read_claim(pipeline.dataset, pipeline.lake)
    assert claimed is not None
    assert claimed.source.database == pipeline.database.name
    assert "from now on these files belong to" in caplog.text
    refused_everywhere(elsewhere, "belongs to")


def test_a_folder_from_before_markers_with_another_tables_files_is_not_claimed(pipeline: Pipeline):
    pipeline.database.execute('CREATE TABLE "Event2" (LIKE "Event" INCLUDING ALL)')
    pipeline.add(2)
    pipeline.archive()
    as_before(pipeline)
    with pytest.raises(OtherSourceError, match=r'holds files of public\."Event"; this is public\."Event2"'):
        pipeline.of(table=EVENT_TWO).archive()
    assert read_claim(pipeline.dataset, pipeline.lake) is None


def test_files_under_another_prefix_are_those_of_this_very_table(pipeline: Pipeline):
    pipeline.add(1)
    pipeline.database.execute('CREATE TABLE "Event2" (LIKE "Event" INCLUDING ALL); INSERT INTO "Event2" TABLE "Event"')
    moved = pipeline.of(file_prefix="moved")
    pipeline.of(table=EVENT_TWO, file_prefix="of_two").archive()
    assert unclaimed_elsewhere(moved.site) is None
    pipeline.of(file_prefix="lines").archive()
    assert "files in that folder that are named lines. Their days" in (unclaimed_elsewhere(moved.site) or "")
    moved.archive()
    assert unclaimed_elsewhere(moved.site) is None


def test_a_manifest_that_cannot_be_read_keeps_no_table_from_its_first_run(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.put(b"id\n1\n", metadata={"event_archive_version": "2"}, day=OTHER_DAY)
    assert unclaimed_elsewhere(pipeline.of(file_prefix="moved").site) is None
    assert pipeline.run().deleted == 2


def as_before(pipeline: Pipeline, day: date = DAY) -> None:
    """Makes a day's file and its folder as they were before manifests and markers named the source."""
    file = pipeline.lake.stat(pipeline.dataset.path(day))
    assert file is not None
    said = ("system", "database", "time_column", "day")
    metadata = {name: value for name, value in file.metadata.items() if name.removeprefix("event_archive_") not in said}
    pipeline.put(pipeline.content(), metadata=metadata, day=day)
    Path(urlparse(pipeline.lake.url(marker_path(pipeline.dataset))).path).unlink()


def test_a_renamed_table_is_accepted_once(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.run()
    pipeline.add(1, prefix="late")
    pipeline.database.execute('ALTER TABLE "Event" RENAME TO "Event2"')
    renamed = pipeline.of(table=EVENT_TWO)
    refused_everywhere(renamed, "accept it once")
    adopt_source(renamed.site)
    assert renamed.run().deleted == 1
    assert len(renamed.values("id")) == 3
    assert verify_day(renamed.dataset, DAY, table=None, lake=renamed.lake).problems == ()
    pipeline.database.execute('CREATE TABLE "Event" (LIKE "Event2" INCLUDING ALL)')
    refused_everywhere(pipeline, r'belongs to public\."Event2"')


def test_a_held_day_stays_held_where_the_table_is_renamed(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.archive()
    hold(pipeline.dataset, DAY, DAY, "case 17", pipeline.postgres)
    pipeline.database.execute(
        'CREATE SCHEMA app; ALTER TABLE "Event" SET SCHEMA app; ALTER TABLE app."Event" RENAME TO e'
    )
    renamed = pipeline.of(table=TableName("app", "e"))
    adopt_source(renamed.site)
    assert renamed.run().outcome == "held"
    assert [(held.first, held.reason) for held in holds(renamed.dataset, renamed.postgres)] == [(DAY, "case 17")]
    adopt_source(renamed.site)
    assert renamed.count() == 2
    # What is held under the new name hinders nobody under the former one.
    assert pipeline.database.execute("SELECT count(*) FROM public.event_archive_hold") == [(0,)]


def test_a_hold_of_a_former_name_that_is_not_kept_as_it_was_stays(pipeline: Pipeline):
    """A day that is held for another reason under the new name, and all days of a table that bears the former one."""
    pipeline.add(2)
    pipeline.archive()
    hold(pipeline.dataset, DAY, OTHER_DAY, "case 17", pipeline.postgres)
    pipeline.database.execute('ALTER TABLE "Event" RENAME TO e')
    renamed = pipeline.of(table=TableName("public", "e"))
    hold(renamed.dataset, DAY, DAY, "case 18", renamed.postgres)
    adopt_source(renamed.site)
    of_former = "SELECT day FROM event_archive_hold WHERE table_name = 'public.\"Event\"' ORDER BY day"
    assert pipeline.database.execute(of_former) == [(DAY,)]
    pipeline.database.execute('CREATE TABLE "Event" (LIKE e INCLUDING ALL)')
    hold(pipeline.dataset, OTHER_DAY, OTHER_DAY, "case 17", pipeline.postgres)
    adopt_source(renamed.site)
    assert pipeline.database.execute(of_former) == sorted([(DAY,), (OTHER_DAY,)])


@pytest.mark.parametrize(
    ("rename", "name"),
    [
        ('TABLE "Event" RENAME TO e', TableName("public", "e")),
        ('TABLE "Event" SET SCHEMA elsewhere', TableName("elsewhere", "Event")),
        ("SCHEMA public RENAME TO app", TableName("app", "Event")),
    ],
    ids=["table", "moved", "schema"],
)
def test_a_held_day_stays_held_where_a_renamed_table_begins_in_a_new_place(
    pipeline: Pipeline, rename: str, name: TableName
):
    pipeline.database.execute("CREATE SCHEMA elsewhere")
    pipeline.add(2)
    pipeline.archive()
    hold(pipeline.dataset, DAY, DAY, "case 17", pipeline.postgres)
    pipeline.database.execute(f"ALTER {rename}")
    renamed = pipeline.of(table=name, file_prefix="e")
    for action in (renamed.run, lambda: owner(renamed.site), lambda: adopt_source(renamed.site)):
        with pytest.raises(OtherSourceError, match=r'days are held for public\."Event", which is not there'):
            action()
    assert renamed.count() == 2
    assert list(renamed.lake.list(renamed.dataset.folder)) == list(pipeline.lake.list(pipeline.dataset.folder))
    held_in = "public" if name.schema == "elsewhere" else name.schema
    pipeline.database.execute(f"DELETE FROM {held_in}.event_archive_hold")
    assert renamed.run().deleted == 2
    hold(renamed.dataset, DAY, DAY, "case 18", renamed.postgres)
    pipeline.database.execute(f"CREATE TABLE {name.schema}.beside (LIKE {name} INCLUDING ALL)")
    assert renamed.of(table=TableName(name.schema, "beside"), file_prefix="beside").run().outcome == "nothing to do"


def test_a_look_for_holds_runs_nobodys_function(pipeline: Pipeline):
    pipeline.database.execute(
        """CREATE SCHEMA theirs; CREATE TYPE theirs.t AS (name text);
        CREATE FUNCTION theirs.runs(theirs.t) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'it ran'; END $$;
        CREATE CAST (theirs.t AS text) WITH FUNCTION theirs.runs AS IMPLICIT;
        CREATE TABLE theirs.event_archive_hold (table_name theirs.t);
        INSERT INTO theirs.event_archive_hold VALUES (ROW('public.gone'))"""
    )
    pipeline.add(2)
    assert pipeline.run().deleted == 2


HOLDS_OF_ANOTHER = """CREATE SCHEMA theirs; CREATE TABLE theirs.event_archive_hold (table_name text);
INSERT INTO theirs.event_archive_hold VALUES ('theirs.gone');"""


@pytest.fixture
def guest(pipeline: Pipeline) -> Iterator[Pipeline]:
    """Of a role that may read the table, and no more."""
    database, role = pipeline.database, f"guest_{pipeline.database.name}"
    pipeline.add(2)
    database.execute(
        f'CREATE ROLE {role} LOGIN; GRANT SELECT ON "Event" TO {role}; '
        f"GRANT TEMPORARY ON DATABASE {database.name} TO {role}"
    )
    yield Pipeline(database, pipeline.lake, role=role)
    database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    "granted",
    [
        "GRANT SELECT ON theirs.event_archive_hold TO PUBLIC",
        "GRANT USAGE ON SCHEMA theirs TO PUBLIC",
        """GRANT USAGE ON SCHEMA theirs TO PUBLIC; GRANT SELECT ON theirs.event_archive_hold TO PUBLIC;
        ALTER TABLE theirs.event_archive_hold ENABLE ROW LEVEL SECURITY""",
    ],
    ids=["no USAGE", "no SELECT", "row-level security"],
)
def test_holds_of_others_that_a_role_may_not_read_stop_it_from_nothing(guest: Pipeline, granted: str):
    guest.database.execute(f"{HOLDS_OF_ANOTHER} {granted}")
    assert guest.archive().rows == 2


def test_a_temporary_table_of_the_name_of_the_holds_stops_nobody(each_database: Database, local_lake: Lake):
    pipeline = Pipeline(each_database, local_lake)
    pipeline.add(2)
    with psycopg.connect(pipeline.database.dsn) as other:
        other.execute("CREATE TEMPORARY TABLE event_archive_hold (table_name text)")
        other.execute("INSERT INTO event_archive_hold VALUES ('public.gone')")
        other.commit()
        assert pipeline.archive().rows == 2


def test_holds_beside_the_table_that_a_role_may_not_read_are_not_passed_over(guest: Pipeline):
    guest.database.execute("CREATE TABLE event_archive_hold (table_name text)")
    with pytest.raises(RefusedError, match="permission denied for table event_archive_hold"):
        guest.archive()


def test_a_held_day_stays_held_where_the_schema_is_renamed(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.database.execute('CREATE SCHEMA app; ALTER TABLE "Event" SET SCHEMA app')
    before = pipeline.of(table=TableName("app", "Event"))
    before.archive()
    hold(before.dataset, DAY, DAY, "case 17", before.postgres)
    before.database.execute("ALTER SCHEMA app RENAME TO shop")
    renamed = before.of(table=TableName("shop", "Event"))
    adopt_source(renamed.site)
    assert renamed.run().outcome == "held"


def test_a_marker_that_cannot_be_read_keeps_nobody_from_reading(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.run()
    marker = pipeline.lake.stat(marker_path(pipeline.dataset))
    with pipeline.lake.write(marker_path(pipeline.dataset), replaces=marker) as upload:
        upload.write(b"{")
        upload.commit({})
    assert verify_day(pipeline.dataset, DAY, table=None, lake=pipeline.lake).problems == ()
    assert restore_day(pipeline.site, DAY, pipeline.dataset.table).restored == 2
    with pytest.raises(IntegrityError, match="adopt --source"):
        pipeline.archive()
    adopt_source(pipeline.site)
    assert pipeline.run().deleted == 2


def test_a_file_of_another_source_beside_ours_is_not_adopted_with_them(pipeline: Pipeline, elsewhere: Pipeline):
    elsewhere = Pipeline(elsewhere.database, pipeline.lake, replace(pipeline.dataset, file_prefix="theirs"))
    elsewhere.add(2)
    elsewhere.archive()
    pipeline.add(1, day=OTHER_DAY)
    pipeline.archive(OTHER_DAY)
    file = elsewhere.lake.stat(elsewhere.dataset.path(DAY))
    assert file is not None
    pipeline.put(elsewhere.content(), metadata=dict(file.metadata))
    assert adopt_source(pipeline.site).former == ()


def test_a_file_of_another_table_or_day_is_not_read_as_this_ones(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.archive()
    second = pipeline.of(table=EVENT_TWO)
    (problem,) = verify_day(second.dataset, DAY, table=None, lake=pipeline.lake).problems
    assert 'it belongs to public."Event" ' in problem
    file = pipeline.lake.stat(pipeline.dataset.path(DAY))
    assert file is not None
    pipeline.put(pipeline.content(), metadata=dict(file.metadata), day=OTHER_DAY)
    Path(urlparse(pipeline.lake.url(marker_path(pipeline.dataset))).path).unlink()
    problem, *_ = verify_day(pipeline.dataset, OTHER_DAY, table=None, lake=pipeline.lake).problems
    assert "it is the file of 2024-03-01" in problem


def test_files_that_lie_under_the_prefix_of_before_are_noticed(pipeline: Pipeline):
    pipeline.database.execute('CREATE TABLE "Event2" (LIKE "Event" INCLUDING ALL)')
    before = pipeline.of(table=EVENT_TWO)
    before.database.execute("""INSERT INTO "Event2" (event_id, event_type, created_at, payload)
        VALUES ('1', 't', '2024-03-01', '{}')""")
    before.run()
    with pytest.raises(OtherSourceError, match="Set EVENT_FILE_PREFIX to events"):
        pipeline.of(table=EVENT_TWO, file_prefix="Event2").archive(OTHER_DAY)


def test_files_of_another_table_under_the_prefix_of_before_keep_nobody_from_a_prefix_of_its_own(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.run()
    Path(urlparse(pipeline.lake.url(marker_path(pipeline.dataset))).path).unlink()
    pipeline.database.execute('CREATE TABLE "Event2" (LIKE "Event" INCLUDING ALL)')
    assert pipeline.of(table=EVENT_TWO, file_prefix="Event2").archive().rows == 0


def test_files_that_a_renamed_table_took_with_it_keep_nobody_from_the_name_that_it_had(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute(
        'ALTER TABLE "Event" RENAME TO "Event2"; CREATE TABLE "Event" (LIKE "Event2" INCLUDING ALL)'
    )
    adopt_source(pipeline.of(table=EVENT_TWO).site)
    assert pipeline.of(file_prefix="Event").archive().rows == 0


def test_files_under_the_prefix_of_before_keep_nobody_from_going_on_with_its_own(pipeline: Pipeline):
    pipeline.database.execute('CREATE TABLE "Event2" (LIKE "Event" INCLUDING ALL)')
    pipeline.database.execute("""INSERT INTO "Event2" (event_id, event_type, created_at, payload)
        VALUES ('1', 't', '2024-03-01', '{}')""")
    own = pipeline.of(table=EVENT_TWO, file_prefix="Event2")
    assert own.archive().rows == 1
    pipeline.of(table=EVENT_TWO).archive()
    Path(urlparse(own.lake.url(marker_path(own.dataset))).path).unlink()
    assert pipeline.of(table=EVENT_TWO, file_prefix="Event2").archive().rows == 1


def test_a_source_that_is_accepted_again_leaves_the_marker_as_it_is(pipeline: Pipeline):
    adopt_source(pipeline.site)
    marker = pipeline.lake.stat(marker_path(pipeline.dataset))
    adopt_source(pipeline.site)
    assert marker == pipeline.lake.stat(marker_path(pipeline.dataset))


@pytest.mark.parametrize("content", [b"{", Claim(Source("", "d", "t", "c"), 1).to_json() + b" " * 1024 * 1024])
def test_a_marker_that_cannot_be_read_is_said(pipeline: Pipeline, content: bytes):
    with pipeline.lake.write(marker_path(pipeline.dataset), replaces=None) as upload:
        upload.write(content)
        upload.commit({})
    pipeline.add(1)
    with pytest.raises(IntegrityError, match="it says whose files lie here, and it cannot be read"):
        pipeline.archive()


@pytest.mark.parametrize("content", [b"{", b'{"version": 99}'])
def test_of_a_marker_that_only_a_reader_passes_over_it_is_not_said_that_nothing_was_written(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, content: bytes
):
    pipeline.add(1)
    pipeline.run()
    marker = pipeline.lake.stat(marker_path(pipeline.dataset))
    with pipeline.lake.write(marker_path(pipeline.dataset), replaces=marker) as upload:
        upload.write(content)
        upload.commit({})
    assert restore_day(pipeline.site, DAY, target_named(pipeline.dataset)).restored == 1
    assert "it says whose files lie here, and" in caplog.text
    assert "Nothing was written" not in caplog.text
    with pytest.raises(IntegrityError, match=r"it says whose files lie here, and .* Nothing was written or deleted\.$"):
        claim_first(pipeline.site)


def test_a_server_that_does_not_tell_its_identifier_is_known_by_its_databases_name(
    pipeline: Pipeline, elsewhere: Pipeline
):
    for database in (pipeline.database, elsewhere.database):
        database.execute(
            "CREATE ROLE plain_" + database.name + " LOGIN; GRANT pg_read_all_data, pg_write_all_data TO plain_"
            + database.name + '; ALTER TABLE "Event" OWNER TO plain_' + database.name
            + "; REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"
        )  # fmt: skip
    mine = replace_role(pipeline)
    theirs = replace_role(elsewhere)
    mine.add(2)
    mine.run()
    claimed = read_claim(mine.dataset, mine.lake)
    assert claimed is not None
    assert claimed.source.system == ""
    refused_everywhere(theirs, "belongs to")


def replace_role(pipeline: Pipeline) -> Pipeline:
    return Pipeline(pipeline.database, pipeline.lake, role=f"plain_{pipeline.database.name}")

"""Files belong to one table of one database: who else comes to write or delete is refused, who reads is told."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.record import Record
from event_archive.domain.source import Claim, Source
from event_archive.errors import (
    FileChangedError,
    IntegrityError,
    OtherSourceError,
)
from event_archive.operations import claim as claiming
from event_archive.operations import unclaimed
from event_archive.operations.adopt import adopt_day
from event_archive.operations.archive import archive_day
from event_archive.operations.claim import adopt_source, claim_first
from event_archive.operations.marker import claim_to_read, marker_path, read_claim
from event_archive.operations.restore.day import restore_day
from event_archive.operations.restore.target import target_named
from event_archive.operations.unclaimed import require_unclaimed, sources_of_files
from event_archive.operations.verify import verify_day
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.strangers import EVENT_TWO, OTHER_DAY, everything, refused_everywhere

pytestmark = pytest.mark.slow


def test_a_second_database_is_refused_and_the_first_gets_its_own_rows_back(pipeline: Pipeline, stranger: Pipeline):
    pipeline.add(1, prefix="mine")
    stranger.add(1, prefix="theirs")
    pipeline.run()
    stranger.records = dict(pipeline.records)
    name = pipeline.database.name
    refused_everywhere(stranger, rf"belongs to public\.\"Event\" .* of database {name}, .* this is .* database test_")
    restore_day(pipeline.site, DAY, pipeline.dataset.table)
    assert pipeline.database.execute('SELECT event_id FROM "Event"') == [("mine-2024-03-01-0",)]


def test_of_two_first_runs_at_once_the_second_is_refused(
    pipeline: Pipeline, stranger: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(1)
    stranger.add(1)

    def lose(*arguments: Any) -> None:
        require_unclaimed(*arguments)
        monkeypatch.undo()
        stranger.archive(OTHER_DAY)

    monkeypatch.setattr(claiming, "require_unclaimed", lose)
    with pytest.raises(OtherSourceError, match="belongs to"):
        pipeline.archive()
    claimed = read_claim(pipeline.dataset, pipeline.lake)
    assert claimed is not None
    assert claimed.source.database == stranger.database.name
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
    pipeline: Pipeline, stranger: Pipeline, monkeypatch: pytest.MonkeyPatch
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
        adopt_source(stranger.site)
    claimed = read_claim(pipeline.dataset, pipeline.lake)
    assert claimed is not None
    assert claimed.source.table == 'public."Event2"'


def test_what_holds_for_one_database_is_asked_anew_of_another(pipeline: Pipeline, stranger: Pipeline):
    """A connection string may lead to another server from one day to the next, as after a failover."""
    pipeline.add(1)
    stranger.add(1)
    site = pipeline.site
    archive_day(site, DAY)
    with pytest.raises(OtherSourceError, match="belongs to"):
        archive_day(replace(site, postgres=stranger.postgres), OTHER_DAY)


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


def test_a_file_of_another_table_in_the_folder_is_not_taken_over(pipeline: Pipeline, stranger: Pipeline):
    others = Pipeline(stranger.database, pipeline.lake, replace(pipeline.dataset, file_prefix="theirs"))
    others.add(2, prefix="theirs")
    others.archive()
    pipeline.add(2)
    pipeline.archive(OTHER_DAY)
    file = others.lake.stat(others.dataset.path(DAY))
    assert file is not None
    pipeline.put(others.content(), metadata=dict(file.metadata))
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
    pipeline: Pipeline, stranger: Pipeline, caplog: pytest.LogCaptureFixture
):
    pipeline.add(2)
    pipeline.run()
    restored = restore_day(stranger.site, DAY, stranger.dataset.table)
    assert restored.restored == 2
    assert restored.source is not None
    assert restored.source.database == pipeline.database.name
    assert f'holds rows of public."Event" (days by created_at) of database {pipeline.database.name}' in caplog.text
    assert verify_day(stranger.dataset, DAY, table=None, lake=stranger.lake).problems == ()


def test_prefixes_that_begin_alike_are_two_places(pipeline: Pipeline, stranger: Pipeline):
    europe = Pipeline(stranger.database, pipeline.lake, replace(pipeline.dataset, file_prefix="events_eu"))
    europe.add(2)
    europe.archive()
    pipeline.add(2)
    assert pipeline.run().deleted == 2
    assert adopt_source(pipeline.site).former == ()


def test_what_the_owner_did_not_tell_is_learnt_from_the_first_who_does():
    unknown = Claim(Source("", "shop", "public.t", "at"), 1)
    learnt = unknown.admitting(Source("111", "shop", "public.t", "at"), 1, 0, place="here")
    assert learnt.source.system == "111"
    with pytest.raises(OtherSourceError):
        learnt.admitting(Source("222", "shop", "public.t", "at"), 1, 0, place="here")


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


def test_a_file_of_another_source_beside_ours_is_not_adopted_with_them(pipeline: Pipeline, stranger: Pipeline):
    others = Pipeline(stranger.database, pipeline.lake, replace(pipeline.dataset, file_prefix="theirs"))
    others.add(2)
    others.archive()
    pipeline.add(1, day=OTHER_DAY)
    pipeline.archive(OTHER_DAY)
    file = others.lake.stat(others.dataset.path(DAY))
    assert file is not None
    pipeline.put(others.content(), metadata=dict(file.metadata))
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
    pipeline: Pipeline, stranger: Pipeline
):
    for database in (pipeline.database, stranger.database):
        database.execute(
            f"""CREATE ROLE plain_{database.name} LOGIN; ALTER TABLE "Event" OWNER TO plain_{database.name};
            GRANT pg_read_all_data, pg_write_all_data TO plain_{database.name};
            REVOKE EXECUTE ON FUNCTION pg_control_system(), pg_control_checkpoint() FROM PUBLIC;
            REVOKE EXECUTE ON FUNCTION pg_current_wal_flush_lsn() FROM PUBLIC"""
        )
    mine, theirs = replace_role(pipeline), replace_role(stranger)
    mine.add(2)
    mine.run()
    claimed = read_claim(mine.dataset, mine.lake)
    assert claimed is not None
    assert (claimed.source.system, claimed.position) == ("", 0)
    refused_everywhere(theirs, "belongs to")


def replace_role(pipeline: Pipeline) -> Pipeline:
    return Pipeline(pipeline.database, pipeline.lake, role=f"plain_{pipeline.database.name}")

"""Folders and files from before the marker, or under the prefix of before, and who may claim them."""

import logging
from pathlib import Path
from urllib.parse import urlparse

import pytest

from event_archive.domain.source import Claim, Source
from event_archive.errors import (
    IntegrityError,
    OtherSourceError,
)
from event_archive.operations.claim import adopt_source, unclaimed_elsewhere
from event_archive.operations.marker import marker_path, read_claim
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.strangers import EVENT_TWO, OTHER_DAY, as_before, refused_everywhere

pytestmark = pytest.mark.slow


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
    pipeline: Pipeline, stranger: Pipeline, caplog: pytest.LogCaptureFixture
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
    refused_everywhere(stranger, "belongs to")


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


def test_files_from_before_make_nobody_else_an_owner():
    mine = Source("111", "shop", "public.t", "at")
    before = Source("", "", "public.t", "")
    adopted = Claim(mine, 1).adopted_by(mine, 1, 0, [before])
    assert adopted.former == ()
    assert not adopted.holds(Source("222", "staging", "public.t", "at"))
    assert adopted.holds(before)

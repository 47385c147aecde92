"""What is shown of an operation as it goes: phases, and in none of them more than the file."""

import pytest

from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.adopt import adopt_day
from event_archive.operations.archive import archive_day
from event_archive.operations.purge import purge_day
from event_archive.operations.restore.day import restore_day
from event_archive.operations.restore.target import target_named
from event_archive.operations.verify import verify_day
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.progress import Seen, SeenPhase


@pytest.fixture
def archived(pipeline: Pipeline) -> Pipeline:
    pipeline.add(20)
    pipeline.archive()
    return pipeline


def archive(pipeline: Pipeline) -> Seen:
    seen = Seen()
    done = archive_day(pipeline.site, DAY, progress=seen)
    pipeline.records[DAY] = done.record
    return seen


def purge(pipeline: Pipeline) -> Seen:
    seen = Seen()
    purge_day(pipeline.site, DAY, pipeline.records[DAY], dry_run=False, progress=seen)
    return seen


def whole(name: str, content: bytes) -> SeenPhase:
    return SeenPhase(name, len(content), 0, len(content))  # type: ignore[arg-type]


def test_a_first_export_shows_every_row_and_byte(pipeline: Pipeline):
    pipeline.add(20)
    seen = archive(pipeline)
    # PostgreSQL sends the header as one message more, which is no row.
    assert seen.phases == [SeenPhase("exporting", None, 20, len(pipeline.content()))]


def test_an_append_reads_back_the_file_and_exports_the_late_rows(archived: Pipeline):
    before = archived.content()
    archived.add(5, prefix="late")
    added = len(archive(archived).phases) and len(archived.content()) - len(before)
    archived.add(7, prefix="later")
    between = archived.content()
    seen = archive(archived)
    assert added > 0
    assert seen.phases == [
        whole("reading back", between),
        SeenPhase("exporting", None, 7, len(archived.content()) - len(between)),
    ]


def test_a_rewrite_reads_the_file_twice_in_two_phases_and_exports_it_in_one(archived: Pipeline):
    before = archived.content()
    archived.database.execute("ALTER TABLE \"Event\" ADD COLUMN extra text DEFAULT 'x'")
    archived.add(5, prefix="late")
    seen = archive(archived)
    assert seen.phases == [
        whole("reading back", before),
        whole("reading as text", before),
        SeenPhase("exporting", None, 45, len(archived.content())),
    ]


def test_an_unchanged_day_has_no_phase(archived: Pipeline):
    archived.purge()
    assert archive(archived).phases == []


def test_a_purge_reads_back_then_compares_and_deletes(archived: Pipeline):
    assert purge(archived).phases == [
        whole("reading back", archived.content()),
        SeenPhase("comparing and deleting"),
    ]


def test_a_read_back_that_starts_over_as_text_is_shown_from_its_beginning(archived: Pipeline):
    archived.database.execute('ALTER TABLE "Event" ALTER payload TYPE int USING 1, ALTER event_type TYPE text')
    seen = purge(archived)
    assert seen.names() == ["reading back", "reading back", "comparing and deleting"]
    assert seen.phases[1] == whole("reading back", archived.content())
    assert seen.phases[0].total_bytes == len(archived.content())


def test_a_restore_shows_each_reading_and_the_restoring(archived: Pipeline):
    content = archived.content()
    archived.put(content)
    seen = Seen()
    restore_day(archived.site, DAY, target_named(archived.dataset), progress=seen)
    assert seen.phases == [
        whole("reading back", content),
        whole("reading as text", content),
        SeenPhase("restoring"),
    ]


def test_an_adoption_shows_its_readings_and_the_writing(archived: Pipeline):
    content = archived.content()
    archived.put(content)
    seen = Seen()
    adopt_day(archived.site, DAY, progress=seen)
    # A phase for each reading, and the one in which the file is written.
    assert seen.phases == [whole(name, content) for name in ("reading back", "reading as text", "adopting")]


def test_a_verification_is_one_phase(archived: Pipeline):
    seen = Seen()
    verify_day(archived.dataset, DAY, table=None, lake=archived.lake, progress=seen)
    assert seen.phases == [whole("verifying", archived.content())]


def test_a_large_record_makes_a_verification_begin_anew(pipeline: Pipeline):
    pipeline.database.execute(
        """INSERT INTO "Event" (event_id, event_type, created_at, payload)
        SELECT n, 't', '2024-03-01', jsonb_build_object('x', repeat('y', 3000000)) FROM generate_series(1, 2) AS n"""
    )
    pipeline.archive()
    seen = Seen()
    verify_day(pipeline.dataset, DAY, table=None, lake=pipeline.lake, progress=seen)
    assert seen.names() == ["verifying", "verifying"]
    assert all(phase.bytes == phase.total_bytes == len(pipeline.content()) for phase in seen.phases)


def test_a_day_whose_rows_are_all_in_the_file_is_not_read(archived: Pipeline, monkeypatch: pytest.MonkeyPatch):
    archived.purge()
    read: list[str] = []
    original = type(archived.lake).read

    def counted(lake: Lake, file: StoredFile):
        read.extend([file.path] if archived.dataset.day_of(file.path) else [])
        return original(lake, file)

    monkeypatch.setattr(type(archived.lake), "read", counted)
    assert archived.archive().rows == 20
    assert read == []
    archived.add(1, prefix="late")
    archived.archive()
    assert read == [archived.dataset.path(DAY)]


def test_what_an_archive_records_is_what_a_purge_goes_by(pipeline: Pipeline):
    empty = pipeline.archive()
    assert (empty.record.etag, empty.record.rows, empty.record.bytes) == (None, 0, 0)
    pipeline.add(3)
    done = pipeline.archive()
    assert (done.record.etag, done.record.rows, done.record.bytes) == (done.etag, 3, len(pipeline.content()))
    assert done.record.seconds == done.seconds
    assert purge_day(pipeline.site, DAY, done.record, dry_run=False).deleted == 3

"""What archive and purge do to a day, on each PostgreSQL and each kind of lake: rows on time, late, changed."""

import hashlib
import json
from datetime import date

import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.manifest import Manifest
from event_archive.errors import RefusedError
from event_archive.operations.purge import purge_day
from event_archive.operations.restore.day import restore_day
from event_archive.operations.site import Site
from event_archive.postgres.session import Postgres
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.progress import Seen

EVERYTHING = 'SELECT id, event_id, event_type, created_at::text, processed_at::text, payload FROM "Event" ORDER BY id'


def test_a_day_is_archived_then_purged(each_pipeline: Pipeline):
    each_pipeline.add(100)
    each_pipeline.add(7, day=date(2024, 3, 2))
    before = each_pipeline.database.execute(EVERYTHING)
    archived = each_pipeline.archive()
    purged = each_pipeline.purge()
    assert (archived.rows, archived.rows_appended) == (100, 100)
    assert (purged.deleted, purged.left, purged.outcome) == (100, 0, "purged")
    in_file = [
        (
            int(r["id"]),
            r["event_id"],
            r["event_type"],
            r["created_at"],
            r["processed_at"] or None,
            json.loads(r["payload"]),
        )
        for r in each_pipeline.records_of_file()
    ]
    assert in_file == before[:100]
    assert each_pipeline.database.execute(EVERYTHING) == before[100:]


def test_the_manifest_describes_the_file(each_pipeline: Pipeline):
    each_pipeline.add(10)
    archived = each_pipeline.archive()
    content = each_pipeline.content()
    file = each_pipeline.lake.stat(archived.path)
    assert file is not None
    assert Manifest.from_file(file) == archived.manifest
    assert archived.manifest is not None
    assert archived.manifest.bytes == len(content)
    assert archived.manifest.sha256 == hashlib.sha256(content).hexdigest()
    assert archived.etag == file.etag


def test_archiving_again_leaves_the_file_as_it_is(each_pipeline: Pipeline):
    each_pipeline.add(10)
    first = each_pipeline.archive()
    second = each_pipeline.archive()
    each_pipeline.purge()
    third = each_pipeline.archive()
    assert [first.etag] * 2 == [second.etag, third.etag]
    assert (second.rows, second.rows_appended, third.rows, third.rows_appended) == (10, 0, 10, 0)
    assert each_pipeline.purge().deleted == 0


def test_late_rows_are_appended_then_purged(each_pipeline: Pipeline):
    each_pipeline.add(10)
    each_pipeline.run()
    before = each_pipeline.content()
    each_pipeline.add(5, prefix="late")
    archived = each_pipeline.archive()
    assert each_pipeline.purge().deleted == 5
    assert (archived.rows, archived.rows_appended) == (15, 5)
    assert each_pipeline.content().startswith(before)
    assert len(set(each_pipeline.values("event_id"))) == 15
    assert each_pipeline.count() == 0


def test_late_rows_beside_archived_ones_are_written_once(each_pipeline: Pipeline):
    each_pipeline.add(10)
    each_pipeline.archive()
    each_pipeline.add(5, prefix="late")
    each_pipeline.run()
    assert sorted(each_pipeline.values("event_id")) == sorted(set(each_pipeline.values("event_id")))
    assert len(each_pipeline.records_of_file()) == 15


def test_a_row_that_changed_stays_until_its_new_form_is_archived(each_pipeline: Pipeline):
    each_pipeline.add(3)
    each_pipeline.archive()
    each_pipeline.database.execute("""UPDATE "Event" SET payload = '{"changed": true}' WHERE id = 2""")
    first = each_pipeline.purge()
    assert (first.deleted, first.left) == (2, 1)
    assert each_pipeline.run().deleted == 1
    assert each_pipeline.records_of_file()[-1]["payload"] == '{"changed": true}'
    assert len(each_pipeline.records_of_file()) == 4


def test_a_row_that_went_from_a_to_b_and_back_ends_in_the_file_as_a(each_pipeline: Pipeline):
    each_pipeline.add(2)
    each_pipeline.archive()
    for event_type in ("B", "A"):
        each_pipeline.database.execute('UPDATE "Event" SET event_type = %s WHERE id = 1', event_type)
        each_pipeline.archive()
    each_pipeline.database.execute("UPDATE \"Event\" SET event_type = 'order.created' WHERE id = 1")
    each_pipeline.archive()
    assert each_pipeline.purge().deleted == 2
    assert [r["event_type"] for r in each_pipeline.records_of_file() if r["id"] == "1"] == [
        "order.created", "B", "A", "order.created",
    ]  # fmt: skip


def test_a_row_whose_superseded_form_is_in_the_file_stays(each_pipeline: Pipeline):
    each_pipeline.add(2)
    each_pipeline.archive()
    each_pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 1")
    each_pipeline.archive()
    each_pipeline.database.execute("UPDATE \"Event\" SET event_type = 'order.created' WHERE id = 1")
    purged = each_pipeline.purge()
    assert (purged.deleted, purged.left) == (1, 1)


def test_former_forms_in_a_file_put_no_error_into_postgresqls_log(pipeline: Pipeline):
    log = pipeline.database.server.socket_dir / "log"
    began = log.stat().st_size
    pipeline.add(2)
    for kind in "BCD":
        pipeline.archive()
        pipeline.database.execute(f"UPDATE \"Event\" SET event_type = '{kind}'")
    assert pipeline.run().deleted == 2
    restored = restore_day(pipeline.site, DAY, TableName("public", "restored"))
    assert (restored.restored, restored.superseded) == (2, 6)
    said = log.read_bytes()[began:].decode()
    assert "ERROR" not in said, said


def test_a_dry_run_proves_and_deletes_nothing(each_pipeline: Pipeline):
    each_pipeline.add(10)
    each_pipeline.archive()
    dry = each_pipeline.purge(dry_run=True)
    assert (dry.deleted, dry.proven, dry.outcome) == (0, 10, "dry run")
    assert each_pipeline.count() == 10
    assert each_pipeline.run().deleted == 10
    assert len(each_pipeline.records_of_file()) == 10


def test_a_day_without_rows_gets_no_file(each_pipeline: Pipeline):
    archived = each_pipeline.archive()
    assert (archived.rows, archived.etag, archived.manifest) == (0, None, None)
    assert each_pipeline.lake.stat(archived.path) is None
    assert each_pipeline.purge().deleted == 0


def test_rows_that_come_after_an_empty_day_was_archived_stay(pipeline: Pipeline):
    pipeline.archive()
    pipeline.add(3)
    purged = pipeline.purge()
    assert (purged.outcome, purged.deleted, purged.left) == ("nothing to do", 0, 3)


def test_a_column_that_was_added_widens_the_file(each_pipeline: Pipeline):
    each_pipeline.add(2)
    each_pipeline.run()
    each_pipeline.database.execute("ALTER TABLE \"Event\" ADD COLUMN origin text NOT NULL DEFAULT 'web'")
    each_pipeline.add(1, prefix="late")
    archived = each_pipeline.archive()
    assert each_pipeline.purge().deleted == 1
    assert (archived.rows, archived.rows_appended) == (3, 1)
    assert each_pipeline.values("origin") == ["", "", "web"]


def test_a_row_that_gained_a_value_since_it_was_archived_stays(each_pipeline: Pipeline):
    each_pipeline.add(2)
    each_pipeline.archive()
    each_pipeline.database.execute("ALTER TABLE \"Event\" ADD COLUMN origin text NOT NULL DEFAULT 'web'")
    assert (each_pipeline.purge().deleted, each_pipeline.count()) == (0, 2)
    assert each_pipeline.run().deleted == 2
    assert each_pipeline.values("origin") == ["", "", "web", "web"]


def test_a_column_that_was_added_without_a_value_changes_nothing(pipeline: Pipeline):
    pipeline.add(2)
    first = pipeline.archive()
    pipeline.database.execute('ALTER TABLE "Event" ADD COLUMN origin text')
    assert pipeline.archive().etag == first.etag
    assert pipeline.purge().deleted == 2


def test_a_column_that_was_dropped_stays_in_the_file(each_pipeline: Pipeline):
    each_pipeline.add(3)
    each_pipeline.archive()
    each_pipeline.database.execute('ALTER TABLE "Event" DROP COLUMN processed_at')
    each_pipeline.database.execute(
        "INSERT INTO \"Event\" (event_id, event_type, created_at, payload) VALUES ('late', 't', '2024-03-01', '{}')"
    )
    assert each_pipeline.run().deleted == 4
    assert each_pipeline.values("processed_at") == ["2024-03-01 01:00:00", "", "", ""]


def test_values_that_no_longer_parse_are_kept_as_text(each_pipeline: Pipeline):
    each_pipeline.add(3)
    each_pipeline.database.execute('ALTER TABLE "Event" ADD COLUMN ok boolean DEFAULT true')
    each_pipeline.archive()
    each_pipeline.database.execute('ALTER TABLE "Event" ALTER COLUMN event_type TYPE int USING length(event_type)')
    assert each_pipeline.purge().deleted == 0
    first = each_pipeline.archive()
    assert (first.rows, first.rows_appended) == (6, 3)
    assert each_pipeline.archive().etag == first.etag
    assert each_pipeline.purge().deleted == 3
    assert each_pipeline.values("event_type")[3:] == ["13", "19", "13"]
    assert each_pipeline.values("event_type")[0] == "order.created"


def test_a_foreign_key_that_forbids_the_delete_rolls_the_day_back(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.database.execute('CREATE TABLE note (event bigint REFERENCES "Event"); INSERT INTO note VALUES (2)')
    pipeline.archive()
    with pytest.raises(RefusedError, match="still refer"):
        pipeline.purge()
    assert pipeline.count() == 3


def test_a_role_that_may_not_delete_is_told_what_it_needs(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute('CREATE ROLE reader LOGIN; GRANT SELECT ON "Event" TO reader')
    reader = Pipeline(pipeline.database, pipeline.lake, records=pipeline.records)
    seen = Seen()
    try:
        with pytest.raises(RefusedError, match="SELECT and DELETE on the table"):
            purge_day(
                Site(
                    reader.dataset,
                    Postgres(pipeline.database.server.dsn(pipeline.database.name, "reader")),
                    pipeline.lake,
                ),
                DAY,
                pipeline.records[DAY],
                dry_run=False,
                progress=seen,
            )
    finally:
        pipeline.database.execute("DROP OWNED BY reader; DROP ROLE reader")
    assert pipeline.count() == 3
    assert seen.phases == [], "the file was read, which may take hours"


def test_rows_are_archived_by_time_then_key(pipeline: Pipeline):
    pipeline.database.execute(
        """INSERT INTO "Event" (id, event_id, event_type, created_at, payload)
        SELECT n, n::text, 't', '2024-03-01 12:00'::timestamp - (n / 2) * interval '1 minute', '{}'
        FROM generate_series(1, 6) AS n"""
    )
    pipeline.archive()
    assert pipeline.values("id") == ["6", "4", "5", "2", "3", "1"]

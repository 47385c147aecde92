"""What a column held that the table does not have any more stays with its row, whatever forms of the row come later."""

from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.restoring import restoring


def test_what_a_dropped_column_held_comes_back_although_a_column_with_a_default_made_other_forms_of_the_rows(
    each_pipeline: Pipeline,
):
    each_pipeline.add(3)
    each_pipeline.run()
    database, restore = each_pipeline.database, restoring(each_pipeline)
    database.execute('ALTER TABLE "Event" DROP COLUMN processed_at, ADD COLUMN fresh int NOT NULL DEFAULT 5')
    assert restore(in_place=True).restored == 3
    assert each_pipeline.run().deleted == 3
    assert (restore().restored, restore().superseded) == (3, 3)
    assert database.execute('SELECT id, processed_at, fresh FROM "Event_restored" ORDER BY id') == [
        (1, "2024-03-01 01:00:00", 5), (2, None, 5), (3, None, 5),
    ]  # fmt: skip


def test_what_a_dropped_column_held_stays_with_a_row_whose_file_is_read_as_text(each_pipeline: Pipeline):
    each_pipeline.add(2)
    each_pipeline.archive()
    each_pipeline.database.execute(
        'ALTER TABLE "Event" DROP COLUMN processed_at, ALTER COLUMN event_type TYPE int USING 7'
    )
    assert each_pipeline.run().deleted == 2
    assert each_pipeline.values("processed_at") == ["2024-03-01 01:00:00", "", "2024-03-01 01:00:00", ""]


def test_another_row_that_gets_the_key_of_a_purged_one_takes_nothing_over_from_it(pipeline: Pipeline):
    pipeline.add(1)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" DROP COLUMN processed_at')
    pipeline.database.execute(
        f"INSERT INTO \"Event\" VALUES (1, 'another', 'late', '{DAY} 23:00', '{{}}')",
    )
    assert pipeline.run().deleted == 1
    assert pipeline.values("processed_at") == ["2024-03-01 01:00:00", ""]

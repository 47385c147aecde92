"""What a column held that the table does not have any more stays with its row, whatever forms of the row come later."""

import pytest

from event_archive.errors import IntegrityError
from event_archive.operations.adopt import adopt_day
from event_archive.operations.claim import adopt_source
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_table
from event_archive_tests.fixtures.restoring import manifest_of, restoring


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


@pytest.mark.parametrize(
    "types",
    [("timestamp", "timestamptz"), ("timestamptz", "timestamp"), ("date", "timestamp"), ("timestamptz", "date")],
)
@pytest.mark.parametrize("renamed", [False, True])
def test_what_a_dropped_column_held_stays_with_a_row_whose_time_column_changes(
    pipeline: Pipeline, types: tuple[str, str], renamed: bool
):
    """The values are read as text, since one has another type, or as those of a column that the table has not."""
    of = of_table(pipeline, f"CREATE TABLE t (id int PRIMARY KEY, at {types[0]}, gone text, n text)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}', 'held', 'x')")
    of.archive()
    of.database.execute(f"""ALTER TABLE t DROP gone, ALTER n TYPE int USING 7, ALTER at TYPE {types[1]}""")
    if renamed:
        of.database.execute("ALTER TABLE t RENAME at TO since")
    of = of.of(time_column="since" if renamed else "at")
    adopt_source(of.site)
    assert of.run().deleted == 1
    assert of.values("gone") == ["held", "held"]


def test_what_a_dropped_column_held_stays_with_a_row_that_is_archived_by_another_column(each_pipeline: Pipeline):
    each_pipeline.database.execute('ALTER TABLE "Event" ADD done timestamp')
    each_pipeline.add(2)
    each_pipeline.archive()
    each_pipeline.database.execute(f'ALTER TABLE "Event" DROP COLUMN processed_at; UPDATE "Event" SET done = \'{DAY}\'')
    switched = each_pipeline.of(time_column="done")
    adopt_source(switched.site)
    assert switched.run().deleted == 2
    assert switched.values("processed_at") == ["2024-03-01 01:00:00", "", "2024-03-01 01:00:00", ""]


def test_what_a_dropped_column_held_stays_with_a_row_whose_key_and_time_column_are_renamed(each_pipeline: Pipeline):
    each_pipeline.add(2)
    each_pipeline.archive()
    each_pipeline.database.execute('ALTER TABLE "Event" DROP COLUMN processed_at')
    for former, new in (("id", "number"), ("created_at", "at")):
        each_pipeline.database.execute(f'ALTER TABLE "Event" RENAME {former} TO {new}')
    renamed = each_pipeline.of(time_column="at")
    adopt_source(renamed.site)
    with pytest.raises(
        IntegrityError, match=r"is now called \(number\)\. .*Write that name into the file's first line"
    ):
        renamed.archive()
    content = renamed.content().replace(b"id,", b"number,", 1)
    renamed.put(content, metadata=manifest_of(renamed).to_metadata())
    adopt_day(renamed.site, DAY)
    assert renamed.run().deleted == 2
    assert renamed.values("processed_at") == ["2024-03-01 01:00:00", "", "2024-03-01 01:00:00", ""]


@pytest.mark.parametrize("type_", ["timestamptz NOT NULL DEFAULT now()", "text DEFAULT 'noon'"])
def test_what_a_dropped_column_held_stays_with_a_row_whose_time_column_is_renamed_and_its_name_given_to_another(
    pipeline: Pipeline, type_: str
):
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, gone text)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY} 12:00', 'held')")
    of.archive()
    of.database.execute("ALTER TABLE t RENAME at TO since")
    of.database.execute(f"ALTER TABLE t DROP gone, ADD at {type_}")
    of = of.of(time_column="since")
    adopt_source(of.site)
    assert of.run().deleted == 1
    assert of.values("gone") == ["held", "held"]


def test_a_former_time_column_that_holds_something_else_by_now_tells_nothing(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamp, since timestamp, gone text)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}', '{DAY}', 'held'), (2, '{DAY}', NULL, 'held')")
    of.archive()
    of.database.execute(
        f"UPDATE t SET since = '{DAY} 05:00' WHERE id = 2; "
        "ALTER TABLE t DROP gone, ALTER at TYPE bigint USING extract(epoch FROM at)"
    )
    of = of.of(time_column="since")
    adopt_source(of.site)
    assert of.run().deleted == 2
    assert of.values("gone") == ["held", "held", "held", ""]


def test_another_row_that_gets_the_key_of_a_purged_one_takes_nothing_over_from_it(pipeline: Pipeline):
    pipeline.add(1)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" DROP COLUMN processed_at')
    pipeline.database.execute(
        f"INSERT INTO \"Event\" VALUES (1, 'another', 'late', '{DAY} 23:00', '{{}}')",
    )
    assert pipeline.run().deleted == 1
    assert pipeline.values("processed_at") == ["2024-03-01 01:00:00", ""]

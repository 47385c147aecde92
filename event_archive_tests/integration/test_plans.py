"""What PostgreSQL does for a day stays proportional to the day, however large the table around it."""

import re
from datetime import UTC, datetime

import pytest
from psycopg import sql

from event_archive.domain.days import ONE_DAY
from event_archive.domain.progress import NO_PROGRESS
from event_archive.lake.local.folder import LocalLake
from event_archive.nightly.backlog import aged_rows, backlog, days_to_do
from event_archive.operations.loading import load
from event_archive.operations.restore.day import restore_day
from event_archive.operations.restore.target import target_named
from event_archive.table.shape import reflect
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.waiting import until

OTHER_DAYS = 120


OTHER_SESSIONS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


def sequential_scans(pipeline: Pipeline) -> int:
    """How often the whole table was read since it was made; a session reports when it ends, if not before."""
    until(lambda: pipeline.database.execute(OTHER_SESSIONS) == [])
    ((count,),) = pipeline.database.execute(
        "SELECT seq_scan FROM pg_stat_user_tables WHERE relid = '\"Event\"'::regclass"
    )
    assert isinstance(count, int)
    return count


@pytest.fixture
def among_many(each_database: Database, local_lake: LocalLake) -> Pipeline:
    """A day of a thousand rows in a table of sixty thousand others, analysed as autovacuum would."""
    first = DAY - OTHER_DAYS // 2 * ONE_DAY
    pipeline = Pipeline(each_database, local_lake)
    each_database.execute(
        """INSERT INTO "Event" (event_id, event_type, created_at, payload)
        SELECT 'other-' || n, 'other', %s::timestamp + n * interval '1 day' / 500, '{"n": 1}'
        FROM generate_series(1, %s) AS n WHERE (%s::timestamp + n * interval '1 day' / 500)::date <> %s""",
        first,
        OTHER_DAYS * 500,
        first,
        DAY,
    )
    pipeline.add(1000)
    each_database.execute('ANALYZE "Event"')
    return pipeline


def test_no_step_of_a_day_reads_the_whole_table(among_many: Pipeline):
    pipeline, now = among_many, datetime.now(UTC)
    before = sequential_scans(pipeline)

    def none_for(what: str) -> None:
        assert sequential_scans(pipeline) == before, what

    assert len(days_to_do(pipeline.dataset, now, pipeline.postgres).days) >= OTHER_DAYS
    none_for("the schedule")
    assert aged_rows(pipeline.dataset, DAY, pipeline.postgres).rows == 1000
    none_for("aged_events")
    assert pipeline.archive().rows == 1000
    none_for("the first export")
    pipeline.add(100, prefix="late")
    assert pipeline.archive().rows_appended == 100
    none_for("an append")
    assert pipeline.purge(dry_run=True).proven == 1100
    none_for("a dry run")
    assert pipeline.purge().deleted == 1100
    none_for("a purge")
    restored = restore_day(pipeline.site, DAY, target_named(pipeline.dataset))
    assert restored.restored == 1100
    none_for("a restore")


def test_rows_are_sought_in_a_file_by_their_key(among_many: Pipeline):
    """Else every row of the day would be compared with every one of the file."""
    of, path = among_many, among_many.dataset.path(DAY)
    of.archive()
    file = of.lake.stat(path)
    assert file is not None
    with of.postgres.transaction("test") as connection:
        table = reflect(connection, of.dataset)
        readback = load(connection, table, of.lake, file, NO_PROGRESS)
        query = sql.SQL("EXPLAIN SELECT FROM {}, {} WHERE {} AND {}").format(
            table.rows, readback.current, table.within(DAY, DAY), readback.identical
        )
        plan = "\n".join(line for (line,) in connection.execute(query))
    assert re.search(r"(Hash|Merge|Index) Cond: .*\bid\b", plan), plan


def test_a_scan_of_the_whole_table_would_be_seen(among_many: Pipeline):
    before = sequential_scans(among_many)
    assert backlog(among_many.dataset, datetime.now(UTC), among_many.postgres, grace_days=0).days >= OTHER_DAYS
    assert sequential_scans(among_many) > before

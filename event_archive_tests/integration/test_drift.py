"""Tables that change under the archive, or are of a kind that it refuses; purges that something comes between."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import BusyError, IntegrityError, RefusedError, UnreachableError
from event_archive.operations import deleting, purge
from event_archive.operations.purge import purge_day
from event_archive.table import rows
from event_archive_tests.fixtures.pipeline import DAY, Pipeline


def test_a_row_of_another_day_that_stands_in_the_file_stays(each_pipeline: Pipeline):
    """A file of another tool may hold anything; only rows of its day are deleted by it."""
    each_pipeline.add(2)
    each_pipeline.add(1, day=date(2026, 11, 1), prefix="young")
    each_pipeline.archive()
    with psycopg.connect(each_pipeline.database.dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SET datestyle = ISO; SET timezone = UTC")
        with cursor.copy('COPY "Event" TO STDOUT (FORMAT csv, HEADER)') as copy:
            everything = b"".join(copy)
    each_pipeline.put(everything)
    each_pipeline.archive()
    assert each_pipeline.purge().deleted == 2
    assert each_pipeline.count() == 1


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("CREATE TABLE c (a int, at date, FOREIGN KEY (a, at) REFERENCES p ON DELETE CASCADE)", "CASCADE"),
        (
            "CREATE TABLE other (a int); CREATE RULE r AS ON DELETE TO t DO ALSO DELETE FROM other",
            "a rule on DELETE, r",
        ),
        ("CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING", "a rule on DELETE, r"),
    ],
)
def test_what_would_delete_more_or_less_is_refused(pipeline: Pipeline, definition: str, words: str):
    pipeline.database.execute(
        "CREATE TABLE t (a int, at date, PRIMARY KEY (a, at)) PARTITION BY RANGE (at);"
        "CREATE TABLE p PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');" + definition
    )
    with pytest.raises(RefusedError, match=words):
        pipeline.of(table=TableName("public", "t"), time_column="at").archive()


def test_a_partitioned_table_is_archived_and_purged(each_pipeline: Pipeline):
    each_pipeline.database.execute(
        "CREATE TABLE t (a int, at date, PRIMARY KEY (a, at)) PARTITION BY RANGE (at);"
        "CREATE TABLE p1 PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('2024-03-01');"
        "CREATE TABLE p2 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');"
        "INSERT INTO t SELECT n, '2024-02-28'::date + n FROM generate_series(0, 4) AS n"
    )
    of = each_pipeline.of(table=TableName("public", "t"), time_column="at")
    assert [of.run(day).deleted for day in (date(2024, 2, 29), DAY)] == [1, 1]
    assert of.count() == 3


def test_a_key_that_is_not_yet_validated_is_none(pipeline: Pipeline):
    pipeline.database.execute(
        "CREATE TABLE t (a int UNIQUE, at date); INSERT INTO t VALUES (NULL, '2024-03-01');"
        "ALTER TABLE t ADD CONSTRAINT later NOT NULL a NOT VALID"
    )
    with pytest.raises(RefusedError, match="has no key"):
        pipeline.of(table=TableName("public", "t"), time_column="at").archive()


def test_rows_that_a_policy_hides_make_the_day_fail_instead_of_look_done(pipeline: Pipeline):
    pipeline.add(4)
    pipeline.database.execute(
        'ALTER TABLE "Event" ENABLE ROW LEVEL SECURITY; CREATE POLICY half ON "Event" USING (id %% 2 = 0);'
        'CREATE ROLE half LOGIN; GRANT SELECT, DELETE ON "Event" TO half'.replace("%%", "%")
    )
    limited = Pipeline(pipeline.database, pipeline.lake, role="half")
    try:
        with pytest.raises(RefusedError, match="row-level security"):
            limited.archive()
    finally:
        pipeline.database.execute("DROP OWNED BY half; DROP ROLE half")


def test_a_trigger_that_keeps_rows_is_named(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    pipeline.add(3)
    pipeline.database.execute(
        """CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER keep BEFORE DELETE ON "Event" FOR EACH ROW WHEN (OLD.id = 2) EXECUTE FUNCTION keep()"""
    )
    purged = pipeline.run()
    assert (purged.outcome, purged.deleted, purged.left) == ("kept", 2, 1)
    assert purged.reason
    assert purged.reason.startswith("1 row stays although the file holds them: a trigger")
    assert "(keep)" in purged.reason
    assert purged.reason in caplog.text
    assert "The next run appends them" not in caplog.text


def test_a_file_that_vanishes_while_its_rows_are_deleted_rolls_back(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(3)
    pipeline.archive()
    original = type(pipeline.lake).stat
    asked: list[str] = []

    def vanishing(lake: object, path: str):
        asked.append(path)
        return original(lake, path) if asked.count(pipeline.dataset.path(DAY)) < 2 else None  # type: ignore[arg-type]

    monkeypatch.setattr(type(pipeline.lake), "stat", vanishing)
    with pytest.raises(IntegrityError, match="is gone from the lake"):
        pipeline.purge()
    assert pipeline.count() == 3


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE \"Event\" ADD COLUMN extra text DEFAULT 'x'",
        'ALTER TABLE "Event" DISABLE TRIGGER ALL',
        'CREATE TABLE child (event bigint REFERENCES "Event" ON DELETE CASCADE)',
    ],
)
def test_nothing_of_the_table_can_change_between_the_comparison_and_the_delete(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, change: str
):
    """A column added there could not be compared, and its values would be lost."""
    pipeline.add(3)
    pipeline.archive()
    original = deleting.delete_identical
    blocked: list[bool] = []

    def delete_while_somebody_alters(*arguments: Any) -> int:
        with psycopg.connect(pipeline.database.dsn) as other, pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute(f"SET lock_timeout = '50ms'; {change}".encode())
        blocked.append(True)
        return original(*arguments)

    monkeypatch.setattr(purge, "delete_identical", delete_while_somebody_alters)
    assert pipeline.purge().deleted == 3
    assert blocked == [True]


def test_a_deferred_foreign_key_that_fails_at_the_commit_is_said(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.database.execute(
        'CREATE TABLE note (event bigint REFERENCES "Event" DEFERRABLE INITIALLY DEFERRED); INSERT INTO note VALUES (2)'
    )
    pipeline.archive()
    with pytest.raises(RefusedError, match="still refer"):
        pipeline.purge()
    assert pipeline.count() == 3


def test_a_connection_lost_before_the_commit_is_an_unreachable_service(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(3)
    pipeline.archive()
    original = rows.count_day

    def count_then_end(connection: psycopg.Connection, *arguments: object):
        found = original(connection, *arguments)  # type: ignore[arg-type]
        pipeline.database.execute("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        return found

    monkeypatch.setattr("event_archive.operations.deleting.count_day", count_then_end)
    with pytest.raises(UnreachableError):
        pipeline.purge()
    assert pipeline.count() == 3


def test_consumers_of_a_replication_slot_can_tell_a_purge(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute('CREATE PUBLICATION events FOR TABLE "Event"')
    pipeline.database.execute("SELECT pg_create_logical_replication_slot('consumer', 'pgoutput')")
    try:
        # The first one is rolled back, and says nothing.
        for dry_run in (True, False):
            purged = purge_day(
                pipeline.site,
                DAY,
                pipeline.records[DAY],
                dry_run=dry_run,
                message_prefix="event_archive",
            )
        # The test servers do not wait for the disk; a slot shows only what has reached it.
        pipeline.database.execute("SET LOCAL synchronous_commit TO on; CREATE TABLE flushed ()")
        changes = pipeline.database.execute(
            "SELECT data FROM pg_logical_slot_get_binary_changes('consumer', NULL, NULL, 'proto_version', '1', "
            "'publication_names', 'events', 'messages', 'true')"
        )
    finally:
        pipeline.database.execute("SELECT pg_drop_replication_slot('consumer')")
    assert purged.deleted == 2
    kinds = [bytes(data) for (data,) in changes]  # type: ignore[call-overload]
    messages = [kind for kind in kinds if kind.startswith(b"M")]
    assert len(messages) == 1
    assert b"event_archive" in messages[0]
    assert b'{"table": "public.\\"Event\\"", "day": "2024-03-01"}' in messages[0]
    assert [kind[:1] for kind in kinds if kind[:1] in (b"M", b"D")] == [b"M", b"D", b"D"]


def test_a_purge_waits_for_a_table_lock_no_longer_than_it_may(pipeline: Pipeline):
    pipeline.add(1)
    pipeline.archive()
    with psycopg.connect(pipeline.database.dsn) as other:
        other.execute('LOCK TABLE "Event" IN ACCESS EXCLUSIVE MODE')
        with pytest.raises(BusyError, match="holds a lock"):
            pipeline.purge()
    assert pipeline.purge().deleted == 1


@pytest.mark.parametrize("trigger", [False, True], ids=["no trigger", "trigger"])
def test_rows_that_move_to_another_partition_while_the_purge_waits_for_them_stay(pipeline: Pipeline, trigger: bool):
    pipeline.database.execute(
        "CREATE TABLE t (a int, at timestamp, PRIMARY KEY (a, at)) PARTITION BY RANGE (at);"
        "CREATE TABLE p1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-01 12:00');"
        "CREATE TABLE p2 PARTITION OF t FOR VALUES FROM ('2024-03-01 12:00') TO ('2024-03-02');"
        "CREATE TABLE p3 PARTITION OF t FOR VALUES FROM ('2024-03-02') TO ('2024-03-03');"
        "INSERT INTO t SELECT n, '2024-03-01 01:00' FROM generate_series(1, 5) AS n"
    )
    if trigger:
        pipeline.database.execute(
            "CREATE FUNCTION let_go() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';"
            "CREATE TRIGGER let_go BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION let_go()"
        )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    of.archive()
    with psycopg.connect(pipeline.database.dsn) as mover, ThreadPoolExecutor(1) as thread:
        mover.execute("UPDATE t SET at = '2024-03-02 05:00' WHERE a = 3")
        mover.execute("UPDATE t SET at = '2024-03-01 15:00' WHERE a = 4")
        purged = thread.submit(of.purge)
        with psycopg.connect(pipeline.database.dsn, autocommit=True) as watch:
            while not watch.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
                pass
        mover.commit()
        with pytest.raises(BusyError, match="moved to another partition"):
            purged.result()
    assert of.count() == 5
    assert of.run().deleted == 4
    assert of.run(date(2024, 3, 2)).deleted == 1

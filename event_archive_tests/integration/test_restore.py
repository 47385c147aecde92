"""Rows come back from the files as they were, and nothing that stands is changed."""

import re
import runpy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import Retention
from event_archive.errors import BusyError, ConfigurationError, IntegrityError, NoSuchTableError, RefusedError
from event_archive.operations.claim import adopt_source
from event_archive.operations.restore.day import RestoredDay, days_with_file, restore_day
from event_archive.operations.restore.target import target_named
from event_archive.table.holds import hold
from event_archive.table.locks import lock_day
from event_archive_tests.fixtures.meanwhile import while_reading
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.restoring import COARSE, checksum, restoring
from event_archive_tests.fixtures.statements import LOGS_COMMANDS, OF_EVERY_TYPE, TYPES


def test_archived_purged_and_restored_a_day_equals_the_original(each_pipeline: Pipeline):
    each_pipeline.add(500)
    before = checksum(each_pipeline.database, '"Event"')
    assert each_pipeline.run().deleted == 500
    done = restoring(each_pipeline)()
    assert (done.restored, done.skipped, done.superseded) == (500, 0, 0)
    assert checksum(each_pipeline.database, '"Event_restored"') == before


def test_thirty_types_come_back_as_they_were(each_pipeline: Pipeline):
    database = each_pipeline.database
    database.execute(OF_EVERY_TYPE)
    samples = {
        "words": "E'a,\"b\"\\n\\\\.\\n'", "fixed": "'ab'", "raw": "'\\x00ff'", "exact": "'1.500'", "single": "'-0'",
        "double": "'1e-310'", "flag": "false", "letter": "'x'", "document": "'{\"b\":1, \"a\":2,\"a\":3}'",
        "binary_document": "'[1e400, 1.50, \"\\u00e9\"]'", "moment": "'0044-03-15 BC'", "zoned": "'infinity'",
        "day": "'-infinity'", "clock": "'01:02:03.4+05:30'", "span": "'1 year -2 days 03:04:05.678'",
        "numbers": "'[5:6]={1,NULL}'", "texts": "ARRAY['', NULL, 'NULL', '{\"']", "mood": "''",
        "pair": "'(1,\"a \"\"b\"\"\")'",
        "address": "'10.1.2.3/8'", "network": "'10.0.0.0/8'", "cash": "'-1234.56'", "bits": "B'0101'",
        "numbers_range": "'[1,5)'", "spans": "'{[2020-01-01,2020-02-01)}'", "point": "'(1.1,-0)'",
        "search": "$$'a b':1A$$", "positive": "7",
    }  # fmt: skip
    assert samples.keys() == TYPES.keys()
    for n in range(3):
        values = ", ".join(samples.values() if n else ["NULL"] * len(samples))
        database.execute(
            f"INSERT INTO anything (key, part, at, {', '.join(samples)}) VALUES ('k,{n}', {n}, '{DAY}', {values})"
        )
    before = checksum(database, "anything", "part")
    of = each_pipeline.of(table=TableName("public", "anything"), time_column="at")
    assert of.run().deleted == 3
    assert restoring(of)(in_place=True).restored == 3
    assert checksum(database, "anything", "part") == before
    restoring(of)("copy")
    assert checksum(database, "copy", "part") == before


def test_a_second_restore_adds_nothing(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(5)
    pipeline.run()
    restore()
    again = restore()
    assert (again.restored, again.skipped) == (0, 5)


def test_of_a_key_with_several_versions_the_last_is_restored(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(3)
    pipeline.archive()
    for event_type in ("B", "C"):
        pipeline.database.execute('UPDATE "Event" SET event_type = %s WHERE id = 2', event_type)
        pipeline.archive()
    pipeline.purge()
    done = restore()
    assert (done.restored, done.superseded) == (3, 2)
    assert pipeline.database.execute('SELECT event_type FROM "Event_restored" WHERE id = 2') == [("C",)]


def test_several_days_share_one_table(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    days = [date(2024, 3, n) for n in (1, 2, 4)]
    for day in days:
        pipeline.add(2, day=day)
        pipeline.run(day)
    found = days_with_file(pipeline.dataset, pipeline.lake, date(2024, 3, 1), date(2024, 3, 31))
    assert found == days
    assert sum(restore(day=day).restored for day in found) == 6


def test_rows_do_not_get_another_time_where_the_time_column_was_renamed(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" RENAME created_at TO made_at')
    for time_column in ("created_at", "made_at"):
        with pytest.raises(RefusedError, match="has no column created_at any more, which says when each row was"):
            restore_day(pipeline.of(time_column=time_column).site, DAY, pipeline.dataset.table)
    assert pipeline.count() == 0


def test_nor_do_those_that_were_archived_by_a_column_that_was_renamed_before_others_came(pipeline: Pipeline):
    pipeline.database.execute('ALTER TABLE "Event" ALTER created_at DROP NOT NULL')
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" RENAME created_at TO made_at')
    of = pipeline.of(time_column="made_at")
    adopt_source(of.site)
    late = f"INSERT INTO \"Event\" VALUES (99, 'late', 'x', '{DAY} 05:00', NULL, '{{}}')"
    of.database.execute(late)
    assert of.run().deleted == 1
    with pytest.raises(
        RefusedError, match="2 rows of it have no made_at, and what says when they were may be in a column"
    ):
        restore_day(of.site, DAY, of.dataset.table)
    assert of.count() == 0
    assert restoring(of)().restored == 3


def test_a_row_that_stands_is_never_changed(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(4)
    pipeline.run()
    restore()
    pipeline.database.execute(
        'UPDATE "Event_restored" SET event_type = \'mine\' WHERE id = 2; DELETE FROM "Event_restored" WHERE id = 4'
    )
    before = checksum(pipeline.database, '"Event_restored"')
    with pytest.raises(IntegrityError, match=r"1 row with other values stands .* under a key \(id\)"):
        restore()
    assert checksum(pipeline.database, '"Event_restored"') == before


def test_a_row_that_was_changed_since_is_kept_by_what_a_refused_restore_advises(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(4)
    pipeline.run()
    hold(pipeline.dataset, DAY, DAY, "a correction", pipeline.postgres)
    restore(in_place=True)
    pipeline.database.execute(
        'UPDATE "Event" SET event_type = \'corrected\' WHERE id = 2; DELETE FROM "Event" WHERE id = 4'
    )
    with pytest.raises(
        IntegrityError, match="archive the day again, which keeps its new form: event-archive run 2024-03-01"
    ) as refused:
        restore(in_place=True)
    assert "remove" not in str(refused.value)
    pipeline.run()
    done = restore(in_place=True)
    assert (done.restored, done.skipped, done.superseded) == (1, 3, 1)
    assert pipeline.count("event_type = 'corrected'") == 1


def test_nobody_is_told_to_archive_a_day_again_that_is_not_aged(pipeline: Pipeline):
    pipeline.add(4)
    pipeline.run()
    younger = restoring(pipeline.of(retention=Retention.parse("30 years")))
    younger(in_place=True)
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'corrected' WHERE id = 2")
    with pytest.raises(IntegrityError, match="1 row with other values stands") as refused:
        younger(in_place=True)
    assert "event-archive run" not in str(refused.value)


def test_in_place_says_that_the_night_purges_again(
    pipeline: Pipeline, restore: Callable[..., RestoredDay], caplog: pytest.LogCaptureFixture
):
    pipeline.add(4)
    before = checksum(pipeline.database, '"Event"')
    pipeline.run()
    assert restore(in_place=True).restored == 4
    assert checksum(pipeline.database, '"Event"') == before
    assert "archives and purges these rows again, unless the day is held" in caplog.text
    assert pipeline.run().deleted == 4
    # Of a day that is not aged any more, no night does.
    caplog.clear()
    retention = Retention.parse("30 years")
    restoring(pipeline.of(retention=retention))(in_place=True)
    assert "archives and purges" not in caplog.text


def test_generated_and_identity_columns_are_restored_in_place(pipeline: Pipeline):
    pipeline.database.execute(
        """CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at date, n int,
        twice int GENERATED ALWAYS AS (n * 2) STORED);
        INSERT INTO t (at, n) SELECT '2024-03-01', n FROM generate_series(1, 3) AS n"""
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    before = checksum(pipeline.database, "t")
    of.run()
    restoring(of)(in_place=True)
    assert checksum(pipeline.database, "t") == before


def test_columns_that_only_the_file_has_come_back_as_text(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(3)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" DROP COLUMN processed_at, ADD COLUMN fresh int NOT NULL DEFAULT 5')
    assert restore().restored == 3
    assert pipeline.database.execute('SELECT id, processed_at, fresh FROM "Event_restored" ORDER BY id') == [
        (1, "2024-03-01 01:00:00", None), (2, None, None), (3, None, None),
    ]  # fmt: skip
    assert restore().skipped == 3
    assert restore(in_place=True).restored == 3
    assert pipeline.database.execute('SELECT DISTINCT fresh FROM "Event"') == [(5,)]


def test_columns_are_added_where_an_event_trigger_names_its_tables_without_a_schema(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" DROP COLUMN processed_at')
    pipeline.database.execute(LOGS_COMMANDS)
    assert restore().restored == 2
    assert pipeline.database.execute('SELECT count(processed_at) FROM "Event_restored"') == [(1,)]
    assert ("ALTER TABLE",) in pipeline.database.execute("SELECT tag FROM commands")


def test_values_that_no_longer_parse_are_refused_with_what_to_do(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" ALTER COLUMN event_type TYPE int USING 0')
    with pytest.raises(RefusedError, match="with text for the columns in question: --table"):
        restore()
    pipeline.database.execute(
        "CREATE TABLE mine (id bigint PRIMARY KEY, event_id text, event_type text, created_at timestamp, "
        "processed_at text, payload json)"
    )
    assert restore("mine").restored == 2


OTHER_APP = "CREATE TABLE mine (id bigint PRIMARY KEY, created_at timestamp, note text)"
PARTITION = """DROP TABLE "Event"; CREATE TABLE "Event" (id int, event_id text, event_type text, created_at timestamp,
processed_at timestamp, payload jsonb, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at);
CREATE TABLE mine PARTITION OF "Event" FOR VALUES FROM ('2024-03-01') TO ('2024-03-02')"""


@pytest.mark.parametrize(
    ("prepare", "target", "error", "words"),
    [
        (OTHER_APP, "mine", RefusedError, "mine lacks columns of it: event_id, event_type, processed_at, payload"),
        (COARSE, "mine", IntegrityError, r"1 row of it would be lost in public.mine, whose key is \(event_type\)"),
        (
            """CREATE TABLE mine (LIKE "Event"); ALTER TABLE mine ADD tenant int, ADD PRIMARY KEY (id, tenant)""",
            "mine",
            RefusedError,
            "it lacks tenant, which the key of public.mine needs",
        ),
        (PARTITION, "mine", RefusedError, 'mine is a partition, a child or a parent of public."Event"'),
        ("CREATE VIEW mine AS SELECT 1 AS id", "mine", RefusedError, "--table must name"),
        ("", "nowhere.mine", NoSuchTableError, "Create that schema, or name another table with --table"),
        (
            'ALTER TABLE "Event" ADD tenant text NOT NULL',
            None,
            RefusedError,
            "If the file lacks the column, give it a default",
        ),
        (
            'ALTER TABLE "Event" ALTER processed_at SET NOT NULL',
            None,
            RefusedError,
            r"If the file has it, allow NULL \(ALTER TABLE … ALTER COLUMN … DROP NOT NULL\)",
        ),
        (
            'CREATE TABLE p (e text PRIMARY KEY); ALTER TABLE "Event" ADD FOREIGN KEY (event_id) REFERENCES p',
            None,
            RefusedError,
            "refer to are gone: put those back first",
        ),
        (
            f"""CREATE TABLE mine (LIKE "Event" INCLUDING ALL, UNIQUE (event_id));
            INSERT INTO mine VALUES (99, 'evt-{DAY}-1', 'x', now(), now(), '{{}}')""",
            "mine",
            RefusedError,
            "or two rows of the file have it. .* restore into a table where it is not unique",
        ),
    ],
)
def test_what_cannot_be_filled_is_refused_with_what_to_do(
    pipeline: Pipeline, prepare: str, target: str | None, error: type[Exception], words: str
):
    pipeline.add(3)
    pipeline.run()
    tables = (
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    )
    if prepare:
        pipeline.database.execute(prepare)
    before = pipeline.database.execute(tables)
    with pytest.raises(error, match=words) as refused:
        restoring(pipeline)(target, in_place=target is None)
    # Nothing of an event is told.
    assert "comma" not in str(refused.value)
    assert pipeline.database.execute(tables) == before
    assert pipeline.count() == 0


@pytest.mark.parametrize(
    "prepare",
    [
        'CREATE TABLE ref (e bigint REFERENCES "Event" (id) ON DELETE CASCADE)',
        'CREATE RULE r AS ON DELETE TO "Event" DO ALSO NOTIFY x',
        'DROP TABLE "Event"',
    ],
)
@pytest.mark.parametrize("ready", [False, True])
def test_a_source_that_may_not_be_archived_any_more_keeps_nobody_from_a_restore(
    pipeline: Pipeline, prepare: str, ready: bool
):
    pipeline.add(3)
    pipeline.run()
    if ready:
        pipeline.database.execute('CREATE TABLE mine (LIKE "Event" INCLUDING ALL)')
    pipeline.database.execute(prepare)
    if ready or "DROP" not in prepare:
        assert restoring(pipeline)("mine").restored == 3
    else:
        with pytest.raises(RefusedError, match="EVENT_TABLE names it"):
            restoring(pipeline)("mine")


def test_a_row_that_is_inserted_at_this_moment_asks_for_another_restore(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    """Its key stood in no snapshot of the restore, and no column beside the key has anything to do with it."""
    pipeline.add(3)
    row = 'SELECT * FROM "Event" WHERE id = 2'
    pipeline.database.execute(f'CREATE TABLE "Event_restored" (LIKE "Event" INCLUDING ALL); CREATE TABLE kept AS {row}')
    pipeline.run()
    with (
        psycopg.connect(pipeline.database.dsn) as watch,
        psycopg.connect(pipeline.database.dsn) as inserting,
        ThreadPoolExecutor(1) as pool,
    ):
        inserting.execute('INSERT INTO "Event_restored" SELECT * FROM kept')
        done = pool.submit(restore)
        while not watch.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
            watch.rollback()
        inserting.commit()
        with pytest.raises(RefusedError, match="inserted meanwhile under the same key, restore the day again"):
            done.result()
    again = restore()
    assert (again.restored, again.skipped) == (2, 1)


def test_two_restores_at_once_share_a_new_table(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    days = [DAY, date(2024, 3, 2)]
    for day in days:
        pipeline.add(2, day=day)
        pipeline.run(day)
    with (
        psycopg.connect(pipeline.database.dsn) as watch,
        psycopg.connect(pipeline.database.dsn) as blocker,
        ThreadPoolExecutor(2) as pool,
    ):
        blocker.execute('CREATE TABLE "Event_restored" ()')
        done = [pool.submit(restore, day=day) for day in days]
        while len(watch.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall()) < 2:
            watch.rollback()
        blocker.rollback()
        assert [one.result().restored for one in done] == [2, 2]


def test_a_row_that_moved_to_another_day_is_told_with_the_way_out(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    later = date(2024, 3, 2)
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute("UPDATE \"Event\" SET created_at = '2024-03-02 05:00' WHERE id = 1")
    pipeline.purge()
    pipeline.run(later)
    assert pipeline.count() == 0
    assert restore().restored == 2
    with pytest.raises(IntegrityError, match=r"moved to another day.*both days' files hold it.*--table"):
        restore(day=later)
    assert restore("later", day=later).restored == 1


def test_a_row_that_moved_away_is_found_in_a_table_that_is_divided_by_its_key(pipeline: Pipeline):
    pipeline.database.execute(
        """CREATE TABLE t (id int PRIMARY KEY, at timestamp) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (1) TO (10);
        INSERT INTO t VALUES (1, '2024-03-01'), (2, '2024-03-01')"""
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    of.run()
    pipeline.database.execute("INSERT INTO t VALUES (2, '2024-03-09')")
    with pytest.raises(IntegrityError, match="1 row with other values stands in public.t"):
        restoring(of)(in_place=True)


def test_a_target_in_partitions_whose_times_are_text_is_filled(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.run()
    pipeline.database.execute(
        """CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id, created_at)) PARTITION BY HASH (id);
        ALTER TABLE mine ALTER created_at TYPE text;
        CREATE TABLE mine1 PARTITION OF mine FOR VALUES WITH (MODULUS 1, REMAINDER 0)"""
    )
    assert restoring(pipeline)("mine").restored == 3


def test_a_column_that_the_file_lacks_gets_its_default(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute("ALTER TABLE \"Event\" ADD COLUMN origin text DEFAULT 'web'")
    assert restore(in_place=True).restored == 2
    assert pipeline.count("origin = 'web'") == 2


def test_a_target_that_is_altered_while_the_file_is_read_is_noticed(
    pipeline: Pipeline, restore: Callable[..., RestoredDay], monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(2)
    pipeline.run()
    migration = 'ALTER TABLE "Event" ADD COLUMN more text'
    with (
        while_reading(monkeypatch, pipeline.lake, lambda: pipeline.database.execute(migration)),
        pytest.raises(BusyError, match="the table was altered"),
    ):
        restore(in_place=True)
    assert pipeline.count() == 0
    assert restore(in_place=True).restored == 2


def test_a_file_that_contradicts_its_manifest_is_not_restored(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(2)
    archived = pipeline.archive()
    file = pipeline.lake.stat(archived.path)
    assert file is not None
    pipeline.put(pipeline.content().replace(b"evt", b"EVT", 1), metadata=dict(file.metadata))
    with pytest.raises(IntegrityError, match="its manifest says sha256"):
        restore()
    with pytest.raises(psycopg.errors.UndefinedTable):
        pipeline.database.execute('SELECT FROM "Event_restored"')


PAGE = (Path(__file__).parents[2] / "docs/files.md").read_text()


def test_the_documented_ways_to_read_a_file_work(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pipeline.add(3)
    pipeline.database.execute(
        """ALTER TABLE "Event" ALTER payload DROP NOT NULL; UPDATE "Event" SET payload = NULL WHERE id = 1;
        UPDATE "Event" SET payload = to_jsonb(repeat('x', 200000)) WHERE id = 2"""
    )
    before = checksum(pipeline.database, '"Event"')
    pipeline.run()
    (tmp_path / "events_2024-03-01.csv").write_bytes(pipeline.content())
    (tmp_path / "sample.py").write_text(PAGE.split("```python\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    last = runpy.run_path("sample.py")
    assert last["payload"]["n"] == 2
    (copy,) = re.findall(r"^\\(copy .*)$", PAGE, re.MULTILINE)
    load = copy.replace("'events_2024-03-01.csv'", "STDIN")
    _copy(pipeline.database, load, pipeline.content())
    assert checksum(pipeline.database, '"Event"') == before
    pipeline.database.execute('DELETE FROM "Event"')
    other = pipeline.content().replace(b"event_type", b"event_kind", 1)
    with pytest.raises(psycopg.errors.BadCopyFileFormat):
        _copy(pipeline.database, load, other)


def _copy(database: Database, statement: str, content: bytes) -> None:
    with (
        psycopg.connect(database.dsn) as connection,
        connection.cursor() as cursor,
        cursor.copy(statement.encode()) as rows,
    ):
        rows.write(content)


def test_a_day_without_a_file_is_refused(restore: Callable[..., RestoredDay]):
    with pytest.raises(
        RefusedError, match=r"//.*/events_\d{4}-\d\d-\d\d\.csv: there is no file, so there is nothing to restore"
    ):
        restore()


def test_a_restore_waits_for_the_purge_of_its_day(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(2)
    pipeline.archive()
    with pipeline.postgres.transaction("a purge") as connection:
        assert lock_day(connection, pipeline.dataset, DAY)
        words = "another command has been working on 2024-03-01 .*Nothing was restored: restore the day again"
        with pytest.raises(BusyError, match=words):
            restore()


@pytest.mark.parametrize(
    ("name", "target"),
    [(None, 'public."Event_restored"'), ("copy", "public.copy"), ('other."A.b"', 'other."A.b"')],
)
def test_the_target_is_named(pipeline: Pipeline, name: str | None, target: str):
    assert str(target_named(pipeline.dataset, name)) == target


@pytest.mark.parametrize(("name", "words"), [("Event", "--in-place"), ("a.b.c", "--table"), ("x" * 64, "--table")])
def test_a_wrong_target_is_refused(pipeline: Pipeline, name: str, words: str):
    with pytest.raises(ConfigurationError, match=words):
        target_named(pipeline.dataset, name)

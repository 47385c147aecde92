"""Rows come back from the files as they were, and nothing that stands is changed."""

import re
import runpy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import Retention
from event_archive.domain.manifest import Manifest
from event_archive.errors import BusyError, ConfigurationError, IntegrityError, NoSuchTableError, RefusedError
from event_archive.lake.protocol import Lake
from event_archive.operations.restore import losses, sequences
from event_archive.operations.restore.day import RestoredDay, days_with_file, restore_day
from event_archive.operations.restore.target import target_named
from event_archive.postgres.catalogue.sequences import Position, Sequence, position_of
from event_archive.postgres.session import Connection
from event_archive.table.holds import hold
from event_archive.table.locks import lock_day
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.progress import Seen
from event_archive_tests.integration.test_any_content import COLUMNS, TABLE
from event_archive_tests.integration.test_landing import LOGS_COMMANDS
from event_archive_tests.integration.test_what_a_delete_reaches import CI, while_reading

CHECKSUM = "SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY {key})) FROM {table} AS t"


def checksum(database: Database, table: str, key: str = "id") -> object:
    return database.execute(CHECKSUM.format(table=table, key=key))


@pytest.fixture
def restore(pipeline: Pipeline) -> Callable[..., RestoredDay]:
    return restoring(pipeline)


def restoring(pipeline: Pipeline) -> Callable[..., RestoredDay]:
    def call(name: str | None = None, *, day: date = DAY, in_place: bool = False) -> RestoredDay:
        target = target_named(pipeline.dataset, name, in_place=in_place)
        return restore_day(pipeline.site, day, target)

    return call


def test_archived_purged_and_restored_a_day_equals_the_original(each_pipeline: Pipeline):
    each_pipeline.add(500)
    before = checksum(each_pipeline.database, '"Event"')
    assert each_pipeline.run().deleted == 500
    done = restoring(each_pipeline)()
    assert (done.restored, done.skipped, done.superseded) == (500, 0, 0)
    assert checksum(each_pipeline.database, '"Event_restored"') == before


def test_thirty_types_come_back_as_they_were(each_pipeline: Pipeline):
    database = each_pipeline.database
    database.execute(TABLE)
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
    assert samples.keys() == COLUMNS.keys()
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
COARSE = 'CREATE TABLE mine AS TABLE "Event" WITH NO DATA; ALTER TABLE mine ADD PRIMARY KEY (event_type)'
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
            "give the column a default, or use --table",
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
            "unique column beside the key has that value, use --table, and compare the two",
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


def test_a_table_keyed_by_another_unique_column_is_filled(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 2")
    pipeline.run()
    pipeline.database.execute(
        'CREATE TABLE mine AS TABLE "Event" WITH NO DATA; ALTER TABLE mine ADD PRIMARY KEY (event_id)'
    )
    done = restore("mine")
    assert (done.restored, done.superseded) == (3, 1)


def test_a_row_that_shares_a_part_of_its_key_with_one_that_stands_is_restored(pipeline: Pipeline):
    pipeline.database.execute(
        """CREATE TABLE t (a int, b int, at date, PRIMARY KEY (a, b));
        INSERT INTO t VALUES (1, 1, '2024-03-01'), (1, 2, '2024-03-01'), (2, 2, '2024-03-01')"""
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    of.archive()
    of.database.execute("DELETE FROM t WHERE b = 2")
    restored = restore_day(of.site, DAY, of.dataset.table)
    assert (restored.restored, restored.skipped) == (2, 1)


def test_a_key_that_tells_forms_of_one_row_apart_brings_none_back(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event" INCLUDING DEFAULTS, PRIMARY KEY (id, created_at))')
    pipeline.database.execute("CREATE TABLE other (LIKE mine INCLUDING ALL)")
    pipeline.database.execute("UPDATE \"Event\" SET created_at = created_at + interval '1 hour' WHERE id = 2")
    restored = restore("mine").restored
    pipeline.run()
    with pytest.raises(IntegrityError, match=r"1 row of it .* beside a later form, whose key is \(id, created_at\)"):
        restore("other")
    assert (restored, pipeline.database.execute("SELECT count(*) FROM other")) == (3, [(0,)])


WIDENED = """ALTER TABLE "Event" DROP CONSTRAINT "Event_event_id_key", DROP CONSTRAINT "Event_pkey",
ADD PRIMARY KEY (id, created_at)"""
MOVED = "UPDATE \"Event\" SET created_at = created_at + interval '1 hour' WHERE id = 2"


def test_rows_of_a_finer_key_are_not_merged_where_the_source_is_gone(pipeline: Pipeline):
    database = pipeline.database
    database.execute("CREATE TABLE n (id int, region text, at timestamp, PRIMARY KEY (id, region))")
    database.execute("INSERT INTO n VALUES (1, 'a', '2024-03-01'), (1, 'b', '2024-03-01')")
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    assert of.run().deleted == 2
    database.execute("DROP TABLE n; CREATE TABLE coarse (id int PRIMARY KEY, region text, at timestamp)")
    database.execute("CREATE TABLE fine (id int, region text, at timestamp, PRIMARY KEY (region, id))")
    with pytest.raises(
        IntegrityError,
        match=r"1 row .* lost in public.coarse, whose key is \(id\): its rows are told apart by \(id, region\)",
    ):
        restoring(of)("coarse")
    assert database.execute("SELECT FROM coarse") == []
    assert restoring(of)("fine").restored == 2


def test_a_form_that_another_row_of_the_targets_key_replaces_is_not_taken_for_the_former_one(pipeline: Pipeline):
    pipeline.database.execute("CREATE TABLE t (a int PRIMARY KEY, b int, at timestamp)")
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    for change in (
        "INSERT INTO t VALUES (1, 10, '2024-03-01')",
        "UPDATE t SET b = 20",
        "DELETE FROM t; INSERT INTO t VALUES (2, 20, '2024-03-01')",
    ):
        pipeline.database.execute(change)
        of.archive()
    pipeline.database.execute("CREATE TABLE mine (a int, b int PRIMARY KEY, at timestamp)")
    with pytest.raises(IntegrityError, match=r"1 row of it would be lost in public\.mine, whose key is \(b\)"):
        restoring(of)("mine")


def test_a_key_that_was_widened_brings_no_former_form_back(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute(MOVED)
    assert pipeline.run().deleted == 3
    pipeline.database.execute(WIDENED)
    with pytest.raises(
        IntegrityError,
        match=r"1 row of it .* beside a later form, whose key is \(id, created_at\): .* replaces it by \(id\)\.",
    ):
        restore(in_place=True)
    assert pipeline.count() == 0
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id))')
    done = restore("mine")
    assert (done.restored, done.superseded) == (3, 1)


def test_rows_of_two_keys_come_back_where_both_keep_the_same(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute(WIDENED)
    pipeline.add(1, prefix="late")
    pipeline.run()
    assert manifest_of(pipeline).keys == (("id",), ("id", "created_at"))
    assert restore(in_place=True).restored == 3
    pipeline.database.execute(MOVED)
    pipeline.run()
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id))')
    for name in ("mine", None):
        with pytest.raises(IntegrityError, match="Load the file into a table without a key"):
            restore(name)


def test_rows_that_have_no_value_of_a_later_key_replace_none_by_it(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(3)
    pipeline.run()
    pipeline.database.execute(
        """ALTER TABLE "Event" DROP CONSTRAINT "Event_event_id_key", DROP CONSTRAINT "Event_pkey",
        ADD code int DEFAULT 7, ADD PRIMARY KEY (code)"""
    )
    pipeline.add(1, prefix="late")
    pipeline.run()
    assert manifest_of(pipeline).keys == (("id",), ("code",))
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id))')
    pipeline.database.execute("ALTER TABLE mine ALTER code DROP NOT NULL")
    assert restore("mine").restored == 4


def test_a_row_that_went_back_before_the_key_was_widened_is_not_restored_as_it_was_between(
    database: Database, lake: Lake
):
    pipeline = Pipeline(database, lake)
    pipeline.add(3)
    pipeline.archive()
    database.execute(MOVED)
    pipeline.archive()
    content = pipeline.content()
    database.execute(MOVED.replace("+", "-"))
    database.execute(WIDENED)
    # The wider key finds the row in the file, where by the former one another form is the last.
    with pytest.raises(IntegrityError, match=r"key is \(id, created_at\), .* under \(id\)\. Nothing was deleted"):
        pipeline.purge()
    assert pipeline.run().deleted == 3
    assert pipeline.content() == content
    assert manifest_of(pipeline).keys == (("id",), ("id", "created_at"))
    etag = pipeline.records[DAY].etag
    database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id))')
    for name in ("mine", None):
        with pytest.raises(IntegrityError, match="nobody can tell"):
            restoring(pipeline)(name)
    assert pipeline.archive().etag == etag


def test_a_file_from_before_goes_by_the_key_of_the_source(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(3)
    pipeline.archive()
    pipeline.put(pipeline.content(), metadata=replace(manifest_of(pipeline), keys=()).to_metadata())
    pipeline.database.execute(MOVED)
    pipeline.run()
    assert manifest_of(pipeline).keys == ()
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id, created_at))')
    with pytest.raises(IntegrityError, match=r"replaces it by \(id\), the present key of public.\"Event\"\."):
        restore("mine")
    pipeline.database.execute(WIDENED)
    assert restore("mine").restored == 4


def test_a_file_from_before_whose_source_is_gone_goes_by_the_key_of_the_target(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(3)
    pipeline.archive()
    pipeline.put(pipeline.content(), metadata=replace(manifest_of(pipeline), keys=()).to_metadata())
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id)); DROP TABLE "Event"')
    assert restore("mine").restored == 3


def test_of_a_file_from_before_the_part_of_the_key_that_it_holds_counts(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.run()
    pipeline.put(pipeline.content(), metadata=replace(manifest_of(pipeline), keys=()).to_metadata())
    pipeline.database.execute(COARSE)
    pipeline.database.execute(WIDENED.replace("ADD PRIMARY KEY (id,", "ADD tenant int, ADD PRIMARY KEY (id, tenant,"))
    with pytest.raises(IntegrityError, match=r"1 row of it would be lost .* told apart by \(id, created_at\)"):
        restoring(pipeline)("mine")
    # Rows that agree in a part of a key are no forms of one row.
    pipeline.database.execute('ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey", ADD PRIMARY KEY (event_type, tenant)')
    pipeline.database.execute('CREATE TABLE whole (LIKE "Event" INCLUDING DEFAULTS, PRIMARY KEY (id))')
    pipeline.database.execute("ALTER TABLE whole ALTER tenant DROP NOT NULL")
    assert restoring(pipeline)("whole").restored == 3


def manifest_of(pipeline: Pipeline) -> Manifest:
    file = pipeline.lake.stat(pipeline.dataset.path(DAY))
    manifest = Manifest.from_file(file) if file else None
    assert manifest is not None
    return manifest


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


NARROWED = """CREATE TABLE n (id int PRIMARY KEY, at timestamp, v {})"""


@pytest.mark.parametrize(
    ("was", "value", "now"),
    [
        ("numeric", "1.23456", "numeric(10,2)"),
        ("double precision", "0.123456789012", "real"),
        ("timestamp", "2024-02-02 03:04:05", "date"),
        ("timestamp", "2024-02-02 03:04:05.678", "timestamp(0)"),
        ("text", "2024-02-02 03:04:05-05", "timestamp"),
        ("time", "01:02:03.456", "time(0)"),
        ("numeric[]", "{1.23456}", "numeric(10,2)[]"),
        ("json", '{"b":1, "a":2, "a":3}', "jsonb"),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_what_todays_types_would_cut_short_is_not_restored_into_them(
    pipeline: Pipeline, was: str, value: str, now: str, in_place: bool
):
    of = narrowed(pipeline, was, value, now)
    with pytest.raises(RefusedError, match=r"would lose something as the types of .*: v \(1 row\).*--table NAME"):
        restoring(of)(in_place=in_place)
    assert of.count() == 0
    pipeline.database.execute("CREATE TABLE mine (id int PRIMARY KEY, at timestamp, v text)")
    assert restoring(of)("mine").restored == 1
    assert pipeline.database.execute("SELECT v FROM mine") == [(value,)]


@pytest.mark.parametrize(
    ("was", "value", "now"),
    [
        ("int", "1", "numeric(10,2)"),
        ("real", "0.1", "double precision"),
        ("date", "2024-02-02", "timestamptz"),
        ("timestamp", "2024-02-02 03:04:05", "timestamptz"),
        ("varchar(2)", "ab", "char(4)"),
        ("json", '{"b":1, "a":2e0}', "jsonb"),
    ],
)
def test_a_type_that_keeps_all_of_a_value_is_restored_into(pipeline: Pipeline, was: str, value: str, now: str):
    assert restoring(narrowed(pipeline, was, value, now))(in_place=True).restored == 1


@pytest.mark.parametrize(
    ("was", "value", "now"),
    [
        ("timestamp", "2024-02-02 03:04:05", "timestamptz"),
        ("timestamp", "2024-02-02 03:04:05 BC", "timestamptz"),
        ("date", "2024-02-02", "timestamptz"),
        ("timestamptz", "2024-02-02 03:04:05.6+00", "timestamp"),
        ("timestamptz", "2024-02-02 00:00:00+00", "date"),
        ("time", "03:04", "timetz"),
    ],
)
def test_a_time_that_got_or_lost_its_time_zone_is_restored_with_a_warning(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, was: str, value: str, now: str
):
    assert restoring(narrowed(pipeline, was, value, now))(in_place=True).restored == 1
    assert "or the other way round: v (1 row). They are restored as times of UTC" in caplog.text


@pytest.mark.parametrize(
    ("was", "value", "now"),
    [
        ("timestamp", "2024-02-02 03:04:05", "timestamp(0)"),
        ("timestamptz", "2024-02-02 03:04:05+00", "timestamptz(0)"),
        ("timestamp", "infinity", "timestamptz"),
        ("date", "2024-02-02", "timestamp"),
        ("text", "2024-02-02T03:04:05Z", "timestamptz"),
    ],
)
def test_a_time_that_kept_its_time_zone_is_restored_without_a_warning(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, was: str, value: str, now: str
):
    assert restoring(narrowed(pipeline, was, value, now))(in_place=True).restored == 1
    assert "time zone" not in caplog.text


def narrowed(pipeline: Pipeline, was: str, value: str, now: str) -> Pipeline:
    """A day archived and purged, whose column got another type since."""
    pipeline.database.execute(NARROWED.format(was))
    pipeline.database.execute("INSERT INTO n VALUES (1, '2024-03-01', %s)", value)
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    assert of.run().deleted == 1
    pipeline.database.execute(f"ALTER TABLE n ALTER v TYPE {now} USING v::text::{now}")
    return of


def test_values_that_no_longer_parse_are_refused_where_a_table_is_nothing_but_key(pipeline: Pipeline):
    pipeline.database.execute(
        "CREATE TABLE n (k text, at timestamp, PRIMARY KEY (k, at)); INSERT INTO n VALUES ('x', '2024-03-01')"
    )
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    assert of.run().deleted == 1
    pipeline.database.execute("ALTER TABLE n ALTER k TYPE int USING 1")
    with pytest.raises(RefusedError, match="do not all parse"):
        restoring(of)(in_place=True)


@pytest.mark.parametrize(
    ("was", "keys", "now"),
    [
        ("text", ("01", "1"), "int"),
        ("text", ("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), "uuid"),
        ("text", ("A", "a"), "ext.ci"),
        ("timestamp", ("2024-03-01 10:00:00.6", "2024-03-01 10:00:01"), "timestamp(0)"),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_rows_that_todays_types_of_the_key_do_not_tell_apart_are_not_merged(
    pipeline: Pipeline, was: str, keys: tuple[str, str], now: str, in_place: bool
):
    database = pipeline.database
    database.execute(f"{CI} CREATE TABLE n (k {was}, id int, at timestamp, v text, PRIMARY KEY (k, id))")
    for key in keys:
        database.execute("INSERT INTO n VALUES (%s, 1, '2024-03-01', 'first')", key)
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.archive()
    database.execute("UPDATE n SET v = 'last'")
    assert of.run().deleted == 2
    database.execute(f"ALTER TABLE n ALTER k TYPE {now} USING k::{now}")
    # Of the four rows two are former forms, and one is another's.
    with pytest.raises(
        IntegrityError, match=r"1 row of it may be lost in public.n\w*: by the types of its key \(k, id"
    ):
        restoring(of)(in_place=in_place)
    assert of.count() == 0
    database.execute("CREATE TABLE mine (k text, id int, at timestamp, v text, PRIMARY KEY (k, id))")
    assert restoring(of)("mine").restored == 2


def test_a_key_that_another_tool_spelled_otherwise_is_one(pipeline: Pipeline):
    pipeline.database.execute("CREATE TABLE n (id int, at timestamptz, v text, PRIMARY KEY (id, at))")
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.put(b"id,at,v\n1,2024-03-01T01:02:03Z,first\n")
    of.database.execute("INSERT INTO n VALUES (1, '2024-03-01T01:02:03Z', 'last')")
    assert of.run().deleted == 1
    done = restoring(of)()
    assert (done.restored, done.superseded) == (1, 1)


@pytest.mark.parametrize("day", ["5874897-12-31", "infinity", "4713-01-01 BC"])
def test_a_date_that_is_no_instant_is_restored(pipeline: Pipeline, day: str):
    pipeline.database.execute(
        f"""CREATE TYPE kind AS ENUM ('a', 'b');
        CREATE TABLE n (id int, until date, at timestamp, v kind, PRIMARY KEY (id, until));
        INSERT INTO n VALUES (1, '{day}', '2024-03-01', 'a')"""
    )
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.archive()
    pipeline.database.execute("UPDATE n SET v = 'b'")
    assert of.run().deleted == 1
    done = restoring(of)()
    assert (done.restored, done.superseded) == (1, 1)


def test_infinity_that_another_tool_spelled_otherwise_is_restored(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    pipeline.database.execute("CREATE TABLE n (id int PRIMARY KEY, at timestamptz, until date, due timestamptz)")
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.put(b"id,at,until,due\n1,2024-03-01,Infinity,-INFINITY\n")
    assert restoring(of)().restored == 1
    assert "would lose something" not in caplog.text


OTHERWISE_SPELLED = b'id,at,v,j,ok\n1,2024-03-01T01:02:03Z,1e1,"{""b"":1,""a"":2}",true\n'


@pytest.mark.parametrize("taken_over", [False, True])
def test_what_another_tool_spelled_otherwise_is_restored(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, taken_over: bool
):
    pipeline.database.execute(
        "CREATE TABLE n (id int PRIMARY KEY, at timestamptz, v numeric(9,1), j jsonb, ok boolean)"
    )
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.put(OTHERWISE_SPELLED)
    if taken_over:
        of.database.execute("INSERT INTO n (id, at) VALUES (2, '2024-03-01')")
        of.run()
    assert restoring(of)().restored == 1 + taken_over
    assert "would lose something" not in caplog.text


def test_what_is_cut_short_of_another_tools_file_is_said(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    pipeline.database.execute("CREATE TABLE n (id int PRIMARY KEY, at timestamp, v numeric(10,2))")
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.put(b"id,at,v\n1,2024-03-01,1.234\n")
    assert restoring(of)().restored == 1
    assert "would lose something as the types of public.n_restored: v (1 row)" in caplog.text


def test_a_trigger_that_changes_what_is_restored_rolls_the_day_back(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute(
        """CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.event_type := 'x'; RETURN NEW; END $$;
        CREATE TRIGGER meddle BEFORE INSERT ON "Event" FOR EACH ROW EXECUTE FUNCTION meddle()"""
    )
    with pytest.raises(IntegrityError, match="2 rows should stand .* 0 do"):
        restore(in_place=True)
    assert pipeline.count() == 0


def test_a_trigger_that_would_change_what_is_restored_at_the_commit_rolls_the_day_back(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute(
        """CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN DELETE FROM "Event" WHERE id = NEW.id; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER meddle AFTER INSERT ON "Event" DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION meddle()"""
    )
    with pytest.raises(IntegrityError, match="2 rows should stand .* 0 do"):
        restore(in_place=True)


LATEST = """
CREATE TABLE t (id int, at timestamptz, latest boolean NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE first PARTITION OF t FOR VALUES FROM (MINVALUE) TO ('2024-03-02 00:00+00');
CREATE TABLE later PARTITION OF t FOR VALUES FROM ('2024-03-02 00:00+00') TO (MAXVALUE);
INSERT INTO t VALUES (1, '2024-03-01 08:00+00', false), (2, '2024-03-02 08:00+00', true);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF pg_trigger_depth() > 1 THEN RETURN NEW; END IF; {body} RETURN NEW; END $$;
"""
TRIGGER = "CREATE TRIGGER meddle {when} INSERT ON t FOR EACH {each} EXECUTE FUNCTION f()"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("UPDATE t SET latest = false WHERE latest;", "1 updated and 0 deleted"),
        ("DELETE FROM t WHERE latest;", "0 updated and 1 deleted"),
        ("INSERT INTO t VALUES (3, '2024-03-02 08:00+00', false);", "1 inserted beside them"),
        ("TRUNCATE later;", "truncated"),
    ],
)
@pytest.mark.parametrize(("when", "each"), [("BEFORE", "STATEMENT"), ("AFTER", "ROW")])
def test_a_trigger_that_changes_other_rows_of_the_target_rolls_the_day_back(
    pipeline: Pipeline, body: str, words: str, when: str, each: str
):
    pipeline.database.execute(LATEST.format(body=body))
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    assert of.run().deleted == 1
    of.database.execute(TRIGGER.format(when=when, each=each))
    with pytest.raises(RefusedError, match=rf"{words}.*Rolled back: nothing of this day was restored"):
        restoring(of)(in_place=True)
    assert of.database.execute("SELECT id, latest FROM t") == [(2, True)]


def test_without_counters_no_table_with_triggers_is_filled(pipeline: Pipeline):
    pipeline.database.execute(LATEST.format(body=""))
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    of.run()
    of.database.execute(TRIGGER.format(when="AFTER", each="ROW"))
    of.database.execute(f"ALTER DATABASE {of.database.name} SET track_counts = off")
    with pytest.raises(RefusedError, match=r"track_counts is off.*\(meddle\)"):
        restoring(of)(in_place=True)
    of.database.execute("DROP TRIGGER meddle ON t")
    assert restoring(of)(in_place=True).restored == 1


def test_a_column_that_the_file_lacks_gets_its_default(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute("ALTER TABLE \"Event\" ADD COLUMN origin text DEFAULT 'web'")
    assert restore(in_place=True).restored == 2
    assert pipeline.count("origin = 'web'") == 2


def test_before_postgresql_16_a_document_is_compared_as_it_is_spelled():
    assert [losses._same("jsonb", version) for version in (150000, 160000)] == ["false", losses._JSONB]


def test_a_trigger_of_the_target_finds_what_it_names_without_a_schema(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute(
        f"""CREATE SCHEMA app; CREATE TABLE app.audit (id bigint);
        CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS
          'BEGIN INSERT INTO audit VALUES (NEW.id); RETURN NULL; END';
        CREATE TRIGGER noted AFTER INSERT ON "Event" FOR EACH ROW EXECUTE FUNCTION app.note();
        ALTER DATABASE {pipeline.database.name} SET search_path = app, public"""
    )
    assert restore(in_place=True).restored == 2
    assert pipeline.database.execute("SELECT count(*) FROM app.audit") == [(2,)]


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
    with pytest.raises(RefusedError, match="nothing to restore"):
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


def test_a_file_is_read_twice_only_where_it_may_not_be_of_todays_types(pipeline: Pipeline):
    def times_read(name: str) -> float:
        seen = Seen()
        restore_day(pipeline.site, DAY, target_named(pipeline.dataset, name), progress=seen)
        return sum(phase.bytes for phase in seen.phases) / len(pipeline.content())

    def archive_more() -> str | None:
        pipeline.add(10)
        manifest = pipeline.archive().manifest
        assert manifest is not None
        return manifest.types

    as_today = archive_more()
    assert as_today
    assert times_read("one") == 1
    # Late rows of the same types change nothing of that, and of other types for good.
    pipeline.database.execute('DELETE FROM "Event"')
    assert archive_more() == as_today
    assert times_read("two") == 1
    pipeline.database.execute('DELETE FROM "Event"; ALTER TABLE "Event" ALTER event_type TYPE varchar(40)')
    assert times_read("three") == 2
    assert archive_more() == ""
    assert times_read("four") == 2
    pipeline.database.execute('DELETE FROM "Event"; ALTER TABLE "Event" ALTER event_type TYPE text')
    assert archive_more() == ""
    assert times_read("five") == 2


def test_a_file_is_read_twice_where_a_column_got_another_collation(pipeline: Pipeline):
    """By one that is not deterministic, keys may be equal that were not."""
    seen = Seen()
    pipeline.add(1)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" ALTER event_id TYPE text COLLATE "C"')
    restore_day(pipeline.site, DAY, pipeline.dataset.table, progress=seen)
    assert [phase.name for phase in seen.phases if phase.bytes] == ["reading back", "reading as text"]


def test_types_that_tell_forms_of_one_row_apart_bring_none_back(pipeline: Pipeline):
    of, database = _of_a_key_spelled_anew(pipeline, "v text")
    database.execute("CREATE TABLE mine (k text PRIMARY KEY, at timestamp, v text)")
    with pytest.raises(IntegrityError, match="replaces 1 row of it by the types of the key in public.t"):
        restoring(of)("mine")
    assert restoring(of)().restored == 1
    assert database.execute("SELECT k::text, v FROM t_restored") == [("1.00", "b")]


def test_both_forms_come_back_with_a_warning_where_nobody_knows_the_types(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
):
    of, database = _of_a_key_spelled_anew(pipeline, "v kind")
    with pytest.raises(IntegrityError, match="Nobody can tell whether they were one row"):
        restoring(of)()
    database.execute("CREATE TABLE mine (k text PRIMARY KEY, at timestamp, v text)")
    assert restoring(of)("mine").restored == 2
    assert "replaces 1 row of it by the types of the key in public.t" in caplog.text
    database.execute("ALTER TABLE t ALTER k TYPE uuid USING gen_random_uuid(); DELETE FROM mine")
    assert restoring(of)("mine").restored == 2


def _of_a_key_spelled_anew(pipeline: Pipeline, column: str) -> tuple[Pipeline, Database]:
    pipeline.database.execute(
        "CREATE TYPE kind AS ENUM ('a', 'b'); "
        f"CREATE TABLE t (k numeric PRIMARY KEY, at timestamp, {column}); INSERT INTO t VALUES (1.0, '2024-03-01', 'a')"
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at", file_prefix="t")
    of.archive()
    pipeline.database.execute("UPDATE t SET k = 1.00, v = 'b'")
    assert of.run().deleted == 1
    return of, pipeline.database


def test_a_collation_that_takes_texts_for_equal_is_no_obstacle(packaged_database: Database, local_lake: Lake):
    database = packaged_database
    database.execute(
        "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false); "
        "CREATE TYPE kind AS ENUM ('a'); "
        "CREATE TABLE t (id int PRIMARY KEY, at timestamp, name text COLLATE any_case, kind kind); "
        "INSERT INTO t VALUES (1, '2024-03-01', 'Abc', 'a'), (2, '2024-03-01', 'ABC', 'a')"
    )
    of = Pipeline(database, local_lake).of(table=TableName("public", "t"), time_column="at", file_prefix="t")
    of.archive()
    database.execute("UPDATE t SET name = 'aBC' WHERE id = 2")
    assert (of.purge().deleted, of.run().deleted) == (1, 1)
    assert restoring(of)().restored == 2
    assert database.execute("SELECT id, name::bytea FROM t_restored ORDER BY id") == [(1, b"Abc"), (2, b"aBC")]


def test_a_domain_that_was_made_anew_does_not_pass_for_what_it_was(pipeline: Pipeline):
    database = pipeline.database
    database.execute('CREATE DOMAIN amount AS numeric(12, 4); ALTER TABLE "Event" ADD due amount')
    pipeline.add(1)
    database.execute('UPDATE "Event" SET due = 1.2345')
    assert pipeline.run().deleted == 1
    database.execute(
        'ALTER TABLE "Event" DROP due; DROP DOMAIN amount; CREATE DOMAIN amount AS numeric(10, 2); '
        'ALTER TABLE "Event" ADD due amount'
    )
    with pytest.raises(RefusedError, match=r'would lose something as the types of .*: "?due"? \(1 row\)'):
        restoring(pipeline)()


NUMBERED = {
    "identity": "CREATE TABLE n (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamp)",
    "serial": "CREATE TABLE n (id smallserial PRIMARY KEY, at timestamp)",
    "default": """DROP SEQUENCE IF EXISTS "Odd ""one"; CREATE SEQUENCE "Odd ""one";
        CREATE TABLE n (id numeric PRIMARY KEY DEFAULT nextval('"Odd ""one"') * 1, at timestamp)""",
    "downwards": "CREATE TABLE n (id bigint GENERATED BY DEFAULT AS IDENTITY (INCREMENT -1) PRIMARY KEY, at timestamp)",
    "in steps": """CREATE TABLE n (id bigint GENERATED BY DEFAULT AS IDENTITY (START 7 INCREMENT 10) PRIMARY KEY,
        at timestamp)""",
    "partitioned": """CREATE TABLE n (id bigserial, at timestamp, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE n1 PARTITION OF n DEFAULT""",
    "not in an index": """CREATE TABLE n (key uuid PRIMARY KEY DEFAULT gen_random_uuid(), at timestamp,
        id bigint GENERATED ALWAYS AS IDENTITY)""",
}
LAST_ROW = "INSERT INTO n (at) VALUES ('2024-03-01 07:00') RETURNING id"


def numbered(pipeline: Pipeline, definition: str) -> Pipeline:
    """A day of three rows that is archived and purged."""
    pipeline.database.execute(definition)
    pipeline.database.execute("INSERT INTO n (at) SELECT '2024-03-01' FROM generate_series(1, 3)")
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    assert of.run().deleted == 3
    return of


@pytest.mark.parametrize("kind", NUMBERED)
def test_the_next_row_of_a_table_that_was_made_anew_gets_a_new_key(pipeline: Pipeline, kind: str):
    of = numbered(pipeline, NUMBERED[kind])
    pipeline.database.execute("DROP TABLE n")
    pipeline.database.execute(NUMBERED[kind])
    done = restoring(of)(in_place=True)
    assert (done.restored, done.setval) == (3, ())
    ((following,),) = pipeline.database.execute(LAST_ROW)
    assert following == {"downwards": -4, "in steps": 37}.get(kind, 4)


def test_a_sequence_never_goes_back(pipeline: Pipeline):
    of = numbered(pipeline, NUMBERED["serial"])
    pipeline.database.execute("SELECT setval('n_id_seq', 50)")
    restoring(of)(in_place=True)
    assert pipeline.database.execute(LAST_ROW) == [(51,)]


def test_a_sequence_that_gives_a_value_while_it_is_moved_is_moved_all_the_same(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of = numbered(pipeline, NUMBERED["serial"])
    pipeline.database.execute("SELECT setval('n_id_seq', 1, false)")
    given: list[tuple[object, ...]] = []

    def position_before(connection: Connection, sequence: Sequence) -> Position:
        stands = position_of(connection, sequence)
        if not given:
            given.extend(pipeline.database.execute("SELECT nextval('n_id_seq')"))
        return stands

    monkeypatch.setattr(sequences, "position_of", position_before)
    restoring(of)(in_place=True)
    assert given == [(1,)]
    assert pipeline.database.execute(LAST_ROW) == [(4,)]


def test_a_sequence_passes_rows_that_stand_beside_the_files(pipeline: Pipeline):
    of = numbered(pipeline, NUMBERED["serial"])
    pipeline.database.execute("INSERT INTO n VALUES (50, '2024-03-02')")
    assert restoring(of)(in_place=True).restored == 3
    assert pipeline.database.execute(LAST_ROW) == [(51,)]


def test_a_sequence_of_a_column_without_an_index_goes_by_the_file_alone(pipeline: Pipeline):
    """To find the furthest value of such a column, all of the table would be read."""
    of = numbered(pipeline, NUMBERED["not in an index"])
    pipeline.database.execute(
        "INSERT INTO n (at, id) OVERRIDING SYSTEM VALUE VALUES ('2024-03-02', 50); SELECT setval('n_id_seq', 1)"
    )
    assert restoring(of)(in_place=True).restored == 3
    assert pipeline.database.execute(LAST_ROW) == [(4,)]


def test_a_sequence_that_is_nearly_used_up_keeps_nobody_from_a_restore(pipeline: Pipeline):
    definition = """CREATE SEQUENCE s INCREMENT 10 MAXVALUE 25;
        CREATE TABLE n (id int PRIMARY KEY DEFAULT nextval('s'), at timestamp)"""
    of = numbered(pipeline, definition)
    pipeline.database.execute(f"DROP TABLE n; DROP SEQUENCE s; {definition}")
    assert restoring(of)(in_place=True).restored == 3
    assert pipeline.database.execute(LAST_ROW) == [(25,)]


def test_a_last_value_that_stands_for_something_else_exhausts_no_sequence(pipeline: Pipeline):
    of = numbered(pipeline, NUMBERED["serial"])
    pipeline.database.execute("INSERT INTO n VALUES (32767, '2024-03-01'); SELECT setval('n_id_seq', 1, false)")
    restoring(of)(in_place=True)
    assert pipeline.database.execute(LAST_ROW) == [(4,)]


@pytest.mark.parametrize("granted", ["", "SELECT", "UPDATE"])
@pytest.mark.parametrize("kind", ["serial", "downwards", "default"])
def test_a_role_that_may_not_move_a_sequence_says_the_statement(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, kind: str, granted: str
):
    database = pipeline.database
    of = numbered(pipeline, NUMBERED[kind])
    database.execute("DROP TABLE n")
    database.execute(NUMBERED[kind])
    of.role = f"restorer_{database.name}"
    database.execute(f"CREATE ROLE {of.role} LOGIN; GRANT SELECT, INSERT ON n TO {of.role}")
    if granted:
        database.execute(f"GRANT {granted} ON ALL SEQUENCES IN SCHEMA public TO {of.role}")
    try:
        done = restoring(of)(in_place=True)
    finally:
        database.execute(f"DROP OWNED BY {of.role}; DROP ROLE {of.role}")
    (statement,) = done.setval
    assert statement in caplog.text
    database.execute(statement)
    after = -4 if kind == "downwards" else 4
    assert database.execute(LAST_ROW) == [(after,)]
    # Whenever it is run, it never sets the sequence back.
    database.execute("DELETE FROM n")
    database.execute(statement)
    assert database.execute(LAST_ROW) == [(after + (-1 if after < 0 else 1),)]


def test_a_restore_knows_when_no_sequence_is_to_be_moved_though_it_may_not(pipeline: Pipeline):
    of = numbered(pipeline, NUMBERED["serial"])
    of.role = f"restorer_{pipeline.database.name}"
    pipeline.database.execute(
        f"CREATE ROLE {of.role} LOGIN; GRANT SELECT, INSERT ON n TO {of.role}; GRANT SELECT ON n_id_seq TO {of.role}"
    )
    try:
        assert restoring(of)(in_place=True).setval == ()
    finally:
        pipeline.database.execute(f"DROP OWNED BY {of.role}; DROP ROLE {of.role}")


def test_a_sequence_that_no_number_is_made_of_is_named(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    of = numbered(
        pipeline,
        "CREATE SEQUENCE s; CREATE TABLE n (id text PRIMARY KEY DEFAULT 'E-' || nextval('s'), at timestamp)",
    )
    assert restoring(of)(in_place=True).setval == ()
    assert "public.n: the default of id uses sequence public.s, but makes no numbers of it" in caplog.text


@pytest.mark.parametrize("kind", ["identity", "serial", "downwards", "in steps", "partitioned"])
def test_a_table_that_a_restore_makes_numbers_its_next_row(pipeline: Pipeline, kind: str):
    of = numbered(pipeline, NUMBERED[kind])
    restoring(of)()
    pipeline.database.execute("DROP TABLE n; ALTER TABLE n_restored RENAME TO n")
    assert pipeline.database.execute(LAST_ROW) == [({"downwards": -4, "in steps": 31}.get(kind, 4),)]

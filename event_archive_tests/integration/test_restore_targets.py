"""Tables that are restored into: what they lack, what they cannot take, what they are called, who else is at them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import BusyError, ConfigurationError, IntegrityError, NoSuchTableError, RefusedError
from event_archive.operations.restore.day import RestoredDay
from event_archive.operations.restore.target import target_named
from event_archive_tests.fixtures.meanwhile import while_reading
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.restoring import COARSE, restoring
from event_archive_tests.fixtures.statements import LOGS_COMMANDS


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

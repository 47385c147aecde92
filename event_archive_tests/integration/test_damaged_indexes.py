"""A unique index that let a key in twice, as where texts sort otherwise since an upgrade: no row is lost or doubled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files

import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import ONE_DAY
from event_archive.errors import IntegrityError, RefusedError
from event_archive.operations.restore.day import RestoredDay
from event_archive.postgres.session import Postgres
from event_archive.sources.http_api.positions import Position, Positions
from event_archive.sources.redis_stream.positions import make_table
from event_archive.sources.tables import make_missing
from event_archive.table.holds import hold, holds, release
from event_archive.table.shape import reflect
from event_archive.table.uniqueness import outdated_order, texts_of_key
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database

KEY_ONLY = """
ALTER DATABASE {name} SET enable_seqscan = off; ALTER DATABASE {name} SET enable_bitmapscan = off;
ALTER DATABASE {name} SET enable_hashjoin = off; ALTER DATABASE {name} SET enable_mergejoin = off
"""
"""Finds rows by the index of their key, as PostgreSQL does where a table is large."""
TWICE = "{} in more than one row, which the unique index on .id. should have prevented"


@contextmanager
def unseen(database: Database, table: str = '"Event"') -> Iterator[None]:
    """What is written meanwhile is not in the index of the key."""
    ready = "UPDATE pg_index SET indisready = {} WHERE indrelid = '{}'::regclass AND indisunique"
    database.execute(ready.format("false", table))
    yield
    database.execute(ready.format("true", table))


def add_twice(pipeline: Pipeline, change: str) -> None:
    """Adds the row of a key that stands once more, in another form."""
    with unseen(pipeline.database):
        pipeline.database.execute(
            f"""INSERT INTO "Event" SELECT (jsonb_populate_record(e, '{change}')).* FROM "Event" AS e
            WHERE id % 3 = 2"""
        )


def test_of_two_rows_of_one_key_none_passes_for_a_former_form_of_the_other(pipeline: Pipeline):
    pipeline.add(3)
    add_twice(pipeline, '{"event_type": "another", "created_at": "2024-03-01T23:00:00"}')
    pipeline.archive()
    before = pipeline.content()
    with pytest.raises(RefusedError, match=TWICE.format("1 key stands")):
        pipeline.purge()
    with pytest.raises(RefusedError, match="Nothing was written or deleted. Find the rows of one key"):
        pipeline.archive()
    assert (pipeline.count(), pipeline.content()) == (4, before)
    # As the page says: each gets a key of its own, and the index is made anew.
    pipeline.database.execute(
        """UPDATE "Event" SET id = 9, event_id = 'another' WHERE event_type = 'another'; REINDEX TABLE "Event" """
    )
    purged = pipeline.run()
    assert (purged.deleted, purged.left, pipeline.values("id").count("9")) == (4, 0, 1)


def test_two_late_rows_of_one_key_are_not_purged(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.run()
    pipeline.add(3, prefix="late")
    add_twice(pipeline, '{"event_type": "another"}')
    pipeline.archive()
    with pytest.raises(RefusedError, match=TWICE.format("1 key stands")):
        pipeline.purge()
    assert pipeline.count() == 4


def test_two_rows_alike_are_not_both_taken_for_the_one_in_the_file(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    add_twice(pipeline, "{}")
    with pytest.raises(IntegrityError, match="4 rows are identical to 3 current rows .* REINDEX the table"):
        pipeline.purge()
    assert pipeline.count() == 4


@pytest.mark.parametrize("kind", ["text", "varchar(20)"])
def test_two_rows_alike_beside_rows_that_are_gone_are_not_both_taken_for_the_one_in_the_file(
    pipeline: Pipeline, kind: str
):
    pipeline.add(3)
    pipeline.database.execute('ALTER TABLE "Event" ALTER id DROP IDENTITY')
    pipeline.database.execute(f'ALTER TABLE "Event" ALTER id TYPE {kind}')
    pipeline.run()
    pipeline.database.execute("""INSERT INTO "Event" VALUES ('8', 'late', 'x', '2024-03-01', NULL, '{}')""")
    pipeline.archive()
    with unseen(pipeline.database):
        pipeline.database.execute('INSERT INTO "Event" SELECT * FROM "Event"')
    with pytest.raises(RefusedError, match=TWICE.format("1 key stands")):
        pipeline.purge()
    assert pipeline.count() == 2


def test_a_table_of_ones_own_whose_times_are_text_is_not_filled_twice(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(3)
    pipeline.run()
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event"); ALTER TABLE mine ALTER created_at TYPE text')
    pipeline.database.execute("ALTER TABLE mine ADD PRIMARY KEY (id)")
    restore("mine")
    with unseen(pipeline.database, "mine"):
        pipeline.database.execute("WITH gone AS (DELETE FROM mine RETURNING *) INSERT INTO mine SELECT * FROM gone")
    pipeline.database.execute(KEY_ONLY.format(name=pipeline.database.name))
    with pytest.raises(RefusedError, match=TWICE.format("3 keys stand")):
        restore("mine")
    assert pipeline.database.execute("SELECT count(*) FROM mine WHERE tableoid <> 0") == [(3,)]


@pytest.mark.parametrize(
    ("kind", "is_text"),
    [
        *((kind, True) for kind in ("jsonb", "pair", "pair[]", "document", "varchar(9)", "names")),
        *((kind, False) for kind in ("bigint", "uuid", "tstzrange", "numbers", 'text COLLATE "C"', "name")),
    ],
)
def test_keys_that_hold_texts_are_looked_at_as_texts_are(pipeline: Pipeline, kind: str, is_text: bool):
    pipeline.database.execute(
        f"""CREATE TYPE pair AS (a text, b int); CREATE TYPE numbers AS (a int, b int); CREATE DOMAIN document AS jsonb;
        CREATE TYPE names AS RANGE (SUBTYPE = text); ALTER TABLE "Event" ALTER id DROP IDENTITY;
        ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey", DROP id, ADD id {kind};
        ALTER TABLE "Event" ADD PRIMARY KEY (id)"""
    )
    with pipeline.postgres.transaction("it") as connection:
        table = reflect(connection, pipeline.dataset)
        assert texts_of_key(connection, table) == (["id"] if is_text else [])
        assert outdated_order(connection, table) == []


def test_a_restore_in_place_warns_where_texts_may_sort_otherwise_by_now(
    pipeline: Pipeline, restore: Callable[..., RestoredDay], caplog: pytest.LogCaptureFixture
):
    pipeline.database.execute(
        """CREATE COLLATION names (provider = builtin, locale = 'C.UTF-8', version = '0');
        ALTER TABLE "Event" ALTER id DROP IDENTITY; ALTER TABLE "Event" ALTER id TYPE text COLLATE names"""
    )
    pipeline.database.execute("""INSERT INTO "Event" VALUES ('8', 'late', 'x', '2024-03-01', NULL, '{}')""")
    pipeline.run()
    assert restore("mine").restored == 1
    assert "order of texts" not in caplog.text
    assert restore(in_place=True).restored == 1
    assert "the index of its key was made (public.names). Rows that it does not find may be restored" in caplog.text


def test_rows_that_the_index_does_not_find_are_kept_and_said_to_be(pipeline: Pipeline):
    pipeline.database.execute('DROP INDEX "Event_created_at_idx"')
    with unseen(pipeline.database):
        pipeline.add(3)
    pipeline.database.execute(KEY_ONLY.format(name=pipeline.database.name))
    purged = pipeline.run()
    assert (purged.outcome, purged.deleted, purged.left) == ("kept", 0, 3)
    assert "an index is damaged: REINDEX the table" in str(purged.reason)


def test_a_restore_in_place_doubles_no_row_that_the_index_does_not_find(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(3)
    pipeline.run()
    with unseen(pipeline.database):
        restore(in_place=True)
    pipeline.database.execute(KEY_ONLY.format(name=pipeline.database.name))
    with pytest.raises(RefusedError, match=TWICE.format("3 keys stand")):
        restore(in_place=True)
    assert pipeline.count(f"created_at >= '{DAY}'") == 3


@pytest.mark.parametrize("is_former", [True, False])
def test_a_hold_that_its_index_does_not_find_holds(pipeline: Pipeline, is_former: bool):
    pipeline.add(3)
    hold(pipeline.dataset, DAY, DAY + ONE_DAY, "a lawsuit", pipeline.postgres)
    if is_former:
        pipeline.database.execute('ALTER TABLE event_archive_hold ALTER table_name TYPE text COLLATE "default"')
    pipeline.database.execute(KEY_ONLY.format(name=pipeline.database.name))
    with unseen(pipeline.database, "event_archive_hold"):
        pipeline.database.execute(
            "WITH gone AS (DELETE FROM event_archive_hold RETURNING *) "
            "INSERT INTO event_archive_hold SELECT * FROM gone"
        )
    assert pipeline.run().outcome == "held"
    pipeline.database.execute(f"ALTER DATABASE {pipeline.database.name} RESET ALL")
    hold(pipeline.dataset, DAY, DAY, "a lawsuit", pipeline.postgres)
    assert [(of.first, of.last) for of in holds(pipeline.dataset, pipeline.postgres)][-1] == (DAY, DAY + ONE_DAY)
    release(pipeline.dataset, DAY, DAY + ONE_DAY, pipeline.postgres)
    assert holds(pipeline.dataset, pipeline.postgres) == []


def test_a_position_that_its_index_does_not_find_is_gone_on_from(database: Database):
    table, position = TableName("public", "cursor_state"), Position(cursor="c1", passes=1)
    of_api = Positions(table, "https://api.example.com")
    with Postgres(database.dsn).session() as session:
        make_missing(session, table)
    database.execute(
        f"""ALTER TABLE cursor_state ALTER source TYPE text COLLATE "default",
        ALTER shard TYPE text COLLATE "default"; {KEY_ONLY.format(name=database.name)}"""
    )
    with Postgres(database.dsn).session() as session:
        with unseen(database, "cursor_state"), session.transaction("positions") as connection:
            of_api.save(connection, position)
        with session.transaction("positions") as connection:
            assert of_api.read(connection) == [position]
            of_api.move(connection, position, replace(position, cursor="c2"))
            assert [of.cursor for of in of_api.read(connection)] == ["c2"]


def test_keys_of_tables_that_are_made_here_sort_alike_for_ever(pipeline: Pipeline):
    hold(pipeline.dataset, DAY, DAY, "a lawsuit", pipeline.postgres)
    names = [file.name.removesuffix(".sql") for file in files("event_archive.sources").joinpath("sql").iterdir()]
    with pipeline.postgres.session() as session:
        make_missing(session, *(TableName("public", name) for name in names if name != "positions"))
        make_table(session, "public")
    found = pipeline.database.execute(
        """SELECT DISTINCT c.relname, attname FROM pg_index JOIN pg_class AS c ON c.oid = indrelid
        JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
        JOIN pg_collation AS l ON l.oid = attcollation
        WHERE indisunique AND relnamespace = 'public'::regnamespace AND collname <> 'C' AND relname <> 'Event'"""
    )
    assert found == []

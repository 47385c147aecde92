"""Partitions whose names, schemas or indexes say something else than what is there."""

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.operations import dropping, dropping_empty
from event_archive.table.partitions import has_any_row
from event_archive_tests.fixtures.exchanged import exchanged
from event_archive_tests.fixtures.partitions import DAILY, DAYS_OF_WEEK, NEXT, WEEKLY, of_table, partitions
from event_archive_tests.fixtures.pipeline import DAY, Pipeline

pytestmark = pytest.mark.slow


def damage(of: Pipeline) -> None:
    """Puts many rows into the first day's partition, and one that none of its indexes knows behind them."""
    of.database.execute(
        """INSERT INTO t SELECT 1000 + n, '2024-03-01 09:00+00', repeat(md5(n::text), 55)
        FROM generate_series(1, 2000) AS n;
        UPDATE pg_index SET indisready = false WHERE indrelid = 'd1'::regclass"""
    )
    of.database.execute("INSERT INTO t VALUES (99, '2024-03-01 09:00+00', 'lost')")
    of.database.execute("UPDATE pg_index SET indisready = true WHERE indrelid = 'd1'::regclass")
    make_all_visible(of)


def make_all_visible(of: Pipeline) -> None:
    """PostgreSQL then rather asks an index alone whether there are rows."""
    with psycopg.connect(of.database.dsn, autocommit=True) as connection:
        # What was committed without waiting for the disk is not visible to all before it is written.
        connection.execute("CHECKPOINT")
        connection.execute("VACUUM ANALYZE d1")


def test_a_row_that_a_damaged_index_lacks_keeps_the_partition(pipeline: Pipeline):
    of = of_table(pipeline, DAILY)
    damage(of)
    purged = of.run()
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 2005, {"d1", "d2"})
    assert of.count("note = 'lost'") == 1


def test_a_partition_that_is_empty_by_a_damaged_index_alone_stays(pipeline: Pipeline):
    of = of_table(pipeline, DAILY, purge="delete")
    damage(of)
    assert of.run().deleted == 2005
    make_all_visible(of)
    assert dropping_empty.drop_empty(of.site, DAY) == []
    assert of.count("note = 'lost'") == 1


def test_a_row_that_a_damaged_index_finds_twice_does_not_stand_for_another(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY)
    # An index keeps the entry of a row that is gone, and another row takes its place.
    of.database.execute("INSERT INTO t VALUES (50, '2024-03-02 07:00+00', 'n')")
    of.database.execute("UPDATE pg_index SET indisready = false WHERE indrelid = 'w'::regclass")
    of.database.execute("DELETE FROM t WHERE id = 50")
    with psycopg.connect(of.database.dsn, autocommit=True) as connection:
        connection.execute("VACUUM w")
    of.database.execute(
        """UPDATE pg_index SET indisready = true WHERE indrelid = 'w'::regclass;
        UPDATE pg_class SET relhasindex = true WHERE oid = 'w'::regclass"""
    )
    of.database.execute("INSERT INTO t VALUES (51, '2024-03-02 09:00+00', 'n')")
    of.database.execute("INSERT INTO t SELECT n, '2024-03-01 09:00+00', 'n' FROM generate_series(1001, 21000) AS n")
    of.database.execute(
        f"""ANALYZE t; ALTER DATABASE {of.database.name} SET enable_bitmapscan = off;
        ALTER DATABASE {of.database.name} SET enable_mergejoin = off"""
    )
    for day in DAYS_OF_WEEK:
        of.archive(day)
    assert len(of.records_of_file(NEXT)) == 5, "no index finds a row twice"
    of.database.execute("UPDATE t SET note = 'changed' WHERE id = 7")
    purged = of.purge()
    assert (purged.how, purged.deleted, partitions(of)) == ("deleted", 20005, {"w"})
    assert purged.reason == "1 of 20011 rows is in no file in their present form, in public.w"
    assert of.count("note = 'changed'") == 1


SWAPPED = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.t (id int, at timestamptz NOT NULL, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE {schema}.d1 PARTITION OF {schema}.t FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00');
INSERT INTO {schema}.t VALUES (1, '2024-03-01 08:00+00', '{schema}');
"""


@pytest.mark.parametrize("changes", [{"purge": "drop"}, {"drop_empty_partitions": True}])
def test_a_schema_that_takes_anothers_name_at_the_last_moment_loses_no_table(
    pipeline: Pipeline, changes: dict[str, object]
):
    """The event trigger stands for another session: before PostgreSQL looks up the name of what is dropped."""
    pipeline.database.execute(SWAPPED.format(schema="app") + SWAPPED.format(schema="next"))
    pipeline.database.execute(
        """CREATE FUNCTION swaps() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          ALTER SCHEMA app RENAME TO former; ALTER SCHEMA next RENAME TO app; END $$;
        CREATE EVENT TRIGGER swaps ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION swaps()"""
    )
    of = pipeline.of(**{"table": TableName("app", "t"), "time_column": "at", "file_prefix": "t"} | changes)
    purged = of.run()
    assert (purged.how, purged.deleted, purged.partitions) == ("deleted", 1, ())
    assert of.database.execute("SELECT note FROM next.t") == [("next",)]


NAMESAKE = (
    f"{DAILY} CREATE SCHEMA app; CREATE SCHEMA next; CREATE TABLE next.d1 (LIKE d1); ALTER TABLE d1 SET SCHEMA app"
)


def test_no_partition_is_taken_for_one_of_its_name_while_its_rows_are_counted(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """As where a new version of a schema takes the former one's place, and is taken back."""
    of = of_table(pipeline, NAMESAKE)
    of.archive()
    of.database.execute("UPDATE app.d1 SET note = 'new' WHERE id = 1")
    monkeypatch.setattr(dropping, "_count_proven", exchanged(of.database, dropping._count_proven))
    purged = of.purge()
    assert (purged.how, purged.deleted, purged.left) == ("deleted", 4, 1)
    assert of.database.execute("SELECT note FROM app.d1") == [("new",)]


def test_no_partition_is_taken_for_an_empty_one_of_its_name(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(pipeline, NAMESAKE, drop_empty_partitions=True)
    monkeypatch.setattr(dropping_empty, "has_any_row", exchanged(of.database, has_any_row))
    assert dropping_empty.drop_empty(of.site, DAY) == []
    assert of.database.execute("SELECT count(*) FROM app.d1") == [(5,)]

"""Only what the COPY itself raises counts against a file; and what event triggers do hides no row."""

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import BusyError, IntegrityError, RefusedError
from event_archive.lake.protocol import Lake
from event_archive.operations.restore.day import restore_day
from event_archive.operations.verify import verify_day
from event_archive_tests.fixtures.meanwhile import while_reading
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, T, of_table, rows_of
from event_archive_tests.fixtures.postgres import Database


def test_what_fails_before_the_copy_does_not_accuse_the_file(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute(
        """CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no tables here''; END';
        CREATE EVENT TRIGGER no ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS')
        EXECUTE FUNCTION no()"""
    )
    with pytest.raises(RefusedError, match="P0001") as error:
        pipeline.purge()
    assert "adopt" not in str(error.value)
    pipeline.database.execute("DROP EVENT TRIGGER no")
    assert pipeline.purge().deleted == 2


def test_a_session_that_is_cancelled_while_it_reads_does_not_accuse_the_file(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(2000)
    pipeline.archive()
    cancel = """SELECT pg_cancel_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'event_archive' AND datname = current_database()"""
    with (
        while_reading(monkeypatch, pipeline.lake, lambda: pipeline.database.execute(cancel)),
        pytest.raises(BusyError, match="was cancelled"),
    ):
        pipeline.purge()
    assert pipeline.purge().deleted == 2000


@pytest.mark.parametrize("code", ["25006", "40001", "42501", "53100", "54001", "55P03", "57014", "58030", "XX000"])
def test_what_fails_in_the_copy_for_want_of_something_else_does_not_accuse_the_file(pipeline: Pipeline, code: str):
    of = of_table(
        pipeline,
        """CREATE FUNCTION passes(text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE DOMAIN checked AS text CHECK (passes(VALUE));
        CREATE TABLE t (id int PRIMARY KEY, at timestamp, word checked);
        INSERT INTO t VALUES (1, '2024-03-01', 'x')""",
    )
    of.archive()
    of.database.execute(
        f"""CREATE OR REPLACE FUNCTION passes(text) RETURNS boolean LANGUAGE plpgsql AS
        'BEGIN RAISE SQLSTATE ''{code}''; END'"""
    )
    with pytest.raises((BusyError, RefusedError)) as error:
        of.purge()
    assert not isinstance(error.value, IntegrityError)
    assert of.count() == 1


def test_a_value_that_a_type_refuses_by_an_internal_error_is_kept_as_text(
    packaged_database: Database, local_lake: Lake
):
    """As hstore does before PostgreSQL 16."""
    of = of_table(
        Pipeline(packaged_database, local_lake),
        """CREATE EXTENSION hstore; CREATE TABLE t (id int PRIMARY KEY, at timestamp, tags text);
        INSERT INTO t VALUES (1, '2024-03-01', 'no pair')""",
    )
    of.run()
    of.database.execute(
        """ALTER TABLE t ALTER tags TYPE hstore USING NULL;
        INSERT INTO t VALUES (2, '2024-03-01', 'a=>1')"""
    )
    assert of.run().deleted == 1
    assert of.values("tags") == ["no pair", '"a"=>"1"']


def test_a_table_of_as_many_columns_as_there_can_be_is_refused_before_a_file_is_written(pipeline: Pipeline):
    columns = ", ".join(f"c{n} int" for n in range(1598))
    of = of_table(pipeline, f"CREATE TABLE t (id int PRIMARY KEY, at timestamp, {columns})")
    of.database.execute("INSERT INTO t (id, at) VALUES (1, '2024-03-01')")
    with pytest.raises(RefusedError, match="1600 columns"):
        of.archive()
    assert of.lake.stat(of.dataset.path(DAY)) is None


def test_a_name_that_begins_as_a_byte_order_mark_does_is_a_name(pipeline: Pipeline):
    of = of_table(
        pipeline,
        "CREATE TABLE t (\"\ufeffid\" int PRIMARY KEY, at timestamp); INSERT INTO t VALUES (1, '2024-03-01')",
    )
    of.archive()
    of.database.execute("INSERT INTO t VALUES (2, '2024-03-01')")
    assert of.run().deleted == 2
    assert verify_day(of.dataset, DAY, table=None, lake=of.lake).problems == ()


def test_a_row_that_the_numbering_makes_too_long_does_not_accuse_the_file(pipeline: Pipeline):
    names = [f"c{n}" for n in range(1015)]
    of = of_table(
        pipeline,
        f"CREATE TABLE t (id bigint PRIMARY KEY, at timestamp, {', '.join(f'{name} bigint' for name in names)})",
    )
    of.database.execute(f"INSERT INTO t VALUES (1, '2024-03-01', {', '.join('1' for _ in names)})")
    of.archive()
    with pytest.raises(RefusedError, match="54000") as error:
        of.purge()
    assert not isinstance(error.value, IntegrityError)


def test_types_of_another_schema_are_not_taken_for_postgresqls(pipeline: Pipeline):
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (
          id uuid PRIMARY KEY, at timestamp, j jsonb, p point, names text[], took interval(3), n bit(2), amount numeric,
          waits interval, c bpchar, cs bpchar[], m "bit");
        INSERT INTO t VALUES (gen_random_uuid(), '2024-03-01', '{{"b": 1}}', '(1,2)', '{{a}}', '1.5 s', '01', 1.5,
          '1 h', 'ab ', '{{"c "}}', '011');
        CREATE SCHEMA app; CREATE DOMAIN app.uuid AS text; CREATE DOMAIN app.jsonb AS text;
        CREATE TABLE app.point (x int, y int); CREATE DOMAIN app.text AS int;
        CREATE DOMAIN app.interval AS int; CREATE DOMAIN app.bit AS int; CREATE DOMAIN app.bpchar AS text;
        CREATE DOMAIN app.numeric AS text;
        ALTER DATABASE {pipeline.database.name} SET search_path = app, public, pg_catalog;""",
    )
    assert of.run().deleted == 1
    assert restore_day(of.site, DAY, TableName("public", "back")).restored == 1
    types = "SELECT attname, atttypid FROM pg_attribute WHERE attrelid = 'public.{}'::regclass AND attnum > 0"
    assert of.database.execute(types.format("back")) == of.database.execute(types.format("t"))


def test_functions_of_domains_and_event_triggers_find_what_they_name(pipeline: Pipeline):
    of = of_table(
        pipeline,
        f"""CREATE SCHEMA app; CREATE TABLE app.words (word text); INSERT INTO app.words VALUES ('good');
        CREATE TABLE app.log (tag text);
        ALTER DATABASE {pipeline.database.name} SET search_path = app, public;
        CREATE FUNCTION app.known(text) RETURNS boolean LANGUAGE plpgsql STABLE AS
          'BEGIN RETURN EXISTS (SELECT FROM words WHERE word = $1); END';
        CREATE FUNCTION app.logged() RETURNS event_trigger LANGUAGE plpgsql AS
          'BEGIN INSERT INTO log VALUES (tg_tag); END';
        CREATE DOMAIN app.word AS text CHECK (app.known(VALUE));
        CREATE TABLE public.t (id int PRIMARY KEY, at timestamp, w app.word);""",
    )
    of.database.execute("INSERT INTO public.t VALUES (1, '2024-03-01', 'good')")
    of.archive()
    # With a superseded row, the read-back is indexed a second time.
    of.database.execute("INSERT INTO app.words VALUES ('better'); UPDATE public.t SET w = 'better'")
    of.archive()
    of.database.execute("CREATE EVENT TRIGGER logged ON ddl_command_end EXECUTE FUNCTION app.logged()")
    try:
        assert of.purge().deleted == 1
        restored = restore_day(of.site, DAY, T)
        assert restored.restored == 1
    finally:
        of.database.execute("DROP EVENT TRIGGER logged")
    assert rows_of(of, "app.log") > 0


def test_an_event_trigger_that_sees_what_is_made_finds_what_it_names(pipeline: Pipeline):
    """A read-back makes an index, a restore a table."""
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int PRIMARY KEY, at timestamp); INSERT INTO t VALUES (1, '2024-03-01');
        CREATE TABLE seen (tag text);
        CREATE FUNCTION sees() RETURNS event_trigger LANGUAGE plpgsql AS
          'BEGIN INSERT INTO seen VALUES (TG_TAG); END';
        CREATE EVENT TRIGGER sees ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION sees();""",
    )
    assert of.run().deleted == 1
    assert rows_of(of, "seen") == 1
    of.database.execute("DROP EVENT TRIGGER sees; CREATE EVENT TRIGGER sees ON ddl_command_end EXECUTE FUNCTION sees()")
    assert restore_day(of.site, DAY, TableName("public", "t_restored")).restored == 1


def test_triggers_that_an_event_trigger_gives_new_tables_do_not_touch_what_is_read_back(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int PRIMARY KEY, at timestamp, note text);
        INSERT INTO t VALUES (1, '2024-03-01', 'LOUD'), (2, '2024-03-01', 'low');
        CREATE FUNCTION low() RETURNS trigger LANGUAGE plpgsql AS
          'BEGIN NEW.note = lower(NEW.note); RETURN NEW; END';
        CREATE FUNCTION lowered() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE made record; BEGIN
          FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP
            EXECUTE format('CREATE TRIGGER low BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION public.low()',
                           made.object_identity);
          END LOOP; END $$;""",
    )
    of.archive()
    of.database.execute("UPDATE t SET note = 'loud' WHERE id = 1")
    of.database.execute("CREATE EVENT TRIGGER lowered ON ddl_command_end EXECUTE FUNCTION lowered()")
    purged = of.purge()
    assert (purged.deleted, purged.left) == (1, 1)


def test_what_an_event_trigger_sets_changes_neither_a_file_nor_how_it_reads(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int PRIMARY KEY, at timestamptz, v timestamp, span interval, tags text[]);
        INSERT INTO t VALUES (1, '2024-03-01 00:30+00', '2024-02-03', '-1 day +02:00', '{NULL}');
        CREATE FUNCTION sets() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          SET LOCAL TimeZone TO 'Asia/Tokyo'; SET LOCAL DateStyle TO 'SQL, DMY';
          SET LOCAL IntervalStyle TO 'sql_standard'; SET LOCAL array_nulls TO off; END $$;
        CREATE EVENT TRIGGER sets ON ddl_command_end EXECUTE FUNCTION sets();""",
    )
    of.archive()
    of.database.execute("INSERT INTO t VALUES (2, '2024-03-01 20:00+00', '2024-02-03', '-1 day +02:00', '{NULL}')")
    of.archive()
    rows = [",2024-02-03 00:00:00,-1 days +02:00:00,{NULL}"] * 2
    times = ["1,2024-03-01 00:30:00+00", "2,2024-03-01 20:00:00+00"]
    assert of.content().decode().splitlines()[1:] == [time + row for time, row in zip(times, rows, strict=True)]
    assert of.purge().deleted == 2
    assert restore_day(of.site, DAY, T).restored == 2


def test_an_event_trigger_that_sets_another_encoding_changes_no_file_nor_how_it_reads(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int PRIMARY KEY, at timestamp, note text);
        INSERT INTO t VALUES (1, '2024-03-01 08:00', 'é');
        CREATE FUNCTION sets() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          SET LOCAL client_encoding TO 'LATIN1'; END $$;
        CREATE EVENT TRIGGER sets ON ddl_command_end EXECUTE FUNCTION sets();""",
    )
    of.archive()
    of.database.execute("INSERT INTO t VALUES (2, '2024-03-01 09:00', 'ü')")
    assert of.archive().rows_appended == 1
    assert of.values("note") == ["é", "ü"]
    assert of.purge().deleted == 2

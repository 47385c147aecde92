"""A hypertable is archived as any table. The catalogue is a stand-in: ``fixtures.timescale`` says for what."""

import json
import re
from datetime import UTC, date, datetime

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import Retention
from event_archive.errors import NoSuchTableError, RefusedError
from event_archive.nightly.backlog import days_to_do, rows_of_aged_days
from event_archive.nightly.orphans import orphans
from event_archive.operations import dropping
from event_archive.operations.restore.day import restore_day
from event_archive.operations.verify import verify_day
from event_archive.postgres.catalogue.timescale import decompress_without_limit, retention_policies
from event_archive.table import windows
from event_archive.table.shape import Table, current_shape
from event_archive_tests.fixtures.doctor import findings, wrong
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.timescale import add_chunk, make_hypertable

pytestmark = pytest.mark.slow

READING = "CREATE TABLE reading (id bigint, at timestamptz NOT NULL, note text, PRIMARY KEY (at, id))"
CHUNKS = [("2024-02-23", "2024-03-01"), ("2024-03-01", "2024-03-08"), ("2024-03-08", "2024-03-15")]
CHUNK = "_timescaledb_internal.reading_2024_03_01"
LIMIT = "timescaledb.max_tuples_decompressed_per_dml_transaction"
# Told by the chunk, whose triggers fire in the statements of a purge and of a restore.
TELLS_LIMIT = f"""
CREATE TABLE seen (command text, decompressed text);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.seen VALUES (TG_OP, current_setting('{LIMIT}', true)); RETURN NULL; END $$;
CREATE TRIGGER tells AFTER INSERT OR DELETE ON {CHUNK} FOR EACH ROW EXECUTE FUNCTION tell();
"""
# The real one finds the chunk by itself.
INTO_CHUNK = f"CREATE RULE into_chunk AS ON INSERT TO reading DO INSTEAD INSERT INTO {CHUNK} VALUES (NEW.*)"


@pytest.fixture
def reading(pipeline: Pipeline, timescale: Database) -> Pipeline:
    """A hypertable of three weeks, with three rows on the first of March and one before and after."""
    timescale.execute(READING)
    make_hypertable(timescale, "reading", "at", CHUNKS)
    timescale.execute(
        f"""INSERT INTO {CHUNK} SELECT n, '2024-03-01 00:00Z'::timestamptz + n * interval '1 hour', 'x'
        FROM generate_series(1, 3) AS n;
        INSERT INTO _timescaledb_internal.reading_2024_02_23 VALUES (4, '2024-02-29 23:00Z', 'y');
        INSERT INTO _timescaledb_internal.reading_2024_03_08 VALUES (5, '2024-03-08 00:00Z', 'z')"""
    )
    return pipeline.of(table=TableName("public", "reading"), time_column="at")


def shape(pipeline: Pipeline) -> Table:
    return current_shape(pipeline.dataset, pipeline.postgres)


def test_a_hypertable_is_archived_verified_purged_and_restored_in_place(reading: Pipeline):
    assert days_to_do(reading.dataset, datetime.now(UTC), reading.postgres).days == [
        date(2024, 2, 29),
        DAY,
        date(2024, 3, 8),
    ]
    reading.archive()
    assert reading.archive().rows_appended == 0
    assert not verify_day(reading.dataset, DAY, table=shape(reading), lake=reading.lake).problems
    assert reading.purge(dry_run=True).proven == 3
    assert (reading.purge().deleted, reading.count()) == (3, 2)
    reading.database.execute(INTO_CHUNK)
    assert restore_day(reading.site, DAY, reading.dataset.table).restored == 3
    assert restore_day(reading.site, DAY, reading.dataset.table).skipped == 3
    assert reading.count() == 5


def test_a_hypertable_without_chunks_yet_is_no_table_in_one_piece(reading: Pipeline):
    reading.run()
    reading.database.execute(f"DROP TABLE {CHUNK}, _timescaledb_internal.reading_2024_02_23 CASCADE")
    reading.database.execute("DROP TABLE _timescaledb_internal.reading_2024_03_08")
    assert shape(reading).is_partitioned
    add_chunk(reading.database, "reading", "at", "2024-03-01", "2024-03-08")
    reading.database.execute(INTO_CHUNK)
    assert restore_day(reading.site, DAY, reading.dataset.table).restored == 3


def test_a_purge_and_a_restore_decompress_without_limit(reading: Pipeline):
    reading.database.execute(TELLS_LIMIT)
    reading.run()
    reading.database.execute(INTO_CHUNK)
    restore_day(reading.site, DAY, reading.dataset.table)
    assert reading.database.execute("SELECT DISTINCT command, decompressed FROM seen ORDER BY 1") == [
        ("DELETE", "0"),
        ("INSERT", "0"),
    ]


def test_decompression_is_without_limit_for_one_transaction_alone(database: Database):
    with psycopg.connect(database.dsn) as connection:
        decompress_without_limit(connection)
        assert connection.execute(f"SHOW {LIMIT}").fetchone() == ("0",)
        connection.commit()
        assert connection.execute(f"SHOW {LIMIT}").fetchone() == ("",)


def test_a_table_beside_hypertables_sets_nothing_of_theirs(pipeline: Pipeline, timescale: Database):
    pipeline.add(1)
    timescale.execute(TELLS_LIMIT.replace(CHUNK, '"Event"'))
    pipeline.run()
    assert timescale.execute("SELECT DISTINCT decompressed FROM seen") == [(None,)]


def test_inheritance_without_timescaledb_is_refused(reading: Pipeline):
    reading.database.execute("DELETE FROM timescaledb_information.hypertables")
    with pytest.raises(RefusedError, match="reading has inheritance children"):
        shape(reading)


def test_schemas_of_timescaledbs_names_without_the_extension_make_no_hypertable(reading: Pipeline):
    reading.database.execute(
        """ALTER EXTENSION timescaledb DROP SCHEMA timescaledb_information;
        ALTER EXTENSION timescaledb DROP SCHEMA _timescaledb_internal;
        DO $$ DECLARE name text; BEGIN
          FOREACH name IN ARRAY ARRAY['hypertables', 'chunks', 'jobs', 'continuous_aggregates'] LOOP
            EXECUTE 'ALTER EXTENSION timescaledb DROP TABLE timescaledb_information.' || name; END LOOP; END $$;
        DROP EXTENSION timescaledb"""
    )
    with pytest.raises(RefusedError, match="reading has inheritance children"):
        shape(reading)


def test_a_chunk_by_itself_is_a_table(reading: Pipeline):
    chunk = reading.of(table=TableName("_timescaledb_internal", "reading_2024_03_01"))
    assert not shape(chunk).is_hypertable


def test_a_hypertable_of_another_name_is_missed_as_any_table(reading: Pipeline):
    with pytest.raises(NoSuchTableError, match="Did you mean public.reading"):
        shape(reading.of(table=TableName("public", "Reading")))


def test_days_of_many_chunks_are_searched_stretch_by_stretch(reading: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(windows, "MOST_PARTITIONS", 1)
    dataset, now = reading.dataset, datetime.now(UTC)
    with reading.postgres.transaction("test") as connection:
        assert windows.windows(connection, shape(reading), date(2024, 2, 28), date(2024, 3, 10)) == [
            (date(2024, 2, 28), date(2024, 2, 29)),
            (DAY, date(2024, 3, 7)),
            (date(2024, 3, 8), date(2024, 3, 10)),
        ]
    found = rows_of_aged_days(dataset, now, reading.postgres)
    assert found.rows == {date(2024, 2, 29): 1, DAY: 3, date(2024, 3, 8): 1}
    assert not found.orphans
    assert days_to_do(dataset, now, reading.postgres).days == list(found.rows)
    late = reading.of(start=date(2024, 3, 8))
    assert orphans(late.dataset, late.postgres).before_start == 4


@pytest.mark.parametrize("start", [date(2024, 3, 1), date.min])
def test_rows_of_a_hypertable_that_belong_to_no_day_are_counted_once(reading: Pipeline, start: date):
    reading.database.execute("INSERT INTO reading VALUES (6, 'infinity', 'w'), (7, '0044-03-15 BC', 'w')")
    of = reading.of(start=start)
    found = orphans(of.dataset, of.postgres)
    assert (found.before_start, found.not_finite) == (1 if start == date.min else 2, 1)


@pytest.mark.parametrize("start", ["-infinity", "4713-01-01 BC", "20000-01-01"])
def test_a_chunk_from_beyond_the_calendar_ends_no_stretch(
    reading: Pipeline, monkeypatch: pytest.MonkeyPatch, start: str
):
    monkeypatch.setattr(windows, "MOST_PARTITIONS", 1)
    reading.database.execute("UPDATE timescaledb_information.chunks SET range_start = %s::timestamptz", start)
    with reading.postgres.transaction("test") as connection:
        days = (date.min, date.max)
        assert windows.windows(connection, shape(reading), *days) == [days]


@pytest.mark.parametrize("purge", ["delete", "drop"])
def test_a_role_of_least_privilege_sees_hypertables(reading: Pipeline, purge: str):
    role = f"least_{reading.database.name}"
    reading.database.execute(
        f"""CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON reading TO {role};
        GRANT ALL ON ALL TABLES IN SCHEMA _timescaledb_internal TO {role}"""
    )
    of = reading.of(purge=purge)
    of.role = role
    purged = of.run()
    assert (purged.how, purged.deleted) == ("deleted", 3)
    assert purged.reason == (f"{role} does not own {CHUNK}" if purge == "drop" else None)


# Chunks that are dropped


def beginnings(of: Pipeline) -> list[str]:
    rows = of.database.execute("SELECT range_start::date::text FROM timescaledb_information.chunks ORDER BY 1")
    return [str(day) for (day,) in rows]


def test_a_chunk_is_dropped_in_place_of_its_rows(reading: Pipeline):
    of = reading.of(purge="drop")
    of.archive()
    assert of.purge(dry_run=True).how == "dropped"
    assert of.count() == 5
    purged = of.purge()
    assert (purged.outcome, purged.deleted, purged.left) == ("purged", 3, 0)
    assert (purged.how, purged.partitions, purged.reason) == ("dropped", (CHUNK,), None)
    assert (beginnings(of), of.count()) == (["2024-02-23", "2024-03-08"], 2)


def test_chunks_right_before_and_after_a_chunk_stay(reading: Pipeline):
    for start, end in (("2024-02-29", "2024-03-01"), ("2024-03-08", "2024-03-09")):
        add_chunk(reading.database, "reading", "at", start, end, name=f"beside_{start}")
    assert reading.of(purge="drop").run().partitions == (CHUNK,)


def test_a_chunk_of_many_days_is_dropped_once_all_of_them_are_archived(reading: Pipeline):
    of = reading.of(purge="drop")
    reading.database.execute(f"INSERT INTO {CHUNK} VALUES (6, '2024-03-07 23:59:59.999999Z', 'w')")
    first, last = of.run(), of.run(date(2024, 3, 7))
    assert (first.outcome, first.deleted) == ("waiting", 0)
    assert (last.deleted, last.partitions, last.others) == (4, (CHUNK,), {DAY: 0})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE reading SET note = 'changed' WHERE id = 2", "1 of 3 rows is in no file in their present form"),
        (f"INSERT INTO {CHUNK} VALUES (9, '2024-03-01 09:00Z', 'late')", "1 of 4 rows is in no file"),
        (f"INSERT INTO {CHUNK} VALUES (9, '2024-03-02 09:00Z', 'late')", "2024-03-02.* is not archived yet"),
        (f"CREATE VIEW v AS SELECT * FROM {CHUNK}", "objects depend on it|dependent objects"),
        ("CREATE PUBLICATION pub FOR TABLE reading", "subscribers of publication pub"),
        (TELLS_LIMIT, "a DROP would not fire its triggers on DELETE: tells"),
    ],
)
def test_a_chunk_that_may_not_go_is_kept(reading: Pipeline, change: str, words: str):
    of = reading.of(purge="drop")
    of.archive()
    reading.database.execute(change)
    purged = of.purge()
    assert re.search(words, str(purged.reason)), purged.reason
    assert "2024-03-01" in beginnings(of)
    assert purged.how == (None if purged.outcome == "waiting" else "deleted")


COMPRESSED = f"""
CREATE TABLE compressed (LIKE {CHUNK} INCLUDING CONSTRAINTS);
INSERT INTO compressed SELECT * FROM {CHUNK} WHERE id > 1;
DELETE FROM {CHUNK} WHERE id > 1;
ALTER TABLE compressed INHERIT {CHUNK};
"""


def test_what_is_compressed_of_a_chunk_goes_with_it(reading: Pipeline):
    of = reading.of(purge="drop")
    of.archive()
    reading.database.execute(COMPRESSED)
    assert (of.purge().deleted, beginnings(of)) == (3, ["2024-02-23", "2024-03-08"])


def test_a_row_that_is_compressed_is_proven_too(reading: Pipeline):
    of = reading.of(purge="drop")
    of.archive()
    reading.database.execute(f"{COMPRESSED} UPDATE compressed SET note = 'changed' WHERE id = 2")
    purged = of.purge()
    assert purged.reason == f"1 of 3 rows is in no file in their present form, in {CHUNK}"
    assert (purged.deleted, purged.left) == (2, 1)


DECOMPRESSES = """
UPDATE timescaledb_information.chunks SET is_compressed = {};
CREATE TRIGGER decompresses AFTER DELETE ON reading EXECUTE FUNCTION _timescaledb_internal.decompresses()
"""


@pytest.mark.parametrize("divided_by", ["at", "id"])
def test_what_a_purge_decompresses_is_not_taken_for_the_deed_of_a_trigger(reading: Pipeline, divided_by: str):
    reading.archive()
    reading.database.execute(f"UPDATE timescaledb_information.chunks SET primary_dimension = '{divided_by}'")
    reading.database.execute(DECOMPRESSES.format("true"))
    assert reading.purge().deleted == 3


def test_what_a_restore_decompresses_is_not_taken_for_the_deed_of_a_trigger(reading: Pipeline):
    reading.run()
    reading.database.execute(
        f"""{INTO_CHUNK};
        CREATE TRIGGER decompresses AFTER INSERT ON {CHUNK} FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0)
        EXECUTE FUNCTION _timescaledb_internal.decompresses()"""
    )
    assert restore_day(reading.site, DAY, reading.dataset.table).restored == 3
    assert reading.count("id = 100") == 1


@pytest.mark.parametrize(
    ("compressed", "trigger", "words"),
    [
        ("false", "", "1 inserted, 0 updated .*none is seen"),
        ("true", TELLS_LIMIT, r"nobody can tell that from what its triggers on DELETE \(tells\) change in it"),
    ],
)
def test_rows_that_more_than_a_decompression_may_have_changed_are_not_purged(
    reading: Pipeline, compressed: str, trigger: str, words: str
):
    reading.archive()
    reading.database.execute(DECOMPRESSES.format(compressed) + ";" + trigger)
    with pytest.raises(RefusedError, match=words):
        reading.purge()
    assert reading.count() == 5


@pytest.mark.parametrize("compressed", [CHUNKS[0][0], CHUNKS[1][0]], ids=["another chunk", "its chunk"])
def test_what_a_trigger_sets_and_takes_back_lets_no_two_rows_of_a_chunk_pass_for_one(
    reading: Pipeline, compressed: str
):
    """Of a compressed chunk nobody can tell which versions of rows were compared."""
    reading.database.execute(
        f"""UPDATE timescaledb_information.chunks SET is_compressed = true WHERE range_start = '{compressed}';
        ALTER TABLE reading ADD v float8 DEFAULT 1.1;
        CREATE FUNCTION sets() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          PERFORM set_config('extra_float_digits', TG_ARGV[0], true); RETURN NULL; END $$;
        CREATE TRIGGER rounds BEFORE DELETE ON reading EXECUTE FUNCTION sets('-15');
        CREATE TRIGGER takes_back AFTER DELETE ON reading EXECUTE FUNCTION sets('1')"""
    )
    reading.archive()
    reading.database.execute(f"UPDATE {CHUNK} SET v = 1.2 WHERE id = 1")
    if compressed == CHUNKS[1][0]:
        with pytest.raises(RefusedError, match="chunks of it are compressed"):
            reading.purge()
    else:
        assert (reading.purge().deleted, reading.count("v = 1.2")) == (2, 1)
    assert reading.count("id = 1") == 1


def test_chunks_that_are_divided_in_space_too_go_together(reading: Pipeline):
    other = add_chunk(reading.database, "reading", "at", "2024-03-01", "2024-03-08", name="reading_in_space")
    reading.database.execute(f"INSERT INTO {other} VALUES (6, '2024-03-01 08:00Z', 'w')")
    purged = reading.of(purge="drop").run()
    assert (purged.deleted, purged.partitions) == (4, (CHUNK, other))


def test_a_chunk_within_the_range_of_another_is_not_dropped_unseen(reading: Pipeline):
    within = add_chunk(reading.database, "reading", "at", "2024-03-05", "2024-03-06")
    reading.database.execute(f"INSERT INTO {within} VALUES (6, '2024-03-05 08:00Z', 'w')")
    purged = reading.of(purge="drop").run()
    assert (purged.how, purged.deleted, reading.count()) == ("deleted", 3, 3)
    assert purged.reason == f"TimescaleDB would have dropped {CHUNK}, {within} in place of {CHUNK}"


def test_a_continuous_aggregate_keeps_no_chunk(reading: Pipeline):
    for table in ("reading", CHUNK):
        reading.database.execute(
            f"""CREATE TRIGGER ts_cagg_invalidation_trigger AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW
            EXECUTE FUNCTION _timescaledb_internal.continuous_agg_invalidation_trigger()"""
        )
    assert reading.of(purge="drop").run().how == "dropped"


def test_a_hypertable_is_read_and_not_written_while_a_chunk_is_dropped(
    reading: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dropping, "_PATIENCE", 0)
    of = reading.of(purge="drop")
    of.archive()
    of.archive(date(2024, 3, 8))
    with psycopg.connect(reading.database.dsn) as other:
        other.execute("LOCK TABLE ONLY reading IN ROW EXCLUSIVE MODE")
        assert "the table's lock was not to be had" in str(of.purge().reason)
        other.rollback()
        other.execute("LOCK TABLE ONLY reading IN ACCESS SHARE MODE")
        assert of.purge(date(2024, 3, 8)).how == "dropped"


def test_a_chunk_that_a_purge_has_emptied_is_dropped(reading: Pipeline):
    of = reading.of(drop_empty_partitions=True)
    reading.database.execute(f"INSERT INTO {CHUNK} VALUES (6, '2024-03-02 08:00Z', 'w')")
    assert of.run().partitions == ()
    purged = of.run(date(2024, 3, 2))
    assert (purged.how, purged.partitions) == ("deleted", (CHUNK,))
    assert (beginnings(of), of.count()) == (["2024-02-23", "2024-03-08"], 2)


@pytest.mark.parametrize("kind", ["timestamp", "date"])
def test_a_chunk_of_every_type_of_time_is_dropped(pipeline: Pipeline, timescale: Database, kind: str):
    timescale.execute(READING.replace("timestamptz", kind))
    make_hypertable(timescale, "reading", "at", CHUNKS)
    timescale.execute(f"INSERT INTO {CHUNK} VALUES (1, '2024-03-01', 'x')")
    of = pipeline.of(table=TableName("public", "reading"), time_column="at", purge="drop")
    assert of.run().partitions == (CHUNK,)


def test_chunks_by_another_column_are_not_dropped(reading: Pipeline):
    reading.database.execute("UPDATE timescaledb_information.chunks SET primary_dimension = 'another'")
    purged = reading.of(purge="drop").run()
    assert (purged.how, purged.deleted) == ("deleted", 3)
    assert "in no partition of a range of the time column" in str(purged.reason)


# The doctor


POLICY = """INSERT INTO timescaledb_information.jobs VALUES (1001, 'policy_retention', {scheduled}, %s::jsonb,
'public', 'reading')"""


def job(after: str, *, key: str = "drop_after", scheduled: bool = True) -> tuple[str, str]:
    return POLICY.format(scheduled=scheduled), json.dumps({key: after, "hypertable_id": 1})


def refresh(start_offset: str | None, *, name: str = "hourly") -> tuple[str, str]:
    """A continuous aggregate's policy; which name the job has for it depends on the version of TimescaleDB."""
    return (
        f"""INSERT INTO timescaledb_information.continuous_aggregates
        VALUES ('public', 'reading', 'public', 'hourly', '_timescaledb_internal', '_materialized_hypertable_2');
        INSERT INTO timescaledb_information.jobs SELECT 1002, 'policy_refresh_continuous_aggregate', true,
        config, schema_, '{name}' FROM (VALUES ($1::jsonb)) AS v (config),
        LATERAL (SELECT CASE '{name}' WHEN 'hourly' THEN 'public' ELSE '_timescaledb_internal' END) AS s (schema_)"""
    ).replace("$1", "%s"), json.dumps({"start_offset": start_offset, "end_offset": "01:00:00"})


@pytest.mark.parametrize(
    ("rows", "status", "message"),
    [
        (None, "good", "no job drops its chunks"),
        (job("90 days"), "bad", "job 1001 drops chunks older than 90 days, before their rows can be archived"),
        (job("1 year"), "bad", "before their rows can be archived"),
        (job("2 years"), "warning", "drops chunks older than 2 years, whether or not their rows are archived"),
        (job("2 years", key="drop_created_before"), "bad", "drops chunks older than 2 years, before"),
        (job("90 days", scheduled=False), "good", "no job drops its chunks"),
        (refresh("1 mon"), "good", "no continuous aggregate loses"),
        (refresh("2 years"), "warning", "public.hourly is computed again from rows of the last 2 years: it loses"),
        (refresh("2 years", name="_materialized_hypertable_2"), "warning", "public.hourly is computed again"),
        (refresh(None), "warning", "public.hourly is computed again from rows of all times"),
    ],
)
def test_the_doctor_sees_what_timescaledb_does_by_itself(
    healthy_locally: Installation,
    command: Commands,
    timescale: Database,
    rows: tuple[str, str] | None,
    status: str,
    message: str,
):
    timescale.execute(READING)
    make_hypertable(timescale, "reading", "at", CHUNKS)
    timescale.execute(POLICY.format(scheduled=True).replace("'reading'", "'another'"), '{"drop_after": "1 day"}')
    if rows:
        statements, config = rows
        for statement in statements.split(";"):
            timescale.execute(statement, *([config] if "%s" in statement else []))
    variables = {"EVENT_TABLE": "public.reading", "EVENT_TIME_COLUMN": "at"}
    found = findings(command("doctor", "--json", **variables), 1 if status == "bad" else 0)
    assert message in found["hypertable"].message
    assert wrong(found) == ({} if status == "good" else {"hypertable": status})


@pytest.mark.parametrize("compressed", [CHUNKS[0][0], CHUNKS[1][0]], ids=["without rows", "with rows"])
def test_the_doctor_sees_a_compressed_chunk_that_a_trigger_keeps_from_being_purged(
    healthy_locally: Installation, command: Commands, timescale: Database, compressed: str
):
    timescale.execute(READING)
    make_hypertable(timescale, "reading", "at", CHUNKS)
    timescale.execute(
        f"""INSERT INTO {CHUNK} VALUES (1, '2024-03-01 00:00Z', 'x');
        UPDATE timescaledb_information.chunks SET is_compressed = true WHERE range_start = '{compressed}';
        {TELLS_LIMIT}"""
    )
    variables = {"EVENT_TABLE": "public.reading", "EVENT_TIME_COLUMN": "at"}
    is_bad = compressed == CHUNKS[1][0]
    found = findings(command("doctor", "--json", **variables), 1 if is_bad else 0)["triggers"]
    assert found.status == ("bad" if is_bad else "warning")
    assert ("A chunk of 2024-03-01 is compressed" in found.message) is is_bad
    assert command("run", **variables).code == (1 if is_bad else 0)


def test_an_index_of_a_hypertable_is_never_to_be_made_concurrently(
    healthy_locally: Installation, command: Commands, timescale: Database
):
    """TimescaleDB refuses that."""
    timescale.execute(READING.replace("(at, id)", "(id, at)"))
    make_hypertable(timescale, "reading", "at", CHUNKS)
    found = findings(command("doctor", "--json", EVENT_TABLE="public.reading", EVENT_TIME_COLUMN="at"), 0)["time_index"]
    assert found.remedy == 'CREATE INDEX ON "public"."reading" ("at") WITH (timescaledb.transaction_per_chunk);'


def test_the_doctor_names_a_hypertable_that_refers_once_and_how_to_index_it(
    healthy_locally: Installation, timescale: Database, command: Commands
):
    timescale.execute('CREATE TABLE note (e bigint CONSTRAINT told REFERENCES "Event", at timestamptz NOT NULL)')
    make_hypertable(timescale, "note", "at", CHUNKS)
    for n, (start, _) in enumerate(CHUNKS):
        chunk = f"_timescaledb_internal.note_{start}".replace("-", "_")
        timescale.execute(f'ALTER TABLE {chunk} ADD CONSTRAINT "{n}_told" FOREIGN KEY (e) REFERENCES "Event"')
    found = findings(command("doctor", "--json"), 0)["foreign_keys"]
    assert found.message.partition(". ")[0] == "refers to the table: told of public.note, which no index serves"
    statement = 'CREATE INDEX ON "public"."note" ("e") WITH (timescaledb.transaction_per_chunk);'
    assert found.remedy.partition(". ")[2].endswith(statement)


def test_the_doctor_says_that_a_table_is_no_hypertable(healthy_locally: Installation, command: Commands):
    assert findings(command("doctor", "--json"), 0)["hypertable"].message == "the table is none"


def test_the_age_of_a_policy_is_compared_with_the_retention_by_the_calendar(reading: Pipeline):
    reading.database.execute(*job("1 year"))
    retention = Retention(months=0, days=363)
    with reading.postgres.transaction("test") as connection:
        (policy,) = retention_policies(connection, "public", "reading", retention.before(datetime.now(UTC)))
    assert not policy.too_early

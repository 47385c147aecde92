"""Chunks that are dropped in place of their rows, are compressed, or may not go."""

import re
from datetime import date

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import RefusedError
from event_archive.operations import dropping
from event_archive.operations.restore.day import restore_day
from event_archive_tests.fixtures.hypertable import CHUNK, CHUNKS, INTO_CHUNK, READING, TELLS_LIMIT
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.timescale import add_chunk, make_hypertable

pytestmark = pytest.mark.slow


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

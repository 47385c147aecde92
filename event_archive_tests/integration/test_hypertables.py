"""A hypertable is archived as any table. The catalogue is a stand-in: ``fixtures.timescale`` says for what."""

from datetime import UTC, date, datetime

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import NoSuchTableError, RefusedError
from event_archive.nightly.backlog import days_to_do, rows_of_aged_days
from event_archive.nightly.orphans import orphans
from event_archive.operations.restore.day import restore_day
from event_archive.operations.verify import verify_day
from event_archive.postgres.catalogue.timescale import decompress_without_limit
from event_archive.table import windows
from event_archive.table.shape import Table, current_shape
from event_archive_tests.fixtures.hypertable import CHUNK, INTO_CHUNK, LIMIT, TELLS_LIMIT
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.timescale import add_chunk

pytestmark = pytest.mark.slow


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

"""The vacuum after a purge, and what goes wrong once rows are deleted."""

import psycopg
import pytest

from event_archive.domain.days import now_utc
from event_archive.errors import RefusedError
from event_archive.lake.protocol import Lake
from event_archive.nightly.backlog import rows_of_aged_days
from event_archive.table.shape import current_shape
from event_archive_tests.fixtures.partitions import DAILY, of_table
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database

pytestmark = pytest.mark.slow


def test_an_ordinary_table_is_vacuumed_after_a_delete(pipeline: Pipeline):
    of = pipeline.of(vacuum=True)
    of.add(3)
    purged = of.run()
    assert purged.vacuum_seconds is not None
    ((vacuums, analyzes),) = of.database.execute(
        "SELECT vacuum_count, analyze_count FROM pg_stat_user_tables WHERE relname = 'Event'"
    )
    assert (vacuums, analyzes) == (1, 1)
    assert of.run().vacuum_seconds is None


def test_a_table_of_which_some_rows_were_kept_is_vacuumed_all_the_same(pipeline: Pipeline):
    pipeline.database.execute(
        """CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER keep BEFORE DELETE ON "Event" FOR EACH ROW WHEN (OLD.id = 2) EXECUTE FUNCTION keep()"""
    )
    of = pipeline.of(vacuum=True)
    of.add(3)
    purged = of.run()
    assert (purged.outcome, purged.deleted) == ("kept", 2)
    assert purged.vacuum_seconds is not None


@pytest.mark.parametrize("told", ["notice", "error"])
def test_a_table_that_somebody_else_vacuums_is_left_to_them(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, told: str
):
    of = pipeline.of(vacuum=True)
    of.database.execute(f"ALTER DATABASE {of.database.name} SET client_min_messages TO {told}")
    of.add(3)
    with psycopg.connect(of.database.dsn) as vacuuming:
        vacuuming.execute('LOCK TABLE "Event" IN SHARE UPDATE EXCLUSIVE MODE')
        purged = of.run()
    assert (purged.deleted, purged.vacuum_seconds) == (3, None)
    assert "not vacuumed: another session has it locked" in caplog.text


def test_a_partitioned_table_is_left_to_autovacuum(pipeline: Pipeline):
    of = of_table(pipeline, DAILY, purge="delete", vacuum=True)
    purged = of.run()
    assert (purged.deleted, purged.vacuum_seconds) == (5, None)


def test_a_role_that_may_not_vacuum_says_so(
    each_database: Database, local_lake: Lake, caplog: pytest.LogCaptureFixture
):
    of = Pipeline(each_database, local_lake).of(vacuum=True)
    of.add(3)
    role = f"guest_{of.database.name}"
    of.database.execute(
        f'CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON "Event" TO {role}; '
        f"GRANT TEMPORARY ON DATABASE {of.database.name} TO {role}"
    )
    try:
        purged = Pipeline(of.database, of.lake, of.dataset, role=role).run()
        assert (purged.deleted, purged.vacuum_seconds) == (3, None)
        needs = "MAINTAIN on it, or the owner's role" if of.database.server.version >= 17 else "the owner's role"
        assert f"not vacuumed: {role} may not, and needs {needs}\n" in caplog.text
    finally:
        of.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_vacuum_that_fails_does_not_say_that_nothing_was_deleted(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
):
    of = pipeline.of(vacuum=True)
    of.database.execute("""
        CREATE TABLE broken ();
        CREATE FUNCTION measured(text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
        BEGIN IF EXISTS (SELECT FROM public.broken) THEN RAISE 'no'; END IF; RETURN length($1); END $$;
        CREATE INDEX ON "Event" (measured(event_id))""")
    of.add(3)
    # A young row, so that ANALYZE has one to look at.
    of.add(1, day=now_utc().date(), prefix="young")
    of.database.execute("INSERT INTO broken DEFAULT VALUES")
    purged = of.run()
    assert (purged.deleted, purged.vacuum_seconds) == (3, None)
    assert "rows are deleted, but what is left behind is not cleared away" in caplog.text
    assert "The day is purged all the same." in caplog.text
    assert "Nothing was deleted" not in caplog.text


def test_a_vacuum_that_a_timeout_of_the_role_ends_promises_nothing_of_the_next_one(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
):
    of = pipeline.of(vacuum=True)
    of.add(3)
    settings = {"statement_timeout": "1s", "vacuum_cost_delay": "100ms", "vacuum_cost_limit": "1"}
    for name, value in settings.items():
        of.database.execute(f"ALTER DATABASE {of.database.name} SET {name} TO '{value}'")
    purged = of.run()
    assert (purged.deleted, purged.vacuum_seconds) == (3, None)
    assert "autovacuum does it where that is on, and so does the next purge, unless a statement_timeout" in caplog.text


def test_a_look_that_fails_after_a_purge_does_not_say_that_nothing_was_deleted(pipeline: Pipeline):
    """The figures for Prometheus and a nightly verification look at the table when rows are gone."""
    role = f"guest_{pipeline.database.name}"
    pipeline.database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        guest = Pipeline(pipeline.database, pipeline.lake, role=role)
        for look in (
            lambda: rows_of_aged_days(guest.dataset, now_utc(), guest.postgres),
            lambda: current_shape(guest.dataset, guest.postgres, "look"),
        ):
            with pytest.raises(RefusedError, match="permission denied") as refused:
                look()
            assert "Nothing was changed by this." in str(refused.value)
            assert "Nothing was deleted" not in str(refused.value)
    finally:
        pipeline.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

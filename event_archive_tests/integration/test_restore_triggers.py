"""Triggers of the table that is restored into: none changes unseen what is put back, or what stands there."""

from collections.abc import Callable

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import IntegrityError, RefusedError
from event_archive.operations.restore.day import RestoredDay
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.restoring import restoring


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

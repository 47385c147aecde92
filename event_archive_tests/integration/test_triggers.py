"""Triggers that do something else than to let rows go: a purge rolls back, or says what they kept."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from event_archive.errors import BusyError, RefusedError
from event_archive.operations import deleting
from event_archive.operations.restore.day import restore_day
from event_archive.postgres.catalogue import dependents
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, T, of_table, rows_of

TRIGGER = """
ALTER TABLE "Event" ADD COLUMN gone_at timestamptz;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
CREATE TRIGGER keeps {when} DELETE ON "Event" FOR EACH ROW EXECUTE FUNCTION f();
"""


@pytest.mark.parametrize(
    ("when", "body", "what"),
    [
        ("BEFORE", 'UPDATE "Event" SET gone_at = now() WHERE id = OLD.id; RETURN NULL;', "2 updated"),
        (
            "AFTER",
            """INSERT INTO "Event" (id, event_id, event_type, created_at, payload, gone_at)
            VALUES (OLD.id, OLD.event_id, 't', OLD.created_at + interval '1 day', '{}', now()); RETURN NULL;""",
            "2 inserted",
        ),
        ("AFTER", "DELETE FROM \"Event\" WHERE event_type = 'unproven'; RETURN NULL;", "3 deleted"),
    ],
)
def test_a_trigger_that_changes_the_table_rolls_the_day_back(pipeline: Pipeline, when: str, body: str, what: str):
    pipeline.add(2)
    pipeline.database.execute(
        """INSERT INTO "Event" (event_id, event_type, created_at, payload) VALUES ('u', 'unproven', now(), '{}')"""
    )
    pipeline.database.execute(TRIGGER.format(when=when, body=body))
    pipeline.archive()
    content = pipeline.content()
    for _ in range(2):
        with pytest.raises(RefusedError, match=rf"{what}.*\(keeps\).*Rolled back: nothing was deleted"):
            pipeline.purge()
        pipeline.archive()
    assert pipeline.content() == content
    assert pipeline.count("gone_at IS NULL") == 3


def test_a_trigger_that_would_change_the_table_at_the_commit_rolls_the_day_back(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.database.execute(
        """CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          DELETE FROM "Event" WHERE event_type = 'unproven'; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER late AFTER DELETE ON "Event" DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION f();
        INSERT INTO "Event" (event_id, event_type, created_at, payload) VALUES ('u', 'unproven', now(), '{}')"""
    )
    pipeline.archive()
    with pytest.raises(RefusedError, match=r"3 deleted .*\(late\).*Rolled back"):
        pipeline.purge()
    assert pipeline.count() == 3


@pytest.mark.parametrize("statement", ["TRUNCATE t_march_2", "DROP TABLE t_march_2"])
@pytest.mark.parametrize("when", ["before", "after", "at the commit"])
def test_a_trigger_that_takes_a_partition_away_rolls_the_day_back(pipeline: Pipeline, statement: str, when: str):
    trigger = {
        "before": "TRIGGER away BEFORE DELETE ON t",
        "after": "TRIGGER away AFTER DELETE ON t",
        "at the commit": "CONSTRAINT TRIGGER away AFTER DELETE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW",
    }[when]
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (id int, at timestamp, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE t_march_1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');
        CREATE TABLE t_march_2 PARTITION OF t FOR VALUES FROM ('2024-03-02') TO ('2024-03-03');
        INSERT INTO t VALUES (1, '2024-03-01 08:00', 'n'), (2, '2024-03-02 08:00', 'not archived yet');
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN NULL; END $$;
        CREATE {trigger} EXECUTE FUNCTION f();""",
    )
    of.archive()
    with pytest.raises(RefusedError, match="truncated, dropped, detached or altered .* Rolled back"):
        of.purge()
    assert rows_of(of, "t") == 2


def test_a_trigger_that_keeps_rows_as_they_are_is_warned_of(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    pipeline.add(2)
    pipeline.database.execute(TRIGGER.format(when="BEFORE", body="RETURN NULL;"))
    purged = pipeline.run()
    assert (purged.deleted, purged.left) == (0, 2)
    assert "a trigger of the table keeps them" in caplog.text


DEFERS = """
CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL);
CREATE TABLE log (id int);
INSERT INTO t VALUES (1, '2024-03-01 08:00+00'), (2, '2024-03-02 08:00+00');
CREATE FUNCTION logs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  SET CONSTRAINTS ALL DEFERRED; INSERT INTO public.log VALUES (1); RETURN NULL; END $$;
CREATE FUNCTION clears() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  DELETE FROM public.t WHERE id = 2; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER clears AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION clears();
"""
DEFERRED = """
CREATE CONSTRAINT TRIGGER logs AFTER {event} ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION logs()
"""


@pytest.mark.parametrize("event", ["DELETE", "INSERT"])
def test_what_a_deferred_trigger_defers_in_its_turn_is_seen_before_the_commit(pipeline: Pipeline, event: str):
    of = of_table(pipeline, DEFERS)
    of.archive()
    if event == "INSERT":
        of.purge()
    of.database.execute(DEFERRED.format(event=event))
    with pytest.raises(RefusedError, match=r"\(logs\).*Rolled back"):
        of.purge() if event == "DELETE" else restore_day(of.site, DAY, T)
    assert of.count("id = 2") == 1


def test_a_trigger_that_sets_how_values_are_written_lets_no_two_pass_for_one(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL, v float8);
        INSERT INTO t VALUES (1, '2024-03-01 08:00+00', 1.1);
        CREATE FUNCTION rounds() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          SET LOCAL extra_float_digits TO -15; RETURN OLD; END $$;
        CREATE TRIGGER rounds BEFORE DELETE ON t EXECUTE FUNCTION rounds();""",
    )
    of.archive()
    of.database.execute("UPDATE t SET v = 1.2")
    with pytest.raises(RefusedError, match="a trigger on DELETE set extra_float_digits .*Rolled back"):
        of.purge()
    assert of.count("v = 1.2") == 1
    of.database.execute("ALTER FUNCTION rounds SET extra_float_digits TO 1")
    assert (of.purge().deleted, of.run().deleted) == (0, 1)


@pytest.mark.parametrize("partitioned", [False, True], ids=["ordinary", "partitioned"])
def test_what_a_trigger_sets_while_rows_are_deleted_and_takes_back_lets_no_two_pass_for_one(
    pipeline: Pipeline, partitioned: bool
):
    """Rows are compared before the first trigger fires, and the very versions that were compared are deleted."""
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (id int, at timestamptz, v float8, PRIMARY KEY (id, at))
        {"PARTITION BY RANGE (at); CREATE TABLE t_1 PARTITION OF t DEFAULT" if partitioned else ""};
        INSERT INTO t VALUES (1, '2024-03-01 08:00+00', 1.1), (2, '2024-03-01 08:00+00', 1.1);
        CREATE FUNCTION sets() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          PERFORM set_config('extra_float_digits', TG_ARGV[0], true); RETURN NULL; END $$;
        CREATE TRIGGER rounds BEFORE DELETE ON t EXECUTE FUNCTION sets('-15');
        CREATE TRIGGER takes_back AFTER DELETE ON t EXECUTE FUNCTION sets('1');""",
    )
    of.archive()
    of.database.execute("UPDATE t SET v = 1.2 WHERE id = 1")
    purged = of.purge()
    assert (purged.deleted, purged.left) == (1, 1)
    assert of.count("v = 1.2 AND id = 1") == 1
    assert of.run().deleted == 1


SILENT = """
CREATE FUNCTION silent() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
CREATE TRIGGER silent BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION silent();
"""


def test_of_rows_that_one_transaction_wrote_a_purge_takes_those_that_the_file_holds(pipeline: Pipeline):
    """They lie in one place of two partitions, or beside one another."""
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (id int, at timestamp, v int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-01 12:00');
        CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM ('2024-03-01 12:00') TO ('2024-03-02');
        INSERT INTO t VALUES (1, '2024-03-01 08:00', 0), (2, '2024-03-01 08:00', 0), (3, '2024-03-01 13:00', 0);
        {SILENT}""",
    )
    of.archive()
    of.database.execute(
        """TRUNCATE t; INSERT INTO t VALUES
        (1, '2024-03-01 08:00', 0), (2, '2024-03-01 08:00', 9), (3, '2024-03-01 13:00', 9)"""
    )
    purged = of.purge()
    assert (purged.deleted, purged.left) == (1, 2)
    assert of.database.execute("SELECT id FROM t ORDER BY id") == [(2,), (3,)]


def test_a_row_that_takes_the_place_of_one_that_was_compared_stays(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (id int PRIMARY KEY, at timestamp, v int);
        INSERT INTO t VALUES (1, '2024-03-01', 0); {SILENT}""",
    )
    of.archive()
    original = deleting._compared_before
    with psycopg.connect(of.database.dsn) as other:
        other.execute("DELETE FROM t")

        def then_it_is_taken(*arguments: object) -> object:
            statement = original(*arguments)  # type: ignore[arg-type]
            other.commit()
            other.autocommit = True
            other.execute("VACUUM (INDEX_CLEANUP on) t")
            other.execute("INSERT INTO t VALUES (2, '2024-03-01', 1)")
            assert other.execute("SELECT ctid::text FROM t").fetchone() == ("(0,1)",)
            return statement

        monkeypatch.setattr(deleting, "_compared_before", then_it_is_taken)
        purged = of.purge()
    assert (purged.deleted, purged.left) == (0, 1)
    assert of.count() == 1


def test_triggers_that_an_event_trigger_gives_new_tables_hide_no_row_that_was_compared(pipeline: Pipeline):
    """The event trigger's function finds, too, what it names without a schema."""
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (id int PRIMARY KEY, at timestamp, v int);
        INSERT INTO t VALUES (1, '2024-03-01', 0); {SILENT}
        CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE FUNCTION gives() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE made record; BEGIN
          FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP
            EXECUTE format('CREATE TRIGGER swallow BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION swallow()',
                           made.object_identity);
          END LOOP; END $$;
        CREATE EVENT TRIGGER gives ON ddl_command_end EXECUTE FUNCTION gives();""",
    )
    assert of.run().deleted == 1


def test_a_trigger_that_comes_to_a_partition_just_before_the_delete_lets_no_two_pass_for_one(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int, at timestamptz, v float8, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE t_1 PARTITION OF t DEFAULT;
        INSERT INTO t VALUES (1, '2024-03-01 08:00+00', 1.1), (2, '2024-03-01 08:00+00', 1.1);
        CREATE FUNCTION sets() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          PERFORM set_config('extra_float_digits', TG_ARGV[0], true); RETURN OLD; END $$;""",
    )
    of.archive()
    of.database.execute("UPDATE t SET v = 1.2 WHERE id = 2")
    original = dependents.delete_triggers

    def come_then(*arguments: Any) -> Any:
        found = original(*arguments)
        monkeypatch.undo()
        of.database.execute(
            """CREATE TRIGGER rounds BEFORE DELETE ON t_1 FOR EACH ROW EXECUTE FUNCTION sets('-15');
            CREATE TRIGGER takes_back AFTER DELETE ON t_1 FOR EACH ROW EXECUTE FUNCTION sets('1')"""
        )
        return found

    monkeypatch.setattr(dependents, "delete_triggers", come_then)
    with pytest.raises(BusyError, match="got a trigger on DELETE .*Rolled back"):
        of.purge()
    assert of.count() == 2


@pytest.mark.parametrize("enabled", ["ENABLE", "ENABLE ALWAYS"])
def test_without_counters_a_table_with_triggers_is_refused(pipeline: Pipeline, enabled: str):
    pipeline.add(2)
    pipeline.database.execute(TRIGGER.format(when="AFTER", body="RETURN NULL;"))
    pipeline.database.execute(f'ALTER TABLE "Event" {enabled} TRIGGER keeps')
    pipeline.database.execute(f"ALTER DATABASE {pipeline.database.name} SET track_counts = off")
    pipeline.archive()
    with pytest.raises(RefusedError, match=r"track_counts is off.*\(keeps\)"):
        pipeline.purge()
    pipeline.database.execute('DROP TRIGGER keeps ON "Event"')
    assert pipeline.purge().deleted == 2


def test_without_counters_a_trigger_that_deletes_other_rows_is_refused_too(pipeline: Pipeline):
    """Nothing is deleted by the DELETE itself, so that the counters that stand at zero would seem to agree."""
    pipeline.add(2)
    pipeline.add(3, day=DAY + timedelta(days=1), prefix="unproven")
    body = """IF pg_trigger_depth() > 1 THEN RETURN OLD; END IF;
        DELETE FROM "Event" WHERE event_id LIKE 'unproven%'; RETURN NULL;"""
    pipeline.database.execute(TRIGGER.format(when="BEFORE", body=body))
    pipeline.database.execute(f"ALTER DATABASE {pipeline.database.name} SET track_counts = off")
    pipeline.archive()
    with pytest.raises(RefusedError, match="track_counts is off"):
        pipeline.purge()
    assert pipeline.count() == 5

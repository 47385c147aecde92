"""What a purge may do to a table beside deleting proven rows: nothing, whatever triggers, sessions and DDL say."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import BusyError, IntegrityError, RefusedError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations import deleting, loading, proof
from event_archive.operations.adopt import adopt_day
from event_archive.operations.readback import Readback
from event_archive.operations.restore.day import restore_day
from event_archive.operations.verify import verify_day
from event_archive.postgres.catalogue import dependents
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database

T = TableName("public", "t")

PARTITIONED = """
CREATE TABLE t (id int, at timestamp, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE t_morning PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-01 12:00');
CREATE TABLE t_afternoon (id int, at timestamp, note text, PRIMARY KEY (id, at));
CREATE TABLE invoices (id int PRIMARY KEY, event int, at timestamp,
  FOREIGN KEY (event, at) REFERENCES t_afternoon ON DELETE CASCADE);
INSERT INTO t SELECT n, '2024-03-01 08:00', 'n' FROM generate_series(1, 5) AS n;
INSERT INTO t_afternoon SELECT n, '2024-03-01 13:00', 'n' FROM generate_series(6, 9) AS n;
INSERT INTO invoices SELECT n, n, '2024-03-01 13:00' FROM generate_series(6, 9) AS n;
"""
ATTACH = "ALTER TABLE t ATTACH PARTITION t_afternoon FOR VALUES FROM ('2024-03-01 12:00') TO ('2024-03-02')"


def of_table(pipeline: Pipeline, definition: str) -> Pipeline:
    pipeline.database.execute(definition)
    return pipeline.of(table=T, time_column="at", file_prefix="t")


def rows_of(pipeline: Pipeline, table: str) -> int:
    (row,) = pipeline.database.execute(f"SELECT count(*) FROM {table}")
    assert isinstance(row[0], int)
    return row[0]


@contextmanager
def while_reading(
    monkeypatch: pytest.MonkeyPatch, lake: Lake, action: Callable[[], object], nth: int = 1
) -> Iterator[None]:
    """Does something when a day's file is read for the nth time, after its first block was sent."""
    original = type(lake).read
    done, times = False, 0

    @contextmanager
    def read(self: Lake, file: StoredFile) -> Iterator[Iterator[bytes]]:
        nonlocal times
        times += file.path.endswith(".csv")
        with original(self, file) as blocks:

            def passing() -> Iterator[bytes]:
                nonlocal done
                for block in blocks:
                    yield block
                    if not done and times == nth and file.path.endswith(".csv"):
                        done = True
                        action()

            yield passing()

    with monkeypatch.context() as patched:
        patched.setattr(type(lake), "read", read)
        yield
    assert done, "no file was read"


# Item 2: triggers and foreign keys that do not fire


CHILD = """
CREATE TABLE child (event bigint REFERENCES "Event");
"""


def test_a_session_in_which_no_trigger_fires_is_refused(pipeline: Pipeline):
    pipeline.database.execute(CHILD)
    pipeline.add(2)
    pipeline.archive()
    role = f"mute_{pipeline.database.name}"
    pipeline.database.execute(
        f"CREATE ROLE {role} LOGIN SUPERUSER; ALTER ROLE {role} SET session_replication_role = replica"
    )
    mute = Pipeline(pipeline.database, pipeline.lake, records=pipeline.records, role=role)
    try:
        with pytest.raises(RefusedError, match=r"session_replication_role is replica"):
            mute.purge()
        with pytest.raises(RefusedError, match=r"session_replication_role is replica"):
            mute.archive()
    finally:
        pipeline.database.execute(f"DROP ROLE {role}")
    assert pipeline.count() == 2
    assert pipeline.purge().deleted == 2


@pytest.mark.parametrize("how", ["DISABLE TRIGGER ALL", "ENABLE REPLICA TRIGGER", "NOT ENFORCED"])
def test_a_foreign_key_that_is_switched_off_is_refused(pipeline: Pipeline, how: str):
    pipeline.database.execute(CHILD)
    pipeline.add(1)
    pipeline.archive()
    pipeline.database.execute('INSERT INTO child SELECT id FROM "Event"')
    if how == "DISABLE TRIGGER ALL":
        pipeline.database.execute('ALTER TABLE "Event" DISABLE TRIGGER ALL')
    elif how == "NOT ENFORCED":
        pipeline.database.execute("ALTER TABLE child ALTER CONSTRAINT child_event_fkey NOT ENFORCED")
    else:
        for (name,) in pipeline.database.execute(
            """SELECT tgname FROM pg_trigger WHERE tgrelid = '"Event"'::regclass"""
        ):
            pipeline.database.execute(f'ALTER TABLE "Event" ENABLE REPLICA TRIGGER "{name}"')
    with pytest.raises(RefusedError, match="Foreign key child_event_fkey, .* does not fire"):
        pipeline.purge()
    assert (pipeline.count(), rows_of(pipeline, "child")) == (1, 1)


def test_a_foreign_key_that_is_switched_off_for_a_partition_is_refused(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int, at timestamp, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE part PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');
        CREATE TABLE child (id int, at timestamp, FOREIGN KEY (id, at) REFERENCES t);
        INSERT INTO t VALUES (1, '2024-03-01'); INSERT INTO child TABLE t;""",
    )
    of.archive()
    of.database.execute("ALTER TABLE part DISABLE TRIGGER ALL")
    with pytest.raises(RefusedError, match=r"Foreign key child_id_at_fkey\w*, .* does not fire"):
        of.purge()
    assert (of.count(), rows_of(of, "child")) == (1, 1)


@pytest.mark.parametrize("referenced", ["t", "part"])
def test_a_foreign_key_that_is_switched_off_fires_again_by_what_the_refusal_says(pipeline: Pipeline, referenced: str):
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (id int, at timestamp, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE part PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');
        CREATE TABLE child (id int, at timestamp, FOREIGN KEY (id, at) REFERENCES {referenced});
        INSERT INTO t VALUES (1, '2024-03-01');""",
    )
    of.archive()
    of.database.execute("ALTER TABLE part DISABLE TRIGGER ALL")
    with pytest.raises(RefusedError, match="does not fire") as refused:
        of.purge()
    found = re.search("ALTER TABLE .* ENABLE TRIGGER ALL", str(refused.value))
    assert found
    of.database.execute(found[0])
    assert of.purge().deleted == 1


def test_nobody_is_told_to_remove_younger_rows_of_the_table_that_refer_to_older_ones(pipeline: Pipeline):
    """They may be in no file yet."""
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int PRIMARY KEY, at timestamp, cause int REFERENCES t);
        INSERT INTO t VALUES (1, '2024-03-01', NULL), (2, '2024-03-02', 1);""",
    )
    of.archive()
    with pytest.raises(RefusedError, match="Rows of another table, or younger ones of this, still refer") as refused:
        of.purge()
    assert "Remove those of another table first" in str(refused.value)


# Item 3: what a DELETE must fear arrives during it


def test_a_partition_with_a_cascade_that_is_attached_while_the_file_is_read(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of = of_table(pipeline, PARTITIONED)
    of.archive()
    with (
        while_reading(monkeypatch, of.lake, lambda: of.database.execute(ATTACH)),
        pytest.raises(RefusedError, match="CASCADE"),
    ):
        of.purge()
    assert (rows_of(of, "t"), rows_of(of, "invoices")) == (9, 4)


def test_a_partition_with_a_cascade_that_is_attached_just_before_the_delete(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """Its rows are in the file, too, so that the DELETE takes them, and the invoices with them."""
    of = of_table(pipeline, PARTITIONED)
    of.database.execute(ATTACH.replace("ATTACH", "ATTACH"))
    of.database.execute("ALTER TABLE invoices DROP CONSTRAINT invoices_event_at_fkey")
    of.archive()
    of.database.execute(
        """ALTER TABLE t DETACH PARTITION t_afternoon;
        ALTER TABLE invoices ADD FOREIGN KEY (event, at) REFERENCES t_afternoon ON DELETE CASCADE"""
    )
    before(monkeypatch, lambda: of.database.execute(ATTACH))
    with pytest.raises(RefusedError, match="CASCADE"):
        of.purge()
    assert (rows_of(of, "t"), rows_of(of, "invoices")) == (9, 4)


def before(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Does something once, right before the DELETE, whose lock the purge has by then."""
    original, done = dependents.changes, threading.Event()

    def changes(*args: Any) -> dependents.Changes:
        if not done.is_set():
            done.set()
            action()
        return original(*args)

    monkeypatch.setattr(dependents, "changes", changes)


def test_the_last_look_at_the_table_is_not_led_astray_by_a_search_path(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """Triggers have the database's own path; what follows the DELETE must not: nothing equals anything there."""
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (id int PRIMARY KEY, at timestamp); CREATE TABLE kid (LIKE t INCLUDING ALL);
        INSERT INTO t VALUES (1, '2024-03-01'); CREATE SCHEMA evil;
        CREATE FUNCTION evil.no("char", "char") RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
        CREATE OPERATOR evil.= (LEFTARG = "char", RIGHTARG = "char", FUNCTION = evil.no);
        ALTER DATABASE {pipeline.database.name} SET search_path = evil, pg_catalog, public""",
    )
    of.archive()
    before(monkeypatch, lambda: of.database.execute("ALTER TABLE public.kid INHERIT public.t"))
    with pytest.raises(RefusedError, match="inheritance children"):
        of.purge()
    assert rows_of(of, "ONLY public.t") == 1


def test_a_child_that_begins_to_inherit_keeps_its_rows(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(
        pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamp); CREATE TABLE kid (LIKE t INCLUDING ALL)"
    )
    of.database.execute("INSERT INTO t SELECT n, '2024-03-01 08:00' FROM generate_series(1, 5) AS n")
    of.database.execute("INSERT INTO kid SELECT * FROM t")
    of.archive()
    before(monkeypatch, lambda: of.database.execute("ALTER TABLE kid INHERIT t"))
    with pytest.raises(RefusedError, match="inheritance children"):
        of.purge()
    assert (rows_of(of, "ONLY t"), rows_of(of, "kid")) == (5, 5)


# Item 4: key equality is not the index's


# As the extension citext defines its type, in SQL: the embedded server does not come with it.
CI = """
CREATE SCHEMA ext; CREATE TYPE ext.ci;
CREATE FUNCTION ext.i(cstring) RETURNS ext.ci LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION ext.o(ext.ci) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE ext.ci (INPUT = ext.i, OUTPUT = ext.o, LIKE = text, CATEGORY = 'S');
CREATE CAST (ext.ci AS text) WITHOUT FUNCTION AS IMPLICIT; CREATE CAST (text AS ext.ci) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE FUNCTION ext.cmp(ext.ci, ext.ci) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS
  'SELECT pg_catalog.bttextcmp(pg_catalog.lower($1::text), pg_catalog.lower($2::text))';
CREATE FUNCTION ext.lt(ext.ci, ext.ci) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ext.cmp($1, $2) < 0';
CREATE FUNCTION ext.le(ext.ci, ext.ci) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ext.cmp($1, $2) <= 0';
CREATE FUNCTION ext.eq(ext.ci, ext.ci) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ext.cmp($1, $2) = 0';
CREATE FUNCTION ext.ge(ext.ci, ext.ci) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ext.cmp($1, $2) >= 0';
CREATE FUNCTION ext.gt(ext.ci, ext.ci) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ext.cmp($1, $2) > 0';
CREATE OPERATOR ext.< (LEFTARG = ext.ci, RIGHTARG = ext.ci, FUNCTION = ext.lt);
CREATE OPERATOR ext.<= (LEFTARG = ext.ci, RIGHTARG = ext.ci, FUNCTION = ext.le);
CREATE OPERATOR ext.= (LEFTARG = ext.ci, RIGHTARG = ext.ci, FUNCTION = ext.eq, MERGES);
CREATE OPERATOR ext.>= (LEFTARG = ext.ci, RIGHTARG = ext.ci, FUNCTION = ext.ge);
CREATE OPERATOR ext.> (LEFTARG = ext.ci, RIGHTARG = ext.ci, FUNCTION = ext.gt);
CREATE OPERATOR CLASS ext.ci_ops DEFAULT FOR TYPE ext.ci USING btree AS OPERATOR 1 ext.<, OPERATOR 2 ext.<=,
  OPERATOR 3 ext.=, OPERATOR 4 ext.>=, OPERATOR 5 ext.>, FUNCTION 1 ext.cmp(ext.ci, ext.ci);
"""


@pytest.mark.parametrize(
    ("columns", "index"),
    [
        ("k text COLLATE \"C\" NOT NULL", '(k COLLATE "POSIX")'),
        ("k text NOT NULL", "(k text_pattern_ops)"),
        ("k text NOT NULL", "(k bpchar_ops)"),
        ("k varchar(9) NOT NULL", "(k bpchar_ops)"),
        ("k pair NOT NULL", "(k record_image_ops)"),
    ],
)  # fmt: skip
def test_an_index_of_another_equality_is_no_key(pipeline: Pipeline, columns: str, index: str):
    of = of_table(
        pipeline,
        f"""CREATE TYPE pair AS (a numeric, b int);
        CREATE TABLE t ({columns}, at timestamp); CREATE UNIQUE INDEX odd ON t {index}""",
    )
    with pytest.raises(RefusedError, match=r"no key: .* \(odd compares with another operator class or collation"):
        of.archive()


def test_two_rows_that_only_another_operator_class_tells_apart_are_not_merged(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TYPE pair AS (a numeric, b int); CREATE TABLE t (k pair NOT NULL, at timestamp, note text);
        CREATE UNIQUE INDEX odd ON t (k record_image_ops);
        INSERT INTO t VALUES ((1.0, 1), '2024-03-01 08:00', 'first'), ((1.00, 1), '2024-03-01 08:00', 'second')""",
    )
    with pytest.raises(RefusedError, match="no key"):
        of.archive()
    assert of.count() == 2


@pytest.mark.parametrize(
    "column",
    ["varchar(9)", "bpchar", 'text COLLATE "POSIX"', "dom", "int[]", "mood", "int4range", "cidr", "pair", "ext.ci"],
)
def test_an_ordinary_key_of_any_type_is_one(pipeline: Pipeline, column: str):
    values = {"int[]": "{1,2}", "mood": "sad", "int4range": "[1,3)", "cidr": "10.0.0.0/8", "pair": "(1.50,2)"}
    of = of_table(
        pipeline,
        f"""{CI} CREATE TYPE pair AS (a numeric, b int); CREATE TYPE mood AS ENUM ('sad', 'glad');
        CREATE DOMAIN dom AS varchar(9); CREATE TABLE t (k {column} PRIMARY KEY, at timestamp, note text);
        INSERT INTO t VALUES ('{values.get(column, "x")}', '2024-03-01 08:00', 'a')""",
    )
    of.archive()
    of.database.execute("UPDATE t SET note = 'b'")
    assert of.archive().rows == 2
    assert of.purge().deleted == 1


# Item 5: keys of extension types, and search paths


def test_a_key_of_a_real_extensions_type_is_one(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext;
        CREATE TABLE t (k ext.vector(2) PRIMARY KEY, at timestamp, note text);
        INSERT INTO t VALUES ('[1,2]', '2024-03-01 08:00', 'a'), ('[1,3]', '2024-03-01 08:00', 'a')""",
    )
    of.archive()
    of.database.execute("UPDATE t SET note = 'b' WHERE note = 'a' AND k::text = '[1,2]'")
    assert of.archive().rows == 3
    assert of.purge().deleted == 2


def test_a_key_of_an_extensions_type_is_compared_as_that_is_where_it_lies_on_no_path(pipeline: Pipeline):
    of = of_table(
        pipeline,
        f"""{CI} CREATE TABLE t (k ext.ci PRIMARY KEY, at timestamp, note text);
        INSERT INTO t VALUES ('Key', '2024-03-01 08:00', 'a')""",
    )
    of.archive()
    of.database.execute("UPDATE t SET k = 'KEY', note = 'b'")
    assert of.archive().rows == 2
    assert of.purge().deleted == 1
    assert of.count() == 0
    restored = restore_day(of.site, DAY, T)
    assert (restored.restored, restored.superseded) == (1, 1)


def test_a_trigger_finds_what_it_names_without_a_schema(pipeline: Pipeline):
    pipeline.database.execute(
        f"""CREATE SCHEMA app; CREATE TABLE app.audit (id bigint);
        CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS
          'BEGIN INSERT INTO audit VALUES (OLD.id); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER noted AFTER DELETE ON "Event" DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION app.note();
        ALTER DATABASE {pipeline.database.name} SET search_path = app, public"""
    )
    pipeline.add(3)
    assert pipeline.run().deleted == 3
    assert rows_of(pipeline, "app.audit") == 3


@pytest.mark.parametrize("trigger", [False, True], ids=["without a trigger", "with a trigger"])
def test_a_name_of_a_table_reads_as_it_does_in_the_file(pipeline: Pipeline, trigger: bool):
    pipeline.database.execute(
        """CREATE TABLE here (); CREATE TABLE gone (); CREATE TABLE t (id int PRIMARY KEY, at date, named regclass);
        INSERT INTO t VALUES (1, '2024-03-01', 'here'), (2, '2024-03-01', 'gone')"""
    )
    if trigger:
        pipeline.database.execute(
            """CREATE FUNCTION lets_go() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
            CREATE TRIGGER lets_go BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION lets_go()"""
        )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    of.archive()
    # The file's name of it no longer parses, so that the column is compared as text.
    pipeline.database.execute("DROP TABLE gone")
    assert of.purge().deleted == 1


def test_operators_of_another_schema_are_not_taken_for_postgresqls(pipeline: Pipeline):
    """A comparison that always holds stands first in the path: without names with schemas, all rows would go.

    The trigger has the DELETE run with the database's own path, where the pin protects nothing.
    """
    pipeline.database.execute(
        f"""CREATE SCHEMA evil;
        CREATE FUNCTION evil.yes(bigint, bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
        CREATE FUNCTION evil.yes(timestamp, timestamp) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
        CREATE FUNCTION evil.yes(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
        CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.yes);
        CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.yes);
        CREATE OPERATOR evil.< (LEFTARG = timestamp, RIGHTARG = timestamp, FUNCTION = evil.yes);
        CREATE OPERATOR evil.>= (LEFTARG = timestamp, RIGHTARG = timestamp, FUNCTION = evil.yes);
        CREATE FUNCTION let_go() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
        CREATE TRIGGER let_go BEFORE DELETE ON "Event" FOR EACH ROW EXECUTE FUNCTION let_go();
        ALTER DATABASE {pipeline.database.name} SET search_path = evil, pg_catalog, public"""
    )
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute("""UPDATE "Event" SET payload = '{"new": 1}' WHERE id OPERATOR(pg_catalog.=) 2""")
    purged = pipeline.purge()
    assert (purged.deleted, purged.left) == (2, 1)


# Item 6: triggers that do something else than to let rows go


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


# Item 10: what fails before the COPY


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


# Item 17: no lock on the table while the file is read


@pytest.mark.parametrize(
    ("step", "nth"),
    [("purge", 1), ("append", 1), ("adopt", 1), ("rewrite", 1), ("rewrite", 2), ("restore", 1), ("restore", 2)],
)
def test_nobody_waits_for_the_table_while_the_file_is_read(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, step: str, nth: int
):
    """A rewrite, and a restore into types that are not PostgreSQL's own, read it twice."""
    pipeline.database.execute('CREATE DOMAIN kind AS text; ALTER TABLE "Event" ALTER COLUMN event_type TYPE kind')
    pipeline.add(2000)
    pipeline.archive()
    if step == "rewrite":
        pipeline.database.execute('ALTER TABLE "Event" ADD COLUMN more text')
    pipeline.add(1, prefix="late")
    migration = "SET lock_timeout = '1s'; ALTER TABLE \"Event\" ALTER COLUMN event_type SET DEFAULT 't'"
    with while_reading(monkeypatch, pipeline.lake, lambda: pipeline.database.execute(migration), nth):
        if step == "purge":
            assert pipeline.purge().deleted == 2000
        elif step == "restore":
            assert restore_day(pipeline.site, DAY, pipeline.dataset.table).skipped == 2000
        elif step == "adopt":
            assert adopt_day(pipeline.site, DAY).rows == 2000
        else:
            assert pipeline.archive().rows == 2001


@pytest.mark.parametrize(
    "migration",
    [
        "ALTER TABLE \"Event\" ADD COLUMN more text DEFAULT 'm'",
        'ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey"',
        """CREATE TABLE other (LIKE "Event" INCLUDING ALL); INSERT INTO other TABLE "Event"; DROP TABLE "Event";
        ALTER TABLE other RENAME TO "Event" """,
    ],
    ids=["column", "key", "table"],
)
@pytest.mark.parametrize("step", ["purge", "archive"])
def test_a_table_that_changes_while_the_file_is_read_is_noticed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, step: str, migration: str
):
    pipeline.add(20)
    pipeline.archive()
    pipeline.add(1, prefix="late")
    content = pipeline.content()
    with (
        while_reading(monkeypatch, pipeline.lake, lambda: pipeline.database.execute(migration)),
        pytest.raises(BusyError, match="the table was altered while"),
    ):
        pipeline.purge() if step == "purge" else pipeline.archive()
    assert (pipeline.count(), pipeline.content()) == (21, content)
    assert pipeline.run().deleted == 21


@pytest.mark.parametrize(
    "migration",
    ['ALTER TABLE "Event" DROP COLUMN processed_at', 'ALTER TABLE "Event" ALTER payload TYPE text USING payload::text'],
    ids=["column", "type"],
)
def test_a_table_that_changes_while_a_file_is_read_that_will_be_rewritten_is_noticed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, migration: str
):
    pipeline.add(20)
    pipeline.archive()
    pipeline.database.execute("ALTER TABLE \"Event\" ADD COLUMN more text DEFAULT 'm'")
    content = pipeline.content()
    with (
        while_reading(monkeypatch, pipeline.lake, lambda: pipeline.database.execute(migration)),
        pytest.raises(BusyError, match="the table was altered while"),
    ):
        pipeline.archive()
    assert (pipeline.count(), pipeline.content()) == (20, content)
    assert pipeline.run().deleted == 20


@pytest.mark.parametrize("kind", ["mood", "mood[]", "mixed", "sure", "pair"])
def test_labels_that_change_places_while_the_file_is_read_are_noticed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, kind: str
):
    of = of_table(
        pipeline,
        f"""CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN sure AS mood;
        CREATE TYPE mixed AS RANGE (subtype = mood); CREATE TYPE pair AS (first mood, second sure[]);
        CREATE TABLE t (id int PRIMARY KEY, at timestamp, feels {kind});""",
    )
    value = {"mood[]": "{sad}", "mixed": "[sad,sad]", "pair": "(sad,{sad})"}.get(kind, "sad")
    of.database.execute(f"INSERT INTO t VALUES (1, '2024-03-01', '{value}')")
    of.archive()

    original = loading.load

    def load_then_swap(*arguments: Any, **options: Any) -> Readback:
        readback = original(*arguments, **options)
        for old, new in [("sad", "x"), ("ok", "sad"), ("x", "ok")]:
            of.database.execute(f"ALTER TYPE mood RENAME VALUE '{old}' TO '{new}'")
        return readback

    monkeypatch.setattr(proof, "load", load_then_swap)
    with pytest.raises(BusyError, match="was altered"):
        of.purge()
    monkeypatch.undo()
    assert of.purge().left == 1


def test_an_index_on_todays_partition_does_not_disturb_an_old_day(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int, at timestamp, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE t_old PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');
        CREATE TABLE t_new PARTITION OF t FOR VALUES FROM ('2024-03-02') TO ('2034-03-02');
        INSERT INTO t VALUES (1, '2024-03-01'), (2, '2024-03-05')""",
    )
    with psycopg.connect(of.database.dsn) as other:
        # A run that waits for it ends with an error.
        other.execute("LOCK TABLE t_new IN ACCESS EXCLUSIVE MODE")
        assert of.run().deleted == 1


@pytest.mark.parametrize(
    ("published", "remedy"),
    [
        ("WHERE (event_type = 'x')", 'ALTER TABLE "Event" REPLICA IDENTITY FULL'),
        ("(event_id)", 'ALTER PUBLICATION p SET TABLE "Event" (id, event_id)'),
    ],
    ids=["row filter", "column list"],
)
def test_a_publication_that_cannot_describe_a_delete_is_told(pipeline: Pipeline, published: str, remedy: str):
    """PostgreSQL says why in a detail, which is not repeated since others hold values."""
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute(f'CREATE PUBLICATION p FOR TABLE "Event" {published}')
    words = (
        "Nothing was deleted. A publication of its deletes filters rows by columns that the table's replica identity"
    )
    with pytest.raises(RefusedError, match=words):
        pipeline.purge()
    assert pipeline.count() == 2
    pipeline.database.execute(remedy)
    assert pipeline.purge().deleted == 2

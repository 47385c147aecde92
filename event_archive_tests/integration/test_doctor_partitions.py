"""What the doctor says of a partitioned table: what keeps partitions from being dropped, and what its parts lack."""

import re

import psycopg
import pytest

from event_archive_tests.fixtures.doctor import findings, wrong
from event_archive_tests.fixtures.installation import Commands, Installation

pytestmark = pytest.mark.slow


def test_partitions_are_looked_at_too(healthy_locally: Installation, command: Commands):
    database = healthy_locally.database
    database.execute(
        """CREATE TABLE events (id bigint, at timestamptz NOT NULL, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
        CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')
        WITH (autovacuum_enabled = off);
        CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
        CREATE TRIGGER above BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION audit();
        CREATE TRIGGER below BEFORE DELETE ON events_2024 FOR EACH ROW EXECUTE FUNCTION audit();
        CREATE PUBLICATION leaves FOR TABLE events"""
    )
    variables = {"EVENT_TABLE": "public.events", "EVENT_TIME_COLUMN": "at", "LOGICAL_MESSAGE_PREFIX": "purge"}
    found = findings(command("doctor", "--json", **variables), 0)
    assert wrong(found) == {"triggers": "warning", "autovacuum": "warning"}
    assert "above (public.audit), below (public.audit)" in found["triggers"].message
    assert "off for public.events_2024" in found["autovacuum"].message
    assert found["replication"].message == "leaves publishes deletes, announced by LOGICAL_MESSAGE_PREFIX"


# Partitions


PARTITIONED = """
CREATE TABLE t (id int, created_at timestamp, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at);
CREATE INDEX ON t (created_at);
CREATE TABLE d1 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');
"""


@pytest.mark.parametrize(
    ("definition", "status", "words"),
    [
        (PARTITIONED, "good", "nothing keeps public.d1 from being dropped once aged"),
        (f"{PARTITIONED} CREATE PUBLICATION p FOR TABLE t", "warning", "public.d1 is not dropped, .* publication p"),
        (
            f"""{PARTITIONED} CREATE TABLE d2 PARTITION OF t FOR VALUES FROM ('2024-03-02') TO ('2024-03-03');
            CREATE TABLE d3 PARTITION OF t FOR VALUES FROM ('2024-03-03') TO ('2024-03-04');
            CREATE VIEW v AS SELECT * FROM d2""",
            "warning", "public.d2 is not dropped, and rows are deleted: rule _RETURN on view public.v depends on it",
        ),
        (
            f"{PARTITIONED} CREATE TABLE other (a d1)",
            "warning", "public.d1 is not dropped, and rows are deleted: column a of table public.other depends on it",
        ),
        (
            f"{PARTITIONED} CREATE FUNCTION f(d1[]) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "warning", r"public.d1 is not dropped, and rows are deleted: function public.f\(.*d1\[\]\) depends on it",
        ),
        (
            f"""{PARTITIONED} ALTER TABLE d1 ADD CHECK (id > 0), ALTER id SET DEFAULT 1;
            CREATE RULE r AS ON UPDATE TO d1 WHERE OLD.id > 0 DO NOTHING; CREATE STATISTICS ON id, created_at FROM d1;
            CREATE INDEX ON d1 ((id + 1)) WHERE id > 0; CREATE VIEW v AS SELECT * FROM t""",
            "good", "nothing keeps public.d1 from being dropped once aged",
        ),
        (
            f"""{PARTITIONED} CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
            CREATE EVENT TRIGGER guard ON sql_drop WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION f()""",
            "warning", r"fires where a partition is dropped: guard \(public.f\)",
        ),
        (
            f"{PARTITIONED} CREATE TABLE d2 PARTITION OF t FOR VALUES FROM ('2024-05-01') TO ('2026-01-01')",
            "warning", "public.d2 goes on for more than a year after 2024-05-01: rows of days so long before its end",
        ),
        (
            f"{PARTITIONED} CREATE TABLE d0 PARTITION OF t FOR VALUES FROM (MINVALUE) TO ('2024-03-01')",
            "warning", "public.d0 goes on for more than a year after 2015-01-01: rows of days so long before its end",
        ),
        ("CREATE TABLE t (id int PRIMARY KEY, created_at timestamp)", "warning", "none is of a range of created_at"),
    ],
)  # fmt: skip
def test_what_keeps_partitions_from_being_dropped_is_said(
    healthy_locally: Installation, command: Commands, definition: str, status: str, words: str
):
    healthy_locally.database.execute(definition)
    found = findings(command("doctor", "--json", EVENT_TABLE="public.t", EVENT_PURGE="drop"), 0)["partitions"]
    assert found.status == status
    assert re.search(words, found.message), found.message


def test_what_is_said_of_partitions_without_an_identity_can_be_run_as_it_stands(
    healthy_locally: Installation, command: Commands
):
    database = healthy_locally.database
    database.execute(
        f"""{PARTITIONED} CREATE TABLE d2 PARTITION OF t FOR VALUES FROM ('2024-03-02') TO ('2024-03-03');
        ALTER TABLE d1 REPLICA IDENTITY NOTHING; ALTER TABLE d2 REPLICA IDENTITY NOTHING;
        CREATE PUBLICATION p FOR TABLE t"""
    )
    found = findings(command("doctor", "--json", EVENT_TABLE="public.t"), 1)["replication"]
    assert "public.d1, public.d2 have no replica identity" in found.message
    database.execute(found.remedy.removesuffix(" Or USING INDEX with a unique one."))
    assert findings(command("doctor", "--json", EVENT_TABLE="public.t"), 0)["replication"].status == "warning"


@pytest.mark.parametrize("first", ["", "CREATE INDEX CONCURRENTLY ON d1 (created_at)"])
def test_the_index_that_a_partitioned_table_lacks_is_made_by_what_is_said(
    healthy_locally: Installation, command: Commands, first: str
):
    database = healthy_locally.database
    database.execute(f"{PARTITIONED} DROP INDEX t_created_at_idx")
    found = findings(command("doctor", "--json", EVENT_TABLE="public.t"), 0)["time_index"]
    statement, _, how = found.remedy.partition(" It ")
    assert (statement, how[:20]) == ('CREATE INDEX ON "public"."t" ("created_at");', "keeps writers waitin")
    if first:
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            connection.execute(first)
    database.execute(statement)
    assert database.execute("SELECT count(*) FROM pg_index WHERE indrelid = 'd1'::regclass") == [(2,)]
    assert wrong(findings(command("doctor", "--json", EVENT_TABLE="public.t"), 0)) == {}


def test_no_name_in_the_database_makes_a_line_of_the_doctors(healthy_locally: Installation, command: Commands):
    healthy_locally.database.execute(
        """CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
        CREATE TRIGGER "z\n✓ triggers  none\x1b[2J" BEFORE DELETE ON "Event" FOR EACH ROW EXECUTE FUNCTION audit()"""
    )
    said = command("doctor", LOG_FORMAT="console").stdout
    assert r"z\n✓ triggers  none\x1b[2J" in said
    assert "\x1b" not in said


def test_indexes_of_its_partitions_serve_the_foreign_key_of_a_partitioned_table(
    healthy_locally: Installation, command: Commands
):
    healthy_locally.database.execute(
        """CREATE TABLE note (e bigint REFERENCES "Event", d int) PARTITION BY LIST (d);
        CREATE TABLE one (d int, e bigint); CREATE INDEX ON one (e);
        ALTER TABLE note ATTACH PARTITION one FOR VALUES IN (1);
        CREATE TABLE two PARTITION OF note FOR VALUES IN (2); CREATE INDEX ON two (e)"""
    )
    assert "index" not in findings(command("doctor", "--json"), 0)["foreign_keys"].message


def test_the_index_that_a_partitioned_table_lacks_which_refers_is_made_by_what_is_said(
    healthy_locally: Installation, command: Commands
):
    database = healthy_locally.database
    database.execute(
        """CREATE TABLE note (e bigint REFERENCES "Event", d int) PARTITION BY LIST (d);
        CREATE TABLE one (d int, e bigint); CREATE INDEX ON one (e);
        ALTER TABLE note ATTACH PARTITION one FOR VALUES IN (1);
        CREATE TABLE two PARTITION OF note FOR VALUES IN (2); CREATE INDEX ON two (d, e)"""
    )
    found = findings(command("doctor", "--json"), 0)["foreign_keys"]
    statement = 'CREATE INDEX ON "public"."note" ("e");'
    assert statement in found.remedy
    database.execute(statement)
    assert "no index serves" not in findings(command("doctor", "--json"), 0)["foreign_keys"].message


def test_a_partition_without_replica_identity_is_bad_only_where_it_is_published(
    healthy_locally: Installation, command: Commands
):
    database = healthy_locally.database
    database.execute(
        f"""{PARTITIONED} CREATE TABLE d2 PARTITION OF t FOR VALUES FROM ('2024-03-02') TO ('2024-03-03');
        INSERT INTO t VALUES (1, '2024-03-01'), (2, '2024-03-02'); ALTER TABLE d2 REPLICA IDENTITY NOTHING;
        CREATE PUBLICATION p FOR TABLE d1"""
    )
    assert findings(command("doctor", "--json", EVENT_TABLE="public.t"), 0)["replication"].status == "warning"
    assert database.execute("DELETE FROM t RETURNING id") == [(1,), (2,)]
    for also in ("SET TABLE d2", "SET TABLE t", "SET (publish_via_partition_root)"):
        database.execute(f"ALTER PUBLICATION p {also}")
        found = findings(command("doctor", "--json", EVENT_TABLE="public.t"), 1)["replication"]
        assert (found.status, found.message[:40]) == ("bad", "p publishes deletes, and public.d2 has n")


def test_a_filter_by_which_no_partition_lets_rows_go_is_bad(healthy_locally: Installation, command: Commands):
    healthy_locally.database.execute(
        f"""{PARTITIONED} ALTER TABLE t ADD kind text;
        CREATE PUBLICATION p FOR TABLE t WHERE (kind <> 'x') WITH (publish_via_partition_root)"""
    )
    found = findings(command("doctor", "--json", EVENT_TABLE="public.t"), 1)["replication"]
    assert (found.status, found.message.count("cannot delete from table")) == ("bad", 1)


def test_partitions_of_another_owner_are_a_warning(healthy_locally: Installation, command: Commands):
    role = f"guest_{healthy_locally.database.name}"
    healthy_locally.database.execute(f"{PARTITIONED} CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON t TO {role}")
    try:
        dsn = healthy_locally.database.server.dsn(healthy_locally.database.name, role)
        variables = {"PG_CONNECTION_STRING": dsn, "EVENT_TABLE": "public.t"}
        found = findings(command("doctor", "--json", EVENT_DROP_EMPTY_PARTITIONS="true", **variables), 0)["partitions"]
        assert found.status == "warning"
        assert f"1 partition (public.d1) is not {role}'s own" in found.message
    finally:
        healthy_locally.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

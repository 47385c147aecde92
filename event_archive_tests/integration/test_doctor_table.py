"""What the doctor says of the table that is archived: its shape, its triggers, its foreign keys."""

import re
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from event_archive.postgres.statements import turning_on
from event_archive_tests.fixtures.doctor import findings, wrong
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.postgres import Database

pytestmark = pytest.mark.slow


# The table


@pytest.mark.parametrize(
    ("change", "check", "status", "message", "remedy"),
    [
        ('ALTER TABLE "Event" RENAME TO event', "table", "bad", "Did you mean public.event?", ""),
        ('ALTER TABLE "Event" RENAME created_at TO at', "table", "bad", "has no column created_at. EVENT_TIME", ""),
        ('ALTER TABLE "Event" RENAME created_at TO "Created_At"', "table", "bad", 'Did you mean "Created_At"?', ""),
        ('ALTER TABLE "Event" ALTER created_at TYPE text', "table", "bad", "is of type text", ""),
        ('ALTER TABLE "Event" DROP COLUMN id, DROP COLUMN event_id', "table", "bad", "has no key", ""),
        ('CREATE TABLE note (e bigint REFERENCES "Event" ON DELETE CASCADE)', "table", "bad", "ON DELETE CASCADE", ""),
        ('CREATE RULE keep AS ON DELETE TO "Event" DO INSTEAD NOTHING', "table", "bad", "a rule on DELETE, keep", ""),
        (
            'DROP INDEX "Event_created_at_idx"', "time_index", "warning", "no B-tree index begins with created_at",
            'CREATE INDEX CONCURRENTLY ON "public"."Event" ("created_at");',
        ),
        (
            """ALTER TABLE "Event" RENAME created_at TO at;
            ALTER TABLE "Event" ADD created_at timestamp GENERATED ALWAYS AS (at) VIRTUAL""",
            "time_index", "warning", "no B-tree index begins with created_at", "make it STORED",
        ),
        (
            "SELECT set_config('x.x', '', true)", "time_zone", "warning",
            "sessions begin in Asia/Tokyo, so that the default of created_at, CURRENT_TIMESTAMP, is local time",
            "timestamptz",
        ),
        (
            """ALTER TABLE "Event" ALTER created_at SET DEFAULT now() AT TIME ZONE 'Europe/Berlin'""",
            "time_zone", "warning", "is local time of Europe/Berlin; it is archived as if it were UTC",
            "Let the default be now() AT TIME ZONE 'UTC'",
        ),
        (
            """ALTER TABLE "Event" ALTER created_at SET DEFAULT timezone('Gone/Zone', now())""",
            "time_zone", "warning", "is local time of Gone/Zone", "Let the default be",
        ),
        (
            """ALTER TABLE "Event" ALTER created_at SET DEFAULT date_trunc('day', now() AT TIME ZONE 'Asia/Tokyo')""",
            "time_zone", "warning", "is local time of Asia/Tokyo", "Let the default be",
        ),
        (
            """ALTER TABLE "Event" ALTER created_at SET DEFAULT (now() AT TIME ZONE 'UTC')
            - (now() - LOCALTIMESTAMP)""",
            "time_zone", "warning", "sessions begin in Asia/Tokyo, so that the default", "timestamptz",
        ),
        (
            """ALTER TABLE "Event" ALTER created_at SET DEFAULT LOCALTIMESTAMP AT TIME ZONE 'UTC'""",
            "time_zone", "warning", "sessions begin in Asia/Tokyo, so that the default", "timestamptz",
        ),
        (
            """CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
            CREATE TRIGGER "Told" BEFORE DELETE ON "Event" FOR EACH ROW EXECUTE FUNCTION audit();
            CREATE TRIGGER other BEFORE INSERT ON "Event" FOR EACH ROW EXECUTE FUNCTION audit()""",
            "triggers", "warning", 'fires on DELETE: "Told" (public.audit).', "Check what it does",
        ),
        (
            """CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
            CREATE EVENT TRIGGER "No" ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION refuse();
            CREATE EVENT TRIGGER other ON ddl_command_end WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION refuse();
            CREATE EVENT TRIGGER off ON ddl_command_end EXECUTE FUNCTION refuse();
            ALTER EVENT TRIGGER off DISABLE""",
            "triggers", "warning", 'read back into a temporary table: "No" (public.refuse). It', "application_name",
        ),
        (
            """DO $$ BEGIN EXECUTE (SELECT 'ALTER TABLE "Event" ' || string_agg(format('ADD c%s int', n), ', ')
            FROM generate_series(7, 1600) AS n); END $$""",
            "table", "bad", "has 1600 columns. A file is read back into a temporary table with one column more", "",
        ),
        (
            'CREATE TABLE note (e bigint CONSTRAINT told REFERENCES "Event")', "foreign_keys", "warning",
            "told of public.note, which no index serves", 'CREATE INDEX CONCURRENTLY ON "public"."note" ("e");',
        ),
        (
            'CREATE TABLE note (e bigint PRIMARY KEY CONSTRAINT told REFERENCES "Event")', "foreign_keys", "warning",
            "refers to the table: told of public.note. A day with a row still referred to is not purged",
            "Remove referring rows before their events' day is aged, or archive them first: name their dataset in",
        ),
        (
            'ALTER TABLE "Event" ADD e bigint UNIQUE CONSTRAINT told REFERENCES "Event"', "foreign_keys", "warning",
            'refers to the table: told of public."Event". A day with a row still referred to is not purged',
            "Drop the table's foreign key to itself: a row is not purged before the younger ones",
        ),
        ("CREATE PUBLICATION everything FOR ALL TABLES", "replication", "warning", "everything publishes deletes",
         "LOGICAL_MESSAGE_PREFIX"),
        (
            'CREATE PUBLICATION one FOR TABLE "Event"; ALTER TABLE "Event" REPLICA IDENTITY NOTHING', "replication",
            "bad", 'public."Event" has no replica identity', 'ALTER TABLE public."Event" REPLICA IDENTITY FULL;',
        ),
        (
            """CREATE PUBLICATION one FOR TABLE "Event"; CREATE UNIQUE INDEX ON "Event" (id);
            ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey", ADD PRIMARY KEY (id) DEFERRABLE""", "replication",
            "bad", 'public."Event" has no replica identity', 'ALTER TABLE public."Event" REPLICA IDENTITY FULL;',
        ),
        (
            "CREATE PUBLICATION one FOR TABLE \"Event\" WHERE (event_type <> 'x')", "replication", "bad",
            'one publishes deletes. PostgreSQL says: cannot delete from table "Event"', "change the publication",
        ),
        (
            'CREATE PUBLICATION one FOR TABLE "Event" (event_id)', "replication", "bad",
            'PostgreSQL says: cannot delete from table "Event"', "A publication of its deletes filters rows",
        ),
        (
            'ALTER TABLE "Event" SET (autovacuum_enabled = off)', "autovacuum", "warning", 'off for public."Event"',
            'ALTER TABLE public."Event" RESET (autovacuum_enabled, toast.autovacuum_enabled);',
        ),
        (
            'ALTER TABLE "Event" SET (toast.autovacuum_enabled = off)', "autovacuum", "warning",
            'off for public."Event"', "RESET (autovacuum_enabled, toast.autovacuum_enabled);",
        ),
        (
            """INSERT INTO "Event" (event_id, event_type, created_at, payload) VALUES ('x', 't', '1999-01-01', '{}')""",
            "orphans", "warning", "1 row lies before the first day", "",
        ),
    ],
    ids=lambda value: value if str(value).isidentifier() else "",
)  # fmt: skip
def test_a_table_that_will_make_trouble(
    healthy_locally: Installation,
    command: Commands,
    change: str,
    check: str,
    status: str,
    message: str,
    remedy: str,
):
    database = healthy_locally.database
    database.execute(change)
    if check == "time_zone":
        database.execute(f"ALTER DATABASE {database.name} RESET TimeZone")
    found = findings(command("doctor", "--json"), 1 if status == "bad" else 0)
    assert wrong(found) == {check: status}
    assert message in found[check].message
    assert remedy in found[check].remedy


@pytest.mark.parametrize(
    "change",
    [
        """CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
        CREATE TRIGGER told BEFORE DELETE ON "Event" FOR EACH ROW EXECUTE FUNCTION audit();
        ALTER TABLE "Event" DISABLE TRIGGER told""",
        "CREATE PUBLICATION inserts FOR ALL TABLES WITH (publish = 'insert, update')",
        "CREATE PUBLICATION few FOR TABLE \"Event\" WHERE (event_type <> 'x') WITH (publish = 'insert')",
        'ALTER TABLE "Event" ALTER created_at TYPE timestamptz',
        """DO $$ BEGIN EXECUTE format($f$ALTER DATABASE %I SET TimeZone TO 'Africa/Abidjan'$f$, current_database()); END
        $$""",
        """ALTER TABLE "Event" ALTER created_at SET DEFAULT timezone('utc', now());
        DO $$ BEGIN EXECUTE format($f$ALTER DATABASE %I SET TimeZone TO 'Asia/Tokyo'$f$, current_database()); END $$""",
        *(
            f"""ALTER TABLE "Event" ALTER created_at SET DEFAULT {default};
            DO $$ BEGIN EXECUTE format($f$ALTER DATABASE %I SET TimeZone TO 'Asia/Tokyo'$f$, current_database()); END
            $$"""
            for default in (
                "(now() AT TIME ZONE 'utc')::timestamp(3)",
                "date_trunc('second', now() AT TIME ZONE 'UTC')",
                "NULL",
                "now() AT TIME ZONE INTERVAL '0'",
                "'2024-01-01'",
            )
        ),
    ],
)
def test_what_looks_alike_and_is_harmless(healthy_locally: Installation, command: Commands, change: str):
    healthy_locally.database.execute(change)
    assert wrong(findings(command("doctor", "--json"), 0)) == {}


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_the_time_zone_of_the_archives_own_role_is_nobody_elses(
    healthy_locally: Installation, command: Commands, zone: str
):
    database = healthy_locally.database
    other = {"UTC": "Asia/Tokyo", "Asia/Tokyo": "UTC"}[zone]
    database.execute(f"ALTER DATABASE {database.name} SET TimeZone TO '{zone}'")
    dsn = f"{database.dsn} options='-c TimeZone={other}'"
    found = findings(command("doctor", "--json", PG_CONNECTION_STRING=dsn), 0)["time_zone"]
    assert (found.status, zone in found.message) == ({"UTC": "good", "Asia/Tokyo": "warning"}[zone], True)
    database.execute(f"ALTER DATABASE {database.name} RESET TimeZone")
    found = findings(command("doctor", "--json", PG_CONNECTION_STRING=dsn), 0)["time_zone"]
    assert (found.status, "hides in which one writers' sessions begin" in found.message) == ("warning", True)


def test_where_datasets_are_purged_first_a_foreign_key_says_which(
    healthy_locally: Installation, command: Commands, clean: pytest.MonkeyPatch, tmp_path: Path
):
    healthy_locally.database.execute(
        'CREATE TABLE note (e bigint PRIMARY KEY CONSTRAINT told REFERENCES "Event", at date)'
    )
    text = "datasets: {events: {table: public.Event, after: [notes]}, notes: {table: public.note, time_column: at}}"
    (tmp_path / "datasets.yaml").write_text(text)
    clean.delenv("EVENT_TABLE", raising=False)
    done = command("doctor", "--dataset", "events", LOG_FORMAT="console", DATASETS_FILE=str(tmp_path / "datasets.yaml"))
    assert "Check that what is purged first (notes) are the referring tables." in done.stdout


def test_what_is_off_for_all_roles_is_turned_on_for_all(database: Database):
    # Of a setting by which no other test of this server goes.
    database.execute("ALTER ROLE ALL SET geqo = off")
    try:
        with psycopg.connect(database.dsn) as connection:
            assert connection.execute("SHOW geqo").fetchall() == [("off",)]
            connection.execute(turning_on(connection, "geqo").encode())
        assert database.execute("SHOW geqo") == [("on",)]
    finally:
        database.execute("ALTER ROLE ALL RESET geqo")


def test_a_trigger_whose_deeds_nobody_can_count_is_bad(healthy_locally: Installation, command: Commands):
    database = healthy_locally.database
    database.execute(
        f"""CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
        CREATE TRIGGER told BEFORE DELETE ON "Event" FOR EACH ROW EXECUTE FUNCTION audit();
        ALTER DATABASE {database.name} SET track_counts = off"""
    )
    found = findings(command("doctor", "--json"), 1)
    assert wrong(found) == {"triggers": "bad", "autovacuum": "warning"}
    assert "track_counts is off" in found["triggers"].message
    healthy_locally.add(1)
    assert command("run").days[DAY.isoformat()]["outcome"] == "failed"


def test_an_index_of_the_rows_that_refer_serves_a_foreign_key(healthy_locally: Installation, command: Commands):
    healthy_locally.database.execute(
        """CREATE TABLE note ("E" bigint REFERENCES "Event"); CREATE INDEX ON note ("E") WHERE "E" IS NOT NULL;
        CREATE TABLE hashed (e bigint REFERENCES "Event"); CREATE INDEX ON hashed USING hash (e);
        CREATE TABLE other (e bigint REFERENCES "Event", d int); CREATE INDEX ON other (e) WHERE d IS NOT NULL;
        CREATE TABLE summarized (e bigint REFERENCES "Event"); CREATE INDEX ON summarized USING brin (e)"""
    )
    message = findings(command("doctor", "--json"), 0)["foreign_keys"].message
    assert "public.other, which no index serves" in message
    assert "public.summarized, which no index serves" in message
    assert "public.hashed, which" not in message
    assert "public.note, which" not in message


def test_a_trigger_is_to_spare_sessions_by_the_name_that_the_connection_string_gives_them(
    healthy_locally: Installation, command: Commands
):
    database = healthy_locally.database
    database.execute(
        """CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
        CREATE TRIGGER told BEFORE DELETE ON "Event" FOR EACH ROW EXECUTE FUNCTION audit()"""
    )
    for name, variables in {
        "event_archive": {},
        "keeper": {"PG_CONNECTION_STRING": make_conninfo(database.dsn, application_name="keeper")},
    }.items():
        remedy = findings(command("doctor", "--json", **variables), 0)["triggers"].remedy
        assert remedy == f"Check what it does. Let it do nothing where application_name is {name}, or disable it."


def test_the_index_of_a_key_that_may_be_older_than_the_order_of_its_texts_is_made_anew_by_what_is_said(
    healthy_locally: Installation, command: Commands
):
    healthy_locally.database.execute(
        """CREATE COLLATION names (provider = builtin, locale = 'C.UTF-8', version = '0');
        ALTER TABLE "Event" ALTER id DROP IDENTITY; ALTER TABLE "Event" ALTER id TYPE text COLLATE names"""
    )
    table = findings(command("doctor", "--json"), 0)["table"]
    assert (table.status, "by public.names (version 0, 1 by now)" in table.message) == ("warning", True)
    told = re.fullmatch(r".* then: (REINDEX .*); once that has succeeded: (ALTER .*)", table.remedy)
    assert told
    with psycopg.connect(healthy_locally.database.dsn, autocommit=True) as connection:
        for statement in told.groups():
            connection.execute(statement.encode())
    assert wrong(findings(command("doctor", "--json"), 0)) == {}

"""The doctor names what is wrong, for each kind of wrong there is; where nothing is, it says so and leaves no trace."""

import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from event_archive.config.environment import Settings
from event_archive.doctor import rows, server
from event_archive.doctor.findings import Finding, Patient, Topic, go_through
from event_archive.lake.local.folder import LocalLake
from event_archive.postgres.statements import turning_on
from event_archive_tests.fixtures.doctor import ACCOUNT_KEY, CHECKS, PASSWORD, files, findings, wrong
from event_archive_tests.fixtures.installation import REPOSITORY, Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.postgres import Database, Server

pytestmark = pytest.mark.slow


def test_a_healthy_installation_is_good_and_left_as_it_was(healthy: Installation, command: Commands):
    healthy.add(3)
    healthy.archive()
    before = files(healthy)
    found = findings(command("doctor", "--json"), 0)
    assert wrong(found) == {}
    assert "1 file of days" in found["lake"].message
    assert [name for name, finding in found.items() if finding.status == "skipped"] == [
        "dagster_schedule",
        "dagster_daemon",
    ]
    assert (files(healthy), healthy.count()) == (before, 3)
    if isinstance(healthy.lake, LocalLake):
        names = {path.name for path in (healthy.lake._root / healthy.dataset.folder).iterdir()}
        assert names == {
            "events_2024-03-01.csv",
            ".events_2024-03-01.csv.json",
            ".lock",
            "_events.source.json",
            "._events.source.json.json",
        }


def test_for_people_there_is_a_line_a_check(healthy_locally: Installation, command: Commands):
    healthy_locally.database.execute('DROP INDEX "Event_created_at_idx"')
    done = command("doctor", LOG_FORMAT="console")
    assert done.code == 0
    marks = {line.split()[1]: line[0] for line in done.stdout.splitlines() if line[0] in "✓!✗"}
    skipped = [line for line in done.stdout.splitlines() if line.startswith("- ")]
    assert list(marks) == [name for name in CHECKS if name not in ("dagster_schedule", "dagster_daemon")]
    assert skipped == ["- dagster_schedule, dagster_daemon: there is no DAGSTER_HOME"]
    assert [name for name, mark in marks.items() if mark == "!"] == ["time_index"]
    assert '→ CREATE INDEX CONCURRENTLY ON "public"."Event" ("created_at");' in done.stdout
    assert done.stdout.endswith("0 bad, 1 warning\n")


def test_a_refused_probe_is_a_cross(healthy_locally: Installation, command: Commands):
    done = command("doctor", ARCHIVE_LOCAL_PATH="/dev/null", LOG_FORMAT="console")
    assert done.code == 1
    assert any(line.startswith("✗ lake ") and "Not a directory" in line for line in done.stdout.splitlines())


# Settings


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PG_CONNECTION_STRING": ""}, ["PG_CONNECTION_STRING is not set"]),
        ({"PG_CONNECTION_STRING": f"postgres//u:{PASSWORD}@h/d"}, ["(a secret, not shown)"]),
        ({"ARCHIVE_LOCAL_PATH": "", "DRY_RUN": "perhaps"}, ["none is set", "DRY_RUN holds 'perhaps'"]),
        (
            {"DAGSTER_PG_HOST": "db", "RUN_BUDGET": "soon"},
            ["DAGSTER_PG_DB, DAGSTER_PG_USERNAME: not set", "RUN_BUDGET"],
        ),
        (
            {
                "ARCHIVE_LOCAL_PATH": "",
                "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=a;AccountKey={ACCOUNT_KEY};no",
            },
            ["The Azure storage connection string is malformed"],
        ),
    ],
)
def test_every_problem_of_the_settings_is_named_and_the_rest_goes_on(
    healthy_locally: Installation, command: Commands, variables: dict[str, str], words: list[str]
):
    found = findings(command("doctor", "--json", **variables), 2)
    assert wrong(found) == {"settings": "bad"}
    for part in words:
        assert part in found["settings"].message
    assert found["postgres"].status == found["lake"].status == found["dagster_definitions"].status == "skipped"
    assert found["dagster_instance"].status == "good"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"API_BASE_URL": "http://127.0.0.1:1", "API_PAGE_LIMIT": "x"}, ["API_PAGE_LIMIT holds 'x'"]),
        ({"LOGS_URL": "s3://bucket", "LOGS_MAX_ATTEMPTS": "x"}, ["LOGS_MAX_ATTEMPTS holds 'x'"]),
        ({"REDIS_URL": "redis://127.0.0.1:1", "STREAM_BATCH": "x"}, ["STREAM_BATCH holds 'x'"]),
        ({"API_BASE_URL": "https://127.0.0.1:1", "SSL_CERT_FILE": "/nope"}, ["SSL_CERT_FILE names no file"]),
        (
            {"API_BASE_URL": "https://127.0.0.1:1", "HTTPS_PROXY": "foo://["},
            ["HTTPS_PROXY or HTTP_PROXY is no"],
        ),
        ({"LOGS_URL": "file:///tmp", "LOGS_MAPPING": "/nope"}, ["LOGS_MAPPING: /nope cannot be read"]),
        ({"LOGS_URL": "s3://bucket", "AWS_CA_BUNDLE": "/nope"}, ["AWS_CA_BUNDLE names no file"]),
        ({"REDIS_URL": "rediss://127.0.0.1:1?ssl_ca_certs=/nope"}, ["(ssl_ca_certs) holds no certificates"]),
        ({"REDIS_URL": "redis://127.0.0.1:1?nope=1"}, ["a parameter that redis-py does not know"]),
    ],
)
def test_every_problem_of_a_source_is_named_and_the_night_is_looked_at(
    healthy_locally: Installation, command: Commands, variables: dict[str, str], words: list[str]
):
    found = findings(command("doctor", "--json", **variables), 2)
    assert wrong(found) == {"sources": "bad"}
    for part in words:
        assert part in found["sources"].message
    assert found["lake_write"].status == found["dagster_instance"].status == "good"


@pytest.mark.usefixtures("healthy_locally")
def test_a_wrong_setting_of_a_source_that_is_not_there_is_one_all_the_same(command: Commands):
    """Dagster reads it."""
    found = findings(command("doctor", "--json", API_CRON="hourly"), 2)
    assert found["sources"].status == "bad"
    assert "API_CRON holds 'hourly'" in found["sources"].message


@pytest.mark.usefixtures("healthy_locally")
def test_what_dagster_alone_finds_wrong_with_a_setting_is_a_wrong_setting(
    command: Commands, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(sys.modules, "event_archive.definitions", raising=False)
    monkeypatch.delattr("event_archive.definitions", raising=False)
    found = findings(command("doctor", "--json", ARCHIVE_CRON="0 25 * * *"), 2)
    assert wrong(found) == {"dagster_definitions": "bad"}


def test_a_trial_and_silence_are_warnings(healthy_locally: Installation, command: Commands):
    found = findings(command("doctor", "--json", DRY_RUN="true", ALERT_WEBHOOK_URL=""), 0)
    assert wrong(found) == {"settings": "warning", "alerts": "warning"}


# PostgreSQL


def test_a_database_that_is_out_of_reach(healthy_locally: Installation, command: Commands, closed_port: int):
    conninfo = f"postgresql://someone:{PASSWORD}@127.0.0.1:{closed_port}/events"
    found = findings(command("doctor", "--json", PG_CONNECTION_STRING=conninfo), 1)
    assert wrong(found) == {"postgres": "bad"}
    assert "Check host and port in PG_CONNECTION_STRING" in found["postgres"].message
    skipped = {name: finding.message for name, finding in found.items() if finding.status == "skipped"}
    assert skipped["privileges"] == skipped["table"] == "not looked at, because of postgres"
    assert skipped["orphans"] == "not looked at, because of table"
    assert found["lake_write"].status == "good"


def test_a_database_that_does_not_exist(healthy_locally: Installation, command: Commands):
    conninfo = healthy_locally.database.server.dsn("nowhere")
    found = findings(command("doctor", "--json", PG_CONNECTION_STRING=conninfo), 1)
    assert 'database "nowhere" does not exist' in found["postgres"].message


def test_a_database_that_takes_any_bytes(healthy_locally: Installation, command: Commands, sql_ascii: Database):
    found = findings(command("doctor", "--json", PG_CONNECTION_STRING=sql_ascii.dsn), 0)
    assert wrong(found)["postgres"] == "warning"
    assert "SQL_ASCII" in found["postgres"].message


def test_a_server_that_is_too_old(healthy_locally: Installation, command: Commands, clean: pytest.MonkeyPatch):
    clean.setattr(server, "OLDEST_SUPPORTED", 990000)
    assert wrong(findings(command("doctor", "--json"), 0)) == {"postgres": "warning"}


def test_a_server_that_is_too_old_for_log_files(
    healthy_locally: Installation, command: Commands, clean: pytest.MonkeyPatch, tmp_path: Path
):
    clean.setattr(server, "LOGS_OLDEST_SERVER", 99)
    assert wrong(findings(command("doctor", "--json"), 0)) == {}
    found = findings(command("doctor", "--json", LOGS_URL=f"file://{tmp_path}"), 0)
    assert wrong(found) == {"postgres": "warning"}
    assert "PostgreSQL 99" in found["postgres"].remedy


@pytest.fixture
def across_the_network(healthy_locally: Installation) -> Iterator[str]:
    """A connection string that leads to the server by this machine's own address on a network."""
    addresses = [
        address.address
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    if not addresses:
        pytest.skip("this machine is on no network")
    database = healthy_locally.database
    there = str(database.server.socket_dir / ".s.PGSQL.5432")
    with socket.create_server((addresses[0], 0)) as listener:

        def pump(source: socket.socket, target: socket.socket) -> None:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client, socket.socket(socket.AF_UNIX) as upstream:
                    upstream.connect(there)
                    back = threading.Thread(target=pump, args=(upstream, client))
                    back.start()
                    pump(client, upstream)
                    back.join()

        thread = threading.Thread(target=serve)
        thread.start()
        yield psycopg.conninfo.make_conninfo(
            host=addresses[0], port=listener.getsockname()[1], user="postgres", dbname=database.name
        )
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_connection_that_anybody_can_read(healthy_locally: Installation, command: Commands, across_the_network: str):
    found = findings(command("doctor", "--json", PG_CONNECTION_STRING=across_the_network), 0)
    assert wrong(found) == {"postgres_tls": "warning"}
    assert "sslmode=verify-full" in found["postgres_tls"].remedy


@pytest.mark.parametrize("whose", ["DATABASE {0}", "ROLE {1}", "ROLE {1} IN DATABASE {0}"])
def test_a_role_that_may_only_read_may_write_by_what_is_said(
    healthy_locally: Installation, command: Commands, whose: str
):
    database = healthy_locally.database
    role = f"reader_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
    dsn = database.server.dsn(database.name, role)
    try:
        database.execute(f"ALTER {whose.format(database.name, role)} SET default_transaction_read_only = on")
        found = findings(command("doctor", "--json", PG_CONNECTION_STRING=dsn), 1)
        assert wrong(found) == {"postgres_primary": "bad"}
        with psycopg.connect(dsn, autocommit=True) as connection:
            statements = found["postgres_primary"].remedy.removeprefix("One after the other: ").removesuffix(";")
            for statement in statements.split(";"):
                connection.execute(statement.encode())
        assert wrong(findings(command("doctor", "--json", PG_CONNECTION_STRING=dsn), 0)) == {}
    finally:
        with psycopg.connect(database.server.dsn("postgres")) as connection:
            connection.execute(f"DROP ROLE {role}".encode())


def test_a_connection_string_that_makes_read_only_is_said(healthy_locally: Installation, command: Commands):
    dsn = f"{healthy_locally.database.dsn} options='-c default_transaction_read_only=on'"
    found = findings(command("doctor", "--json", PG_CONNECTION_STRING=dsn), 1)
    assert found["postgres_primary"].remedy == "Take it out of the options of PG_CONNECTION_STRING, or of PGOPTIONS."


PRIVILEGES = {
    "USAGE ON SCHEMA app": "GRANT USAGE ON SCHEMA app TO {}",
    "USAGE ON TYPE app.few": "GRANT USAGE ON TYPE app.few TO {}",
    "USAGE ON TYPE app.mood": "GRANT USAGE ON TYPE app.mood TO {}",
    "USAGE ON TYPE app.span": "GRANT USAGE ON TYPE app.span TO {}",
    "TEMPORARY ON DATABASE {database}": "GRANT TEMPORARY ON DATABASE {database} TO {}",
    'SELECT ON app."Event"': 'GRANT SELECT ON app."Event" TO {}',
    'DELETE ON app."Event"': 'GRANT DELETE ON app."Event" TO {}',
    "SELECT ON app.event_archive_hold": "GRANT SELECT ON app.event_archive_hold TO {}",
}


@pytest.mark.parametrize("lacking", [[name] for name in PRIVILEGES] + [[], list(PRIVILEGES)], ids=len)
def test_a_privilege_that_is_missing(healthy_locally: Installation, command: Commands, lacking: list[str]):
    database = healthy_locally.database
    role = f"pauper_{database.name}"
    database.execute(
        f"""CREATE SCHEMA app; ALTER TABLE "Event" SET SCHEMA app; CREATE TABLE app.event_archive_hold ();
        CREATE ROLE {role} LOGIN; REVOKE TEMPORARY ON DATABASE {database.name} FROM PUBLIC;
        CREATE TYPE app.mood AS ENUM ('good'); REVOKE USAGE ON TYPE app.mood FROM PUBLIC;
        CREATE DOMAIN app.few AS int[]; REVOKE USAGE ON TYPE app.few FROM PUBLIC;
        CREATE TYPE app.span AS RANGE (subtype = int, multirange_type_name = app.spans);
        REVOKE USAGE ON TYPE app.span FROM PUBLIC;
        ALTER TABLE app."Event" ADD moods app.mood[], ADD few app.few, ADD spans app.spans"""
    )
    if not lacking:
        # A table of the right columns, so that nothing else is wrong.
        database.execute("DROP TABLE app.event_archive_hold")
    grants = {name: grant.format(role, database=database.name) for name, grant in PRIVILEGES.items()}
    for name, grant in grants.items():
        if name not in lacking and (lacking or "hold" not in name):
            database.execute(grant)
    variables = {"PG_CONNECTION_STRING": database.server.dsn(database.name, role), "EVENT_TABLE": "app.Event"}
    try:
        done = command("doctor", "--json", **variables)
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    found = findings(done, 1 if lacking else 0)
    named = ", ".join(name.format(database=database.name) for name in lacking)
    if lacking:
        assert found["privileges"].message == f"{role} lacks {named}"
        assert found["privileges"].remedy == "; ".join(grants[name] for name in lacking) + ";"
    else:
        assert wrong(found) == {}


def test_schemas_of_collations_and_of_the_keys_operators_are_used_too(healthy_locally: Installation, command: Commands):
    database = healthy_locally.database
    role = f"elsewhere_{database.name}"
    database.execute(
        f"""CREATE SCHEMA words; CREATE COLLATION words.plain FROM "C";
        CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext; CREATE DOMAIN place AS ext.vector;
        CREATE TABLE t (k place PRIMARY KEY, at timestamptz, v text COLLATE words.plain);
        CREATE INDEX ON t (at); INSERT INTO t VALUES ('[1,2]', '2024-03-01', 'x');
        CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON t TO {role}"""
    )
    variables = {
        "PG_CONNECTION_STRING": database.server.dsn(database.name, role),
        "EVENT_TABLE": "public.t",
        "EVENT_TIME_COLUMN": "at",
    }
    try:
        found = findings(command("doctor", "--json", **variables), 1)["privileges"]
        assert found.message == f"{role} lacks USAGE ON SCHEMA ext, USAGE ON SCHEMA words"
        database.execute(found.remedy)
        assert findings(command("doctor", "--json", **variables), 0)["privileges"].status == "good"
        done = command("run", **variables)
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert (done.code, done.end["deleted"]) == (0, 1)


def test_grants_to_and_on_what_is_named_like_a_word_of_postgresql_run_as_they_stand(
    healthy_locally: Installation, command: Commands
):
    database = healthy_locally.database
    database.execute("""CREATE ROLE "user" LOGIN; CREATE SCHEMA "order"; ALTER TABLE "Event" SET SCHEMA "order";""")
    variables = {"PG_CONNECTION_STRING": database.server.dsn(database.name, "user"), "EVENT_TABLE": "order.Event"}
    try:
        database.execute(findings(command("doctor", "--json", **variables), 1)["privileges"].remedy)
        assert wrong(findings(command("doctor", "--json", **variables), 0)) == {}
    finally:
        database.execute("""DROP OWNED BY "user"; DROP ROLE "user";""")


@pytest.mark.parametrize("lacking", ["", "TEMPORARY"])
def test_privileges_on_a_table_that_is_absent_are_not_called_good(
    healthy_locally: Installation, command: Commands, lacking: str
):
    database = healthy_locally.database
    database.execute('DROP TABLE "Event"')
    role = f"early_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    if lacking:
        database.execute(f"REVOKE TEMPORARY ON DATABASE {database.name} FROM PUBLIC")
    try:
        done = command("doctor", "--json", PG_CONNECTION_STRING=database.server.dsn(database.name, role))
    finally:
        database.execute(f"DROP ROLE {role}")
    found = findings(done, 1)
    assert wrong(found) == {"table": "bad"} | ({"privileges": "bad"} if lacking else {})
    if not lacking:
        assert (found["privileges"].status, found["privileges"].message) == (
            "skipped",
            "not looked at, because of table",
        )


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
            'ALTER TABLE public."Event" RESET (autovacuum_enabled);',
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


def test_rows_that_nobody_counts_are_counted_by_what_is_said(healthy_locally: Installation, command: Commands):
    database = healthy_locally.database
    role = f"uncounted_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
    try:
        dsn = database.server.dsn(database.name, role)
        by_options = command("doctor", "--json", PG_CONNECTION_STRING=f"{dsn} options='-c track_counts=off'")
        remedy = findings(by_options, 0)["autovacuum"].remedy
        assert remedy == "Take track_counts out of the options of the connection string, or of PGOPTIONS."
        for whose in (f"DATABASE {database.name}", f"ROLE {role}", f"ROLE {role} IN DATABASE {database.name}"):
            database.execute(f"ALTER {whose} SET track_counts = off")
            found = findings(command("doctor", "--json", PG_CONNECTION_STRING=dsn), 0)
            assert wrong(found) == {"autovacuum": "warning"}
            assert found["autovacuum"].message.startswith("track_counts off: ")
            database.execute(found["autovacuum"].remedy)
            assert wrong(findings(command("doctor", "--json", PG_CONNECTION_STRING=dsn), 0)) == {}
            database.execute(f"ALTER {whose} RESET track_counts")
    finally:
        database.execute(f"DROP ROLE {role}")


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


def test_a_role_that_may_not_vacuum_as_the_settings_ask_is_told(healthy_locally: Installation, command: Commands):
    database = healthy_locally.database
    role = f"guest_{database.name}"
    database.execute(f'CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON "Event" TO {role}')
    variables = {"PG_CONNECTION_STRING": database.server.dsn(database.name, role), "EVENT_VACUUM": "true"}
    try:
        found = findings(command("doctor", "--json", **variables), 0)
        assert wrong(found) == {"autovacuum": "warning"}
        assert found["autovacuum"].message == f'{role} may not vacuum public."Event", as EVENT_VACUUM asks for'
        assert wrong(findings(command("doctor", "--json", **variables | {"EVENT_VACUUM": "false"}), 0)) == {}
        if database.server.version >= 17:
            assert "MAINTAIN on it" in found["autovacuum"].remedy
            database.execute(f'GRANT MAINTAIN ON "Event" TO {role}')
            assert wrong(findings(command("doctor", "--json", **variables), 0)) == {}
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


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


def test_a_role_that_rows_are_hidden_from(healthy_locally: Installation, command: Commands):
    database = healthy_locally.database
    role = f"blinkered_{database.name}"
    database.execute(
        f"""CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON "Event" TO {role};
        CREATE POLICY half ON "Event" TO {role} USING (id = 1); ALTER TABLE "Event" ENABLE ROW LEVEL SECURITY"""
    )
    try:
        done = command("doctor", "--json", PG_CONNECTION_STRING=database.server.dsn(database.name, role))
    finally:
        database.execute(f"DROP OWNED BY {role}")
    found = findings(done, 1)
    assert found["row_security"].status == "bad"
    assert "BYPASSRLS" in found["row_security"].remedy
    owner = findings(command("doctor", "--json"), 0)["row_security"]
    database.execute(f"DROP ROLE {role}")
    assert (owner.status, owner.message) == ("good", "does not apply to this role")


def test_a_table_that_somebody_has_locked_is_not_waited_for_long(
    healthy_locally: Installation, command: Commands, clean: pytest.MonkeyPatch
):
    clean.setattr(server, "_LOCK_TIMEOUT_SECONDS", 0.1)
    with psycopg.connect(healthy_locally.database.dsn) as other:
        other.execute('LOCK TABLE "Event"')
        found = findings(command("doctor", "--json"), 1)
    assert wrong(found) == {"table": "bad"}
    assert "Somebody holds a lock on the table" in found["table"].message


def test_rows_that_cannot_be_counted_in_time_are_a_warning(healthy_locally: Installation, clean: pytest.MonkeyPatch):
    clean.setattr(server, "_LOCK_TIMEOUT_SECONDS", 0.1)
    patient = Patient(Settings.load)
    patient.settings = Settings.load()
    with psycopg.connect(healthy_locally.database.dsn) as other:
        other.execute('LOCK TABLE "Event"')
        orphans, held = rows.rows(patient)
    assert (orphans.status, held.status) == ("warning", "good")
    assert "rows of no day could not be counted in time" in orphans.message


def test_held_days_are_counted(healthy_locally: Installation, command: Commands):
    assert command("hold", "2024-03-01", "--to", "2024-03-03", "--reason", "audit").code == 0
    assert findings(command("doctor", "--json"), 0)["holds"].message == "3 days are held"


# The replica


def test_a_replica_that_is_out_of_reach(healthy_locally: Installation, command: Commands, closed_port: int):
    conninfo = f"postgresql://someone:{PASSWORD}@127.0.0.1:{closed_port}/events"
    found = findings(command("doctor", "--json", EXPORT_PG_CONNECTION_STRING=conninfo), 1)
    assert wrong(found) == {"replica": "bad"}
    assert "Check host and port in EXPORT_PG_CONNECTION_STRING" in found["replica"].message


def test_a_replica_that_is_none(healthy_locally: Installation, command: Commands):
    database = healthy_locally.database
    found = findings(command("doctor", "--json", EXPORT_PG_CONNECTION_STRING=database.dsn), 0)
    assert wrong(found) == {"replica": "warning"}
    assert "names the primary itself" in found["replica"].message
    other = database.server.dsn("specification")
    found = findings(command("doctor", "--json", EXPORT_PG_CONNECTION_STRING=other), 1)
    assert wrong(found) == {"replica": "bad"}
    assert f"no standby of database {database.name}" in found["replica"].message


def test_no_standby_has_the_rows_of_an_unlogged_table(
    healthy_locally: Installation, command: Commands, standby: Server
):
    database = healthy_locally.database
    database.execute('ALTER TABLE "Event" SET UNLOGGED')
    healthy_locally.add(1)
    there = standby.dsn(database.name)
    found = findings(command("doctor", "--json", EXPORT_PG_CONNECTION_STRING=there), 1)["replica"]
    assert (found.status, "No standby has an unlogged table" in found.message) == ("bad", True)
    done = command("run", EXPORT_PG_CONNECTION_STRING=there)
    assert (done.code, "unset EXPORT_PG_CONNECTION_STRING" in done.said) == (1, True)
    assert command("run").code == 0


def test_a_standby_serves_exports_and_nothing_else(
    healthy_locally: Installation, command: Commands, standby: Server, clean: pytest.MonkeyPatch
):
    database = healthy_locally.database
    there = standby.dsn(database.name)
    found = findings(command("doctor", "--json", EXPORT_PG_CONNECTION_STRING=there), 0)
    assert wrong(found) == {}
    assert "a standby, " in found["replica"].message
    healthy_locally.add(1)
    with psycopg.connect(there, autocommit=True) as replica:
        while replica.execute('SELECT count(*) FROM "Event"').fetchone() != (1,):
            pass
        replica.execute("SELECT pg_wal_replay_pause()")
        while replica.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() != ("paused",):
            pass
    # Written when it returns, as it would be anywhere but on a test's server.
    database.execute("""SET synchronous_commit TO on; DELETE FROM "Event" """)
    clean.setattr(server, "MOST_LAG_SECONDS", 0)
    found = findings(command("doctor", "--json", EXPORT_PG_CONNECTION_STRING=there), 0)
    assert wrong(found) == {"replica": "warning"}
    assert " bytes and " in found["replica"].message

    found = findings(command("doctor", "--json", PG_CONNECTION_STRING=there), 1)
    assert found["postgres_primary"].status == "bad"
    assert "Let PG_CONNECTION_STRING name the primary" in found["postgres_primary"].remedy


def test_a_role_that_may_not_see_the_replicas_that_a_purge_waits_for(
    healthy_locally: Installation, command: Commands, standby: Server
):
    database = healthy_locally.database
    role = f"purger_{database.name}"
    database.execute(
        f"""CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON "Event" TO {role};
        GRANT TEMPORARY ON DATABASE {database.name} TO {role}"""
    )
    variables = {"PG_CONNECTION_STRING": database.server.dsn(database.name, role), "MAX_REPLICA_LAG": "64 MB"}
    try:
        healthy_locally.add(1)
        failed = command("run", LOG_FORMAT="json", **variables).days["2024-03-01"]["error"]
        assert "the role may not see how far replicas are" in failed
        found = findings(command("doctor", "--json", **variables), 1)
        assert wrong(found) == {"privileges": "bad"}
        assert found["privileges"].remedy == f"GRANT pg_read_all_stats TO {role};"
        database.execute(f"GRANT pg_read_all_stats TO {role}")
        assert wrong(findings(command("doctor", "--json", **variables), 0)) == {}
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


# The doctor himself


def test_a_check_that_breaks_is_a_finding_without_the_errors_words():
    def broken(_: Patient) -> Iterator[Finding]:
        yield Finding("first", "good", "well")
        raise KeyError(PASSWORD)

    found = list(go_through([Topic(("first", "second", "third"), None, broken)], Settings.load))
    assert [finding.status for finding in found] == ["good", "bad", "skipped"]
    assert found[1].message.startswith("the check itself failed: KeyError in test_doctor.py, line ")
    assert PASSWORD not in str(found)


def test_the_page_lists_every_check():
    page = (REPOSITORY / "docs/howto/doctor.md").read_text()
    rows = [line.split("|")[1].strip().strip("`") for line in page.splitlines() if line.startswith("| `")]
    assert rows == CHECKS


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


@pytest.mark.parametrize(("vacuum", "words"), [("true", "nothing but a purge (EVENT_VACUUM)"), ("false", "never used")])
def test_where_a_purge_vacuums_space_is_used_again(
    healthy_locally: Installation, command: Commands, vacuum: str, words: str
):
    healthy_locally.database.execute('ALTER TABLE "Event" SET (autovacuum_enabled = off)')
    found = findings(command("doctor", "--json", EVENT_VACUUM=vacuum), 0)["autovacuum"]
    assert words in found.message


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

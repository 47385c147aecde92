"""What the doctor says of a role's privileges, and that the statements which it prints give what is missing."""

import psycopg
import pytest

from event_archive_tests.fixtures.doctor import findings, wrong
from event_archive_tests.fixtures.installation import Commands, Installation

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("is_there", [True, False])
def test_a_role_that_may_not_see_the_replicas_that_a_purge_waits_for(
    healthy_locally: Installation, command: Commands, request: pytest.FixtureRequest, is_there: bool
):
    """Also while there is none: one may come tonight."""
    if is_there:
        request.getfixturevalue("standby")
    database = healthy_locally.database
    role = f"purger_{database.name}"
    database.execute(
        f"""CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON "Event" TO {role};
        GRANT TEMPORARY ON DATABASE {database.name} TO {role}"""
    )
    variables = {"PG_CONNECTION_STRING": database.server.dsn(database.name, role), "MAX_REPLICA_LAG": "64 MB"}
    try:
        healthy_locally.add(1)
        night = command("run", LOG_FORMAT="json", **variables).days["2024-03-01"]
        assert "the role may not see how far replicas are" in night["error"] if is_there else "error" not in night
        found = findings(command("doctor", "--json", **variables), 1)
        assert wrong(found) == {"privileges": "bad"}
        assert found["privileges"].remedy == f"GRANT pg_read_all_stats TO {role};"
        database.execute(f"GRANT pg_read_all_stats TO {role}")
        assert wrong(findings(command("doctor", "--json", **variables), 0)) == {}
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

"""What the doctor says of replicas that serve exports, and of standbys."""

import psycopg
import pytest

from event_archive.doctor import server
from event_archive_tests.fixtures.doctor import PASSWORD, findings, wrong
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.postgres import Server

pytestmark = pytest.mark.slow


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

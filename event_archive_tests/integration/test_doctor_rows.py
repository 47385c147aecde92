"""What the doctor says of the rows: those that nobody counts or can count in time, held days, the space they leave."""

import psycopg
import pytest

from event_archive.config.environment import Settings
from event_archive.doctor import rows, server
from event_archive.doctor.findings import Patient
from event_archive_tests.fixtures.doctor import findings, wrong
from event_archive_tests.fixtures.installation import Commands, Installation

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize(("vacuum", "words"), [("true", "nothing but a purge (EVENT_VACUUM)"), ("false", "never used")])
def test_where_a_purge_vacuums_space_is_used_again(
    healthy_locally: Installation, command: Commands, vacuum: str, words: str
):
    healthy_locally.database.execute('ALTER TABLE "Event" SET (autovacuum_enabled = off)')
    found = findings(command("doctor", "--json", EVENT_VACUUM=vacuum), 0)["autovacuum"]
    assert words in found.message

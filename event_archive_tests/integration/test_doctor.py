"""The doctor names what is wrong with settings and connections; where nothing is, it says so and leaves no trace."""

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from event_archive.config.environment import Settings
from event_archive.doctor import server
from event_archive.doctor.findings import Finding, Patient, Topic, go_through
from event_archive.lake.local.folder import LocalLake
from event_archive_tests.fixtures.doctor import ACCOUNT_KEY, CHECKS, PASSWORD, files, findings, wrong
from event_archive_tests.fixtures.installation import REPOSITORY, Commands, Installation
from event_archive_tests.fixtures.postgres import Database

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
            {"API_BASE_URL": "https://127.0.0.1:1", "SSL_CERT_FILE": "/nope\r"},
            ["(FileNotFoundError); the white space around it counts."],
        ),
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


def test_a_connection_string_that_makes_read_only_is_said(healthy_locally: Installation, command: Commands):
    dsn = f"{healthy_locally.database.dsn} options='-c default_transaction_read_only=on'"
    found = findings(command("doctor", "--json", PG_CONNECTION_STRING=dsn), 1)
    assert found["postgres_primary"].remedy == "Take it out of the options of PG_CONNECTION_STRING, or of PGOPTIONS."


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

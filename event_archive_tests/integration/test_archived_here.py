"""A source knows which datasets archive its table, by whatever address their settings name its database."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from event_archive.config.datasets import load_datasets
from event_archive.domain.dataset import TableName
from event_archive.errors import ConfigurationError, UnreachableError
from event_archive.postgres.session import Postgres
from event_archive.sources.archived import ArchivedHere
from event_archive_tests.fixtures.installation import Commands
from event_archive_tests.fixtures.log_files import Logs, entry, ndjson
from event_archive_tests.fixtures.postgres import Database, Server

pytestmark = pytest.mark.slow

LOGS = TableName("public", "logs")
FILE = """
datasets:
  events: {table: public.Event}
  logs: {table: public.logs, time_column: timestamp, retention: 90 days, pg_connection_string_env: LOGS_DATABASE_URL}
"""


@pytest.fixture
def archived(database: Database, clean: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str | None], list[str]]:
    """The datasets that archive the logs of a database, where ``LOGS_DATABASE_URL`` holds something."""
    (tmp_path / "datasets.yaml").write_text(FILE)
    clean.setenv("DATASETS_FILE", str(tmp_path / "datasets.yaml"))
    clean.setenv("PG_CONNECTION_STRING", database.dsn)

    def found(url: str | None) -> list[str]:
        if url is not None:
            clean.setenv("LOGS_DATABASE_URL", url)
        return [of.name for of in ArchivedHere(Postgres(os.environ["PG_CONNECTION_STRING"]), LOGS, load_datasets())]

    return found


def by_another_address(database: Database, tmp_path: Path) -> str:
    """What leads to the same database, as a pooler or an alias does."""
    (tmp_path / "alias").symlink_to(database.server.socket_dir)
    return database.dsn.replace(str(database.server.socket_dir), str(tmp_path / "alias"))


def test_a_database_is_known_by_whatever_address(
    archived: Callable[[str | None], list[str]], database: Database, tmp_path: Path
):
    assert archived(by_another_address(database, tmp_path)) == ["logs"]


def test_a_database_is_known_to_roles_that_may_see_more_and_less(
    archived: Callable[[str | None], list[str]], database: Database, tmp_path: Path, clean: pytest.MonkeyPatch
):
    role = f"plain_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN; REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM PUBLIC")
    try:
        clean.setenv("PG_CONNECTION_STRING", database.server.dsn(database.name, role))
        assert archived(by_another_address(database, tmp_path)) == ["logs"]
    finally:
        database.execute(f"DROP ROLE {role}")


def test_another_database_of_the_server_is_another(archived: Callable[[str | None], list[str]], elsewhere: Database):
    assert archived(elsewhere.dsn) == []


def test_a_standby_is_not_taken_for_another_database(
    archived: Callable[[str | None], list[str]], server_18: Server, standby: Server, clean: pytest.MonkeyPatch
):
    """After a failover an address may lead to the former primary, which follows the new one."""
    clean.setenv("PG_CONNECTION_STRING", server_18.dsn("postgres"))
    with pytest.raises(
        UnreachableError, match="LOGS_DATABASE_URL names, and that server or PG_CONNECTION_STRING's is a"
    ):
        archived(standby.dsn("postgres"))
    Database(standby, "postgres").execute("SELECT pg_promote(true, 60)")
    assert archived(standby.dsn("postgres")) == []  # a copy from here on


def test_a_database_that_nobody_can_ask_is_not_taken_for_another(
    archived: Callable[[str | None], list[str]], closed_port: int
):
    with pytest.raises(ConfigurationError, match=r"logs archives public\.logs .* LOGS_DATABASE_URL is not set"):
        archived(None)
    with pytest.raises(UnreachableError, match="LOGS_DATABASE_URL"):
        archived(f"postgresql://me@127.0.0.1:{closed_port}/events")


def test_entries_that_were_purged_do_not_come_back_where_their_database_goes_by_another_address(
    logs: Logs, command: Commands, tmp_path: Path
):
    (tmp_path / "datasets.yaml").write_text(FILE)
    variables = {
        "DATASETS_FILE": str(tmp_path / "datasets.yaml"),
        "PG_CONNECTION_STRING": logs.database.dsn,
        "LOGS_DATABASE_URL": by_another_address(logs.database, tmp_path),
        "LOGS_URL": f"file://{logs.folder}",
        "ARCHIVE_LOCAL_PATH": str(tmp_path / "lake"),
    }
    entries = [entry(n, timestamp="2024-03-01T08:00:00Z") for n in range(3)]
    logs.write("a.log", ndjson(*entries))
    assert command("ingest", "logs", **variables).code == 0
    assert command("run", "2024-03-01", "--dataset", "logs", **variables).code == 0
    logs.write("a.log", ndjson(*entries, entry(4, timestamp=datetime.now(UTC).isoformat())))
    again = command("ingest", "logs", **variables)
    assert (again.code, again.end["new"], again.end["too_old"]) == (0, 1, 3)

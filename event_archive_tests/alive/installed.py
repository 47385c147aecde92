"""The installation: events and Dagster's records in PostgreSQL, Azurite as the lake, three services of Dagster."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import psycopg

from event_archive_tests.alive.graphql import Dagster
from event_archive_tests.alive.services import Service, await_that, ended, listens
from event_archive_tests.fixtures.graphql import LOCATION
from event_archive_tests.fixtures.installation import REPOSITORY, Installation, clean_environment
from event_archive_tests.fixtures.ports import free_port
from event_archive_tests.fixtures.postgres import Server

_START_SECONDS = 120
_RECORDS = "dagster"

# The witness is written in the transaction of the insert: what must be somewhere in the end, whoever is quick to purge.
_WITNESS = """
CREATE TABLE witness (LIKE "Event");
CREATE FUNCTION testify() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO witness SELECT (NEW).*; RETURN NEW; END $$;
CREATE TRIGGER witnessed AFTER INSERT ON "Event" FOR EACH ROW EXECUTE FUNCTION testify();
"""
_INSERTED = """
SELECT id::text, event_id, event_type, created_at::text, processed_at::text, payload FROM witness ORDER BY witness.id
"""


@dataclass
class Alive:
    """All of it, running.

    Attributes:
        events: the database of the events, and the lake.
        dagster: the webserver, asked by GraphQL.
    """

    events: Installation
    dagster: Dagster
    code_server: Service
    daemon: Service
    webserver: Service
    code_server_port: int
    began: float

    def say(self, what: str) -> None:
        print(f"\n  {time.monotonic() - self.began:5.0f} s  {what}", end="", flush=True)

    def start_code_server(self) -> None:
        self.code_server.start()
        await_that("the code server listens", lambda: listens(self.code_server_port), _START_SECONDS)

    def start(self) -> None:
        self.start_code_server()
        self.daemon.start()
        self.webserver.start()
        port = int(self.dagster.address.rsplit(":", 1)[1])
        await_that("the webserver listens", lambda: listens(port), _START_SECONDS)

    def inserted(self) -> list[tuple[object, ...]]:
        """Every row that was ever inserted, by key."""
        return self.events.database.execute(_INSERTED)

    def emptied(self, days: list[date]) -> bool:
        """Whether no row of the days is in the table."""
        dates = ", ".join(f"'{day}'" for day in days)
        return not self.events.count(f"created_at::date IN ({dates})")


@contextmanager
def installed(events: Installation, server: Server, home: Path, **variables: str) -> Iterator[Alive]:
    """Everything, not started yet; every process is ended when the context is left."""
    events.database.execute(_WITNESS)
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    code_port, web_port = free_port(), free_port()
    (home / "workspace.yaml").write_text(
        f"load_from: [{{grpc_server: {{host: 127.0.0.1, port: {code_port}, location_name: {LOCATION}}}}}]\n"
    )
    environment = clean_environment(
        **variables,
        DAGSTER_HOME=str(home),
        DAGSTER_PG_HOST=str(server.socket_dir),
        DAGSTER_PG_DB=_RECORDS,
        DAGSTER_PG_USERNAME="postgres",
        **events.variables,
    )

    def service(name: str, *arguments: str) -> Service:
        return Service(arguments, environment, home / f"{name}.log")

    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {_RECORDS}")
        # Dagster's own times are those of its database's time zone.
        admin.execute(f"ALTER DATABASE {_RECORDS} SET timezone TO 'UTC'")
        address = ("--host", "127.0.0.1", "--port")
        alive = Alive(
            events,
            Dagster(f"http://127.0.0.1:{web_port}"),
            service("code", "dagster", "api", "grpc", "-m", "event_archive.definitions", *address, str(code_port)),
            service("daemon", "dagster._daemon", "run", "-w", "workspace.yaml"),
            service("webserver", "dagster_webserver", "-w", "workspace.yaml", *address, str(web_port)),
            code_port,
            time.monotonic(),
        )
        try:
            with ended([alive.code_server, alive.daemon, alive.webserver], home):
                yield alive
        finally:
            admin.execute(f"DROP DATABASE {_RECORDS} WITH (FORCE)")

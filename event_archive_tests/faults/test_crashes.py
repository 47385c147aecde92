"""What a person was told is done outlives a crash of PostgreSQL, whatever is set about commits."""

import os
import signal
import time
from contextlib import suppress

import psycopg

from event_archive.lake.protocol import Lake
from event_archive.table.holds import hold
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database, Server


def test_a_hold_outlives_a_crash_of_postgresql(server_that_crashes: Server, local_lake: Lake):
    pipeline = Pipeline(Database(server_that_crashes, "specification"), local_lake)
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute("SET synchronous_commit TO on; CREATE TABLE flushed ()")
    hold(pipeline.dataset, DAY, DAY, "a lawsuit", pipeline.postgres)
    _crash(pipeline.database)
    survived("crashes of PostgreSQL after a hold")
    assert pipeline.purge().outcome == "held"
    assert pipeline.count() == 3


def _crash(database: Database) -> None:
    """Kills a backend, at which the server ends all of them and recovers."""
    with psycopg.connect(database.dsn) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        with suppress(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(10)")
    for _ in range(200):
        with suppress(psycopg.OperationalError):
            psycopg.connect(database.dsn).close()
            return
        time.sleep(0.05)

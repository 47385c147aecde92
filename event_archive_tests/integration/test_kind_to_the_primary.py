"""Reading no faster than allowed, and waiting for replicas. The budget of a night is tested with the command line."""

import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from event_archive.errors import BusyError, RefusedError
from event_archive.lake.local.folder import LocalLake
from event_archive.nightly.replicas import await_replicas
from event_archive.operations.export import PacedExport
from event_archive.postgres.session import Postgres
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database, Server
from event_archive_tests.fixtures.progress import Seen, SeenPhase
from event_archive_tests.fixtures.waiting import until

pytestmark = pytest.mark.slow


def test_a_paced_progress_sleeps_as_long_as_the_bytes_would_take(monkeypatch: pytest.MonkeyPatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    seen = Seen()
    paced = PacedExport(seen, 1_000_000)
    paced.begin("exporting")
    paced.advance(10, 2_000_000)
    paced.advance(10, 1_000_000)
    paced.begin("reading back", total_bytes=50_000_000)
    paced.advance(0, 50_000_000)
    assert [round(seconds) for seconds in slept] == [2, 3]  # since the start; nobody really slept
    assert seen.phases == [
        SeenPhase("exporting", None, 20, 3_000_000),
        SeenPhase("reading back", 50_000_000, 0, 50_000_000),
    ]


def test_a_limited_export_takes_its_time_and_is_whole(database: Database, local_lake: LocalLake):
    pipeline = Pipeline(database, local_lake)
    pipeline.add(5000)
    archived = pipeline.archive(pace=1_000_000)
    assert archived.manifest is not None
    assert archived.seconds >= archived.manifest.bytes / 1_000_000 > 0.5
    assert pipeline.purge().deleted == 5000


@pytest.fixture
def paused(database: Database, standby: Server) -> psycopg.Connection[tuple[object, ...]]:
    """A session on a standby that has the database and replays no further."""
    latest = time.monotonic() + 30
    while True:
        try:
            connection = psycopg.connect(standby.dsn(database.name), autocommit=True)
            break
        except psycopg.OperationalError:
            assert time.monotonic() < latest, "the standby does not follow"
            time.sleep(0.1)
    connection.execute("SELECT pg_wal_replay_pause()")
    state = "SELECT pg_get_wal_replay_pause_state()"
    until(lambda: connection.execute(state).fetchone() == ("paused",), seconds=30)
    return connection


def test_a_purge_waits_for_a_replica_and_goes_on_when_it_has_caught_up(
    database: Database, paused: psycopg.Connection[tuple[object, ...]], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, logger="event_archive")
    postgres = Postgres(database.dsn)
    with paused:
        database.execute("CREATE TABLE much AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        database.execute("SELECT pg_switch_wal()")
        with pytest.raises(
            BusyError, match=r"bytes of WAL to replay, for longer than 0 s; MAX_REPLICA_LAG allows 1000"
        ):
            await_replicas(postgres, 1000, wait_seconds=0)
        await_replicas(postgres, 10**12, wait_seconds=0)
        resume = threading.Timer(0.5, lambda: paused.execute("SELECT pg_wal_replay_resume()"))
        resume.start()
        await_replicas(postgres, 1_000_000)
        resume.join()
    assert "waiting: a streaming replica has" in caplog.text


def test_a_replica_that_catches_up_is_waited_for(database: Database):
    """It was away, and is sent what it has missed: it is further behind than any other."""
    ((begin,),) = database.execute("SELECT pg_current_wal_lsn()::text")
    database.execute("CREATE TABLE much AS SELECT repeat('x', 1000) FROM generate_series(1, 40000)")
    replica = psycopg.pq.PGconn.connect(f"{database.dsn} replication=true".encode())
    try:
        replica.exec_(f"START_REPLICATION PHYSICAL {begin}".encode())
        # It takes nothing, so that it stays where it is.
        until(lambda: database.execute("SELECT state FROM pg_stat_replication") == [("catchup",)], seconds=30)
        with pytest.raises(BusyError, match="A streaming replica has"):
            await_replicas(Postgres(database.dsn), 1_000_000, wait_seconds=0)
    finally:
        replica.finish()


@contextmanager
def slot(database: Database, make: LiteralString) -> Iterator[str]:
    """A replication slot, which is dropped once whoever used it is gone."""
    name = f"slot_{database.name}"
    database.execute(make, name)
    try:
        yield name
    finally:
        active = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
        until(lambda: database.execute(active, name) != [(True,)])
        database.execute("SELECT pg_drop_replication_slot(%s)", name)


def test_a_consumer_of_a_logical_slot_is_no_replica(database: Database):
    """It may be one of another database, and confirm what it has read hours later: no purge would ever begin."""
    database.execute("CREATE PUBLICATION changes FOR ALL TABLES")
    with slot(database, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')") as name:
        consumer = psycopg.pq.PGconn.connect(f"{database.dsn} replication=database".encode())
        try:
            options = "proto_version '1', publication_names 'changes'"
            consumer.exec_(f"START_REPLICATION SLOT {name} LOGICAL 0/0 ({options})".encode())
            # It takes nothing: the first commit is where it stays.
            for number in range(2):
                much = "SELECT repeat('x', 1000) FROM generate_series(1, 40000)"
                database.execute(f"CREATE TABLE much{number} AS {much}")
            behind = "SELECT pg_current_wal_lsn() - sent_lsn > 10000000 FROM pg_stat_replication"
            until(lambda: database.execute(f"{behind} WHERE sent_lsn IS NOT NULL") == [(True,)], seconds=30)
            await_replicas(Postgres(database.dsn), 1_000_000, wait_seconds=0)
        finally:
            consumer.finish()


def test_an_archive_of_the_wal_that_replays_nothing_is_waited_for_by_what_it_wrote(database: Database, tmp_path: Path):
    """With a slot, pg_receivewal reports a segment of 16 MB as flushed once it is full."""
    with slot(database, "SELECT pg_create_physical_replication_slot(%s)") as name:
        command = [str(database.server.bin_dir / "pg_receivewal"), "-d", database.dsn, "-S", name, "-D", str(tmp_path)]
        with subprocess.Popen(command) as receiver:
            try:
                wrote = "SELECT write_lsn = pg_current_wal_lsn() FROM pg_stat_replication"
                database.execute("SELECT pg_switch_wal()")
                database.execute("CREATE TABLE much AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
                until(lambda: database.execute(wrote) == [(True,)], seconds=30)
                await_replicas(Postgres(database.dsn), 1_000_000, wait_seconds=0)
            finally:
                receiver.terminate()


def test_without_replicas_nobody_waits(database: Database):
    await_replicas(Postgres(database.dsn), 1, wait_seconds=0)


def test_a_role_that_may_not_see_replicas_is_told_so(database: Database, paused: psycopg.Connection[tuple[object]]):
    role = f"blind_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        with paused, pytest.raises(RefusedError, match="GRANT pg_read_all_stats"):
            await_replicas(Postgres(database.server.dsn(database.name, role)), 1)
    finally:
        database.execute(f"DROP ROLE {role}")


def test_both_limits_hold_for_the_command_line(command: Commands, local_installation: Installation):
    local_installation.add(3)
    done = command("run", EXPORT_RATE_LIMIT="1 GB", MAX_REPLICA_LAG="1 GB")
    assert done.code == 0
    assert done.days[DAY.isoformat()]["deleted"] == 3
    for wrong in ("fast", "0 MB", "20"):
        done = command("run", EXPORT_RATE_LIMIT=wrong)
        assert done.code == 2
        assert f"EXPORT_RATE_LIMIT holds '{wrong}': is not a size like '20 MB'" in done.said


def test_a_plan_takes_the_limit_of_an_export_into_account(command: Commands, local_installation: Installation):
    """It said how long a run without one takes."""
    local_installation.add(3000)
    limited = {"EXPORT_RATE_LIMIT": "1 kB"}
    planned, listed = command("run", "--plan", **limited).end, command("days", **limited).end
    for seconds, size_bytes in (
        (planned["seconds"], planned["bytes"]),
        (listed["estimated_seconds"], listed["estimated_bytes"]),
    ):
        assert seconds == pytest.approx(size_bytes / 1000, rel=0.01)

"""A batch lands once whoever else is at the table: lost connections, deadlocks, serialization, opposite order."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from event_archive.errors import BusyError, UnreachableError
from event_archive.postgres.session import Connection
from event_archive.sources.landing import Counts
from event_archive_tests.fixtures.landing import (
    IGNORE,
    UPDATE,
    batch,
    land,
    landed,
    nothing,
    opened,
    rejected,
    rows,
    until_blocked,
)
from event_archive_tests.fixtures.postgres import Database


def test_a_lost_connection_leaves_nothing_and_another_session_lands_it_all(measurements: Database):
    def die(connection: Connection) -> None:
        measurements.execute("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)

    of = batch(("a", "01", "1"), rejected=("x",))
    with opened(measurements) as session, pytest.raises(UnreachableError, match="goes on where the last commit ended"):
        land(session, IGNORE, "test", of, die)
    assert (rows(measurements), rejected(measurements)) == ([], [])
    assert landed(measurements, IGNORE, of) == [Counts(taken=2, new=1, rejected=1)]


@contextmanager
def another(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.dsn) as connection:
        yield connection


def run_twice(measurements: Database, first: Callable[[Connection], None]) -> tuple[int, Counts]:
    """Lands a batch whose first attempt does something at its end; returns how many attempts there were."""
    attempts: list[int] = []

    def position(connection: Connection) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            first(connection)

    waited: list[float] = []
    with opened(measurements) as session:
        counts = land(session, IGNORE, "test", batch(("a", "01", "1"), rejected=("x",)), position, pause=waited.append)
    assert len(waited) == len(attempts) - 1
    assert len(rows(measurements)) == len(rejected(measurements)) == 1
    return len(attempts), counts


def test_a_deadlock_lands_the_whole_batch_again(measurements: Database):
    measurements.execute("CREATE TABLE pair (n int PRIMARY KEY); INSERT INTO pair VALUES (1), (2)")
    with another(measurements) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SET deadlock_timeout TO '1min'")
        other.execute("UPDATE pair SET n = n WHERE n = 2")

        def cross(connection: Connection) -> None:
            connection.execute("SET LOCAL deadlock_timeout TO '50ms'")
            connection.execute("UPDATE public.pair SET n = n WHERE n = 1")
            waits = pool.submit(other.execute, "UPDATE pair SET n = n WHERE n = 1")
            until_blocked(measurements)
            try:
                connection.execute("UPDATE public.pair SET n = n WHERE n = 2")
            except psycopg.errors.DeadlockDetected:
                # What waited for this transaction goes on as it ends.
                done.append(waits)
                raise

        done: list[object] = []
        assert run_twice(measurements, cross) == (2, Counts(taken=2, new=1, rejected=1))
        assert len(done) == 1


def test_a_failed_serialization_lands_the_whole_batch_again(measurements: Database):
    measurements.execute(
        "CREATE TABLE parts (n int) PARTITION BY LIST (n); CREATE TABLE one PARTITION OF parts FOR VALUES IN (1);"
        "CREATE TABLE two PARTITION OF parts FOR VALUES IN (2); INSERT INTO parts VALUES (1)"
    )
    failed = []
    with another(measurements) as other, ThreadPoolExecutor(1) as pool:
        other.execute("UPDATE parts SET n = 2")

        def commit() -> None:
            until_blocked(measurements)
            other.commit()

        def collide(connection: Connection) -> None:
            committed = pool.submit(commit)
            try:
                connection.execute("UPDATE public.parts SET n = n WHERE n = 1")
            except psycopg.errors.SerializationFailure:
                failed.append(committed)
                raise

        assert run_twice(measurements, collide) == (2, Counts(taken=2, new=1, rejected=1))
    assert len(failed) == 1


def test_a_batch_whose_locks_others_keep_is_given_up_after_five_attempts(measurements: Database):
    attempts = []

    def always(_connection: Connection) -> None:
        attempts.append(1)
        raise BusyError("a lock")

    waited: list[float] = []
    with opened(measurements) as session, pytest.raises(BusyError):
        land(session, IGNORE, "test", batch(("a", "01", "1")), always, pause=waited.append)
    assert (len(attempts), waited) == (5, [0.2, 0.4, 0.8, 1.6])
    assert rows(measurements) == []


def test_two_landings_of_the_same_keys_in_opposite_order_never_wait_in_a_ring(measurements: Database):
    keys = [f"k{number:03}" for number in range(200)]
    barrier = threading.Barrier(2)

    def writes(order: list[str], number: int) -> Counts:
        total = Counts()
        with opened(measurements) as session:
            for hour in range(10):
                barrier.wait()
                of = batch(*((key, f"{hour:02}", str(number)) for key in order))
                total.add(land(session, UPDATE, "test", of, nothing, pause=ring.append))
        return total

    ring: list[float] = []
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(writes, (keys, keys[::-1]), (1, 2))
    assert ring == []
    assert one.new + other.new == 200
    assert one.balance == other.balance == 0

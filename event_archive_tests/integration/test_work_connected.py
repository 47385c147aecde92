"""Work that is done again on another connection where PostgreSQL went away: how long it is waited for."""

import psycopg
import pytest

from event_archive.postgres.session import Postgres, Session, one
from event_archive.sources import runs
from event_archive.sources.former import Former
from event_archive_tests.fixtures.fake_time import FakeTime
from event_archive_tests.fixtures.postgres import Database


def test_the_time_that_a_session_works_is_no_time_that_postgresql_is_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    """As of one large file, in which the session is ended twice."""
    clock, tries = FakeTime(), list[float]()
    monkeypatch.setattr(runs, "time", clock)

    def work(session: Session, _: Former) -> None:
        tries.append(clock.now)
        with session.transaction("a file") as connection:
            clock.sleep(180)
            if len(tries) <= 2:
                (backend,) = one(connection, "SELECT pg_backend_pid()")
                with psycopg.connect(database.dsn, autocommit=True) as other:
                    other.execute("SELECT pg_terminate_backend(%s)", (backend,))
                connection.execute("SELECT 1")

    runs.work_connected(Postgres(database.dsn), work, done=lambda: 0, told_to_stop=lambda: False)
    assert len(tries) == 3

"""Holds that are put while others work on the day, and the privileges that they need."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date

import psycopg
import pytest

from event_archive.errors import BusyError, RefusedError
from event_archive.operations.adopt import adopt_day
from event_archive.operations.purge import purge_day
from event_archive.operations.restore.day import restore_day
from event_archive.operations.restore.target import target_named
from event_archive.operations.site import Site
from event_archive.postgres.session import Postgres
from event_archive.table.holds import hold, holds
from event_archive.table.locks import lock_day
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY, Pipeline


def test_a_hold_waits_for_a_purge_and_says_when_it_cannot(pipeline: Pipeline):
    with pipeline.postgres.transaction("a purge") as connection:
        assert lock_day(connection, pipeline.dataset, DAY)
        with pytest.raises(
            BusyError,
            match="another command has been working on 2024-03-01.*No day was held by this command: give it again",
        ):
            hold(pipeline.dataset, date(2024, 2, 28), date(2024, 3, 2), "x", pipeline.postgres)
    assert holds(pipeline.dataset, pipeline.postgres) == []


def test_a_hold_is_on_disk_before_anybody_is_told_of_it(pipeline: Pipeline):
    """The servers of these tests are told not to wait for the disk."""
    hold(pipeline.dataset, date(2024, 2, 1), date(2024, 2, 1), "the table exists", pipeline.postgres)
    pipeline.database.execute(
        "ALTER TABLE event_archive_hold ALTER held_by SET DEFAULT current_setting('synchronous_commit')"
    )
    hold(pipeline.dataset, DAY, DAY, "x", pipeline.postgres)
    assert [held.by for held in holds(pipeline.dataset, pipeline.postgres)] == ["postgres", "on"]


def test_a_hold_that_was_put_while_a_purge_began_is_seen(pipeline: Pipeline):
    """Who has the day's lock first is first: a purge that finds it taken by a hold deletes nothing."""
    pipeline.add(3)
    pipeline.archive()
    hold(pipeline.dataset, date(2024, 2, 1), date(2024, 2, 1), "the table exists", pipeline.postgres)
    with psycopg.connect(pipeline.database.dsn) as watch, psycopg.connect(pipeline.database.dsn) as blocker:
        blocker.execute("LOCK TABLE event_archive_hold IN SHARE MODE")
        thread = threading.Thread(target=hold, args=(pipeline.dataset, DAY, DAY, "in time", pipeline.postgres))
        thread.start()
        while not watch.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
            watch.rollback()
        assert pipeline.purge().outcome == "locked"
        blocker.rollback()
        thread.join()
    assert pipeline.purge().outcome == "held"
    assert pipeline.count() == 3


def test_a_role_that_may_not_see_the_holds_deletes_nothing(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    hold(pipeline.dataset, DAY, DAY, "x", pipeline.postgres)
    pipeline.database.execute('CREATE ROLE blind LOGIN; GRANT SELECT, DELETE ON "Event" TO blind')
    try:
        with pytest.raises(RefusedError, match="event_archive_hold"):
            purge_day(
                Site(
                    pipeline.dataset,
                    Postgres(pipeline.database.server.dsn(pipeline.database.name, "blind")),
                    pipeline.lake,
                ),
                DAY,
                pipeline.records[DAY],
                dry_run=False,
            )
    finally:
        pipeline.database.execute("DROP OWNED BY blind; DROP ROLE blind")
    assert pipeline.count() == 3


def _restore(pipeline: Pipeline, *, in_place: bool) -> None:
    target = target_named(pipeline.dataset, in_place=in_place)
    restore_day(pipeline.site, DAY, target)


VERBS: dict[str, Callable[[Pipeline], object]] = {
    "purge": Pipeline.purge,
    "adopt": lambda of: adopt_day(of.site, DAY),
    "hold": lambda of: hold(of.dataset, DAY, DAY, "x", of.postgres),
    "restore": lambda of: _restore(of, in_place=False),
    "in place": lambda of: _restore(of, in_place=True),
}


@pytest.fixture
def limited(pipeline: Pipeline) -> Iterator[Pipeline]:
    """The role of the documentation: SELECT and DELETE on the table, TEMPORARY on the database."""
    name = pipeline.database.name
    pipeline.database.execute(
        f"""REVOKE ALL ON DATABASE {name} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC;
        CREATE ROLE archiver LOGIN;
        GRANT CONNECT, TEMPORARY ON DATABASE {name} TO archiver; GRANT USAGE ON SCHEMA public TO archiver;
        GRANT SELECT, DELETE ON "Event" TO archiver"""
    )
    yield Pipeline(pipeline.database, pipeline.lake, role="archiver", records=pipeline.records)
    pipeline.database.execute("DROP OWNED BY archiver; DROP ROLE archiver")


def test_least_privilege_is_enough(pipeline: Pipeline, limited: Pipeline):
    """Also after somebody else's first hold, which makes the table of holds."""
    pipeline.add(3)
    assert limited.run().deleted == 3
    hold(pipeline.dataset, date(2024, 2, 1), date(2024, 2, 1), "x", pipeline.postgres)
    pipeline.add(2, prefix="late")
    assert limited.run().deleted == 2


def test_the_tables_owner_sees_the_holds_that_another_role_put(pipeline: Pipeline):
    """Without a single GRANT, too."""
    role = f"owner_{pipeline.database.name}"
    pipeline.database.execute(f'CREATE ROLE {role} LOGIN; ALTER TABLE "Event" OWNER TO {role}')
    try:
        pipeline.add(3)
        hold(pipeline.dataset, DAY, DAY, "x", pipeline.postgres)
        assert Pipeline(pipeline.database, pipeline.lake, role=role).run().outcome == "held"
    finally:
        pipeline.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("verb", ["purge", "adopt"])
def test_without_temporary_tables_the_privilege_is_named(pipeline: Pipeline, limited: Pipeline, verb: str):
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute(f"REVOKE TEMPORARY ON DATABASE {pipeline.database.name} FROM archiver")
    with pytest.raises(RefusedError, match="temporary tables.*TEMPORARY on the database"):
        VERBS[verb](limited)


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("hold", "Nothing is held.*INSERT.*on public.event_archive_hold.*CREATE on the schema"),
        ("restore", "Nothing was restored.*CREATE on the schema of a new table"),
        ("in place", "Nothing was restored.*INSERT on the table"),
    ],
)
def test_each_verb_names_the_privileges_it_needs(pipeline: Pipeline, limited: Pipeline, verb: str, words: str):
    pipeline.add(3)
    limited.run()
    with pytest.raises(RefusedError, match=words) as refused:
        VERBS[verb](limited)
    assert "next run" not in str(refused.value)


def _hold_while_another_is_put(pipeline: Pipeline, *, first: str, second: str) -> "Future[None]":
    """Two holds on one day that both found it free; the second waits for the day's lock while the first is put."""
    hold(pipeline.dataset, date(2024, 2, 1), date(2024, 2, 1), "the table exists", pipeline.postgres)
    with ThreadPoolExecutor() as pool:
        with (
            psycopg.connect(pipeline.database.dsn) as watch,
            pipeline.postgres.transaction("the first hold") as connection,
        ):
            assert lock_day(connection, pipeline.dataset, DAY)
            last = date(2024, 3, 2)
            waiting = pool.submit(hold, pipeline.dataset, date(2024, 2, 29), last, second, pipeline.postgres)
            while not watch.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
                watch.rollback()
            connection.execute(
                "INSERT INTO public.event_archive_hold (table_name, day, reason) VALUES (%s, %s, %s)",
                (str(pipeline.dataset.table), DAY, first),
            )
        return waiting


def test_of_two_holds_at_once_the_second_says_which_reason_stands(pipeline: Pipeline):
    with pytest.raises(RefusedError, match="2024-03-01 is held already: case 17.*No day was held by this command"):
        _hold_while_another_is_put(pipeline, first="case 17", second="restoring").result()
    held = [(h.first, h.last, h.reason) for h in holds(pipeline.dataset, pipeline.postgres)][1:]
    assert held == [(DAY, DAY, "case 17")]


def test_of_two_holds_at_once_with_one_reason_both_hold(pipeline: Pipeline):
    _hold_while_another_is_put(pipeline, first="case 17", second="case 17").result()
    held = [(h.first, h.last) for h in holds(pipeline.dataset, pipeline.postgres)][1:]
    assert held == [(date(2024, 2, 29), date(2024, 3, 2))]


def test_two_first_holds_at_once_both_hold(pipeline: Pipeline):
    with psycopg.connect(pipeline.database.dsn) as watch, psycopg.connect(pipeline.database.dsn) as blocker:
        # The table of holds is made while two wait to make it.
        blocker.execute('CREATE TABLE event_archive_hold (LIKE "Event"); ')
        days = (DAY, date(2024, 3, 2))
        threads = [
            threading.Thread(target=hold, args=(pipeline.dataset, day, day, "x", pipeline.postgres)) for day in days
        ]
        for thread in threads:
            thread.start()
        while len(watch.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall()) < 2:
            watch.rollback()
        blocker.rollback()
        for thread in threads:
            thread.join()
    (held,) = holds(pipeline.dataset, pipeline.postgres)
    assert (held.first, held.last) == days


def test_row_security_on_the_table_of_holds_is_no_missing_privilege(
    local_installation: Installation, command: Commands
):
    """Some platforms enable it on every new table."""
    database = local_installation.database
    hold(local_installation.dataset, DAY, DAY, "x", local_installation.postgres)
    role = f"holder_{database.name}"
    database.execute(
        f"""ALTER TABLE event_archive_hold ENABLE ROW LEVEL SECURITY; CREATE ROLE {role} LOGIN;
        GRANT SELECT, INSERT, DELETE ON event_archive_hold TO {role}; GRANT SELECT, DELETE ON "Event" TO {role}"""
    )
    try:
        done = command("holds", PG_CONNECTION_STRING=database.server.dsn(database.name, role))
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert done.code == 1
    assert "Row security may hide rows of that table from the role in PG_CONNECTION_STRING" in done.said
    assert "GRANT" not in done.said

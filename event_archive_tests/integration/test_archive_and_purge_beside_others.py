"""Archive and purge beside other runs and sessions: the day's lock, lost races, rows that change in the midst."""

import threading
from typing import Any

import psycopg
import pytest

from event_archive.errors import BusyError, FileChangedError, LockedError, UnreachableError
from event_archive.lake.local.upload import LocalUpload
from event_archive.lake.protocol import Lake
from event_archive.operations import archive as archiving
from event_archive.operations import writing
from event_archive.operations.export import Export
from event_archive.operations.unanswered import note_unanswered
from event_archive.postgres.session import Postgres
from event_archive.table.locks import lock_day
from event_archive.table.shape import require_unchanged
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database


def test_where_another_run_holds_the_day_this_one_says_so(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    with psycopg.connect(pipeline.database.dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f'event_archive public."Event" {DAY}',))
        purged = pipeline.purge()
    assert (purged.outcome, purged.deleted, purged.left) == ("locked", 0, 3)
    assert pipeline.purge().deleted == 3


def test_a_purge_never_meets_an_append_of_its_day(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """A row that went from A to B and back is not purged as A while B is on its way into the file."""
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 1")
    original = Export.commit
    meanwhile: list[str] = []

    def purge_then_commit(export: object, *arguments: object, **options: object):
        pipeline.database.execute("UPDATE \"Event\" SET event_type = 'order.created' WHERE id = 1")
        meanwhile.append(pipeline.purge().outcome)
        return original(export, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Export, "commit", purge_then_commit)
    pipeline.archive()
    monkeypatch.undo()
    assert meanwhile == ["locked"]
    pipeline.run()
    assert [r["event_type"] for r in pipeline.records_of_file() if r["id"] == "1"][-1] == "order.created"


@pytest.mark.parametrize("where", [(Export, "commit"), (LocalUpload, "settle")], ids=["exported", "last piece"])
@pytest.mark.parametrize("widened", [False, True], ids=["append", "rewrite"])
def test_an_append_whose_session_was_lost_on_the_way_does_not_become_the_file(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, where: tuple[type, str], widened: bool
):
    """With its session it loses the lock on the day: a row that went to B and back may have been purged as A since."""
    pipeline.add(2)
    pipeline.archive()
    if widened:
        pipeline.database.execute('ALTER TABLE "Event" ADD COLUMN source text')
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 1")
    original = getattr(*where)

    def lost(*arguments: object, **options: object) -> object:
        monkeypatch.undo()
        pipeline.database.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        pipeline.database.execute("UPDATE \"Event\" SET event_type = 'order.created' WHERE id = 1")
        assert pipeline.purge().deleted == 2
        return original(*arguments, **options)

    monkeypatch.setattr(*where, lost)
    with pytest.raises(UnreachableError):
        pipeline.archive()
    assert pipeline.values("event_type")[0] == "order.created"
    assert len(pipeline.values("id")) == 2


@pytest.mark.parametrize("kind", [{}, {"shared": True}, {"wait": True}], ids=str)
def test_the_lock_on_a_day_ends_with_its_transaction(pipeline: Pipeline, kind: dict[str, bool]):
    """Not with its session, which a pooler gives to somebody else."""
    with psycopg.connect(pipeline.database.dsn) as pooled, psycopg.connect(pipeline.database.dsn) as other:
        assert lock_day(pooled, pipeline.dataset, DAY, **kind)
        assert not lock_day(other, pipeline.dataset, DAY)
        pooled.commit()
        assert lock_day(other, pipeline.dataset, DAY)


def test_appends_of_one_day_keep_one_another_from_nothing(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.archive()
    pipeline.add(1, prefix="late")
    with psycopg.connect(pipeline.database.dsn) as other:
        assert lock_day(other, pipeline.dataset, DAY, shared=True)
        assert pipeline.archive().rows_appended == 1


def test_an_append_that_another_was_faster_than_begins_again(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    pipeline.add(2)
    pipeline.archive()
    pipeline.add(1, prefix="late")
    times = 0

    def then_another_appends(*arguments: Any) -> None:
        nonlocal times
        require_unchanged(*arguments)
        times += 1
        if times == 1:
            pipeline.add(1, prefix="later")
            assert pipeline.archive().rows_appended == 2

    monkeypatch.setattr(writing, "require_unchanged", then_another_appends)
    assert pipeline.archive().rows_appended == 0
    assert sorted(pipeline.values("event_id")) == sorted(
        f"{prefix}-{DAY}-{n}" for prefix, n in (("evt", 0), ("evt", 1), ("late", 0), ("later", 0))
    )
    assert pipeline.purge().deleted == 4


@pytest.mark.parametrize("in_doubt", [False, True], ids=["all is known", "a commit got no answer"])
def test_an_append_leaves_the_file_alone_while_its_day_is_purged(pipeline: Pipeline, in_doubt: bool):
    pipeline.add(2)
    first = pipeline.archive()
    file = pipeline.lake.stat(first.path)
    if in_doubt and file:
        note_unanswered(pipeline.lake, file)
    pipeline.add(1, prefix="late")
    with pipeline.postgres.transaction("a purge") as connection:
        assert lock_day(connection, pipeline.dataset, DAY)
        second = pipeline.archive()
    assert (second.etag, second.rows_appended) == (first.etag, 0)
    assert pipeline.run().deleted == 3


def test_an_append_reads_what_a_purge_left_before_it_had_the_day(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """A row that went from A to B and back is purged as A; a snapshot of before would append B, as its last form."""
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 1")

    def purge_then_lock(*arguments: Any, **options: Any) -> bool:
        monkeypatch.undo()
        pipeline.database.execute("UPDATE \"Event\" SET event_type = 'order.created' WHERE id = 1")
        assert pipeline.purge().deleted == 2
        return lock_day(*arguments, **options)

    monkeypatch.setattr("event_archive.operations.archive.lock_day", purge_then_lock)
    assert pipeline.archive().rows_appended == 0
    assert pipeline.values("event_type") == ["order.created", 'user "x", signed\nup']


def test_an_append_reads_the_primary(pipeline: Pipeline):
    """A replica that is behind would give rows in a form that is gone, as the last in the file."""
    pipeline.add(2)
    pipeline.archive()
    pipeline.add(1, prefix="late")
    assert pipeline.archive(export_postgres=Postgres("host=/nowhere")).rows_appended == 1


def test_another_tools_file_is_not_taken_over_while_somebody_works_on_its_day(pipeline: Pipeline):
    pipeline.add(2)
    content = b"id,event_id\n77,x\n"
    pipeline.put(content)
    with pipeline.postgres.transaction("a purge") as connection:
        assert lock_day(connection, pipeline.dataset, DAY)
        with pytest.raises(LockedError, match="another command is working on 2024-03-01"):
            pipeline.archive()
    assert pipeline.content() == content


def test_a_lock_held_for_too_long_rolls_back_and_is_said(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    with psycopg.connect(pipeline.database.dsn) as other:
        other.execute('SELECT FROM "Event" WHERE id = 2 FOR UPDATE')
        with pytest.raises(BusyError, match="holds a lock"):
            pipeline.purge()
    assert pipeline.count() == 3


@pytest.mark.parametrize(
    "trigger", ["", "BEFORE DELETE {} FOR EACH ROW", "AFTER DELETE {}"], ids=["", "row", "statement"]
)
def test_a_row_updated_while_the_purge_waits_for_it_stays(each_database: Database, lake: Lake, trigger: str):
    pipeline = Pipeline(each_database, lake)
    pipeline.add(3)
    pipeline.archive()
    if trigger:
        pipeline.database.execute(
            f"""CREATE FUNCTION lets_go() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
            CREATE TRIGGER lets_go {trigger.format('ON "Event"')} EXECUTE FUNCTION lets_go()"""
        )
    with psycopg.connect(pipeline.database.dsn) as other, psycopg.connect(pipeline.database.dsn) as watch:
        other.execute("UPDATE \"Event\" SET event_type = 'changed' WHERE id = 2")
        result: list[object] = []
        thread = threading.Thread(target=lambda: result.append(pipeline.purge()))
        thread.start()
        while not watch.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
            watch.rollback()
        other.commit()
        thread.join()
    assert pipeline.database.execute('SELECT id, event_type FROM "Event"') == [(2, "changed")]


def test_a_run_that_loses_the_race_for_the_file_starts_again(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    pipeline.add(3)
    original = type(pipeline.lake).stat
    raced: list[str] = []

    def stat_then_lose(lake: Lake, path: str):
        found = original(lake, path)
        if not raced:
            raced.append(path)
            pipeline.archive()
        return found

    monkeypatch.setattr(type(pipeline.lake), "stat", stat_then_lose)
    archived = pipeline.archive()
    assert (archived.rows, archived.rows_appended) == (3, 0)
    assert pipeline.values("id") == ["1", "2", "3"]


@pytest.mark.parametrize("file", ["none", "archived before"])
def test_an_archive_that_another_run_overtakes_records_the_file_that_is_there(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, file: str
):
    """The other one archives and purges the day after this one has looked for its file."""
    pipeline.add(3)
    if file == "archived before":
        pipeline.archive()
        pipeline.add(1, prefix="late")
    overtaken: list[int] = []
    name = "claim_to_export" if file == "none" else "claim"
    claims = getattr(archiving, name)

    def overtaken_then_claim(*arguments: Any):
        if not overtaken:
            overtaken.append(0)
            overtaken[0] = pipeline.run().deleted
        return claims(*arguments)

    monkeypatch.setattr(archiving, name, overtaken_then_claim)
    archived = pipeline.archive()
    rows = 3 if file == "none" else 4
    assert (overtaken, archived.rows, archived.rows_appended) == ([rows], rows, 0)
    assert pipeline.purge().outcome == "nothing to do"


def test_a_snapshot_is_never_older_than_the_file_it_writes_to(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """Else a row that was archived and purged in its new form meanwhile would be appended in its old one."""
    pipeline.add(2)
    pipeline.archive()
    original = type(pipeline.lake).stat
    raced: list[str] = []

    def lose_then_stat(lake: Lake, path: str):
        if not raced:
            raced.append(path)
            pipeline.database.execute("UPDATE \"Event\" SET event_type = 'new' WHERE id = 1")
            pipeline.run()
        return original(lake, path)

    monkeypatch.setattr(type(pipeline.lake), "stat", lose_then_stat)
    pipeline.archive()
    assert [r["event_type"] for r in pipeline.records_of_file() if r["id"] == "1"] == ["order.created", "new"]


def test_three_lost_races_are_enough(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    pipeline.add(3)
    original = type(pipeline.lake).stat
    depth: list[str] = []

    def stat_then_lose(lake: Lake, path: str):
        found = original(lake, path)
        if not depth and path.endswith(".csv"):
            depth.append(path)
            pipeline.add(1, prefix=f"late{len(pipeline.records_of_file()) if found else 0}")
            pipeline.archive()
            depth.clear()
        return found

    monkeypatch.setattr(type(pipeline.lake), "stat", stat_then_lose)
    with pytest.raises(FileChangedError):
        pipeline.archive()
    monkeypatch.undo()
    assert len(pipeline.values("id")) == len(set(pipeline.values("id"))) == 6

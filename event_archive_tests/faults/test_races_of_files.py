"""A replica behind, or somebody in the lake, while a day is archived and purged."""

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from event_archive.errors import FileChangedError, IntegrityError
from event_archive.lake.protocol import Lake
from event_archive.postgres.session import Postgres
from event_archive_tests.azurite import Azurite
from event_archive_tests.faults.crowds import ROWS, Meddled
from event_archive_tests.faults.tally import survived
from event_archive_tests.faults.union import assert_good, assert_one_run_puts_it_right, by_key, in_file, in_table
from event_archive_tests.fixtures.lakes import remove
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Server


def test_an_export_from_a_stale_replica_deletes_nothing_that_it_did_not_see(pipeline: Pipeline, standby: Server):
    """Replay is paused: since then rows came, changed, went, and came again under their keys."""
    pipeline.add(ROWS)
    with psycopg.connect(standby.dsn(pipeline.database.name), autocommit=True) as replica:
        until = time.monotonic() + 20
        while replica.execute('SELECT count(*) FROM "Event"').fetchone() != (ROWS,):
            assert time.monotonic() < until, "the standby does not follow"
            time.sleep(0.05)
        assert replica.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        replica.execute("SELECT pg_wal_replay_pause()")
        while replica.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() != ("paused",):
            assert time.monotonic() < until, "replay does not pause"
            time.sleep(0.05)

        pipeline.database.execute(
            """
            UPDATE "Event" SET payload = '{"changed": true}' WHERE id % 10 = 1;
            DELETE FROM "Event" WHERE id % 10 = 2;
            INSERT INTO "Event" (id, event_id, event_type, created_at, payload)
            SELECT n, 'again ' || n, 'again', '2024-03-01 12:00', '{}'
            FROM generate_series(12, 600, 20) AS n
            """
        )
        pipeline.add(25, prefix="late")
        before = in_table(pipeline)

        export = Postgres(standby.dsn(pipeline.database.name))
        assert pipeline.archive(export_postgres=export).rows == ROWS
        purged = pipeline.purge()
        same = sum(1 for n in range(1, ROWS + 1) if n % 10 not in (1, 2))
        assert (purged.deleted, purged.left) == (same, len(before) - same)
        assert_union(pipeline, before)
        # The next night: an append reads the primary, however stale the replica still is.
        pipeline.archive(export_postgres=export)
        assert (pipeline.purge().deleted, pipeline.count()) == (len(before) - same, 0)
    assert_union(pipeline, before)
    assert_good(pipeline)
    survived("races: an export from a stale replica")


def assert_union(pipeline: Pipeline, before: list[tuple[Any, ...]]) -> None:
    """Each row in its last form. The file may hold more: rows that the replica still had."""
    union = by_key(in_file(pipeline)) | by_key(in_table(pipeline))
    assert {row[0]: union[row[0]] for row in before} == by_key(before)


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "replaced by the same": lambda content: content,
    "replaced": lambda content: content.replace(b"order.created", b"order.deleted"),
    "truncated": lambda content: content[: len(content) // 2],
    "edited in one byte": lambda content: content[:-3] + b"x" + content[-2:],
    "deleted": lambda _content: None,
}


@pytest.mark.parametrize("moment", ["stat 1", "read 1", "end 1", "during the DELETE"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_changes_under_a_purge_deletes_nothing(
    database: Any, lake: Lake, container: str, azurite: Azurite, damage: str, moment: str
):
    """With the manifest that it had. A last look at the file follows the DELETE: from there on it is the commit's."""
    pipeline = Pipeline(database, lake)
    pipeline.add(ROWS)
    before = in_table(pipeline)
    archived = pipeline.archive()
    content = pipeline.content()
    file = lake.stat(archived.path)
    assert file is not None

    def meddle() -> None:
        changed = DAMAGES[damage](content)
        if changed is not None:
            pipeline.put(changed, metadata=dict(file.metadata))
        else:
            remove(lake, archived.path)

    during_delete = moment == "during the DELETE"
    meddled = Meddled(lake, meddle, "none" if during_delete else moment)
    purge = Pipeline(database, meddled, records=pipeline.records).purge
    if during_delete:
        with psycopg.connect(database.dsn) as other:
            # The DELETE waits for this row, and the file is changed meanwhile.
            other.execute('SELECT FROM "Event" WHERE id = 7 FOR UPDATE')

            def meddle_and_let_go() -> None:
                meddle()
                other.rollback()

            meddler = threading.Timer(0.4, meddle_and_let_go)
            meddler.start()
            with pytest.raises((IntegrityError, FileChangedError)):
                purge()
            meddler.join()
    else:
        with pytest.raises((IntegrityError, FileChangedError)):
            purge()
    assert in_table(pipeline) == before
    pipeline.put(content, metadata=dict(file.metadata))
    assert_one_run_puts_it_right(pipeline, before)
    survived("races: the file changed under a purge")

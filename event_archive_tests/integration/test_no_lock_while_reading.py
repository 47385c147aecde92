"""While a file is read back the table is not locked; what changed meanwhile is noticed."""

from typing import Any

import psycopg
import pytest

from event_archive.errors import BusyError
from event_archive.operations import loading, proof
from event_archive.operations.adopt import adopt_day
from event_archive.operations.readback import Readback
from event_archive.operations.restore.day import restore_day
from event_archive_tests.fixtures.meanwhile import while_reading
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_table


@pytest.mark.parametrize(
    ("step", "nth"),
    [("purge", 1), ("append", 1), ("adopt", 1), ("rewrite", 1), ("rewrite", 2), ("restore", 1), ("restore", 2)],
)
def test_nobody_waits_for_the_table_while_the_file_is_read(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, step: str, nth: int
):
    """A rewrite, and a restore into types that are not PostgreSQL's own, read it twice."""
    pipeline.database.execute('CREATE DOMAIN kind AS text; ALTER TABLE "Event" ALTER COLUMN event_type TYPE kind')
    pipeline.add(2000)
    pipeline.archive()
    if step == "rewrite":
        pipeline.database.execute('ALTER TABLE "Event" ADD COLUMN more text')
    pipeline.add(1, prefix="late")
    migration = "SET lock_timeout = '1s'; ALTER TABLE \"Event\" ALTER COLUMN event_type SET DEFAULT 't'"
    with while_reading(monkeypatch, pipeline.lake, lambda: pipeline.database.execute(migration), nth):
        if step == "purge":
            assert pipeline.purge().deleted == 2000
        elif step == "restore":
            assert restore_day(pipeline.site, DAY, pipeline.dataset.table).skipped == 2000
        elif step == "adopt":
            assert adopt_day(pipeline.site, DAY).rows == 2000
        else:
            assert pipeline.archive().rows == 2001


@pytest.mark.parametrize(
    "migration",
    [
        "ALTER TABLE \"Event\" ADD COLUMN more text DEFAULT 'm'",
        'ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey"',
        """CREATE TABLE other (LIKE "Event" INCLUDING ALL); INSERT INTO other TABLE "Event"; DROP TABLE "Event";
        ALTER TABLE other RENAME TO "Event" """,
    ],
    ids=["column", "key", "table"],
)
@pytest.mark.parametrize("step", ["purge", "archive"])
def test_a_table_that_changes_while_the_file_is_read_is_noticed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, step: str, migration: str
):
    pipeline.add(20)
    pipeline.archive()
    pipeline.add(1, prefix="late")
    content = pipeline.content()
    with (
        while_reading(monkeypatch, pipeline.lake, lambda: pipeline.database.execute(migration)),
        pytest.raises(BusyError, match="the table was altered while"),
    ):
        pipeline.purge() if step == "purge" else pipeline.archive()
    assert (pipeline.count(), pipeline.content()) == (21, content)
    if "CONSTRAINT" in migration:
        adopt_day(pipeline.site, DAY, present_key=True)
    assert pipeline.run().deleted == 21


@pytest.mark.parametrize(
    "migration",
    ['ALTER TABLE "Event" DROP COLUMN processed_at', 'ALTER TABLE "Event" ALTER payload TYPE text USING payload::text'],
    ids=["column", "type"],
)
def test_a_table_that_changes_while_a_file_is_read_that_will_be_rewritten_is_noticed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, migration: str
):
    pipeline.add(20)
    pipeline.archive()
    pipeline.database.execute("ALTER TABLE \"Event\" ADD COLUMN more text DEFAULT 'm'")
    content = pipeline.content()
    with (
        while_reading(monkeypatch, pipeline.lake, lambda: pipeline.database.execute(migration)),
        pytest.raises(BusyError, match="the table was altered while"),
    ):
        pipeline.archive()
    assert (pipeline.count(), pipeline.content()) == (20, content)
    assert pipeline.run().deleted == 20


@pytest.mark.parametrize("kind", ["mood", "mood[]", "mixed", "sure", "pair"])
def test_labels_that_change_places_while_the_file_is_read_are_noticed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, kind: str
):
    of = of_table(
        pipeline,
        f"""CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN sure AS mood;
        CREATE TYPE mixed AS RANGE (subtype = mood); CREATE TYPE pair AS (first mood, second sure[]);
        CREATE TABLE t (id int PRIMARY KEY, at timestamp, feels {kind});""",
    )
    value = {"mood[]": "{sad}", "mixed": "[sad,sad]", "pair": "(sad,{sad})"}.get(kind, "sad")
    of.database.execute(f"INSERT INTO t VALUES (1, '2024-03-01', '{value}')")
    of.archive()

    original = loading.load

    def load_then_swap(*arguments: Any, **options: Any) -> Readback:
        readback = original(*arguments, **options)
        for old, new in [("sad", "x"), ("ok", "sad"), ("x", "ok")]:
            of.database.execute(f"ALTER TYPE mood RENAME VALUE '{old}' TO '{new}'")
        return readback

    monkeypatch.setattr(proof, "load", load_then_swap)
    with pytest.raises(BusyError, match="was altered"):
        of.purge()
    monkeypatch.undo()
    assert of.purge().left == 1


def test_an_index_on_todays_partition_does_not_disturb_an_old_day(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int, at timestamp, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE t_old PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');
        CREATE TABLE t_new PARTITION OF t FOR VALUES FROM ('2024-03-02') TO ('2034-03-02');
        INSERT INTO t VALUES (1, '2024-03-01'), (2, '2024-03-05')""",
    )
    with psycopg.connect(of.database.dsn) as other:
        # A run that waits for it ends with an error.
        other.execute("LOCK TABLE t_new IN ACCESS EXCLUSIVE MODE")
        assert of.run().deleted == 1

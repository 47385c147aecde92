"""Two schemas have one another's name for a while, as where a deployment swaps them and is rolled back.

No row of another table is archived, and no day is purged that is held. Of partitions: ``test_partitions_kept``.
"""

from dataclasses import replace

import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import ONE_DAY
from event_archive.errors import BusyError
from event_archive.operations import export, purge
from event_archive.operations.restore import day as restoring
from event_archive.table import holds
from event_archive_tests.fixtures.exchanged import exchanged
from event_archive_tests.fixtures.pipeline import DAY, Pipeline

pytestmark = pytest.mark.slow

TABLES = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.t (id int PRIMARY KEY, at timestamptz NOT NULL, note text);
INSERT INTO {schema}.t VALUES (1, '2024-03-01 08:00+00', '{schema}');
"""


@pytest.fixture
def of(pipeline: Pipeline) -> Pipeline:
    """The table ``app.t``, beside ``next.t``."""
    pipeline.database.execute(TABLES.format(schema="app") + TABLES.format(schema="next"))
    return pipeline.of(table=TableName("app", "t"), time_column="at", file_prefix="t")


@pytest.mark.parametrize("files", [0, 1])
def test_no_row_is_archived_of_a_table_that_has_the_name_while_it_is_read(
    of: Pipeline, monkeypatch: pytest.MonkeyPatch, files: int
):
    if files:
        of.archive()
        of.database.execute("INSERT INTO app.t VALUES (2, '2024-03-01 09:00+00', 'late')")
        of.database.execute("INSERT INTO next.t VALUES (3, '2024-03-01 09:00+00', 'of the other')")
    with monkeypatch.context() as patch:
        patch.setattr(export.Export, "copy", exchanged(of.database, export.Export.copy))
        with pytest.raises(BusyError, match="its schema was altered while it was read. Nothing was written"):
            of.archive()
    assert (of.lake.stat(of.dataset.path(DAY)) is not None) == bool(files)
    of.archive()
    notes = [dict(row)["note"] for row in of.records_of_file()]
    assert notes == (["app", "late"] if files else ["app"])


def test_a_held_day_is_not_purged_though_another_schema_has_the_name_while_holds_are_read(
    of: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of.archive()
    holds.hold(of.dataset, DAY, DAY, "legal", of.postgres)
    monkeypatch.setattr(purge, "hold_on", exchanged(of.database, holds.hold_on))
    with pytest.raises(BusyError, match="its schema was altered while it was read. Nothing was written or deleted"):
        of.purge()
    assert of.database.execute("SELECT note FROM app.t") == [("app",)]


def test_no_hold_is_put_into_another_schema(of: Pipeline, monkeypatch: pytest.MonkeyPatch):
    holds.hold(of.dataset, DAY + ONE_DAY, DAY + ONE_DAY, "other", of.postgres)
    other = replace(of.dataset, table=TableName("next", "t"))
    holds.hold(other, DAY + ONE_DAY, DAY + ONE_DAY, "other", of.postgres)
    monkeypatch.setattr(holds, "_about", exchanged(of.database, holds._about))
    with pytest.raises(BusyError, match="its schema was altered"):
        holds.hold(of.dataset, DAY, DAY, "legal", of.postgres)
    with pytest.raises(BusyError, match="its schema was altered"):
        holds.release(of.dataset, DAY, DAY + ONE_DAY, of.postgres)
    assert of.database.execute("SELECT day::text FROM app.event_archive_hold") == [(str(DAY + ONE_DAY),)]
    assert of.database.execute("SELECT day::text FROM next.event_archive_hold") == [(str(DAY + ONE_DAY),)]


def test_no_row_counts_as_restored_that_stands_in_another_table(of: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of.archive()
    of.purge()
    of.database.execute("DELETE FROM next.t; INSERT INTO next.t VALUES (1, '2024-03-01 08:00+00', 'app')")
    monkeypatch.setattr(restoring, "_insert", exchanged(of.database, restoring._insert))
    with pytest.raises(BusyError, match="its schema was altered"):
        restoring.restore_day(of.site, DAY, of.dataset.table)

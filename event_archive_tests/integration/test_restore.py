"""Rows come back from the files as they were, and nothing that stands is changed."""

import re
import runpy
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import Retention
from event_archive.errors import BusyError, IntegrityError, RefusedError
from event_archive.operations.claim import adopt_source
from event_archive.operations.marker import marker_path, read_claim, write_marker
from event_archive.operations.restore.day import RestoredDay, days_with_file, restore_day
from event_archive.table.holds import hold
from event_archive.table.locks import lock_day
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, T
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.restoring import checksum, restoring
from event_archive_tests.fixtures.statements import OF_EVERY_TYPE, TYPES


def test_archived_purged_and_restored_a_day_equals_the_original(each_pipeline: Pipeline):
    each_pipeline.add(500)
    before = checksum(each_pipeline.database, '"Event"')
    assert each_pipeline.run().deleted == 500
    done = restoring(each_pipeline)()
    assert (done.restored, done.skipped, done.superseded) == (500, 0, 0)
    assert checksum(each_pipeline.database, '"Event_restored"') == before


def test_thirty_types_come_back_as_they_were(each_pipeline: Pipeline):
    database = each_pipeline.database
    database.execute(OF_EVERY_TYPE)
    samples = {
        "words": "E'a,\"b\"\\n\\\\.\\n'", "fixed": "'ab'", "raw": "'\\x00ff'", "exact": "'1.500'", "single": "'-0'",
        "double": "'1e-310'", "flag": "false", "letter": "'x'", "document": "'{\"b\":1, \"a\":2,\"a\":3}'",
        "binary_document": "'[1e400, 1.50, \"\\u00e9\"]'", "moment": "'0044-03-15 BC'", "zoned": "'infinity'",
        "day": "'-infinity'", "clock": "'01:02:03.4+05:30'", "span": "'1 year -2 days 03:04:05.678'",
        "numbers": "'[5:6]={1,NULL}'", "texts": "ARRAY['', NULL, 'NULL', '{\"']", "mood": "''",
        "pair": "'(1,\"a \"\"b\"\"\")'",
        "address": "'10.1.2.3/8'", "network": "'10.0.0.0/8'", "cash": "'-1234.56'", "bits": "B'0101'",
        "numbers_range": "'[1,5)'", "spans": "'{[2020-01-01,2020-02-01)}'", "point": "'(1.1,-0)'",
        "search": "$$'a b':1A$$", "positive": "7",
    }  # fmt: skip
    assert samples.keys() == TYPES.keys()
    for n in range(3):
        values = ", ".join(samples.values() if n else ["NULL"] * len(samples))
        database.execute(
            f"INSERT INTO anything (key, part, at, {', '.join(samples)}) VALUES ('k,{n}', {n}, '{DAY}', {values})"
        )
    before = checksum(database, "anything", "part")
    of = each_pipeline.of(table=TableName("public", "anything"), time_column="at")
    assert of.run().deleted == 3
    assert restoring(of)(in_place=True).restored == 3
    assert checksum(database, "anything", "part") == before
    restoring(of)("copy")
    assert checksum(database, "copy", "part") == before


def test_a_second_restore_adds_nothing(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(5)
    pipeline.run()
    restore()
    again = restore()
    assert (again.restored, again.skipped) == (0, 5)


def test_of_a_key_with_several_versions_the_last_is_restored(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(3)
    pipeline.archive()
    for event_type in ("B", "C"):
        pipeline.database.execute('UPDATE "Event" SET event_type = %s WHERE id = 2', event_type)
        pipeline.archive()
    pipeline.purge()
    done = restore()
    assert (done.restored, done.superseded) == (3, 2)
    assert pipeline.database.execute('SELECT event_type FROM "Event_restored" WHERE id = 2') == [("C",)]


def test_several_days_share_one_table(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    days = [date(2024, 3, n) for n in (1, 2, 4)]
    for day in days:
        pipeline.add(2, day=day)
        pipeline.run(day)
    found = days_with_file(pipeline.dataset, pipeline.lake, date(2024, 3, 1), date(2024, 3, 31))
    assert found == days
    assert sum(restore(day=day).restored for day in found) == 6


def test_rows_do_not_get_another_time_where_the_time_column_was_renamed(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" RENAME created_at TO made_at')
    for time_column in ("created_at", "made_at"):
        with pytest.raises(RefusedError, match="has no column created_at any more, which says when each row was"):
            restore_day(pipeline.of(time_column=time_column).site, DAY, pipeline.dataset.table)
    assert pipeline.count() == 0


def test_nor_do_those_that_were_archived_by_a_column_that_was_renamed_before_others_came(pipeline: Pipeline):
    pipeline.database.execute('ALTER TABLE "Event" ALTER created_at DROP NOT NULL')
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" RENAME created_at TO made_at')
    of = pipeline.of(time_column="made_at")
    adopt_source(of.site)
    late = f"INSERT INTO \"Event\" VALUES (99, 'late', 'x', '{DAY} 05:00', NULL, '{{}}')"
    of.database.execute(late)
    assert of.run().deleted == 1
    with pytest.raises(RefusedError, match="2 rows of it have no made_at, by which .* Nothing was restored"):
        restoring(of)(in_place=True)
    assert of.count() == 0
    assert restoring(of)().restored == 3


def test_nor_do_rows_go_back_as_those_of_another_day_since_another_column_says_of_which_they_are(pipeline: Pipeline):
    """There a former form would become the last one, and a hold of the file's day would not hold them."""
    database = pipeline.database
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, created timestamp, processed timestamp, v text);"
        "INSERT INTO t SELECT n, '2024-03-01 10:00', '2024-03-05 10:00', 'former' FROM generate_series(1, 2) AS n"
    )
    by_created = pipeline.of(table=T, time_column="created", file_prefix="t")
    by_created.archive()
    database.execute("UPDATE t SET v = 'last' WHERE id = 1")
    by_processed = pipeline.of(table=T, time_column="processed", file_prefix="t")
    adopt_source(by_processed.site)
    assert by_processed.run(date(2024, 3, 5)).deleted == 2
    with pytest.raises(RefusedError, match="2 rows of it are not of 2024-03-01 by processed. .* --table NAME"):
        restoring(by_processed)(in_place=True)
    assert restoring(by_processed)("mine").restored == 2
    assert restoring(by_processed)(in_place=True, day=date(2024, 3, 5)).restored == 2
    assert database.execute("SELECT v FROM t ORDER BY id") == [("last",), ("former",)]


def test_a_row_that_stands_is_never_changed(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(4)
    pipeline.run()
    restore()
    pipeline.database.execute(
        'UPDATE "Event_restored" SET event_type = \'mine\' WHERE id = 2; DELETE FROM "Event_restored" WHERE id = 4'
    )
    before = checksum(pipeline.database, '"Event_restored"')
    with pytest.raises(IntegrityError, match=r"1 row with other values stands .* under a key \(id\)"):
        restore()
    assert checksum(pipeline.database, '"Event_restored"') == before


def test_a_row_that_was_changed_since_is_kept_by_what_a_refused_restore_advises(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(4)
    pipeline.run()
    hold(pipeline.dataset, DAY, DAY, "a correction", pipeline.postgres)
    restore(in_place=True)
    pipeline.database.execute(
        'UPDATE "Event" SET event_type = \'corrected\' WHERE id = 2; DELETE FROM "Event" WHERE id = 4'
    )
    with pytest.raises(
        IntegrityError, match="archive the day again, which keeps its new form: event-archive run 2024-03-01"
    ) as refused:
        restore(in_place=True)
    assert "remove" not in str(refused.value)
    pipeline.run()
    done = restore(in_place=True)
    assert (done.restored, done.skipped, done.superseded) == (1, 3, 1)
    assert pipeline.count("event_type = 'corrected'") == 1


def test_nobody_is_told_to_archive_a_day_again_that_is_not_aged(pipeline: Pipeline):
    pipeline.add(4)
    pipeline.run()
    younger = restoring(pipeline.of(retention=Retention.parse("30 years")))
    younger(in_place=True)
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'corrected' WHERE id = 2")
    with pytest.raises(IntegrityError, match="1 row with other values stands") as refused:
        younger(in_place=True)
    assert "event-archive run" not in str(refused.value)


def test_in_place_says_that_the_night_purges_again(
    pipeline: Pipeline, restore: Callable[..., RestoredDay], caplog: pytest.LogCaptureFixture
):
    pipeline.add(4)
    before = checksum(pipeline.database, '"Event"')
    pipeline.run()
    assert restore(in_place=True).restored == 4
    assert checksum(pipeline.database, '"Event"') == before
    assert "These rows are aged, and will be purged again unless the day is held" in caplog.text
    assert pipeline.run().deleted == 4
    # Of a day that is not aged any more, no night does.
    caplog.clear()
    retention = Retention.parse("30 years")
    restoring(pipeline.of(retention=retention))(in_place=True)
    assert "will be purged again" not in caplog.text


@pytest.mark.parametrize("case", ["another's", "another's by their manifests", "a later timeline's"])
def test_in_place_says_nothing_of_the_nights_of_a_database_that_does_not_own_the_files(
    pipeline: Pipeline, stranger: Pipeline, caplog: pytest.LogCaptureFixture, case: str
):
    pipeline.add(4)
    pipeline.run()
    path = marker_path(pipeline.dataset)
    if case == "another's by their manifests":
        Path(pipeline.lake.url(path).removeprefix("file://")).unlink()
    if case == "a later timeline's":
        marker, claimed = pipeline.lake.stat(path), read_claim(pipeline.dataset, pipeline.lake)
        assert claimed
        write_marker(pipeline.dataset, pipeline.lake, replace(claimed, timeline=claimed.timeline + 1), replaces=marker)
    there = pipeline if case == "a later timeline's" else stranger
    assert restoring(there)(in_place=True).restored == 4
    assert "will be purged again" not in caplog.text


def test_generated_and_identity_columns_are_restored_in_place(pipeline: Pipeline):
    pipeline.database.execute(
        """CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at date, n int,
        twice int GENERATED ALWAYS AS (n * 2) STORED);
        INSERT INTO t (at, n) SELECT '2024-03-01', n FROM generate_series(1, 3) AS n"""
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    before = checksum(pipeline.database, "t")
    of.run()
    restoring(of)(in_place=True)
    assert checksum(pipeline.database, "t") == before


def test_a_file_that_contradicts_its_manifest_is_not_restored(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(2)
    archived = pipeline.archive()
    file = pipeline.lake.stat(archived.path)
    assert file is not None
    pipeline.put(pipeline.content().replace(b"evt", b"EVT", 1), metadata=dict(file.metadata))
    with pytest.raises(IntegrityError, match="its manifest says sha256"):
        restore()
    with pytest.raises(psycopg.errors.UndefinedTable):
        pipeline.database.execute('SELECT FROM "Event_restored"')


PAGE = (Path(__file__).parents[2] / "docs/files.md").read_text()


def test_the_documented_ways_to_read_a_file_work(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pipeline.add(3)
    pipeline.database.execute(
        """ALTER TABLE "Event" ALTER payload DROP NOT NULL; UPDATE "Event" SET payload = NULL WHERE id = 1;
        UPDATE "Event" SET payload = to_jsonb(repeat('x', 200000)) WHERE id = 2"""
    )
    before = checksum(pipeline.database, '"Event"')
    pipeline.run()
    (tmp_path / "events_2024-03-01.csv").write_bytes(pipeline.content())
    (tmp_path / "sample.py").write_text(PAGE.split("```python\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    last = runpy.run_path("sample.py")
    assert last["payload"]["n"] == 2
    (copy,) = re.findall(r"^\\(copy .*)$", PAGE, re.MULTILINE)
    load = copy.replace("'events_2024-03-01.csv'", "STDIN")
    _copy(pipeline.database, load, pipeline.content())
    assert checksum(pipeline.database, '"Event"') == before
    pipeline.database.execute('DELETE FROM "Event"')
    other = pipeline.content().replace(b"event_type", b"event_kind", 1)
    with pytest.raises(psycopg.errors.BadCopyFileFormat):
        _copy(pipeline.database, load, other)


def _copy(database: Database, statement: str, content: bytes) -> None:
    with (
        psycopg.connect(database.dsn) as connection,
        connection.cursor() as cursor,
        cursor.copy(statement.encode()) as rows,
    ):
        rows.write(content)


def test_a_day_without_a_file_is_refused(restore: Callable[..., RestoredDay]):
    with pytest.raises(
        RefusedError, match=r"//.*/events_\d{4}-\d\d-\d\d\.csv: there is no file, so there is nothing to restore"
    ):
        restore()


def test_a_restore_waits_for_the_purge_of_its_day(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(2)
    pipeline.archive()
    with pipeline.postgres.transaction("a purge") as connection:
        assert lock_day(connection, pipeline.dataset, DAY)
        words = "another command has been working on 2024-03-01 .*Nothing was restored: restore the day again"
        with pytest.raises(BusyError, match=words):
            restore()

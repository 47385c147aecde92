"""What adopt makes of a file, and what it refuses."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.manifest import Manifest
from event_archive.errors import FileChangedError, IntegrityError, RefusedError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.adopt import adopt_day
from event_archive.operations.claim import adopt_source
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_table
from event_archive_tests.fixtures.restoring import ANOTHER, WIDENED, manifest_of, restoring
from event_archive_tests.fixtures.verifying import damaged, verified


def test_a_contradicting_file_is_adopted_as_it_stands(ten_rows: Pipeline):
    damaged(ten_rows, lambda lines: lines[:-1])
    content = ten_rows.content()
    with pytest.raises(IntegrityError, match="event-archive adopt 2024-03-01'"):
        ten_rows.archive()
    manifest = adopt_day(ten_rows.site, DAY)
    assert manifest.rows == 9
    assert ten_rows.content() == content
    assert verified(ten_rows).problems == ()
    ten_rows.add(2, prefix="late")
    assert ten_rows.run().deleted == 2
    assert len(ten_rows.records_of_file()) == 11


def test_what_was_adopted_is_not_purged_by_before_it_was_archived_again(ten_rows: Pipeline):
    ten_rows.add(1, prefix="late")
    ten_rows.archive()
    damaged(ten_rows, lambda lines: [*lines, lines[-1]] if False else lines)
    adopt_day(ten_rows.site, DAY)
    with pytest.raises(IntegrityError, match="Archive the day again"):
        ten_rows.purge()
    assert ten_rows.run().deleted == 1


def test_an_adopted_file_names_the_former_keys_and_the_present_one(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.archive()
    content = pipeline.content()
    pipeline.put(content)
    assert adopt_day(pipeline.site, DAY).keys == (("id",),)
    pipeline.database.execute('ALTER TABLE "Event" DROP CONSTRAINT "Event_event_id_key", DROP CONSTRAINT "Event_pkey"')
    pipeline.database.execute('ALTER TABLE "Event" ADD PRIMARY KEY (id, created_at)')
    manifest = adopt_day(pipeline.site, DAY)
    assert manifest.keys == (("id",), ("id", "created_at"))
    pipeline.put(content, metadata=replace(manifest, keys=()).to_metadata())
    assert adopt_day(pipeline.site, DAY).keys == ()


def test_an_adopted_file_keeps_the_recorded_types_where_its_bytes_are_those_that_were_recorded(ten_rows: Pipeline):
    ten_rows.archive()
    file = ten_rows.lake.stat(ten_rows.dataset.path(DAY))
    before = file and Manifest.from_file(file)
    assert before
    assert before.types
    assert adopt_day(ten_rows.site, DAY) == before
    ten_rows.put(ten_rows.content().replace(b",t,", b",u,"), metadata=before.to_metadata())
    assert adopt_day(ten_rows.site, DAY).types == ""


@pytest.mark.parametrize("in_steps", [False, True])
def test_what_somebody_wrote_into_a_file_for_a_widened_key_tells_rows_apart(pipeline: Pipeline, in_steps: bool):
    """As the message says that ends the night of a row which may be another one; as of a table of many tenants."""
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'last' WHERE id = 2")
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" ADD tenant int')
    if in_steps:
        pipeline.add(1, prefix="late")
        pipeline.run()
    pipeline.database.execute(WIDENED.replace("ADD PRIMARY KEY (id", "ADD PRIMARY KEY (tenant, id"))
    pipeline.database.execute(ANOTHER, 7)
    with pytest.raises(IntegrityError, match="write the key's values .* adopt 2024-03-01 --present-key"):
        pipeline.archive()
    header, *rows = pipeline.content().splitlines()
    behind, value = (b"", b"0") if in_steps else (b",tenant", b",0")
    written = b"\n".join([header + behind, *(row + value for row in rows), b""])
    pipeline.put(written, metadata=manifest_of(pipeline).to_metadata())
    assert adopt_day(pipeline.site, DAY, present_key=True).keys == (("tenant", "id", "created_at"),)
    assert pipeline.run().deleted == 1
    done = restoring(pipeline)()
    assert (done.restored, done.superseded) == (3 + in_steps, 1)


def test_a_file_is_not_adopted_by_a_present_key_that_takes_its_rows_for_one(pipeline: Pipeline):
    pipeline.database.execute(WIDENED)
    pipeline.add(2)
    pipeline.database.execute('UPDATE "Event" SET id = 1')
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey", ADD PRIMARY KEY (id)')
    with pytest.raises(
        IntegrityError, match=r"by the present key, \(id\), later rows replace 1 row of it, by \(id, created_at\)"
    ):
        adopt_day(pipeline.site, DAY, present_key=True)


def test_a_key_that_was_written_beside_the_renamed_one_and_takes_rows_for_one_is_found_out(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
):
    """A header with so much changed has no former hash; without its manifest, nobody can but say what comes of it."""
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at date, v int)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}', 1), (2, '{DAY}', 2)")
    of.run()
    of.database.execute(
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD uid text PRIMARY KEY; ALTER TABLE t RENAME id TO old"
    )
    of.put(f"old,at,v,uid\n1,{DAY},1,u\n2,{DAY},2,u\n".encode(), metadata=manifest_of(of).to_metadata())
    with pytest.raises(
        IntegrityError, match=r"by the present key, \(uid\), later rows replace 1 row of it, by \(old\)"
    ):
        adopt_day(of.site, DAY, present_key=True)
    of.put(of.content())
    adopt_day(of.site, DAY, present_key=True)
    assert "by (uid), later rows replace 1 row of it, which no restore brings back" in caplog.text


def test_a_file_whose_keys_disagree_is_adopted_by_the_present_key_alone(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
):
    """As the message of its restore says, for those who know that this key tells its rows apart."""
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute(WIDENED)
    pipeline.add(1)
    pipeline.database.execute("UPDATE \"Event\" SET id = 1, created_at = created_at + interval '1 hour'")
    pipeline.run()
    with pytest.raises(IntegrityError, match="by that alone: .* adopt 2024-03-01 --present-key. Else load"):
        restoring(pipeline)()
    assert adopt_day(pipeline.site, DAY, present_key=True).keys == (("id", "created_at"),)
    said = "by (id) and (id, created_at), later rows replace 1 row of it, which a restore now brings back beside them"
    assert said in caplog.text
    done = restoring(pipeline)()
    assert (done.restored, done.superseded) == (3, 0)


def test_an_adopted_file_whose_key_was_renamed_warns_of_nothing(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" RENAME id TO number')
    pipeline.put(pipeline.content().replace(b"id,", b"number,", 1), metadata=manifest_of(pipeline).to_metadata())
    assert adopt_day(pipeline.site, DAY).keys == (("number",),)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_an_adopted_file_with_rows_without_a_key_is_warned_of(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    pipeline.add(1)
    pipeline.archive()
    pipeline.put(pipeline.content().replace(b"\n1,", b"\n,", 1), metadata=manifest_of(pipeline).to_metadata())
    with pytest.raises(
        IntegrityError, match=r"lacks a value of the key, \(id\)\. It cannot be adopted by that key alone"
    ):
        adopt_day(pipeline.site, DAY, present_key=True)
    adopt_day(pipeline.site, DAY)
    assert "1 row of it lacks a value of the key, (id): no row of the table is compared with those" in caplog.text


def test_an_adopted_file_whose_server_and_time_column_changed_is_still_this_tables(pipeline: Pipeline):
    """Of a column that it has not had since the server changed, nobody has accepted that it says the times."""
    pipeline.add(1)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" RENAME created_at TO at')
    renamed = pipeline.of(time_column="at")
    adopt_source(renamed.site)
    pipeline.database.execute('ALTER TABLE "Event" RENAME TO "Moved"')
    moved = renamed.of(table=TableName("public", "Moved"))
    adopt_source(moved.site)
    adopt_day(moved.site, DAY)
    assert adopt_day(moved.site, DAY).rows == 1
    assert moved.archive().rows == 1


@pytest.mark.parametrize("once_more", [False, True])
def test_an_adopted_file_keeps_a_former_key_under_the_new_name_of_its_column(pipeline: Pipeline, once_more: bool):
    """Widened and renamed, the key would tell forms of one row apart, and a restore bring back both."""
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute("UPDATE \"Event\" SET created_at = created_at + interval '1 hour' WHERE id = 2")
    pipeline.run()
    pipeline.database.execute(WIDENED)
    if once_more:
        pipeline.add(1, prefix="late")
        pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" RENAME id TO number')
    renamed = pipeline.content().replace(b"id,", b"number,", 1)
    pipeline.put(renamed, metadata=manifest_of(pipeline).to_metadata())
    assert adopt_day(pipeline.site, DAY).keys == (("number",), ("number", "created_at"))
    with pytest.raises(IntegrityError, match="nobody can tell|1 row of it .* beside a later form"):
        restoring(pipeline)()


def test_a_file_that_lost_the_former_keys_column_is_adopted_by_the_present_key_alone(pipeline: Pipeline):
    pipeline.add(2)
    manifest = pipeline.archive().manifest
    assert manifest is not None
    pipeline.database.execute('ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey"')
    pipeline.put(b"event_id,created_at\na,2024-03-01\n", metadata=manifest.to_metadata())
    with pytest.raises(IntegrityError, match=r"under \(id\), and nobody can tell which .* 2024-03-01 --present-key"):
        adopt_day(pipeline.site, DAY)
    assert adopt_day(pipeline.site, DAY, present_key=True).keys == (("event_id",),)


def test_a_file_that_is_written_while_it_is_adopted_stays_as_it_was_written(
    ten_rows_locally: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    newer = ten_rows_locally.content() + ten_rows_locally.content().splitlines(keepends=True)[-1]
    original, times = type(ten_rows_locally.lake).read, itertools.count(1)

    @contextmanager
    def read(lake: Lake, file: StoredFile) -> Iterator[Iterator[bytes]]:
        with original(lake, file) as blocks:
            # The first time it is read into PostgreSQL.
            if file.path.endswith(".csv") and next(times) == 2:
                ten_rows_locally.put(newer)
            yield blocks

    monkeypatch.setattr(type(ten_rows_locally.lake), "read", read)
    with pytest.raises(FileChangedError):
        adopt_day(ten_rows_locally.site, DAY)
    monkeypatch.undo()
    assert ten_rows_locally.content() == newer


def test_a_file_without_the_key_is_not_adopted(ten_rows: Pipeline):
    ten_rows.put(b"event_id,created_at\na,2024-03-01 00:00:00\n")
    with pytest.raises(IntegrityError, match="its header lacks the key: id. It cannot be adopted"):
        adopt_day(ten_rows.site, DAY)


def test_there_must_be_a_file_to_adopt(pipeline: Pipeline):
    with pytest.raises(RefusedError, match="no file to adopt"):
        adopt_day(pipeline.site, DAY)


def test_what_is_no_csv_is_not_adopted(pipeline: Pipeline):
    pipeline.put(b'id,"x\n1,2\n')
    with pytest.raises(IntegrityError, match="not the header.*It cannot be adopted") as refused:
        adopt_day(pipeline.site, DAY)
    assert "event-archive adopt" not in str(refused.value)


def test_another_tools_file_without_the_key_is_not_told_to_be_adopted(pipeline: Pipeline):
    pipeline.put(b"event_id,created_at\na,2024-03-01\n")
    with pytest.raises(IntegrityError, match="lacks the key: id.*move it elsewhere") as refused:
        pipeline.archive()
    assert "event-archive adopt" not in str(refused.value)


def test_a_file_of_a_newer_program_is_not_adopted(pipeline: Pipeline):
    pipeline.add(2)
    metadata = {"event_archive_version": "2", "event_archive_rows": "2", "event_archive_bytes": "1"}
    pipeline.archive()
    file = pipeline.lake.stat(pipeline.dataset.path(DAY))
    assert file is not None
    pipeline.put(pipeline.content(), metadata=dict(file.metadata) | metadata)
    with pytest.raises(IntegrityError, match=r"version 2.*update this one"):
        adopt_day(pipeline.site, DAY)


@pytest.mark.parametrize("content", [b"", b"id,id\n1,1\n", b"id\n1,2\n", b"\x00\n"])
def test_nobody_is_sent_to_adopt_what_cannot_be_adopted(pipeline: Pipeline, content: bytes):
    pipeline.add(1)
    pipeline.put(content)
    with pytest.raises(IntegrityError) as refused:
        pipeline.archive()
    assert "adopt" not in str(refused.value)
    assert str(refused.value).endswith("Put the right file back, or move this one elsewhere.")


def test_a_file_that_reads_otherwise_the_second_time_is_not_written_over(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """A proxy or a memory may have changed what came."""
    pipeline.add(3)
    pipeline.run()
    good, original, times = pipeline.content(), type(pipeline.lake).read, 0

    @contextmanager
    def read(lake: Lake, file: StoredFile) -> Iterator[Iterator[bytes]]:
        nonlocal times
        times += file.path.endswith(".csv")
        with original(lake, file) as blocks:
            yield (block.replace(b"evt", b"ewt") for block in blocks) if times == 2 else blocks

    with monkeypatch.context() as patched:
        patched.setattr(type(pipeline.lake), "read", read)
        with pytest.raises(IntegrityError, match="it changed between two readings"):
            adopt_day(pipeline.site, DAY)
    assert pipeline.content() == good
    assert adopt_day(pipeline.site, DAY).rows == 3

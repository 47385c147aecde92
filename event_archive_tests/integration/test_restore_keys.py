"""Which rows of a file are one: by the keys under which they were archived, the source's, and the target's."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.manifest import Manifest
from event_archive.errors import IntegrityError
from event_archive.lake.protocol import Lake
from event_archive.operations import archive as archiving
from event_archive.operations.adopt import adopt_day
from event_archive.operations.restore.day import RestoredDay, restore_day
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_table, rows_of
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.restoring import COARSE, WIDENED, manifest_of, restoring


def test_a_table_keyed_by_another_unique_column_is_filled(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 2")
    pipeline.run()
    pipeline.database.execute(
        'CREATE TABLE mine AS TABLE "Event" WITH NO DATA; ALTER TABLE mine ADD PRIMARY KEY (event_id)'
    )
    done = restore("mine")
    assert (done.restored, done.superseded) == (3, 1)


def test_a_row_that_shares_a_part_of_its_key_with_one_that_stands_is_restored(pipeline: Pipeline):
    pipeline.database.execute(
        """CREATE TABLE t (a int, b int, at date, PRIMARY KEY (a, b));
        INSERT INTO t VALUES (1, 1, '2024-03-01'), (1, 2, '2024-03-01'), (2, 2, '2024-03-01')"""
    )
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    of.archive()
    of.database.execute("DELETE FROM t WHERE b = 2")
    restored = restore_day(of.site, DAY, of.dataset.table)
    assert (restored.restored, restored.skipped) == (2, 1)


def test_a_key_that_tells_forms_of_one_row_apart_brings_none_back(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event" INCLUDING DEFAULTS, PRIMARY KEY (id, created_at))')
    pipeline.database.execute("CREATE TABLE other (LIKE mine INCLUDING ALL)")
    pipeline.database.execute("UPDATE \"Event\" SET created_at = created_at + interval '1 hour' WHERE id = 2")
    restored = restore("mine").restored
    pipeline.run()
    with pytest.raises(IntegrityError, match=r"1 row of it .* beside a later form, whose key is \(id, created_at\)"):
        restore("other")
    assert (restored, pipeline.database.execute("SELECT count(*) FROM other")) == (3, [(0,)])


MOVED = "UPDATE \"Event\" SET created_at = created_at + interval '1 hour' WHERE id = 2"


def test_rows_of_a_finer_key_are_not_merged_where_the_source_is_gone(pipeline: Pipeline):
    database = pipeline.database
    database.execute("CREATE TABLE n (id int, region text, at timestamp, PRIMARY KEY (id, region))")
    database.execute("INSERT INTO n VALUES (1, 'a', '2024-03-01'), (1, 'b', '2024-03-01')")
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    assert of.run().deleted == 2
    database.execute("DROP TABLE n; CREATE TABLE coarse (id int PRIMARY KEY, region text, at timestamp)")
    database.execute("CREATE TABLE fine (id int, region text, at timestamp, PRIMARY KEY (region, id))")
    with pytest.raises(
        IntegrityError,
        match=r"1 row .* lost in public.coarse, whose key is \(id\): its rows are told apart by \(id, region\)",
    ):
        restoring(of)("coarse")
    assert database.execute("SELECT FROM coarse") == []
    assert restoring(of)("fine").restored == 2


def test_a_form_that_another_row_of_the_targets_key_replaces_is_not_taken_for_the_former_one(pipeline: Pipeline):
    pipeline.database.execute("CREATE TABLE t (a int PRIMARY KEY, b int, at timestamp)")
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    for change in (
        "INSERT INTO t VALUES (1, 10, '2024-03-01')",
        "UPDATE t SET b = 20",
        "DELETE FROM t; INSERT INTO t VALUES (2, 20, '2024-03-01')",
    ):
        pipeline.database.execute(change)
        of.archive()
    pipeline.database.execute("CREATE TABLE mine (a int, b int PRIMARY KEY, at timestamp)")
    with pytest.raises(IntegrityError, match=r"1 row of it would be lost in public\.mine, whose key is \(b\)"):
        restoring(of)("mine")


def test_a_day_is_not_restored_in_place_under_another_key_until_a_person_says_so(pipeline: Pipeline):
    """Its rows may stand there: they would be doubled."""
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, uid int UNIQUE, at date)")
    of.database.execute(f"INSERT INTO t VALUES (1, 1, '{DAY}'), (2, 2, '{DAY}')")
    of.archive()
    of.database.execute(
        """ALTER TABLE t DROP CONSTRAINT t_pkey, DROP CONSTRAINT t_uid_key; UPDATE t SET uid = uid + 100;
        ALTER TABLE t ADD PRIMARY KEY (uid)"""
    )
    with pytest.raises(IntegrityError, match=r"under \(id\), and the key of public\.t is now \(uid\)\. Its rows may"):
        restoring(of)(in_place=True)
    assert rows_of(of, "t") == 2
    adopt_day(of.site, DAY, present_key=True)
    assert restoring(of)(in_place=True).restored == 2


def test_a_key_that_was_widened_brings_no_former_form_back(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute(MOVED)
    assert pipeline.run().deleted == 3
    pipeline.database.execute(WIDENED)
    with pytest.raises(
        IntegrityError,
        match=r"1 row of it .* beside a later form, whose key is \(id, created_at\): .* replaces it by \(id\)\.",
    ):
        restore(in_place=True)
    assert pipeline.count() == 0
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id))')
    done = restore("mine")
    assert (done.restored, done.superseded) == (3, 1)


def test_rows_of_two_keys_come_back_where_both_keep_the_same(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute(WIDENED)
    pipeline.add(1, prefix="late")
    pipeline.run()
    assert manifest_of(pipeline).keys == (("id",), ("id", "created_at"))
    assert restore(in_place=True).restored == 3
    pipeline.database.execute(MOVED)
    pipeline.run()
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id))')
    for name in ("mine", None):
        with pytest.raises(IntegrityError, match="load it into a table without a key"):
            restore(name)


def test_rows_that_have_no_value_of_a_later_key_replace_none_by_it(
    pipeline: Pipeline, restore: Callable[..., RestoredDay], monkeypatch: pytest.MonkeyPatch
):
    """Of a file that a former version appended to."""
    monkeypatch.setattr(archiving, "require_known_key", lambda *_: None)
    monkeypatch.setattr(Manifest, "takes_key", lambda *_: True)
    pipeline.add(3)
    pipeline.run()
    pipeline.database.execute(
        """ALTER TABLE "Event" DROP CONSTRAINT "Event_event_id_key", DROP CONSTRAINT "Event_pkey",
        ADD code int DEFAULT 7, ADD PRIMARY KEY (code)"""
    )
    pipeline.add(1, prefix="late")
    pipeline.run()
    assert manifest_of(pipeline).keys == (("id",), ("code",))
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id))')
    pipeline.database.execute("ALTER TABLE mine ALTER code DROP NOT NULL")
    pipeline.database.execute("INSERT INTO mine VALUES (9, 'another', 't', '2024-03-02', NULL, '{}')")
    assert restore("mine").restored == 4


SEQUENCED = """ALTER TABLE "Event" DROP CONSTRAINT "Event_event_id_key", DROP CONSTRAINT "Event_pkey",
ADD seq int NOT NULL DEFAULT 1, ADD PRIMARY KEY (id, seq)"""


def test_a_row_that_got_a_key_of_a_new_column_before_it_was_purged_may_be_a_second_one(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    """The very rows that the key was widened for are alike but for its new column. Former versions wrote such files."""
    pipeline.add(1)
    pipeline.archive()
    pipeline.database.execute(SEQUENCED)
    header, row, _ = pipeline.content().split(b"\n")
    pipeline.put(b"%b,seq\n%b,\n%b,1\n" % (header, row, row))
    adopt_day(pipeline.site, DAY)
    keys = (("id",), ("id", "seq"))
    pipeline.put(pipeline.content(), metadata=replace(manifest_of(pipeline), keys=keys).to_metadata())
    assert pipeline.run().deleted == 1
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id))')
    pipeline.database.execute("ALTER TABLE mine ALTER seq DROP NOT NULL")
    with pytest.raises(IntegrityError, match="nobody can tell"):
        restore("mine")


def test_a_night_warns_of_a_row_that_may_be_another_form_by_a_former_key(
    pipeline: Pipeline, restore: Callable[..., RestoredDay], caplog: pytest.LogCaptureFixture
):
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute(WIDENED)
    pipeline.add(1, prefix="late")
    pipeline.archive()
    assert "to append" not in caplog.text
    pipeline.database.execute(MOVED)
    pipeline.run()
    assert "1 row to append has the former key, (id), of one in it, and another (id, created_at)" in caplog.text
    with pytest.raises(IntegrityError, match="nobody can tell"):
        restore()


def test_a_row_that_went_back_before_the_key_was_widened_is_not_restored_as_it_was_between(
    database: Database, lake: Lake
):
    pipeline = Pipeline(database, lake)
    pipeline.add(3)
    pipeline.archive()
    database.execute(MOVED)
    pipeline.archive()
    content = pipeline.content()
    database.execute(MOVED.replace("+", "-"))
    database.execute(WIDENED)
    # The wider key finds the row in the file, where by the former one another form is the last.
    with pytest.raises(IntegrityError, match=r"key is \(id, created_at\), .* under \(id\)\. Nothing was deleted"):
        pipeline.purge()
    assert pipeline.run().deleted == 3
    assert pipeline.content() == content
    assert manifest_of(pipeline).keys == (("id",), ("id", "created_at"))
    etag = pipeline.records[DAY].etag
    database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id))')
    for name in ("mine", None):
        with pytest.raises(IntegrityError, match="nobody can tell"):
            restoring(pipeline)(name)
    assert pipeline.archive().etag == etag


def test_a_row_that_may_stand_under_a_former_key_is_not_restored_beside_itself(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    """Its column that the key got was changed while its day was held: in place, that is a row of another key."""
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute('DELETE FROM "Event" WHERE id = 1')
    pipeline.database.execute(WIDENED)
    pipeline.database.execute(MOVED)
    with pytest.raises(
        IntegrityError, match=r"1 row of it has the \(id\) of a row in .* but another \(id, created_at\)"
    ):
        restore(in_place=True)
    assert pipeline.count() == 2
    adopt_day(pipeline.site, DAY, present_key=True)
    assert restore(in_place=True).restored == 2


def test_a_row_that_moved_to_another_day_is_not_restored_twice_under_a_wider_key(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    later = DAY + timedelta(days=1)
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute(MOVED.replace("1 hour", "1 day"))
    assert (pipeline.run().deleted, pipeline.run(later).deleted) == (2, 1)
    pipeline.database.execute(WIDENED)
    assert restore(day=later).restored == 1
    with pytest.raises(IntegrityError, match=r"1 row of it has the \(id\) of a row in"):
        restore()


def test_a_file_from_before_goes_by_the_key_of_the_source(pipeline: Pipeline, restore: Callable[..., RestoredDay]):
    pipeline.add(3)
    pipeline.archive()
    pipeline.put(pipeline.content(), metadata=replace(manifest_of(pipeline), keys=()).to_metadata())
    pipeline.database.execute(MOVED)
    pipeline.run()
    assert manifest_of(pipeline).keys == ()
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id, created_at))')
    with pytest.raises(IntegrityError, match=r"replaces it by \(id\), the present key of public.\"Event\"\."):
        restore("mine")
    pipeline.database.execute(WIDENED)
    assert restore("mine").restored == 4


def test_a_file_from_before_whose_source_is_gone_goes_by_the_key_of_the_target(
    pipeline: Pipeline, restore: Callable[..., RestoredDay]
):
    pipeline.add(3)
    pipeline.archive()
    pipeline.put(pipeline.content(), metadata=replace(manifest_of(pipeline), keys=()).to_metadata())
    pipeline.database.execute('CREATE TABLE mine (LIKE "Event", PRIMARY KEY (id)); DROP TABLE "Event"')
    assert restore("mine").restored == 3


def test_of_a_file_from_before_the_part_of_the_key_that_it_holds_counts(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.run()
    pipeline.put(pipeline.content(), metadata=replace(manifest_of(pipeline), keys=()).to_metadata())
    pipeline.database.execute(COARSE)
    pipeline.database.execute(WIDENED.replace("ADD PRIMARY KEY (id,", "ADD tenant int, ADD PRIMARY KEY (id, tenant,"))
    with pytest.raises(IntegrityError, match=r"1 row of it would be lost .* told apart by \(id, created_at\)"):
        restoring(pipeline)("mine")
    # Rows that agree in a part of a key are no forms of one row.
    pipeline.database.execute('ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey", ADD PRIMARY KEY (event_type, tenant)')
    pipeline.database.execute('CREATE TABLE whole (LIKE "Event" INCLUDING DEFAULTS, PRIMARY KEY (id))')
    pipeline.database.execute("ALTER TABLE whole ALTER tenant DROP NOT NULL")
    assert restoring(pipeline)("whole").restored == 3

"""Files whose rows lack the table's key, since that got a column or another name: no row becomes a second one."""

from typing import Any

import pytest

from event_archive.errors import IntegrityError
from event_archive.operations import writing
from event_archive.operations.adopt import adopt_day
from event_archive.operations.verbatim import load_verbatim
from event_archive_tests.fixtures.lakes import remove
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_table, rows_of
from event_archive_tests.fixtures.restoring import ANOTHER, restoring


def test_a_file_gets_no_row_by_a_key_whose_column_was_renamed_until_its_header_says_so(pipeline: Pipeline):
    """Each row would stand in it twice, once under either name, and no restore would take the day any more."""
    pipeline.add(3)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" RENAME id TO number')
    pipeline.add(1, prefix="late")
    before = pipeline.content()
    with pytest.raises(IntegrityError, match=r"lacks number, .* archived under \(id\), .* adopt 2024-03-01"):
        pipeline.archive()
    assert (pipeline.content(), pipeline.count()) == (before, 1)
    pipeline.put(before.replace(b"id,", b"number,", 1))
    adopt_day(pipeline.site, DAY)
    assert pipeline.run().deleted == 1
    assert restoring(pipeline)().restored == 4


WIDENED = """ALTER TABLE "Event" DROP CONSTRAINT "Event_event_id_key", DROP CONSTRAINT "Event_pkey",
ADD tenant int NOT NULL DEFAULT 1, ADD PRIMARY KEY (tenant, id)"""


def test_where_the_key_got_a_column_rows_of_a_days_file_are_not_appended_once_more(each_pipeline: Pipeline):
    """Moved away, the file that holds but rows of the table is written anew."""
    each_pipeline.add(3)
    each_pipeline.archive()
    before = each_pipeline.content()
    each_pipeline.database.execute(WIDENED)
    with pytest.raises(IntegrityError, match=r"key of .* \(tenant, id\), .* have their \(id\)\. .* move the file"):
        each_pipeline.archive()
    assert (each_pipeline.content(), each_pipeline.count()) == (before, 3)
    remove(each_pipeline.lake, each_pipeline.dataset.path(DAY))
    assert each_pipeline.run().deleted == 3
    assert restoring(each_pipeline)().restored == 3


def test_where_the_key_got_a_column_nobody_waits_while_the_file_is_read_once_more(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(3)
    pipeline.run()
    pipeline.database.execute(WIDENED)
    pipeline.add(1, prefix="late")
    locks = "SELECT mode FROM pg_locks WHERE relation = '\"Event\"'::regclass"
    locked: list[list[tuple[object, ...]]] = []

    def look_and_read(*arguments: Any) -> None:
        locked.append(pipeline.database.execute(locks))
        load_verbatim(*arguments)

    monkeypatch.setattr(writing, "load_verbatim", look_and_read)
    assert pipeline.run().deleted == 1
    assert locked == [[]]


def test_where_the_key_got_a_column_rows_that_no_file_holds_are_archived(each_pipeline: Pipeline):
    each_pipeline.add(3)
    each_pipeline.run()
    each_pipeline.database.execute(WIDENED)
    each_pipeline.add(1, prefix="late")
    assert each_pipeline.run().deleted == 1
    each_pipeline.database.execute(ANOTHER, 2)
    with pytest.raises(IntegrityError, match="write the key's values into the file"):
        each_pipeline.archive()
    header, *rows = each_pipeline.content().splitlines()
    each_pipeline.put(b"\n".join([header, *(row if row.endswith(b",1") else row + b"1" for row in rows), b""]))
    adopt_day(each_pipeline.site, DAY)
    assert each_pipeline.run().deleted == 1
    assert restoring(each_pipeline)().restored == 5


def test_where_the_key_got_a_column_and_a_value_does_not_parse_nothing_is_appended(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id text, at date, CONSTRAINT k PRIMARY KEY (id))")
    of.database.execute(f"INSERT INTO t VALUES ('1', '{DAY}'), ('x', '{DAY}')")
    of.archive()
    of.database.execute(
        """ALTER TABLE t DROP CONSTRAINT k, ALTER id TYPE int USING CASE id WHEN 'x' THEN 7 ELSE id::int END;
        ALTER TABLE t ADD tenant int NOT NULL DEFAULT 1, ADD PRIMARY KEY (tenant, id)"""
    )
    before = of.content()
    with pytest.raises(IntegrityError, match="the key of 2 rows in it does not parse as public.t has it, and rows"):
        of.archive()
    assert (of.content(), rows_of(of, "t")) == (before, 2)


def test_a_new_form_of_a_row_that_the_file_has_with_its_whole_key_is_appended(pipeline: Pipeline):
    """The column came first, and the key got it another night."""
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute('ALTER TABLE "Event" ADD tenant int NOT NULL DEFAULT 1')
    pipeline.archive()
    pipeline.database.execute(WIDENED.replace("ADD tenant int NOT NULL DEFAULT 1, ", ""))
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'new' WHERE id = 1")
    assert pipeline.run().deleted == 2
    assert pipeline.values("id") == ["1", "2", "1", "2", "1"]


def test_rows_without_a_former_key_are_none_of_those_that_lack_it(pipeline: Pipeline):
    """By the second of two keys, rows of the file lack the first one, which the table lets be empty by now."""
    pipeline.database.execute('ALTER TABLE "Event" ADD uid text, ADD gid text')
    pipeline.database.execute('ALTER TABLE "Event" DROP CONSTRAINT "Event_event_id_key"')
    for number, key in enumerate(("id", "uid", "gid")):
        pipeline.database.execute(
            f"""ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey", ALTER id DROP IDENTITY IF EXISTS;
            ALTER TABLE "Event" ADD CONSTRAINT "Event_pkey" PRIMARY KEY ({key});
            INSERT INTO "Event" (event_id, event_type, created_at, payload, {key})
            VALUES ('{key}', 't', '{DAY} 12:00', '{{}}', '{number}')"""
        )
        assert pipeline.run().deleted == 1
        pipeline.database.execute(f'ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey", ALTER {key} DROP NOT NULL')
        pipeline.database.execute('ALTER TABLE "Event" ADD CONSTRAINT "Event_pkey" PRIMARY KEY (event_id, created_at)')
    assert pipeline.values("gid") == ["", "", "2"]


@pytest.mark.parametrize("value", [11, 7])
def test_where_the_key_is_another_one_rows_that_no_file_holds_are_archived(pipeline: Pipeline, value: int):
    """Even such as are like one of the file; in one case the value of the new key is that of a former one."""
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, kind text)")
    of.database.execute(f"INSERT INTO t VALUES (7, '{DAY}', 'click')")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t DROP CONSTRAINT t_pkey, ADD number int PRIMARY KEY;
        INSERT INTO t VALUES (8, '{DAY}', 'click', 10), (9, '{DAY}', 'click', {value})"""
    )
    assert of.run().deleted == 2
    of.database.execute(f"INSERT INTO t VALUES (10, '{DAY}', 'click', 20)")
    assert of.run().deleted == 1


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE t ADD priority int DEFAULT 1",
        "ALTER TABLE t RENAME site TO place",
        """CREATE TABLE t2 (tenant int DEFAULT 1, LIKE t INCLUDING ALL); DROP TABLE t; ALTER TABLE t2 RENAME TO t""",
        """ALTER TABLE t ADD parent int DEFAULT 1, ADD key bigint; ALTER TABLE t DROP device;
        ALTER TABLE t RENAME key TO device; ALTER TABLE t ADD PRIMARY KEY (device, at)""",
    ],
)
def test_another_columns_values_may_be_those_of_an_archived_rows_key(pipeline: Pipeline, change: str):
    of = of_table(pipeline, "CREATE TABLE t (site int, device int, at timestamptz, v int, PRIMARY KEY (device, at))")
    of.database.execute(f"INSERT INTO t VALUES (1, 1, '{DAY}', 0)")
    of.run()
    of.database.execute(f"{change}; INSERT INTO t (device, at, v) VALUES (2, '{DAY}', 0)")
    of.database.execute(f"UPDATE t SET {'place' if 'place' in change else 'site'} = 1")
    assert of.run().deleted == 1
    assert of.values("device") == ["1", "2"]


def test_where_the_key_got_a_column_a_row_with_another_former_key_may_be_like_one_of_the_file(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (device int, at timestamptz, speed int, PRIMARY KEY (device, at))")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}', 0)")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t DROP CONSTRAINT t_pkey, ADD tenant int, ADD PRIMARY KEY (tenant, device, at);
        INSERT INTO t VALUES (2, '{DAY}', 0, 7)"""
    )
    assert of.run().deleted == 1
    assert of.values("device") == ["1", "2"]

"""Files whose rows lack the table's key, since that got a column or another name: no row becomes a second one."""

from contextlib import nullcontext
from typing import Any

import pytest

from event_archive.errors import IntegrityError
from event_archive.operations import writing
from event_archive.operations.adopt import adopt_day
from event_archive.operations.claim import adopt_source
from event_archive.operations.verbatim import load_verbatim
from event_archive_tests.fixtures.lakes import remove
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_table, rows_of
from event_archive_tests.fixtures.restoring import ANOTHER, manifest_of, restoring


def test_a_file_gets_no_row_by_a_key_whose_column_was_renamed_until_its_header_says_so(pipeline: Pipeline):
    """Each row would stand in it twice, once under either name, and no restore would take the day any more."""
    pipeline.add(3)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" RENAME id TO number')
    pipeline.add(1, prefix="late")
    before = pipeline.content()
    with pytest.raises(
        IntegrityError,
        match=r"archived under \(id\), which is now called \(number\)\. .*: event-archive adopt 2024-03-01\.",
    ):
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


def test_where_the_key_got_a_column_a_row_that_comes_while_the_file_is_read_is_not_appended_once_more(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute(WIDENED)
    pipeline.add(1, prefix="late")
    before = pipeline.content()

    def read_and_come_again(*arguments: Any) -> None:
        pipeline.database.execute(ANOTHER, 2)
        load_verbatim(*arguments)

    monkeypatch.setattr(writing, "load_verbatim", read_and_come_again)
    with pytest.raises(IntegrityError, match=r"have their \(id\)\. Nobody can tell"):
        pipeline.run()
    assert (pipeline.content(), pipeline.count()) == (before, 2)


def test_where_the_key_got_a_column_a_former_key_is_told_as_its_index_did(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (n numeric PRIMARY KEY, at timestamptz)")
    of.database.execute(f"INSERT INTO t VALUES (1.0, '{DAY}')")
    of.archive()
    of.database.execute(
        """UPDATE t SET n = 1.00; ALTER TABLE t DROP CONSTRAINT t_pkey, ADD region int DEFAULT 1;
        ALTER TABLE t ADD PRIMARY KEY (n, region)"""
    )
    before = of.content()
    with pytest.raises(IntegrityError, match=r"have their \(n\)\. Nobody can tell"):
        of.archive()
    assert (of.content(), rows_of(of, "t")) == (before, 1)


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


@pytest.mark.usefixtures("files_without_key_types")
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


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE t ADD priority int DEFAULT 1",
        "ALTER TABLE t RENAME site TO place",
        """CREATE TABLE t2 (tenant int DEFAULT 1, LIKE t INCLUDING ALL); DROP TABLE t; ALTER TABLE t2 RENAME TO t""",
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


@pytest.mark.parametrize(
    ("key", "by_now"),
    [("id, at", "id"), ("id", "uid"), ("id", "uid, at"), ("id, at", "at, v"), ("id", "later")],
)
def test_by_another_key_nothing_is_appended_until_a_person_says_that_the_file_has_its_values(
    pipeline: Pipeline, key: str, by_now: str
):
    """Whatever stands in the table, were it but a row that no file holds."""
    of = of_table(pipeline, f"CREATE TABLE t (id int, uid text, at timestamptz, v int, PRIMARY KEY ({key}))")
    of.database.execute(f"INSERT INTO t SELECT n, 'u' || n, '{DAY} 12:00', n FROM generate_series(1, 3) AS n")
    of.run()
    of.database.execute(
        f"""ALTER TABLE t DROP CONSTRAINT t_pkey, ADD later text, ADD PRIMARY KEY ({by_now});
        INSERT INTO t VALUES (4, 'u4', '{DAY} 12:00', 4, 'l4')"""
    )
    before = of.content()
    is_by_now = rf"archived under \({key}\), and the key of public.t is now \({by_now}\)\. Nobody can tell"
    with pytest.raises(IntegrityError, match=is_by_now):
        of.archive()
    adopt_missing = pytest.raises(IntegrityError, match="lacks the key: later") if by_now == "later" else nullcontext()
    with adopt_missing:
        adopt_day(of.site, DAY)
        with pytest.raises(IntegrityError, match=is_by_now):
            of.archive()
    assert (of.content(), rows_of(of, "t")) == (before, 1)
    if by_now == "later":
        header, *rows = before.splitlines()
        written = b"\n".join([header + b",later", *(row + b",l" + row[:1] for row in rows), b""])
        of.put(written, metadata=manifest_of(of).to_metadata())
    assert adopt_day(of.site, DAY, present_key=True).keys == (tuple(by_now.split(", ")),)
    assert of.run().deleted == 1
    done = restoring(of)()
    assert (done.restored, done.superseded) == (4, 0)


def test_a_former_key_that_comes_back_is_another_one(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz)")
    for key, rows in (("id", "(1, 1)"), ("id, at", "(2, 2), (2, 3)")):
        of.database.execute(f"ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY ({key})")
        of.database.execute(
            f"INSERT INTO t SELECT n, '{DAY}'::date + h * interval '1 h' FROM (VALUES {rows}) AS v(n, h)"
        )
        of.run()
    of.database.execute(
        f"ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id); INSERT INTO t VALUES (3, '{DAY}')"
    )
    with pytest.raises(
        IntegrityError, match=r"under \(id\) and \(id, at\), and the key of public\.t is now \(id\), but that lacks"
    ):
        of.archive()


def test_by_another_key_a_day_goes_on_under_another_prefix(pipeline: Pipeline):
    of = of_table(pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz)")
    of.database.execute(f"INSERT INTO t VALUES (1, '{DAY}')")
    of.run()
    of.database.execute(
        f"ALTER TABLE t DROP id, ADD id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; INSERT INTO t VALUES ('{DAY}')"
    )
    with pytest.raises(IntegrityError, match="what it calls id is gone.* begin anew under another EVENT_FILE_"):
        of.archive()
    anew = of.of(file_prefix="anew")
    adopt_source(anew.site)
    assert anew.run().deleted == 1
    assert (of.archive().rows, anew.archive().rows) == (1, 1)

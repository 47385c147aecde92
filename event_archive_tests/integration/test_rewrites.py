"""Files that are written anew, or come from elsewhere, keep every value and every row as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import IntegrityError, RefusedError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.adopt import adopt_day
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_wide_table
from event_archive_tests.fixtures.restoring import restoring


def test_the_default_of_a_domain_does_not_stand_in_for_what_the_file_lacks(each_pipeline: Pipeline):
    each_pipeline.add(3)
    each_pipeline.archive()
    each_pipeline.database.execute(
        "CREATE DOMAIN status AS text DEFAULT 'paid'; ALTER TABLE \"Event\" ADD COLUMN status status"
    )
    assert each_pipeline.purge().deleted == 0
    assert each_pipeline.run().deleted == 3
    assert each_pipeline.values("status") == ["", "", "", "paid", "paid", "paid"]


def test_a_rewrite_keeps_every_value_as_it_was(each_pipeline: Pipeline):
    """Types that have become narrower must not touch what is archived and exists nowhere else."""
    database = each_pipeline.database
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, at date, amount numeric, raw json, moment timestamptz, f float8);"
        'INSERT INTO t VALUES (1, \'2024-03-01\', 1.23456, \'{"b":1, "b":2,  "a":"kept"}\', '
        "'2024-03-01 12:34:56.123456+00', 0.1234567890123)"
    )
    of = each_pipeline.of(table=TableName("public", "t"), time_column="at")
    of.run()
    before = of.records_of_file()[0]
    database.execute(
        "ALTER TABLE t ALTER amount TYPE numeric(10,2), ALTER raw TYPE jsonb, ALTER moment TYPE date, "
        "ALTER f TYPE real, ADD COLUMN extra text;"
        "INSERT INTO t VALUES (2, '2024-03-01', 1, '{}', '2024-03-01', 1, 'x')"
    )
    assert of.run().deleted == 1
    assert of.records_of_file()[0] == before | {"extra": ""}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("timestamp", "infinity"),
        ("timestamptz", "0044-03-15 12:00:00+00 BC"),
        ("date", "20000-01-01"),
        ("jsonb", "[" * 5000 + "]" * 5000),
    ],
)
def test_a_rewrite_takes_values_that_python_has_none_of(pipeline: Pipeline, kind: str, value: str):
    pipeline.add(1)
    pipeline.run()
    pipeline.database.execute(f'ALTER TABLE "Event" ADD COLUMN extra {kind}')
    pipeline.add(1, prefix="late")
    pipeline.database.execute(f'UPDATE "Event" SET extra = %s::text::{kind}', value)
    assert pipeline.run().deleted == 1
    assert pipeline.values("extra") == ["", value]


def test_a_rewrite_keeps_the_order_of_superseded_rows(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 2")
    pipeline.archive()
    pipeline.database.execute("ALTER TABLE \"Event\" ADD COLUMN extra text DEFAULT 'x'")
    pipeline.add(1, prefix="late")
    assert pipeline.run().deleted == 4
    assert pipeline.values("id") == ["1", "2", "3", "2", "1", "4", "2", "3"]


def test_a_rewrite_of_what_changed_since_it_was_compared_is_refused(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """The second reading is what is written; a lake that serves other bytes under one ETag must not get it in."""
    pipeline.add(2)
    pipeline.run()
    pipeline.database.execute("ALTER TABLE \"Event\" ADD COLUMN extra text DEFAULT 'x'")
    pipeline.add(1, prefix="late")
    content, original = pipeline.content(), type(pipeline.lake).read
    readings: list[str] = []

    @contextmanager
    def read(lake: Lake, file: StoredFile) -> Iterator[Iterator[bytes]]:
        readings.append(file.path)
        other = readings.count(pipeline.dataset.path(DAY)) == 2
        with original(lake, file) as blocks:
            yield (block.replace(b"order", b"bored") if other else block for block in blocks)

    monkeypatch.setattr(type(pipeline.lake), "read", read)
    with pytest.raises(IntegrityError, match="it changed between two readings"):
        pipeline.archive()
    monkeypatch.undo()
    assert (pipeline.content(), pipeline.count()) == (content, 1)


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: c.replace(b"\n", b"\r\n"), lambda c: b"\xef\xbb\xbf" + c]
)
def test_an_adopted_file_whose_lines_end_otherwise_is_not_torn(
    each_pipeline: Pipeline, damage: Callable[[bytes], bytes]
):
    each_pipeline.database.execute(
        "INSERT INTO \"Event\" (event_id, event_type, created_at, payload) VALUES ('first', 't', '2024-03-01', '{}')"
    )
    each_pipeline.run()
    each_pipeline.put(damage(each_pipeline.content()))
    adopt_day(each_pipeline.site, DAY)
    each_pipeline.add(2, prefix="late")
    assert each_pipeline.run().deleted == 2
    assert each_pipeline.values("event_id") == ["first", "late-2024-03-01-0", "late-2024-03-01-1"]
    each_pipeline.add(1, prefix="later")
    assert each_pipeline.run().deleted == 1


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_an_end_marker_in_a_file_of_another_tool_hides_no_row(each_pipeline: Pipeline, line_end: bytes):
    each_pipeline.add(1)
    each_pipeline.put(line_end.join([b"id,event_id", b"77,a", b"\\.", b"78,b", b""]))
    with pytest.raises(IntegrityError):
        each_pipeline.archive()
    assert each_pipeline.count() == 1


def test_a_row_whose_values_do_not_fit_into_one_as_texts_is_restored_and_rewritten(pipeline: Pipeline):
    of = of_wide_table(pipeline, 900, "float8", "1/3.0::float8")
    assert of.run().deleted == 3
    before = of.content()
    assert restoring(of)("mine").restored == 3
    of.database.execute("ALTER TABLE t ADD note text; INSERT INTO t (id, at, note) VALUES (4, '2024-03-01', 'late')")
    assert of.run().deleted == 1
    kept = [line.rpartition(b",")[0] for line in of.content().splitlines()[:4]]
    assert kept == before.splitlines()
    assert restoring(of)("mine").restored == 1


@pytest.mark.usefixtures("files_without_key_types")
def test_a_key_that_does_not_parse_where_a_row_does_not_fit_into_one_as_texts_is_none_of_the_table(
    pipeline: Pipeline,
):
    of = of_wide_table(pipeline, 900, "float8", "1/3.0::float8")
    assert of.run().deleted == 3
    before = of.content()
    of.database.execute("ALTER TABLE t ALTER id TYPE uuid USING gen_random_uuid()")
    of.database.execute("INSERT INTO t (id, at) VALUES (gen_random_uuid(), '2024-03-01')")
    assert of.run().deleted == 1
    assert of.content().startswith(before)
    with pytest.raises(RefusedError, match="its values do not all parse"):
        restoring(of)(in_place=True)


def test_a_row_whose_values_neither_parse_nor_fit_into_one_as_texts_is_archived(pipeline: Pipeline):
    of = of_wide_table(pipeline, 900, "float8", "1/3.0::float8")
    assert of.run().deleted == 3
    before = of.content()
    of.database.execute(
        "INSERT INTO t (id, at) VALUES (1, '2024-03-01'), (4, '2024-03-01');"
        "ALTER TABLE t ALTER c7 DROP DEFAULT, ALTER c7 TYPE boolean USING true,"
        "ALTER c700 DROP DEFAULT, ALTER c700 TYPE boolean USING true"
    )
    assert of.run().deleted == 2
    assert of.content().startswith(before)
    assert [line.split(b",")[0] for line in of.content().splitlines()[4:]] == [b"1", b"4"]

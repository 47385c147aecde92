"""Files that are not what was recorded, or that another tool wrote: refused, or taken over with every row."""

from collections.abc import Callable

import pytest

from event_archive.domain.record import Record
from event_archive.errors import IntegrityError
from event_archive.lake.azure.container import AzureLake
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database


def test_a_changed_file_is_not_purged_by(each_pipeline: Pipeline):
    each_pipeline.add(3)
    each_pipeline.archive()
    each_pipeline.add(1, prefix="late")
    record = each_pipeline.records[DAY]
    each_pipeline.archive()
    each_pipeline.records[DAY] = record
    with pytest.raises(
        IntegrityError, match=r"recorded .*Archive the day again: event-archive run 2024-03-01, or materialize"
    ):
        each_pipeline.purge()
    assert each_pipeline.count() == 4


_ELSEWHERE = r"events_2024-03-01.csv is not in the lake; .* recorded 3 rows in file:///.*/{}/events_2024-03-01"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "{url}",
            r"events_2024-03-01.csv is gone from the lake; .* Bring it back .* If it is lost: archive",
        ),
        ("{lake}/former/events_2024-03-01.csv", _ELSEWHERE.format("former")),
        ("{lake}-before/{path}", _ELSEWHERE.format(".*-before/titan-pulse-event-archive")),
    ],
    ids=["gone", "of another folder", "of another lake"],
)
def test_a_file_that_is_gone_is_not_purged_by(pipeline: Pipeline, url: str, words: str):
    pipeline.add(3)
    path = pipeline.dataset.path(DAY)
    here = pipeline.lake.url(path)
    recorded = url.format(url=here, path=path, lake=here.removesuffix(f"/{path}"))
    pipeline.records[DAY] = Record('"etag"', 3, url=recorded)
    with pytest.raises(IntegrityError, match=words):
        pipeline.purge()
    assert pipeline.count() == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.replace(b"evt-2024-03-01-1,", b"evt-2024-03-01-9,"),
        lambda content: content[: content.rindex(b"\n", 0, -1) + 1],
        lambda content: content + content.splitlines(keepends=True)[-1],
        lambda content: content[:-10],
    ],
    ids=["edited", "row missing", "row doubled", "cut short"],
)
def test_a_file_that_contradicts_its_manifest_is_refused(each_pipeline: Pipeline, damage: Callable[[bytes], bytes]):
    each_pipeline.add(3)
    archived = each_pipeline.archive()
    file = each_pipeline.lake.stat(archived.path)
    assert file is not None
    each_pipeline.put(damage(each_pipeline.content()), metadata=dict(file.metadata))
    file = each_pipeline.lake.stat(archived.path)
    assert file is not None
    each_pipeline.records[DAY] = Record(file.etag, 3)
    with pytest.raises(IntegrityError, match="event-archive adopt"):
        each_pipeline.purge()
    with pytest.raises(IntegrityError, match="event-archive adopt"):
        each_pipeline.archive()
    assert each_pipeline.count() == 3


def test_a_manifest_that_lies_about_its_rows_is_refused(pipeline: Pipeline):
    pipeline.add(3)
    archived = pipeline.archive()
    file = pipeline.lake.stat(archived.path)
    assert file is not None
    pipeline.put(pipeline.content(), metadata=dict(file.metadata) | {"event_archive_rows": "4"})
    file = pipeline.lake.stat(archived.path)
    assert file is not None
    pipeline.records[DAY] = Record(file.etag, 4)
    with pytest.raises(IntegrityError, match="says rows 4; it holds rows 3"):
        pipeline.purge()


def test_a_record_that_lies_about_its_rows_is_refused(pipeline: Pipeline):
    pipeline.add(3)
    archived = pipeline.archive()
    pipeline.records[DAY] = Record(archived.etag, 2)
    with pytest.raises(IntegrityError, match="it has 3 rows, the archive's record says 2"):
        pipeline.purge()
    assert pipeline.count() == 3


def test_nothing_is_purged_by_a_file_without_a_manifest(pipeline: Pipeline):
    """Its bytes are right, and it is the file that was recorded; but nobody says whose it is."""
    pipeline.add(3)
    pipeline.archive()
    pipeline.put(pipeline.content(), metadata={})
    file = pipeline.lake.stat(pipeline.dataset.path(DAY))
    assert file is not None
    pipeline.records[DAY] = Record(file.etag, 3)
    with pytest.raises(IntegrityError, match="another tool wrote or copied it, for it has no manifest"):
        pipeline.purge()
    assert pipeline.count() == 3


def test_a_file_of_another_tool_is_taken_over_with_every_row(each_pipeline: Pipeline):
    each_pipeline.add(3)
    foreign = (
        '\ufeff"payload","id","event_id","event_type","created_at","processed_at"\r\n'
        '"{""a"":1}",77,gone,t,2024-03-01T10:00:00,\r\n'
        '"{}",78,"also, gone",t,2024-03-01 10:00:00.5,2024-03-01 11:00:00\r\n'
    )
    each_pipeline.put(foreign.encode())
    archived = each_pipeline.archive()
    assert (archived.rows, archived.rows_appended) == (5, 3)
    assert each_pipeline.purge().deleted == 3
    assert each_pipeline.values("id") == ["77", "78", "1", "2", "3"]
    assert each_pipeline.values("payload")[:2] == ['{"a":1}', "{}"]
    assert each_pipeline.values("created_at")[:2] == ["2024-03-01T10:00:00", "2024-03-01 10:00:00.5"]
    file = each_pipeline.lake.stat(archived.path)
    assert file is not None
    assert each_pipeline.lake.appendable(file)
    each_pipeline.add(1, prefix="late")
    assert each_pipeline.run().deleted == 1


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("abc,e,t,2024-03-01,{}", "its values do not all parse as .* adopt 2024-03-01"),
        ("77,e,t,2024-03-01,nojson", "its values do not all parse as .* adopt 2024-03-01"),
        (",e,t,2024-03-01,{}", r"1 row of it lacks a value of the key, \(id\)\. .* write it into the file"),
    ],
)
def test_a_file_of_another_tool_whose_values_do_not_parse_is_not_taken_over(
    each_pipeline: Pipeline, row: str, words: str
):
    """No restore into the table would take it any more, the rows that are appended included."""
    each_pipeline.add(3)
    content = f"id,event_id,event_type,created_at,payload\n{row}\n".encode()
    each_pipeline.put(content)
    with pytest.raises(IntegrityError, match=words):
        each_pipeline.archive()
    assert (each_pipeline.content(), each_pipeline.count()) == (content, 3)


def test_a_file_that_was_copied_whole_with_its_manifest_is_written_anew(database: Database, azure_lake: AzureLake):
    """A copy has no blocks of ours that an append could keep."""
    pipeline = Pipeline(database, azure_lake)
    pipeline.add(3)
    archived = pipeline.archive()
    file = azure_lake.stat(archived.path)
    assert file is not None
    blob = azure_lake.container.get_blob_client(archived.path)
    blob.upload_blob(pipeline.content(), overwrite=True, metadata=dict(file.metadata))
    pipeline.add(1, prefix="late")
    assert pipeline.run().deleted == 4
    assert pipeline.values("id") == ["1", "2", "3", "4"]


def test_a_file_of_another_tool_that_holds_every_row_is_taken_over_and_purged_by(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    pipeline.put(pipeline.content())
    archived = pipeline.archive()
    assert (archived.rows, archived.rows_appended) == (3, 0)
    assert pipeline.purge().deleted == 3


def test_a_file_of_another_tool_stays_as_it_is_where_the_day_has_no_rows(pipeline: Pipeline):
    content = b"id,event_id\n1,x\n"
    pipeline.put(content)
    archived = pipeline.archive()
    assert (archived.rows, archived.rows_appended) == (1, 0)
    assert pipeline.purge().deleted == 0
    assert pipeline.content() == content


@pytest.mark.parametrize(
    "content", [b"", b"hello\nworld\n", b"id,id\n1,1\n", b'id,"x\n', b"\xff\xfe\n", b"id,event_id\n1\n", b"id\n1,2\n"]
)
def test_a_file_that_is_no_archive_is_refused(pipeline: Pipeline, content: bytes):
    pipeline.add(3)
    pipeline.put(content)
    with pytest.raises(IntegrityError):
        pipeline.archive()
    assert pipeline.content() == content
    assert pipeline.count() == 3


def test_a_file_that_came_after_an_empty_day_was_archived_is_not_purged_by(pipeline: Pipeline):
    pipeline.archive()
    of_no_rows = pipeline.records[DAY]
    pipeline.add(2)
    pipeline.archive()
    pipeline.records[DAY] = of_no_rows
    with pytest.raises(IntegrityError, match="is in the lake; the day's latest archive found no rows"):
        pipeline.purge()
    assert pipeline.count() == 2

"""What archive and purge do to a day, on each PostgreSQL and each kind of lake."""

import hashlib
import json
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pytest

from event_archive.domain.days import ONE_DAY, Retention, now_utc
from event_archive.domain.manifest import Manifest
from event_archive.domain.record import Record
from event_archive.errors import (
    BusyError,
    FileChangedError,
    IntegrityError,
    LockedError,
    NotAgedError,
    RefusedError,
    UnreachableError,
)
from event_archive.lake.azure.container import AzureLake
from event_archive.lake.local.upload import LocalUpload
from event_archive.lake.protocol import Lake
from event_archive.nightly import backlog
from event_archive.nightly.backlog import days_to_do
from event_archive.operations import archive as archiving
from event_archive.operations import purge as purging
from event_archive.operations import writing
from event_archive.operations.export import Export
from event_archive.operations.purge import purge_day
from event_archive.operations.site import Site
from event_archive.operations.unanswered import note_unanswered
from event_archive.postgres.session import Postgres
from event_archive.table.locks import lock_day
from event_archive.table.shape import require_unchanged
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.progress import Seen

EVERYTHING = 'SELECT id, event_id, event_type, created_at::text, processed_at::text, payload FROM "Event" ORDER BY id'


def test_a_day_is_archived_then_purged(each_pipeline: Pipeline):
    each_pipeline.add(100)
    each_pipeline.add(7, day=date(2024, 3, 2))
    before = each_pipeline.database.execute(EVERYTHING)
    archived = each_pipeline.archive()
    purged = each_pipeline.purge()
    assert (archived.rows, archived.rows_appended) == (100, 100)
    assert (purged.deleted, purged.left, purged.outcome) == (100, 0, "purged")
    in_file = [
        (
            int(r["id"]),
            r["event_id"],
            r["event_type"],
            r["created_at"],
            r["processed_at"] or None,
            json.loads(r["payload"]),
        )
        for r in each_pipeline.records_of_file()
    ]
    assert in_file == before[:100]
    assert each_pipeline.database.execute(EVERYTHING) == before[100:]


def test_the_manifest_describes_the_file(each_pipeline: Pipeline):
    each_pipeline.add(10)
    archived = each_pipeline.archive()
    content = each_pipeline.content()
    file = each_pipeline.lake.stat(archived.path)
    assert file is not None
    assert Manifest.from_file(file) == archived.manifest
    assert archived.manifest is not None
    assert archived.manifest.bytes == len(content)
    assert archived.manifest.sha256 == hashlib.sha256(content).hexdigest()
    assert archived.etag == file.etag


def test_archiving_again_leaves_the_file_as_it_is(each_pipeline: Pipeline):
    each_pipeline.add(10)
    first = each_pipeline.archive()
    second = each_pipeline.archive()
    each_pipeline.purge()
    third = each_pipeline.archive()
    assert [first.etag] * 2 == [second.etag, third.etag]
    assert (second.rows, second.rows_appended, third.rows, third.rows_appended) == (10, 0, 10, 0)
    assert each_pipeline.purge().deleted == 0


def test_late_rows_are_appended_then_purged(each_pipeline: Pipeline):
    each_pipeline.add(10)
    each_pipeline.run()
    before = each_pipeline.content()
    each_pipeline.add(5, prefix="late")
    archived = each_pipeline.archive()
    assert each_pipeline.purge().deleted == 5
    assert (archived.rows, archived.rows_appended) == (15, 5)
    assert each_pipeline.content().startswith(before)
    assert len(set(each_pipeline.values("event_id"))) == 15
    assert each_pipeline.count() == 0


def test_late_rows_beside_archived_ones_are_written_once(each_pipeline: Pipeline):
    each_pipeline.add(10)
    each_pipeline.archive()
    each_pipeline.add(5, prefix="late")
    each_pipeline.run()
    assert sorted(each_pipeline.values("event_id")) == sorted(set(each_pipeline.values("event_id")))
    assert len(each_pipeline.records_of_file()) == 15


def test_a_row_that_changed_stays_until_its_new_form_is_archived(each_pipeline: Pipeline):
    each_pipeline.add(3)
    each_pipeline.archive()
    each_pipeline.database.execute("""UPDATE "Event" SET payload = '{"changed": true}' WHERE id = 2""")
    first = each_pipeline.purge()
    assert (first.deleted, first.left) == (2, 1)
    assert each_pipeline.run().deleted == 1
    assert each_pipeline.records_of_file()[-1]["payload"] == '{"changed": true}'
    assert len(each_pipeline.records_of_file()) == 4


def test_a_row_that_went_from_a_to_b_and_back_ends_in_the_file_as_a(each_pipeline: Pipeline):
    each_pipeline.add(2)
    each_pipeline.archive()
    for event_type in ("B", "A"):
        each_pipeline.database.execute('UPDATE "Event" SET event_type = %s WHERE id = 1', event_type)
        each_pipeline.archive()
    each_pipeline.database.execute("UPDATE \"Event\" SET event_type = 'order.created' WHERE id = 1")
    each_pipeline.archive()
    assert each_pipeline.purge().deleted == 2
    assert [r["event_type"] for r in each_pipeline.records_of_file() if r["id"] == "1"] == [
        "order.created", "B", "A", "order.created",
    ]  # fmt: skip


def test_a_row_whose_superseded_form_is_in_the_file_stays(each_pipeline: Pipeline):
    each_pipeline.add(2)
    each_pipeline.archive()
    each_pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 1")
    each_pipeline.archive()
    each_pipeline.database.execute("UPDATE \"Event\" SET event_type = 'order.created' WHERE id = 1")
    purged = each_pipeline.purge()
    assert (purged.deleted, purged.left) == (1, 1)


def test_a_dry_run_proves_and_deletes_nothing(each_pipeline: Pipeline):
    each_pipeline.add(10)
    each_pipeline.archive()
    dry = each_pipeline.purge(dry_run=True)
    assert (dry.deleted, dry.proven, dry.outcome) == (0, 10, "dry run")
    assert each_pipeline.count() == 10
    assert each_pipeline.run().deleted == 10
    assert len(each_pipeline.records_of_file()) == 10


def test_a_day_without_rows_gets_no_file(each_pipeline: Pipeline):
    archived = each_pipeline.archive()
    assert (archived.rows, archived.etag, archived.manifest) == (0, None, None)
    assert each_pipeline.lake.stat(archived.path) is None
    assert each_pipeline.purge().deleted == 0


def test_rows_that_come_after_an_empty_day_was_archived_stay(pipeline: Pipeline):
    pipeline.archive()
    pipeline.add(3)
    purged = pipeline.purge()
    assert (purged.outcome, purged.deleted, purged.left) == ("purged", 0, 3)


def test_a_day_ends_where_the_next_begins(each_pipeline: Pipeline):
    for moment in ("2024-02-29 23:59:59.999", "2024-03-01 00:00", "2024-03-01 23:59:59.999", "2024-03-02 00:00"):
        each_pipeline.database.execute(
            "INSERT INTO \"Event\" (event_id, event_type, created_at, payload) VALUES (%s, 't', %s::timestamp, '{}')",
            moment,
            moment,
        )
    assert each_pipeline.run().deleted == 2
    assert each_pipeline.values("created_at") == ["2024-03-01 00:00:00", "2024-03-01 23:59:59.999"]
    assert each_pipeline.count() == 2


@pytest.mark.parametrize(
    ("kind", "moments"),
    [
        ("timestamptz", ["2024-03-01 00:00+00", "2024-03-02 08:59+09"]),
        ("date", ["2024-03-01"]),
    ],
)
def test_a_day_is_a_utc_day_whatever_the_column_and_the_server_say(pipeline: Pipeline, kind: str, moments: list[str]):
    zoned = pipeline.of(time_column="at")
    pipeline.database.execute(f'ALTER TABLE "Event" ADD COLUMN at {kind}')
    for n, moment in enumerate([*moments, "2024-03-02 00:00+00", "2024-02-29 23:59+00"]):
        pipeline.database.execute(
            "INSERT INTO \"Event\" (event_id, event_type, payload, at) VALUES (%s, 't', '{}', %s::text::" + kind + ")",
            str(n),
            moment,
        )
    assert zoned.run().deleted == len(moments)


def test_a_young_day_is_refused_by_both(pipeline: Pipeline):
    young = date(2026, 11, 1)
    pipeline.records[young] = Record(None, 0)
    with pytest.raises(NotAgedError, match="comes of age on 2027-11-02"):
        pipeline.archive(young)
    with pytest.raises(NotAgedError, match="comes of age on 2027-11-02"):
        pipeline.purge(young)


def test_the_purge_goes_by_the_clock_of_the_database(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    young = now_utc().date() - 2 * ONE_DAY
    pipeline.add(3, day=young)
    pipeline.records |= {young: pipeline.of(retention=Retention(months=0, days=1)).archive(young).record}
    monkeypatch.setattr(purging, "now_utc", lambda: datetime(2050, 1, 1, tzinfo=UTC), raising=False)
    with pytest.raises(NotAgedError):
        pipeline.purge(young)
    assert pipeline.count() == 3


def test_a_day_that_a_wrong_clock_alone_calls_aged_has_no_file(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """Until it is aged by the database's, too, ingestions put rows in the place of others."""
    young = now_utc().date() - 2 * ONE_DAY
    pipeline.add(3, day=young)
    monkeypatch.setattr(archiving, "now_utc", lambda: datetime(2050, 1, 1, tzinfo=UTC))
    with pytest.raises(NotAgedError):
        pipeline.archive(young)
    assert pipeline.lake.stat(pipeline.dataset.path(young)) is None


def test_a_night_plans_no_day_that_only_this_machines_clock_calls_aged(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    young = pipeline.dataset.retention.last_aged_day(now_utc()) + ONE_DAY
    pipeline.add(1)
    pipeline.add(1, day=young)

    def planned() -> list[date]:
        return days_to_do(pipeline.dataset, now, pipeline.postgres).days

    now = now_utc() + ONE_DAY
    # A tick that is to come, as Dagster's page tries one.
    assert planned() == [DAY, young]
    monkeypatch.setattr(backlog, "now_utc", lambda: now)
    assert planned() == [DAY]


def test_no_figure_counts_a_day_that_only_this_machines_clock_calls_aged(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    dataset, postgres, now = pipeline.dataset, pipeline.postgres, now_utc() + ONE_DAY
    young = dataset.retention.last_aged_day(now)
    pipeline.add(1)
    pipeline.add(1, day=young)
    assert backlog.rows_of_aged_days(dataset, now, postgres).rows == {DAY: 1, young: 1}
    assert backlog.backlog(dataset, now, postgres, grace_days=0).days == 2
    monkeypatch.setattr(backlog, "now_utc", lambda: now)
    aged = backlog.rows_of_aged_days(dataset, now, postgres)
    assert aged.rows == {DAY: 1}
    assert dataset.is_aged(DAY, aged.at)
    assert not dataset.is_aged(young, aged.at)
    assert backlog.backlog(dataset, now, postgres, grace_days=0).days == 1


def test_a_day_that_a_replicas_clock_alone_calls_aged_has_no_file(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    pipeline.add(1)
    monkeypatch.setattr("event_archive.operations.claim.server_now", lambda _: datetime(2024, 3, 2, tzinfo=UTC))
    with pytest.raises(NotAgedError):
        pipeline.archive(export_postgres=pipeline.postgres)
    assert pipeline.lake.stat(pipeline.dataset.path(DAY)) is None


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


def test_a_column_that_was_added_widens_the_file(each_pipeline: Pipeline):
    each_pipeline.add(2)
    each_pipeline.run()
    each_pipeline.database.execute("ALTER TABLE \"Event\" ADD COLUMN origin text NOT NULL DEFAULT 'web'")
    each_pipeline.add(1, prefix="late")
    archived = each_pipeline.archive()
    assert each_pipeline.purge().deleted == 1
    assert (archived.rows, archived.rows_appended) == (3, 1)
    assert each_pipeline.values("origin") == ["", "", "web"]


def test_a_row_that_gained_a_value_since_it_was_archived_stays(each_pipeline: Pipeline):
    each_pipeline.add(2)
    each_pipeline.archive()
    each_pipeline.database.execute("ALTER TABLE \"Event\" ADD COLUMN origin text NOT NULL DEFAULT 'web'")
    assert (each_pipeline.purge().deleted, each_pipeline.count()) == (0, 2)
    assert each_pipeline.run().deleted == 2
    assert each_pipeline.values("origin") == ["", "", "web", "web"]


def test_a_column_that_was_added_without_a_value_changes_nothing(pipeline: Pipeline):
    pipeline.add(2)
    first = pipeline.archive()
    pipeline.database.execute('ALTER TABLE "Event" ADD COLUMN origin text')
    assert pipeline.archive().etag == first.etag
    assert pipeline.purge().deleted == 2


def test_a_column_that_was_dropped_stays_in_the_file(each_pipeline: Pipeline):
    each_pipeline.add(3)
    each_pipeline.archive()
    each_pipeline.database.execute('ALTER TABLE "Event" DROP COLUMN processed_at')
    each_pipeline.database.execute(
        "INSERT INTO \"Event\" (event_id, event_type, created_at, payload) VALUES ('late', 't', '2024-03-01', '{}')"
    )
    assert each_pipeline.run().deleted == 4
    assert each_pipeline.values("processed_at") == ["2024-03-01 01:00:00", "", "", ""]


def test_values_that_no_longer_parse_are_kept_as_text(each_pipeline: Pipeline):
    each_pipeline.add(3)
    each_pipeline.database.execute('ALTER TABLE "Event" ADD COLUMN ok boolean DEFAULT true')
    each_pipeline.archive()
    each_pipeline.database.execute('ALTER TABLE "Event" ALTER COLUMN event_type TYPE int USING length(event_type)')
    assert each_pipeline.purge().deleted == 0
    first = each_pipeline.archive()
    assert (first.rows, first.rows_appended) == (6, 3)
    assert each_pipeline.archive().etag == first.etag
    assert each_pipeline.purge().deleted == 3
    assert each_pipeline.values("event_type")[3:] == ["13", "19", "13"]
    assert each_pipeline.values("event_type")[0] == "order.created"


def test_where_another_run_holds_the_day_this_one_says_so(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    with psycopg.connect(pipeline.database.dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f'event_archive public."Event" {DAY}',))
        purged = pipeline.purge()
    assert (purged.outcome, purged.deleted, purged.left) == ("locked", 0, 3)
    assert pipeline.purge().deleted == 3


def test_a_purge_never_meets_an_append_of_its_day(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """A row that went from A to B and back is not purged as A while B is on its way into the file."""
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 1")
    original = Export.commit
    meanwhile: list[str] = []

    def purge_then_commit(export: object, *arguments: object, **options: object):
        pipeline.database.execute("UPDATE \"Event\" SET event_type = 'order.created' WHERE id = 1")
        meanwhile.append(pipeline.purge().outcome)
        return original(export, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Export, "commit", purge_then_commit)
    pipeline.archive()
    monkeypatch.undo()
    assert meanwhile == ["locked"]
    pipeline.run()
    assert [r["event_type"] for r in pipeline.records_of_file() if r["id"] == "1"][-1] == "order.created"


@pytest.mark.parametrize("where", [(Export, "commit"), (LocalUpload, "settle")], ids=["exported", "last piece"])
@pytest.mark.parametrize("widened", [False, True], ids=["append", "rewrite"])
def test_an_append_whose_session_was_lost_on_the_way_does_not_become_the_file(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, where: tuple[type, str], widened: bool
):
    """With its session it loses the lock on the day: a row that went to B and back may have been purged as A since."""
    pipeline.add(2)
    pipeline.archive()
    if widened:
        pipeline.database.execute('ALTER TABLE "Event" ADD COLUMN source text')
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 1")
    original = getattr(*where)

    def lost(*arguments: object, **options: object) -> object:
        monkeypatch.undo()
        pipeline.database.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        pipeline.database.execute("UPDATE \"Event\" SET event_type = 'order.created' WHERE id = 1")
        assert pipeline.purge().deleted == 2
        return original(*arguments, **options)

    monkeypatch.setattr(*where, lost)
    with pytest.raises(UnreachableError):
        pipeline.archive()
    assert pipeline.values("event_type")[0] == "order.created"
    assert len(pipeline.values("id")) == 2


@pytest.mark.parametrize("kind", [{}, {"shared": True}, {"wait": True}], ids=str)
def test_the_lock_on_a_day_ends_with_its_transaction(pipeline: Pipeline, kind: dict[str, bool]):
    """Not with its session, which a pooler gives to somebody else."""
    with psycopg.connect(pipeline.database.dsn) as pooled, psycopg.connect(pipeline.database.dsn) as other:
        assert lock_day(pooled, pipeline.dataset, DAY, **kind)
        assert not lock_day(other, pipeline.dataset, DAY)
        pooled.commit()
        assert lock_day(other, pipeline.dataset, DAY)


def test_appends_of_one_day_keep_one_another_from_nothing(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.archive()
    pipeline.add(1, prefix="late")
    with psycopg.connect(pipeline.database.dsn) as other:
        assert lock_day(other, pipeline.dataset, DAY, shared=True)
        assert pipeline.archive().rows_appended == 1


def test_an_append_that_another_was_faster_than_begins_again(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    pipeline.add(2)
    pipeline.archive()
    pipeline.add(1, prefix="late")
    times = 0

    def then_another_appends(*arguments: Any) -> None:
        nonlocal times
        require_unchanged(*arguments)
        times += 1
        if times == 1:
            pipeline.add(1, prefix="later")
            assert pipeline.archive().rows_appended == 2

    monkeypatch.setattr(writing, "require_unchanged", then_another_appends)
    assert pipeline.archive().rows_appended == 0
    assert sorted(pipeline.values("event_id")) == sorted(
        f"{prefix}-{DAY}-{n}" for prefix, n in (("evt", 0), ("evt", 1), ("late", 0), ("later", 0))
    )
    assert pipeline.purge().deleted == 4


def test_a_file_that_came_after_an_empty_day_was_archived_is_not_purged_by(pipeline: Pipeline):
    pipeline.archive()
    of_no_rows = pipeline.records[DAY]
    pipeline.add(2)
    pipeline.archive()
    pipeline.records[DAY] = of_no_rows
    with pytest.raises(IntegrityError, match="is in the lake; the day's latest archive found no rows"):
        pipeline.purge()
    assert pipeline.count() == 2


@pytest.mark.parametrize("in_doubt", [False, True], ids=["all is known", "a commit got no answer"])
def test_an_append_leaves_the_file_alone_while_its_day_is_purged(pipeline: Pipeline, in_doubt: bool):
    pipeline.add(2)
    first = pipeline.archive()
    file = pipeline.lake.stat(first.path)
    if in_doubt and file:
        note_unanswered(pipeline.lake, file)
    pipeline.add(1, prefix="late")
    with pipeline.postgres.transaction("a purge") as connection:
        assert lock_day(connection, pipeline.dataset, DAY)
        second = pipeline.archive()
    assert (second.etag, second.rows_appended) == (first.etag, 0)
    assert pipeline.run().deleted == 3


def test_an_append_reads_what_a_purge_left_before_it_had_the_day(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """A row that went from A to B and back is purged as A; a snapshot of before would append B, as its last form."""
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 1")

    def purge_then_lock(*arguments: Any, **options: Any) -> bool:
        monkeypatch.undo()
        pipeline.database.execute("UPDATE \"Event\" SET event_type = 'order.created' WHERE id = 1")
        assert pipeline.purge().deleted == 2
        return lock_day(*arguments, **options)

    monkeypatch.setattr("event_archive.operations.archive.lock_day", purge_then_lock)
    assert pipeline.archive().rows_appended == 0
    assert pipeline.values("event_type") == ["order.created", 'user "x", signed\nup']


def test_an_append_reads_the_primary(pipeline: Pipeline):
    """A replica that is behind would give rows in a form that is gone, as the last in the file."""
    pipeline.add(2)
    pipeline.archive()
    pipeline.add(1, prefix="late")
    assert pipeline.archive(export_postgres=Postgres("host=/nowhere")).rows_appended == 1


def test_another_tools_file_is_not_taken_over_while_somebody_works_on_its_day(pipeline: Pipeline):
    pipeline.add(2)
    content = b"id,event_id\n77,x\n"
    pipeline.put(content)
    with pipeline.postgres.transaction("a purge") as connection:
        assert lock_day(connection, pipeline.dataset, DAY)
        with pytest.raises(LockedError, match="another command is working on 2024-03-01"):
            pipeline.archive()
    assert pipeline.content() == content


def test_a_lock_held_for_too_long_rolls_back_and_is_said(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    with psycopg.connect(pipeline.database.dsn) as other:
        other.execute('SELECT FROM "Event" WHERE id = 2 FOR UPDATE')
        with pytest.raises(BusyError, match="holds a lock"):
            pipeline.purge()
    assert pipeline.count() == 3


@pytest.mark.parametrize(
    "trigger", ["", "BEFORE DELETE {} FOR EACH ROW", "AFTER DELETE {}"], ids=["", "row", "statement"]
)
def test_a_row_updated_while_the_purge_waits_for_it_stays(each_database: Database, lake: Lake, trigger: str):
    pipeline = Pipeline(each_database, lake)
    pipeline.add(3)
    pipeline.archive()
    if trigger:
        pipeline.database.execute(
            f"""CREATE FUNCTION lets_go() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
            CREATE TRIGGER lets_go {trigger.format('ON "Event"')} EXECUTE FUNCTION lets_go()"""
        )
    with psycopg.connect(pipeline.database.dsn) as other, psycopg.connect(pipeline.database.dsn) as watch:
        other.execute("UPDATE \"Event\" SET event_type = 'changed' WHERE id = 2")
        result: list[object] = []
        thread = threading.Thread(target=lambda: result.append(pipeline.purge()))
        thread.start()
        while not watch.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
            watch.rollback()
        other.commit()
        thread.join()
    assert pipeline.database.execute('SELECT id, event_type FROM "Event"') == [(2, "changed")]


def test_a_foreign_key_that_forbids_the_delete_rolls_the_day_back(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.database.execute('CREATE TABLE note (event bigint REFERENCES "Event"); INSERT INTO note VALUES (2)')
    pipeline.archive()
    with pytest.raises(RefusedError, match="still refer"):
        pipeline.purge()
    assert pipeline.count() == 3


def test_rows_that_a_broken_index_let_in_twice_stay(pipeline: Pipeline):
    """Two rows alike are one row in the file's last form: to delete both would leave one of them unproven."""
    pipeline.add(3)
    ready = "UPDATE pg_index SET indisready = {} WHERE indrelid = '\"Event\"'::regclass AND indisunique"
    pipeline.database.execute(ready.format("false"))
    pipeline.database.execute('INSERT INTO "Event" SELECT * FROM "Event" WHERE id = 2')
    pipeline.database.execute(ready.format("true"))
    pipeline.archive()
    with pytest.raises(IntegrityError, match="4 rows are identical to 3 current rows"):
        pipeline.purge()
    assert pipeline.count() == 4


def test_a_role_that_may_not_delete_is_told_what_it_needs(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.archive()
    pipeline.database.execute('CREATE ROLE reader LOGIN; GRANT SELECT ON "Event" TO reader')
    reader = Pipeline(pipeline.database, pipeline.lake, records=pipeline.records)
    seen = Seen()
    try:
        with pytest.raises(RefusedError, match="SELECT and DELETE on the table"):
            purge_day(
                Site(
                    reader.dataset,
                    Postgres(pipeline.database.server.dsn(pipeline.database.name, "reader")),
                    pipeline.lake,
                ),
                DAY,
                pipeline.records[DAY],
                dry_run=False,
                progress=seen,
            )
    finally:
        pipeline.database.execute("DROP OWNED BY reader; DROP ROLE reader")
    assert pipeline.count() == 3
    assert seen.phases == [], "the file was read, which may take hours"


def test_a_run_that_loses_the_race_for_the_file_starts_again(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    pipeline.add(3)
    original = type(pipeline.lake).stat
    raced: list[str] = []

    def stat_then_lose(lake: Lake, path: str):
        found = original(lake, path)
        if not raced:
            raced.append(path)
            pipeline.archive()
        return found

    monkeypatch.setattr(type(pipeline.lake), "stat", stat_then_lose)
    archived = pipeline.archive()
    assert (archived.rows, archived.rows_appended) == (3, 0)
    assert pipeline.values("id") == ["1", "2", "3"]


@pytest.mark.parametrize("file", ["none", "archived before"])
def test_an_archive_that_another_run_overtakes_records_the_file_that_is_there(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, file: str
):
    """The other one archives and purges the day after this one has looked for its file."""
    pipeline.add(3)
    if file == "archived before":
        pipeline.archive()
        pipeline.add(1, prefix="late")
    overtaken: list[int] = []
    name = "claim_to_export" if file == "none" else "claim"
    claims = getattr(archiving, name)

    def overtaken_then_claim(*arguments: Any):
        if not overtaken:
            overtaken.append(0)
            overtaken[0] = pipeline.run().deleted
        return claims(*arguments)

    monkeypatch.setattr(archiving, name, overtaken_then_claim)
    archived = pipeline.archive()
    rows = 3 if file == "none" else 4
    assert (overtaken, archived.rows, archived.rows_appended) == ([rows], rows, 0)
    assert pipeline.purge().outcome == "nothing to do"


def test_a_snapshot_is_never_older_than_the_file_it_writes_to(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """Else a row that was archived and purged in its new form meanwhile would be appended in its old one."""
    pipeline.add(2)
    pipeline.archive()
    original = type(pipeline.lake).stat
    raced: list[str] = []

    def lose_then_stat(lake: Lake, path: str):
        if not raced:
            raced.append(path)
            pipeline.database.execute("UPDATE \"Event\" SET event_type = 'new' WHERE id = 1")
            pipeline.run()
        return original(lake, path)

    monkeypatch.setattr(type(pipeline.lake), "stat", lose_then_stat)
    pipeline.archive()
    assert [r["event_type"] for r in pipeline.records_of_file() if r["id"] == "1"] == ["order.created", "new"]


def test_three_lost_races_are_enough(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    pipeline.add(3)
    original = type(pipeline.lake).stat
    depth: list[str] = []

    def stat_then_lose(lake: Lake, path: str):
        found = original(lake, path)
        if not depth and path.endswith(".csv"):
            depth.append(path)
            pipeline.add(1, prefix=f"late{len(pipeline.records_of_file()) if found else 0}")
            pipeline.archive()
            depth.clear()
        return found

    monkeypatch.setattr(type(pipeline.lake), "stat", stat_then_lose)
    with pytest.raises(FileChangedError):
        pipeline.archive()
    monkeypatch.undo()
    assert len(pipeline.values("id")) == len(set(pipeline.values("id"))) == 6


def test_rows_are_archived_by_time_then_key(pipeline: Pipeline):
    pipeline.database.execute(
        """INSERT INTO "Event" (id, event_id, event_type, created_at, payload)
        SELECT n, n::text, 't', '2024-03-01 12:00'::timestamp - (n / 2) * interval '1 minute', '{}'
        FROM generate_series(1, 6) AS n"""
    )
    pipeline.archive()
    assert pipeline.values("id") == ["6", "4", "5", "2", "3", "1"]

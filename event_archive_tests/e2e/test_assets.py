"""The assets in runs of Dagster, on a real PostgreSQL, each kind of lake and a persistent instance."""

import csv
import hashlib
import io
import json
from datetime import UTC, date, datetime

import dagster as dg
import pytest

from event_archive.config.environment import PipelineSettings
from event_archive.defs.assets import OUTCOME_TAG
from event_archive.defs.build import build_definitions
from event_archive.domain.days import ONE_DAY
from event_archive.domain.wording import took
from event_archive.table.holds import hold, release
from event_archive_tests.fixtures.archived import KEY
from event_archive_tests.fixtures.installation import ASSETS, Installation, failure, metadata
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.runs import retries


def test_the_assets_record_what_the_contract_names(installation: Installation, instance: dg.DagsterInstance):
    installation.add(10)
    result = installation.materialize(instance, KEY)
    assert result.success
    assert metadata(result, "aged_events") == {
        "dagster/row_count": 10,
        "first": "2024-03-01 00:00:00",
        "last": "2024-03-01 00:00:09",
    }
    content = installation.content()
    path = installation.dataset.path(DAY)
    file = installation.lake.stat(path)
    assert file is not None
    archived = metadata(result, "archive_csv")
    seconds, rate, schema, preview = (
        archived.pop(name) for name in ("seconds", "rows_per_second", "dagster/column_schema", "preview")
    )
    manifest = {
        "version": 1,
        "table": 'public."Event"',
        "rows": 10,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "columns": archived["manifest"]["columns"],
        "types": archived["manifest"]["types"],
        "system": archived["manifest"]["system"],
        "database": installation.database.name,
        "time_column": "created_at",
        "day": "2024-03-01",
        "keys": [["id"]],
    }
    assert archived == {
        "path": "titan-pulse-event-archive/events_2024-03-01.csv",
        "url": installation.lake.url(path),
        "dagster/row_count": 10,
        "rows_appended": 10,
        "bytes": len(content),
        "size": f"{len(content) / 1000:.1f} kB",
        "took": took(seconds),
        "sha256": manifest["sha256"],
        "etag": file.etag,
        "manifest": manifest,
    }
    assert seconds > 0
    assert rate == pytest.approx(10 / seconds)
    assert [(column.name, column.type) for column in schema.columns] == [
        ("id", "bigint"),
        ("event_id", "text"),
        ("event_type", "text"),
        ("created_at", "timestamp(3) without time zone"),
        ("processed_at", "timestamp(3) without time zone"),
        ("payload", "jsonb"),
    ]
    assert {column.constraints.nullable for column in schema.columns} == {True}
    lines = preview.splitlines()
    assert lines[0] == "| id | event_id | event_type | created_at | processed_at | payload |"
    assert (len(lines), lines[2].startswith("| 1 | evt-2024-03-01-0 | order.created | ")) == (7, True)
    purged = metadata(result, "purged_events")
    seconds = purged.pop("seconds")
    assert seconds > 0
    assert purged == {
        "took": took(seconds),
        "deleted": 10,
        "proven": 10,
        "left": 0,
        "dry_run": False,
        "outcome": "purged",
        "reason": "",
        "purge": "deleted",
    }
    assert installation.count() == 0


def test_the_columns_recorded_of_a_file_are_those_that_it_has(installation: Installation, instance: dg.DagsterInstance):
    """Not those that its table has by now."""

    def recorded() -> list[str]:
        result = installation.materialize(instance, KEY)
        schema = metadata(result, "archive_csv")["dagster/column_schema"]
        return [f"{column.name} {column.type}" for column in schema.columns]

    installation.add(2)
    before = recorded()
    assert before[0] == "id bigint"
    installation.database.execute('ALTER TABLE "Event" DROP COLUMN payload, ADD COLUMN note text')
    assert recorded() == [*before[:-1], "payload text"]
    installation.database.execute(
        """INSERT INTO "Event" (event_id, event_type, created_at) VALUES ('late', 't', '2024-03-01 05:00')"""
    )
    assert recorded() == [*before[:-1], "payload text", "note text"]


def test_materializing_again_one_or_all_changes_nothing(installation: Installation, instance: dg.DagsterInstance):
    installation.add(10)
    before = installation.everything()
    first = installation.materialize(instance, KEY, only=["aged_events", "archive_csv"])
    again = [installation.materialize(instance, KEY, only=["archive_csv"]) for _ in range(2)]
    again += [installation.materialize(instance, KEY), installation.materialize(instance, KEY)]
    again.append(installation.materialize(instance, KEY, only=["purged_events"]))
    assert all(result.success for result in again)
    etag = metadata(first, "archive_csv")["etag"]
    for result in again[:-1]:
        assert metadata(result, "archive_csv")["etag"] == etag
        assert metadata(result, "archive_csv")["rows_appended"] == 0
    purges = [metadata(result, "purged_events") for result in again[2:]]
    assert [purge["deleted"] for purge in purges] == [10, 0, 0]
    assert [purge["outcome"] for purge in purges] == ["purged", "nothing to do", "nothing to do"]
    assert installation.archived(DAY) == before
    # A row that has come since the archive is no reason to say that the day is purged.
    installation.add(1, prefix="late")
    purge = metadata(installation.materialize(instance, KEY, only=["purged_events"]), "purged_events")
    assert (purge["outcome"], purge["deleted"], purge["left"]) == ("nothing to do", 0, 1)


def test_a_late_row_is_appended_then_purged(installation: Installation, instance: dg.DagsterInstance):
    installation.add(3)
    installation.materialize(instance, KEY)
    installation.add(2, prefix="late")
    result = installation.materialize(instance, KEY)
    assert metadata(result, "aged_events")["dagster/row_count"] == 2
    assert [metadata(result, "archive_csv")[name] for name in ("dagster/row_count", "rows_appended")] == [5, 2]
    assert metadata(result, "purged_events")["deleted"] == 2
    assert sorted(installation.values("event_id")) == sorted(set(installation.values("event_id")))


def test_a_row_that_went_from_a_to_b_and_back_ends_as_a(local_installation: Installation, instance: dg.DagsterInstance):
    local_installation.add(1)
    for event_type in ("A", "B", "A"):
        local_installation.database.execute('UPDATE "Event" SET event_type = %s', event_type)
        local_installation.materialize(instance, KEY, only=["archive_csv"])
    result = local_installation.materialize(instance, KEY, only=["purged_events"])
    assert metadata(result, "purged_events")["deleted"] == 1
    assert local_installation.values("event_type") == ["A", "B", "A"]


def test_a_day_with_neither_rows_nor_a_file_stays_without_a_file(
    installation: Installation, instance: dg.DagsterInstance
):
    result = installation.materialize(instance, KEY)
    assert result.success
    archived = metadata(result, "archive_csv")
    assert {archived[name] for name in ("etag", "sha256", "manifest")} == {None}
    assert {archived[name] for name in ("dagster/row_count", "rows_appended", "bytes")} == {0}
    assert archived["preview"] == ""
    assert [metadata(result, "aged_events")[name] for name in ("first", "last")] == ["", ""]
    assert installation.lake.stat(installation.dataset.path(DAY)) is None


@pytest.mark.parametrize("by", ["run configuration", "DRY_RUN"])
def test_a_dry_run_proves_and_deletes_nothing(
    installation: Installation, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch, by: str
):
    installation.add(3)
    if by == "DRY_RUN":
        clean.setenv("DRY_RUN", "true")
    result = installation.materialize(instance, KEY, dry_run=by != "DRY_RUN")
    purged = metadata(result, "purged_events")
    assert [purged[name] for name in ("deleted", "proven", "left", "dry_run")] == [0, 3, 0, True]
    assert instance.get_run_by_id(result.run_id).tags[OUTCOME_TAG] == "dry run"  # type: ignore[union-attr]
    assert installation.count() == 3
    # A day that is held besides is in a dry run all the same.
    hold(installation.dataset, DAY, DAY, "a lawsuit", installation.postgres)
    held = metadata(installation.materialize(instance, KEY, dry_run=by != "DRY_RUN"), "purged_events")
    assert (held["outcome"], held["dry_run"]) == ("held", True)
    release(installation.dataset, DAY, DAY, installation.postgres)
    clean.delenv("DRY_RUN", raising=False)
    result = installation.materialize(instance, KEY)
    assert metadata(result, "archive_csv")["rows_appended"] == 0
    assert metadata(result, "purged_events")["deleted"] == 3


def test_the_days_at_the_edge_are_refused_with_the_date_to_come_back_on(
    local_installation: Installation, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch
):
    """A month spans up to three days more than the fewest it can: those days are partitions already."""
    clean.setenv("EVENT_RETENTION_PERIOD", "1 month")
    dataset = PipelineSettings.load().dataset
    monthly = local_installation.of(retention=dataset.retention)
    last_aged = dataset.retention.last_aged_day(datetime.now(UTC))
    days = [last_aged, last_aged + ONE_DAY]
    for day in days:
        monthly.add(2, day=day)
    young = days[1].isoformat()
    installed = Installation(monthly.database, monthly.lake, monthly.dataset, variables=local_installation.variables)
    assert installed.materialize(instance, days[0].isoformat()).success
    partitions = dg.DailyPartitionsDefinition("2015-01-01", end_offset=-dataset.retention.fewest_days)
    if young not in partitions.get_partition_keys():
        pytest.skip("today, the partitions end with the last aged day")
    for asset in ASSETS[:2]:
        result = installed.materialize(instance, young, only=[asset])
        assert f"{young} is not aged" in failure(result)
        assert "comes of age on" in failure(result)
        assert retries(result) == 0
    assert installed.count() == 2


def test_the_job_and_the_asset_pages_do_the_same(azure_installation: Installation, instance: dg.DagsterInstance):
    definitions = build_definitions(PipelineSettings.load())
    azure_installation.add(3)
    job = definitions.resolve_job_def("archive_job")
    by_job = job.execute_in_process(partition_key=KEY, instance=instance)
    assert metadata(by_job, "purged_events")["deleted"] == 3
    azure_installation.add(1, prefix="late")
    pages = definitions.resolve_implicit_global_asset_job_def()
    for asset, name, value in (("archive_csv", "rows_appended", 1), ("purged_events", "deleted", 1)):
        result = pages.execute_in_process(partition_key=KEY, instance=instance, asset_selection=[dg.AssetKey(asset)])
        assert metadata(result, asset)[name] == value
    assert azure_installation.count() == 0
    assert len(azure_installation.values("id")) == 4


def test_the_file_is_read_by_pythons_own_csv_module(azure_installation: Installation, instance: dg.DagsterInstance):
    payload = {"deep": [{"é": '☃ \\ "x"\n'}], "n": 1.5, "none": None}
    for event_id, event_type, moment in [("", 'a,"b"\r\nc\n', "12:00"), ("\\.", " ", "23:59:59.999")]:
        azure_installation.database.execute(
            'INSERT INTO "Event" (event_id, event_type, created_at, payload) VALUES (%s, %s, %s::timestamp, %s::jsonb)',
            event_id,
            event_type,
            f"{KEY} {moment}",
            json.dumps(payload),
        )
    before = azure_installation.everything()
    azure_installation.materialize(instance, KEY)
    records = list(csv.reader(io.StringIO(azure_installation.content().decode("utf-8"), newline="")))
    assert records[0] == ["id", "event_id", "event_type", "created_at", "processed_at", "payload"]
    assert [(*record[:4], record[4] or None, json.loads(record[5])) for record in records[1:]] == before
    assert before[0][5] == payload


def test_no_day_before_the_first_is_a_partition(local_installation: Installation, instance: dg.DagsterInstance):
    with pytest.raises(dg.DagsterUnknownPartitionError):
        local_installation.materialize(instance, date(2014, 12, 31).isoformat())

"""Which days are aged, by whose clock, and where a day ends."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from event_archive.domain.days import ONE_DAY, Retention, now_utc
from event_archive.domain.record import Record
from event_archive.errors import NotAgedError
from event_archive.nightly import backlog
from event_archive.nightly.backlog import days_to_do
from event_archive.operations import archive as archiving
from event_archive.operations import purge as purging
from event_archive_tests.fixtures.pipeline import DAY, Pipeline


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
    assert not pipeline.dataset.is_aged(young, days_to_do(pipeline.dataset, now, pipeline.postgres).at)


def test_a_day_that_is_named_is_aged_by_both_clocks(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """The plan promised what the run refused."""
    assert pipeline.dataset.is_aged(DAY, backlog.aged_at(pipeline.dataset, [DAY], pipeline.postgres))
    monkeypatch.setattr(backlog, "earlier_now", lambda _: datetime(2024, 3, 2, tzinfo=UTC))
    with pytest.raises(NotAgedError, match="2024-03-01 is not aged"):
        backlog.aged_at(pipeline.dataset, [DAY], pipeline.postgres)


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


def test_days_that_come_of_age_together_after_a_short_month_are_backlog_together(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    day, came_of_age = date(2025, 8, 28), datetime(2026, 3, 1, 8, tzinfo=UTC)
    pipeline.add(1, day=day)
    dataset = replace(pipeline.dataset, retention=Retention(6, 0))
    monkeypatch.setattr(backlog, "_by_both_clocks", lambda _connection, now: now)
    late = {
        days: backlog.backlog(dataset, came_of_age + timedelta(days=days), pipeline.postgres, grace_days=3).days
        for days in range(5)
    }
    assert late == {0: 0, 1: 0, 2: 0, 3: 1, 4: 1}

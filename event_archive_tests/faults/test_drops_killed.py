"""Partitions dropped in place of their rows, killed at every step; no row is ever lost."""

import os
from datetime import date, timedelta

import pytest

from event_archive_tests.faults.conftest import Zygote
from event_archive_tests.faults.tally import survived

# Kills


POINTS = {
    "copy in": 6,
    "before the delete": 1,
    "after the delete": 1,
    "before the commit": 1,
    "after the commit": 1,
    "before the purge's event": 1,
}
DAYS_OF_PARTITION = 3
ROWS = 80

_weeks = (date(2015, 2, 1) + timedelta(weeks=n) for n in range(500))
Rows = list[tuple[object, ...]]


def in_table(zygote: Zygote, first: date) -> Rows:
    return zygote.pipeline.database.execute(
        "SELECT id::text, event_id, event_type, created_at::text, coalesce(processed_at::text, ''), payload::text "
        f"FROM \"Event\" WHERE created_at >= '{first}' AND created_at < '{first}'::date + 7 ORDER BY id"
    )


def in_files(zygote: Zygote, days: list[date]) -> Rows:
    of = zygote.pipeline
    filed = [day for day in days if of.lake.stat(of.dataset.path(day))]
    return [tuple(record.values()) for day in filed for record in of.records_of_file(day)]


@pytest.mark.parametrize(
    ("point", "nth"), [(point, nth + 1) for point, times in POINTS.items() for nth in range(times)]
)
def test_a_kill_at_any_step_of_a_drop_costs_only_work(dropping_zygote: Zygote, point: str, nth: int):
    zygote, first = dropping_zygote, next(_weeks)
    days = [first + timedelta(days=n) for n in range(DAYS_OF_PARTITION)]
    partition = f"week_{first:%Y_%m_%d}"
    zygote.pipeline.database.execute(
        f"CREATE TABLE {partition} PARTITION OF \"Event\" FOR VALUES FROM ('{first}') TO ('{first + timedelta(7)}')"
    )
    for day in days:
        zygote.pipeline.add(ROWS, day=day)
    before = in_table(zygote, first)
    for day in days[:-1]:
        assert zygote.run(day) == 0
    assert in_table(zygote, first) == before

    status = zygote.run(days[-1], point=point, nth=nth)
    # All of the partition, or nothing of it.
    left = in_table(zygote, first)
    assert left in (before, [])
    assert {*left, *in_files(zygote, days)} == set(before)
    if os.WIFSIGNALED(status):
        survived(f"kills: a drop, {point}")
    else:
        assert (status, nth > 1) == (0, True)
    assert zygote.run(days[-1]) == 0
    assert in_table(zygote, first) == []
    assert sorted(in_files(zygote, days)) == sorted(before)
    assert zygote.pipeline.database.execute(f"SELECT to_regclass('{partition}')") == [(None,)]

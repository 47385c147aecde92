"""Days that wait until all of their partition is aged, and those that do not."""

from datetime import date, timedelta

import pytest

from event_archive.domain.days import now_utc
from event_archive.nightly.backlog import days_to_do
from event_archive.operations import drop_plan
from event_archive.table.holds import hold
from event_archive_tests.fixtures.partitions import NEXT, TABLE, TRIGGER, WEEKLY, aged_up_to, of_table, run_week
from event_archive_tests.fixtures.pipeline import DAY, Pipeline

pytestmark = pytest.mark.slow


def test_rows_wait_for_the_rest_of_their_partition_to_come_of_age(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY, retention=aged_up_to(NEXT))
    purged = of.run()
    assert (purged.outcome, purged.deleted, purged.left) == ("waiting", 0, 5)
    comes_of_age = of.dataset.retention.comes_of_age(date(2024, 3, 3))
    assert purged.reason == f"public.w is dropped when all of it is aged, on {comes_of_age}"
    assert len(of.records_of_file()) == 5


def waiting_days(of: Pipeline) -> set[date]:
    return days_to_do(of.dataset, now_utc(), of.postgres).waiting


def test_no_day_waits_for_a_partition_that_begins_after_it(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY, retention=aged_up_to(NEXT))
    of.database.execute(
        """CREATE TABLE before PARTITION OF t FOR VALUES FROM ('2024-02-25 00:00+00') TO ('2024-02-26 00:00+00');
        INSERT INTO t VALUES (0, '2024-02-25 08:00+00', 'n')"""
    )
    assert waiting_days(of) == {DAY, NEXT}


@pytest.mark.parametrize("in_the_next", [False, True])
def test_a_day_waits_for_a_partition_that_begins_on_it_by_another_zone_only_where_that_holds_rows_of_it(
    pipeline: Pipeline, *, in_the_next: bool
):
    of = of_table(
        pipeline,
        f"""{TABLE}
        CREATE TABLE february PARTITION OF t FOR VALUES FROM ('2024-02-01 00:00+01') TO ('2024-03-02 00:00+01');
        CREATE TABLE march PARTITION OF t FOR VALUES FROM ('2024-03-02 00:00+01') TO ('2024-04-01 00:00+02');
        INSERT INTO t VALUES (1, '2024-03-01 08:00+00', 'n'), (2, '2024-03-01 22:59+00', 'n');
        INSERT INTO t SELECT 3, '2024-03-01 23:00+00', 'n' WHERE {in_the_next}""",
        retention=aged_up_to(NEXT),
    )
    assert waiting_days(of) == ({DAY} if in_the_next else set())
    purged = of.run()
    if in_the_next:
        assert (purged.outcome, purged.left) == ("waiting", 3)
        assert str(purged.reason).startswith("public.march is dropped when all of it is aged")
    else:
        assert (purged.how, purged.partitions, of.count()) == ("dropped", ("public.february",), 0)


def test_no_day_waits_where_a_part_of_its_partition_is_deleted_from(pipeline: Pipeline):
    of = of_table(
        pipeline,
        f"""{TABLE} {TRIGGER} CREATE TABLE w PARTITION OF t FOR VALUES FROM ('2024-02-26') TO ('2024-03-04')
            PARTITION BY HASH (id);
        CREATE TABLE w1 PARTITION OF w FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE w2 PARTITION OF w FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO t SELECT n, '2024-03-01 08:00+00', 'n' FROM generate_series(1, 5) AS n""",
        retention=aged_up_to(NEXT),
    )
    assert waiting_days(of) == {DAY}
    of.database.execute("CREATE TRIGGER own AFTER DELETE ON w1 FOR EACH ROW EXECUTE FUNCTION f()")
    assert waiting_days(of) == set()
    assert (of.run().how, of.count()) == ("deleted", 0)


def test_nor_does_the_first_day_of_a_partition_of_whose_parts_one_without_its_rows_is_deleted_from(pipeline: Pipeline):
    of = of_table(
        pipeline,
        f"""{TABLE} {TRIGGER} CREATE TABLE w PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-08')
            PARTITION BY LIST (id);
        CREATE TABLE w1 PARTITION OF w FOR VALUES IN (1);
        CREATE TABLE w2 PARTITION OF w FOR VALUES IN (2);
        CREATE TRIGGER own AFTER DELETE ON w1 FOR EACH ROW EXECUTE FUNCTION f();
        INSERT INTO t VALUES (2, '2024-03-01 08:00+00', 'n')""",
        retention=aged_up_to(NEXT),
    )
    assert waiting_days(of) == set()
    assert (of.run().how, of.count()) == ("deleted", 0)


def test_no_day_waits_for_a_partition_that_ends_in_years(pipeline: Pipeline):
    of = of_table(
        pipeline,
        f"""{TABLE} CREATE TABLE ever PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('9998-01-01');
        INSERT INTO t VALUES (1, '2024-03-01 08:00+00', 'n')""",
    )
    purged = of.run()
    assert (purged.how, purged.deleted) == ("deleted", 1)
    assert purged.reason == "public.ever goes on for more than a year after it"


def test_a_day_waits_for_a_week_at_the_most(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(pipeline, WEEKLY)
    assert of.run().outcome == "waiting"
    monkeypatch.setattr(drop_plan, "MOST_WAITING", timedelta(0))
    purged = of.run()
    assert (purged.outcome, purged.deleted, purged.how) == ("purged", 5, "deleted")
    assert "2024-03-02, which lies in the same partition, is not archived, though this day was, over a week ago" in str(
        purged.reason
    )


def test_a_held_day_lets_the_others_be_deleted(pipeline: Pipeline):
    of = of_table(pipeline, WEEKLY)
    hold(of.dataset, NEXT, NEXT, "a court", of.postgres)
    first, second, third = run_week(of)
    assert (first.how, first.deleted, third.how, third.deleted) == ("deleted", 5, "deleted", 2)
    assert "2024-03-02, which lies in the same partition, is held" in first.reason
    assert (second.outcome, second.deleted) == ("held", 0)
    assert of.count() == 3

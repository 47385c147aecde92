"""Stretches of days that are asked for together: where they end, and what is found in them."""

import time
from datetime import UTC, date, datetime, timedelta

import pytest

from event_archive.domain.days import ONE_DAY, day_range
from event_archive.errors import BusyError
from event_archive.nightly.backlog import days_to_do, rows_of_aged_days
from event_archive.nightly.orphans import orphans
from event_archive.postgres.catalogue.ranges import beginnings
from event_archive.table import rows
from event_archive.table.rows import Orphans
from event_archive.table.windows import letting_go
from event_archive_tests.fixtures.many_partitions import FIRST, LAST, TABLE, of_t, stretches
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database

pytestmark = pytest.mark.slow


# Stretches


SHAPES = {
    "date": "CREATE TABLE t (id int, at date, PRIMARY KEY (at, id)) PARTITION BY RANGE (at)",
    "timestamp": TABLE,
    "timestamptz": "CREATE TABLE t (id int, at timestamptz, PRIMARY KEY (at, id)) PARTITION BY RANGE (at)",
    "more columns": "CREATE TABLE t (id int, at timestamp, PRIMARY KEY (at, id)) PARTITION BY RANGE (at, id)",
}


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("event_archive.table.windows.MOST_PARTITIONS", 1)


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("kind", SHAPES)
def test_stretches_end_where_partitions_begin(each_database: Database, pipeline: Pipeline, kind: str):
    each_database.execute(f"SET TimeZone TO 'UTC'; {SHAPES[kind]}")
    second = ", 5" if kind == "more columns" else ""
    for start, end in [("2023-02-01", "2023-03-01"), ("2023-03-01", "2023-04-01"), ("2024-01-01", "2024-02-01")]:
        each_database.execute(
            f"""SET TimeZone TO 'UTC';
            CREATE TABLE "{start}" PARTITION OF t FOR VALUES FROM ('{start}'{second}) TO ('{end}'{second})"""
        )
    of = of_t(each_database, pipeline)
    assert stretches(of) == [
        (FIRST, date(2023, 2, 28)),
        (date(2023, 3, 1), date(2023, 12, 31)),
        (date(2024, 1, 1), LAST),
    ]
    assert stretches(of, date(2023, 2, 5), date(2023, 2, 7)) == [(date(2023, 2, 5), date(2023, 2, 7))]
    assert stretches(of, LAST, FIRST) == []


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize(
    "definition",
    [
        "CREATE TABLE t (id int, at timestamp, PRIMARY KEY (id, at)) PARTITION BY HASH (id)",
        "CREATE TABLE t (id int, at timestamp, PRIMARY KEY (id, at)) PARTITION BY RANGE (id)",
        f"{TABLE}; CREATE TABLE p PARTITION OF t FOR VALUES FROM (MINVALUE) TO ('2024-01-01')",
        f"{TABLE}; CREATE TABLE p PARTITION OF t FOR VALUES FROM ('0045-02-29 BC') TO ('2024-01-01')",
        f"{TABLE}; CREATE TABLE p PARTITION OF t FOR VALUES FROM ('20000-01-01') TO (MAXVALUE)",
        f"{TABLE}; CREATE TABLE p PARTITION OF t DEFAULT",
        f"{TABLE}; CREATE TABLE p PARTITION OF t FOR VALUES FROM ('2023-02-01') TO (MAXVALUE) PARTITION BY HASH (id)",
        """CREATE TABLE t (id int, at timestamp PRIMARY KEY);
        CREATE TABLE other (at timestamp) PARTITION BY RANGE (at);
        CREATE TABLE p PARTITION OF other FOR VALUES FROM ('2023-02-01') TO ('2024-01-01')""",
    ],
    ids=["hash", "another column", "from the first", "BC", "year 20000", "default", "no leaf", "one piece"],
)
def test_what_is_no_range_of_times_ends_no_stretch(each_database: Database, pipeline: Pipeline, definition: str):
    each_database.execute(definition)
    assert stretches(of_t(each_database, pipeline), date.min, date.max) == [(date.min, date.max)]


@pytest.mark.usefixtures("one_by_one")
def test_partitions_of_partitions_count_where_the_time_divides_them(each_database: Database, pipeline: Pipeline):
    each_database.execute(
        """CREATE TABLE t (id int, at timestamp, PRIMARY KEY (at, id)) PARTITION BY LIST (id);
        CREATE TABLE one PARTITION OF t FOR VALUES IN (1) PARTITION BY RANGE (at);
        CREATE TABLE jan PARTITION OF one FOR VALUES FROM ('2023-01-01') TO ('2023-02-01') PARTITION BY HASH (id);
        CREATE TABLE jan_0 PARTITION OF jan FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE jan_1 PARTITION OF jan FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE feb PARTITION OF one FOR VALUES FROM ('2023-02-01') TO ('2023-03-01');
        CREATE TABLE rest PARTITION OF t DEFAULT"""
    )
    with Pipeline(each_database, pipeline.lake).postgres.transaction("test") as connection:
        ((oid,),) = each_database.execute("SELECT 't'::regclass::oid::int8")
        assert isinstance(oid, int)
        for backslashes in ("on", "off"):
            connection.execute("SELECT set_config('standard_conforming_strings', %s, true)", (backslashes,))
            assert beginnings(connection, oid, "at") == [(date(2023, 1, 1), 2), (date(2023, 2, 1), 1)]
        assert beginnings(connection, oid, "id") == []


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("key", ["at, id", "id, at"], ids=["indexed", "not indexed"])
def test_rows_are_found_in_each_stretch_whatever_partition_they_are_in(
    each_database: Database, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, key: str
):
    """The partitions begin at noon, and one takes what no other does, rows of no day among them."""
    noon = timedelta(hours=12)
    each_database.execute(f"{TABLE.replace('at, id', key)}; CREATE TABLE rest PARTITION OF t DEFAULT")
    for day in (DAY - ONE_DAY, DAY, DAY + ONE_DAY):
        start, end = (datetime(day.year, day.month, day.day) + noon * place for place in (1, 3))  # noqa: DTZ001
        each_database.execute(f"CREATE TABLE \"{day}\" PARTITION OF t FOR VALUES FROM ('{start}') TO ('{end}')")
    each_database.execute(
        """INSERT INTO t SELECT n, '2024-02-28'::timestamp + n * interval '6 hours' FROM generate_series(0, 19) AS n;
        INSERT INTO t VALUES (1, 'infinity'), (1, '-infinity'), (1, '0044-03-15 BC'), (1, '1999-01-01'),
        (1, '2030-01-01')"""
    )
    of = of_t(each_database, pipeline)
    assert len(stretches(of)) == 3
    found = rows_of_aged_days(of.dataset, datetime.now(UTC), of.postgres)
    assert found.rows == dict.fromkeys(day_range(date(2024, 2, 28), date(2024, 3, 3)), 4)
    assert found.orphans == Orphans(before_start=2, not_finite=2)
    assert days_to_do(of.dataset, datetime.now(UTC), of.postgres).days == list(found.rows)
    late = of.of(start=date(2024, 3, 2))
    assert orphans(late.dataset, late.postgres) == Orphans(before_start=14, not_finite=2)
    # No stretch is searched any more once it is clear that something is wrong.
    monkeypatch.setattr(rows, "MOST_ORPHANS", 2)
    some = orphans(late.dataset, late.postgres)
    assert some.before_start + some.not_finite == 3


@pytest.mark.usefixtures("one_by_one")
def test_rows_without_a_time_are_counted_once_in_whatever_stretches_the_others_are(
    database: Database, pipeline: Pipeline
):
    database.execute(
        """CREATE TABLE t (id int PRIMARY KEY, at timestamp) PARTITION BY LIST (id);
        CREATE TABLE one PARTITION OF t FOR VALUES IN (1, 2, 3) PARTITION BY RANGE (id);
        CREATE TABLE ones PARTITION OF one DEFAULT;
        INSERT INTO t VALUES (1, NULL), (2, 'infinity'), (3, '1999-01-01')"""
    )
    of = of_t(database, pipeline)
    assert orphans(of.dataset, of.postgres) == Orphans(before_start=1, not_finite=2)


def test_a_search_whose_time_is_over_is_given_up_at_once(pipeline: Pipeline):
    with (
        pytest.raises(BusyError, match="statement timeout"),
        pipeline.postgres.transaction("test") as connection,
        letting_go(connection, time.monotonic() - 1),
    ):
        connection.execute("SELECT pg_catalog.pg_sleep(5)")

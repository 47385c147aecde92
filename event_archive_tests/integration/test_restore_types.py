"""Values whose column has another type today, or that another tool spelled, come back whole or are refused."""

from functools import partial

import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import IntegrityError, RefusedError
from event_archive.operations import losses
from event_archive.operations.adopt import adopt_day
from event_archive.operations.restore.day import restore_day
from event_archive.operations.restore.target import target_named
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, of_wide_table
from event_archive_tests.fixtures.progress import Seen
from event_archive_tests.fixtures.restoring import restoring
from event_archive_tests.fixtures.waiting import until

NARROWED = """CREATE TABLE n (id int PRIMARY KEY, at timestamp, v {})"""


@pytest.mark.parametrize(
    ("was", "value", "now"),
    [
        ("numeric", "1.23456", "numeric(10,2)"),
        ("double precision", "0.123456789012", "real"),
        ("timestamp", "2024-02-02 03:04:05", "date"),
        ("timestamp", "2024-02-02 03:04:05.678", "timestamp(0)"),
        ("text", "2024-02-02 03:04:05-05", "timestamp"),
        ("time", "01:02:03.456", "time(0)"),
        ("numeric[]", "{1.23456}", "numeric(10,2)[]"),
        ("json", '{"b":1, "a":2, "a":3}', "jsonb"),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_what_todays_types_would_cut_short_is_not_restored_into_them(
    pipeline: Pipeline, was: str, value: str, now: str, in_place: bool
):
    of = narrowed(pipeline, was, value, now)
    with pytest.raises(RefusedError, match=r"would lose something as the types of .*: v \(1 row\).*--table NAME"):
        restoring(of)(in_place=in_place)
    assert of.count() == 0
    pipeline.database.execute("CREATE TABLE mine (id int PRIMARY KEY, at timestamp, v text)")
    assert restoring(of)("mine").restored == 1
    assert pipeline.database.execute("SELECT v FROM mine") == [(value,)]


@pytest.mark.parametrize(
    ("was", "value", "now"),
    [
        ("int", "1", "numeric(10,2)"),
        ("real", "0.1", "double precision"),
        ("date", "2024-02-02", "timestamptz"),
        ("timestamp", "2024-02-02 03:04:05", "timestamptz"),
        ("varchar(2)", "ab", "char(4)"),
        ("json", '{"b":1, "a":2e0}', "jsonb"),
    ],
)
def test_a_type_that_keeps_all_of_a_value_is_restored_into(pipeline: Pipeline, was: str, value: str, now: str):
    assert restoring(narrowed(pipeline, was, value, now))(in_place=True).restored == 1


@pytest.mark.parametrize(
    ("was", "value", "now"),
    [
        ("timestamp", "2024-02-02 03:04:05", "timestamptz"),
        ("timestamp", "2024-02-02 03:04:05 BC", "timestamptz"),
        ("date", "2024-02-02", "timestamptz"),
        ("timestamptz", "2024-02-02 03:04:05.6+00", "timestamp"),
        ("timestamptz", "2024-02-02 00:00:00+00", "date"),
        ("time", "03:04", "timetz"),
    ],
)
def test_a_time_that_got_or_lost_its_time_zone_is_restored_with_a_warning(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, was: str, value: str, now: str
):
    assert restoring(narrowed(pipeline, was, value, now))(in_place=True).restored == 1
    assert "or the other way round: v (1 row). They are restored as times of UTC" in caplog.text


@pytest.mark.parametrize(
    ("was", "value", "now"),
    [
        ("timestamp", "2024-02-02 03:04:05", "timestamp(0)"),
        ("timestamptz", "2024-02-02 03:04:05+00", "timestamptz(0)"),
        ("timestamp", "infinity", "timestamptz"),
        ("date", "2024-02-02", "timestamp"),
        ("text", "2024-02-02T03:04:05Z", "timestamptz"),
    ],
)
def test_a_time_that_kept_its_time_zone_is_restored_without_a_warning(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, was: str, value: str, now: str
):
    assert restoring(narrowed(pipeline, was, value, now))(in_place=True).restored == 1
    assert "time zone" not in caplog.text


def narrowed(pipeline: Pipeline, was: str, value: str, now: str) -> Pipeline:
    """A day archived and purged, whose column got another type since."""
    pipeline.database.execute(NARROWED.format(was))
    pipeline.database.execute("INSERT INTO n VALUES (1, '2024-03-01', %s)", value)
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    assert of.run().deleted == 1
    pipeline.database.execute(f"ALTER TABLE n ALTER v TYPE {now} USING v::text::{now}")
    return of


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("date", "today"),
        ("moment", "NOW"),
        ("pair", "(now,today)"),
        ("date[]", "{2024-01-01,Tomorrow}"),
        ("tstzrange", "[2024-01-01,now)"),
    ],
)
def test_a_time_that_means_another_day_each_day_is_no_proof_nor_restored(pipeline: Pipeline, kind: str, said: str):
    pipeline.database.execute("CREATE DOMAIN moment AS timestamptz; CREATE TYPE pair AS (said text, at date)")
    pipeline.database.execute(f"CREATE TABLE n (id int PRIMARY KEY, at timestamp, v {kind}, note text)")
    pipeline.database.execute("INSERT INTO n VALUES (1, '2024-03-01', %s, 'today')", said)
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.put(f'id,at,v,note\n1,2024-03-01,"{said}",today\n'.encode())
    content = of.content()
    for refused in (of.run, partial(adopt_day, of.site, DAY), partial(restoring(of), in_place=True)):
        with pytest.raises(RefusedError, match=r'means another one each day: "?v"? \(1 row\)\. '):
            refused()
    assert (of.count(), of.content()) == (1, content)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bytea", "unknown user"),
        ("text", "today"),
        ("jsonb", '{"a":   "\\u006eow", "b": "known"}'),
        ("json[]", '{"{\\"a\\": \\"now\\"}"}'),
    ],
)
def test_a_word_that_is_no_time_is_taken_over_and_restored(pipeline: Pipeline, kind: str, value: str):
    pipeline.database.execute(f"CREATE TABLE n (id int PRIMARY KEY, at timestamp, v {kind})")
    pipeline.database.execute(f"INSERT INTO n VALUES (1, '2024-03-01', %s::text::{kind})", value)
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.put(b'id,at,v\n1,2024-03-01,"' + value.replace('"', '""').encode() + b'"\n')
    assert of.run().deleted == 1
    assert restoring(of)(in_place=True).restored == 1


@pytest.mark.parametrize(("value", "now"), [("tomorrow", "date"), ("now", "timestamptz")])
def test_a_text_that_now_means_another_day_each_day_is_not_restored(pipeline: Pipeline, value: str, now: str):
    of = narrowed(pipeline, "text", value, now)
    with pytest.raises(RefusedError, match=r"means another one each day: v \(1 row\).*--table NAME"):
        restoring(of)(in_place=True)
    assert of.count() == 0


@pytest.mark.parametrize("more", ["", "CREATE DOMAIN d AS text; ALTER TABLE n ADD more d"], ids=["known", "unknown"])
def test_a_text_that_became_a_time_and_means_another_one_each_day_is_no_proof(pipeline: Pipeline, more: str):
    pipeline.database.execute(f"{NARROWED.format('text')}; {more}")
    pipeline.database.execute("INSERT INTO n VALUES (1, '2024-03-01', 'today')")
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.archive()
    until(lambda: pipeline.database.execute("SELECT localtime < '23:59:30'") == [(True,)], seconds=40)
    pipeline.database.execute("ALTER TABLE n ALTER v TYPE date USING v::date")
    with pytest.raises(IntegrityError, match=r"means another one each day: v \(1 row\)\. Nothing was deleted"):
        of.run()
    assert of.count() == 1


@pytest.mark.parametrize(
    ("value", "now"), [(r"{to\day}", "date[]"), ('[to"d"ay,)', "daterange"), ('(to"day")', "pair")]
)
def test_a_word_with_quotes_in_it_means_another_day_each_day_too(pipeline: Pipeline, value: str, now: str):
    pipeline.database.execute(f"{NARROWED.format('text')}; CREATE TYPE pair AS (day date)")
    pipeline.database.execute("INSERT INTO n VALUES (1, '2024-03-01', %s)", value)
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.archive()
    until(lambda: pipeline.database.execute("SELECT localtime < '23:59:30'") == [(True,)], seconds=40)
    pipeline.database.execute(f"ALTER TABLE n ALTER v TYPE {now} USING v::{now}")
    with pytest.raises(IntegrityError, match=r"means another one each day: v \(1 row\)\. Nothing was deleted"):
        of.run()
    assert of.count() == 1


def test_values_that_no_longer_parse_are_refused_where_a_table_is_nothing_but_key(pipeline: Pipeline):
    pipeline.database.execute(
        "CREATE TABLE n (k text, at timestamp, PRIMARY KEY (k, at)); INSERT INTO n VALUES ('x', '2024-03-01')"
    )
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    assert of.run().deleted == 1
    pipeline.database.execute("ALTER TABLE n ALTER k TYPE int USING 1")
    with pytest.raises(RefusedError, match="do not all parse"):
        restoring(of)(in_place=True)


@pytest.mark.parametrize("day", ["5874897-12-31", "infinity", "4713-01-01 BC"])
def test_a_date_that_is_no_instant_is_restored(pipeline: Pipeline, day: str):
    pipeline.database.execute(
        f"""CREATE TYPE kind AS ENUM ('a', 'b');
        CREATE TABLE n (id int, until date, at timestamp, v kind, PRIMARY KEY (id, until));
        INSERT INTO n VALUES (1, '{day}', '2024-03-01', 'a')"""
    )
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.archive()
    pipeline.database.execute("UPDATE n SET v = 'b'")
    assert of.run().deleted == 1
    done = restoring(of)()
    assert (done.restored, done.superseded) == (1, 1)


def test_infinity_that_another_tool_spelled_otherwise_is_restored(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    pipeline.database.execute("CREATE TABLE n (id int PRIMARY KEY, at timestamptz, until date, due timestamptz)")
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.put(b"id,at,until,due\n1,2024-03-01,Infinity,-INFINITY\n")
    assert restoring(of)().restored == 1
    assert "would lose something" not in caplog.text


OTHERWISE_SPELLED = b'id,at,v,j,ok\n1,2024-03-01T01:02:03Z,1e1,"{""b"":1,""a"":2}",true\n'


@pytest.mark.parametrize("taken_over", [False, True])
def test_what_another_tool_spelled_otherwise_is_restored(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, taken_over: bool
):
    pipeline.database.execute(
        "CREATE TABLE n (id int PRIMARY KEY, at timestamptz, v numeric(9,1), j jsonb, ok boolean)"
    )
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.put(OTHERWISE_SPELLED)
    if taken_over:
        of.database.execute("INSERT INTO n (id, at) VALUES (2, '2024-03-01')")
        of.run()
    assert restoring(of)().restored == 1 + taken_over
    assert "would lose something" not in caplog.text


def test_what_is_cut_short_of_another_tools_file_is_said(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    pipeline.database.execute("CREATE TABLE n (id int PRIMARY KEY, at timestamp, v numeric(10,2))")
    of = pipeline.of(table=TableName("public", "n"), time_column="at")
    of.put(b"id,at,v\n1,2024-03-01,1.234\n")
    assert restoring(of)().restored == 1
    assert "would lose something as the types of public.n_restored: v (1 row)" in caplog.text


def test_before_postgresql_16_a_document_is_compared_as_it_is_spelled():
    assert [losses._same("jsonb", version) for version in (150000, 160000)] == ["false", losses._JSONB]


def test_a_file_is_read_twice_only_where_it_may_not_be_of_todays_types(pipeline: Pipeline):
    def times_read(name: str) -> float:
        seen = Seen()
        restore_day(pipeline.site, DAY, target_named(pipeline.dataset, name), progress=seen)
        return sum(phase.bytes for phase in seen.phases) / len(pipeline.content())

    def archive_more() -> str | None:
        pipeline.add(10)
        manifest = pipeline.archive().manifest
        assert manifest is not None
        return manifest.types

    as_today = archive_more()
    assert as_today
    assert times_read("one") == 1
    # Late rows of the same types change nothing of that, and of other types for good.
    pipeline.database.execute('DELETE FROM "Event"')
    assert archive_more() == as_today
    assert times_read("two") == 1
    pipeline.database.execute('DELETE FROM "Event"; ALTER TABLE "Event" ALTER event_type TYPE varchar(40)')
    assert times_read("three") == 2
    assert archive_more() == ""
    assert times_read("four") == 2
    pipeline.database.execute('DELETE FROM "Event"; ALTER TABLE "Event" ALTER event_type TYPE text')
    assert archive_more() == ""
    assert times_read("five") == 2


def test_a_file_is_read_twice_where_a_column_got_another_collation(pipeline: Pipeline):
    """By one that is not deterministic, keys may be equal that were not."""
    seen = Seen()
    pipeline.add(1)
    pipeline.run()
    pipeline.database.execute('ALTER TABLE "Event" ALTER event_id TYPE text COLLATE "C"')
    restore_day(pipeline.site, DAY, pipeline.dataset.table, progress=seen)
    assert [phase.name for phase in seen.phases if phase.bytes] == ["reading back", "reading as text"]


def test_a_table_of_many_columns_whose_types_may_mean_something_else_is_restored(pipeline: Pipeline):
    of = of_wide_table(pipeline, 1500, "int", "0")
    assert of.run().deleted == 3
    assert restoring(of)(in_place=True).restored == 3
    of.database.execute("UPDATE t SET c7 = 1 WHERE id = 2; ALTER TABLE t DROP c8")
    assert of.run().deleted == 3
    assert restoring(of)("mine").restored == 3

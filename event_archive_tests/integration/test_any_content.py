"""Whatever a table holds goes through archive, read-back and purge unchanged."""

import csv
import io
import json
from datetime import date, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from event_archive.domain.dataset import TableName
from event_archive.errors import RefusedError
from event_archive.lake.protocol import Lake
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.statements import OF_EVERY_TYPE, TYPES

pytestmark = pytest.mark.slow


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    [
        "",
        "\\.",
        "\n\\.\n",
        '"',
        '""',
        ",",
        "\r\n",
        "\r",
        "NULL",
        "\\N",
        " ",
        "\t",
        "\ufeff",
        "a\n\\.\nb",
        "☃",
        "\x7f\x01",
    ]
)
json_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
deep = st.integers(1, 200).map(lambda depth: "[" * depth + "]" * depth)
large = st.integers(1, 200_000).map(lambda size: json.dumps({"x": "y" * size}))
# JSON text keeps its spaces, the order of its keys and its doubled keys; jsonb does not.
document = (
    json_value.map(json.dumps) | deep | large | st.sampled_from(['{"b":1,"a":2,"a":3}', "1e400", " 1.50 ", '"\\u00e9"'])
)
timestamps = st.datetimes().map(str) | st.sampled_from(
    ["infinity", "-infinity", "0044-03-15 BC", "294276-12-31 23:59:59.999999"]
)

VALUES: dict[str, st.SearchStrategy[object]] = {
    "words": text,
    "fixed": st.text("ab ", max_size=5),
    "raw": st.binary(max_size=50),
    "exact": st.decimals(allow_nan=False, allow_infinity=False).map(str)
    | st.sampled_from(["NaN", "Infinity", "1.500", "-0"]),
    "single": st.floats(width=32).map(str) | st.just("-0"),
    "double": st.floats().map(str) | st.just("-0"),
    "flag": st.booleans(),
    "letter": st.sampled_from(["a", "", '"', ","]),
    "document": document,
    "binary_document": document,
    "moment": timestamps,
    "zoned": timestamps,
    "day": st.dates().map(str) | st.sampled_from(["infinity", "-infinity", "4713-01-01 BC"]),
    "clock": st.times().map(lambda t: f"{t}+05:30"),
    "span": st.sampled_from(["1 year -2 days 03:04:05.678", "-178000000 years", "0"]),
    "numbers": st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), max_size=5),
    "texts": st.lists(st.none() | text, max_size=5),
    "mood": st.sampled_from(["sad", "ok", 'ha,"ppy', ""]),
    "pair": st.sampled_from(["(,)", '(1,"")', '(1,"a ""b"", c")', '(,"\n")']),
    "address": st.ip_addresses().map(str) | st.just("10.1.2.3/8"),
    "network": st.sampled_from(["10.0.0.0/8", "::/0"]),
    "cash": st.integers(-(10**15), 10**15).map(lambda cents: str(cents / 100)),
    "bits": st.text("01", max_size=20),
    "numbers_range": st.sampled_from(["empty", "[1,5)", "(,)", "[7,7]"]),
    "spans": st.sampled_from(["{}", "{[2020-01-01,2020-02-01),(2021-01-01,)}"]),
    "point": st.sampled_from(["(1.1,-0)", "(NaN,Infinity)"]),
    "search": st.sampled_from(["", "'a b':1A 'ü':2"]),
    "positive": st.integers(1, 2**31 - 1),
}

row = st.fixed_dictionaries(
    {"key": text, "part": st.integers(-5, 5), "second": st.integers(0, 86399)}
    | {name: st.none() | values for name, values in VALUES.items()}
)


def test_every_type_has_values():
    assert VALUES.keys() == TYPES.keys()


def test_any_content_goes_through_unchanged(each_pipeline: Pipeline):
    each_pipeline.database.execute(OF_EVERY_TYPE)
    of = each_pipeline.of(table=TableName("public", "anything"), time_column="at")
    days = iter(date(2015, 1, 1) + timedelta(days=n) for n in range(10_000))
    with psycopg.connect(of.database.dsn, autocommit=True) as connection:

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(st.lists(row, min_size=1, max_size=6, unique_by=lambda r: (r["key"], r["part"])))
        def check(rows: list[dict[str, object]]):
            day = next(days)
            names = ["key", "part", *TYPES]
            casts = ["%(key)s::text", "%(part)s::int", *(f"%({name})s::{kind}" for name, kind in TYPES.items())]
            with connection.cursor() as cursor:
                cursor.executemany(
                    f"INSERT INTO anything (at, {', '.join(names)}) "
                    f"VALUES ('{day}'::timestamp + %(second)s * interval '1 second', {', '.join(casts)})".encode(),
                    rows,
                )
            archived = of.archive(day)
            assert archived.rows == len(rows)
            records = list(csv.DictReader(io.StringIO(of.content(day).decode(), newline="")))
            assert sorted((r["key"], int(r["part"])) for r in records) == sorted((r["key"], r["part"]) for r in rows)
            for record in records:
                json.loads(record["document"] or "null")
                json.loads(record["binary_document"] or "null")
            assert of.archive(day).etag == archived.etag
            purged = of.purge(day)
            assert (purged.deleted, purged.left) == (len(rows), 0)

        csv.field_size_limit(10**9)
        check()


def test_a_value_that_its_text_brings_back_in_other_bytes_is_identical(pipeline: Pipeline):
    """A part of an array keeps the room for a NULL that it has not."""
    pipeline.database.execute(
        """CREATE TABLE t (id int PRIMARY KEY, at date, part int[]);
        INSERT INTO t VALUES (1, '2024-03-01', (ARRAY[1, NULL, 3])[1:1])"""
    )
    (same,) = pipeline.database.execute("SELECT record_image_eq(ROW(part), ROW(part::text::int[])) FROM t")
    assert same == (False,)
    of = pipeline.of(table=TableName("public", "t"), time_column="at")
    assert of.run().deleted == 1


def test_a_text_that_is_no_utf_8_is_one_message_and_the_other_days_go_on(
    local_installation: Installation, command: Commands, sql_ascii: Database
):
    for day, code in (("2024-03-01", "ff"), ("2024-03-02", "62")):
        sql_ascii.execute(
            f"""INSERT INTO "Event" (event_id, event_type, created_at, payload)
            VALUES ('{day}', convert_from('\\x{code}', 'SQL_ASCII'), '{day}', '{{}}')"""
        )
    for _ in range(2):
        done = command("run", PG_CONNECTION_STRING=sql_ascii.dsn, LOG_FORMAT="json")
        assert done.code == 1
        error = done.days["2024-03-01"]["error"]
        assert "Nothing was deleted. A text of it is no UTF-8" in error
        assert "whose encoding is UTF8" in error
    assert sql_ascii.execute('SELECT created_at::date FROM "Event"') == [(date(2024, 3, 1),)]
    assert command("verify", PG_CONNECTION_STRING=sql_ascii.dsn, LOG_FORMAT="json").code == 0


@pytest.mark.parametrize("value", ["event_id", "payload"])
def test_a_character_of_two_codes_is_not_taken_for_the_other_one(euc_jp: Database, local_lake: Lake, value: str):
    """In UTF-8 both are one: the file would hold one row twice, and the other one nowhere."""
    pipeline = Pipeline(euc_jp, local_lake)
    columns = {"event_id": "code", "payload": "code"} | {value: "convert_from(decode(code, 'hex'), 'EUC_JP')"}
    euc_jp.execute(
        f"""INSERT INTO "Event" (event_id, event_type, created_at, payload)
        SELECT {columns["event_id"]}, code, '2024-03-01', to_jsonb({columns["payload"]})
        FROM unnest(ARRAY['a2e2', 'adf0']) AS code"""
    )
    for _ in range(2):
        with pytest.raises(RefusedError, match="Nothing was deleted. A text of it is no UTF-8"):
            pipeline.run()
    assert pipeline.count() == 2
    euc_jp.execute("DELETE FROM \"Event\" WHERE event_type = 'adf0'")
    assert pipeline.run().deleted == 1

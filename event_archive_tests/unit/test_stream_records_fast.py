"""The fast way to read a stream's entries reads what the other one reads, or nothing; and no entry stops the others."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from event_archive.sources.redis_stream.plain import PlainReader
from event_archive.sources.redis_stream.records import Entry, decode, fields, raw
from event_archive.sources.redis_stream.rows import RejectedError, row
from event_archive.sources.runs import NONE_AGED
from event_archive_tests.fixtures.entries import NOW, RECORD, ROW, ZONE, decoded, entry, parsed

TEXTS = [
    *("356307", "a\nb", "", " ", "b ", "ü", "5", "5.50", "nan", "null", "1e3", "-7", " 8 ", "Infinity", "0x10", "1_0"),
    *(
        "2024-03-01T12:00:00Z",
        "2024-03-01T12:00:00.5+00:00",
        "2024-W09-5T12:00:00Z",
        "1709294400",
        "\0",
        "true",
        "\x7f",
    ),
]
SENTINELS = [{"__bigint": "5"}, {"__buffer_b64": "AA=="}, {"__bigint": "x"}, {"type": "Buffer", "data": [1]}]
ODD = [*TEXTS, *SENTINELS, None, True, 5, -7, 2**33, 1709294400000, 5.5, 7.0, 1e-7, 1e300, [], [1, {"a": None}], {}]
VALUES = st.sampled_from(ODD)


def mostly(*values: object) -> st.SearchStrategy[object]:
    """Values that are not odd, and one in some that is."""
    return st.sampled_from([*values * (8 * len(ODD) // len(values)), *ODD])


RECORDS = st.fixed_dictionaries(
    {"deviceId": mostly("a", "ü", 5), "timestamp": mostly(1709294400000, "2024-03-01T12:00:00.123Z")},
    optional={
        "latitude": mostly(54.7, -25, 1e-7, None),
        "attributes": st.dictionaries(st.sampled_from(["a", "x", "__bigint", "ü"]), VALUES, max_size=3),
        "x": VALUES,
        'y"': mostly(1),
        "speed": mostly(57, 5.5, "7"),
        "satellites": mostly(15),
    },
)
AROUND = st.dictionaries(st.sampled_from(["imei", "ts", "lat", "sats", "x", "codec"]), mostly("5", "5.5"), max_size=2)


@example({"deviceId": "a", "timestamp": 1709294400, "x": {"__bigint": "5"}, "attributes": {"__bigint": "5"}}, {}, False)
@given(RECORDS, AROUND, st.booleans())
def test_the_fast_way_reads_what_the_other_one_reads_or_nothing(
    record: dict[str, Any], around: dict[str, Any], flat: bool
):
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in around.items()}
    of = entry(**(record | texts)) if flat else entry(payload=record, **texts)
    plain = {name: {"timestamp": 1709294400, "attributes": {}}.get(name, 1) for name in record}
    alike = entry(**(plain | texts)) if flat else entry(payload=plain, **dict.fromkeys(texts, "1709294400"))
    for first in (of, alike):
        fast = PlainReader(first.fields, ZONE).row(of.id, of.fields)
        if fast is not None:
            slow = row(of.id, of.fields, ZONE)
            assert fast[:-1] == slow[:-1]
            assert parsed(fast[-1]) == parsed(slow[-1])


INNER = {"deviceId": "inner", "ts": 1709294400}
OF_ENVELOPES = st.sampled_from(
    [INNER, {"data": INNER}, json.dumps(INNER), f" {json.dumps(INNER)}", "v1", "{x", "", None, 5]
)
BESIDE = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["payload", "data", "body", "position", "note"], st.tuples(OF_ENVELOPES, OF_ENVELOPES))
)


@example({"data": ("keepalive", json.dumps(INNER))}, True)
@example({"payload": ("v1", json.dumps(INNER)), "data": (json.dumps(INNER), json.dumps(INNER))}, True)
@example({"position": (None, INNER)}, False)
@given(BESIDE, st.booleans())
def test_where_the_record_is_in_an_entry_is_not_told_by_the_entry_before_it(
    beside: dict[str, tuple[object, object]], flat: bool
):
    around = {"deviceId": "outer", "ts": "2024-03-01T12:00:00Z"}
    first, then = (around | {name: both[which] for name, both in beside.items()} for which in (0, 1))
    texts = {name: value for name, value in then.items() if not flat or isinstance(value, str)}
    of = entry(**texts) if flat else entry(payload=then)
    before = entry(**{name: first[name] for name in texts}) if flat else entry(payload=first)
    alone = outcome(of.fields)
    fast = PlainReader(before.fields, ZONE).row(of.id, of.fields)
    if fast is not None:
        assert isinstance(alone, tuple)
        assert (fast[:-1], parsed(fast[-1])) == (alone[:-1], parsed(alone[-1]))


def test_a_nul_in_a_text_is_rejected_in_the_midst_of_others():
    for good in ({"note": "x", **RECORD}, {"note": "x", "payload": RECORD}):
        found = decoded(entry(**good), entry(**(good | {"note": b"\0"})), entry(**good))
        assert (len(found.batch.lines), len(found.batch.rejected)) == (2, 1)


@given(st.dictionaries(st.binary(max_size=8), st.binary(max_size=30) | st.just(b'{"imei":1}'), max_size=4))
def test_no_entry_whatever_stops_the_others(fields: dict[bytes, bytes]):
    of = Entry(b"7-7", fields)
    found = decode([of, entry(payload=RECORD)], stream="t", aged=NONE_AGED, now=NOW, zone=ZONE)
    assert len(found.batch.lines) + len(found.batch.rejected) == 2


def test_ordinary_records_go_the_fast_way():
    for of in (
        entry(payload=RECORD),
        entry(payload=RECORD | {"ignition": True}, codec="8E", device_id="a"),
        entry(**RECORD, codec="8E"),
        entry(payload=RECORD | {"attributes": {"n": {"__bigint": "5"}, "b": {"__buffer_b64": "AA=="}}}),
    ):
        assert PlainReader(of.fields, ZONE).row(of.id, of.fields) is not None


def test_a_record_of_another_form_than_the_first_is_read_all_the_same():
    first, other = entry(payload=RECORD), entry(**RECORD)
    found = decoded(first, other, entry(payload={"imei": "a"}), entry(payload=RECORD | {"new": 1}))
    rows = [parsed(text) for text in found.batch.lines]
    assert rows[:2] == [ROW, ROW]
    assert rows[2]["attributes"]["new"] == 1
    with pytest.raises(RejectedError):
        row(b"1-1", {b"payload": b"{}"}, ZONE)
    assert [parsed(text) for text in decoded(entry(payload="broken"), first).batch.lines] == [ROW]


NAMES_OF_FIELDS = st.sampled_from(["payload", "data", "deviceId", "ts", "ä", "attributes"])
TEXTS_OF_FIELDS = st.sampled_from(
    ["", "d", '{"a":1}', "ü", "2024-03-01T12:00:00Z", '{"deviceId":"e","ts":1709294400}', " {"]
)
OBJECTS_OF_TEXTS = st.dictionaries(NAMES_OF_FIELDS, TEXTS_OF_FIELDS).map(
    lambda of: of | {"deviceId": "d", "ts": "1709294400"}
)
OF_ONE = st.binary() | (OBJECTS_OF_TEXTS | st.lists(TEXTS_OF_FIELDS, max_size=2)).map(
    lambda of: json.dumps(of, ensure_ascii=False).encode()
)
OF_SEVERAL = OBJECTS_OF_TEXTS.map(lambda of: {name.encode(): value.encode() for name, value in of.items()})


def outcome(given: dict[bytes, bytes]) -> object:
    try:
        return row(b"1-0", given, ZONE)
    except RejectedError:
        return None


@given(OF_SEVERAL | st.dictionaries(st.binary(), st.binary(), min_size=2) | OF_ONE.map(lambda value: {b"field": value}))
@example({b"payload": b'["{\\"deviceId\\":\\"e\\",\\"ts\\":1709294400}"]'})
@example({b"payload": '{"deviceId": "d", "ts": "1709294400"}'.encode("utf-16")})
@example({b"payload": b'{"deviceId": "a", "deviceId": "b", "ts": "1709294400", "x": "\\ud800"}'})
def test_what_is_kept_of_a_rejected_entry_makes_the_row_that_it_made(given: dict[bytes, bytes]):
    kept = raw(Entry(b"1-0", given))
    assert outcome(fields(kept)) == outcome(given)
    assert (
        len(given) > 1 or kept == given[next(iter(given))] or json.loads(kept) == [next(iter(given.values())).decode()]
    )


@pytest.mark.parametrize(
    "value", [b'{"deviceId":"a"}', b'{"deviceId":"a","ts":"1"}', b"no JSON", b"\xff\xfe", b"{}", b"[1]"]
)
def test_an_only_field_is_kept_to_the_byte(value: bytes):
    assert raw(Entry(b"1-0", {b"payload": value})) == value

"""A stream's entries as rows: every form of a record, of its fields and of its time; what is rejected, and how."""

import base64
import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from event_archive.sources.redis_stream.fields import NAMES
from event_archive.sources.redis_stream.plain import PlainReader
from event_archive.sources.redis_stream.records import Decoded, Entry, Position, decode, fields, raw
from event_archive.sources.redis_stream.rows import RejectedError, row
from event_archive.sources.runs import NONE_AGED, AgedTimes
from event_archive_tests.api_server.odd import NO_TIMES, TIMES, UNREADABLE

NOW = datetime(2024, 3, 2, 12, tzinfo=UTC)
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Berlin")
COLUMNS = [*NAMES, "stream_id"]
RECORD = {
    "deviceId": "356307042441013",
    "timestamp": "2024-03-01T12:00:00.000Z",
    "latitude": 54.7146368,
    "longitude": -25.3032016,
    "altitude": 111,
    "angle": 214.5,
    "satellites": 15,
    "speed": 57,
    "priority": 1,
    "attributes": {"239": 1, "ü": "ä", "list": [1.50, None]},
}
ROW = {
    "device_id": "356307042441013",
    "ts": NOON,
    "latitude": 54.7146368,
    "longitude": -25.3032016,
    "altitude": 111.0,
    "angle": 214.5,
    "satellites": 15,
    "speed": 57.0,
    "priority": 1,
    "attributes": {"239": 1, "ü": "ä", "list": [1.50, None]},
}


def entry(key: bytes = b"1709294400000-0", /, **fields: Any) -> Entry:
    """An entry; what is no text is written as JSON."""
    return Entry(key, {name.encode(): _bytes(value) for name, value in fields.items()})


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value, ensure_ascii=False).encode()


def decoded(*entries: Entry, aged: AgedTimes = NONE_AGED) -> Decoded:
    found = decode(entries, stream="telemetry:t", aged=aged, now=NOW, zone=ZONE)
    assert len(found.positions) == len(found.batch.lines)
    return found


def parsed(text: bytes) -> dict[str, Any]:
    """A line of the COPY by its columns."""
    fields = text.removesuffix(b"\n").split(b"\x01")
    assert all(of.startswith(b"\x02") or not re.search(rb"[\r\n\x02]", of) for of in fields), "it needs quotes"
    values = dict(zip(COLUMNS, [of.strip(b"\x02").decode() for of in fields], strict=True))
    numbers = {
        name: (int if name in ("satellites", "priority") else float)(values[name])
        for name in COLUMNS[2:9]
        if values[name]
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)", values["ts"])
    ts = datetime.fromisoformat(values["ts"])
    return {"device_id": values["device_id"], "ts": ts, **numbers, "attributes": json.loads(values["attributes"])}


def only_row(of: Entry) -> dict[str, Any]:
    """The row of an entry, which is the same whether another of its kind comes first or not."""
    found = decoded(of)
    assert found.batch.rejected == []
    (text,) = found.batch.lines
    alone = row(of.id, of.fields, ZONE)
    assert parsed(alone[-1]) == parsed(text)
    assert found.positions == [Position(*alone[:-1])]
    return parsed(text)


def reason(of: Entry) -> str:
    """Why an entry is rejected, whether it is the first of a batch or not; another one is not rejected."""
    found = [decoded(of, entry(payload=RECORD)), decoded(entry(payload=RECORD), of)]
    assert [len(of.batch.lines) for of in found] == [1, 1]
    (first,), (second,) = (of.batch.rejected for of in found)
    assert first == second
    assert first.locator == f"telemetry:t {of.id.decode()}"
    return first.reason


FORMS = {
    "payload": entry(payload=RECORD),
    "data": entry(data=RECORD),
    "body": entry(body=RECORD),
    "position": entry(position=RECORD),
    "the only field": entry(anything=RECORD),
    "flat": entry(**RECORD),
    "flat, numbers with spaces": entry(**(RECORD | {"speed": " 57 ", "altitude": "111.0"})),
    "in an envelope of JSON": entry(payload={"position": RECORD}),
    "in two": entry(message={"body": {"data": RECORD}}),
    "gaps filled by the entry": entry(
        deviceId=RECORD["deviceId"],
        ts="1709294400000",
        payload={k: RECORD[k] for k in RECORD if k not in ("deviceId", "timestamp")},
    ),
    "gaps filled by an envelope": entry(
        payload={"imei": RECORD["deviceId"], "position": {k: RECORD[k] for k in RECORD if k != "deviceId"}}
    ),
    "null is a gap": entry(device_id=RECORD["deviceId"], payload=RECORD | {"deviceId": None}),
    "the envelope says the same": entry(device_id=RECORD["deviceId"], payload=RECORD),
    "the envelope says the same time": entry(ts="1709294400000", payload=RECORD | {"timestamp": 1709294400000}),
    "an empty text is a gap": entry(device_id=RECORD["deviceId"], payload=RECORD | {"deviceId": ""}),
    "an empty text is a gap in JSON": entry(payload=RECORD | {"deviceId": "", "imei": RECORD["deviceId"]}),
    "attributes as a text": entry(payload=RECORD | {"attributes": json.dumps(RECORD["attributes"])}),
    "over several lines": entry(payload=json.dumps(RECORD, indent=2)),
    "in ASCII": entry(payload=json.dumps(RECORD)),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_record_is_the_same_row_in_every_form_and_envelope(name: str):
    # Case 21.
    assert only_row(FORMS[name]) == ROW


@pytest.mark.parametrize(
    ("column", "names"),
    {
        "device_id": ["device_id", "deviceId", "deviceID", "DEVICE_ID", "imei", "IMEI"],
        "ts": ["ts", "time", "timestamp", "Timestamp"],
        "latitude": ["latitude", "lat", "Lat"],
        "longitude": ["longitude", "lon", "lng"],
        "altitude": ["altitude", "alt"],
        "angle": ["angle", "course", "heading"],
        "satellites": ["satellites", "sats"],
        "speed": ["speed"],
        "priority": ["priority"],
    }.items(),
)
def test_a_field_goes_by_its_usual_names(column: str, names: list[str]):
    # Case 21.
    canonical = {"device_id": "deviceId", "ts": "timestamp"}.get(column, column)
    others = {name: value for name, value in RECORD.items() if name != canonical}
    for name in names:
        record = others | {name: RECORD[canonical]}
        assert only_row(entry(payload=record)) == only_row(entry(**record)) == ROW


def test_the_names_of_fields_are_documented():
    page = (Path(__file__).parents[2] / "docs/howto/stream.md").read_text()
    documented = {
        column: tuple(name.lower() for name in re.findall("`([^`]+)`", cell))
        for column, cell in re.findall(r"^\| `(\w+)` \| (`[^|]+) \|$", page, re.MULTILINE)
    }
    assert documented == NAMES


def test_fields_that_fill_no_column_are_kept_beside_the_attributes():
    # Case 21.
    record = RECORD | {"ignition": True, "odometer": 12.50, "239": "taken", "imei": "another", "nested": {"a": None}}
    of = entry(payload=record, codec="8E", received="2024-03-01", ts="another")
    assert only_row(of)["attributes"] == ROW["attributes"] | {  # type: ignore[operator]
        "ignition": True,
        "odometer": 12.5,
        "239_": "taken",
        "imei": "another",
        "nested": {"a": None},
        "codec": "8E",
        "received": "2024-03-01",
        "ts": "another",
    }
    assert only_row(entry(**(RECORD | {"codec": "8E"})))["attributes"]["codec"] == "8E"
    taken = only_row(entry(payload=RECORD | {"239": "taken"}))["attributes"]
    assert (taken["239"], taken["239_"]) == (1, "taken")
    twice = only_row(entry(payload=RECORD | {"codec": 8}, codec="8E"))["attributes"]
    assert (twice["codec"], twice["codec_"]) == (8, "8E")


def test_a_device_may_have_any_name():
    for name in ("a\nb", "\x7f\x02", " ", "\u2028", "ü", "\x1f"):
        of = entry(payload=RECORD | {"deviceId": name})
        (position,) = decoded(of).positions
        assert position.device_id == name
        assert only_row(of)["device_id"] == name.strip("\x02")


def test_a_record_without_attributes_has_empty_ones_or_what_fills_no_column():
    record = {"imei": 356307042441013, "ts": 1709294400}
    assert only_row(entry(payload=record)) == {"device_id": "356307042441013", "ts": NOON, "attributes": {}}
    assert only_row(entry(payload=record | {"attributes": None, "x": 1}))["attributes"] == {"x": 1}
    assert only_row(entry(payload=record | {"attributes": {}, "x": 1}))["attributes"] == {"x": 1}
    assert only_row(entry(imei="1", ts="1709294400", attributes="", speed="", alt="null"))["attributes"] == {}


@pytest.mark.parametrize("token", [of for of in TIMES if TIMES[of] > "2000"])
def test_a_time_is_read_exactly_whatever_its_form(token: bytes):
    expected = datetime.fromisoformat(TIMES[token])
    assert only_row(entry(payload=b'{"imei":"a","ts":%b}' % token))["ts"] == expected
    if token.startswith(b'"') or token.isdigit():
        assert only_row(entry(imei="a", ts=token.strip(b'"')))["ts"] == expected


def test_a_time_without_a_zone_is_of_the_zone_that_is_set():
    for time in ("2024-03-01T13:00:00", "2024-03-01T13:00:00.000000"):
        assert (
            only_row(entry(imei="a", ts=time))["ts"] == only_row(entry(payload={"imei": "a", "ts": time}))["ts"] == NOON
        )


@pytest.mark.parametrize("zone", ["Z", "+00:00"])
def test_digits_behind_the_microseconds_move_no_time_into_the_next_day(zone: str):
    time = f"2024-03-01T23:59:59.9999999{zone}"
    assert only_row(entry(imei="a", ts=time))["ts"] == datetime(2024, 3, 1, 23, 59, 59, 999999, UTC)


@pytest.mark.parametrize("token", NO_TIMES)
def test_what_is_no_time_is_rejected(token: bytes):
    assert "its time" in reason(of := entry(payload=b'{"imei":"a","ts":%b}' % token)) or "no time" in reason(of)


@pytest.mark.parametrize(
    "time", ["1970-01-01T00:00:05Z", "1999-12-31T23:59:59Z", "2024-03-03T12:00:00Z", "2089-01-01T00:00:00Z", "86400"]
)
def test_a_clock_in_1970_or_2089_is_rejected_and_makes_no_day(time: str):
    # Case 14.
    found = decoded(entry(imei="a", ts=time), entry(payload=RECORD | {"timestamp": time}), entry(payload=RECORD))
    assert found.days == {date(2024, 3, 1)}
    assert {of.reason for of in found.batch.rejected} <= {
        "its time is before 2000 or more than a day ahead",
        "its time is not ISO 8601",
    }
    assert len(found.batch.rejected) == 2
    for edge in ("2000-01-01T00:00:00Z", "2024-03-03T11:59:59Z"):
        assert only_row(entry(imei="a", ts=edge))["ts"] == datetime.fromisoformat(edge)


def test_records_whose_day_is_archived_are_left_out_and_counted():
    found = decoded(
        entry(payload=RECORD),
        entry(payload=RECORD | {"timestamp": "2024-02-29T23:59:59Z"}),
        aged=AgedTimes(datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
    )
    assert (len(found.batch.lines), found.batch.too_old, found.days) == (1, 1, {date(2024, 3, 1)})


def test_a_record_from_before_the_first_day_that_is_archived_is_not_left_out():
    """It is in no file, and never purged."""
    found = decoded(
        entry(payload=RECORD | {"timestamp": "2024-02-28T23:59:59Z"}),
        aged=AgedTimes(datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
    )
    assert (len(found.batch.lines), found.batch.too_old) == (1, 0)


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_postgresql_cannot_hold_is_rejected_with_its_bytes(name: str):
    document = UNREADABLE[name].replace(b'"id"', b'"imei"')
    of = entry(payload=document)
    assert reason(of)
    (rejected,) = decoded(of).batch.rejected
    assert rejected.raw == document
    (rejected,) = decoded(entry(imei="a", ts="1709294400", attributes=document)).batch.rejected
    assert rejected.reason.startswith(("its attributes: ", "one of its fields is no UTF-8"))


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (entry(payload="[]"), "it is no object"),
        (entry(payload=""), "it is no JSON: Expecting value: line 1 column 1 (char 0)"),
        (Entry(b"1-1", {}), "it has no fields"),
        (entry(payload={"ts": 1709294400}), "it has no device"),
        (entry(payload={"ts": 1709294400, "imei": ""}), "it has no device"),
        (entry(payload={"ts": 1709294400, "imei": {}}), "its device is neither a text nor a number"),
        (entry(payload={"imei": "a"}), "it has no time"),
        (entry(payload=RECORD | {"latitude": "north"}), "its latitude is no number"),
        (entry(payload=RECORD | {"latitude": True}), "its latitude is no number"),
        (entry(**(RECORD | {"latitude": "nan"})), "its latitude is no number"),
        (entry(**(RECORD | {"latitude": "inf"})), "its latitude is no number"),
        (entry(**(RECORD | {"latitude": "1_0"})), "its latitude is no number"),
        (entry(payload=json.dumps(RECORD).replace("214.5", "1e400")), "its angle is too large a number"),
        (entry(payload=RECORD | {"satellites": 2**31}), "its satellites is no whole number of 32 bits"),
        (entry(payload=RECORD | {"satellites": 1.5}), "its satellites is no whole number of 32 bits"),
        (entry(payload=RECORD | {"attributes": [1]}), "its attributes: it is no object"),
        (entry(payload=RECORD | {"attributes": "{"}), "its attributes: it is no JSON: Expecting property name"),
        (entry(imei="a", ts="1709294400", note=b"\0"), "it holds \\u0000, which PostgreSQL cannot keep"),
        (entry(imei="a", ts="1709294400", payload="{}", note=b"\0"), "it holds \\u0000, which PostgreSQL cannot keep"),
        (entry(imei="a", ts="1709294400", note=b"\xff"), "one of its fields is no UTF-8"),
        (entry(payload=b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"), "it is nested too deeply"),
    ],
)
def test_an_entry_that_cannot_be_a_row_is_rejected_by_its_id_and_the_others_go_on(of: Entry, expected: str):
    # Case 5.
    assert reason(of).startswith(expected)


def test_the_bytes_of_a_rejected_record_can_be_had_back():
    fields = {b"imei": b"a", bytes(range(128, 256)): bytes(range(256)), "ü".encode(): b"\xed\xa0\x80"}
    (rejected,) = decoded(Entry(b"5-1", fields)).batch.rejected
    kept = json.loads(rejected.raw)
    assert {_back(name): _back(value) for name, value in kept.items()} == fields
    assert json.loads(rejected.raw.decode("ascii")) == kept


def _back(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def test_each_line_tells_of_which_entry_it_was_made():
    # Case 5.
    good, bad = entry(b"1-1", payload=RECORD), entry(b"1-2", payload="no")
    old, last = entry(b"1-3", payload=RECORD | {"timestamp": "2020-01-01T00:00:00Z"}), entry(b"1-4", **RECORD)
    batch = decoded(
        good, bad, old, last, aged=AgedTimes(datetime(2015, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC))
    ).batch
    assert batch.origin(0) == ("telemetry:t 1-1", good.fields[b"payload"])
    assert batch.origin(1)[0] == "telemetry:t 1-4"
    assert json.loads(batch.origin(1)[1])["deviceId"] == RECORD["deviceId"]


def attributes_of(text: str) -> str:
    """The attributes of a record that are written so, as the COPY takes them; the same in all forms of a record."""
    device = '"imei":"a","ts":1709294400'
    found = {
        parsed_text(decoded(of).batch.lines[0])
        for of in (
            entry(payload=f'{{{device},"attributes":{text}}}'),
            entry(imei="a", ts="1709294400", attributes=text),
            entry(payload=f'{{"body":{{{device},"attributes":{text}}}}}'),
        )
    }
    (only,) = found
    return only


def parsed_text(text: bytes) -> str:
    return text.split(b"\x01")[-2].strip(b"\x02").decode()


BIG = "123456789012345678901234567890"


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        f'{{"n":{BIG},"e":1e400,"f":1.50}}': f'{{"n":{BIG},"e":1e400,"f":1.50}}',
        f'{{"n":{{"__bigint":"{BIG}"}}}}': f'{{"n":{BIG}}}',
        '{"n":{"__bigint":"-0"}}': '{"n":-0}',
        '{"b":{"__buffer_b64":"3q2+7w=="}}': r'{"b":"\\xdeadbeef"}',
        '{"b":{"__buffer_b64":""}}': r'{"b":"\\x"}',
        '{"b":{"type":"Buffer","data":[222,173, 0]}}': r'{"b":"\\xdead00"}',
        '{"b":{"data":[],"type":"Buffer"}}': r'{"b":"\\x"}',
        '{"a":[{"b":[{"__bigint":"5"},{ "__buffer_b64" : "AA==" }]}],"f":1.50}': r'{"a":[{"b":[5,"\\x00"]}],"f":1.50}',
        '{"n":{"__bigint":"5","unit":"m"}}': '{"n":{"__bigint":"5","unit":"m"}}',
        '{"n":{"unit":"m","__buffer_b64":5}}': '{"n":{"unit":"m","__buffer_b64":5}}',
        '{"n":{"type":"Buffer","data":[1],"x":2}}': '{"n":{"type":"Buffer","data":[1],"x":2}}',
        '{"n":{"__bigint":{"__bigint":"5"},"x":[{"__bigint":"6"}]}}': '{"n":{"__bigint":5,"x":[6]}}',
        r'{"n":{"\u005f_bigint":"5"}}': '{"n":5}',
        r'{"n":"{\"__bigint\":\"5\"}"}': r'{"n":"{\"__bigint\":\"5\"}"}',
    }.items(),
)
def test_numbers_of_any_size_and_bytes_are_read_at_any_depth(text: str, expected: str):
    # Case 20.
    assert attributes_of(text) == expected


def test_sentinels_are_read_in_all_fields():
    record = '{"imei":{"__bigint":"356307042441013"},"ts":{"__bigint":"1709294400000"},"x":{"__buffer_b64":"3q0="}}'
    of = only_row(entry(payload=record))
    assert (of["device_id"], of["ts"], of["attributes"]) == ("356307042441013", NOON, {"x": "\\xdead"})


def test_a_buffer_of_a_mebibyte_is_read():
    # Case 20.
    data = bytes(range(256)) * 4096
    for written in ({"__buffer_b64": base64.b64encode(data).decode()}, {"type": "Buffer", "data": [*data]}):
        assert bytes.fromhex(json.loads(attributes_of(json.dumps({"b": written})))["b"][2:]) == data


@pytest.mark.parametrize(
    "sentinel",
    [
        *('{"__bigint":"5.0"}', '{"__bigint":"0x5"}', '{"__bigint":""}', '{"__bigint":5}', '{"__bigint":null}'),
        *('{"__bigint":"007"}', '{"__bigint":"+5"}', '{"__bigint":"５"}', '{"__bigint":{"__bigint":"5"}}'),
        '{"__bigint":"' + "9" * 131_073 + '"}',
        *(
            '{"__buffer_b64":"3q2+7w="}',
            '{"__buffer_b64":"3q2+ 7w=="}',
            '{"__buffer_b64":"_w=="}',
            '{"__buffer_b64":[]}',
        ),
        *('{"type":"Buffer","data":[256]}', '{"type":"Buffer","data":[-1]}', '{"type":"Buffer","data":[1.0]}'),
        *('{"type":"Buffer","data":["1"]}', '{"type":"Buffer","data":"AA=="}', '{"data":[[1]],"type":"Buffer"}'),
    ],
)
def test_a_malformed_sentinel_rejects_its_record(sentinel: str):
    # Case 20.
    why = reason(entry(payload=f'{{"imei":"a","ts":1709294400,"attributes":{{"deep":[{sentinel}]}}}}'))
    assert why.startswith(("a __bigint in it holds", "a __buffer_b64 in it holds", "a Buffer in it holds"))
    flat = reason(entry(imei="a", ts="1709294400", attributes=f'{{"deep":[{sentinel}]}}'))
    assert flat == f"its attributes: {why}"


def test_a_malformed_sentinel_rejects_its_record_though_its_name_stands_there_again():
    form = {b"payload": b'{"imei":"a","ts":1709294400,"x":1}'}
    twice = {b"payload": b'{"imei":"b","ts":1709294401,"x":{"type":"Buffer","data":[273]},"x":5}'}
    plain = PlainReader(form, ZONE)
    assert plain.row(b"1-0", form) is not None
    assert plain.row(b"1-1", twice) is None


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
